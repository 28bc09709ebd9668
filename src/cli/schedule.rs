//! `ductile schedule`: what runs when, straight from the configuration and the database, with or without a running
//! gateway.

mod active;
mod change;
mod list;
mod next;

use std::sync::Arc;

use clap::Subcommand;
use ductile_config::Outline;
use ductile_timetable::Entry;

use super::args::Common;
use super::report::Failure;

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// All schedules: when each ran, when it runs next, how often it really does
    #[command(
        long_about = "All schedules of enabled plugins: when each ran, when it runs next, how often it is to run and how often it \
                      really did lately. Rows of schedules that are not configured any more are listed too.",
        after_help = "Examples:\n  ductile schedule list\n  ductile schedule list file_watch --json\n\nExit codes: 0 shown, 1 anything else."
    )]
    List {
        /// Only the schedules of this plugin
        plugin: Option<String>,
    },
    /// Jobs of schedules that wait or run
    #[command(after_help = "Example:\n  ductile schedule active --json\n\nExit codes: 0 shown, 1 anything else.")]
    Active,
    /// The coming runs of a plugin's schedules
    #[command(
        long_about = "The coming runs of a plugin's schedules, in the time zone of each, with windows and days off, without jitter. \
                      With --from they are computed from the configuration alone, as if the schedule were new at that time. Changes \
                      nothing.",
        after_help = "Examples:\n  ductile schedule next file_watch\n  ductile schedule next reports nightly -n 10\n  ductile schedule next reports nightly --from 2026-03-28T00:00:00Z\n\nExit codes: 0 shown, 1 no such schedule, or anything else."
    )]
    Next(next::Arguments),
    /// Hold schedules back until they are resumed
    #[command(
        long_about = "Hold the schedules of a plugin back, or one of them. Holds over restarts and reloads. Works with the gateway \
                      running or stopped; a running one sees it at once. Jobs that are queued already run.",
        after_help = "Examples:\n  ductile schedule pause file_watch\n  ductile schedule pause reports nightly --reason \"mail server is down\"\n\nExit codes: 0 paused, 1 no such schedule, or anything else."
    )]
    Pause(change::PauseArguments),
    /// Let schedules run again
    #[command(
        long_about = "Let the schedules of a plugin run again, or one of them. An interval runs when it is due, at once if that has \
                      passed; a cron expression at its next time: nothing is made up for. One that runs only once and has run is armed \
                      again only with --rearm.",
        after_help = "Examples:\n  ductile schedule resume file_watch\n  ductile schedule resume setup first --rearm\n\nExit codes: 0 resumed, 1 no such schedule, or anything else."
    )]
    Resume(change::ResumeArguments),
}

pub(crate) fn run(action: Action, common: &Common) -> Result<u8, Failure> {
    match action {
        Action::List { plugin } => list::run(plugin.as_deref(), common),
        Action::Active => active::run(common),
        Action::Next(arguments) => next::run(&arguments, common),
        Action::Pause(arguments) => change::pause(&arguments, common),
        Action::Resume(arguments) => change::resume(&arguments, common),
    }
}

fn unknown_plugin(plugin: &str) -> Failure {
    Failure::usage(format!("Unknown plugin: {plugin}"))
}

/// The schedules of a plugin that are named: one, or all.
fn find(outline: &Outline, plugin: &str, id: Option<&str>) -> Result<Vec<Arc<Entry>>, Failure> {
    let Some(config) = outline.config.plugins.get(plugin) else { return Err(unknown_plugin(plugin)) };
    if !config.enabled {
        return Err(Failure::usage(format!("plugin \"{plugin}\" is not enabled: its schedules do nothing")));
    }
    let own: Vec<_> = outline.schedules.iter().filter(|entry| entry.plugin == plugin).cloned().collect();
    let found: Vec<_> = own.iter().filter(|entry| id.is_none_or(|id| entry.id == id)).cloned().collect();
    match (found.is_empty(), id) {
        (false, _) => Ok(found),
        (true, Some(id)) if !own.is_empty() => {
            let known: Vec<_> = own.iter().map(|entry| entry.id.as_str()).collect();
            Err(Failure::usage(format!("plugin \"{plugin}\" has no schedule \"{id}\" (it has {})", known.join(", "))))
        }
        (true, _) => Err(Failure::usage(format!("plugin \"{plugin}\" has no schedules"))),
    }
}

/// A schedule as people name it.
fn named(plugin: &str, id: &str) -> String {
    format!("{plugin}/{id}")
}
