//! The end of an attempt, in one transaction: what it produced, the job's next state, the facts about it.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ductile_model::{Decision, FailureReason, JobEvent, JobId, JobStatus, backoff_delay, decide, format_db};
use tracing::{error, warn};

use crate::breaker::{self, Verdict};
use crate::events::{self, FailedMark};
use crate::facts::{self, Origin, PreparedState};
use crate::rows::{AttemptRow, JobRow, NextRow, insert_log, move_job, nanos};
use crate::schedule;
use crate::scope::{Change, Scope};
use crate::state::StateRefusal;
use crate::successors::{self, PreparedRouted};
use crate::{AttemptOutcome, Ended, Finalise, Finalised, Hooks, InterruptKind, QueueError, Routed};

/// A plugin's own `init`, queued by the gateway, did not succeed.
const INIT_FAILED: &str = "plugin.init_failed";

/// The outcome of an attempt with its state already read and its successors already checked.
pub(crate) struct PreparedOutcome {
    /// Without its successors.
    outcome: Arc<Finalise>,
    state: Option<Result<PreparedState, StateRefusal>>,
    routed: Result<PreparedRouted, ContentRefused>,
}

impl PreparedOutcome {
    pub(crate) fn new(mut outcome: Finalise) -> Self {
        let (state, routed) = match &mut outcome.outcome {
            AttemptOutcome::Succeeded { state, routed } => {
                (state.as_ref().map(PreparedState::new), std::mem::take(routed))
            }
            _ => (None, Routed::default()),
        };
        let routed = PreparedRouted::new(routed).map_err(|error| ContentRefused {
            reason: FailureReason::RoutingError,
            text: format!("failed to route events: {error}"),
        });
        Self { outcome: Arc::new(outcome), state, routed }
    }

    /// The outcome without its successors.
    pub(crate) fn outcome(&self) -> Arc<Finalise> {
        self.outcome.clone()
    }
}

/// Why an attempt ended without a verdict.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Interruption {
    Reported(InterruptKind),
    /// Found `running` at the start of the process.
    Crash,
}

/// Stores the outcome of an attempt.
pub(crate) fn finalise(scope: &Scope<'_>, prepared: &PreparedOutcome) -> Result<Finalised, QueueError> {
    let outcome = &*prepared.outcome;
    scope.released(outcome.job.clone(), outcome.attempt);
    let Some(job) = guarded(scope, outcome)? else { return Ok(Finalised::Stale) };
    let produced = produce(scope, &job, prepared)?;
    let end = End {
        hooks: outcome.hooks.as_deref(),
        completed_at: outcome.completed_at,
        duration: outcome.duration,
        spawned: outcome.spawned,
        stderr: outcome.stderr.as_deref(),
        result: outcome.result.as_deref(),
    };
    let status = match (&outcome.outcome, produced) {
        (_, Err(refusal)) => fail(scope, &job, &end, refusal.reason, &refusal.text, Duration::ZERO)?,
        (AttemptOutcome::Succeeded { .. }, Ok(children)) => succeed(scope, &job, &end, children)?,
        (AttemptOutcome::Skipped { reason }, Ok(_)) => skip(scope, &job, &end, reason)?,
        (AttemptOutcome::Failed { reason, error, backoff_base }, Ok(_)) => {
            fail(scope, &job, &end, *reason, error, *backoff_base)?
        }
        (AttemptOutcome::Interrupted(kind), Ok(_)) => interrupt(scope, &job, &end, Interruption::Reported(*kind))?,
    };
    Ok(Finalised::Stored(status))
}

/// The row, if it still runs this attempt. A result of an attempt that was replaced or given up is dropped.
fn guarded(scope: &Scope<'_>, outcome: &Finalise) -> rusqlite::Result<Option<JobRow>> {
    let (status, attempt) = match JobRow::find(scope.connection(), &outcome.job)? {
        Some(job) if job.status == JobStatus::Running && job.attempt == outcome.attempt => return Ok(Some(job)),
        Some(job) => (job.status.as_str(), job.attempt),
        None => ("missing", 0),
    };
    warn!(
        job_id = outcome.job.as_str(),
        attempt = outcome.attempt,
        present_status = status,
        present_attempt = attempt,
        "late result discarded: the job no longer runs this attempt"
    );
    Ok(None)
}

/// Content that can not be kept: it ends the attempt as failed.
#[derive(Clone)]
struct ContentRefused {
    reason: FailureReason,
    text: String,
}

