//! Facts with their gapless numbers, and the state row that follows from them.

use ductile_model::{JobId, format_db, new_id};
use rusqlite::{Connection, OptionalExtension, params};

use crate::StateUpdate;
use crate::rows::text;
use crate::scope::Scope;
use crate::state::{STATE_LIMIT, StateObject, StateRefusal};

/// A state update, read and measured before the writer sees it.
#[derive(Debug)]
pub(crate) struct PreparedState {
    object: StateObject,
    fact_types: Vec<String>,
}

impl PreparedState {
    /// Reads the object. The cost is the caller's, not the writer's.
    pub(crate) fn new(update: &StateUpdate) -> Result<Self, StateRefusal> {
        let object = StateObject::parse(&update.json).map_err(|error| StateRefusal::NotAnObject(error.to_string()))?;
        Ok(Self { object, fact_types: update.fact_types.clone() })
    }
}

/// The attempt whose state is stored.
pub(crate) struct Origin<'a> {
    pub(crate) job: &'a JobId,
    pub(crate) plugin: &'a str,
    pub(crate) command: &'a str,
}

/// Writes facts and state. A refusal leaves nothing behind: everything is measured before the first row is written.
pub(crate) fn store(
    scope: &Scope<'_>,
    origin: &Origin<'_>,
    prepared: &PreparedState,
) -> rusqlite::Result<Result<(), StateRefusal>> {
    if prepared.object.is_empty() {
        return Ok(Ok(()));
    }
    let state = match next_state(scope.connection(), origin.plugin, prepared)? {
        Ok(state) => state,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if state.len() > STATE_LIMIT {
        return Ok(Err(StateRefusal::TooLarge));
    }
    let now = format_db(scope.now());
    if !prepared.fact_types.is_empty() {
        insert_facts(scope.connection(), origin, &prepared.fact_types, &state, &now)?;
    }
    scope
        .connection()
        .prepare_cached(
            "INSERT INTO plugin_state (plugin_name, state, updated_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (plugin_name) DO UPDATE SET state = excluded.state, updated_at = excluded.updated_at",
        )?
        .execute(params![origin.plugin, state, now])?;
    Ok(Ok(()))
}

/// With facts the state is replaced by the object; without, the object is merged into it.
fn next_state(
    connection: &Connection,
    plugin: &str,
    prepared: &PreparedState,
) -> rusqlite::Result<Result<String, StateRefusal>> {
    let newer = prepared.object.to_text();
    if !prepared.fact_types.is_empty() {
        return Ok(Ok(newer));
    }
    let Some(present) = current_state(connection, plugin)? else { return Ok(Ok(newer)) };
    let parse = |text: &str| StateObject::parse(text).map_err(|error| error.to_string());
    let merged = parse(&present).and_then(|mut present| {
        present.merge(parse(&newer)?);
        Ok(present.to_text())
    });
    Ok(merged.map_err(|cause| StateRefusal::Unreadable { plugin: plugin.to_owned(), cause }))
}

/// The state row of a plugin, as stored.
pub(crate) fn current_state(connection: &Connection, plugin: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT state FROM plugin_state WHERE plugin_name = ?1")?
        .query_row([plugin], |row| text(row, 0))
        .optional()
        .map(Option::flatten)
}

fn insert_facts(
    connection: &Connection,
    origin: &Origin<'_>,
    fact_types: &[String],
    json: &str,
    now: &str,
) -> rusqlite::Result<()> {
    let count = i64::try_from(fact_types.len()).unwrap_or(i64::MAX);
    let last = allocate(connection, count)?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO plugin_facts (id, seq, plugin_name, fact_type, job_id, command, fact_json, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for (seq, fact_type) in (last - count + 1..).zip(fact_types) {
        insert.execute(params![
            new_id(),
            seq,
            origin.plugin,
            fact_type,
            origin.job.as_str(),
            origin.command,
            json,
            now
        ])?;
    }
    Ok(())
}

/// Takes the next `count` numbers and returns the last of them. They are taken in the transaction that uses them,
/// so none is lost and none is given twice.
fn allocate(connection: &Connection, count: i64) -> rusqlite::Result<i64> {
    let mut take = connection.prepare_cached(
        "UPDATE storage_sequences SET value = value + ?1 WHERE name = 'plugin_facts' RETURNING value",
    )?;
    if let Some(last) = take.query_row([count], |row| row.get(0)).optional()? {
        return Ok(last);
    }
    repair_sequence(connection)?;
    take.query_row([count], |row| row.get(0))
}

/// Raises the counter to the highest number given out, should it be missing or behind.
pub(crate) fn repair_sequence(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO storage_sequences (name, value) VALUES ('plugin_facts', ?1)
         ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value) WHERE value < excluded.value",
        [highest_number(connection)?],
    )?;
    Ok(())
}

/// Whether numbers were given out that the counter does not know of.
pub(crate) fn is_sequence_behind(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT ?1 > ifnull((SELECT value FROM storage_sequences WHERE name = 'plugin_facts'), 0)",
        [highest_number(connection)?],
        |row| row.get(0),
    )
}

/// The highest number is found by going from plugin to plugin along the index, not by reading all facts.
fn highest_number(connection: &Connection) -> rusqlite::Result<i64> {
    let highest: Option<i64> = connection.query_row(
        "WITH RECURSIVE plugins (name) AS (
             SELECT min(plugin_name) FROM plugin_facts
             UNION ALL
             SELECT (SELECT min(plugin_name) FROM plugin_facts WHERE plugin_name > plugins.name)
             FROM plugins WHERE plugins.name IS NOT NULL
         )
         SELECT max((SELECT max(seq) FROM plugin_facts WHERE plugin_name = plugins.name))
         FROM plugins WHERE plugins.name IS NOT NULL",
        [],
        |row| row.get(0),
    )?;
    Ok(highest.unwrap_or(0))
}
