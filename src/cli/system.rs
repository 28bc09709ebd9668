//! `ductile system`: the gateway process and what it keeps.

mod breaker;
mod migrate;
mod reload;
mod status;

use clap::Subcommand;

use super::args::Common;
use super::report::Failure;
use super::schedule;
use crate::gateway;
use crate::logging::LogTarget;

const LIFE: &str = "Example of what to use instead:\n  systemctl restart ductile\n\nExit codes: 1, always.";

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Run the gateway in the foreground
    #[command(
        long_about = "Run the gateway in the foreground. Logs go to stdout. SIGHUP reloads the configuration, SIGTERM and SIGINT \
                      stop in order; a second one ends running plugins at once.",
        after_help = "Example:\n  ductile system start --config /etc/ductile\n\nExit codes: 0 stopped in order, 78 the configuration was refused, 1 anything else."
    )]
    Start,
    /// Make a running gateway re-read its configuration
    #[command(
        after_help = "Examples:\n  ductile system reload --config /etc/ductile\n  ductile system reload --api-url http://127.0.0.1:8080 --api-key TOKEN\n  ductile system reload --history\n\nExit codes: 0 reloaded, 78 the configuration was refused, 1 anything else."
    )]
    Reload(reload::Arguments),
    /// Is it running, and is it well?
    #[command(after_help = "Example:\n  ductile system status --json\n\nExit codes: 0 healthy, 1 not.")]
    Status {
        /// Not running is a failure
        #[arg(long)]
        require_running: bool,
    },
    /// Close the circuit breakers of a plugin
    #[command(
        long_about = "Close the circuit breakers of a plugin, so that its schedules run again: all of them and always that of poll, \
                      or the one of --command. Works on the database directly, with the gateway running or stopped; a running one \
                      sees it at once.",
        after_help = "Examples:\n  ductile system reset file_watch\n  ductile system reset file_watch --command handle --dry-run\n\nExit codes: 0 reset, 1 anything else."
    )]
    Reset(breaker::ResetArguments),
    /// Show a circuit breaker and its latest changes
    #[command(
        long_about = "Show the circuit breaker of a plugin's command and its latest changes, newest first. Reads the database \
                      directly, with the gateway running or stopped.",
        after_help = "Examples:\n  ductile system breaker file_watch\n  ductile system breaker file_watch --command handle --limit 5 --json\n\nExit codes: 0 shown, 1 anything else."
    )]
    Breaker(breaker::ShowArguments),
    /// The same as `ductile schedule`; alone, the jobs of schedules that wait or run
    #[command(
        after_help = "Examples:\n  ductile system scheduler --json\n  ductile system scheduler list\n\nExit codes: 0 success, 1 anything else."
    )]
    Scheduler {
        #[command(subcommand)]
        action: Option<schedule::Action>,
    },
    /// Bring an existing database to the schema of this program
    #[command(
        long_about = "Bring an existing database to the schema of this program, step by step. Each step is one transaction and does \
                      nothing where there is nothing to do, so it may be run again, also after a kill. No data is lost. A snapshot is \
                      taken first, when a step is needed: <database>.pre-migrate-<time>. No gateway may run, except with --additive.",
        after_help = "Examples:\n  ductile system migrate --config /etc/ductile --dry-run\n  ductile system migrate --db /var/lib/ductile/ductile.db\n  ductile system migrate --additive\n\nExit codes: 0 the database has the schema, 1 refused, or a step failed."
    )]
    Migrate(migrate::Arguments),
    /// Not here: the service manager owns the gateway's life
    #[command(hide = true, after_help = LIFE)]
    Stop,
    /// Not here: the service manager owns the gateway's life
    #[command(hide = true, after_help = LIFE)]
    Restart,
}

pub(crate) fn run(action: Action, common: &Common) -> Result<u8, Failure> {
    match action {
        Action::Start => start(common),
        Action::Reload(arguments) => reload::run(&arguments, common),
        Action::Migrate(arguments) => migrate::run(&arguments, common),
        Action::Status { require_running } => status::run(require_running, common),
        Action::Scheduler { action } => schedule::run(action.unwrap_or(schedule::Action::Active), common),
        Action::Reset(arguments) => breaker::reset(&arguments, common),
        Action::Breaker(arguments) => breaker::show(&arguments, common),
        Action::Stop | Action::Restart => Err(Failure::usage(
            "the service manager owns the gateway's life: use `systemctl stop|restart ductile`, `launchctl`, or Ctrl-C in the \
             foreground; `ductile system reload` takes over a new configuration without a stop",
        )),
    }
}

fn start(common: &Common) -> Result<u8, Failure> {
    crate::harden::this_process();
    let runtime = runtime()?;
    let code = runtime.block_on(gateway::run(common.named_config(), LogTarget::Stdout, None));
    // Blocking reads that are still under way must not hold the exit up.
    runtime.shutdown_background();
    Ok(code)
}

/// The runtime of a gateway.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("gateway").build().map_err(Failure::internal)
}
