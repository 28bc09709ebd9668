//! The way of a command line through the tree of commands, and what a wrong one is answered with.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use super::report::{self, Failure};

/// How far a command line leads: flags may stand anywhere, and with a value they take two words.
struct Way<'c> {
    /// From the root to the noun or action; never empty.
    commands: Vec<&'c Command>,
    /// Where the first word stands that is neither a command nor a flag nor a flag's value.
    word: Option<usize>,
}

impl<'c> Way<'c> {
    fn of(root: &'c Command, args: &[OsString]) -> Self {
        let mut way = Self { commands: vec![root], word: None };
        let mut index = 1;
        while let Some(arg) = args.get(index).filter(|arg| *arg != "--") {
            let text = arg.to_str().unwrap_or_default();
            index += 1;
            if text.len() > 1 && text.starts_with('-') {
                index += usize::from(way.takes_next_word(text));
                continue;
            }
            match way.leaf().find_subcommand(text) {
                Some(command) => way.commands.push(command),
                None => {
                    way.word = Some(index - 1);
                    break;
                }
            }
        }
        way
    }

    fn leaf(&self) -> &'c Command {
        // The root is there from the beginning.
        self.commands[self.commands.len() - 1]
    }

    fn names(&self) -> Vec<&'c str> {
        self.commands.iter().skip(1).map(|command| command.get_name()).collect()
    }

    /// The noun that was found. `help` leads to the same commands as no noun.
    fn noun(&self) -> Option<&'c Command> {
        self.commands.get(1).copied().filter(|command| command.get_name() != "help")
    }

    fn takes_next_word(&self, flag: &str) -> bool {
        if let Some(long) = flag.strip_prefix("--") {
            return self.flag(|arg| arg.get_long() == Some(long)).is_some_and(takes_word);
        }
        let letters = flag.trim_start_matches('-');
        // Short flags may be written together; the first that takes a value takes what is left.
        let taker = letters
            .char_indices()
            .find(|(_, letter)| self.flag(|arg| arg.get_short() == Some(*letter)).is_some_and(takes_word));
        taker.is_some_and(|(at, letter)| at + letter.len_utf8() == letters.len())
    }

    fn flag(&self, wanted: impl Fn(&Arg) -> bool) -> Option<&'c Arg> {
        self.commands.iter().rev().flat_map(|command| command.get_arguments()).find(|arg| wanted(arg))
    }
}

/// Whether a flag takes the word behind it.
fn takes_word(flag: &Arg) -> bool {
    flag.get_action().takes_values() && !flag.is_require_equals_set()
}

/// `help` right after an action asks for its help; clap itself knows the word only after a noun.
pub(super) fn help_word(root: &Command, mut args: Vec<OsString>) -> Vec<OsString> {
    let way = Way::of(root, &args);
    let is_action = !way.leaf().has_subcommands();
    if let Some(arg) = way.word.and_then(|word| args.get_mut(word)).filter(|arg| is_action && **arg == "help") {
        *arg = "--help".into();
    }
    args
}

/// Help goes to stdout with status 0; help that was not asked for, and every other usage error, to stderr with 1.
pub(super) fn answer(error: &clap::Error, root: &Command, args: &[OsString], wants_json: bool) -> ExitCode {
    if error.kind() == ErrorKind::DisplayHelp {
        report::text(&error.render().to_string());
        return ExitCode::SUCCESS;
    }
    let way = Way::of(root, args);
    if wants_json {
        return Failure::usage(message(error, root, args)).show(true);
    }
    let mut command = way.leaf().clone();
    if is_incomplete(error) {
        report::note(format_args!("{}", command.render_help().to_string().trim_end()));
        return ExitCode::from(1);
    }
    report::note(format_args!("{}", message(error, root, args)));
    let shown = if wants_no_words(error, &way) { command.render_long_help() } else { command.render_usage() };
    report::note(format_args!("{}", shown.to_string().trim_end()));
    ExitCode::from(1)
}

/// A noun without an action, or nothing at all.
fn is_incomplete(error: &clap::Error) -> bool {
    matches!(error.kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand)
}

/// An action that has many flags and takes no word at all: who gives one most likely looks for the right flag.
fn wants_no_words(error: &clap::Error, way: &Way<'_>) -> bool {
    let is_word =
        matches!(error.get(ContextKind::InvalidArg), Some(ContextValue::String(arg)) if !arg.starts_with('-'));
    error.kind() == ErrorKind::UnknownArgument && is_word && way.names() == ["job", "logs"]
}

fn message(error: &clap::Error, root: &Command, args: &[OsString]) -> String {
    let way = Way::of(root, args);
    if is_incomplete(error) {
        let names = std::iter::once("ductile").chain(way.names()).collect::<Vec<_>>().join(" ");
        let known = commands(way.leaf()).collect::<Vec<_>>().join(", ");
        return format!("{names}: the command is missing, one of: {known}");
    }
    let invalid = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) => word,
        _ => return format!("Flag error: {}", first_paragraph(&error.render().to_string())),
    };
    match way.noun() {
        Some(command) => {
            let noun = command.get_name();
            let hint =
                nearest(invalid, commands(command)).map(|action| format!("\nDid you mean: ductile {noun} {action}"));
            format!("Unknown {noun} action: {invalid}{}", hint.unwrap_or_default())
        }
        None => format!("Unknown command: {invalid}{}", noun_hint(invalid, root, args, way.word)),
    }
}

