//! What holds after each step: the rows are those of the model, and on their own they keep the rules.

use std::collections::BTreeSet;

use ductile_model::JobEvent;

use super::breakers::{Breaker, Fact};
use super::row::Row;
use super::world::{SERVICE, World};
use super::*;
use crate::{BreakerState, lineage};

impl World {
    pub(super) fn check(&self) {
        self.check_rows();
        self.check_transitions();
        self.check_attempts_and_logs();
        self.check_rules_on_rows();
        self.check_places();
        self.check_breakers();
    }

    fn check_rows(&self) {
        let found = self.query(&format!("SELECT {} FROM job_queue ORDER BY rowid", Row::COLUMNS), Row::read);
        let expected = self.present();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found, expected);
        }
        assert_eq!(self.site.queue.depth(), self.depth() as u64);
        let facts = self.query("SELECT count(*), ifnull(max(seq), 0) FROM plugin_facts", |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        });
        assert_eq!(facts, [(self.facts, self.facts)], "facts are numbered without gaps");
    }

    /// Each change goes on from the one before, is one of the legal ones, and nothing leaves a terminal state. The
    /// newest is the status.
    fn check_transitions(&self) {
        type Move = (String, Option<String>, String, Option<String>);
        let all: Vec<Move> = self
            .query("SELECT job_id, from_status, to_status, reason FROM job_transitions ORDER BY id", |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            });
        let mut present: BTreeMap<&str, JobStatus> = BTreeMap::new();
        let mut moves: BTreeMap<&str, Vec<(JobStatus, Option<String>)>> = BTreeMap::new();
        for (id, from, to, reason) in &all {
            let from = from.as_deref().map(|word| JobStatus::parse(word).unwrap());
            let to = JobStatus::parse(to).unwrap();
            assert_eq!(present.insert(id, to), from, "{id} goes on from where it was");
            assert!(from.map_or(to == JobStatus::Queued, |from| is_legal(from, to)), "{id}: {from:?} to {to:?}");
            moves.entry(id).or_default().push((to, reason.clone()));
        }
        for job in &self.jobs {
            assert_eq!(moves.get(job.row.id.as_str()), Some(&job.moves), "{}", job.row.id);
        }
        let newest: Vec<(String, String)> = self.query(
            "SELECT q.status, (SELECT to_status FROM job_transitions t WHERE t.job_id = q.id ORDER BY t.id DESC LIMIT 1)
             FROM job_queue q",
            |row| Ok((row.get(0)?, row.get(1)?)),
        );
        newest.iter().for_each(|(status, newest)| assert_eq!(status, newest));
    }

    fn check_attempts_and_logs(&self) {
        let attempts = self.query("SELECT job_id, attempt FROM job_attempts ORDER BY id", |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)?))
        });
        let logs: Vec<(String, String, u32, String)> = self
            .query("SELECT job_id, id, attempt, status FROM job_log ORDER BY attempt", |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            });
        for job in &self.jobs {
            let id = &job.row.id;
            let attempts: Vec<u32> =
                attempts.iter().filter(|(job, _)| job == id).map(|(_, attempt)| *attempt).collect();
            assert_eq!(attempts, (1..=job.claims).collect::<Vec<_>>(), "{id}: attempts grow by one");
            assert!(job.row.attempt <= job.row.max_attempts && job.claims <= job.row.max_attempts, "{id}");
            let mut logged = Vec::new();
            for (_, log_id, attempt, status) in logs.iter().filter(|(job, ..)| job == id) {
                assert_eq!(*log_id, format!("{id}-{attempt}"));
                logged.push((*attempt, JobStatus::parse(status).unwrap()));
            }
            assert_eq!(logged, job.logs, "{id}: every finished attempt is logged once");
        }
    }

    /// Rules that need no model.
    fn check_rules_on_rows(&self) {
        for (what, sql) in [
            (
                "a terminal job has the log row of its end",
                "SELECT q.id FROM job_queue q WHERE q.status NOT IN ('queued', 'running') AND NOT EXISTS
                     (SELECT 1 FROM job_log l WHERE l.id = q.id || '-' || q.attempt AND l.status = q.status
                                                AND l.completed_at = q.completed_at AND l.last_error IS q.last_error)",
            ),
            (
                "times are set exactly when they say something",
                "SELECT id FROM job_queue WHERE (completed_at IS NOT NULL) <> (status NOT IN ('queued', 'running'))
                     OR (status = 'queued' AND started_at IS NOT NULL)
                     OR (status NOT IN ('queued', 'dead') AND started_at IS NULL)
                     OR (next_retry_at IS NOT NULL AND status <> 'queued')",
            ),
            (
                "an attempt that was claimed and not put back has its start",
                "SELECT q.id FROM job_queue q WHERE q.status <> 'queued' AND (q.started_at IS NOT NULL) <> EXISTS
                     (SELECT 1 FROM job_attempts a WHERE a.job_id = q.id AND a.attempt = q.attempt)",
            ),
            (
                "a success has no error and every other end has one",
                "SELECT id FROM job_queue WHERE status NOT IN ('queued', 'running')
                     AND (last_error IS NULL) <> (status = 'succeeded')",
            ),
            (
                "times have the one stored form",
                "SELECT id FROM job_queue WHERE length(created_at) <> 30 OR length(started_at) <> 30
                     OR length(completed_at) <> 30",
            ),
            (
                "what a job was claimed under is a snapshot that was recorded",
                "SELECT id FROM job_queue WHERE (status = 'running' AND started_config_snapshot_id IS NULL)
                     OR (started_config_snapshot_id IS NOT NULL
                         AND started_config_snapshot_id NOT IN (SELECT id FROM config_snapshots))",
            ),
            (
                "a retry by hand has an original",
                "SELECT id FROM job_queue q WHERE source_event_id LIKE 'retry:%' AND NOT EXISTS
                     (SELECT 1 FROM job_transitions t
                      WHERE q.source_event_id = 'retry:' || t.job_id || '/' || q.id)",
            ),
        ] {
            let wrong = self.query(sql, |row| row.get::<_, String>(0));
            assert!(wrong.is_empty(), "{what}: {wrong:?}");
        }
    }

    /// Workers, lanes and keys, those that cancelled processes hold included. A place that was given out under another
    /// configuration may be one too many, so the claims themselves are judged as they come.
    fn check_places(&self) {
        let mut keys = BTreeSet::new();
        for process in &self.processes {
            let row = &self.jobs[self.find(&process.id)].row;
            let is_current = row.status == JobStatus::Running && row.attempt == process.attempt;
            assert_eq!(process.cancellation.is_cancelled(), !is_current, "{row:?}");
            if let Some(key) = &process.dedupe_key {
                assert!(keys.insert((key, &process.plugin, &process.command)), "two of {key} run together");
            }
        }
        let running = self.present().iter().filter(|row| row.status == JobStatus::Running).count();
        let current = self.processes.iter().filter(|process| !process.cancellation.is_cancelled()).count();
        assert_eq!(running, current, "every running row has its process");
    }

    fn check_breakers(&self) {
        type Pair = (String, String);
        let rows: BTreeMap<Pair, Breaker> = self
            .query(
                "SELECT plugin, command, state, failure_count, opened_at, last_failure_at, last_job_id
                 FROM circuit_breakers",
                |row| {
                    let breaker = Breaker {
                        state: BreakerState::parse(&row.get::<_, String>(2)?).unwrap(),
                        failures: row.get(3)?,
                        opened: row.get(4)?,
                        last_failure: row.get(5)?,
                        last_job: row.get(6)?,
                    };
                    Ok(((row.get(0)?, row.get(1)?), breaker))
                },
            )
            .into_iter()
            .collect();
        assert_eq!(rows, self.breakers.rows, "the outcomes in their order explain the breakers");
        let mut facts: BTreeMap<Pair, Vec<Fact>> = BTreeMap::new();
        let found: Vec<(Pair, Fact)> = self.query(
            "SELECT plugin, command, from_state, to_state, failure_count, reason, job_id
             FROM circuit_breaker_transitions ORDER BY rowid",
            |row| {
                let fact = (row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?);
                Ok(((row.get(0)?, row.get(1)?), fact))
            },
        );
        found.into_iter().for_each(|(pair, fact)| facts.entry(pair).or_default().push(fact));
        assert_eq!(facts, self.breakers.facts);
        for (pair, breaker) in &rows {
            check_breaker(pair, breaker, facts.get(pair).map_or(&[], Vec::as_slice));
        }
        for (pair, probes) in &self.breakers.probes {
            let under_way = |id: &&String| self.jobs[self.find(&JobId::from((*id).clone()))].row.is_active();
            assert!(probes.iter().filter(under_way).count() <= 1, "{pair:?} has more than one probe: {probes:?}");
        }
        let by_others = self.jobs.iter().filter(|job| job.row.by != SERVICE);
        for job in by_others {
            assert!(rows.values().all(|breaker| breaker.last_job.as_ref() != Some(&job.row.id)), "{:?}", job.row);
        }
    }

    /// The readers find originals and retries from each other.
    pub(super) async fn check_retries(&self) {
        for row in self.present() {
            let Some((original, _)) =
                row.event.as_deref().and_then(|event| event.strip_prefix("retry:")?.split_once('/'))
            else {
                continue;
            };
            let retry = JobId::from(row.id.clone());
            let view = self.site.queue.job(&retry).await.unwrap().unwrap();
            assert_eq!(lineage::retries(&self.other, &view).unwrap().of, Some(JobId::from(original)));
            let view = self.site.queue.job(&JobId::from(original)).await.unwrap().unwrap();
            assert!(lineage::retries(&self.other, &view).unwrap().by.contains(&retry), "{original} was retried");
        }
    }

    fn query<T>(&self, sql: &str, read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>) -> Vec<T> {
        let mut statement = self.other.prepare_cached(sql).unwrap();
        let rows = statement.query_map([], read).unwrap();
        rows.map(Result::unwrap).collect()
    }
}

fn is_legal(from: JobStatus, to: JobStatus) -> bool {
    let events = [
        JobEvent::Claimed,
        JobEvent::Succeeded,
        JobEvent::Skipped,
        JobEvent::Failed,
        JobEvent::TimedOut,
        JobEvent::Requeued,
        JobEvent::GivenUp,
    ];
    events.into_iter().any(|event| from.apply(event) == Ok(to))
}

/// The facts lead to the row, one from the other.
fn check_breaker(pair: &(String, String), breaker: &Breaker, facts: &[Fact]) {
    let mut state = "closed";
    for (from, to, ..) in facts {
        assert_eq!(from.as_deref().unwrap_or("closed"), state, "{pair:?}: {facts:?}");
        state = to;
    }
    assert_eq!(breaker.state.as_str(), state, "{pair:?}: the newest fact is the state");
    assert_eq!(breaker.opened.is_some(), breaker.state != BreakerState::Closed, "{pair:?}: {breaker:?}");
    assert_eq!(breaker.last_failure.is_some(), breaker.failures > 0, "{pair:?}: {breaker:?}");
}
