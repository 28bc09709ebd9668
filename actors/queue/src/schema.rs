//! The shape the database must have, and what is wrong with one that has another.
//!
//! The expected shape is read from `schema.sql` itself, executed in memory. Only what is *not* required is listed
//! by hand: everything else in the file gates the start.

use std::fmt;

use rusqlite::Connection;

use crate::shape::{Index, Shape, Table, strings};

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

/// Columns that an older database may lack, with what is lost without each.
const OPTIONAL_COLUMNS: [(&str, &str, &str); 2] = [
    ("job_log", "started_at", "the log does not tell how long an attempt ran"),
    ("schedule_entries", "definition", "a changed schedule is taken for the old one"),
];

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

/// Something of the schema that is missing or wrong.
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

    /// What does not work without it.
    pub(crate) fn lost(&self) -> &'static str {
        match self {
            Self::MissingTable(table) => {
                ADDITIVE.iter().find(|(name, ..)| name == table).map_or("the gateway does not start", |(.., lost)| lost)
            }
            Self::MissingColumn { table, column } => {
                let known = OPTIONAL_COLUMNS.iter().find(|(t, c, _)| t == table && c == column);
                known.map_or("rows of this table can not be written", |(.., lost)| lost)
            }
            Self::MissingIndex { index, .. } => index_lost(index),
            Self::WrongIndex(_) | Self::ForeignKey(_) => "the gateway does not start",
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

/// What does not work without an index.
fn index_lost(index: &str) -> &'static str {
    match index {
        "job_queue_parent_idx" => "finished jobs stay in the queue for ever",
        "event_context_created_at_idx"
        | "job_queue_event_context_idx"
        | "job_log_event_context_idx"
        | "event_context_parent_idx" => "contexts stay for ever",
        "job_stopwatch_plugin_recorded_idx" => "old timings stay for ever",
        "ingress_seen_expires_idx" => "marks of events that were seen stay for ever",
        _ => "some queries are slow",
    }
}

/// The step that makes a table and sees to its columns.
pub(crate) fn table_step(table: &str) -> &'static str {
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

/// The step that adds a column.
pub(crate) fn column_step(table: &str, column: &str) -> &'static str {
    match (table, column) {
        (_, "event_context_id") => "queue-context",
        (_, "enqueued_config_snapshot_id" | "started_config_snapshot_id") => "config-snapshots",
        ("plugin_facts", "seq") => "plugin-fact-seq",
        ("job_log", "started_at") => "job-log-started-at",
        ("schedule_entries", "definition") => "schedule-definition",
        (table, _) => table_step(table),
    }
}

/// The step that makes an index of a table that is there.
pub(crate) fn index_step(table: &str, index: &str) -> &'static str {
    match (table, index) {
        (_, CHECKED_INDEX) => "fanout-index",
        ("plugin_facts", index) if index.ends_with("_seq_idx") => "plugin-fact-seq",
        ("plugin_facts", _) => "plugin-facts",
        (table, _) if is_additive(table) => table_step(table),
        _ => "indexes",
    }
}

fn is_additive(table: &str) -> bool {
    ADDITIVE.iter().any(|(name, ..)| *name == table)
}

fn is_optional_column(table: &str, column: &str) -> bool {
    OPTIONAL_COLUMNS.iter().any(|(t, c, _)| (*t, *c) == (table, column))
}

fn is_optional_index(index: &Index) -> bool {
    is_additive(&index.table) || OPTIONAL_INDEXES.contains(&index.name.as_str())
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
    let mut findings = missing(&expected, &actual, Need::Required);
    let checked = (expected.index(CHECKED_INDEX), actual.index(CHECKED_INDEX));
    if let (Some(expected), Some(actual)) = checked
        && !is_same_target(expected, actual)
    {
        findings.push(Finding::WrongIndex(CHECKED_INDEX.to_owned()));
    }
    for table in FREE_OF_FOREIGN_KEYS {
        if actual.table(table).is_some_and(|table| !table.foreign_keys.is_empty()) {
            findings.push(Finding::ForeignKey(table.to_owned()));
        }
    }
    Ok(findings)
}

/// Everything that the database lacks and that does not gate the start.
pub(crate) fn gaps(connection: &Connection) -> rusqlite::Result<Vec<Finding>> {
    Ok(missing(&Shape::expected()?, &Shape::of(connection)?, Need::Optional))
}

/// What a database can do with or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Required,
    Optional,
}

fn missing(expected: &Shape, actual: &Shape, need: Need) -> Vec<Finding> {
    let wanted = |optional: bool| optional == (need == Need::Optional);
    let mut findings = Vec::new();
    for table in expected.tables.iter().filter(|table| wanted(is_additive(&table.name))) {
        if actual.table(&table.name).is_none() {
            findings.push(Finding::MissingTable(table.name.clone()));
        }
    }
    for table in &expected.tables {
        let Some(present) = actual.table(&table.name) else { continue };
        for column in missing_columns(table, present) {
            if wanted(is_additive(&table.name) || is_optional_column(&table.name, column)) {
                findings.push(Finding::MissingColumn { table: table.name.clone(), column: column.to_owned() });
            }
        }
    }
    for index in expected.indexes.iter().filter(|index| wanted(is_optional_index(index))) {
        if actual.index(&index.name).is_none() && actual.table(&index.table).is_some() {
            findings.push(Finding::MissingIndex { table: index.table.clone(), index: index.name.clone() });
        }
    }
    findings
}

fn missing_columns<'a>(expected: &'a Table, present: &'a Table) -> impl Iterator<Item = &'a str> {
    let names = expected.columns.iter().map(|column| column.name.as_str());
    names.filter(|name| present.column(name).is_none())
}

/// Whether two indexes hold the same columns apart in the same way.
fn is_same_target(expected: &Index, actual: &Index) -> bool {
    (&expected.table, expected.unique, expected.column_names()) == (&actual.table, actual.unique, actual.column_names())
}

/// Additive tables that are not there, with what is lost without each.
pub(crate) fn missing_additive(connection: &Connection) -> rusqlite::Result<Vec<(&'static str, &'static str)>> {
    let mut missing = Vec::new();
    for (table, _, lost) in ADDITIVE {
        if !has_table(connection, table)? {
            missing.push((table, lost));
        }
    }
    Ok(missing)
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
