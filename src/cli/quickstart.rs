//! `ductile quickstart`: make, start, run a first job, show what to type next.

use std::path::{Path, PathBuf};

use ductile_model::Secret;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::args::Common;
use super::report::{self, Failure, note};
use super::system::runtime;
use crate::gateway::{self, Running};
use crate::logging::LogTarget;
use crate::quickstart::{Deployment, Error, FirstJob, parse_address, trigger};

#[derive(Debug, clap::Args)]
#[command(
    long_about = "Make a complete small deployment in a directory (configuration, vault, API token, two plugins, a watched file), start \
                  the gateway in the foreground, run a first job, and print commands to go on with. Needs no network. A second \
                  run makes nothing and starts what is there.",
    after_help = "Examples:\n  ductile quickstart\n  ductile quickstart --dir /tmp/try --once --json\n\nExit codes: 0 stopped in order (with --once: the job succeeded), 78 the configuration was refused, 1 anything else."
)]
pub(crate) struct Arguments {
    /// Where to make it
    #[arg(long, default_value = "ductile-quickstart", value_name = "DIR")]
    dir: PathBuf,
    /// Address of the API [default: 127.0.0.1:8080, or the next free port]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Stop after the first job
    #[arg(long)]
    once: bool,
}

pub(crate) fn run(arguments: Arguments, common: &Common) -> Result<u8, Failure> {
    crate::harden::this_process();
    let listen = arguments.listen.as_deref().map(parse_address).transpose().map_err(Failure::usage)?;
    let deployment = Deployment::make(&arguments.dir, listen.as_ref()).map_err(not_made)?;
    let token = deployment.token().map_err(Failure::config)?;
    if !common.json {
        show_made(&deployment);
    }
    // The watched file is named relative to the deployment, so that the directory can be moved.
    std::env::set_current_dir(&deployment.dir).map_err(Failure::internal)?;
    let runtime = runtime()?;
    let code = runtime.block_on(serve(&deployment, &token, &arguments, common));
    runtime.shutdown_background();
    code
}

async fn serve(deployment: &Deployment, token: &Secret, arguments: &Arguments, common: &Common) -> Result<u8, Failure> {
    let (announce, running) = oneshot::channel();
    let config = deployment.config_dir();
    let log = LogTarget::File(deployment.log_file());
    let gateway = tokio::spawn(async move { gateway::run(Some(&config), log, Some(announce)).await });
    let Ok(running) = running.await else {
        return not_started(deployment, gateway.await.map_err(Failure::internal)?, arguments.once);
    };
    let first = first_run(deployment, token, &running, arguments, common).await;
    if arguments.once || first.is_err() {
        running.stop.request();
    }
    let code = gateway.await.map_err(Failure::internal)?;
    let status = first?;
    Ok(if arguments.once && code == 0 { status } else { code })
}

fn not_made(error: Error) -> Failure {
    match error {
        Error::OtherListen { .. } => Failure::usage(error),
        Error::Config(_) => Failure::config(error).exiting(78),
        _ => Failure::cannot_create(error),
    }
}

/// The gateway ended before it served. It has said why by itself, on stderr.
fn not_started(deployment: &Deployment, code: u8, once: bool) -> Result<u8, Failure> {
    if code == 0 {
        let stopped = || Failure::try_again("stopped before the first job ran");
        return if once { Err(stopped()) } else { Ok(0) };
    }
    let log = deployment.log_file().display().to_string();
    let message =
        format!("the gateway did not start (exit status {code}); the cause is on stderr, what came before in {log}");
    let failure = if code == 78 { Failure::config(message) } else { Failure::try_again(message) };
    Err(failure.exiting(code).with("exit_status", code).with("log", log).with("dir", dir_text(deployment)))
}

fn dir_text(deployment: &Deployment) -> String {
    deployment.dir.display().to_string()
}

/// Runs the first job and shows it; returns the exit status of `--once`.
async fn first_run(
    deployment: &Deployment,
    token: &Secret,
    running: &Running,
    arguments: &Arguments,
    common: &Common,
) -> Result<u8, Failure> {
    let address = running.api.map_or_else(|| deployment.listen.clone(), |address| address.to_string());
    let api_url = format!("http://{address}");
    let job = trigger(&api_url, token).await.map_err(|cause| {
        let config = quoted(&deployment.config_dir());
        let log = deployment.log_file().display().to_string();
        Failure::internal(format!(
            "the first job could not be triggered: {cause}\nWithout it: ductile system start --config {config}"
        ))
        .with("log", log)
        .with("dir", dir_text(deployment))
    })?;
    let commands = commands(deployment, &api_url, token, &job.job_id);
    if common.json {
        report::json(&document(deployment, &address, &api_url, token, &job, &commands));
    } else {
        show_run(deployment, running, &api_url, token, &job, &commands, arguments.once);
    }
    if let Some(cause) = job.cause.as_ref().filter(|_| !common.json) {
        note(format_args!("job {} did not succeed: {cause}", job.job_id));
    }
    Ok(u8::from(job.status != "succeeded"))
}