/// What a successful attempt produced: facts and state, and after them its successors. All of it is undone when any
/// part is refused for its content.
fn produce(
    scope: &Scope<'_>,
    job: &JobRow,
    prepared: &PreparedOutcome,
) -> Result<Result<Vec<JobId>, ContentRefused>, QueueError> {
    let routed = match (&prepared.state, &prepared.routed) {
        (Some(Err(refusal)), _) => return Ok(Err(state_refused(refusal))),
        (_, Err(refused)) => return Ok(Err(refused.clone())),
        (None, Ok(routed)) => return Ok(Ok(successors::insert(scope, routed)?)),
        (Some(Ok(state)), Ok(routed)) => match keep(scope, job, state)? {
            Ok(()) => routed,
            Err(refusal) => return Ok(Err(state_refused(&refusal))),
        },
    };
    Ok(Ok(successors::insert(scope, routed)?))
}

fn state_refused(refusal: &StateRefusal) -> ContentRefused {
    ContentRefused { reason: FailureReason::StateError, text: refusal.to_string() }
}

/// Facts and state: both, or neither when one is refused.
fn keep(scope: &Scope<'_>, job: &JobRow, state: &PreparedState) -> Result<Result<(), StateRefusal>, QueueError> {
    let origin = Origin { job: &job.id, plugin: &job.plugin, command: &job.command };
    scope.connection().prepare_cached("SAVEPOINT produce")?.execute([])?;
    let stored = facts::store(scope, &origin, state)?;
    if stored.is_err() {
        scope.connection().prepare_cached("ROLLBACK TO produce")?.execute([])?;
    }
    scope.connection().prepare_cached("RELEASE produce")?.execute([])?;
    Ok(stored)
}

/// What is known about the end of an attempt, whatever its outcome.
pub(crate) struct End<'a> {
    pub(crate) hooks: Option<&'a dyn Hooks>,
    pub(crate) completed_at: DateTime<Utc>,
    pub(crate) duration: Duration,
    pub(crate) spawned: bool,
    pub(crate) stderr: Option<&'a str>,
    pub(crate) result: Option<&'a str>,
}

impl End<'_> {
    /// The log row; `completed_at` is the end's own in the stored form.
    fn log<'a>(&'a self, status: JobStatus, completed_at: &'a str, error: Option<&'a str>) -> AttemptRow<'a> {
        AttemptRow { status, completed_at, error, stderr: self.stderr, result: self.result }
    }
}

fn succeed(scope: &Scope<'_>, job: &JobRow, end: &End<'_>, children: Vec<JobId>) -> Result<JobStatus, QueueError> {
    let status = close(scope, job, JobEvent::Succeeded, end, None)?;
    raise(scope, job, end, &Final { status, error: None, reason: None, is_recovery: false })?;
    scope.finished(job.id.clone(), children);
    scope.publish("job.completed", events::completed(job, end.duration));
    publish_poll(scope, job, status, end, None);
    breaker::count(scope, job, Verdict::Succeeded, end.completed_at)?;
    schedule::succeeded(scope, job, end.completed_at)?;
    Ok(status)
}

fn skip(scope: &Scope<'_>, job: &JobRow, end: &End<'_>, reason: &str) -> Result<JobStatus, QueueError> {
    let explained = serde_json::json!({ "status": "skipped", "reason": reason }).to_string();
    let end = End { result: end.result.or(Some(&explained)), ..*end };
    let status = close(scope, job, JobEvent::Skipped, &end, Some(reason))?;
    scope.finished(job.id.clone(), Vec::new());
    scope.publish("job.skipped", events::skipped(job, reason));
    publish_poll(scope, job, status, &end, None);
    Ok(status)
}

fn fail(
    scope: &Scope<'_>,
    job: &JobRow,
    end: &End<'_>,
    reason: FailureReason,
    error: &str,
    backoff_base: Duration,
) -> Result<JobStatus, QueueError> {
    match decide(reason, job.attempt, job.max_attempts) {
        Decision::Retry => {
            let delay = backoff_delay(backoff_base, job.attempt, scope.jitter());
            requeue(scope, job, end, reason.terminal_status(), error, Some((delay, reason)))
        }
        Decision::Final { status, exhausted } => {
            let event = match status {
                JobStatus::TimedOut => JobEvent::TimedOut,
                JobStatus::Dead => JobEvent::GivenUp,
                _ => JobEvent::Failed,
            };
            let status = close(scope, job, event, end, Some(error))?;
            let ended = Final { status, error: Some(error), reason: Some(reason), is_recovery: false };
            raise(scope, job, end, &ended)?;
            scope.finished(job.id.clone(), Vec::new());
            if end.spawned {
                scope.publish("job.retry_exhausted", events::retry_exhausted(job, reason, exhausted, error));
            }
            publish_bad_end(scope, job, status, end, error, FailedMark::None);
            breaker::count(scope, job, Verdict::Failed, end.completed_at)?;
            Ok(status)
        }
    }
}

