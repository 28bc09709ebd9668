//! The coming runs of schedules.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use ductile_model::format_wire;
use ductile_queue::{ScheduleStatus, ScheduleView};
use ductile_timetable::{Entry, Rule};
use serde_json::{Value, json};

use super::{find, list, named};
use crate::cli::args::Common;
use crate::cli::report::{self, Failure, line};
use crate::cli::state;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Configured name of the plugin
    plugin: String,
    /// Only this schedule
    id: Option<String>,
    /// Runs of each
    #[arg(short = 'n', long, default_value = "5", value_name = "N", allow_negative_numbers = true)]
    count: String,
    /// From this time on instead of now, RFC 3339
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
}

/// Where the runs are counted from.
#[derive(Clone, Copy)]
enum Start {
    /// What the rows say, at this time.
    Rows(DateTime<Utc>),
    /// The configuration alone.
    Given(DateTime<Utc>),
}

/// The coming runs of one schedule.
struct Coming {
    view: ScheduleView,
    runs: Vec<DateTime<Utc>>,
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<u8, Failure> {
    let count = arguments.count.parse().ok().filter(|count| (1..=1000).contains(count));
    let count = count.ok_or_else(|| Failure::usage("the number of runs must be from 1 to 1000"))?;
    let start = match &arguments.from {
        None => Start::Rows(Utc::now()),
        Some(text) => Start::Given(
            DateTime::parse_from_rfc3339(text).map_err(|_| Failure::usage("invalid from timestamp"))?.to_utc(),
        ),
    };
    let outline = state::configuration(common)?;
    let entries = find(&outline, &arguments.plugin, arguments.id.as_deref())?;
    let mut views = list::overview(&outline)?.configured;
    views.retain(|view| entries.iter().any(|entry| Arc::ptr_eq(entry, &view.entry)));
    let coming: Vec<_> =
        views.into_iter().map(|view| Coming { runs: runs(&view, start).take(count).collect(), view }).collect();
    if common.json {
        let schedules: Vec<_> = coming.iter().map(document).collect();
        report::json(&json!({ "plugin": arguments.plugin, "schedules": schedules }));
    } else {
        coming.iter().for_each(show);
    }
    Ok(0)
}

fn runs(view: &ScheduleView, start: Start) -> impl Iterator<Item = DateTime<Utc>> + '_ {
    first(view, start).into_iter().flat_map(|first| view.entry.upcoming(first))
}

/// When the schedule is due first. `None`: never again.
fn first(view: &ScheduleView, start: Start) -> Option<DateTime<Utc>> {
    let entry = &*view.entry;
    match (start, &view.row) {
        (Start::Given(at), _) => new_at(entry, at),
        (Start::Rows(now), None) => entry.first_due(now),
        // The files are ahead of the gateway: the next reload starts it anew.
        (Start::Rows(now), Some(row)) if row.is_of_another(entry) => entry.due_after_change(now, row.last_run()),
        (Start::Rows(_), Some(row)) if row.status == ScheduleStatus::Exhausted => None,
        // What has passed is late; of a cron expression the slot after that is shown.
        (Start::Rows(now), Some(row)) => row.next_run_at.or_else(|| entry.first_due(now)).map(|due| due.max(now)),
    }
}

/// When a schedule that is new at a time is due first.
fn new_at(entry: &Entry, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    match entry.rule {
        Rule::At(due) if due < at => None,
        _ => entry.first_due(at),
    }
}

fn is_paused(view: &ScheduleView) -> bool {
    view.row.as_ref().is_some_and(|row| row.status == ScheduleStatus::PausedManual)
}

fn document(coming: &Coming) -> Value {
    let entry = &coming.view.entry;
    json!({
        "schedule_id": entry.id,
        "command": entry.command,
        "mode": entry.mode(),
        "expression": entry.expression(),
        "timezone": entry.zone.name(),
        "status": coming.view.row.as_ref().map_or("active", |row| row.status.as_str()),
        "runs": coming.runs.iter().map(|run| entry.zone.show(*run)).collect::<Vec<_>>(),
        "runs_utc": coming.runs.iter().map(|run| format_wire(*run)).collect::<Vec<_>>(),
    })
}

fn show(coming: &Coming) {
    let entry = &coming.view.entry;
    line(format_args!(
        "{} {} {} ({})",
        named(&entry.plugin, &entry.id),
        entry.mode(),
        entry.expression(),
        entry.zone.name()
    ));
    if is_paused(&coming.view) {
        report::note(format_args!("{} is paused: it would run then", named(&entry.plugin, &entry.id)));
    }
    for run in &coming.runs {
        line(format_args!("- {}", entry.zone.show(*run)));
    }
    if coming.runs.is_empty() {
        line(format_args!("- never again"));
    }
}