/// A command to paste, with what it is for.
struct Paste {
    what: &'static str,
    command: String,
}

fn commands(deployment: &Deployment, api_url: &str, token: &Secret, job: &str) -> Vec<Paste> {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("ductile"));
    let ductile = quoted(&program);
    let config = quoted(&deployment.config_dir());
    let file = quoted(&deployment.dir.join("watched/hello.txt"));
    let token = token.expose();
    let auth = format!("-H 'Authorization: Bearer {token}'");
    let paste = |what, command| Paste { what, command };
    vec![
        paste("Is it alive?", format!("curl -s {api_url}/healthz")),
        paste(
            "Trigger the plugin and wait for the answer",
            format!("curl -s {auth} -d '{{\"sync\":true}}' {api_url}/plugin/file_watch/poll"),
        ),
        paste(
            "The same with the command line",
            format!("{ductile} plugin run file_watch poll --sync --config {config}"),
        ),
        paste(
            "Say something through a plugin",
            format!("{ductile} api /plugin/echo/poll -f message=hi --config {config}"),
        ),
        paste("What happened to the first job", format!("{ductile} job inspect {job} --config {config}")),
        paste("What ran lately", format!("{ductile} job logs --config {config}")),
        paste("Change the watched file, then trigger again", format!("echo changed >> {file}")),
        paste("Take over an edited configuration", format!("{ductile} system reload --config {config}")),
        paste("The state of the gateway", format!("{ductile} system status --config {config}")),
        paste("Stop it (or press Ctrl-C here)", format!("kill {}", std::process::id())),
    ]
}

fn document(
    deployment: &Deployment,
    address: &str,
    api_url: &str,
    token: &Secret,
    job: &FirstJob,
    commands: &[Paste],
) -> Value {
    let mut document = json!({
        "dir": dir_text(deployment),
        "created": deployment.created,
        "listen": address,
        "api_url": api_url,
        "token": token.expose(),
        "pid": std::process::id(),
        "job_id": job.job_id,
        "status": job.status,
        "tree": job.tree,
        "commands": commands.iter().map(|paste| &paste.command).collect::<Vec<_>>(),
    });
    if let Some(cause) = &job.cause {
        document["error"] = json!(cause);
    }
    document
}

fn show_made(deployment: &Deployment) {
    if deployment.created.is_empty() {
        report::line(format_args!("Using {}", deployment.dir.display()));
        return;
    }
    report::line(format_args!("Made {}", deployment.dir.display()));
    for name in &deployment.created {
        report::line(format_args!("  {name}"));
    }
    if rustix::process::geteuid().is_root() {
        report::line(format_args!(
            "You are root: the configuration says `service.unconfined: true`, so plugins run as root too."
        ));
    }
}

fn show_run(
    deployment: &Deployment,
    running: &Running,
    api_url: &str,
    token: &Secret,
    job: &FirstJob,
    commands: &[Paste],
    once: bool,
) {
    report::line(format_args!(
        "\nThe gateway runs ({} plugins); the first job ran in it:",
        running.plan.registry.iter().count()
    ));
    for node in &job.tree {
        let text = |key: &str| node[key].as_str().unwrap_or_default();
        let result = node["result"]["result"].as_str().or(node["last_error"].as_str()).unwrap_or_default();
        report::line(format_args!("  {} {}  {}  {result}", text("plugin"), text("command"), text("status")));
        let events = node["result"]["events"].as_array().map(Vec::as_slice).unwrap_or_default();
        for event in events {
            let payload = event["payload"]["change_type"].as_str().unwrap_or_default();
            report::line(format_args!("    event {} {payload}", event["type"].as_str().unwrap_or_default()));
        }
    }
    report::line(format_args!("\nAPI    {api_url}"));
    report::line(format_args!("Token  {}", token.expose()));
    report::line(format_args!("Log    {}", deployment.log_file().display()));
    if once {
        return;
    }
    report::line(format_args!("\nIn another terminal, exactly as printed:"));
    for paste in commands {
        report::line(format_args!("\n  # {}\n  {}", paste.what, paste.command));
    }
    report::line(format_args!(
        "\nThe vault's admin token was not kept: a coming version issues another one with `vault rotate-admin-token`.\n\
         Press Ctrl-C to stop."
    ));
}

/// A path for a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%,:=".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