/// An attempt without a verdict: back to the queue, or dead when it was the last one.
pub(crate) fn interrupt(
    scope: &Scope<'_>,
    job: &JobRow,
    end: &End<'_>,
    interruption: Interruption,
) -> Result<JobStatus, QueueError> {
    let (attempt, max) = (job.attempt, job.max_attempts);
    if attempt < max {
        let (why, delay) = match interruption {
            Interruption::Crash => ("gateway stopped while it was running", None),
            Interruption::Reported(InterruptKind::Shutdown) => ("gateway shutdown", None),
            Interruption::Reported(InterruptKind::InternalError { backoff_base }) => {
                ("internal error", Some(backoff_delay(backoff_base, attempt, scope.jitter())))
            }
        };
        let text = format!("attempt {attempt} interrupted: {why}");
        let delay = delay.map(|delay| (delay, FailureReason::Interrupted));
        return requeue(scope, job, end, JobStatus::Failed, &text, delay);
    }
    let (text, mark) = match interruption {
        Interruption::Crash => {
            (format!("Job marked dead during crash recovery: max attempts ({max}) reached"), FailedMark::Recovery)
        }
        Interruption::Reported(InterruptKind::Shutdown) => {
            (format!("Job marked dead during shutdown: max attempts ({max}) reached"), FailedMark::None)
        }
        Interruption::Reported(InterruptKind::InternalError { .. }) => {
            (format!("attempt {attempt} interrupted: internal error"), FailedMark::None)
        }
    };
    let status = close(scope, job, JobEvent::GivenUp, end, Some(&text))?;
    let is_recovery = mark == FailedMark::Recovery;
    let ended = Final { status, error: Some(&text), reason: Some(FailureReason::Interrupted), is_recovery };
    raise(scope, job, end, &ended)?;
    scope.finished(job.id.clone(), Vec::new());
    if end.spawned {
        let exhausted = events::retry_exhausted(job, FailureReason::Interrupted, true, &text);
        scope.publish("job.retry_exhausted", exhausted);
    }
    publish_bad_end(scope, job, status, end, &text, mark);
    breaker::count(scope, job, Verdict::Failed, end.completed_at)?;
    Ok(status)
}

/// Gives an active job up. What its process still says is too late; it counts for no breaker.
pub(crate) fn cancel(scope: &Scope<'_>, job: &JobRow, text: &str) -> Result<(), QueueError> {
    let now = scope.now();
    let duration = job.running_for(now);
    let end = End { hooks: None, completed_at: now, duration, spawned: false, stderr: None, result: None };
    let status = terminal(scope, job, JobEvent::GivenUp, &end, Some(text))?;
    if job.status == JobStatus::Running {
        scope.cancelled(job.id.clone(), job.plugin.clone());
        publish_bad_end(scope, job, status, &end, text, FailedMark::Cancelled);
    } else {
        scope.changed(Change::Removed {
            rowid: job.rowid,
            plugin: job.plugin.clone(),
            created: nanos(&job.created_at),
            not_before: job.next_retry_at.as_deref().map(nanos),
        });
        let (kind, data) = events::ended_badly(job, status, text, end.duration, FailedMark::Cancelled);
        scope.publish(kind, data);
    }
    scope.finished(job.id.clone(), Vec::new());
    Ok(())
}

/// Back to the queue with the next attempt number.
fn requeue(
    scope: &Scope<'_>,
    job: &JobRow,
    end: &End<'_>,
    log_status: JobStatus,
    error: &str,
    delay: Option<(Duration, FailureReason)>,
) -> Result<JobStatus, QueueError> {
    let status = moved(job, JobEvent::Requeued)?;
    let not_before = delay.map(|(delay, _)| after(end.completed_at, delay));
    let next = NextRow {
        status,
        attempt: job.attempt + 1,
        completed_at: None,
        next_retry_at: not_before,
        last_error: Some(error),
    };
    insert_log(scope, job, &end.log(log_status, &format_db(end.completed_at), Some(error)))?;
    move_job(scope, job, &next)?;
    scope.changed(Change::Ended { plugin: job.plugin.clone() });
    scope.changed(Change::Queued {
        rowid: job.rowid,
        plugin: job.plugin.clone(),
        created: nanos(&job.created_at),
        not_before: not_before.and_then(|at| at.timestamp_nanos_opt()),
    });
    if let (Some((delay, reason)), Some(not_before)) = (delay, not_before) {
        scope.publish("job.retry_scheduled", events::retry_scheduled(job, reason, delay, not_before));
    }
    Ok(status)
}

