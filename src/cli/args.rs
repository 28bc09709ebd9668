//! Flags that many commands share, and the forms in which flags may be written.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use ductile_config::{Environment, Source, locate};
use ductile_model::Problem;

use super::report::Failure;

/// Flags of every command. They may stand before or after the noun.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Common flags")]
pub(crate) struct Common {
    /// Configuration file or directory [default: $DUCTILE_CONFIG_DIR, ~/.config/ductile, /etc/ductile]
    #[arg(short = 'c', long, global = true, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
    /// The same as --config
    #[arg(long, global = true, value_name = "PATH", hide = true)]
    pub(crate) config_dir: Option<PathBuf>,
    /// One JSON document on stdout instead of text
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value = "false", hide_default_value = true, hide_possible_values = true, action = clap::ArgAction::Set)]
    pub(crate) json: bool,
    /// Say on stderr what was resolved, and why
    #[arg(short, long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value = "false", hide_default_value = true, hide_possible_values = true, action = clap::ArgAction::Set)]
    pub(crate) verbose: bool,
    /// No colour, also when stdout is a terminal
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value = "false", hide_default_value = true, hide_possible_values = true, action = clap::ArgAction::Set)]
    pub(crate) no_color: bool,
}

impl Common {
    /// Refuses flags that contradict each other, for every command before it does anything.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match (&self.config, &self.config_dir) {
            (Some(_), Some(_)) => Err(Failure::usage("use only one of --config or --config-dir")),
            _ => Ok(()),
        }
    }

    /// The configuration named by a flag.
    pub(crate) fn named_config(&self) -> Option<&Path> {
        self.config.as_deref().or(self.config_dir.as_deref())
    }

    /// The configuration in force for this command.
    pub(crate) fn locate(&self, environment: &Environment) -> Result<Source, Problem> {
        locate(self.named_config(), environment)
    }
}

/// Flags of commands that talk to a running gateway.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Remote {
    /// Address of the gateway [default: $DUCTILE_API_URL, then api.listen of the configuration]
    #[arg(long, value_name = "URL")]
    api_url: Option<String>,
    /// API token [default: $DUCTILE_API_KEY, then the first token of the configuration that can be resolved]
    #[arg(long, value_name = "TOKEN")]
    api_key: Option<String>,
}

impl Remote {
    /// The address that was named. An empty one, as of a variable that is not set, is none.
    pub(crate) fn api_url(&self) -> Option<&str> {
        self.api_url.as_deref().filter(|url| !url.is_empty())
    }

    /// The token that was named; an empty one is none.
    pub(crate) fn api_key(&self) -> Option<&str> {
        self.api_key.as_deref().filter(|key| !key.is_empty())
    }
}

/// Long flags may also be written with one dash (`-json`, `-config x`): turns them into the usual form.
pub(crate) fn normalise(command: &Command, args: Vec<OsString>) -> Vec<OsString> {
    let mut names = Vec::new();
    collect_long(command, &mut names);
    let mut ended = false;
    args.into_iter()
        .enumerate()
        .map(|(index, arg)| {
            ended |= arg == "--";
            match arg.to_str() {
                Some(text) if index > 0 && !ended && is_single_dashed(text, &names) => {
                    OsString::from(format!("-{text}"))
                }
                _ => arg,
            }
        })
        .collect()
}

fn is_single_dashed(text: &str, names: &[String]) -> bool {
    let Some(rest) = text.strip_prefix('-') else { return false };
    let name = rest.split('=').next().unwrap_or(rest);
    name.len() > 1 && !rest.starts_with('-') && names.iter().any(|known| known == name)
}

fn collect_long(command: &Command, names: &mut Vec<String>) {
    names.extend(command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)));
    names.push("help".to_owned());
    for sub in command.get_subcommands() {
        collect_long(sub, names);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_flags_may_have_one_dash() {
        let command = Command::new("x").arg(clap::Arg::new("json").long("json")).arg(clap::Arg::new("f").short('f'));
        let args = ["x", "-json", "-json=true", "-f", "-fjson", "--", "-json"].map(OsString::from).to_vec();
        let normal = ["x", "--json", "--json=true", "-f", "-fjson", "--", "-json"].map(OsString::from).to_vec();
        assert_eq!(normalise(&command, args), normal);
    }
}
