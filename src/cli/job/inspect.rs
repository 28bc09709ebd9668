//! One job in full.

mod text;
mod tree;

use chrono::{DateTime, Utc};
use ductile_model::{JobStatus, format_wire};
use ductile_queue::{AttemptLog, AttemptRow, ContextRow, FactRow, InspectPart, Inspection, JobRef, TransitionRow};
use serde_json::{Map, Value, json};

use super::{find, json_text, reader};
use crate::cli::args::Common;
use crate::cli::report::{self, Failure, Form};
use crate::cli::state;

pub(super) fn run(part: &str, common: &Common) -> Result<u8, Failure> {
    let reader = reader(common)?;
    let id = find(&reader, part)?.ok_or_else(|| not_found(part))?;
    let form = Form::of_stdout(common.no_color);
    let mut parts = Vec::new();
    if common.verbose {
        parts.push(InspectPart::Log);
    }
    if !common.json && form != Form::Plain {
        parts.push(InspectPart::Caused);
    }
    let report = reader.inspect(&id, &parts).map_err(state::failure)?.ok_or_else(|| not_found(part))?;
    if common.json {
        report::json(&document(&report));
    } else {
        text::show(&report, form);
    }
    Ok(0)
}

fn not_found(part: &str) -> Failure {
    Failure::missing(format!("Inspect failed: job \"{part}\" not found"))
}

fn time(at: Option<DateTime<Utc>>) -> Value {
    at.map_or(Value::Null, |at| Value::from(format_wire(at)))
}

fn document(report: &Inspection) -> Value {
    let job = &report.job;
    let steps: Vec<Value> = report.contexts.iter().enumerate().map(|(index, step)| step_json(index, step)).collect();
    let mut document = Map::new();
    let mut put = |key: &str, value: Value| document.insert(key.to_owned(), value);
    put("job_id", json!(job.id));
    put("plugin", json!(job.plugin));
    put("command", json!(job.command));
    put("status", json!(job.status.as_str()));
    put("context_id", json!(job.event_context_id.as_deref().unwrap_or_default()));
    put("hops", json!(steps.len()));
    put("steps", Value::Array(steps));
    put("source", json!(if job.from_log { "job_log" } else { "job_queue" }));
    put("submitted_by", json!(job.submitted_by));
    put("attempt", json!(job.attempt));
    put("max_attempts", json!(job.max_attempts));
    put("dedupe_key", json!(job.dedupe_key));
    put("parent_job_id", json!(job.parent_job_id));
    put("source_event_id", json!(job.source_event_id));
    put("created_at", time(job.created_at));
    put("started_at", time(job.started_at));
    put("completed_at", time(job.completed_at));
    put("next_retry_at", time(job.next_retry_at));
    put("last_error", json!(job.last_error));
    put("enqueued_config_snapshot_id", json!(job.enqueued_snapshot));
    put("started_config_snapshot_id", json!(job.started_snapshot));
    put("transitions", report.transitions.iter().map(transition_json).collect());
    let attempt = |row: &AttemptRow| json!({"attempt": row.attempt, "created_at": time(row.created_at)});
    put("attempts", report.attempts.iter().map(attempt).collect());
    put("children", report.children.iter().map(child_json).collect());
    let fact = |row: &FactRow| json!({"seq": row.seq, "fact_type": row.fact_type, "created_at": time(row.created_at)});
    put("facts", report.facts.iter().map(fact).collect());
    put("consistency", consistency(report));
    if let Some(original) = &report.retries.of {
        put("retry_of", json!(original));
    }
    if !report.retries.by.is_empty() {
        put("retried_as", json!(report.retries.by));
    }
    if let Some(log) = &report.log {
        put("payload", json_text(job.payload.as_ref()));
        put("log", log.iter().map(log_json).collect());
    }
    Value::Object(document)
}

fn step_json(index: usize, step: &ContextRow) -> Value {
    let mut entry = Map::new();
    entry.insert("hop".into(), json!(index + 1));
    entry.insert("pipeline".into(), json!(named(&step.pipeline, "<root>")));
    entry.insert("step_id".into(), json!(named(&step.step_id, "<entry>")));
    entry.insert("context_id".into(), json!(step.id));
    if let Some(parent) = &step.parent_id {
        entry.insert("parent_id".into(), json!(parent));
    }
    if let Some(job) = &step.job {
        entry.insert("job_id".into(), json!(job.id));
        entry.insert("plugin".into(), json!(job.plugin));
        entry.insert("command".into(), json!(job.command));
        entry.insert("status".into(), json!(job.status));
    }
    // The gateway keeps no files per job; the key is there for clients that read it.
    entry.insert("artifacts".into(), json!([]));
    entry.insert("baggage".into(), json_text(Some(&step.baggage)));
    Value::Object(entry)
}

fn named<'a>(name: &'a str, otherwise: &'a str) -> &'a str {
    if name.is_empty() { otherwise } else { name }
}

fn transition_json(row: &TransitionRow) -> Value {
    json!({
        "from_status": row.from_status,
        "to_status": row.to_status,
        "reason": row.reason,
        "created_at": time(row.created_at),
    })
}

fn child_json(job: &JobRef) -> Value {
    json!({"job_id": job.id, "plugin": job.plugin, "command": job.command, "status": job.status})
}

fn log_json(row: &AttemptLog) -> Value {
    json!({
        "log_id": row.log_id,
        "attempt": row.attempt,
        "status": row.status,
        "completed_at": time(row.completed_at),
        "last_error": row.last_error,
        "stderr": row.stderr,
        "result": json_text(row.result.as_ref()),
    })
}

/// Whether the facts about the job agree with its row.
fn consistency(report: &Inspection) -> Value {
    let job = &report.job;
    let newest = report.transitions.last().map(|row| row.to_status.as_str());
    let highest = report.attempts.iter().map(|row| row.attempt).max().unwrap_or(0);
    // A job that waits, or was cancelled while it did, has not claimed the attempt that its row names.
    let waited = report.transitions.last().is_some_and(|row| {
        row.to_status == JobStatus::Dead.as_str() && row.from_status.as_deref() == Some(JobStatus::Queued.as_str())
    });
    let expected = if waited || job.status == JobStatus::Queued { job.attempt.saturating_sub(1) } else { job.attempt };
    json!({
        "status_matches_latest": newest == Some(job.status.as_str()),
        "attempts_match": highest == expected,
        "missing_facts": report.transitions.is_empty(),
    })
}
