//! The verdict over one attempt, from outside: how the process ended and what it printed.

use std::time::Duration;

use ductile_model::{FailureReason, format_duration};
use rustix::process::Signal;

use crate::process::{Cause, Exit, STDOUT_CAP};
use ductile_router::Emitted;

use crate::response::{Answer, Decoded, Events, Retry, decode};

/// Exit code by which a plugin says that its configuration is wrong and trying again can not help.
const CONFIGURATION_ERROR: i32 = 78;
/// Characters of the last stderr line that stand in an error text.
const LAST_LINE: usize = 300;

/// What was seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Evidence<'a> {
    pub(crate) exit: Exit,
    pub(crate) cause: Cause,
    pub(crate) stdout: &'a str,
    pub(crate) stdout_overflow: bool,
    pub(crate) stderr: &'a str,
    /// Its time limit.
    pub(crate) limit: Duration,
}

/// The verdict.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// The work is done and reported.
    Succeeded {
        /// What the plugin says about its work.
        result: String,
        /// Compact text of a non-empty `state_updates`.
        state_updates: Option<String>,
        /// What it emits.
        events: Vec<Emitted>,
    },
    /// It failed.
    Failed {
        /// Class.
        reason: FailureReason,
        /// Text for `last_error`.
        error: String,
    },
    /// The gateway stopped it.
    Interrupted,
}

/// A verdict, and whether stdout was an answer (and is stored as it is).
#[derive(Debug, PartialEq)]
pub(crate) struct Judgement {
    pub(crate) verdict: Verdict,
    pub(crate) is_answer: bool,
}

/// Judges an attempt. Pure.
pub(crate) fn judge(evidence: &Evidence<'_>) -> Judgement {
    let decoded = if evidence.stdout_overflow { Decoded::Undecodable(String::new()) } else { decode(evidence.stdout) };
    let is_answer = matches!(decoded, Decoded::Answer(_));
    let verdict = match evidence.cause {
        Cause::Order => Verdict::Interrupted,
        Cause::Deadline => Verdict::Failed {
            reason: FailureReason::Timeout,
            error: format!("plugin execution timed out after {}", format_duration(evidence.limit)),
        },
        Cause::Itself => by_output(evidence, decoded),
    };
    Judgement { verdict, is_answer }
}

fn by_output(evidence: &Evidence<'_>, decoded: Decoded) -> Verdict {
    let verdict = match decoded {
        _ if evidence.stdout_overflow => Verdict::Failed {
            reason: FailureReason::SpawnError,
            error: with_ending(evidence, &format!("plugin stdout exceeded {STDOUT_CAP} bytes")),
        },
        Decoded::Nothing => Verdict::Failed {
            reason: FailureReason::NilResponse,
            error: with_ending(evidence, "plugin produced no output on stdout"),
        },
        Decoded::Undecodable(reason) => Verdict::Failed {
            reason: FailureReason::SpawnError,
            error: with_ending(evidence, &format!("decode response: {reason}")),
        },
        Decoded::Answer(Answer::Ok { events: Events::Untyped, .. }) => {
            Verdict::Failed { reason: FailureReason::RoutingError, error: "event.type is required".to_owned() }
        }
        Decoded::Answer(Answer::Ok { result, state_updates, events: Events::Valid(events) }) => {
            Verdict::Succeeded { result, state_updates, events }
        }
        Decoded::Answer(Answer::Error { message, retry }) => Verdict::Failed {
            reason: match retry {
                Retry::Allowed => FailureReason::PluginError,
                Retry::Forbidden => FailureReason::PluginRetryFalse,
            },
            error: message.unwrap_or_else(|| "plugin returned an error without a message".to_owned()),
        },
    };
    match (evidence.exit, verdict) {
        (Exit::Code(CONFIGURATION_ERROR), verdict) => configuration_error(evidence, verdict),
        (_, verdict) => verdict,
    }
}

/// The exit code beats whatever was printed; what was printed may say why.
fn configuration_error(evidence: &Evidence<'_>, verdict: Verdict) -> Verdict {
    let error = match verdict {
        Verdict::Failed { error, .. } => error,
        Verdict::Succeeded { .. } | Verdict::Interrupted => {
            with_ending(evidence, "plugin reported a configuration error")
        }
    };
    Verdict::Failed { reason: FailureReason::ExitCode78, error }
}

/// The text with how the process ended and its last words on stderr.
fn with_ending(evidence: &Evidence<'_>, text: &str) -> String {
    let exit = describe(evidence.exit);
    match last_line(evidence.stderr) {
        Some(line) => format!("{text} ({exit}): {line}"),
        None => format!("{text} ({exit})"),
    }
}

/// How a process ended, in words.
pub(crate) fn describe(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(number) => match signal_name(number) {
            Some(name) => format!("signal {name}"),
            None => format!("signal {number}"),
        },
        Exit::Unknown => "exit unknown".to_owned(),
    }
}

fn last_line(stderr: &str) -> Option<String> {
    let line = stderr.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().take(LAST_LINE).collect())
}

