//! The command line: `ductile <noun> <action>`.
//!
//! One file per noun. An action gathers facts and returns a report; text and JSON are renderings of it. Results go
//! to stdout, everything else to stderr.

mod api;
mod args;
mod client;
mod config;
mod job;
mod pipeline;
mod plugin;
mod quickstart;
mod report;
mod schedule;
mod secret_input;
mod secrets;
mod state;
mod stopwatch;
mod system;
mod usage;
mod vault;

use std::process::ExitCode;

use clap::{Command, CommandFactory, Parser, Subcommand};

use args::Common;
use report::Failure;

pub(crate) use client::{Gateway, Limit};

use crate::version;

/// An integration gateway: plugins, a durable queue, pipelines and a vault in one process.
#[derive(Debug, Parser)]
#[command(
    name = "ductile",
    bin_name = "ductile",
    disable_version_flag = true,
    arg_required_else_help = true,
    after_help = "Examples:\n  ductile quickstart                 a working gateway in ./ductile-quickstart\n  ductile system start --config DIR  run a gateway in the foreground\n  ductile plugin run echo poll --payload '{\"message\":\"hi\"}'\n  ductile job inspect 1a2b3c4d        what happened to a job\n\nExit codes: 0 success, 1 anything else, 78 a configuration that was refused."
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    /// Print version, commit and build time
    #[arg(long)]
    version: bool,
    #[command(subcommand)]
    noun: Option<Noun>,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// Start, reload and look at a gateway
    #[command(
        arg_required_else_help = true,
        after_help = "Example:\n  ductile system status --config /etc/ductile\n\nExit codes: 0 success, 78 a configuration that was refused, 1 anything else."
    )]
    System {
        #[command(subcommand)]
        action: system::Action,
    },
    /// Check a configuration
    #[command(
        arg_required_else_help = true,
        after_help = "Example:\n  ductile config check --config /etc/ductile\n\nExit codes: 0 valid, 1 invalid, 2 valid with warnings under --strict."
    )]
    Config {
        #[command(subcommand)]
        action: config::Action,
    },
    /// Look at jobs and their logs, straight from the database
    #[command(
        arg_required_else_help = true,
        after_help = "Example:\n  ductile job logs --status failed\n\nExit codes: 0 shown, 1 anything else."
    )]
    Job {
        #[command(subcommand)]
        action: job::Action,
    },
    /// Look at pipelines: what they do, whether they are right
    #[command(
        arg_required_else_help = true,
        after_help = "Example:\n  ductile pipeline graph article\n\nExit codes: 0 success, 1 anything else."
    )]
    Pipeline {
        #[command(subcommand)]
        action: pipeline::Action,
    },
    /// List and run plugins of a running gateway
    #[command(
        arg_required_else_help = true,
        after_help = "Example:\n  ductile plugin list\n\nExit codes: 0 success, 1 anything else."
    )]
    Plugin {
        #[command(subcommand)]
        action: plugin::Action,
    },
    /// Look at schedules, hold them back, let them run again
    #[command(
        arg_required_else_help = true,
        after_help = "Example:\n  ductile schedule list\n\nExit codes: 0 success, 1 anything else."
    )]
    Schedule {
        #[command(subcommand)]
        action: schedule::Action,
    },
    /// Create the vault and put secrets into it
    #[command(
        arg_required_else_help = true,
        after_help = "Example:\n  ductile vault init --vault vault.age --key age.key\n\nExit codes: 0 done, 1 refused."
    )]
    Vault {
        #[command(subcommand)]
        action: vault::Action,
    },
    /// Make age keys
    #[command(
        arg_required_else_help = true,
        after_help = "Example:\n  ductile secrets keygen --out secret/age.key\n\nExit codes: 0 success, 1 anything else."
    )]
    Secrets {
        #[command(subcommand)]
        action: secrets::Action,
    },
    /// Clear away what is kept of the timing of plugins
    #[command(
        arg_required_else_help = true,
        after_help = "Example:\n  ductile stopwatch prune --older-than 30d\n\nExit codes: 0 done, 1 anything else."
    )]
    Stopwatch {
        #[command(subcommand)]
        action: stopwatch::Action,
    },
    /// Send a request to a running gateway
    Api(api::Arguments),
    /// A working gateway with a first job, in one command
    Quickstart(quickstart::Arguments),
    /// Print version, commit and build time
    #[command(after_help = "Example:\n  ductile version --json\n\nExit codes: 0, always.")]
    Version,
}

/// Runs the command line of this process.
pub(crate) fn main() -> ExitCode {
    let root = command();
    let args = usage::help_word(&root, args::normalise(&root, std::env::args_os().collect()));
    let wants_json = args.iter().any(|arg| matches!(arg.to_str(), Some("--json" | "--json=true" | "--format=json")));
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return usage::answer(&error, &root, &args, wants_json),
    };
    match run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.show(wants_json),
    }
}

/// The tree of commands, with the flags of each and the names under which they are called.
fn command() -> Command {
    let mut root = Cli::command();
    root.build();
    root
}

fn run(cli: Cli) -> Result<u8, Failure> {
    let common = cli.common;
    common.check()?;
    if cli.version {
        return show_version(&common);
    }
    match cli.noun {
        Some(Noun::System { action }) => system::run(action, &common),
        Some(Noun::Config { action }) => config::run(action, &common),
        Some(Noun::Job { action }) => job::run(action, &common),
        Some(Noun::Pipeline { action }) => pipeline::run(action, &common),
        Some(Noun::Plugin { action }) => plugin::run(action, &common),
        Some(Noun::Schedule { action }) => schedule::run(action, &common),
        Some(Noun::Vault { action }) => vault::run(action, &common),
        Some(Noun::Secrets { action }) => secrets::run(action, &common),
        Some(Noun::Stopwatch { action }) => stopwatch::run(action, &common),
        Some(Noun::Api(arguments)) => api::run(arguments, &common),
        Some(Noun::Quickstart(arguments)) => quickstart::run(arguments, &common),
        Some(Noun::Version) => show_version(&common),
        None => Err(Failure::usage("no command given; see `ductile help`")),
    }
}

fn show_version(common: &Common) -> Result<u8, Failure> {
    if common.json {
        report::json(&serde_json::json!({
            "version": version::VERSION,
            "commit": version::COMMIT,
            "build_time": version::BUILT_AT,
        }));
    } else {
        report::line(format_args!("ductile {}", version::VERSION));
        report::line(format_args!("commit: {}", version::COMMIT));
        report::line(format_args!("built_at: {}", version::BUILT_AT));
    }
    Ok(0)
}