/// At most the last instant that the queue can tell from others, some centuries ahead: a wait that ends beyond it must not
/// look like none.
fn after(at: DateTime<Utc>, delay: Duration) -> DateTime<Utc> {
    let last = DateTime::from_timestamp_nanos(i64::MAX);
    TimeDelta::from_std(delay).ok().and_then(|delay| at.checked_add_signed(delay)).map_or(last, |due| due.min(last))
}

/// The terminal end of a running job.
fn close(
    scope: &Scope<'_>,
    job: &JobRow,
    event: JobEvent,
    end: &End<'_>,
    error: Option<&str>,
) -> Result<JobStatus, QueueError> {
    let status = terminal(scope, job, event, end, error)?;
    scope.changed(Change::Ended { plugin: job.plugin.clone() });
    Ok(status)
}

/// A final end.
struct Final<'a> {
    status: JobStatus,
    error: Option<&'a str>,
    reason: Option<FailureReason>,
    is_recovery: bool,
}

/// Queues what the end of a job raises. A hook that can not be built never changes the job, and nobody who waits for the
/// job waits for its hooks.
fn raise(scope: &Scope<'_>, job: &JobRow, end: &End<'_>, ended: &Final<'_>) -> Result<(), QueueError> {
    let Some(hooks) = end.hooks else { return Ok(()) };
    let origin = successors::origin_of(scope, job)?;
    let routed = hooks.raised_by(&Ended {
        job: &job.id,
        plugin: &job.plugin,
        command: &job.command,
        status: ended.status,
        attempt: job.attempt,
        max_attempts: job.max_attempts,
        duration: end.duration,
        result: end.result,
        error: ended.error,
        reason: ended.reason,
        is_recovery: ended.is_recovery,
        origin: origin.as_ref(),
    });
    successors::insert(scope, &PreparedRouted::new(routed)?)?;
    Ok(())
}

fn terminal(
    scope: &Scope<'_>,
    job: &JobRow,
    event: JobEvent,
    end: &End<'_>,
    error: Option<&str>,
) -> Result<JobStatus, QueueError> {
    let status = moved(job, event)?;
    let completed_at = format_db(end.completed_at);
    let next = NextRow {
        status,
        attempt: job.attempt,
        completed_at: Some(&completed_at),
        next_retry_at: None,
        last_error: error,
    };
    move_job(scope, job, &next)?;
    insert_log(scope, job, &end.log(status, &completed_at, error))?;
    if scope.is_scheduled(job) {
        scope.scheduled_job_ended(job);
    }
    Ok(status)
}

/// The one place that asks the life cycle; what it does not know is refused and rolls the operation back.
fn moved(job: &JobRow, event: JobEvent) -> Result<JobStatus, QueueError> {
    job.status.apply(event).map_err(|illegal| QueueError::Invalid { field: "status", message: illegal.to_string() })
}

fn publish_bad_end(scope: &Scope<'_>, job: &JobRow, status: JobStatus, end: &End<'_>, error: &str, mark: FailedMark) {
    let (kind, data) = events::ended_badly(job, status, error, end.duration, mark);
    scope.publish(kind, data);
    publish_poll(scope, job, status, end, Some(error));
    if mark != FailedMark::Cancelled
        && let Some(data) = events::init_failed(job, error)
    {
        error!(
            event = INIT_FAILED,
            job_id = job.id.as_str(),
            plugin = &*job.plugin,
            error,
            "plugin could not be initialised"
        );
        scope.publish(INIT_FAILED, data);
    }
}

fn publish_poll(scope: &Scope<'_>, job: &JobRow, status: JobStatus, end: &End<'_>, error: Option<&str>) {
    if job.command == "poll" && scope.is_scheduled(job) {
        scope.publish("poll.completed", events::poll_completed(job, status, end.duration, error));
    }
}

/// Brings one row of a killed process back. `None` when it no longer runs.
pub(crate) fn recover(
    scope: &Scope<'_>,
    id: &JobId,
    hooks: Option<&dyn Hooks>,
) -> Result<Option<crate::Recovered>, QueueError> {
    let Some(job) = JobRow::find(scope.connection(), id)?.filter(|job| job.status == JobStatus::Running) else {
        return Ok(None);
    };
    let end = End {
        hooks,
        completed_at: scope.now(),
        duration: job.running_for(scope.now()),
        spawned: false,
        stderr: None,
        result: None,
    };
    let status = interrupt(scope, &job, &end, Interruption::Crash)?;
    warn!(
        job_id = job.id.as_str(),
        plugin = &*job.plugin,
        command = job.command,
        attempt = job.attempt,
        max_attempts = job.max_attempts,
        status = status.as_str(),
        "job recovered: it was running when the gateway stopped"
    );
    Ok(Some(crate::Recovered { job: job.id, attempt: job.attempt, status }))
}
