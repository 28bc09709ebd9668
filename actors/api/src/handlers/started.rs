//! What starts of commands and of pipelines have in common: how the caller wants its answer, keys under which a request
//! is made only once, and the wait.

use std::time::{Duration, Instant};

use ductile_config::ApiToken;
use ductile_model::{JobId, JobStatus, untrusted_json};
use ductile_queue::{Enqueued, NewJob, QueueError, TreeNode, TreeWait};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;

use crate::context::Context;
use crate::envelope::Envelope;
use crate::error::ApiError;
use crate::query::Query;
use crate::reply::{IDEMPOTENCY_REPLAYED, Reply};
use crate::state::Api;
use crate::views::{self, Detail};

pub(super) const FAILED_TO_ENQUEUE: &str = "failed to enqueue job";
const FAILED_TO_WAIT: &str = "failed to wait for the job";

/// Whether the queue takes another job.
pub(crate) fn admit(api: &Api) -> Result<(), ApiError> {
    let most = api.plan.config.api.max_queue_depth;
    if most > 0 && api.queue.depth() >= most { Err(ApiError::queue_full()) } else { Ok(()) }
}

pub(super) fn sync_slot(api: &Api) -> Result<OwnedSemaphorePermit, ApiError> {
    api.sync_slots.clone().try_acquire_owned().map_err(|_| ApiError::sync_slots_full())
}

/// How the caller wants its answer.
pub(super) enum Mode {
    /// At once.
    Asynchronous,
    /// When the tree is done or the limit is over.
    Synchronous { limit: Duration },
}

impl Mode {
    pub(super) fn of(envelope: &Envelope<'_>, query: &Query<'_>, longest: Duration) -> Result<Self, ApiError> {
        let sync = envelope.sync | query.flag("sync")?;
        let asynchronous = envelope.asynchronous | query.flag("async")?;
        match (sync, asynchronous) {
            (true, true) => Err(ApiError::parameter("sync", "sync and async can not be asked for together")),
            (true, false) => Ok(Self::Synchronous { limit: envelope.timeout.unwrap_or(longest).min(longest) }),
            (false, _) => Ok(Self::Asynchronous),
        }
    }
}

/// A key under which the same request is made only once.
pub(super) enum Repeat {
    /// Every request counts.
    Free,
    /// `Idempotency-Key`: the same key must come with the same payload.
    Idempotent(String),
    /// `dedupe_key`: the key alone decides.
    Deduplicated(String),
}

impl Repeat {
    pub(super) fn of(context: &Context, envelope: &Envelope<'_>) -> Result<Self, ApiError> {
        let raw = envelope.dedupe_key.as_deref().map(str::trim).filter(|key| !key.is_empty());
        match (context.idempotency_key()?, raw) {
            (Some(_), Some(_)) => {
                Err(ApiError::parameter("dedupe_key", "dedupe_key and Idempotency-Key can not be given together"))
            }
            (Some(key), None) => Ok(Self::Idempotent(key.to_owned())),
            (None, Some(key)) => Ok(Self::Deduplicated(key.to_owned())),
            (None, None) => Ok(Self::Free),
        }
    }

    pub(super) fn dedupe_key(&self, token: &ApiToken, plugin: &str, command: &str) -> Option<String> {
        match self {
            Self::Free => None,
            Self::Idempotent(key) => {
                let [a, b, c, d, ..] = token.digest;
                Some(format!("api:{a:02x}{b:02x}{c:02x}{d:02x}:{plugin}:{command}:{key}"))
            }
            Self::Deduplicated(key) => Some(key.clone()),
        }
    }
}

/// What was started, as answers call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noun {
    Job,
    Pipeline,
}

impl Noun {
    fn still_running(self) -> &'static str {
        match self {
            Self::Job => "Job still running after timeout.",
            Self::Pipeline => "Pipeline still running after timeout.",
        }
    }
}

