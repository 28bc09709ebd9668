//! Reading jobs: one job, pages, trees, numbers. Every function runs in one short read transaction of its caller.

use chrono::{DateTime, Utc};
use ductile_model::{JobId, JobStatus, format_db, parse_stored};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use tracing::warn;

use crate::rows::{required_text, text};
use crate::{AttemptLog, JobFilter, JobPage, JobView, TreeNode};

/// A stored time; one that can not be read is shown as absent.
pub(crate) fn time(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<DateTime<Utc>>> {
    let Some(stored) = text(row, index)?.filter(|stored| !stored.is_empty()) else { return Ok(None) };
    let at = parse_stored(&stored);
    if at.is_none() {
        warn!(stored, "a stored time can not be read");
    }
    Ok(at)
}

/// Columns of [`view_from_queue`] but for payload and result, which only single jobs show.
const QUEUE_COLUMNS: &str = "q.id, q.status, q.plugin, q.command, q.submitted_by, q.attempt, q.max_attempts,
    q.dedupe_key, q.parent_job_id, q.source_event_id, q.event_context_id, q.created_at, q.started_at, q.completed_at,
    q.next_retry_at, q.last_error, q.enqueued_config_snapshot_id, q.started_config_snapshot_id";

const PAYLOAD_AND_RESULT: &str =
    "q.payload, (SELECT l.result FROM job_log l WHERE l.job_id = q.id ORDER BY l.attempt DESC LIMIT 1)";

const NO_PAYLOAD_AND_RESULT: &str = "NULL, NULL";

fn view_from_queue(row: &Row<'_>) -> rusqlite::Result<JobView> {
    Ok(JobView {
        id: JobId::from(required_text(row, 0)?),
        status: JobStatus::parse(&required_text(row, 1)?).unwrap_or(JobStatus::Dead),
        plugin: required_text(row, 2)?,
        command: required_text(row, 3)?,
        submitted_by: required_text(row, 4)?,
        attempt: row.get(5)?,
        max_attempts: row.get(6)?,
        dedupe_key: text(row, 7)?,
        parent_job_id: text(row, 8)?.map(JobId::from),
        source_event_id: text(row, 9)?,
        event_context_id: text(row, 10)?,
        created_at: time(row, 11)?,
        started_at: time(row, 12)?,
        completed_at: time(row, 13)?,
        next_retry_at: time(row, 14)?,
        last_error: text(row, 15)?,
        enqueued_snapshot: text(row, 16)?,
        started_snapshot: text(row, 17)?,
        payload: text(row, 18)?,
        result: text(row, 19)?,
        from_log: false,
    })
}

/// One job: from the queue, or else from its newest log row.
pub(crate) fn job(connection: &Connection, id: &JobId) -> rusqlite::Result<Option<JobView>> {
    let queued = connection
        .prepare_cached(&format!("SELECT {QUEUE_COLUMNS}, {PAYLOAD_AND_RESULT} FROM job_queue q WHERE q.id = ?1"))?
        .query_row([id.as_str()], view_from_queue)
        .optional()?;
    match queued {
        Some(view) => Ok(Some(view)),
        None => job_from_log(connection, id),
    }
}

fn job_from_log(connection: &Connection, id: &JobId) -> rusqlite::Result<Option<JobView>> {
    let started = if crate::schema::has_column(connection, "job_log", "started_at")? { "started_at" } else { "NULL" };
    let sql = format!(
        "SELECT job_id, status, plugin, command, submitted_by, attempt, parent_job_id, source_event_id,
                event_context_id, created_at, {started}, completed_at, last_error, enqueued_config_snapshot_id,
                started_config_snapshot_id, result
         FROM job_log WHERE job_id = ?1 ORDER BY attempt DESC LIMIT 1"
    );
    connection
        .prepare_cached(&sql)?
        .query_row([id.as_str()], |row| {
            Ok(JobView {
                id: JobId::from(required_text(row, 0)?),
                status: JobStatus::parse(&required_text(row, 1)?).unwrap_or(JobStatus::Dead),
                plugin: required_text(row, 2)?,
                command: required_text(row, 3)?,
                submitted_by: required_text(row, 4)?,
                attempt: row.get(5)?,
                max_attempts: None,
                dedupe_key: None,
                parent_job_id: text(row, 6)?.map(JobId::from),
                source_event_id: text(row, 7)?,
                event_context_id: text(row, 8)?,
                created_at: time(row, 9)?,
                started_at: time(row, 10)?,
                completed_at: time(row, 11)?,
                next_retry_at: None,
                last_error: text(row, 12)?,
                enqueued_snapshot: text(row, 13)?,
                started_snapshot: text(row, 14)?,
                payload: None,
                result: text(row, 15)?,
                from_log: true,
            })
        })
        .optional()
}

/// State of a job, from the queue or the log.
pub(crate) fn status(connection: &Connection, id: &JobId) -> rusqlite::Result<Option<JobStatus>> {
    let word = connection
        .prepare_cached("SELECT status FROM job_queue WHERE id = ?1")?
        .query_row([id.as_str()], |row| required_text(row, 0))
        .optional()?;
    match word {
        Some(word) => Ok(Some(JobStatus::parse(&word).unwrap_or(JobStatus::Dead))),
        None => Ok(job_from_log(connection, id)?.map(|view| view.status)),
    }
}

/// Finished attempts, oldest first.
pub(crate) fn attempts(connection: &Connection, id: &JobId) -> rusqlite::Result<Vec<AttemptLog>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, attempt, status, completed_at, last_error, stderr, result
         FROM job_log WHERE job_id = ?1 ORDER BY attempt",
    )?;
    let rows = statement.query_map([id.as_str()], |row| {
        Ok(AttemptLog {
            log_id: required_text(row, 0)?,
            attempt: row.get(1)?,
            status: required_text(row, 2)?,
            completed_at: time(row, 3)?,
            last_error: text(row, 4)?,
            stderr: text(row, 5)?,
            result: text(row, 6)?,
        })
    })?;
    rows.collect()
}

