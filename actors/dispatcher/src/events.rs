//! The events of a running attempt.

use ductile_model::JobId;
use ductile_queue::ClaimedJob;
use serde_json::{Map, Value};

type Data = Map<String, Value>;

/// What identifies an attempt in events and log lines.
#[derive(Debug, Clone)]
pub(crate) struct JobLabel {
    pub(crate) job_id: JobId,
    pub(crate) plugin: String,
    pub(crate) command: String,
    pub(crate) attempt: u32,
}

impl JobLabel {
    pub(crate) fn of(job: &ClaimedJob) -> Self {
        Self { job_id: job.id.clone(), plugin: job.plugin.clone(), command: job.command.clone(), attempt: job.attempt }
    }

    fn data(&self) -> Data {
        let mut data = Data::new();
        set(&mut data, "job_id", self.job_id.as_str());
        set(&mut data, "plugin", self.plugin.as_str());
        set(&mut data, "command", self.command.as_str());
        data
    }
}

fn set(data: &mut Data, key: &str, value: impl Into<Value>) {
    data.insert(key.to_owned(), value.into());
}

/// What the look at the input decided.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Preflight<'a> {
    Run,
    Fail(&'a str),
}

pub(crate) fn job_started(label: &JobLabel, job: &ClaimedJob) -> Data {
    let mut data = label.data();
    set(&mut data, "attempt", label.attempt);
    set(&mut data, "parent_job_id", job.parent_job_id.as_ref().map_or("", JobId::as_str));
    set(&mut data, "submitted_by", job.submitted_by.as_str());
    data
}

pub(crate) fn poll_started(label: &JobLabel, job: &ClaimedJob) -> Data {
    // The scheduler's key is plugin, command and schedule; the id of the schedule may itself hold a colon.
    let schedule_id = job.dedupe_key.as_deref().and_then(|key| key.splitn(3, ':').nth(2)).unwrap_or_default();
    let mut data = label.data();
    set(&mut data, "schedule_id", schedule_id);
    set(&mut data, "submitted_by", job.submitted_by.as_str());
    set(&mut data, "attempt", label.attempt);
    data
}

pub(crate) fn job_preflight(label: &JobLabel, preflight: Preflight<'_>) -> Data {
    let (decision, reason) = match preflight {
        Preflight::Run => ("run", ""),
        Preflight::Fail(reason) => ("fail", reason),
    };
    let mut data = label.data();
    set(&mut data, "decision", decision);
    set(&mut data, "reason", reason);
    data
}

pub(crate) fn plugin_spawned(label: &JobLabel, pid: u32) -> Data {
    let mut data = label.data();
    set(&mut data, "pid", pid);
    set(&mut data, "mode", "unconfined");
    data
}

pub(crate) fn secret_echoed(label: &JobLabel, secret: &str, place: &str) -> Data {
    let mut data = Data::new();
    set(&mut data, "job_id", label.job_id.as_str());
    set(&mut data, "plugin", label.plugin.as_str());
    set(&mut data, "secret", secret);
    set(&mut data, "place", place);
    data
}
