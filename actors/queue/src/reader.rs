//! Read-only access for commands, beside a running gateway or without one.

use std::path::{Path, PathBuf};

use ductile_model::{JobId, format_db};
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use crate::facts::current_state;
use crate::open::readable;
use crate::read::{self, Conditions, time};
use crate::report::{AttemptRow, ContextRow, FactRow, FoundJob, JobRef, LogFilter, LogRow, TransitionRow};
use crate::rows::{required_text, text};
use crate::{AttemptLog, JobView, ReloadRecord, StoreError, TreeNode, history};

/// Shortest part of an id that is looked for.
const SHORTEST_PART: usize = 8;

/// Contexts of a chain at most: a damaged row must not make a command run for ever.
const LONGEST_CHAIN: usize = 10_000;

/// Read-only access for commands, beside a running gateway or without one.
pub struct Reader {
    connection: Connection,
    path: PathBuf,
}

impl Reader {
    /// Opens and validates; never creates, migrates or recovers.
    ///
    /// # Errors
    /// Missing, unreadable or refused.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { connection: readable(path)?, path: path.to_owned() })
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let failed = |source| StoreError::Sqlite { path: self.path.clone(), source };
        let transaction = self.connection.unchecked_transaction().map_err(failed)?;
        work(&transaction).map_err(failed)
    }

    /// Whether the database has a table that an older one may lack.
    ///
    /// # Errors
    /// The database failed.
    pub fn has_table(&self, name: &str) -> Result<bool, StoreError> {
        self.read(|connection| connection.table_exists(None, name))
    }

    /// Newest reloads first.
    ///
    /// # Errors
    /// The database failed.
    pub fn reloads(&self, limit: u32) -> Result<Vec<ReloadRecord>, StoreError> {
        self.read(|connection| history::newest(connection, limit))
    }

    /// The job that an id, or the first or last 8 or more characters of one, stands for.
    ///
    /// # Errors
    /// The database failed.
    pub fn find_job(&self, part: &str) -> Result<FoundJob, StoreError> {
        self.read(|connection| find_job(connection, part))
    }

    /// One job, from the queue or else from its newest log row.
    ///
    /// # Errors
    /// The database failed.
    pub fn job(&self, id: &JobId) -> Result<Option<JobView>, StoreError> {
        self.read(|connection| read::job(connection, id))
    }

    /// The job and everything it caused.
    ///
    /// # Errors
    /// The database failed.
    pub fn tree(&self, root: &JobId) -> Result<Option<Vec<TreeNode>>, StoreError> {
        self.read(|connection| read::tree(connection, root))
    }

    /// Finished attempts with what they printed, oldest first.
    ///
    /// # Errors
    /// The database failed.
    pub fn attempts(&self, id: &JobId) -> Result<Vec<AttemptLog>, StoreError> {
        self.read(|connection| read::attempts(connection, id))
    }

    /// Changes of state, oldest first.
    ///
    /// # Errors
    /// The database failed.
    pub fn transitions(&self, id: &JobId) -> Result<Vec<TransitionRow>, StoreError> {
        self.read(|connection| {
            rows(
                connection,
                "SELECT from_status, to_status, reason, created_at FROM job_transitions WHERE job_id = ?1 ORDER BY id",
                id.as_str(),
                |row| {
                    Ok(TransitionRow {
                        from_status: text(row, 0)?,
                        to_status: required_text(row, 1)?,
                        reason: text(row, 2)?,
                        created_at: time(row, 3)?,
                    })
                },
            )
        })
    }

    /// Claims, oldest first.
    ///
    /// # Errors
    /// The database failed.
    pub fn attempt_rows(&self, id: &JobId) -> Result<Vec<AttemptRow>, StoreError> {
        self.read(|connection| {
            rows(
                connection,
                "SELECT attempt, created_at FROM job_attempts WHERE job_id = ?1 ORDER BY attempt",
                id.as_str(),
                |row| Ok(AttemptRow { attempt: row.get(0)?, created_at: time(row, 1)? }),
            )
        })
    }

    /// Jobs that this one produced, oldest first.
    ///
    /// # Errors
    /// The database failed.
    pub fn children(&self, id: &JobId) -> Result<Vec<JobRef>, StoreError> {
        self.read(|connection| {
            rows(
                connection,
                "SELECT id, plugin, command, status FROM job_queue WHERE parent_job_id = ?1 ORDER BY created_at, id",
                id.as_str(),
                job_ref,
            )
        })
    }

    /// Facts that this job wrote, in the order of the manifest.
    ///
    /// # Errors
    /// The database failed.
    pub fn facts(&self, id: &JobId) -> Result<Vec<FactRow>, StoreError> {
        self.read(|connection| facts_of(connection, id))
    }

    /// The chain of contexts from its root to this one; empty when the context is gone.
    ///
    /// # Errors
    /// The database failed.
    pub fn contexts(&self, leaf: &str) -> Result<Vec<ContextRow>, StoreError> {
        self.read(|connection| contexts(connection, leaf))
    }

    /// Matching log rows before the limit, and the newest of them.
    ///
    /// # Errors
    /// The database failed.
    pub fn logs(&self, filter: &LogFilter) -> Result<(u64, Vec<LogRow>), StoreError> {
        self.read(|connection| logs(connection, filter))
    }

    /// The state row of a plugin, JSON text.
    ///
    /// # Errors
    /// The database failed.
    pub fn plugin_state(&self, plugin: &str) -> Result<Option<String>, StoreError> {
        self.read(|connection| current_state(connection, plugin))
    }
}

