//! `ductile plugin`: plugins of a running gateway.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use ductile_model::untrusted_json;
use reqwest::Method;
use serde_json::{Value, json};

use super::args::{Common, Remote};
use super::client::{Gateway, Limit, api_error, block_on, encode};
use super::report::{self, Failure};

const LIST_TIMEOUT: Duration = Duration::from_secs(10);
const RUN_TIMEOUT: Duration = Duration::from_secs(15);
/// Longer than any synchronous wait the gateway allows by default.
const SYNC_TIMEOUT: Duration = Duration::from_secs(330);

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// List plugins, their versions and commands
    #[command(after_help = "Example:\n  ductile plugin list --json\n\nExit codes: 0 success, 1 anything else.")]
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Run one command of a plugin
    #[command(
        after_help = "Examples:\n  ductile plugin run echo poll --payload '{\"message\":\"hi\"}'\n  ductile plugin run echo --command health --sync\n\nExit codes: 0 queued (with --sync: succeeded), 1 anything else."
    )]
    Run(Run),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Configured name of the plugin
    name: String,
    /// Command [default: poll]
    command: Option<String>,
    /// The command, as a flag
    #[arg(long = "command", value_name = "CMD")]
    command_flag: Option<String>,
    /// JSON object for the plugin
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// File with the JSON object
    #[arg(long, value_name = "PATH")]
    payload_file: Option<PathBuf>,
    /// Wait for the result
    #[arg(long)]
    sync: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(crate) fn run(action: Action, common: &Common) -> Result<u8, Failure> {
    match action {
        Action::List { remote } => {
            let gateway = Gateway::resolve(&remote, common, Limit::Whole(LIST_TIMEOUT))?;
            block_on(list(&gateway, common))
        }
        Action::Run(run) => {
            let command = chosen_command(&run)?;
            let payload = payload(&run)?;
            let timeout = if run.sync { SYNC_TIMEOUT } else { RUN_TIMEOUT };
            let gateway = Gateway::resolve(&run.remote, common, Limit::Whole(timeout))?;
            if !gateway.has_key() {
                return Err(Failure::usage("API key required (--api-key or DUCTILE_API_KEY)"));
            }
            block_on(trigger(&gateway, &run.name, &command, payload, run.sync, common))
        }
    }
}

async fn list(gateway: &Gateway, common: &Common) -> Result<u8, Failure> {
    let (status, body) = gateway.send(gateway.request(Method::GET, "/plugins")).await?;
    if !status.is_success() {
        return Err(api_error(status, &body));
    }
    if common.json {
        report::text(&body);
        return Ok(0);
    }
    let body =
        untrusted_json::value(&body).map_err(|error| Failure::internal(format!("answer is not JSON: {error}")))?;
    let plugins = body["plugins"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows: Vec<[String; 3]> = plugins.iter().map(row).collect();
    let width = |column: usize, head: &str| rows.iter().map(|row| row[column].len()).max().unwrap_or(0).max(head.len());
    let (name, version) = (width(0, "NAME"), width(1, "VERSION"));
    report::line(format_args!("{:name$}  {:version$}  COMMANDS", "NAME", "VERSION"));
    for (row, plugin) in rows.iter().zip(plugins) {
        report::line(format_args!("{:name$}  {:version$}  {}", row[0], row[1], row[2]));
        if let Some(description) = plugin["description"].as_str().filter(|text| !text.is_empty()) {
            report::line(format_args!("    {description}"));
        }
    }
    Ok(0)
}

fn row(plugin: &Value) -> [String; 3] {
    let text = |key: &str| plugin[key].as_str().unwrap_or_default().to_owned();
    let commands: Vec<&str> = plugin["commands"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    [text("name"), text("version"), commands.join(",")]
}

async fn trigger(
    gateway: &Gateway,
    name: &str,
    command: &str,
    payload: Option<Value>,
    sync: bool,
    common: &Common,
) -> Result<u8, Failure> {
    let path = format!("/plugin/{}/{}", encode(name), encode(command));
    let mut request = gateway.request(Method::POST, &path);
    let body = match (payload, sync) {
        (None, false) => None,
        (None, true) => Some(json!({"sync": true})),
        (Some(payload), false) => Some(json!({"payload": payload})),
        (Some(payload), true) => Some(json!({"payload": payload, "sync": true})),
    };
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let (status, body) = gateway.send(request).await?;
    if !status.is_success() {
        return Err(api_error(status, &body));
    }
    let answer =
        untrusted_json::value(&body).map_err(|error| Failure::internal(format!("answer is not JSON: {error}")))?;
    let job = answer["job_id"].as_str().unwrap_or_default();
    let state = answer["status"].as_str().unwrap_or_default();
    if common.json {
        report::text(&body);
    } else if sync {
        let result = answer["result"]["result"].as_str().or(answer["result"]["error"].as_str()).unwrap_or_default();
        report::line(format_args!("Job {job} ({name} {command}): {state}"));
        if !result.is_empty() {
            report::line(format_args!("{result}"));
        }
    } else {
        report::line(format_args!("Queued job {job} ({name} {command})"));
    }
    Ok(u8::from(sync && state != "succeeded"))
}

fn chosen_command(run: &Run) -> Result<String, Failure> {
    match (&run.command, &run.command_flag) {
        (Some(one), Some(other)) if one != other => {
            Err(Failure::usage(format!("two different commands: {one} and --command {other}")))
        }
        (Some(command), _) | (None, Some(command)) => Ok(command.clone()),
        (None, None) => Ok("poll".to_owned()),
    }
}

fn payload(run: &Run) -> Result<Option<Value>, Failure> {
    let text = match (&run.payload, &run.payload_file) {
        (Some(_), Some(_)) => return Err(Failure::usage("use only one of --payload or --payload-file")),
        (Some(text), None) => text.clone(),
        (None, Some(path)) => std::fs::read_to_string(path)
            .map_err(|error| Failure::missing(format!("--payload-file {}: {error}", path.display())))?,
        (None, None) => return Ok(None),
    };
    match untrusted_json::value(&text) {
        Ok(Value::Null) => Ok(None),
        Ok(value @ Value::Object(_)) => Ok(Some(value)),
        Ok(_) => Err(Failure::usage("the payload must be a JSON object")),
        Err(error) => Err(Failure::usage(format!("the payload is not valid JSON: {error}"))),
    }
}
