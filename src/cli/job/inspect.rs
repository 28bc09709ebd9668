//! One job in full.

use chrono::{DateTime, Utc};
use ductile_model::{JobId, format_wire};
use ductile_queue::{AttemptLog, AttemptRow, ContextRow, FactRow, FoundJob, JobRef, JobView, Reader, TransitionRow};
use serde_json::{Map, Value, json};

use super::{json_text, reader, unreadable};
use crate::cli::args::Common;
use crate::cli::report::{self, Failure, line};

/// All that the rows know about a job.
struct Report {
    job: JobView,
    contexts: Vec<ContextRow>,
    transitions: Vec<TransitionRow>,
    attempts: Vec<AttemptRow>,
    children: Vec<JobRef>,
    facts: Vec<FactRow>,
    /// Only when asked for.
    log: Option<Vec<AttemptLog>>,
}

pub(super) fn run(part: &str, common: &Common) -> Result<u8, Failure> {
    let reader = reader(common)?;
    let id = match reader.find_job(part).map_err(unreadable)? {
        FoundJob::One(id) => id,
        FoundJob::None => return Err(not_found(part)),
        FoundJob::Several(ids) => {
            let ids: Vec<&str> = ids.iter().map(JobId::as_str).collect();
            return Err(Failure::usage(format!(
                "Inspect failed: {part:?} stands for several jobs: {}",
                ids.join(", ")
            )));
        }
    };
    let report = gather(&reader, &id, part, common.verbose)?;
    if common.json {
        report::json(&document(&report));
    } else {
        show(&report, report::colour(common.no_color));
    }
    Ok(0)
}

fn not_found(part: &str) -> Failure {
    Failure::missing(format!("Inspect failed: job \"{part}\" not found"))
}

fn gather(reader: &Reader, id: &JobId, part: &str, verbose: bool) -> Result<Report, Failure> {
    let job = reader.job(id).map_err(unreadable)?.ok_or_else(|| not_found(part))?;
    let contexts = match &job.event_context_id {
        Some(context) => reader.contexts(context).map_err(unreadable)?,
        None => Vec::new(),
    };
    Ok(Report {
        contexts,
        transitions: reader.transitions(id).map_err(unreadable)?,
        attempts: reader.attempt_rows(id).map_err(unreadable)?,
        children: reader.children(id).map_err(unreadable)?,
        facts: reader.facts(id).map_err(unreadable)?,
        log: verbose.then(|| reader.attempts(id).map_err(unreadable)).transpose()?,
        job,
    })
}

fn time(at: Option<DateTime<Utc>>) -> Value {
    at.map_or(Value::Null, |at| Value::from(format_wire(at)))
}

fn document(report: &Report) -> Value {
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
fn consistency(report: &Report) -> Value {
    let job = &report.job;
    let newest = report.transitions.last().map(|row| row.to_status.as_str());
    let highest = report.attempts.iter().map(|row| row.attempt).max().unwrap_or(0);
    // A queued job has not yet claimed the attempt that its row names.
    let expected = if job.status == ductile_model::JobStatus::Queued { job.attempt - 1 } else { job.attempt };
    json!({
        "status_matches_latest": newest == Some(job.status.as_str()),
        "attempts_match": highest == expected,
        "missing_facts": report.transitions.is_empty(),
    })
}

fn show(report: &Report, colour: bool) {
    let job = &report.job;
    let max = job.max_attempts.map_or_else(|| "?".to_owned(), |max| max.to_string());
    let snapshot = |id: &Option<String>| id.clone().unwrap_or_else(|| "<none>".to_owned());
    line(format_args!("Lineage Report"));
    line(format_args!("Job ID      : {}", job.id));
    line(format_args!("Plugin      : {}", job.plugin));
    line(format_args!("Command     : {}", job.command));
    line(format_args!("Status      : {}", report::paint_status(job.status.as_str(), colour)));
    line(format_args!("Context ID  : {}", job.event_context_id.as_deref().unwrap_or("<none>")));
    line(format_args!("Hops        : {}", report.contexts.len()));
    line(format_args!("Attempt     : {}/{max}", job.attempt));
    line(format_args!("Submitted by: {}", job.submitted_by));
    line(format_args!("Config      : {} -> {}", snapshot(&job.enqueued_snapshot), snapshot(&job.started_snapshot)));
    if let Some(error) = &job.last_error {
        line(format_args!("Last error  : {error}"));
    }
    line(format_args!(""));
    for (index, step) in report.contexts.iter().enumerate() {
        show_step(index + 1, step);
    }
    list("Transitions", &report.transitions, |row| {
        let from = row.from_status.as_deref().unwrap_or("<none>");
        let reason = row.reason.as_ref().map(|reason| format!(" reason={reason}")).unwrap_or_default();
        format!("{} {from} -> {}{reason}", wire(row.created_at), row.to_status)
    });
    list("Attempts", &report.attempts, |row| format!("{} attempt {}", wire(row.created_at), row.attempt));
    list("Children", &report.children, |job| format!("{} ({}:{}, {})", job.id, job.plugin, job.command, job.status));
    list("Facts", &report.facts, |row| {
        let seq = row.seq.map_or_else(|| "-".to_owned(), |seq| seq.to_string());
        format!("{} {} seq={seq}", wire(row.created_at), row.fact_type)
    });
    if let Some(log) = &report.log {
        if let Some(payload) = &job.payload {
            line(format_args!("Payload:\n{}", indented(&format!("{:#}", json_text(Some(payload))))));
        }
        log.iter().for_each(show_log);
    }
}

fn show_step(hop: usize, step: &ContextRow) {
    line(format_args!("[{hop}] {} :: {}", named(&step.pipeline, "<root>"), named(&step.step_id, "<entry>")));
    line(format_args!("    context_id : {}", step.id));
    line(format_args!("    parent_id  : {}", step.parent_id.as_deref().unwrap_or("<none>")));
    match &step.job {
        Some(job) => line(format_args!("    job        : {} ({}:{}, {})", job.id, job.plugin, job.command, job.status)),
        None => line(format_args!("    job        : <none>")),
    }
    let baggage = format!("{:#}", json_text(Some(&step.baggage)));
    line(format_args!("    baggage    : {}", baggage.replace('\n', "\n    ")));
}

fn show_log(row: &AttemptLog) {
    line(format_args!("Attempt {} ({}):", row.attempt, row.status));
    for (name, text) in [("last_error", &row.last_error), ("stderr", &row.stderr)] {
        if let Some(text) = text {
            line(format_args!("  {name}:\n{}", indented(text)));
        }
    }
    if row.result.is_some() {
        line(format_args!("  result:\n{}", indented(&format!("{:#}", json_text(row.result.as_ref())))));
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

fn list<T>(title: &str, rows: &[T], render: impl Fn(&T) -> String) {
    line(format_args!("{title}:"));
    for row in rows {
        line(format_args!("- {}", render(row)));
    }
    if rows.is_empty() {
        line(format_args!("- none"));
    }
}

fn wire(at: Option<DateTime<Utc>>) -> String {
    at.map_or_else(|| "?".to_owned(), format_wire)
}