/// A job that will answer the request.
pub(super) struct Started {
    pub(super) id: JobId,
    pub(super) status: JobStatus,
    /// Whether it was there before.
    pub(super) is_replay: bool,
    /// All its jobs, where it is not one.
    pub(super) others: Vec<JobId>,
    pub(super) noun: Noun,
}

pub(super) async fn enqueue(api: &Api, job: NewJob, repeat: &Repeat) -> Result<Started, ApiError> {
    let failed = |error: QueueError| ApiError::queue(FAILED_TO_ENQUEUE, error);
    // Kept only where it may have to be compared.
    let payload = matches!(repeat, Repeat::Idempotent(_)).then(|| job.payload.clone()).flatten();
    match api.queue.enqueue(job).await.map_err(failed)? {
        Enqueued::Queued(id) => Ok(Started::job(id, JobStatus::Queued, false)),
        Enqueued::Duplicate { existing, status, .. } => {
            if let Some(payload) = payload {
                let earlier = api.queue.job(&existing).await.map_err(failed)?.and_then(|job| job.payload);
                // A payload that is no longer stored can not be told from this one.
                if earlier.is_some_and(|earlier| !is_same_json(&earlier, &payload)) {
                    return Err(ApiError::idempotency_conflict(existing.as_str()));
                }
            }
            Ok(Started::job(existing, status, true))
        }
    }
}

/// Whether two texts mean the same, whatever their blanks and the order of their keys.
fn is_same_json(a: &str, b: &str) -> bool {
    let value = |text| untrusted_json::value(text).ok();
    a == b || value(a).is_some_and(|a| value(b) == Some(a))
}

#[derive(Serialize)]
struct Accepted<'a> {
    job_id: &'a str,
    status: &'static str,
    plugin: &'a str,
    command: &'a str,
    #[serde(skip_serializing_if = "is_false")]
    deduplicated: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    job_ids: &'a [JobId],
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
fn is_false(value: &bool) -> bool {
    !value
}

pub(super) fn accepted(started: &Started, plugin: &str, command: &str) -> Result<Reply, ApiError> {
    let body = Accepted {
        job_id: started.id.as_str(),
        status: started.status.as_str(),
        plugin,
        command,
        deduplicated: started.is_replay,
        job_ids: &started.others,
    };
    Ok(started.mark(Reply::with_status(StatusCode::ACCEPTED, &body)?))
}

impl Started {
    fn job(id: JobId, status: JobStatus, is_replay: bool) -> Self {
        Self { id, status, is_replay, others: Vec::new(), noun: Noun::Job }
    }