/// Conditions joined by AND, with their values.
#[derive(Clone, Default)]
pub(crate) struct Conditions {
    clauses: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    /// Adds a clause whose every `?` stands for this one value.
    pub(crate) fn add(&mut self, clause: &str, value: impl Into<Value>) {
        self.values.push(value.into());
        self.clauses.push(clause.replace('?', &format!("?{}", self.values.len())));
    }

    /// Adds a clause of our own words.
    fn add_literal(&mut self, clause: &str) {
        self.clauses.push(clause.to_owned());
    }

    /// Adds a comparison with a pair of values.
    pub(crate) fn add_pair(&mut self, comparison: &str, first: impl Into<Value>, second: impl Into<Value>) {
        self.values.extend([first.into(), second.into()]);
        self.clauses.push(format!("{comparison}(?{}, ?{})", self.values.len() - 1, self.values.len()));
    }

    /// The producer words `webhook` and `relay` also stand for their prefixed forms.
    pub(crate) fn add_producer(&mut self, column: &str, word: &str) {
        if matches!(word, "webhook" | "relay") {
            let clause = format!("({column} = ? OR substr({column}, 1, length(?) + 1) = ? || ':')");
            self.add(&clause, word.to_owned());
        } else {
            self.add(&format!("{column} = ?"), word.to_owned());
        }
    }

    pub(crate) fn sql(&self) -> String {
        if self.clauses.is_empty() { String::new() } else { format!("WHERE {}", self.clauses.join(" AND ")) }
    }

    pub(crate) fn values(&self) -> &[Value] {
        &self.values
    }
}

/// A page of jobs, newest first, without payloads and results.
pub(crate) fn jobs(connection: &Connection, filter: &JobFilter) -> rusqlite::Result<JobPage> {
    let mut conditions = Conditions::default();
    if let Some(plugin) = &filter.plugin {
        conditions.add("q.plugin = ?", plugin.clone());
    }
    if let Some(command) = &filter.command {
        conditions.add("q.command = ?", command.clone());
    }
    if let Some(status) = filter.status {
        conditions.add("q.status = ?", status.as_str().to_owned());
    }
    if let Some(word) = &filter.submitted_by {
        conditions.add_producer("q.submitted_by", word);
    }
    if let Some(from) = filter.from {
        conditions.add("q.created_at >= ?", format_db(from));
    }
    if let Some(to) = filter.to {
        conditions.add("q.created_at <= ?", format_db(to));
    }
    let total = connection.query_row(
        &format!("SELECT count(*) FROM job_queue q {}", conditions.sql()),
        params_from_iter(conditions.values()),
        |row| row.get::<_, i64>(0),
    )?;
    if let Some((created_at, id)) = &filter.after {
        conditions.add_pair("(q.created_at, q.id) < ", created_at.clone(), id.clone());
    }
    let limit = filter.limit.clamp(1, 200);
    let sql = newest(filter, &conditions, total, limit + 1);
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement
        .query_map(params_from_iter(conditions.values()), |row| Ok((view_from_queue(row)?, required_text(row, 20)?)))?;
    let mut rows: Vec<(JobView, String)> = rows.collect::<rusqlite::Result<_>>()?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(|(view, created_at)| (created_at.clone(), view.id.to_string()));
    Ok(JobPage {
        jobs: rows.into_iter().map(|(view, _)| view).collect(),
        total: u64::try_from(total).unwrap_or(0),
        next,
    })
}

/// Beyond this many matches it is dearer to sort them than to walk from the newest job on until a page is full.
const SORTED: i64 = 2000;

