//! From what was seen of a process to the outcome that is stored.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use ductile_config::Manifest;
use ductile_model::{EventHub, FailureReason};
use ductile_queue::{AttemptOutcome, ClaimedJob, InterruptKind, ProcessEnding, StateUpdate, Stopwatch};
use ductile_router::RouteError;
use serde_json::json;
use serde_json::value::RawValue;

use crate::builtin;
use crate::events::{self, JobLabel};
use crate::json;
use crate::judge::{Evidence, Judgement, Verdict, describe, judge};
use crate::process::{Exit, STDERR_CAP, Seen};
use crate::redact::Guard;
use crate::response::{self, LogLevel, Spans};
use crate::routing::Routing;

/// Bytes of the spans of one attempt that are kept.
const SPANS_CAP: usize = 16_384;
const NO_SPANS: &str = "[]";

/// Bytes of an undecodable stdout that are kept.
const RAW_CAP: usize = 65_536;

/// What an attempt came to, as far as its process is concerned.
#[derive(Debug)]
pub(crate) struct Conclusion {
    pub(crate) outcome: AttemptOutcome,
    pub(crate) stderr: Option<String>,
    pub(crate) result: Option<String>,
    pub(crate) stopwatch: Option<Stopwatch>,
}

/// When things happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// The attempt began.
    pub(crate) begun: Instant,
    /// Its process did.
    pub(crate) began: Instant,
    /// The exit of that was seen.
    pub(crate) exited: Instant,
    /// Wall clock, after the pipes were served to their end: about now.
    pub(crate) now: DateTime<Utc>,
}

/// What the conclusion needs to know beside what was seen.
pub(crate) struct Terms<'a> {
    pub(crate) label: &'a JobLabel,
    pub(crate) manifest: &'a Manifest,
    pub(crate) limit: Duration,
    pub(crate) backoff_base: Duration,
    pub(crate) guard: &'a Guard,
    pub(crate) hub: &'a EventHub,
    pub(crate) timing: Timing,
    pub(crate) job: &'a ClaimedJob,
    pub(crate) routing: &'a dyn Routing,
}

/// Judges a process and prepares what is stored of it. Delivered secrets are taken out of everything that is not the
/// plugin's own, decodable answer.
pub(crate) fn conclude(seen: Seen, terms: &Terms<'_>) -> Conclusion {
    let label = terms.label;
    if seen.stderr.overflow || seen.stderr.bytes.len() > STDERR_CAP {
        tracing::warn!(
            job_id = %label.job_id, plugin = label.plugin, command = label.command, kept = STDERR_CAP, "plugin stderr was cut"
        );
    }
    let stderr = terms.guard.clean(text(seen.stderr.bytes));
    let stderr = json::cut(&stderr, STDERR_CAP);
    let stdout = text(seen.stdout.bytes);
    let evidence = Evidence {
        exit: seen.exit,
        cause: seen.cause,
        stdout: &stdout,
        stdout_overflow: seen.stdout.overflow,
        stderr,
        limit: terms.limit,
    };
    let Judgement { verdict, is_answer } = judge(&evidence);
    if is_answer {
        write_logs(&stdout, terms);
        tell_echoes(&stdout, terms);
    }
    let ending = ending(&verdict);
    let outcome = outcome(verdict, seen.exit, terms);
    let spans = if is_answer { spans(&stdout, terms) } else { NO_SPANS.to_owned() };
    let stderr = (!stderr.is_empty()).then(|| stderr.to_owned());
    let result = if is_answer { Some(answer(stdout)) } else { raw(stdout, seen.stdout.overflow, terms.guard) };
    let stopwatch = Some(stopwatch(ending, spans, &terms.timing));
    Conclusion { outcome, stderr, result, stopwatch }
}

/// Text of bytes; what is no UTF-8 is replaced.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn answer(stdout: String) -> String {
    let essence = response::essence(&stdout);
    if essence.len() == stdout.len() { stdout } else { essence.to_owned() }
}

/// What is kept of output that is no answer, as JSON.
fn raw(stdout: String, overflow: bool, guard: &Guard) -> Option<String> {
    if stdout.is_empty() {
        return None;
    }
    let truncated = overflow || stdout.len() > RAW_CAP;
    // A value that lies across the cut must be seen whole before it is cut.
    let seen = json::cut(&stdout, RAW_CAP + guard.longest()).to_owned();
    let clean = guard.clean(seen);
    Some(json!({"raw_stdout": json::cut(&clean, RAW_CAP), "truncated": truncated}).to_string())
}

fn outcome(verdict: Verdict, exit: Exit, terms: &Terms<'_>) -> AttemptOutcome {
    let label = terms.label;
    match verdict {
        Verdict::Succeeded { result, state_updates, events } => {
            if exit != Exit::Code(0) {
                tracing::warn!(
                    job_id = %label.job_id, plugin = label.plugin, command = label.command, exit = describe(exit),
                    "plugin answered ok and ended abnormally; the answer counts"
                );
            }
            let source = builtin::source(terms.job);
            match terms.routing.route(&source, Some(&result), events, terms.timing.now) {
                Ok(routed) => {
                    let state = state_updates.map(|json| state_update(json, terms));
                    AttemptOutcome::Succeeded { state, routed }
                }
                Err(error) => not_routed(&error, terms.backoff_base),
            }
        }
        Verdict::Failed { reason, error } => {
            let mut error = terms.guard.clean(error);
            if error.trim().is_empty() {
                error = format!("attempt failed: {reason}");
            }
            AttemptOutcome::Failed { reason, error, backoff_base: terms.backoff_base }
        }
        Verdict::Interrupted => AttemptOutcome::Interrupted(InterruptKind::Shutdown),
    }
}

