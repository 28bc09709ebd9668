//! Letting go of what is old: every table by its own age, in small steps, so that no job waits for the housekeeping.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ductile_model::{JobStatus, format_db};
use rusqlite::{Connection, params};
use tracing::{debug, warn};

use crate::scope::Scope;
use crate::{QueueError, Store, schema};

/// Rows that go in one transaction.
const STEP: usize = 100;
/// Rows of one table that go in one round.
const PER_ROUND: usize = 5000;
/// Contexts that go in one round: each is looked for in three places.
const CONTEXTS_PER_ROUND: usize = 1000;

/// How long rows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Terminal jobs, by their end.
    pub job_queue: Duration,
    /// Successful jobs with a dedupe key at least as long: the success window.
    pub dedupe_ttl: Duration,
    /// Log rows, by the end of the attempt; contexts and timings too.
    pub job_log: Duration,
    /// Changes of state, by their time.
    pub job_transitions: Duration,
    /// Claims, by their time.
    pub job_attempts: Duration,
    /// Changes of breakers, by their time.
    pub breaker_transitions: Duration,
}

/// A table that is pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    JobQueue,
    JobLog,
    JobTransitions,
    JobAttempts,
    BreakerTransitions,
    IngressSeen,
    EventContext,
}

impl Table {
    const ALL: [Self; 7] = [
        Self::JobQueue,
        Self::JobLog,
        Self::JobTransitions,
        Self::JobAttempts,
        Self::BreakerTransitions,
        Self::IngressSeen,
        Self::EventContext,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::JobQueue => "job_queue",
            Self::JobLog => "job_log",
            Self::JobTransitions => "job_transitions",
            Self::JobAttempts => "job_attempts",
            Self::BreakerTransitions => "circuit_breaker_transitions",
            Self::IngressSeen => "ingress_seen",
            Self::EventContext => "event_context",
        }
    }

    /// Optional indexes without which a step would read whole tables under the write lock.
    fn indexes(self) -> &'static [&'static str] {
        match self {
            Self::JobQueue => &["job_queue_parent_idx"],
            Self::IngressSeen => &["ingress_seen_expires_idx"],
            Self::EventContext => &[
                "event_context_created_at_idx",
                "job_queue_event_context_idx",
                "job_log_event_context_idx",
                "event_context_parent_idx",
            ],
            Self::JobLog | Self::JobTransitions | Self::JobAttempts | Self::BreakerTransitions => &[],
        }
    }

    fn per_round(self) -> usize {
        if self == Self::EventContext { CONTEXTS_PER_ROUND } else { PER_ROUND }
    }
}

/// What a round deleted, per table that lost rows.
pub type Pruned = Vec<(&'static str, usize)>;

impl Store {
    /// One round of pruning. A table that can not be pruned is said aloud and does not keep the others.
    pub async fn prune(&self, retention: Retention) -> Pruned {
        let mut pruned = Vec::new();
        for table in Table::ALL {
            let mut gone = 0;
            while gone < table.per_round() {
                let step = STEP.min(table.per_round() - gone);
                match self.write(move |scope| prune_step(scope, table, &retention, step)).await {
                    Ok(deleted) => {
                        gone += deleted;
                        if deleted < step {
                            break;
                        }
                    }
                    // The process is about to end.
                    Err(QueueError::Unavailable) => return pruned,
                    Err(error) => {
                        warn!(table = table.name(), %error, "old rows could not be deleted; tried again later");
                        break;
                    }
                }
            }
            if gone > 0 {
                debug!(table = table.name(), rows = gone, "old rows deleted");
                pruned.push((table.name(), gone));
            }
        }
        pruned
    }
}

fn prune_step(scope: &Scope<'_>, table: Table, keep: &Retention, step: usize) -> Result<usize, QueueError> {
    let (connection, now) = (scope.connection(), scope.now());
    for index in table.indexes() {
        if !schema::has_index(connection, index)? {
            debug!(table = table.name(), index, "not pruned: an index is missing; run \"ductile system migrate\"");
            return Ok(0);
        }
    }
    Ok(match table {
        Table::JobQueue => prune_jobs(connection, now, keep, step)?,
        Table::JobLog => prune_log(connection, &before(now, keep.job_log), step)?,
        Table::JobTransitions => prune_transitions(connection, &before(now, keep.job_transitions), step)?,
        Table::JobAttempts => prune_attempts(connection, &before(now, keep.job_attempts), step)?,
        Table::BreakerTransitions => {
            prune_breaker_transitions(connection, &before(now, keep.breaker_transitions), step)?
        }
        Table::IngressSeen => prune_ingress(connection, scope.now_text(), step)?,
        // A job that is still in the queue may be queued again, into its context.
        Table::EventContext => prune_contexts(connection, &before(now, keep.job_log.max(keep.job_queue)), step)?,
    })
}

/// The stored form of the instant that lies this long back; before all times when it can not be told.
pub(crate) fn before(now: DateTime<Utc>, age: Duration) -> String {
    let back = TimeDelta::from_std(age).ok().and_then(|age| now.checked_sub_signed(age));
    back.map_or_else(String::new, format_db)
}

/// Terminal jobs. The index leads to them by their creation, which is never after their end. A job is kept while
/// one of its own children waits or runs; what is further down does not hold it.
fn prune_jobs(connection: &Connection, now: DateTime<Utc>, keep: &Retention, step: usize) -> rusqlite::Result<usize> {
    let ended_before = before(now, keep.job_queue);
    let keyed_before = before(now, keep.job_queue.max(keep.dedupe_ttl));
    let mut delete = connection.prepare_cached(PRUNE_JOBS)?;
    let mut gone = 0;
    for status in JobStatus::ALL.into_iter().filter(|status| status.is_terminal()) {
        gone += delete.execute(params![status.as_str(), ended_before, keyed_before, limit(step - gone)])?;
        if gone >= step {
            break;
        }
    }
    Ok(gone)
}

pub(crate) const PRUNE_JOBS: &str = "DELETE FROM job_queue WHERE rowid IN (
     SELECT q.rowid FROM job_queue q INDEXED BY job_queue_status_created_at_idx
     WHERE q.status = ?1 AND q.created_at < ?2 AND q.completed_at < ?2
       AND (q.dedupe_key IS NULL OR q.status <> 'succeeded' OR q.completed_at < ?3)
       AND NOT EXISTS (SELECT 1 FROM job_queue c WHERE c.parent_job_id = q.id AND c.status IN ('queued', 'running'))
     LIMIT ?4)";