/// What is wrong, in one line: the lines behind it name the arguments that it is about.
fn first_paragraph(text: &str) -> String {
    let lines: Vec<&str> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    let joined = lines.join(" ");
    joined.strip_prefix("error: ").unwrap_or(&joined).to_owned()
}

/// A known noun nearby, or words that were swapped or joined by a hyphen.
fn noun_hint(word: &str, root: &Command, args: &[OsString], at: Option<usize>) -> String {
    if let Some(noun) = nearest(word, commands(root)) {
        return format!("\nDid you mean: ductile {noun}");
    }
    let next = at.and_then(|at| args.get(at + 1)).and_then(|arg| arg.to_str());
    let mut pairs: Vec<(&str, &str)> = next.map(|next| (next, word)).into_iter().collect();
    if let Some((action, noun)) = word.split_once('-') {
        pairs.extend([(noun, action), (action, noun)]);
    }
    let is_known = |(noun, action): &(&str, &str)| {
        root.find_subcommand(noun).is_some_and(|command| commands(command).any(|known| known == *action))
    };
    let hint = pairs.into_iter().find(is_known);
    hint.map(|(noun, action)| format!("\nDid you mean: ductile {noun} {action}")).unwrap_or_default()
}

fn nearest<'c>(word: &str, known: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= 2)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Names of the commands that are shown in the help.
fn commands(command: &Command) -> impl Iterator<Item = &str> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set()).map(Command::get_name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, command};
    use clap::Parser as _;

    fn args(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn said(words: &[&str]) -> String {
        let args = args(words);
        let error = Cli::try_parse_from(&args).unwrap_err();
        message(&error, &command(), &args)
    }

    #[test]
    fn the_command_table_has_no_conflicts() {
        command().debug_assert();
    }

    #[test]
    fn every_help_names_exit_codes_and_has_an_example() {
        fn walk(command: &Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let help = command.clone().render_long_help().to_string();
            for part in ["Example", "Exit codes: ", "--json"] {
                assert!(help.contains(part), "{path} --help says nothing of {part:?}:\n{help}");
            }
            command.get_subcommands().filter(|sub| sub.get_name() != "help").for_each(|sub| walk(sub, &path));
        }
        walk(&command(), "");
    }

    #[test]
    fn unknown_words_are_named_and_near_ones_suggested() {
        let text = said(&["ductile", "sytem", "start"]);
        assert_eq!(text, "Unknown command: sytem\nDid you mean: ductile system");
        let text = said(&["ductile", "job", "inspct"]);
        assert_eq!(text, "Unknown job action: inspct\nDid you mean: ductile job inspect");
        assert_eq!(said(&["ductile", "zzzzzz"]), "Unknown command: zzzzzz");
        assert_eq!(said(&["ductile", "help", "zzzzzz"]), "Unknown command: zzzzzz");
    }

    #[test]
    fn flags_before_the_noun_do_not_hide_it() {
        for flags in [&["--config", "/x"][..], &["--json", "-c", "/x"], &["-v", "--config=/x"], &["-vc", "job"]] {
            let words: Vec<&str> = ["ductile"].iter().chain(flags).chain(&["job", "inspct"]).copied().collect();
            let text = said(&words);
            assert_eq!(text, "Unknown job action: inspct\nDid you mean: ductile job inspect", "{words:?}");
        }
        assert!(said(&["ductile", "-c", "/x", "reload", "system"]).ends_with("Did you mean: ductile system reload"));
    }

    #[test]
    fn swapped_and_joined_words_are_recognised() {
        assert!(said(&["ductile", "reload", "system"]).ends_with("Did you mean: ductile system reload"));
        assert!(said(&["ductile", "inspect-job"]).ends_with("Did you mean: ductile job inspect"));
    }

    #[test]
    fn a_wrong_flag_and_a_missing_argument_are_named() {
        assert!(said(&["ductile", "version", "--nope"]).starts_with("Flag error: unexpected argument '--nope'"));
        let text = said(&["ductile", "job", "inspect"]);
        assert_eq!(text, "Flag error: the following required arguments were not provided: <JOB_ID>");
    }

    #[test]
    fn help_is_a_word_only_where_it_can_be_nothing_else() {
        let changed = |words: &[&str]| help_word(&command(), args(words)) != args(words);
        for words in [
            &["ductile", "vault", "set", "help"][..],
            &["ductile", "job", "logs", "--json", "--limit", "5", "help"],
            &["ductile", "--config", "/x", "job", "inspect", "help"],
            &["ductile", "api", "help"],
            &["ductile", "version", "help"],
        ] {
            assert!(changed(words), "{words:?}");
        }
        for words in [
            &["ductile", "help"][..],
            &["ductile", "job", "help"],
            &["ductile", "vault", "set", "--name", "help"],
            &["ductile", "plugin", "run", "echo", "help"],
            &["ductile", "api", "--", "help"],
        ] {
            assert!(!changed(words), "{words:?}");
        }
    }
}