fn rows<T>(
    connection: &Connection,
    sql: &str,
    parameter: &str,
    read: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([parameter], |row| read(row))?;
    rows.collect()
}

fn job_ref(row: &rusqlite::Row<'_>) -> rusqlite::Result<JobRef> {
    Ok(JobRef {
        id: JobId::from(required_text(row, 0)?),
        plugin: required_text(row, 1)?,
        command: required_text(row, 2)?,
        status: required_text(row, 3)?,
    })
}

fn find_job(connection: &Connection, part: &str) -> rusqlite::Result<FoundJob> {
    if read::status(connection, &JobId::from(part))?.is_some() {
        return Ok(FoundJob::One(JobId::from(part)));
    }
    let part = part.to_ascii_lowercase();
    if part.len() < SHORTEST_PART {
        return Ok(FoundJob::None);
    }
    let found = rows(
        connection,
        "SELECT id FROM job_queue WHERE substr(id, 1, length(?1)) = ?1 OR substr(id, -length(?1)) = ?1
         UNION
         SELECT job_id FROM job_log
         WHERE job_id IS NOT NULL AND (substr(job_id, 1, length(?1)) = ?1 OR substr(job_id, -length(?1)) = ?1)
         LIMIT 10",
        &part,
        |row| required_text(row, 0).map(JobId::from),
    )?;
    Ok(match found.len() {
        0 => FoundJob::None,
        1 => found.into_iter().next().map_or(FoundJob::None, FoundJob::One),
        _ => FoundJob::Several(found),
    })
}

/// Facts have no index by job. They are looked for where the job's plugin wrote them, from its creation on.
fn facts_of(connection: &Connection, id: &JobId) -> rusqlite::Result<Vec<FactRow>> {
    let Some(job) = read::job(connection, id)? else { return Ok(Vec::new()) };
    let since = job.created_at.map_or_else(String::new, format_db);
    let mut statement = connection.prepare_cached(
        "SELECT seq, fact_type, created_at FROM plugin_facts
         WHERE plugin_name = ?1 AND replace(created_at, 'T', ' ') >= ?2 AND job_id = ?3 ORDER BY seq, rowid",
    )?;
    let rows = statement.query_map([job.plugin.as_str(), since.as_str(), id.as_str()], |row| {
        Ok(FactRow { seq: row.get(0)?, fact_type: required_text(row, 1)?, created_at: time(row, 2)? })
    })?;
    rows.collect()
}

