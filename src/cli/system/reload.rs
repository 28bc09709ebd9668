//! `ductile system reload`: by the API, or by a signal and its row in the history.

use std::path::Path;
use std::time::{Duration, Instant};

use ductile_config::state_path;
use ductile_model::{Outcome, format_wire};
use ductile_queue::{Reader, ReloadRecord};
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::args::{Common, Remote};
use crate::cli::client::{Gateway, Limit, block_on};
use crate::cli::report::{self, Failure};
use crate::gateway::pid_lock::{LockState, lock_path, lock_state};

/// How often the history is looked at while a signal's reload runs.
const LOOK: Duration = Duration::from_millis(50);

/// Longer than the gateway takes to answer a reload, whatever becomes of it.
const BY_API: Duration = Duration::from_secs(70);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How long to wait for the result
    #[arg(long, default_value = "30s", value_name = "DUR")]
    wait: String,
    /// Send the signal and return
    #[arg(long)]
    no_wait: bool,
    /// Show earlier reloads
    #[arg(long)]
    history: bool,
    /// Rows of the history
    #[arg(long, default_value_t = 20)]
    limit: u32,
    #[command(flatten)]
    remote: Remote,
}

pub(crate) fn run(arguments: &Arguments, common: &Common) -> Result<u8, Failure> {
    if arguments.history {
        return show_history(arguments.limit, common);
    }
    if arguments.remote.api_url().is_some() {
        return by_api(arguments, common);
    }
    by_signal(arguments, common)
}

fn by_api(arguments: &Arguments, common: &Common) -> Result<u8, Failure> {
    let gateway = Gateway::resolve(&arguments.remote, common, Limit::Whole(BY_API))?;
    block_on(async {
        let request = gateway.request(Method::POST, "/system/reload");
        let response = request.send().await.map_err(|error| gateway.unreachable(&error))?;
        let status = response.status();
        let body = response.text().await.map_err(|error| gateway.unreachable(&error))?;
        let answer: Value = serde_json::from_str(&body).unwrap_or_default();
        if !status.is_success() {
            let rejected = answer["context"]["outcome"] == "rejected";
            let failure = Failure::config(format!("Reload failed ({}): {}", status.as_u16(), body.trim_end()));
            return Err(failure.exiting(if rejected { 78 } else { 1 }));
        }
        if common.json {
            report::json(&answer);
        } else {
            report::line(format_args!("Reloaded at {}", answer["reloaded_at"].as_str().unwrap_or("?")));
        }
        Ok(0)
    })
}

fn by_signal(arguments: &Arguments, common: &Common) -> Result<u8, Failure> {
    let limit =
        ductile_model::parse_duration(&arguments.wait).map_err(|error| Failure::usage(format!("--wait: {error}")))?;
    let database = database(common)?;
    let LockState::Held(Some(pid)) = lock_state(&lock_path(&database)) else {
        return Err(Failure::unreachable(format!("no running gateway holds {}", lock_path(&database).display())));
    };
    let before = newest(&database);
    let target = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap_or(0))
        .ok_or_else(|| Failure::internal(format!("{pid} is not a process id")))?;
    rustix::process::kill_process(target, rustix::process::Signal::HUP)
        .map_err(|error| Failure::internal(format!("could not signal pid {pid}: {error}")))?;
    let Some(before) = before.filter(|_| !arguments.no_wait) else {
        if common.json {
            report::json(&json!({"status": "ok", "message": format!("SIGHUP sent to {pid}")}));
        } else {
            report::line(format_args!("Reload signal sent to PID {pid}"));
        }
        return Ok(0);
    };
    if !common.json {
        report::line(format_args!("Reload signal sent to PID {pid}"));
    }
    let row = wait_for_row(&database, before, limit)
        .ok_or_else(|| Failure::try_again(format!("no result of the reload within {}", arguments.wait)))?;
    show_result(&row, common)
}

/// The first finished row that came after `before`.
fn wait_for_row(database: &Path, before: i64, limit: Duration) -> Option<ReloadRecord> {
    let give_up = Instant::now() + limit;
    loop {
        let rows = Reader::open(database).and_then(|reader| reader.reloads(50)).unwrap_or_default();
        let finished = |row: &ReloadRecord| row.id > before && row.outcome.is_some();
        if let Some(row) = rows.into_iter().rev().find(finished) {
            return Some(row);
        }
        if Instant::now() >= give_up {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}

fn show_result(row: &ReloadRecord, common: &Common) -> Result<u8, Failure> {
    let outcome = row.outcome.unwrap_or(Outcome::Failed);
    if outcome == Outcome::Ok {
        if common.json {
            report::json(&row_json(row));
        } else {
            report::line(format_args!("Reloaded at {}", row.finished_at.map(format_wire).unwrap_or_default()));
        }
        return Ok(0);
    }
    let cause = row.error.clone().unwrap_or_else(|| "the cause was not recorded".to_owned());
    let failure = if outcome == Outcome::Rejected { Failure::config(cause) } else { Failure::internal(cause) };
    Err(failure.exiting(outcome.exit_code()).with("stage", row.stage.clone()).with("outcome", outcome.as_str()))
}

fn show_history(limit: u32, common: &Common) -> Result<u8, Failure> {
    if limit == 0 {
        return Err(Failure::usage("--limit must be at least 1"));
    }
    let reader = Reader::open(&database(common)?).map_err(Failure::missing)?;
    let rows = reader.reloads(limit).map_err(Failure::internal)?;
    if !reader.has_table("reload_history").map_err(Failure::internal)? {
        report::note(format_args!(
            "this database keeps no history of reloads: run \"ductile system migrate --additive\" to have one"
        ));
    }
    if common.json {
        report::json(&json!({"reloads": rows.iter().map(row_json).collect::<Vec<_>>()}));
        return Ok(0);
    }
    for row in &rows {
        let at = row.requested_at.map(format_wire).unwrap_or_default();
        let outcome = row.outcome.map_or("running", Outcome::as_str);
        let actor = row.actor.as_deref().map(|actor| format!(" by {actor}")).unwrap_or_default();
        let took = row.duration_ms.map(|ms| format!(" in {ms} ms")).unwrap_or_default();
        report::line(format_args!("{at}  {outcome}  {}{actor}{took}", row.trigger));
        if let Some(error) = &row.error {
            report::line(format_args!("  {}: {error}", row.stage.as_deref().unwrap_or("?")));
        }
    }
    if rows.is_empty() {
        report::line(format_args!("No reloads recorded."));
    }
    Ok(0)
}

fn row_json(row: &ReloadRecord) -> Value {
    json!({
        "id": row.id,
        "requested_at": row.requested_at.map(format_wire),
        "finished_at": row.finished_at.map(format_wire),
        "trigger": row.trigger,
        "actor": row.actor,
        "outcome": row.outcome.map(Outcome::as_str),
        "stage": row.stage,
        "error": row.error,
        "config_snapshot_id": row.new_snapshot,
        "duration_ms": row.duration_ms,
    })
}

fn newest(database: &Path) -> Option<i64> {
    let rows = Reader::open(database).and_then(|reader| reader.reloads(1)).ok()?;
    Some(rows.first().map_or(0, |row| row.id))
}

/// The state database of the configuration. Only what keeps its place from being known is refused here: all else is for
/// the gateway to refuse, which records it.
fn database(common: &Common) -> Result<std::path::PathBuf, Failure> {
    let environment = crate::environment();
    let source = common.locate(&environment).map_err(Failure::config)?;
    state_path(&source, &environment)
        .map_err(|refusal| Failure::config(format!("the configuration does not load: {refusal}")).exiting(78))
}
