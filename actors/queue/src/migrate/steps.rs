//! The steps in their order, and what each of them has to change in a given database.

use std::path::Path;

use rusqlite::Connection;

use crate::facts;
use crate::migrate::values::{self, Form};
use crate::migrate::{MigrateError, MigrationExtent, rebuild};
use crate::open::refusal;
use crate::schema::{column_step, index_step, table_step};
use crate::shape::{Column, Shape, Table};

/// One step. Tables, columns and indexes know to which one they belong.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    additive: bool,
    work: Work,
}

enum Work {
    /// Makes the tables, columns and indexes of this step.
    Objects,
    /// The same, then rows of the log learn their job.
    ObjectsAndJobIds,
    /// The same, then the counter of facts learns the last number.
    ObjectsAndCounter,
    /// Tables lose their references to others.
    ForeignKeys,
    /// Values get the stored form.
    Values(Form),
}

const fn step(name: &'static str, work: Work) -> Step {
    Step { name, additive: false, work }
}

const fn additive(name: &'static str) -> Step {
    Step { name, additive: true, work: Work::Objects }
}

/// Rows are converted last, when no table is copied any more.
static STEPS: [Step; 20] = [
    step("job-facts", Work::Objects),
    step("queue-context", Work::Objects),
    step("config-snapshots", Work::Objects),
    step("breakers", Work::Objects),
    step("schedules", Work::Objects),
    step("plugin-facts", Work::Objects),
    step("plugin-fact-seq", Work::ObjectsAndCounter),
    step("job-log-columns", Work::ObjectsAndJobIds),
    step("job-log-started-at", Work::Objects),
    step("indexes", Work::Objects),
    step("fanout-index", Work::Objects),
    step("drop-fact-fks", Work::ForeignKeys),
    additive("vault-audit"),
    additive("stopwatch"),
    additive("stopwatch-rollup"),
    step("schedule-definition", Work::Objects),
    additive("ingress-seen"),
    additive("reload-history"),
    step("text-json", Work::Values(Form::JsonText)),
    step("time-format", Work::Values(Form::Time)),
];

/// Whether a step may run beside a gateway.
pub(crate) fn is_additive(name: &str) -> bool {
    STEPS.iter().any(|step| step.name == name && step.additive)
}

