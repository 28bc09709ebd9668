//! `ductile quickstart`: make, start, run a first job, show what to type next.

use std::path::{Path, PathBuf};

use ductile_model::Secret;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::args::Common;
use super::job::tree::{self, Named, Node};
use super::report::{self, Failure, Form, note};
use super::system::runtime;
use crate::gateway::{self, Running};
use crate::logging::LogTarget;
use crate::quickstart::{Deployment, Error, FirstJob, parse_address, trigger};

/// Characters of a result in the tree.
const OUTCOME: usize = 70;

#[derive(Debug, clap::Args)]
#[command(
    long_about = "Make a complete small deployment in a directory (configuration, vault, API token, four plugins, a pipeline, a watched \
                  file), start the gateway in the foreground, run the pipeline on the file, and print what ran and commands to go on with. Needs no network. A second \
                  run makes nothing and starts what is there.",
    after_help = "Examples:\n  ductile quickstart\n  ductile quickstart --dir /tmp/try --once --json\n\nExit codes: 0 stopped in order (with --once: every job succeeded), 78 the configuration was refused, 1 anything else."
)]
pub(crate) struct Arguments {
    /// Where to make it
    #[arg(long, default_value = "ductile-quickstart", value_name = "DIR")]
    dir: PathBuf,
    /// Address of the API [default: 127.0.0.1:8080, or the next free port]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Stop after the first run
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
    let pipeline = running.plan.pipelines.iter().next().map(|pipeline| &*pipeline.name);
    let commands = commands(deployment, &api_url, token, &job.job_id, pipeline);
    if common.json {
        report::json(&document(deployment, &address, &api_url, token, &job, &commands));
    } else {
        let form = Form::of_stdout(common.no_color);
        report::line(format_args!(
            "\nThe gateway runs (plugins: {}, pipelines: {}); the first job ran in it, and what it caused:\n",
            running.plan.registry.iter().count(),
            running.plan.pipelines.len()
        ));
        tree_lines(&job.tree, form).iter().for_each(|text| report::line(format_args!("  {text}")));
        if pipeline.is_some() && has_seen_nothing(&job) {
            show_unchanged(deployment);
        }
        show_access(deployment, &api_url, token);
        if !arguments.once {
            show_commands(&commands);
        }
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

/// `pipeline` is missing in a deployment of an older version, and where it was taken out.
fn commands(deployment: &Deployment, api_url: &str, token: &Secret, job: &str, pipeline: Option<&str>) -> Vec<Paste> {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("ductile"));
    let ductile = quoted(&program);
    let config = quoted(&deployment.config_dir());
    let file = quoted(&deployment.watched_file());
    let token = token.expose();
    let auth = format!("-H 'Authorization: Bearer {token}'");
    let paste = |what, command| Paste { what, command };
    let mut commands = vec![
        paste("Is it alive?", format!("curl -s {api_url}/healthz")),
        paste(
            "What happened to the first job, and what it caused",
            format!("{ductile} job inspect {job} --config {config}"),
        ),
    ];
    commands.extend(pipeline.map(|name| {
        paste(
            "What runs after a change of the watched file",
            format!("{ductile} pipeline graph {} --format text --config {config}", quoted(Path::new(name))),
        )
    }));
    commands.extend([
        paste("Change the watched file …", format!("echo changed >> {file}")),
        paste(
            "… trigger the plugin that watches it, and wait for all that follows",
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
        paste("What ran lately", format!("{ductile} job logs --config {config}")),
        paste("Take over an edited configuration", format!("{ductile} system reload --config {config}")),
        paste("The state of the gateway", format!("{ductile} system status --config {config}")),
        paste("Stop it (or press Ctrl-C here)", format!("kill {}", std::process::id())),
    ]);
    commands
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

/// The tree of the first job, with what each job has to say.
fn tree_lines(jobs: &[Value], form: Form) -> Vec<String> {
    let nodes: Vec<Node<'_>> = jobs.iter().map(|job| tree_node(job, form)).collect();
    tree::lines(&nodes)
}

fn tree_node(job: &Value, form: Form) -> Node<'_> {
    let text = |key: &str| job[key].as_str().unwrap_or_default();
    let what =
        Named { plugin: text("plugin"), command: text("command"), step: text("step_id"), status: text("status") };
    let mut node = Node::new(text("job_id"), job["parent_job_id"].as_str(), what, form);
    let outcome = outcome(job);
    if !outcome.is_empty() {
        node.label.push_str("  ");
        node.label.push_str(&form.foreign(&outcome));
    }
    node
}

/// Result or error of a job, on one line that is not too long.
fn outcome(job: &Value) -> String {
    let result = &job["result"];
    let text = match result["matched"].as_bool() {
        Some(true) => "the condition holds",
        Some(false) => "the condition does not hold",
        None => result["result"].as_str().or(job["last_error"].as_str()).unwrap_or_default(),
    };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(OUTCOME) {
        Some((cut, _)) => format!("{}…", &line[..cut]),
        None => line,
    }
}

/// Whether the watching plugin found nothing to tell.
fn has_seen_nothing(job: &FirstJob) -> bool {
    let root = job.tree.first().filter(|_| job.cause.is_none());
    root.is_some_and(|root| root["result"]["events"].as_array().is_none_or(Vec::is_empty))
}

fn show_unchanged(deployment: &Deployment) {
    report::line(format_args!(
        "\nThe watched file is what it was at the last run, so no pipeline started. Change it before the next one:\n  \
         echo changed >> {}",
        quoted(&deployment.watched_file())
    ));
}

fn show_access(deployment: &Deployment, api_url: &str, token: &Secret) {
    report::line(format_args!("\nAPI    {api_url}"));
    report::line(format_args!("Token  {}", token.expose()));
    report::line(format_args!("Log    {}", deployment.log_file().display()));
}

fn show_commands(commands: &[Paste]) {
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
