//! The command line: `ductile <noun> <action>`.
//!
//! One file per noun. An action gathers facts and returns a report; text and JSON are renderings of it. Results go
//! to stdout, everything else to stderr.

mod api;
mod args;
mod client;
mod config;
mod job;
mod plugin;
mod quickstart;
mod report;
mod secrets;
mod system;
mod vault;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};

use args::Common;
use report::Failure;

pub(crate) use client::Gateway;

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
    #[command(arg_required_else_help = true)]
    System {
        #[command(subcommand)]
        action: system::Action,
    },
    /// Check a configuration
    #[command(arg_required_else_help = true)]
    Config {
        #[command(subcommand)]
        action: config::Action,
    },
    /// Look at jobs and their logs, straight from the database
    #[command(arg_required_else_help = true)]
    Job {
        #[command(subcommand)]
        action: job::Action,
    },
    /// List and run plugins of a running gateway
    #[command(arg_required_else_help = true)]
    Plugin {
        #[command(subcommand)]
        action: plugin::Action,
    },
    /// Create the vault and put secrets into it
    #[command(arg_required_else_help = true)]
    Vault {
        #[command(subcommand)]
        action: vault::Action,
    },
    /// Make age keys
    #[command(arg_required_else_help = true)]
    Secrets {
        #[command(subcommand)]
        action: secrets::Action,
    },
    /// Send a request to a running gateway
    Api(api::Arguments),
    /// A working gateway with a first job, in one command
    Quickstart(quickstart::Arguments),
    /// Print version, commit and build time
    Version,
}

/// Runs the command line of this process.
pub(crate) fn main() -> ExitCode {
    let args = args::normalise(&Cli::command(), std::env::args_os().collect());
    let wants_json = args.iter().any(|arg| matches!(arg.to_str(), Some("--json" | "--json=true" | "--format=json")));
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return on_usage(&error, &args, wants_json),
    };
    match run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.show(wants_json),
    }
}

fn run(cli: Cli) -> Result<u8, Failure> {
    let common = cli.common;
    if cli.version {
        return show_version(&common);
    }
    match cli.noun {
        Some(Noun::System { action }) => system::run(action, &common),
        Some(Noun::Config { action }) => config::run(action, &common),
        Some(Noun::Job { action }) => job::run(action, &common),
        Some(Noun::Plugin { action }) => plugin::run(action, &common),
        Some(Noun::Vault { action }) => vault::run(action, &common),
        Some(Noun::Secrets { action }) => secrets::run(action, &common),
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

/// Help goes to stdout with status 0; help that was not asked for, and every other usage error, to stderr with 1.
fn on_usage(error: &clap::Error, args: &[OsString], wants_json: bool) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp => {
            report::text(&error.render().to_string());
            return ExitCode::SUCCESS;
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            eprint!("{}", error.render());
            return ExitCode::from(1);
        }
        _ => {}
    }
    let message = usage_message(error, args);
    if wants_json {
        return Failure::usage(message).show(true);
    }
    eprintln!("{message}");
    let usage = noun_of(args).and_then(|noun| Cli::command().find_subcommand_mut(&noun).map(|c| c.render_usage()));
    eprintln!("{}", usage.unwrap_or_else(|| Cli::command().render_usage()));
    ExitCode::from(1)
}

fn usage_message(error: &clap::Error, args: &[OsString]) -> String {
    let invalid = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) => Some(word.clone()),
        _ => None,
    };
    match (invalid, noun_of(args)) {
        (Some(word), Some(noun)) if word != noun => {
            let known = subcommands(Cli::command().find_subcommand(&noun));
            let hint = suggestion(&word, &known).map(|action| format!("\nDid you mean: ductile {noun} {action}"));
            format!("Unknown {noun} action: {word}{}", hint.unwrap_or_default())
        }
        (Some(word), _) => format!("Unknown command: {word}{}", noun_hint(&word, args)),
        (None, _) => {
            let text = error.render().to_string();
            let first = text.lines().next().unwrap_or_default();
            format!("Flag error: {}", first.strip_prefix("error: ").unwrap_or(first))
        }
    }
}

/// A known noun nearby, or words that were swapped or joined by a hyphen.
fn noun_hint(word: &str, args: &[OsString]) -> String {
    let nouns = subcommands(Some(&Cli::command()));
    if let Some(noun) = suggestion(word, &nouns) {
        return format!("\nDid you mean: ductile {noun}");
    }
    let next = args.iter().filter_map(|arg| arg.to_str()).skip_while(|arg| *arg != word).nth(1);
    let mut pairs: Vec<(String, String)> = next.map(|next| (next.to_owned(), word.to_owned())).into_iter().collect();
    if let Some((action, noun)) = word.split_once('-') {
        pairs.push((noun.to_owned(), action.to_owned()));
        pairs.push((action.to_owned(), noun.to_owned()));
    }
    for (noun, action) in pairs {
        if subcommands(Cli::command().find_subcommand(&noun)).contains(&action) {
            return format!("\nDid you mean: ductile {noun} {action}");
        }
    }
    String::new()
}

fn suggestion(word: &str, known: &[String]) -> Option<String> {
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= 2)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.clone())
}

fn subcommands(command: Option<&clap::Command>) -> Vec<String> {
    command.map(|command| command.get_subcommands().map(|c| c.get_name().to_owned()).collect()).unwrap_or_default()
}

/// The first argument that is a noun.
fn noun_of(args: &[OsString]) -> Option<String> {
    let nouns = subcommands(Some(&Cli::command()));
    let first = args.iter().skip(1).filter_map(|arg| arg.to_str()).find(|arg| !arg.starts_with('-'))?;
    nouns.into_iter().find(|noun| noun == first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn message(words: &[&str]) -> String {
        let args = args(words);
        let error = Cli::try_parse_from(&args).unwrap_err();
        usage_message(&error, &args)
    }

    #[test]
    fn the_command_table_has_no_conflicts() {
        Cli::command().debug_assert();
    }

    #[test]
    fn unknown_words_are_named_and_near_ones_suggested() {
        let text = message(&["ductile", "sytem", "start"]);
        assert_eq!(text, "Unknown command: sytem\nDid you mean: ductile system");
        let text = message(&["ductile", "job", "inspct"]);
        assert_eq!(text, "Unknown job action: inspct\nDid you mean: ductile job inspect");
        assert_eq!(message(&["ductile", "zzzzzz"]), "Unknown command: zzzzzz");
    }

    #[test]
    fn swapped_and_joined_words_are_recognised() {
        assert!(message(&["ductile", "reload", "system"]).ends_with("Did you mean: ductile system reload"));
        assert!(message(&["ductile", "inspect-job"]).ends_with("Did you mean: ductile job inspect"));
    }

    #[test]
    fn an_unknown_flag_is_a_flag_error() {
        assert!(message(&["ductile", "version", "--nope"]).starts_with("Flag error: "));
    }
}