/// One thing that a step changes.
enum Change<'a> {
    /// With all its indexes.
    CreateTable(&'a Table),
    /// Columns that come behind all that are there.
    AppendColumns(&'a Table, Vec<&'a Column>),
    /// Columns that have their place before others.
    InsertColumns(&'a Table),
    /// Columns that are all there, but not as they are declared now.
    Redeclare(&'a Table),
    CreateIndex(&'a str),
    ReplaceIndex(&'a str),
}

/// Which steps a database needs.
pub(crate) struct Plan {
    steps: Vec<(&'static Step, bool)>,
}

impl Plan {
    pub(crate) fn of(connection: &Connection, extent: MigrationExtent) -> Result<Self, StepError> {
        let (expected, actual) = (Shape::expected()?, Shape::of(connection)?);
        if extent == MigrationExtent::All {
            refuse_columns_without_value(&expected, &actual)?;
        }
        let wanted = STEPS.iter().filter(|step| extent == MigrationExtent::All || step.additive);
        let steps = wanted.map(|step| Ok((step, step.is_needed(connection, &expected, &actual, extent)?)));
        Ok(Self { steps: steps.collect::<rusqlite::Result<_>>()? })
    }

    pub(crate) fn steps(&self) -> impl Iterator<Item = (&'static Step, bool)> {
        self.steps.iter().copied()
    }

    pub(crate) fn needs_work(&self) -> bool {
        self.steps.iter().any(|(_, needed)| *needed)
    }

    /// Whether more is written than new tables.
    pub(crate) fn rewrites_rows(&self) -> bool {
        self.steps.iter().any(|(step, needed)| *needed && !step.additive)
    }
}

/// Why a step can not be done.
pub(crate) enum StepError {
    Sqlite(rusqlite::Error),
    NoValue { table: String, column: String },
}

impl From<rusqlite::Error> for StepError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl StepError {
    /// The error as of the whole migration.
    pub(crate) fn at(self, path: &Path) -> MigrateError {
        match self {
            Self::Sqlite(error) => refusal(path)(error).into(),
            Self::NoValue { table, column } => MigrateError::CanNotMigrate { table, column },
        }
    }

    /// The error of one step.
    pub(crate) fn at_step(self, step: &'static str, path: &Path) -> MigrateError {
        MigrateError::Step { step, cause: self.at(path).to_string() }
    }
}

/// Nothing is begun that can not be brought to an end.
fn refuse_columns_without_value(expected: &Shape, actual: &Shape) -> Result<(), StepError> {
    for table in &expected.tables {
        let Some(present) = actual.table(&table.name) else { continue };
        let no_value = |column: &&Column| (column.not_null && column.default.is_none()) || column.key > 0;
        let missing = table.columns.iter().filter(|column| present.column(&column.name).is_none()).find(no_value);
        if let Some(column) = missing {
            return Err(StepError::NoValue { table: table.name.clone(), column: column.name.clone() });
        }
    }
    Ok(())
}

impl Step {
    fn is_needed(
        &self,
        connection: &Connection,
        expected: &Shape,
        actual: &Shape,
        extent: MigrationExtent,
    ) -> rusqlite::Result<bool> {
        if !changes(self.name, expected, actual, extent).is_empty() {
            return Ok(true);
        }
        let has = |table: &str, column: &str| actual.table(table).is_some_and(|table| table.column(column).is_some());
        match self.work {
            Work::Objects => Ok(false),
            Work::ObjectsAndJobIds => Ok(has("job_log", "job_id") && values::lacks_job_ids(connection)?),
            Work::ObjectsAndCounter => Ok(has("plugin_facts", "seq") && facts::is_sequence_behind(connection)?),
            Work::ForeignKeys => Ok(tables_with_references(expected, actual).next().is_some()),
            Work::Values(form) => values::needs_rewriting(connection, form, expected, actual),
        }
    }

    /// Makes the database what this step promises. Gives what was left as it is.
    pub(crate) fn apply(
        &self,
        connection: &Connection,
        expected: &Shape,
        extent: MigrationExtent,
    ) -> Result<Vec<String>, StepError> {
        let actual = Shape::of(connection)?;
        let mut left = Vec::new();
        for change in changes(self.name, expected, &actual, extent) {
            left.extend(change.make(connection, expected, &actual)?);
        }
        match self.work {
            Work::Objects => {}
            Work::ObjectsAndJobIds => values::fill_job_ids(connection)?,
            Work::ObjectsAndCounter => facts::repair_sequence(connection)?,
            Work::ForeignKeys => {
                for (table, present) in tables_with_references(expected, &actual) {
                    rebuild::rebuild(connection, expected, table, present)?;
                }
            }
            Work::Values(form) => left.extend(values::rewrite(connection, form, expected, &actual)?),
        }
        Ok(left)
    }
}

fn tables_with_references<'a>(expected: &'a Shape, actual: &'a Shape) -> impl Iterator<Item = (&'a Table, &'a Table)> {
    let known = expected.tables.iter().filter_map(|table| Some((table, actual.table(&table.name)?)));
    known.filter(|(_, present)| !present.foreign_keys.is_empty())
}

/// What a step has to change in this database.
fn changes<'a>(step: &str, expected: &'a Shape, actual: &Shape, extent: MigrationExtent) -> Vec<Change<'a>> {
    let mut changes = Vec::new();
    for table in &expected.tables {
        match actual.table(&table.name) {
            None if table_step(&table.name) == step => changes.push(Change::CreateTable(table)),
            Some(present) if extent == MigrationExtent::All => changes.extend(column_change(step, table, present)),
            _ => {}
        }
    }
    for index in expected.indexes.iter().filter(|index| index_step(&index.table, &index.name) == step) {
        match actual.index(&index.name) {
            _ if actual.table(&index.table).is_none() => {}
            None => changes.push(Change::CreateIndex(&index.name)),
            Some(present) if present != index && extent == MigrationExtent::All => {
                changes.push(Change::ReplaceIndex(&index.name));
            }
            Some(_) => {}
        }
    }
    changes
}

fn column_change<'a>(step: &str, table: &'a Table, present: &Table) -> Option<Change<'a>> {
    let is_mine = |column: &&Column| column_step(&table.name, &column.name) == step;
    let missing: Vec<&Column> =
        table.columns.iter().filter(|column| present.column(&column.name).is_none()).filter(is_mine).collect();
    let is_in_order = is_in_order(table, present, &missing);
    if !missing.is_empty() {
        return Some(if is_in_order { Change::AppendColumns(table, missing) } else { Change::InsertColumns(table) });
    }
    let is_owner = table_step(&table.name) == step;
    (is_owner && !(is_in_order && is_declared_alike(table, present))).then_some(Change::Redeclare(table))
}

/// Whether the columns that are known stand in their order when some more come behind them.
fn is_in_order(table: &Table, present: &Table, more: &[&Column]) -> bool {
    let there = present.columns.iter().map(|column| column.name.as_str());
    let names: Vec<&str> = there
        .filter(|name| table.column(name).is_some())
        .chain(more.iter().map(|column| column.name.as_str()))
        .collect();
    let wanted = table.columns.iter().map(|column| column.name.as_str()).filter(|name| names.contains(name));
    wanted.eq(names.iter().copied())
}

fn is_declared_alike(table: &Table, present: &Table) -> bool {
    let columns = table.columns.iter().all(|column| present.column(&column.name).is_none_or(|there| there == column));
    columns
        && table.unique.is_subset(&present.unique)
        && (table.autoincrement, table.has_rowid) == (present.autoincrement, present.has_rowid)
}

impl Change<'_> {
    fn make(&self, connection: &Connection, expected: &Shape, actual: &Shape) -> rusqlite::Result<Option<String>> {
        match self {
            Self::CreateTable(table) => {
                connection.execute_batch(expected.statement(&table.name))?;
                let indexes = expected.indexes.iter().filter(|index| index.table == table.name);
                for index in indexes {
                    create_index(connection, expected, &index.name)?;
                }
            }
            Self::AppendColumns(table, columns) => {
                for column in columns {
                    rebuild::append_column(connection, &table.name, column)?;
                }
            }
            Self::InsertColumns(table) => {
                if let Some(present) = actual.table(&table.name) {
                    rebuild::rebuild(connection, expected, table, present)?;
                }
            }
            Self::Redeclare(table) => {
                if let Some(present) = actual.table(&table.name) {
                    return rebuild::redeclare(connection, expected, table, present);
                }
            }
            Self::CreateIndex(name) | Self::ReplaceIndex(name) => create_index(connection, expected, name)?,
        }
        Ok(None)
    }
}

/// An index of that name may be there with another definition, even on another table.
fn create_index(connection: &Connection, expected: &Shape, name: &str) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("DROP INDEX IF EXISTS {name};"))?;
    connection.execute_batch(expected.statement(name))
}
