//! What runs when.

use ductile_config::Family;
use ductile_model::format_wire;
use ductile_queue::{ScheduleStatus, ScheduleView};
use serde::Serialize;

use crate::context::Context;
use crate::error::ApiError;
use crate::reply::Reply;
use crate::state::Api;

#[derive(Serialize)]
struct Shown<'a> {
    plugin: &'a str,
    schedule_id: &'a str,
    command: &'a str,
    mode: &'static str,
    expression: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    timezone: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_run_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_fired_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_success_at: Option<String>,
    slots_late: u64,
    slots_dropped: u64,
}

#[derive(Serialize)]
struct Page<'a> {
    jobs: Vec<Shown<'a>>,
}

/// `GET /scheduler/jobs`.
pub(crate) async fn list(api: &Api, context: &Context) -> Result<Reply, ApiError> {
    api.require(context, Family::JobStatus)?;
    let overview = api.queue.store().schedule_overview(api.plan.schedules.clone()).await;
    let overview = overview.map_err(|error| ApiError::queue("failed to read the schedules", error))?;
    let counts = api.control.slot_counts();
    let jobs = overview.configured.iter().map(|view| {
        let entry = &view.entry;
        let counts = counts.get(&(entry.plugin.clone(), entry.id.clone())).copied().unwrap_or_default();
        Shown { slots_late: counts.late, slots_dropped: counts.dropped, ..shown(api, view) }
    });
    Reply::ok(&Page { jobs: jobs.collect() })
}

fn shown<'a>(api: &Api, view: &'a ScheduleView) -> Shown<'a> {
    let entry = &view.entry;
    let row = view.row.as_ref();
    let next = match row {
        Some(row) => row.next_run_at,
        None => entry.first_due(api.clock.now()),
    };
    Shown {
        plugin: &entry.plugin,
        schedule_id: &entry.id,
        command: &entry.command,
        mode: entry.mode(),
        expression: entry.expression(),
        status: word(row.map_or(ScheduleStatus::Active, |row| row.status)),
        reason: row.and_then(|row| row.reason.as_deref()),
        timezone: entry.zone.name(),
        next_run_at: next.map(format_wire),
        last_fired_at: row.and_then(|row| row.last_fired_at).map(format_wire),
        last_success_at: row.and_then(|row| row.last_success_at).map(format_wire),
        slots_late: 0,
        slots_dropped: 0,
    }
}

/// The word that callers know for a state.
fn word(status: ScheduleStatus) -> &'static str {
    match status {
        ScheduleStatus::Active => "scheduled",
        ScheduleStatus::PausedManual => "paused",
        ScheduleStatus::PausedInvalid => "invalid",
        ScheduleStatus::Exhausted => "exhausted",
    }
}
