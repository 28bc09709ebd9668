//! A report about a configuration for the person who edits it.

use ductile_model::Problem;

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

/// Looks at a configuration without changing anything.
#[must_use]
pub fn check(source: &Source, env: &Environment, secrets: &dyn SecretProvider) -> CheckReport {
    let mut report = match load::load(source, env, secrets, Purpose::Inspecting) {
        Err(failed) => CheckReport { errors: failed.problems, warnings: failed.warnings },
        Ok(loaded) => examine(source, loaded),
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
