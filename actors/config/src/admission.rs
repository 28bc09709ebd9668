//! The gates of `service.admission`: what a start or a reload insists on.

use ductile_model::Problem;

use crate::Admission;
use crate::doctor::{CLEARTEXT, is_loopback};
use crate::pipelines::NOT_ENABLED;
use crate::plan::Prepared;

/// What the gates look at.
pub(crate) struct Facts<'f> {
    pub(crate) config: &'f crate::Config,
    pub(crate) doctor_errors: &'f [Problem],
    pub(crate) warnings: &'f [Problem],
}

/// Why the configuration's own gates refuse it.
pub(crate) fn refusals(prepared: &Prepared) -> Vec<Problem> {
    let facts = Facts {
        config: &prepared.loaded.config,
        doctor_errors: &prepared.doctor.errors,
        warnings: &prepared.loaded.warnings,
    };
    let mut problems = unprotected(prepared);
    problems.extend(gates(facts.config.service.admission, &facts));
    problems
}

/// A wall that was asked for and that this version can not build is refused, never left out in silence.
fn unprotected(prepared: &Prepared) -> Vec<Problem> {
    let merged = &prepared.loaded.merged;
    let refuse = |path: &[&str], what: &str| {
        let field = merged.shown_path(path);
        let message = format!(
            "{field} is set, but this version can not {what} yet: every plugin would run with the gateway's own rights; \
             remove it to go on without that protection"
        );
        let problem = Problem::new("privsep", message).at_field(field);
        prepared.loaded.files.at(problem, merged.place_of(path))
    };
    let mut problems = Vec::new();
    if merged.find(&["accounts"]).is_some_and(|accounts| !accounts.entries().is_empty()) {
        problems.push(refuse(&["accounts"], "run plugins under accounts"));
    }
    let config = &prepared.loaded.config;
    for (name, _) in config.plugins.iter().filter(|(_, plugin)| plugin.enabled && plugin.run_as.is_some()) {
        problems.push(refuse(&["plugins", name, "run_as"], "run plugins under accounts"));
    }
    if config.service.no_new_privs {
        problems.push(refuse(&["service", "no_new_privs"], "give up the right to new privileges"));
    }
    problems
}

/// Why these gates refuse a configuration.
pub(crate) fn gates(gates: Admission, facts: &Facts<'_>) -> Vec<Problem> {
    let mut problems = not_built(gates);
    if gates.validate_config_on_boot {
        problems.extend(invalid(facts.doctor_errors));
        problems.extend(ignored_keys(facts.warnings));
        let idle = facts.warnings.iter().filter(|warning| warning.message.contains(NOT_ENABLED));
        problems.extend(invalid(idle));
    }
    let api = &facts.config.api;
    if gates.refuse_cleartext && api.enabled && !is_loopback(&api.listen) {
        let message = format!("api.listen {}: {CLEARTEXT} (service.admission.refuse_cleartext)", api.listen);
        problems.push(Problem::new("api", message).at_field("api.listen"));
    }
    problems
}

/// A gate that this version can not keep is refused, never ignored.
fn not_built(gates: Admission) -> Vec<Problem> {
    let seal = "the seal of configuration and plugins";
    [
        (gates.verify_integrity_on_boot, "verify_integrity_on_boot", seal),
        (gates.fail_on_drift, "fail_on_drift", seal),
        (gates.fail_on_sidedoor, "fail_on_sidedoor", "side doors to the accounts of plugins"),
    ]
    .into_iter()
    .filter(|(on, _, _)| *on)
    .map(|(_, gate, what)| {
        let message = format!(
            "service.admission.{gate} is on, but this version can not verify {what} yet; set it to false to go on \
             without that protection"
        );
        Problem::new("integrity", message).at_field(format!("service.admission.{gate}"))
    })
    .collect()
}

fn invalid<'e>(errors: impl IntoIterator<Item = &'e Problem>) -> impl Iterator<Item = Problem> {
    errors.into_iter().map(|error| {
        let mut problem = error.clone();
        problem.message = format!("configuration validation failed: {}", error.message);
        problem
    })
}

fn ignored_keys(warnings: &[Problem]) -> Option<Problem> {
    let ignored: Vec<_> = warnings.iter().filter(|warning| warning.category == "strict_decode").collect();
    if ignored.is_empty() {
        return None;
    }
    let list: Vec<_> = ignored.iter().map(ToString::to_string).collect();
    let message = format!(
        "configuration validation failed: {} ignored config key(s): {} (service.admission.validate_config_on_boot)",
        list.len(),
        list.join("; ")
    );
    Some(Problem::new("strict_decode", message))
}