/// The statement for the newest jobs under conditions. There is an index by state and creation, so the newest of each
/// state are found without reading what is older, and the page is made of them; few jobs of one plugin are found by
/// that and sorted.
fn newest(filter: &JobFilter, conditions: &Conditions, total: i64, rows: u32) -> String {
    let columns = format!("{QUEUE_COLUMNS}, {NO_PAYLOAD_AND_RESULT}, q.created_at AS made, q.id AS job");
    let order = format!("ORDER BY made DESC, job DESC LIMIT {rows}");
    if filter.plugin.is_some() && total <= SORTED {
        let index = "job_queue_plugin_command_status_idx";
        return format!("SELECT {columns} FROM job_queue q INDEXED BY {index} {} {order}", conditions.sql());
    }
    let states = JobStatus::ALL.into_iter().filter(|state| filter.status.is_none_or(|status| status == *state));
    let newest = states.map(|state| {
        let mut conditions = conditions.clone();
        conditions.add_literal(&format!("q.status = '{state}'"));
        format!(
            "SELECT * FROM (SELECT {columns} FROM job_queue q INDEXED BY job_queue_status_created_at_idx {} {order})",
            conditions.sql()
        )
    });
    format!("{} {order}", newest.collect::<Vec<_>>().join(" UNION ALL "))
}

/// The job and everything it caused, hooks apart: root first, then by creation.
pub(crate) fn tree(connection: &Connection, root: &JobId) -> rusqlite::Result<Option<Vec<TreeNode>>> {
    let sql = format!(
        "WITH RECURSIVE tree (id) AS (
             SELECT ?1
             UNION
             SELECT j.id FROM job_queue j JOIN tree ON j.parent_job_id = tree.id WHERE j.submitted_by <> 'hook'
         )
         SELECT {QUEUE_COLUMNS}, {PAYLOAD_AND_RESULT}, c.step_id, c.pipeline_name,
                json_extract(c.accumulated_json, '$.ductile')
         FROM tree JOIN job_queue q ON q.id = tree.id LEFT JOIN event_context c ON c.id = q.event_context_id
         ORDER BY q.id <> ?1, q.created_at, q.id"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map([root.as_str()], |row| {
        Ok(TreeNode {
            job: view_from_queue(row)?,
            step_id: text(row, 20)?.unwrap_or_default(),
            pipeline: text(row, 21)?.unwrap_or_default(),
            control: text(row, 22)?,
        })
    })?;
    let mut nodes: Vec<TreeNode> = rows.collect::<rusqlite::Result<_>>()?;
    if nodes.first().is_none_or(|first| first.job.id != *root) {
        let Some(job) = job_from_log(connection, root)? else { return Ok(None) };
        nodes.insert(0, TreeNode::alone(job));
    }
    Ok(Some(nodes))
}

/// Ids of the job and of everything it caused, hooks apart: root first, whether or not there is such a job.
pub(crate) fn tree_ids(connection: &Connection, root: &JobId) -> rusqlite::Result<Vec<JobId>> {
    let mut statement = connection.prepare_cached(
        "WITH RECURSIVE tree (id) AS (
             SELECT ?1
             UNION
             SELECT j.id FROM job_queue j JOIN tree ON j.parent_job_id = tree.id WHERE j.submitted_by <> 'hook'
         )
         SELECT id FROM tree",
    )?;
    let rows = statement.query_map([root.as_str()], |row| required_text(row, 0).map(JobId::from))?;
    rows.collect()
}

/// Whether a job is queued or running and has caused nothing yet: what a tree looks like that was just begun.
pub(crate) fn is_open_alone(connection: &Connection, id: &JobId) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT status IN ('queued', 'running')
                    AND NOT EXISTS (SELECT 1 FROM job_queue c WHERE c.parent_job_id = ?1)
             FROM job_queue WHERE id = ?1",
        )?
        .query_row([id.as_str()], |row| row.get(0))
        .optional()
        .map(|alone| alone.unwrap_or(false))
}

/// Breakers that are open.
pub(crate) fn circuits_open(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT count(*) FROM circuit_breakers WHERE state = 'open'")?
        .query_row([], |row| row.get::<_, i64>(0))
        .map(|count| u64::try_from(count).unwrap_or(0))
}

/// Ids of the jobs that were cancelled while an attempt ran.
pub(crate) fn given_up_while_running(connection: &Connection) -> rusqlite::Result<Vec<JobId>> {
    let mut statement = connection.prepare_cached(
        "SELECT id FROM job_queue INDEXED BY job_queue_status_created_at_idx
         WHERE status = 'dead' AND started_at IS NOT NULL AND last_error LIKE 'cancelled by %'",
    )?;
    let rows = statement.query_map([], |row| required_text(row, 0).map(JobId::from))?;
    rows.collect()
}

/// Ids of the jobs in a state, oldest first.
pub(crate) fn ids_in(connection: &Connection, status: JobStatus) -> rusqlite::Result<Vec<JobId>> {
    let mut statement =
        connection.prepare_cached("SELECT id FROM job_queue INDEXED BY job_queue_status_created_at_idx WHERE status = ?1 ORDER BY created_at, rowid")?;
    let rows = statement.query_map(params![status.as_str()], |row| required_text(row, 0).map(JobId::from))?;
    rows.collect()
}
