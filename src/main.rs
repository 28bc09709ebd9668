//! The ductile gateway: one binary for the long-running process and for everything that looks at it.

mod cli;
mod gateway;
mod harden;
mod logging;
mod quickstart;
mod version;

use std::process::ExitCode;

use ductile_config::Environment;

/// The environment that configurations may use: all variables that are text, but not the vault admin's credential.
fn environment() -> Environment {
    let vars = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name != "DUCTILE_VAULT_TOKEN")
        .collect();
    Environment { vars, home: std::env::home_dir() }
}

fn main() -> ExitCode {
    cli::main()
}
