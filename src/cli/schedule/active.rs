//! Jobs of schedules that wait or run.

use ductile_model::format_wire;
use ductile_queue::ScheduledJob;
use serde_json::{Value, json};

use crate::cli::args::Common;
use crate::cli::report::{self, Failure, Form, line};
use crate::cli::state;

pub(super) fn run(common: &Common) -> Result<u8, Failure> {
    let outline = state::configuration(common)?;
    let service = &outline.config.service.name;
    let jobs = state::reader(&outline.config.state.path)?.scheduled_jobs(service).map_err(state::failure)?;
    if common.json {
        report::json(&json!({
            "service_name": service,
            "count": jobs.len(),
            "active_polls": jobs.iter().map(document).collect::<Vec<_>>(),
        }));
        return Ok(0);
    }
    let form = Form::of_stdout(common.no_color);
    line(format_args!("Active jobs of schedules (count={})", jobs.len()));
    for job in &jobs {
        let started = job.started_at.map(|at| format!(" started={}", format_wire(at))).unwrap_or_default();
        let created = job.created_at.map_or_else(|| "?".to_owned(), format_wire);
        line(format_args!(
            "- {created} {} {}:{} job={} key={} attempt={}{started}",
            form.status(&job.status),
            job.plugin,
            job.command,
            job.id,
            job.dedupe_key.as_deref().unwrap_or("-"),
            job.attempt,
        ));
    }
    Ok(0)
}

fn document(job: &ScheduledJob) -> Value {
    json!({
        "job_id": job.id,
        "plugin": job.plugin,
        "dedupe_key": job.dedupe_key,
        "status": job.status,
        "attempt": job.attempt,
        "created_at": job.created_at.map(format_wire),
        "started_at": job.started_at.map(format_wire),
    })
}
