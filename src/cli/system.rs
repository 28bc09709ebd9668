//! `ductile system`: the gateway process.

mod reload;
mod status;

use std::path::PathBuf;

use clap::Subcommand;

use super::args::{Common, Remote};
use super::report::Failure;
use crate::gateway;
use crate::logging::LogTarget;

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
    #[command(hide = true)]
    Stop,
    #[command(hide = true)]
    Restart,
}

pub(crate) fn run(action: Action, common: &Common) -> Result<u8, Failure> {
    match action {
        Action::Start => start(common),
        Action::Reload(arguments) => reload::run(&arguments, common),
        Action::Status { require_running } => status::run(require_running, common),
        Action::Stop | Action::Restart => Err(Failure::usage(
            "the service manager owns the gateway's life: use `systemctl stop|restart ductile`, `launchctl`, or Ctrl-C in the \
             foreground; `ductile system reload` takes over a new configuration without a stop",
        )),
    }
}

fn start(common: &Common) -> Result<u8, Failure> {
    crate::harden::this_process();
    let explicit = common.explicit_config()?.cloned();
    let runtime = runtime()?;
    let code = runtime.block_on(gateway::run(explicit.as_deref(), LogTarget::Stdout, None));
    // Blocking reads that are still under way must not hold the exit up.
    runtime.shutdown_background();
    Ok(code)
}

/// The runtime of a gateway.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("gateway").build().map_err(Failure::internal)
}

/// Source of the configuration for commands that only look.
fn source(common: &Common) -> Result<ductile_config::Source, ductile_model::Problem> {
    let explicit = match common.explicit_config() {
        Ok(explicit) => explicit.map(PathBuf::as_path),
        Err(_) => return Err(ductile_model::Problem::new("load", "use only one of --config or --config-dir")),
    };
    ductile_config::locate(explicit, &crate::environment())
}

/// Used by both actions that may talk to the API.
fn is_named(remote: &Remote) -> bool {
    remote.api_url.is_some()
}
