//! `ductile config`: is a configuration right?

use chrono::Utc;
use clap::Subcommand;
use ductile_config::{CheckReport, Environment, Past, Source, check, state_path};
use ductile_model::Problem;
use ductile_queue::Reader;
use serde_json::{Map, Value, json};

use super::args::Common;
use super::report::{self, Failure};
use crate::gateway::secrets::VaultSource;

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Check files, plugins and references; changes nothing
    #[command(
        after_help = "Example:\n  ductile config check --config ./config --json\n\nExit codes: 0 valid, 1 invalid, 2 valid with warnings under --strict."
    )]
    Check {
        /// Warnings make exit status 2
        #[arg(long, alias = "fail-on-warnings")]
        strict: bool,
    },
}

pub(crate) fn run(action: Action, common: &Common) -> Result<u8, Failure> {
    match action {
        Action::Check { strict } => run_check(strict, common),
    }
}

fn run_check(strict: bool, common: &Common) -> Result<u8, Failure> {
    let environment = crate::environment();
    let checked = match common.locate(&environment) {
        Ok(source) => {
            if common.verbose {
                report::note(format_args!("configuration: {} ({})", source.root_file.display(), source.kind.as_str()));
            }
            check_beside_history(&source, &environment)
        }
        Err(problem) => CheckReport { errors: vec![problem], warnings: Vec::new() },
    };
    tell("Configuration", &checked, common);
    Ok(match (checked.errors.is_empty(), checked.warnings.is_empty()) {
        (false, _) => 1,
        (true, false) if strict => 2,
        _ => 0,
    })
}

/// The check, with what the state database knows. Without one, nothing has happened yet.
fn check_beside_history(source: &Source, environment: &Environment) -> CheckReport {
    let rows = state_path(source, environment).ok().and_then(|path| Reader::open(&path).ok()?.schedule_rows().ok());
    let rows = rows.unwrap_or_default();
    let has_fired = |plugin: &str, id: &str| {
        rows.iter().any(|row| row.plugin == plugin && row.schedule_id == id && row.last_fired_at.is_some())
    };
    check(source, environment, &VaultSource::default(), &Past { now: Utc::now(), has_fired: &has_fired })
}

/// Prints the verdict about something and all findings, errors first.
pub(super) fn tell(subject: &str, checked: &CheckReport, common: &Common) {
    if common.json {
        report::json(&as_json(checked));
        return;
    }
    let CheckReport { errors, warnings } = checked;
    let head = match (errors.len(), warnings.len()) {
        (0, 0) => format!("{subject} valid."),
        (0, warnings) => format!("{subject} valid ({warnings} warning(s))"),
        (errors, warnings) => format!("{subject} invalid ({errors} error(s), {warnings} warning(s))"),
    };
    report::line(format_args!("{head}"));
    errors.iter().for_each(|problem| issue("ERROR", problem));
    warnings.iter().for_each(|problem| issue("WARN", problem));
}

fn issue(level: &str, problem: &Problem) {
    let at = problem.file.as_ref().map(|file| {
        let line = problem.line.map(|line| format!(":{line}")).unwrap_or_default();
        format!(" ({}{line})", file.display())
    });
    let said = problem.field.is_empty() || problem.message.contains(&problem.field);
    let field = if said { String::new() } else { format!("{}: ", problem.field) };
    report::line(format_args!("  {level} [{}] {field}{}{}", problem.category, problem.message, at.unwrap_or_default()));
}

fn as_json(checked: &CheckReport) -> Value {
    let mut document = Map::new();
    document.insert("valid".into(), json!(checked.errors.is_empty()));
    for (key, problems) in [("errors", &checked.errors), ("warnings", &checked.warnings)] {
        if !problems.is_empty() {
            document.insert(key.into(), problems.iter().map(problem_json).collect());
        }
    }
    Value::Object(document)
}

fn problem_json(problem: &Problem) -> Value {
    let mut entry = Map::new();
    entry.insert("category".into(), json!(problem.category));
    entry.insert("message".into(), json!(problem.message));
    if !problem.field.is_empty() {
        entry.insert("field".into(), json!(problem.field));
    }
    if let Some(file) = &problem.file {
        entry.insert("file".into(), json!(file.display().to_string()));
    }
    if let Some(line) = problem.line {
        entry.insert("line".into(), json!(line));
    }
    Value::Object(entry)
}
