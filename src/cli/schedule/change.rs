//! Pausing and resuming schedules.

use chrono::Utc;
use ductile_model::format_wire;
use ductile_queue::{ChangeMode, ScheduleChange, ScheduleChanged, ScheduleRow};
use serde_json::{Value, json};

use super::{find, named};
use crate::cli::args::Common;
use crate::cli::report::{self, Failure, line};
use crate::cli::state;

/// Which schedules.
#[derive(Debug, clap::Args)]
struct Which {
    /// Configured name of the plugin
    plugin: String,
    /// Only this schedule [default: all of the plugin]
    id: Option<String>,
    /// Say what would be changed, but change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PauseArguments {
    #[command(flatten)]
    which: Which,
    /// Why, for whoever looks
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArguments {
    #[command(flatten)]
    which: Which,
    /// Also arm again what runs only once and has run
    #[arg(long)]
    rearm: bool,
}

pub(super) fn pause(arguments: &PauseArguments, common: &Common) -> Result<u8, Failure> {
    let reason = arguments.reason.clone().filter(|reason| !reason.trim().is_empty());
    apply("pause", &arguments.which, &ScheduleChange::Pause(reason), common)
}

pub(super) fn resume(arguments: &ResumeArguments, common: &Common) -> Result<u8, Failure> {
    apply("resume", &arguments.which, &ScheduleChange::Resume { rearm: arguments.rearm }, common)
}

fn apply(action: &'static str, which: &Which, change: &ScheduleChange, common: &Common) -> Result<u8, Failure> {
    let outline = state::configuration(common)?;
    let entries = find(&outline, &which.plugin, which.id.as_deref())?;
    let mode = if which.dry_run { ChangeMode::Preview } else { ChangeMode::Apply };
    let mut database = state::maintainer(&outline.config.state.path)?;
    let mut changed = Vec::new();
    let mut exhausted = Vec::new();
    for entry in &entries {
        match database.change_schedule(entry, change, Utc::now(), mode).map_err(state::failure)? {
            ScheduleChanged::Done(row) => changed.push(row),
            ScheduleChanged::Exhausted => exhausted.push(named(&entry.plugin, &entry.id)),
        }
    }
    let hint = match change {
        ScheduleChange::Pause(_) => "has run, once: there is nothing to pause",
        ScheduleChange::Resume { .. } => "has run, once: --rearm lets it run again",
    };
    if changed.is_empty() {
        return Err(Failure::usage(format!("{} {hint}", exhausted.join(", "))));
    }
    if common.json {
        report::json(&json!({
            "action": action,
            "dry_run": which.dry_run,
            "schedules": changed.iter().map(document).collect::<Vec<_>>(),
        }));
    } else {
        changed.iter().for_each(|row| show(row, change, mode));
    }
    exhausted.iter().for_each(|name| report::note(format_args!("note: {name} {hint}")));
    Ok(0)
}

fn document(row: &ScheduleRow) -> Value {
    json!({
        "plugin": row.plugin,
        "schedule_id": row.schedule_id,
        "status": row.status.as_str(),
        "reason": row.reason,
        "next_run_at": row.next_run_at.map(format_wire),
    })
}

fn show(row: &ScheduleRow, change: &ScheduleChange, mode: ChangeMode) {
    let name = named(&row.plugin, &row.schedule_id);
    let next = row.next_run_at.map_or_else(|| "never".to_owned(), format_wire);
    match (change, mode) {
        (ScheduleChange::Pause(_), ChangeMode::Apply) => line(format_args!("Paused schedule {name}")),
        (ScheduleChange::Pause(_), ChangeMode::Preview) => line(format_args!("Would pause schedule {name}")),
        (ScheduleChange::Resume { .. }, ChangeMode::Apply) => {
            line(format_args!("Resumed schedule {name}: next run {next}"));
        }
        (ScheduleChange::Resume { .. }, ChangeMode::Preview) => {
            line(format_args!("Would resume schedule {name}: next run {next}"));
        }
    }
}