fn contexts(connection: &Connection, leaf: &str) -> rusqlite::Result<Vec<ContextRow>> {
    let mut chain = Vec::new();
    let mut next = Some(leaf.to_owned());
    while let Some(id) = next.take().filter(|_| chain.len() < LONGEST_CHAIN) {
        let found = connection
            .prepare_cached(
                "SELECT id, parent_id, pipeline_name, step_id, accumulated_json FROM event_context WHERE id = ?1",
            )?
            .query_row([&id], |row| {
                Ok(ContextRow {
                    id: required_text(row, 0)?,
                    parent_id: text(row, 1)?.filter(|parent| !parent.is_empty()),
                    pipeline: required_text(row, 2)?,
                    step_id: required_text(row, 3)?,
                    baggage: required_text(row, 4)?,
                    job: None,
                })
            })
            .optional()?;
        let Some(mut context) = found else { break };
        context.job = job_of_context(connection, &id)?;
        next.clone_from(&context.parent_id);
        chain.push(context);
    }
    chain.reverse();
    Ok(chain)
}

fn job_of_context(connection: &Connection, context: &str) -> rusqlite::Result<Option<JobRef>> {
    let queued = connection
        .prepare_cached(
            "SELECT id, plugin, command, status FROM job_queue WHERE event_context_id = ?1
             ORDER BY created_at, id LIMIT 1",
        )?
        .query_row([context], job_ref)
        .optional()?;
    if queued.is_some() {
        return Ok(queued);
    }
    connection
        .prepare_cached(
            "SELECT job_id, plugin, command, status FROM job_log WHERE event_context_id = ?1 AND job_id IS NOT NULL
             ORDER BY created_at, job_id, attempt DESC LIMIT 1",
        )?
        .query_row([context], job_ref)
        .optional()
}

fn logs(connection: &Connection, filter: &LogFilter) -> rusqlite::Result<(u64, Vec<LogRow>)> {
    let mut conditions = Conditions::default();
    for (clause, value) in
        [("job_id = ?", &filter.job_id), ("plugin = ?", &filter.plugin), ("command = ?", &filter.command)]
    {
        if let Some(value) = value {
            conditions.add(clause, value.clone());
        }
    }
    if let Some(status) = filter.status {
        conditions.add("status = ?", status.as_str().to_owned());
    }
    if let Some(word) = &filter.submitted_by {
        conditions.add_producer("submitted_by", word);
    }
    if let Some(from) = filter.from {
        conditions.add("replace(completed_at, 'T', ' ') >= ?", format_db(from));
    }
    if let Some(to) = filter.to {
        conditions.add("replace(completed_at, 'T', ' ') <= ?", format_db(to));
    }
    if let Some(query) = filter.query.as_ref().filter(|query| !query.is_empty()) {
        conditions.add(
            "(last_error LIKE ? ESCAPE '\\' OR stderr LIKE ? ESCAPE '\\' OR result LIKE ? ESCAPE '\\')",
            format!("%{}%", escape_like(query)),
        );
    }
    let total: i64 = connection.query_row(
        &format!("SELECT count(*) FROM job_log {}", conditions.sql()),
        params_from_iter(conditions.values()),
        |row| row.get(0),
    )?;
    let result = if filter.include_result { "result" } else { "NULL" };
    let sql = format!(
        "SELECT id, job_id, plugin, command, status, attempt, submitted_by, created_at, completed_at, last_error,
                stderr, {result}, enqueued_config_snapshot_id, started_config_snapshot_id
         FROM job_log {} ORDER BY completed_at DESC, id DESC LIMIT {}",
        conditions.sql(),
        filter.limit.clamp(1, 200)
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(conditions.values()), |row| {
        Ok(LogRow {
            log_id: required_text(row, 0)?,
            job_id: required_text(row, 1)?,
            plugin: required_text(row, 2)?,
            command: required_text(row, 3)?,
            status: required_text(row, 4)?,
            attempt: row.get(5)?,
            submitted_by: required_text(row, 6)?,
            created_at: time(row, 7)?,
            completed_at: time(row, 8)?,
            last_error: text(row, 9)?,
            stderr: text(row, 10)?,
            result: text(row, 11)?,
            enqueued_snapshot: text(row, 12)?,
            started_snapshot: text(row, 13)?,
        })
    })?;
    Ok((u64::try_from(total).unwrap_or(0), rows.collect::<rusqlite::Result<_>>()?))
}

/// Wildcards of a person's text stand for themselves.
fn escape_like(query: &str) -> String {
    let mut escaped = String::with_capacity(query.len());
    for c in query.chars() {
        if matches!(c, '\\' | '%' | '_') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