    fn mark(&self, reply: Reply) -> Reply {
        if self.is_replay { reply.header(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true")) } else { reply }
    }
}

pub(super) async fn wait(api: &Api, started: &Started, limit: Duration, begun: Instant) -> Result<Reply, ApiError> {
    let failed = |error: QueueError| ApiError::queue(FAILED_TO_WAIT, error);
    tokio::select! {
        biased;
        waited = api.queue.wait_for_tree(&started.id, limit) => match waited.map_err(failed)? {
            TreeWait::Complete(nodes) => finished(api, started, &nodes, begun),
            TreeWait::TimedOut(status) => still_running(started, status, started.noun.still_running()),
            TreeWait::Unknown => gone(api, started, begun).await,
        },
        () = api.control.stopping() => {
            let job = api.queue.job(&started.id).await.ok().flatten();
            let status = job.map_or(started.status, |job| job.status);
            still_running(started, status, "Gateway is stopping; poll the job for its result.")
        }
    }
}

/// A repeated request may ask for a job whose row has left the queue since: the log still knows it.
async fn gone(api: &Api, started: &Started, begun: Instant) -> Result<Reply, ApiError> {
    let job = api.queue.job(&started.id).await.map_err(|error| ApiError::queue(FAILED_TO_WAIT, error))?;
    let job = job.ok_or_else(|| ApiError::internal(FAILED_TO_WAIT))?;
    finished(api, started, &[TreeNode::alone(job)], begun)
}

#[derive(Serialize)]
struct Finished<'a> {
    job_id: &'a str,
    status: &'static str,
    duration_ms: u64,
    result: Option<&'a RawValue>,
    tree: Vec<views::Node<'a>>,
    #[serde(skip_serializing_if = "is_false")]
    deduplicated: bool,
}

fn finished(api: &Api, started: &Started, nodes: &[TreeNode], begun: Instant) -> Result<Reply, ApiError> {
    let last = match started.noun {
        Noun::Job => nodes.first(),
        Noun::Pipeline => api.router.result_of(nodes),
    };
    let last = last.ok_or_else(|| ApiError::internal(FAILED_TO_WAIT))?;
    let body = Finished {
        job_id: started.id.as_str(),
        status: tree_status(nodes).as_str(),
        duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        result: views::raw(last.job.result.as_deref()),
        tree: views::tree(nodes, Detail::Results),
        deduplicated: started.is_replay,
    };
    Ok(started.mark(Reply::ok(&body)?))
}

/// Of a job alone its own; of a tree the last one that went wrong, else success.
fn tree_status(nodes: &[TreeNode]) -> JobStatus {
    let went_wrong = |status: &JobStatus| matches!(status, JobStatus::Failed | JobStatus::TimedOut | JobStatus::Dead);
    match nodes {
        [alone] => alone.job.status,
        _ => nodes.iter().rev().map(|node| node.job.status).find(went_wrong).unwrap_or(JobStatus::Succeeded),
    }
}

#[derive(Serialize)]
struct StillRunning<'a> {
    job_id: &'a str,
    status: &'static str,
    timeout_exceeded: bool,
    message: &'a str,
    #[serde(skip_serializing_if = "is_false")]
    deduplicated: bool,
}

fn still_running(started: &Started, status: JobStatus, message: &str) -> Result<Reply, ApiError> {
    let body = StillRunning {
        job_id: started.id.as_str(),
        // A root that is done while its tree is not is still running for the caller.
        status: if status.is_terminal() { JobStatus::Running } else { status }.as_str(),
        timeout_exceeded: true,
        message,
        deduplicated: started.is_replay,
    };
    Ok(started.mark(Reply::with_status(StatusCode::ACCEPTED, &body)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Keys;

    #[test]
    fn payloads_are_compared_by_meaning() {
        assert!(is_same_json(r#"{"a":1,"b":[2]}"#, r#"{ "b": [2], "a": 1 }"#));
        assert!(!is_same_json(r#"{"a":1}"#, r#"{"a":2}"#));
        assert!(!is_same_json(r#"{"a":10000000000000000000001}"#, r#"{"a":10000000000000000000002}"#));
        assert!(!is_same_json("broken", "other"));
    }

    #[test]
    fn a_caller_gets_one_mode_and_never_waits_longer_than_allowed() {
        let minute = Duration::from_secs(60);
        let mode = |body: &str, query: &str| {
            let envelope = Envelope::parse(body.as_bytes(), Keys::Trigger).unwrap();
            Mode::of(&envelope, &Query::parse(Some(query)), minute).map(|mode| match mode {
                Mode::Asynchronous => None,
                Mode::Synchronous { limit } => Some(limit.as_secs()),
            })
        };
        assert_eq!(mode("", "").unwrap(), None);
        assert_eq!(mode("", "async=true").unwrap(), None);
        assert_eq!(mode("", "sync=true").unwrap(), Some(60));
        assert_eq!(mode(r#"{"sync":true,"timeout":"5s"}"#, "").unwrap(), Some(5));
        assert_eq!(mode(r#"{"sync":true,"timeout":"5h"}"#, "").unwrap(), Some(60));
        assert!(mode(r#"{"sync":true}"#, "async=true").is_err());
        assert!(mode(r#"{"sync":true,"async":true}"#, "").is_err());
    }
}
