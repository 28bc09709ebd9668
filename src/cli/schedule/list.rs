//! All schedules.

use std::time::Duration;

use chrono::{DateTime, Utc};
use comfy_table::{Table, presets};
use ductile_config::Outline;
use ductile_model::{format_duration, format_wire};
use ductile_queue::{Reader, ScheduleOverview, ScheduleRow, ScheduleView, StoreError};
use serde_json::{Value, json};

use super::{named, unknown_plugin};
use crate::cli::args::Common;
use crate::cli::report::{self, Failure, Form, line};
use crate::cli::state;

/// What is said of a row whose schedule is gone.
const NOT_CONFIGURED: &str = "not configured";

pub(super) fn run(plugin: Option<&str>, common: &Common) -> Result<u8, Failure> {
    let outline = state::configuration(common)?;
    let mut found = overview(&outline)?;
    if let Some(plugin) = plugin {
        found.configured.retain(|view| view.entry.plugin == plugin);
        found.others.retain(|row| row.plugin == plugin);
        let is_known = outline.config.plugins.contains_key(plugin) || !found.others.is_empty();
        if !is_known {
            return Err(unknown_plugin(plugin));
        }
    }
    if common.json {
        let configured = found.configured.iter().map(document);
        let all: Vec<_> = configured.chain(found.others.iter().map(leftover_document)).collect();
        report::json(&json!({ "schedules": all }));
        return Ok(0);
    }
    line(format_args!("Schedules (total={})", found.configured.len() + found.others.len()));
    match Form::of_stdout(common.no_color) {
        Form::Plain => show(&found),
        Form::Terminal { .. } => show_table(&found),
    }
    Ok(0)
}

/// What the database tells. Before the first start there is none, and nothing has run.
pub(super) fn overview(outline: &Outline) -> Result<ScheduleOverview, Failure> {
    match Reader::open(&outline.config.state.path) {
        Ok(reader) => reader.schedules(&outline.schedules).map_err(state::failure),
        Err(StoreError::NotFound(_)) => {
            let configured = outline.schedules.iter().cloned().map(ScheduleView::unseen).collect();
            Ok(ScheduleOverview { configured, others: Vec::new() })
        }
        Err(error) => Err(state::failure(error)),
    }
}

fn status(view: &ScheduleView) -> &'static str {
    // One that no gateway has seen yet is going to run.
    view.row.as_ref().map_or("active", |row| row.status.as_str())
}

fn due(view: &ScheduleView) -> Option<DateTime<Utc>> {
    view.row.as_ref().and_then(|row| row.next_run_at)
}

fn document(view: &ScheduleView) -> Value {
    let entry = &view.entry;
    let row = view.row.as_ref();
    json!({
        "plugin": entry.plugin,
        "schedule_id": entry.id,
        "command": entry.command,
        "mode": entry.mode(),
        "expression": entry.expression(),
        "timezone": entry.zone.name(),
        "status": status(view),
        "reason": row.and_then(|row| row.reason.as_ref()),
        "last_fired_at": row.and_then(|row| row.last_fired_at).map(format_wire),
        "last_success_at": row.and_then(|row| row.last_success_at).map(format_wire),
        "next_run_at": due(view).map(format_wire),
        "next_run_local": due(view).map(|at| entry.zone.show(at)),
        "effective_cadence": effective(view),
        "breaker": view.breaker.as_str(),
    })
}

fn leftover_document(row: &ScheduleRow) -> Value {
    json!({
        "plugin": row.plugin,
        "schedule_id": row.schedule_id,
        "command": row.command,
        "mode": "unknown",
        "expression": null,
        "timezone": null,
        "status": NOT_CONFIGURED,
        "reason": row.reason,
        "last_fired_at": row.last_fired_at.map(format_wire),
        "last_success_at": row.last_success_at.map(format_wire),
        "next_run_at": row.next_run_at.map(format_wire),
        "next_run_local": null,
        "effective_cadence": null,
        "breaker": null,
    })
}

fn time(at: Option<DateTime<Utc>>) -> String {
    at.map_or_else(|| "-".to_owned(), format_wire)
}

/// How often it really runs. Less than a millisecond is chance.
fn effective(view: &ScheduleView) -> Option<String> {
    let millis = u64::try_from(view.cadence()?.as_millis()).ok()?;
    Some(format_duration(Duration::from_millis(millis)))
}

/// How often it runs: as configured, and as it did.
fn cadence(view: &ScheduleView) -> (String, String) {
    let configured = format!("{} {}", view.entry.mode(), view.entry.expression());
    (configured, effective(view).unwrap_or_else(|| "-".to_owned()))
}

/// One line for each, in a form that scripts may rely on.
fn show(found: &ScheduleOverview) {
    for view in &found.configured {
        let entry = &view.entry;
        let row = view.row.as_ref();
        let (configured, effective) = cadence(view);
        let reason = row.and_then(|row| row.reason.as_ref()).map(|reason| format!(" reason={reason:?}"));
        let local = due(view).map(|at| format!(" ({} {})", entry.zone.show(at), entry.zone.name()));
        line(format_args!(
            "- {} {configured} command={} status={}{} last={} success={} next={}{} cadence={effective} breaker={}",
            named(&entry.plugin, &entry.id),
            entry.command,
            status(view),
            reason.unwrap_or_default(),
            time(row.and_then(|row| row.last_fired_at)),
            time(row.and_then(|row| row.last_success_at)),
            time(due(view)),
            local.unwrap_or_default(),
            view.breaker.as_str(),
        ));
    }
    for row in &found.others {
        line(format_args!(
            "- {} command={} status={NOT_CONFIGURED:?} last={} success={} next={}",
            named(&row.plugin, &row.schedule_id),
            row.command,
            time(row.last_fired_at),
            time(row.last_success_at),
            time(row.next_run_at),
        ));
    }
}

fn show_table(found: &ScheduleOverview) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["SCHEDULE", "CONFIGURED", "EFFECTIVE", "COMMAND", "STATUS", "LAST RUN", "NEXT RUN", "BREAKER"]);
    for view in &found.configured {
        let entry = &view.entry;
        let local = |at: Option<DateTime<Utc>>| at.map_or_else(|| "-".to_owned(), |at| entry.zone.show(at));
        let (configured, effective) = cadence(view);
        let reason = view.row.as_ref().and_then(|row| row.reason.as_ref());
        let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        table.add_row([
            named(&entry.plugin, &entry.id),
            configured,
            effective,
            entry.command.clone(),
            format!("{}{reason}", status(view)),
            local(view.row.as_ref().and_then(|row| row.last_fired_at)),
            local(due(view)),
            view.breaker.as_str().to_owned(),
        ]);
    }
    for row in &found.others {
        table.add_row([
            named(&row.plugin, &row.schedule_id),
            "-".to_owned(),
            "-".to_owned(),
            row.command.clone(),
            NOT_CONFIGURED.to_owned(),
            time(row.last_fired_at),
            time(row.next_run_at),
            "-".to_owned(),
        ]);
    }
    line(format_args!("{table}"));
}
