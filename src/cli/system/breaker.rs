//! `ductile system breaker` and `ductile system reset`: circuit breakers of scheduled commands, straight in the
//! database.

use chrono::{DateTime, Utc};
use ductile_config::Outline;
use ductile_model::format_wire;
use ductile_queue::{BreakerReport, BreakerState, BreakerTransition, ChangeMode, ResetBreaker};
use serde_json::{Map, Value, json};

use crate::cli::args::Common;
use crate::cli::report::{self, Failure, Form, line};
use crate::cli::state;

#[derive(Debug, clap::Args)]
pub(crate) struct ShowArguments {
    /// Configured name of the plugin
    plugin: String,
    /// Command whose breaker is shown
    #[arg(long, default_value = "poll", value_name = "CMD")]
    command: String,
    /// Changes at most
    #[arg(long, default_value = "20", value_name = "N", allow_negative_numbers = true)]
    limit: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ResetArguments {
    /// Configured name of the plugin
    plugin: String,
    /// Only the breaker of this command [default: all of the plugin]
    #[arg(long, value_name = "CMD")]
    command: Option<String>,
    /// Say which would be reset, but change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn show(arguments: &ShowArguments, common: &Common) -> Result<u8, Failure> {
    let limit = arguments.limit.parse().ok().filter(|limit| *limit > 0);
    let limit = limit.ok_or_else(|| Failure::usage("limit must be a number of at least 1"))?;
    let Outline { config, .. } = state::configuration(common)?;
    let reader = state::reader(&config.state.path)?;
    let found = reader.breaker(&arguments.plugin, &arguments.command, limit).map_err(state::failure)?;
    // What a plugin left behind that is not configured any more can still be looked at.
    let left_nothing = found.row.is_none() && found.transitions.is_empty();
    if left_nothing && !config.plugins.contains_key(&arguments.plugin) {
        return Err(unknown(&arguments.plugin));
    }
    if common.json {
        report::json(&document(arguments, &found));
    } else {
        print(arguments, &found, Form::of_stdout(common.no_color));
    }
    Ok(0)
}

fn unknown(plugin: &str) -> Failure {
    Failure::usage(format!("Unknown plugin: {plugin}"))
}

/// An object of what is there.
fn present<const N: usize>(entries: [(&str, Value); N]) -> Map<String, Value> {
    let there = entries.into_iter().filter(|(_, value)| !value.is_null());
    there.map(|(key, value)| (key.to_owned(), value)).collect()
}

fn document(arguments: &ShowArguments, found: &BreakerReport) -> Value {
    let row = found.row.as_ref();
    let time = |at: Option<DateTime<Utc>>| json!(at.map(format_wire));
    let mut document = present([
        ("plugin", json!(arguments.plugin)),
        ("command", json!(arguments.command)),
        ("state", json!(row.map(|row| row.state.as_str()))),
        ("failure_count", json!(row.map(|row| row.failure_count))),
        ("opened_at", time(row.and_then(|row| row.opened_at))),
        ("last_failure_at", time(row.and_then(|row| row.last_failure_at))),
        ("last_job_id", json!(row.and_then(|row| row.last_job_id.as_ref()))),
        ("updated_at", time(row.and_then(|row| row.updated_at))),
    ]);
    let transition = |change: &BreakerTransition| {
        Value::Object(present([
            ("id", json!(change.id)),
            ("from_state", json!(change.from_state)),
            ("to_state", json!(change.to_state)),
            ("failure_count", json!(change.failure_count)),
            ("reason", json!(change.reason)),
            ("job_id", json!(change.job_id)),
            ("created_at", time(change.created_at)),
        ]))
    };
    document.insert("transitions".to_owned(), found.transitions.iter().map(transition).collect());
    Value::Object(document)
}

fn print(arguments: &ShowArguments, found: &BreakerReport, form: Form) {
    line(format_args!("Circuit breaker for {} ({})", arguments.plugin, arguments.command));
    match &found.row {
        None => line(format_args!("State: no current row")),
        Some(row) => {
            let state = form.status(row.state.as_str());
            line(format_args!("State: {state} (failure_count={})", row.failure_count));
            let facts = [
                ("Opened at", row.opened_at.map(format_wire)),
                ("Last failure", row.last_failure_at.map(format_wire)),
                ("Last job", row.last_job_id.as_ref().map(ToString::to_string)),
            ];
            for (name, value) in facts {
                if let Some(value) = value {
                    line(format_args!("{name}: {value}"));
                }
            }
        }
    }
    line(format_args!("Transitions:"));
    for change in &found.transitions {
        let at = change.created_at.map_or_else(|| "?".to_owned(), format_wire);
        let from = change.from_state.as_deref().unwrap_or("<none>");
        let job = change.job_id.as_ref().map(|job| format!(" job={job}")).unwrap_or_default();
        line(format_args!(
            "- {at} {from} -> {} reason={} failure_count={}{job}",
            change.to_state, change.reason, change.failure_count
        ));
    }
    if found.transitions.is_empty() {
        line(format_args!("- none"));
    }
}

pub(super) fn reset(arguments: &ResetArguments, common: &Common) -> Result<u8, Failure> {
    let Outline { config, registry, .. } = state::configuration(common)?;
    let ResetArguments { plugin, command, dry_run } = arguments;
    if !config.plugins.contains_key(plugin) {
        return Err(unknown(plugin));
    }
    let mode = if *dry_run { ChangeMode::Preview } else { ChangeMode::Apply };
    let mut database = state::maintainer(&config.state.path)?;
    let mut close =
        |mode| database.reset_breakers(plugin, command.as_deref(), Utc::now(), mode).map_err(state::failure);
    if let Some(command) = command {
        // A misspelt command has no breaker either; one that the plugin has no more may have left one.
        let has_none = close(ChangeMode::Preview)?.iter().all(|breaker| breaker.previous_state.is_none());
        let lacks_it = registry.get(plugin).is_some_and(|known| known.manifest.command(command).is_none());
        if has_none && lacks_it {
            return Err(Failure::usage(format!("plugin \"{plugin}\" does not support command \"{command}\"")));
        }
    }
    let reset = close(mode)?;
    if common.json {
        report::json(&json!({
            "plugin": plugin,
            "reset": reset.iter().map(reset_json).collect::<Vec<_>>(),
            "dry_run": dry_run,
        }));
        return Ok(0);
    }
    let done = if *dry_run { "Would reset" } else { "Reset" };
    for breaker in &reset {
        line(format_args!("{done} circuit breaker for {plugin} ({})", breaker.command));
    }
    Ok(0)
}

fn reset_json(breaker: &ResetBreaker) -> Value {
    json!({"command": breaker.command, "previous_state": breaker.previous_state.map(BreakerState::as_str)})
}
