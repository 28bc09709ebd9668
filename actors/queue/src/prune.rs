//! Taking old timing rows away, or what plugins reported within them.

use chrono::{DateTime, Utc};
use ductile_model::{format_db, untrusted_json};
use rusqlite::{Connection, params, params_from_iter};
use serde_json::value::RawValue;

use crate::read::Conditions;
use crate::rows::required_text;

/// Rows that one transaction looks at. What plugins reported is at most 16 KiB per row, and read as a whole.
pub(crate) const BATCH: u64 = 1000;

/// Which timing rows are meant; absent = all.
#[derive(Debug, Clone)]
pub struct StopwatchFilter {
    /// Recorded before this.
    pub older_than: DateTime<Utc>,
    /// Exact plugin.
    pub plugin: Option<String>,
    /// Exact step.
    pub step: Option<String>,
    /// Exact status word.
    pub status: Option<String>,
}

/// What is taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopwatchPart {
    /// The rows themselves.
    Rows,
    /// Everything that the plugin reported about its inner steps.
    Spans,
    /// The reported inner steps of this name.
    SpansNamed(String),
}

/// What one batch did.
pub(crate) struct Batch {
    pub(crate) affected: u64,
    /// Row after which the next one goes on; `None` when no row is left.
    pub(crate) next: Option<i64>,
}

/// A row that is to be changed, with what its reports become.
struct Edit {
    id: i64,
    /// `None`: the row goes.
    subs: Option<String>,
}

/// Looks at the rows after `after` and changes at most `limit` of them, or only counts those it would change.
pub(crate) fn batch(
    connection: &Connection,
    part: &StopwatchPart,
    filter: &StopwatchFilter,
    (after, limit): (i64, u64),
    mode: ChangeMode,
) -> rusqlite::Result<Batch> {
    let Some((last, next)) = page(connection, after)? else { return Ok(Batch { affected: 0, next: None }) };
    let rows = candidates(connection, part, filter, (after, last))?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let edits: Vec<Edit> = rows.iter().filter_map(|(id, subs)| edit(part, *id, subs)).take(limit).collect();
    if mode == ChangeMode::Apply {
        apply(connection, &edits)?;
    }
    Ok(Batch { affected: edits.len() as u64, next })
}

/// Whether something is done or only counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeMode {
    /// It is done.
    Apply,
    /// It is told what would be done.
    Preview,
}

/// The last of the next rows, matching or not, and where the page after them goes on; `None` when there is no row.
fn page(connection: &Connection, after: i64) -> rusqlite::Result<Option<(i64, Option<i64>)>> {
    let sql = format!(
        "SELECT max(id), count(*) = {BATCH}
         FROM (SELECT id FROM job_stopwatch WHERE id > ?1 ORDER BY id LIMIT {BATCH})"
    );
    connection.prepare_cached(&sql)?.query_row([after], |row| {
        let (last, is_full): (Option<i64>, bool) = (row.get(0)?, row.get(1)?);
        Ok(last.map(|last| (last, Some(last).filter(|_| is_full))))
    })
}

fn candidates(
    connection: &Connection,
    part: &StopwatchPart,
    filter: &StopwatchFilter,
    (after, last): (i64, i64),
) -> rusqlite::Result<Vec<(i64, String)>> {
    let mut conditions = Conditions::default();
    conditions.add("id > ?", after);
    conditions.add("id <= ?", last);
    conditions.add("replace(recorded_at, 'T', ' ') < ?", format_db(filter.older_than));
    for (clause, value) in
        [("plugin = ?", &filter.plugin), ("step_id = ?", &filter.step), ("status = ?", &filter.status)]
    {
        if let Some(value) = value {
            conditions.add(clause, value.clone());
        }
    }
    let subs = match part {
        StopwatchPart::Rows => "''",
        StopwatchPart::Spans | StopwatchPart::SpansNamed(_) => {
            conditions.add("subs_json <> ?", "[]".to_owned());
            "subs_json"
        }
    };
    let sql = format!("SELECT id, {subs} FROM job_stopwatch {} ORDER BY id", conditions.sql());
    let mut statement = connection.prepare_cached(&sql)?;
    let rows =
        statement.query_map(params_from_iter(conditions.values()), |row| Ok((row.get(0)?, required_text(row, 1)?)))?;
    rows.collect()
}

fn edit(part: &StopwatchPart, id: i64, subs: &str) -> Option<Edit> {
    let subs = match part {
        StopwatchPart::Rows => None,
        StopwatchPart::Spans => Some("[]".to_owned()),
        StopwatchPart::SpansNamed(name) => Some(without(subs, name)?),
    };
    Some(Edit { id, subs })
}

/// The reports without those of a name; `None` when there is none of them. What stays is not rewritten.
fn without(subs: &str, name: &str) -> Option<String> {
    let all: Vec<&RawValue> = serde_json::from_str(subs).ok()?;
    let is_named = |span: &&RawValue| untrusted_json::value(span.get()).is_ok_and(|span| span["name"] == name);
    let kept: Vec<&str> = all.iter().filter(|span| !is_named(span)).map(|span| span.get()).collect();
    (kept.len() < all.len()).then(|| format!("[{}]", kept.join(",")))
}

fn apply(connection: &Connection, edits: &[Edit]) -> rusqlite::Result<()> {
    let mut delete = connection.prepare_cached("DELETE FROM job_stopwatch WHERE id = ?1")?;
    let mut update = connection.prepare_cached("UPDATE job_stopwatch SET subs_json = ?2 WHERE id = ?1")?;
    for edit in edits {
        match &edit.subs {
            None => delete.execute([edit.id])?,
            Some(subs) => update.execute(params![edit.id, subs])?,
        };
    }
    Ok(())
}
