//! `ductile secrets`: age keys.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use ductile_vault::{NewIdentity, generate_identity};
use serde_json::json;
use zeroize::Zeroizing;

use super::args::Common;
use super::report::{self, Failure, note};

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Make a new age key
    #[command(
        long_about = "Make a new age key. The file is created with mode 0600; an existing file is never overwritten. Without --out \
                      the key is printed on stdout. Losing the key of a vault loses the vault: keep a copy in a safe place.",
        after_help = "Examples:\n  ductile secrets keygen --out secret/age.key\n  ductile secrets keygen | ssh host 'umask 077; cat > age.key'\n\nExit codes: 0 success, 1 the file exists or can not be written."
    )]
    Keygen {
        /// Where to write it [default: stdout]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

pub(crate) fn run(action: Action, common: &Common) -> Result<u8, Failure> {
    crate::harden::this_process();
    match action {
        Action::Keygen { out: Some(out) } => to_file(&out, common),
        Action::Keygen { out: None } => to_stdout(common),
    }
}

fn to_file(out: &Path, common: &Common) -> Result<u8, Failure> {
    let recipient = generate_identity(out).map_err(Failure::cannot_create)?;
    note(format_args!("Public recipient: {recipient}"));
    if common.json {
        report::json(&json!({"key_file": out.display().to_string(), "recipient": recipient}));
    }
    Ok(0)
}

fn to_stdout(common: &Common) -> Result<u8, Failure> {
    let NewIdentity { key_file, recipient } = NewIdentity::generate();
    let text = Zeroizing::new(if common.json {
        format!("{:#}\n", json!({"key": key_file.expose(), "recipient": recipient}))
    } else {
        key_file.expose().to_owned()
    });
    report::only_copy(&text).map_err(|error| {
        Failure::unprinted(format!(
            "the new key could not be written to stdout ({error}) and is gone; make another one"
        ))
    })?;
    note(format_args!("Public recipient: {recipient}"));
    Ok(0)
}
