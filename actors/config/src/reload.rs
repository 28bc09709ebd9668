//! What stands between a running plan and a new one.

use ductile_model::Problem;

use crate::admission::{self, Facts};
use crate::keys::{Reload, keys};
use crate::{Config, Plan, Posture};

/// Keys that are fixed for the life of the process and differ between two plans, dotted.
#[must_use]
pub fn restart_changes(old: &Plan, new: &Plan) -> Vec<String> {
    let fixed = keys().iter().filter(|key| key.reload == Reload::Restart).map(|key| key.path);
    let changed = fixed.filter(|path| fixed_value(&old.config, path) != fixed_value(&new.config, path));
    changed.map(str::to_owned).collect()
}

/// Effective value of a key that is fixed for the life of the process. An alias has none of its own.
fn fixed_value(config: &Config, path: &str) -> Option<String> {
    match path {
        "state.path" => Some(config.state.path.display().to_string()),
        "service.no_new_privs" => Some(config.service.no_new_privs.to_string()),
        "service.cgroups" => Some(config.service.cgroups.to_string()),
        _ => None,
    }
}

/// Why the running plan does not let the new one in, beyond what the new one asks of itself: gates that are on now
/// stay on for the configuration that would turn them off.
#[must_use]
pub fn reload_refusals(old: &Plan, new: &Plan) -> Vec<Problem> {
    let mut problems: Vec<_> = restart_changes(old, new)
        .into_iter()
        .map(|key| Problem::new("load", format!("changes to {key} require a full restart")).at_field(key))
        .collect();
    let facts = Facts { config: &new.config, doctor_errors: &new.doctor_errors, warnings: &new.warnings };
    let (running, own) = (old.config.service.admission, new.config.service.admission);
    problems.extend(admission::gates(running, &facts));
    let takes_last_token = old.posture == Posture::Gateway && new.config.api.enabled && new.tokens.is_empty();
    if takes_last_token && (running.require_api_auth || own.require_api_auth) {
        let message = "no API tokens configured: the gateway is serving and service.admission.require_api_auth keeps \
                       its last token from being taken away";
        problems.push(Problem::new("api", message).at_field("api.auth.tokens"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::site::Site;

    #[test]
    fn every_key_that_needs_a_restart_has_a_value_to_compare() {
        let plan = Site::new().plan().unwrap();
        let fixed: Vec<_> = keys().iter().filter(|key| key.reload == Reload::Restart).map(|key| key.path).collect();
        let without: Vec<_> = fixed.iter().filter(|path| fixed_value(&plan.config, path).is_none()).collect();
        assert_eq!(without, [&"database.path"], "the alias is compared as state.path");
    }
}