/// The outcome of an attempt whose events can not be routed.
pub(crate) fn not_routed(error: &RouteError, backoff_base: Duration) -> AttemptOutcome {
    let error = format!("failed to route events: {error}");
    AttemptOutcome::Failed { reason: FailureReason::RoutingError, error, backoff_base }
}

fn state_update(json: String, terms: &Terms<'_>) -> StateUpdate {
    let label = terms.label;
    let rules = terms.manifest.fact_outputs.iter().filter(|rule| rule.command == label.command);
    let fact_types: Vec<_> = rules.map(|rule| rule.fact_type.clone()).collect();
    if fact_types.is_empty() && matches!(label.command.as_str(), "health" | "init") {
        tracing::warn!(
            job_id = %label.job_id, plugin = label.plugin, command = label.command,
            "state_updates of a command that should keep no state are applied"
        );
    }
    StateUpdate { json, fact_types }
}

/// How the process ended, as its timing is filed.
fn ending(verdict: &Verdict) -> ProcessEnding {
    match verdict {
        Verdict::Succeeded { .. } => ProcessEnding::Ok,
        Verdict::Failed { reason: FailureReason::Timeout, .. } => ProcessEnding::TimedOut,
        Verdict::Failed { reason: FailureReason::SpawnError, .. } => ProcessEnding::Unreadable,
        Verdict::Failed { .. } | Verdict::Interrupted => ProcessEnding::Failed,
    }
}

fn stopwatch(ending: ProcessEnding, spans: String, timing: &Timing) -> Stopwatch {
    let process = timing.exited.saturating_duration_since(timing.began);
    let exited_at = back(timing.now, timing.exited.elapsed());
    Stopwatch {
        entered_at: back(exited_at, process),
        exited_at,
        process,
        before: timing.began.saturating_duration_since(timing.begun),
        after: timing.exited.elapsed(),
        ending,
        spans,
    }
}

fn back(at: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(by).ok().and_then(|by| at.checked_sub_signed(by)).unwrap_or(at)
}

/// The spans that the plugin reports, within the caps; whatever it says, the attempt's verdict stands.
fn spans(stdout: &str, terms: &Terms<'_>) -> String {
    let max = usize::try_from(terms.manifest.stopwatch_max_subs).unwrap_or(usize::MAX);
    let JobLabel { job_id, plugin, command, .. } = terms.label;
    let Spans { json, dropped } = response::spans(stdout, max);
    if dropped > 0 {
        tracing::warn!(job_id = %job_id, plugin, command, dropped, max, "plugin reported too many spans; some are dropped");
    }
    let json = terms.guard.clean(json);
    // A secret may hold what structures JSON.
    if serde_json::from_str::<&RawValue>(&json).is_err() {
        tracing::warn!(job_id = %job_id, plugin, command, "spans of a plugin are no JSON without a secret; all are dropped");
        return NO_SPANS.to_owned();
    }
    if json.len() <= SPANS_CAP {
        return json;
    }
    tracing::warn!(job_id = %job_id, plugin, command, bytes = json.len(), limit = SPANS_CAP, "spans of a plugin are too large; all are dropped");
    NO_SPANS.to_owned()
}

/// Writes the plugin's own log entries to the gateway's log.
fn write_logs(stdout: &str, terms: &Terms<'_>) {
    let JobLabel { job_id, plugin, command, .. } = terms.label;
    for entry in response::logs(stdout) {
        let text = terms.guard.clean(entry.message);
        match entry.level {
            LogLevel::Debug => tracing::debug!(job_id = %job_id, plugin, command, text, "plugin log"),
            LogLevel::Info => tracing::info!(job_id = %job_id, plugin, command, text, "plugin log"),
            LogLevel::Warn => tracing::warn!(job_id = %job_id, plugin, command, text, "plugin log"),
            LogLevel::Error => tracing::error!(job_id = %job_id, plugin, command, text, "plugin log"),
        }
    }
}

/// An answer is stored as the plugin made it. That it holds a secret is said aloud, with name and place only.
fn tell_echoes(stdout: &str, terms: &Terms<'_>) {
    if terms.guard.longest() == 0 || terms.guard.names_in(stdout).is_empty() {
        return;
    }
    let JobLabel { job_id, plugin, .. } = terms.label;
    for (place, part) in response::parts(stdout) {
        for secret in terms.guard.names_in(&part) {
            tracing::warn!(
                event = "secret.echoed", job_id = %job_id, plugin, secret, place, "plugin put a secret into its answer"
            );
            terms.hub.publish("vault.secret_echoed", events::secret_echoed(terms.label, secret, &place));
        }
    }
}

/// The outcome of an attempt that failed before there was a process.
pub(crate) fn failed(reason: FailureReason, error: String, backoff_base: Duration) -> Conclusion {
    let outcome = AttemptOutcome::Failed { reason, error, backoff_base };
    Conclusion { outcome, stderr: None, result: None, stopwatch: None }
}

/// The outcome of an attempt that the gateway's stop prevented.
pub(crate) fn withheld() -> Conclusion {
    let outcome = AttemptOutcome::Interrupted(InterruptKind::Shutdown);
    Conclusion { outcome, stderr: None, result: None, stopwatch: None }
}