fn prune_log(connection: &Connection, ended_before: &str, step: usize) -> rusqlite::Result<usize> {
    connection.prepare_cached(PRUNE_LOG)?.execute(params![ended_before, limit(step)])
}

pub(crate) const PRUNE_LOG: &str = "DELETE FROM job_log WHERE rowid IN (
     SELECT rowid FROM job_log INDEXED BY job_log_completed_at_idx WHERE completed_at < ?1 ORDER BY completed_at LIMIT ?2)";

fn prune_transitions(connection: &Connection, made_before: &str, step: usize) -> rusqlite::Result<usize> {
    connection.prepare_cached(PRUNE_TRANSITIONS)?.execute(params![made_before, limit(step)])
}

pub(crate) const PRUNE_TRANSITIONS: &str = "DELETE FROM job_transitions WHERE id IN (
     SELECT f.id FROM job_transitions f INDEXED BY job_transitions_created_at_idx
     WHERE f.created_at < ?1
       AND NOT EXISTS (SELECT 1 FROM job_queue q WHERE q.id = f.job_id AND q.status IN ('queued', 'running'))
     ORDER BY f.created_at LIMIT ?2)";

fn prune_attempts(connection: &Connection, made_before: &str, step: usize) -> rusqlite::Result<usize> {
    connection.prepare_cached(PRUNE_ATTEMPTS)?.execute(params![made_before, limit(step)])
}

pub(crate) const PRUNE_ATTEMPTS: &str = "DELETE FROM job_attempts WHERE id IN (
     SELECT f.id FROM job_attempts f INDEXED BY job_attempts_created_at_idx
     WHERE f.created_at < ?1
       AND NOT EXISTS (SELECT 1 FROM job_queue q WHERE q.id = f.job_id AND q.status IN ('queued', 'running'))
     ORDER BY f.created_at LIMIT ?2)";

fn prune_breaker_transitions(connection: &Connection, made_before: &str, step: usize) -> rusqlite::Result<usize> {
    connection.prepare_cached(PRUNE_BREAKER_TRANSITIONS)?.execute(params![made_before, limit(step)])
}

pub(crate) const PRUNE_BREAKER_TRANSITIONS: &str = "DELETE FROM circuit_breaker_transitions WHERE rowid IN (
     SELECT rowid FROM circuit_breaker_transitions INDEXED BY circuit_breaker_transitions_created_at_idx
     WHERE created_at < ?1 ORDER BY created_at LIMIT ?2)";

fn prune_ingress(connection: &Connection, now: &str, step: usize) -> rusqlite::Result<usize> {
    connection.prepare_cached(PRUNE_INGRESS)?.execute(params![now, limit(step)])
}

pub(crate) const PRUNE_INGRESS: &str = "DELETE FROM ingress_seen WHERE rowid IN (
     SELECT rowid FROM ingress_seen INDEXED BY ingress_seen_expires_idx WHERE expires_at < ?1 LIMIT ?2)";

/// Contexts that nothing refers to, leaves first: youngest first, since a leaf is younger than what it grew from.
fn prune_contexts(connection: &Connection, made_before: &str, step: usize) -> rusqlite::Result<usize> {
    connection.prepare_cached(PRUNE_CONTEXTS)?.execute(params![made_before, limit(step)])
}

pub(crate) const PRUNE_CONTEXTS: &str = "DELETE FROM event_context WHERE rowid IN (
     SELECT c.rowid FROM event_context c INDEXED BY event_context_created_at_idx
     WHERE c.created_at < ?1
       AND NOT EXISTS (SELECT 1 FROM job_queue q WHERE q.event_context_id = c.id)
       AND NOT EXISTS (SELECT 1 FROM job_log l WHERE l.event_context_id = c.id)
       AND NOT EXISTS (SELECT 1 FROM event_context d WHERE d.parent_id = c.id)
     ORDER BY c.created_at DESC LIMIT ?2)";

fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
