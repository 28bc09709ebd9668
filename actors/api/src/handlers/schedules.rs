//! What runs when.

use std::collections::HashMap;

use ductile_config::Family;
use ductile_model::{SlotCounts, format_wire};
use ductile_queue::{ScheduleRow, ScheduleStatus};
use ductile_timetable::Entry;
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
    let rows = api.queue.store().schedules().await;
    let rows = rows.map_err(|error| ApiError::queue("failed to read the schedules", error))?;
    let rows: HashMap<_, _> = rows.iter().map(|row| ((row.plugin.as_str(), row.schedule_id.as_str()), row)).collect();
    let counts = api.control.slot_counts();
    let jobs = api.plan.schedules.iter().map(|entry| {
        let counts = counts.get(&(entry.plugin.clone(), entry.id.clone())).copied().unwrap_or_default();
        shown(api, entry, rows.get(&(entry.plugin.as_str(), entry.id.as_str())).copied(), counts)
    });
    Reply::ok(&Page { jobs: jobs.collect() })
}

fn shown<'a>(api: &Api, entry: &'a Entry, row: Option<&'a ScheduleRow>, counts: SlotCounts) -> Shown<'a> {
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
        slots_late: counts.late,
        slots_dropped: counts.dropped,
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
