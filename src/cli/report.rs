//! Output: results on stdout, everything else on stderr, and one form for failures.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use serde_json::{Map, Value};

/// A command that did not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Exit status.
    exit: u8,
    /// Class of the error, as in `sysexits.h`.
    code: u8,
    message: String,
    context: Map<String, Value>,
    /// Where it is shown when JSON was asked for.
    json_on: Channel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channel {
    Stdout,
    /// As text, because stdout is what failed.
    Stderr,
}

impl Failure {
    /// The command line was wrong.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(64, message)
    }

    /// A file or row that was named is not there.
    pub(crate) fn missing(message: impl fmt::Display) -> Self {
        Self::new(66, message)
    }

    /// No gateway answers.
    pub(crate) fn unreachable(message: impl fmt::Display) -> Self {
        Self::new(69, message)
    }

    /// Anything that fits nowhere else.
    pub(crate) fn internal(message: impl fmt::Display) -> Self {
        Self::new(70, message)
    }

    /// Something could not be created.
    pub(crate) fn cannot_create(message: impl fmt::Display) -> Self {
        Self::new(73, message)
    }

    /// Trying again later may help.
    pub(crate) fn try_again(message: impl fmt::Display) -> Self {
        Self::new(75, message)
    }

    /// This user may not do that.
    pub(crate) fn denied(message: impl fmt::Display) -> Self {
        Self::new(77, message)
    }

    /// The configuration is wrong.
    pub(crate) fn config(message: impl fmt::Display) -> Self {
        Self::new(78, message)
    }

    /// The result was there, but stdout did not take it.
    pub(crate) fn unprinted(message: impl fmt::Display) -> Self {
        Self { json_on: Channel::Stderr, ..Self::new(73, message) }
    }

    fn new(code: u8, message: impl fmt::Display) -> Self {
        Self { exit: 1, code, message: message.to_string(), context: Map::new(), json_on: Channel::Stdout }
    }

    /// The same failure with another exit status.
    pub(crate) fn exiting(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }

    /// The same failure with a fact for programs.
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.context.insert(key.to_owned(), value.into());
        self
    }

    /// Prints it and gives the exit status, which stays what it is when nobody reads.
    pub(crate) fn show(self, as_json: bool) -> ExitCode {
        if as_json && self.json_on == Channel::Stdout {
            let document = serde_json::json!({"error": self.message, "code": self.code, "context": self.context});
            drop(writeln!(io::stdout(), "{document:#}"));
        } else {
            note(format_args!("{}", self.message));
        }
        ExitCode::from(self.exit)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Prints a line on stderr, for people. One that nobody can read is no reason to stop.
pub(crate) fn note(text: fmt::Arguments<'_>) {
    drop(writeln!(io::stderr(), "{text}"));
}

/// Prints on stdout what can not be printed a second time: no buffer keeps a copy, and the caller is told when it did
/// not arrive, also when the reader closed the pipe.
pub(crate) fn only_copy(text: &str) -> io::Result<()> {
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    stdout.write_all(text.as_bytes())
}

/// Prints a line on stdout. A reader that closed the pipe ends the program without an error.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    finish(writeln!(io::stdout(), "{text}"));
}

/// Prints text as it is on stdout.
pub(crate) fn text(text: &str) {
    finish(io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()));
}

/// Prints bytes as they are on stdout.
pub(crate) fn bytes(bytes: &[u8]) {
    finish(io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()));
}

/// Prints one JSON document on stdout, indented by two.
pub(crate) fn json(value: &Value) {
    line(format_args!("{value:#}"));
}

fn finish(result: io::Result<()>) {
    match result {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            note(format_args!("could not write to stdout: {error}"));
            std::process::exit(1);
        }
    }
}

/// How text for people looks: on a terminal it may be more than what scripts can rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Exactly the documented lines.
    Plain,
    /// For eyes only.
    Terminal {
        /// Whether statuses have colours.
        colour: bool,
    },
}

impl Form {
    /// The form for where stdout leads.
    pub(crate) fn of_stdout(no_color: bool) -> Self {
        let colour = !no_color && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if io::stdout().is_terminal() { Self::Terminal { colour } } else { Self::Plain }
    }

    /// The status of a job, or the state of a breaker.
    pub(crate) fn status(self, status: &str) -> String {
        let code = match status {
            "succeeded" | "closed" => 32,
            "failed" | "timed_out" | "dead" | "open" => 31,
            "running" => 36,
            _ => 33,
        };
        match self {
            Self::Terminal { colour: true } => format!("\u{1b}[{code}m{status}\u{1b}[0m"),
            _ => status.to_owned(),
        }
    }

    /// Text that a plugin made. A terminal would obey what it has in it of control characters.
    pub(crate) fn foreign(self, text: &str) -> Cow<'_, str> {
        let obeyed = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
        match self {
            Self::Terminal { .. } if text.contains(obeyed) => Cow::Owned(text.replace(obeyed, "\u{fffd}")),
            _ => Cow::Borrowed(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_control_characters_of_plugins_and_a_script_gets_the_text_as_it_is() {
        let said = "a\u{1b}]0;title\u{7}\n\tb";
        assert_eq!(Form::Plain.foreign(said), said);
        assert_eq!(Form::Terminal { colour: false }.foreign(said), "a\u{fffd}]0;title\u{fffd}\n\tb");
    }

    #[test]
    fn only_a_terminal_has_colours_and_only_when_they_are_wanted() {
        assert_eq!(Form::Terminal { colour: true }.status("open"), "\u{1b}[31mopen\u{1b}[0m");
        for form in [Form::Plain, Form::Terminal { colour: false }] {
            assert_eq!(form.status("open"), "open");
        }
    }
}
