//! The shape the database must have, and what is wrong with one that has another.
//!
//! The expected shape is read from `schema.sql` itself, executed in memory. Only what is *not* required is listed
//! by hand: everything else in the file gates the start.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rusqlite::Connection;

/// The one schema, as text.
pub(crate) const SCHEMA: &str = include_str!("../../../schema.sql");

/// Version of this schema: major × 100 + minor, kept in `PRAGMA user_version`.
pub(crate) const SCHEMA_VERSION: i64 = 100;

/// Tables that an older database may lack, with what is lost without each.
pub(crate) const ADDITIVE: [(&str, &str, &str); 6] = [
    ("vault_audit", "vault-audit", "vault operations leave no audit rows"),
    ("job_stopwatch", "stopwatch", "no timing telemetry is kept"),
    ("job_stopwatch_rollup_daily", "stopwatch-rollup", "no daily timing summaries are kept"),
    ("janitor_heartbeat", "stopwatch-rollup", "the last run of the housekeeping is not kept"),
    ("ingress_seen", "ingress-seen", "replayed events are recognised only by their dedupe keys"),
    ("reload_history", "reload-history", "reloads leave no history"),
];

const OPTIONAL_COLUMNS: [(&str, &str); 2] = [("job_log", "started_at"), ("schedule_entries", "definition")];

pub(crate) const OPTIONAL_INDEXES: [&str; 6] = [
    "job_queue_parent_idx",
    "job_queue_event_context_idx",
    "job_log_event_context_idx",
    "event_context_parent_idx",
    "event_context_created_at_idx",
    "job_stopwatch_plugin_recorded_idx",
];

/// The unique index that recognises redelivered events; its definition matters, not only its name.
const CHECKED_INDEX: &str = "job_queue_event_source_idx";

/// Tables that must not have foreign keys: facts outlive the rows they speak of.
const FREE_OF_FOREIGN_KEYS: [&str; 2] = ["job_transitions", "job_attempts"];

/// Tables, columns and indexes of a database.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Tables in the order of their creation, with their columns.
    pub(crate) tables: Vec<(String, Vec<String>)>,
    /// Indexes by name.
    pub(crate) indexes: BTreeMap<String, IndexShape>,
    order: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct IndexShape {
    pub(crate) table: String,
    pub(crate) unique: bool,
    pub(crate) columns: Vec<String>,
}

/// Something required that is missing or wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    MissingTable(String),
    MissingColumn { table: String, column: String },
    MissingIndex { table: String, index: String },
    WrongIndex(String),
    ForeignKey(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingTable(table) => write!(f, "missing table {table}"),
            Self::MissingColumn { table, column } => write!(f, "missing column {table}.{column}"),
            Self::MissingIndex { index, .. } => write!(f, "missing index {index}"),
            Self::WrongIndex(index) => write!(f, "wrong index {index}"),
            Self::ForeignKey(table) => write!(f, "foreign key on {table}"),
        }
    }
}

impl Finding {
    /// The migration step that mends it.
    pub(crate) fn step(&self) -> &'static str {
        match self {
            Self::MissingTable(table) => table_step(table),
            Self::MissingColumn { table, column } => column_step(table, column),
            Self::MissingIndex { table, index } => index_step(table, index),
            Self::WrongIndex(_) => "fanout-index",
            Self::ForeignKey(_) => "drop-fact-fks",
        }
    }

    /// The line a refused start shows.
    pub(crate) fn refusal(&self) -> String {
        format!(
            "sqlite schema validation failed: {self}; run \"ductile system migrate\" (step {}) with the gateway \
             stopped, before start",
            self.step()
        )
    }
}

fn table_step(table: &str) -> &'static str {
    match table {
        "job_transitions" | "job_attempts" => "job-facts",
        "config_snapshots" => "config-snapshots",
        "circuit_breakers" | "circuit_breaker_transitions" => "breakers",
        "schedule_entries" => "schedules",
        "plugin_state" | "plugin_facts" => "plugin-facts",
        "storage_sequences" => "plugin-fact-seq",
        "job_log" => "job-log-columns",
        table => ADDITIVE.iter().find(|(name, ..)| *name == table).map_or("queue-context", |(_, step, _)| step),
    }
}

fn column_step(table: &str, column: &str) -> &'static str {
    match (table, column) {
        (_, "event_context_id") => "queue-context",
        (_, "enqueued_config_snapshot_id" | "started_config_snapshot_id") => "config-snapshots",
        ("plugin_facts", "seq") => "plugin-fact-seq",
        ("job_log", "started_at") => "job-log-started-at",
        ("schedule_entries", "definition") => "schedule-definition",
        (table, _) => table_step(table),
    }
}

fn index_step(table: &str, index: &str) -> &'static str {
    match (table, index) {
        ("plugin_facts", index) if index.ends_with("_seq_idx") => "plugin-fact-seq",
        ("plugin_facts", _) => "plugin-facts",
        (table, _) if is_additive(table) => table_step(table),
        _ => "indexes",
    }
}

fn is_additive(table: &str) -> bool {
    ADDITIVE.iter().any(|(name, ..)| *name == table)
}

