//! Jobs as JSON.

use chrono::{DateTime, Utc};
use ductile_model::format_wire;
use ductile_queue::{AttemptLog, JobView, TreeNode};
use serde::Serialize;
use serde_json::value::RawValue;

/// Whether the caller may see what plugins took in and put out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Status only: results, error texts and payloads are left out.
    Status,
    /// Everything.
    Results,
}

impl Detail {
    pub(crate) fn of(allowed: bool) -> Self {
        if allowed { Self::Results } else { Self::Status }
    }

    fn show<T>(self, value: Option<T>) -> Option<T> {
        value.filter(|_| self == Self::Results)
    }
}

fn time(at: Option<DateTime<Utc>>) -> Option<String> {
    at.map(format_wire)
}

/// Stored JSON text as a value. A text that is none is left out rather than making the answer unreadable.
pub(crate) fn raw(text: Option<&str>) -> Option<&RawValue> {
    text.and_then(|text| serde_json::from_str(text).ok())
}

/// One job in full.
#[derive(Serialize)]
pub(crate) struct Job<'a> {
    job_id: &'a str,
    status: &'static str,
    plugin: &'a str,
    command: &'a str,
    submitted_by: &'a str,
    attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_job_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_retry_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<&'a str>,
    /// Outer `None`: not asked for or not allowed; inner: no longer stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Option<&'a RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<Option<Vec<Attempt<'a>>>>,
}

impl<'a> Job<'a> {
    pub(crate) fn new(job: &'a JobView, detail: Detail) -> Self {
        Self {
            job_id: job.id.as_str(),
            status: job.status.as_str(),
            plugin: &job.plugin,
            command: &job.command,
            submitted_by: &job.submitted_by,
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            parent_job_id: job.parent_job_id.as_ref().map(|id| id.as_str()),
            created_at: time(job.created_at),
            started_at: time(job.started_at),
            completed_at: time(job.completed_at),
            next_retry_at: time(job.next_retry_at),
            result: detail.show(raw(job.result.as_deref())),
            last_error: detail.show(job.last_error.as_deref()),
            payload: None,
            log: None,
        }
    }

    pub(crate) fn with_payload(mut self, job: &'a JobView) -> Self {
        self.payload = Some(raw(job.payload.as_deref()));
        self
    }

    /// A job that is over and has no record of an attempt has lost it.
    pub(crate) fn with_log(mut self, job: &JobView, attempts: &'a [AttemptLog]) -> Self {
        let pruned = attempts.is_empty() && job.status.is_terminal();
        self.log = Some((!pruned).then(|| attempts.iter().map(Attempt::new).collect()));
        self
    }
}

/// One finished attempt.
#[derive(Serialize)]
struct Attempt<'a> {
    log_id: &'a str,
    attempt: u32,
    status: &'a str,
    completed_at: Option<String>,
    last_error: Option<&'a str>,
    stderr: Option<&'a str>,
    result: Option<&'a RawValue>,
}

impl<'a> Attempt<'a> {
    fn new(log: &'a AttemptLog) -> Self {
        Self {
            log_id: &log.log_id,
            attempt: log.attempt,
            status: &log.status,
            completed_at: time(log.completed_at),
            last_error: log.last_error.as_deref(),
            stderr: log.stderr.as_deref(),
            result: raw(log.result.as_deref()),
        }
    }
}

/// One row of a list.
#[derive(Serialize)]
pub(crate) struct Row<'a> {
    job_id: &'a str,
    plugin: &'a str,
    command: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<String>,
    attempt: u32,
}

impl<'a> Row<'a> {
    pub(crate) fn new(job: &'a JobView) -> Self {
        Self {
            job_id: job.id.as_str(),
            plugin: &job.plugin,
            command: &job.command,
            status: job.status.as_str(),
            created_at: time(job.created_at),
            started_at: time(job.started_at),
            completed_at: time(job.completed_at),
            attempt: job.attempt,
        }
    }
}

/// One job of a tree.
#[derive(Serialize)]
pub(crate) struct Node<'a> {
    job_id: &'a str,
    /// `null` for the root, also when the root itself has a parent outside of the tree.
    parent_job_id: Option<&'a str>,
    plugin: &'a str,
    command: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<String>,
    attempt: u32,
}

/// A tree, root first.
pub(crate) fn tree(nodes: &[TreeNode], detail: Detail) -> Vec<Node<'_>> {
    nodes.iter().enumerate().map(|(index, node)| Node::new(node, index == 0, detail)).collect()
}

impl<'a> Node<'a> {
    fn new(node: &'a TreeNode, is_root: bool, detail: Detail) -> Self {
        let job = &node.job;
        Self {
            job_id: job.id.as_str(),
            parent_job_id: job.parent_job_id.as_ref().filter(|_| !is_root).map(|id| id.as_str()),
            plugin: &job.plugin,
            command: &job.command,
            status: job.status.as_str(),
            result: detail.show(raw(job.result.as_deref())),
            last_error: detail.show(job.last_error.as_deref()),
            step_id: Some(&*node.step_id).filter(|step| !step.is_empty()),
            created_at: time(job.created_at),
            started_at: time(job.started_at),
            completed_at: time(job.completed_at),
            attempt: job.attempt,
        }
    }
}