fn signal_name(number: i32) -> Option<&'static str> {
    const NAMES: [(Signal, &str); 16] = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
    ];
    NAMES.into_iter().find(|(signal, _)| signal.as_raw() == number).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OK: &str = r#"{"status":"ok","result":"x"}"#;

    fn evidence(exit: Exit, stdout: &str) -> Evidence<'_> {
        let cause = Cause::Itself;
        Evidence { exit, cause, stdout, stdout_overflow: false, stderr: "", limit: Duration::from_secs(60) }
    }

    fn failure(evidence: &Evidence<'_>) -> (FailureReason, String) {
        match judge(evidence).verdict {
            Verdict::Failed { reason, error } => (reason, error),
            other => panic!("{evidence:?}: {other:?}"),
        }
    }

    #[test]
    fn an_ok_answer_succeeds_whatever_the_exit_but_for_78() {
        let succeeded = || Verdict::Succeeded { result: "x".into(), state_updates: None, events: Vec::new() };
        for exit in [Exit::Code(0), Exit::Code(3), Exit::Signal(9)] {
            assert_eq!(judge(&evidence(exit, OK)), Judgement { verdict: succeeded(), is_answer: true });
        }
        let expected = "plugin reported a configuration error (exit code 78)".to_owned();
        assert_eq!(failure(&evidence(Exit::Code(78), OK)), (FailureReason::ExitCode78, expected));
    }

    #[test]
    fn error_answers_keep_their_words_and_their_wish() {
        let answer = |text| failure(&evidence(Exit::Code(1), text));
        assert_eq!(answer(r#"{"status":"error","error":"no disk"}"#), (FailureReason::PluginError, "no disk".into()));
        assert_eq!(
            answer(r#"{"status":"error","error":" ","retry":true}"#),
            (FailureReason::PluginError, "plugin returned an error without a message".into())
        );
        assert_eq!(
            answer(r#"{"status":"error","error":"bad","retry":false}"#),
            (FailureReason::PluginRetryFalse, "bad".into())
        );
        let with_78 = evidence(Exit::Code(78), r#"{"status":"error","error":"no key","retry":true}"#);
        assert_eq!(failure(&with_78), (FailureReason::ExitCode78, "no key".into()));
    }

    #[test]
    fn without_an_answer_the_text_tells_how_it_ended_and_its_last_words() {
        let mut seen = evidence(Exit::Code(1), " \n");
        seen.stderr = "Traceback\n  ValueError: x  \n\n";
        assert_eq!(
            failure(&seen),
            (FailureReason::NilResponse, "plugin produced no output on stdout (exit code 1): ValueError: x".into())
        );
        let killed = evidence(Exit::Signal(Signal::KILL.as_raw()), "");
        assert_eq!(failure(&killed).1, "plugin produced no output on stdout (signal SIGKILL)");
        let long = "y".repeat(1000);
        seen.stderr = &long;
        assert!(failure(&seen).1.ends_with(&format!(": {}", "y".repeat(300))));
        let wrong = evidence(Exit::Code(0), r#"{"status":"ok","result":5}"#);
        assert_eq!(
            failure(&wrong),
            (FailureReason::SpawnError, "decode response: field \"result\" must be a string (exit code 0)".into())
        );
        let empty_78 = evidence(Exit::Code(78), "");
        assert_eq!(
            failure(&empty_78),
            (FailureReason::ExitCode78, "plugin produced no output on stdout (exit code 78)".into())
        );
    }

    #[test]
    fn the_deadline_beats_every_answer_and_a_stop_interrupts() {
        let mut seen = evidence(Exit::Code(0), OK);
        seen.cause = Cause::Deadline;
        assert_eq!(failure(&seen), (FailureReason::Timeout, "plugin execution timed out after 1m0s".into()));
        assert!(judge(&seen).is_answer);
        seen.cause = Cause::Order;
        assert_eq!(judge(&seen).verdict, Verdict::Interrupted);
    }

    #[test]
    fn too_much_output_is_a_failure_even_when_its_beginning_is_an_answer() {
        let mut seen = evidence(Exit::Code(0), OK);
        seen.stdout_overflow = true;
        assert_eq!(
            failure(&seen),
            (FailureReason::SpawnError, "plugin stdout exceeded 10485760 bytes (exit code 0)".into())
        );
        assert!(!judge(&seen).is_answer);
    }

    #[test]
    fn an_event_without_type_fails_the_attempt_for_good() {
        let seen = evidence(Exit::Code(0), r#"{"status":"ok","result":"x","events":[{"payload":{}}]}"#);
        assert_eq!(failure(&seen), (FailureReason::RoutingError, "event.type is required".into()));
        assert!(!FailureReason::RoutingError.is_retryable());
    }

    fn any_exit() -> impl Strategy<Value = Exit> {
        prop_oneof![any::<i32>().prop_map(Exit::Code), any::<i32>().prop_map(Exit::Signal), Just(Exit::Unknown)]
    }

    /// Text that is often nearly an answer.
    fn any_stdout() -> impl Strategy<Value = String> {
        let word = "(status|result|error|retry|events|state_updates|logs|type|payload)";
        let value =
            r#"(null|true|-?[0-9]{1,25}|"(ok|error|x|\\ud800|[^"\\]{0,4})"|\[[{}\[\],0-9]{0,6}\]|\{"[a-z]{0,6}":1\})"#;
        let entry = format!(r#""{word}":{value}"#);
        prop_oneof![
            ".{0,60}",
            proptest::collection::vec(proptest::string::string_regex(&entry).unwrap(), 0..6)
                .prop_map(|entries| format!("{{{}}}", entries.join(","))),
        ]
    }

    proptest! {
        #[test]
        fn no_output_panics_and_only_answers_are_stored_as_such(
            exit in any_exit(),
            stdout in any_stdout(),
            stderr in ".{0,40}",
            stdout_overflow in any::<bool>(),
        ) {
            let cause = Cause::Itself;
            let judgement = judge(&Evidence { exit, cause, stdout: &stdout, stdout_overflow, stderr: &stderr, limit: Duration::ZERO });
            if judgement.is_answer {
                prop_assert!(serde_json::from_str::<serde_json::Value>(crate::response::essence(&stdout)).is_ok() || stdout.contains("\\ud800"));
            }
            if let Verdict::Succeeded { .. } = judgement.verdict {
                prop_assert!(judgement.is_answer && exit != Exit::Code(78));
            }
        }
    }
}
