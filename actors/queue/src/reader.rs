//! Read-only access for commands, beside a running gateway or without one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ductile_model::{JobId, format_db};
use ductile_timetable::Entry;
use rusqlite::{Connection, params_from_iter};

use crate::facts::current_state;
use crate::open::readable;
use crate::read::{self, Conditions, time};
use crate::report::{AttemptRow, FactRow, FoundJob, InspectPart, Inspection, LogFilter, LogRow, TransitionRow};
use crate::rows::{required_text, text};
use crate::{
    BreakerReport, JobView, ReloadRecord, ScheduleOverview, ScheduleRow, ScheduledJob, StoreError, TreeNode,
    breaker_rows, history, lineage, schedule, schema,
};

/// The end of an attempt in one form, without the zone: older rows have a `T` and fewer digits.
const ENDED: &str = "substr(rtrim(replace(completed_at, 'T', ' '), 'Z') || iif(instr(completed_at, '.'), '', '.')
    || '000000000', 1, 29)";

/// Shortest part of an id that is looked for.
const SHORTEST_PART: usize = 8;

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

    /// A job in full, in one transaction: no part is older or newer than another.
    ///
    /// # Errors
    /// The database failed.
    pub fn inspect(&self, id: &JobId, parts: &[InspectPart]) -> Result<Option<Inspection>, StoreError> {
        self.read(|connection| inspect(connection, id, parts))
    }

    /// The job and everything it caused.
    ///
    /// # Errors
    /// The database failed.
    pub fn tree(&self, root: &JobId) -> Result<Option<Vec<TreeNode>>, StoreError> {
        self.read(|connection| read::tree(connection, root))
    }

    /// The breaker of a pair, with its latest changes.
    ///
    /// # Errors
    /// The database failed.
    pub fn breaker(&self, plugin: &str, command: &str, limit: u32) -> Result<BreakerReport, StoreError> {
        self.read(|connection| breaker_rows::report(connection, plugin, command, limit))
    }

    /// What there is to know about these schedules, and rows of such that are not among them.
    ///
    /// # Errors
    /// The database failed.
    pub fn schedules(&self, entries: &[Arc<Entry>]) -> Result<ScheduleOverview, StoreError> {
        self.read(|connection| schedule::overview(connection, entries))
    }

    /// The rows of all schedules, by plugin and id.
    ///
    /// # Errors
    /// The database failed.
    pub fn schedule_rows(&self) -> Result<Vec<ScheduleRow>, StoreError> {
        self.read(schedule::all)
    }

    /// Jobs that the scheduler of this service name queued and that wait or run, oldest first.
    ///
    /// # Errors
    /// The database failed.
    pub fn scheduled_jobs(&self, service: &str) -> Result<Vec<ScheduledJob>, StoreError> {
        self.read(|connection| schedule::outstanding(connection, service))
    }

    /// Tables that an older database may lack and this one does, with what is lost without each.
    ///
    /// # Errors
    /// The database failed.
    pub fn missing_tables(&self) -> Result<Vec<(&'static str, &'static str)>, StoreError> {
        self.read(schema::missing_additive)
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

fn inspect(connection: &Connection, id: &JobId, parts: &[InspectPart]) -> rusqlite::Result<Option<Inspection>> {
    let Some(job) = read::job(connection, id)? else { return Ok(None) };
    let (caused, log) = (parts.contains(&InspectPart::Caused), parts.contains(&InspectPart::Log));
    let contexts = match &job.event_context_id {
        Some(leaf) => lineage::contexts(connection, leaf)?,
        None => Vec::new(),
    };
    Ok(Some(Inspection {
        contexts,
        transitions: transitions(connection, id)?,
        attempts: rows(
            connection,
            "SELECT attempt, created_at FROM job_attempts WHERE job_id = ?1 ORDER BY attempt",
            id.as_str(),
            |row| Ok(AttemptRow { attempt: row.get(0)?, created_at: time(row, 1)? }),
        )?,
        children: lineage::children(connection, id)?,
        facts: facts_of(connection, &job)?,
        retries: lineage::retries(connection, &job)?,
        caused: caused.then(|| lineage::caused(connection, id)).transpose()?,
        log: log.then(|| read::attempts(connection, id)).transpose()?,
        job,
    }))
}

fn transitions(connection: &Connection, id: &JobId) -> rusqlite::Result<Vec<TransitionRow>> {
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

/// Facts have no index by job. They are looked for where the job's plugin wrote them, from its creation on; times of
/// the older form, with a `T`, come after all others of their day, so none is passed over.
fn facts_of(connection: &Connection, job: &JobView) -> rusqlite::Result<Vec<FactRow>> {
    let since = job.created_at.map_or_else(String::new, format_db);
    let mut statement = connection.prepare_cached(
        "SELECT seq, fact_type, created_at FROM plugin_facts
         WHERE plugin_name = ?1 AND created_at >= ?2 AND job_id = ?3 ORDER BY seq, rowid",
    )?;
    let rows = statement.query_map([job.plugin.as_str(), since.as_str(), job.id.as_str()], |row| {
        Ok(FactRow { seq: row.get(0)?, fact_type: required_text(row, 1)?, created_at: time(row, 2)? })
    })?;
    rows.collect()
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
    // The first half of each finds the rows along the index, a few too many of those whose times have an older form.
    if let Some(from) = filter.from {
        let clause = format!("(completed_at >= substr(?, 1, 19) AND {ENDED} >= substr(?, 1, 29))");
        conditions.add(&clause, format_db(from));
    }
    if let Some(to) = filter.to {
        let clause =
            format!("(completed_at <= substr(replace(?, ' ', 'T'), 1, 19) || 'Z' AND {ENDED} <= substr(?, 1, 29))");
        conditions.add(&clause, format_db(to));
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
    // Newest first, until the page is full: no sorting of what is older.
    let index = if filter.job_id.is_some() { "job_log_job_id_attempt_idx" } else { "job_log_completed_at_idx" };
    let sql = format!(
        "SELECT id, job_id, plugin, command, status, attempt, submitted_by, created_at, completed_at, last_error,
                stderr, {result}, enqueued_config_snapshot_id, started_config_snapshot_id
         FROM job_log INDEXED BY {index} {} ORDER BY completed_at DESC, id DESC LIMIT {}",
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
