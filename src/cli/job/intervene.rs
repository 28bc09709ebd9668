//! Changing what becomes of jobs of a running gateway: cancelling them, and queueing failed ones again.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{find, reader};
use crate::cli::args::{Common, Remote};
use crate::cli::client::{Gateway, Limit, block_on, encode};
use crate::cli::report::{self, Failure, line};

const TIMEOUT: Duration = Duration::from_secs(60);
/// Length of a whole id; a shorter text is a part of one.
const WHOLE_ID: usize = 36;

#[derive(Debug, clap::Args)]
pub(crate) struct Cancel {
    /// Id of the job; also a part of one, where the database is on this machine
    job_id: String,
    /// Why; stored with the job
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Everything that the job caused, too
    #[arg(long)]
    tree: bool,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Retry {
    /// Ids of jobs; also parts of them, where the database is on this machine
    job_ids: Vec<String>,
    /// Jobs of this plugin
    #[arg(long, value_name = "NAME", conflicts_with = "job_ids")]
    plugin: Option<String>,
    /// Jobs of this command
    #[arg(long, value_name = "CMD", conflicts_with = "job_ids")]
    command: Option<String>,
    /// Jobs that ended like this, comma-separated [default: failed,timed_out,dead]
    #[arg(long, value_name = "STATES", value_delimiter = ',', conflicts_with = "job_ids")]
    status: Vec<String>,
    /// Jobs that ended since then: a duration such as 6h, or a time
    #[arg(long, value_name = "WHEN", conflicts_with = "job_ids")]
    since: Option<String>,
    /// Jobs of this pipeline
    #[arg(long, value_name = "NAME", conflicts_with = "job_ids")]
    pipeline: Option<String>,
    /// Show what would run, and run nothing
    #[arg(long)]
    dry_run: bool,
    /// Jobs that may start per second, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 10)]
    rate: u32,
    /// Jobs at most, 1 to 10000
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: u32,
    /// Also jobs that went well, and jobs that were retried before
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(super) fn cancel(arguments: &Cancel, common: &Common) -> Result<u8, Failure> {
    let id = whole(&arguments.job_id, common)?;
    let mut path = format!("/job/{}/cancel", encode(&id));
    if arguments.tree {
        path.push_str("?tree=true");
    }
    let body = match &arguments.reason {
        Some(reason) => json!({ "reason": reason }),
        None => json!({}),
    };
    let answer = ask(&arguments.remote, common, &path, &body)?;
    if common.json {
        report::json(&answer);
    } else if let Some(below) = answer["cancelled"].as_array() {
        let status = answer["status"].as_str().unwrap_or("over");
        line(format_args!("Job {id} was {status} before; cancelled of what it caused: {}", below.len()));
    } else if answer["status"] == "cancelling" {
        line(format_args!("Job {id} is cancelled; its process is being ended"));
    } else {
        line(format_args!("Job {id} is cancelled"));
    }
    Ok(0)
}

pub(super) fn retry(arguments: &Retry, common: &Common) -> Result<u8, Failure> {
    let mut body = selection(arguments, common)?;
    body.insert("dry_run".into(), arguments.dry_run.into());
    body.insert("force".into(), arguments.force.into());
    body.insert("rate".into(), arguments.rate.into());
    body.insert("limit".into(), arguments.limit.into());
    let answer = ask(&arguments.remote, common, "/jobs/retry", &Value::Object(body))?;
    if common.json {
        report::json(&answer);
    } else {
        show(&answer, arguments);
    }
    let nothing = rows(&answer, "retried").is_empty();
    // Jobs that were named and are all left alone: what was asked did not happen.
    Ok(u8::from(nothing && !arguments.job_ids.is_empty()))
}

fn selection(arguments: &Retry, common: &Common) -> Result<Map<String, Value>, Failure> {
    let mut body = Map::new();
    if !arguments.job_ids.is_empty() {
        let ids: Vec<String> = arguments.job_ids.iter().map(|id| whole(id, common)).collect::<Result<_, _>>()?;
        body.insert("job_ids".into(), json!(ids));
        return Ok(body);
    }
    let mut filter = Map::new();
    for (key, value) in [
        ("plugin", &arguments.plugin),
        ("command", &arguments.command),
        ("since", &arguments.since),
        ("pipeline", &arguments.pipeline),
    ] {
        if let Some(value) = value {
            filter.insert(key.to_owned(), json!(value));
        }
    }
    if !arguments.status.is_empty() {
        filter.insert("status".into(), json!(arguments.status));
    }
    if filter.is_empty() {
        return Err(Failure::usage(
            "say which jobs: their ids, or at least one of --plugin, --command, --status, --since, --pipeline",
        ));
    }
    body.insert("filter".into(), Value::Object(filter));
    Ok(body)
}

fn ask(remote: &Remote, common: &Common, path: &str, body: &Value) -> Result<Value, Failure> {
    let gateway = Gateway::resolve(remote, common, Limit::Whole(TIMEOUT))?;
    if !gateway.has_key() {
        return Err(Failure::usage("API key required (--api-key or DUCTILE_API_KEY)"));
    }
    block_on(gateway.post(path, body))
}

/// The id that a part of one stands for.
fn whole(part: &str, common: &Common) -> Result<String, Failure> {
    if part.len() >= WHOLE_ID {
        return Ok(part.to_owned());
    }
    let found = find(&reader(common)?, part)?;
    found.map(|id| id.to_string()).ok_or_else(|| Failure::missing(format!("job \"{part}\" not found")))
}

fn rows<'a>(answer: &'a Value, key: &str) -> &'a [Value] {
    answer[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn show(answer: &Value, arguments: &Retry) {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    for row in rows(answer, "retried") {
        let (old, plugin, command) = (text(row, "retry_of"), text(row, "plugin"), text(row, "command"));
        let due = text(row, "due_at");
        match row["job_id"].as_str() {
            Some(new) => line(format_args!("retried {old} as {new} ({plugin}:{command}) due {due}")),
            None => line(format_args!("would retry {old} ({plugin}:{command}) due {due}")),
        }
    }
    for row in rows(answer, "skipped") {
        line(format_args!("skipped {}: {}", text(row, "job_id"), text(row, "message")));
    }
    let (retried, skipped) = (rows(answer, "retried").len(), rows(answer, "skipped").len());
    let word = if arguments.dry_run { "would be retried" } else { "retried" };
    line(format_args!("{retried} {word}, {skipped} skipped, {} per second", arguments.rate));
    if answer["more"] == true {
        report::note(format_args!("more jobs match than --limit lets through; run the command again for the rest"));
    }
}
