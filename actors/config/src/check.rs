//! A report about a configuration for the person who edits it.

use chrono::{DateTime, TimeDelta, Utc};
use ductile_model::Problem;
use ductile_timetable::Rule;

use crate::load::{self, Loaded};
use crate::pipelines::NOT_ENABLED;
use crate::plan::{Environment, Prepared, Purpose, SecretProvider, Source, prepare};
use crate::{admission, doctor};

/// Everything that is wrong with a configuration and everything that is worth a look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// A start would refuse these, or they can not work.
    pub errors: Vec<Problem>,
    /// A start would only log these.
    pub warnings: Vec<Problem>,
}

/// In this order findings are told.
const CATEGORIES: [&str; 19] = [
    "service",
    "plugin_refs",
    "api",
    "token_scopes",
    "webhooks",
    "relay",
    "routes",
    "pipelines",
    "hook_cycles",
    "schedule",
    "env_vars",
    "telemetry",
    "unused",
    "strict_decode",
    "integrity",
    "privsep",
    "symlinks",
    "readability",
    "load",
];

/// What has happened so far, as far as it matters to a configuration.
pub struct Past<'p> {
    /// The present instant.
    pub now: DateTime<Utc>,
    /// Whether a schedule, by plugin and id, has ever started a job.
    pub has_fired: &'p dyn Fn(&str, &str) -> bool,
}

/// Looks at a configuration without changing anything.
#[must_use]
pub fn check(source: &Source, env: &Environment, secrets: &dyn SecretProvider, past: &Past<'_>) -> CheckReport {
    let mut report = match load::load(source, env, secrets, Purpose::Inspecting) {
        Err(failed) => CheckReport { errors: failed.problems, warnings: failed.warnings },
        Ok(mut loaded) => {
            let overdue = overdue_one_shots(&loaded, past);
            loaded.warnings.extend(overdue);
            examine(source, loaded)
        }
    };
    order(&mut report.errors);
    order(&mut report.warnings);
    report
}

fn examine(source: &Source, loaded: Loaded) -> CheckReport {
    let known = loaded.warnings.clone();
    let prepared = match prepare(source, loaded, Purpose::Inspecting) {
        Err(refusal) => return CheckReport { errors: refusal.problems, warnings: known },
        Ok(prepared) => prepared,
    };
    let allowed = prepared.loaded.config.service.allow_symlinks;
    let mut errors: Vec<_> = prepared.links.iter().filter_map(|link| link.refusal(allowed)).collect();
    errors.extend(gate_refusals(&prepared));
    errors.extend(prepared.doctor.errors.iter().cloned());
    errors.extend(prepared.compiled.errors);
    errors.extend(prepared.unrunnable);
    let gates = prepared.loaded.config.service.admission;
    let mut warnings = prepared.loaded.warnings;
    // What an error already says is not said again as a warning.
    warnings.retain(|warning| {
        let said = match warning.category {
            "strict_decode" => gates.validate_config_on_boot,
            "symlinks" => !allowed,
            "pipelines" | "routes" => gates.validate_config_on_boot && warning.message.contains(NOT_ENABLED),
            "api" => gates.refuse_cleartext && warning.message.contains(doctor::CLEARTEXT),
            _ => false,
        };
        !said
    });
    CheckReport { errors, warnings }
}

/// Schedules that run once, were due more than a day ago and never ran: the next start runs them, which may be a surprise.
fn overdue_one_shots(loaded: &Loaded, past: &Past<'_>) -> Vec<Problem> {
    let mut index = 0;
    let mut before = "";
    let mut found = Vec::new();
    for entry in loaded.schedules.iter() {
        index = if entry.plugin == before { index + 1 } else { 0 };
        before = &entry.plugin;
        let Rule::At(at) = entry.rule else { continue };
        if past.now - at <= TimeDelta::days(1) || (past.has_fired)(&entry.plugin, &entry.id) {
            continue;
        }
        let place = format!("[{index}]");
        let path = ["plugins", entry.plugin.as_str(), "schedules", place.as_str(), "at"];
        let shown = loaded.merged.shown_key(&path[..2]);
        let message = format!(
            "plugin {shown:?}: schedules{place}.at is more than a day in the past and has never run: the next start runs it"
        );
        let problem = Problem::new("schedule", message).at_field(loaded.merged.shown_path(&path));
        found.push(loaded.files.at(problem, loaded.merged.place_of(&path)));
    }
    found
}

/// What the gates add to the doctor's own errors.
fn gate_refusals(prepared: &Prepared) -> Vec<Problem> {
    let mut refusals = admission::refusals(prepared);
    refusals.retain(|refusal| {
        !prepared.doctor.errors.iter().any(|error| {
            error.field == refusal.field
                && error.category == refusal.category
                && refusal.message.ends_with(&error.message)
        })
    });
    refusals
}

fn order(problems: &mut [Problem]) {
    let rank = |problem: &Problem| {
        CATEGORIES.iter().position(|category| *category == problem.category).unwrap_or(CATEGORIES.len())
    };
    // Those of pipelines come by file and position, in which order their fields are not: `steps[10]`, `steps[9]`.
    let within = |problem: &Problem| match problem.category {
        "pipelines" => (String::new(), String::new()),
        _ => (problem.field.clone(), problem.message.clone()),
    };
    problems.sort_by_cached_key(|problem| (rank(problem), within(problem)));
}
