//! One job in full, as text.

use chrono::{DateTime, Utc};
use ductile_model::{JobId, format_wire};
use ductile_queue::{AttemptLog, ContextRow, Inspection, JobRef};

use super::{named, tree};
use crate::cli::job::json_text;
use crate::cli::report::{Form, line};

pub(super) fn show(report: &Inspection, form: Form) {
    let job = &report.job;
    let max = job.max_attempts.map_or_else(|| "?".to_owned(), |max| max.to_string());
    let snapshot = |id: &Option<String>| id.clone().unwrap_or_else(|| "<none>".to_owned());
    line(format_args!("Lineage Report"));
    line(format_args!("Job ID      : {}", job.id));
    line(format_args!("Plugin      : {}", job.plugin));
    line(format_args!("Command     : {}", job.command));
    line(format_args!("Status      : {}", form.status(job.status.as_str())));
    line(format_args!("Context ID  : {}", job.event_context_id.as_deref().unwrap_or("<none>")));
    line(format_args!("Hops        : {}", report.contexts.len()));
    line(format_args!("Attempt     : {}/{max}", job.attempt));
    line(format_args!("Submitted by: {}", job.submitted_by));
    line(format_args!("Config      : {} -> {}", snapshot(&job.enqueued_snapshot), snapshot(&job.started_snapshot)));
    if let Some(original) = &report.retries.of {
        line(format_args!("Retry of    : {original}"));
    }
    if !report.retries.by.is_empty() {
        let ids: Vec<&str> = report.retries.by.iter().map(JobId::as_str).collect();
        line(format_args!("Retried as  : {}", ids.join(", ")));
    }
    if let Some(error) = &job.last_error {
        line(format_args!("Last error  : {}", form.foreign(error)));
    }
    line(format_args!(""));
    for (index, step) in report.contexts.iter().enumerate() {
        show_step(index + 1, step, form);
    }
    list("Transitions", &report.transitions, |row| {
        let from = row.from_status.as_deref().unwrap_or("<none>");
        let reason = row.reason.as_ref().map(|reason| format!(" reason={}", form.foreign(reason))).unwrap_or_default();
        format!("{} {from} -> {}{reason}", wire(row.created_at), form.status(&row.to_status))
    });
    list("Attempts", &report.attempts, |row| format!("{} attempt {}", wire(row.created_at), row.attempt));
    list("Children", &report.children, |job| named_job(job, form));
    if let Some(caused) = &report.caused {
        line(format_args!("Tree:"));
        tree::lines(job, caused, form).iter().for_each(|text| line(format_args!("{text}")));
    }
    list("Facts", &report.facts, |row| {
        let seq = row.seq.map_or_else(|| "-".to_owned(), |seq| seq.to_string());
        format!("{} {} seq={seq}", wire(row.created_at), row.fact_type)
    });
    if let Some(log) = &report.log {
        if let Some(payload) = &job.payload {
            line(format_args!("Payload:\n{}", indented(&format!("{:#}", json_text(Some(payload))))));
        }
        log.iter().for_each(|row| show_log(row, form));
    }
}

fn show_step(hop: usize, step: &ContextRow, form: Form) {
    line(format_args!("[{hop}] {} :: {}", named(&step.pipeline, "<root>"), named(&step.step_id, "<entry>")));
    line(format_args!("    context_id : {}", step.id));
    line(format_args!("    parent_id  : {}", step.parent_id.as_deref().unwrap_or("<none>")));
    match &step.job {
        Some(job) => line(format_args!("    job        : {}", named_job(job, form))),
        None => line(format_args!("    job        : <none>")),
    }
    let baggage = format!("{:#}", json_text(Some(&step.baggage)));
    line(format_args!("    baggage    : {}", baggage.replace('\n', "\n    ")));
}

/// A job as it is named behind a heading.
fn named_job(job: &JobRef, form: Form) -> String {
    format!("{} ({}:{}, {})", job.id, job.plugin, job.command, form.status(&job.status))
}

fn show_log(row: &AttemptLog, form: Form) {
    line(format_args!("Attempt {} ({}):", row.attempt, form.status(&row.status)));
    for (name, text) in [("last_error", &row.last_error), ("stderr", &row.stderr)] {
        if let Some(text) = text {
            line(format_args!("  {name}:\n{}", indented(&form.foreign(text))));
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
