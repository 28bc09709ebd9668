//! `ductile secrets`: age keys.

use std::path::PathBuf;

use clap::Subcommand;
use ductile_vault::generate_identity;

use super::args::Common;
use super::report::{self, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Make a new age key
    #[command(
        long_about = "Make a new age key. The file is created with mode 0600; an existing file is never overwritten. Losing the \
                      key of a vault loses the vault: keep a copy in a safe place.",
        after_help = "Example:\n  ductile secrets keygen --out secret/age.key\n\nExit codes: 0 success, 1 the file exists or can not be written."
    )]
    Keygen {
        /// Where to write it
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

pub(crate) fn run(action: Action, common: &Common) -> Result<u8, Failure> {
    crate::harden::this_process();
    match action {
        Action::Keygen { out } => {
            let recipient = generate_identity(&out).map_err(Failure::cannot_create)?;
            eprintln!("Public recipient: {recipient}");
            if common.json {
                report::json(&serde_json::json!({"key_file": out.display().to_string(), "recipient": recipient}));
            }
            Ok(0)
        }
    }
}