impl Shape {
    /// The shape of this program's schema.
    pub(crate) fn expected() -> rusqlite::Result<Self> {
        let memory = Connection::open_in_memory()?;
        memory.execute_batch(SCHEMA)?;
        Self::of(&memory)
    }

    /// The shape of a database.
    pub(crate) fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let mut shape = Self::default();
        for table in names(connection, "table")? {
            let columns = strings(connection, "SELECT name FROM pragma_table_info(?1) ORDER BY cid", &table)?;
            shape.tables.push((table, columns));
        }
        for index in names(connection, "index")? {
            let table: String = connection.query_row(
                "SELECT tbl_name FROM sqlite_master WHERE type = 'index' AND name = ?1",
                [&index],
                |row| row.get(0),
            )?;
            let unique: bool = connection.query_row(
                "SELECT \"unique\" FROM pragma_index_list(?1) WHERE name = ?2",
                [&table, &index],
                |row| row.get(0),
            )?;
            let columns =
                strings(connection, "SELECT ifnull(name, '') FROM pragma_index_info(?1) ORDER BY seqno", &index)?;
            shape.order.push(index.clone());
            shape.indexes.insert(index, IndexShape { table, unique, columns });
        }
        Ok(shape)
    }

    fn columns(&self, table: &str) -> Option<&Vec<String>> {
        self.tables.iter().find(|(name, _)| name == table).map(|(_, columns)| columns)
    }

    fn required_tables(&self) -> impl Iterator<Item = &(String, Vec<String>)> {
        self.tables.iter().filter(|(table, _)| !is_additive(table))
    }

    fn required_indexes(&self) -> impl Iterator<Item = (&String, &IndexShape)> {
        self.order
            .iter()
            .filter(|name| !OPTIONAL_INDEXES.contains(&name.as_str()))
            .filter_map(|name| self.indexes.get(name).map(|index| (name, index)))
            .filter(|(_, index)| !is_additive(&index.table))
    }
}

/// Whether the file holds no tables of anybody.
pub(crate) fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT NOT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\')",
        [],
        |row| row.get(0),
    )
}

/// Everything required that the database lacks, in the order in which it is reported.
pub(crate) fn findings(connection: &Connection) -> rusqlite::Result<Vec<Finding>> {
    let expected = Shape::expected()?;
    let actual = Shape::of(connection)?;
    let mut findings = Vec::new();
    for (table, _) in expected.required_tables() {
        if actual.columns(table).is_none() {
            findings.push(Finding::MissingTable(table.clone()));
        }
    }
    for (table, columns) in expected.required_tables() {
        let Some(present) = actual.columns(table) else { continue };
        let present: BTreeSet<&String> = present.iter().collect();
        for column in columns {
            let optional = OPTIONAL_COLUMNS.contains(&(table.as_str(), column.as_str()));
            if !optional && !present.contains(column) {
                findings.push(Finding::MissingColumn { table: table.clone(), column: column.clone() });
            }
        }
    }
    for (name, index) in expected.required_indexes() {
        if !actual.indexes.contains_key(name) && actual.columns(&index.table).is_some() {
            findings.push(Finding::MissingIndex { table: index.table.clone(), index: name.clone() });
        }
    }
    let checked = (expected.indexes.get(CHECKED_INDEX), actual.indexes.get(CHECKED_INDEX));
    if let (Some(expected), Some(actual)) = checked
        && expected != actual
    {
        findings.push(Finding::WrongIndex(CHECKED_INDEX.to_owned()));
    }
    for table in FREE_OF_FOREIGN_KEYS {
        if !strings(connection, "SELECT \"table\" FROM pragma_foreign_key_list(?1)", table)?.is_empty() {
            findings.push(Finding::ForeignKey(table.to_owned()));
        }
    }
    Ok(findings)
}

/// Additive tables that the database lacks.
pub(crate) fn missing_additive(connection: &Connection) -> rusqlite::Result<Vec<(&'static str, &'static str)>> {
    let present = names(connection, "table")?;
    let missing = ADDITIVE.iter().filter(|(table, ..)| !present.iter().any(|name| name == table));
    Ok(missing.map(|(table, _, lost)| (*table, *lost)).collect())
}

/// Whether there is a table of this name.
pub(crate) fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    has_object(connection, "table", name)
}

/// Whether there is an index of this name.
pub(crate) fn has_index(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    has_object(connection, "index", name)
}

fn has_object(connection: &Connection, kind: &str, name: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = ?1 AND name = ?2)")?
        .query_row([kind, name], |row| row.get(0))
}

/// Whether a table has a column.
pub(crate) fn has_column(connection: &Connection, table: &str, column: &str) -> rusqlite::Result<bool> {
    Ok(strings(connection, "SELECT name FROM pragma_table_info(?1)", table)?.iter().any(|name| name == column))
}

fn names(connection: &Connection, kind: &str) -> rusqlite::Result<Vec<String>> {
    strings(
        connection,
        "SELECT name FROM sqlite_master WHERE type = ?1 AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid",
        kind,
    )
}

fn strings(connection: &Connection, sql: &str, parameter: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([parameter], |row| row.get(0))?;
    rows.collect()
}
