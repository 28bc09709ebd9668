//! Rules that need more than one key, or more than a type.

use std::time::Duration;

use ductile_model::{Problem, format_duration, is_hyphenated};

use super::{Context, is_name};
use crate::scalar::Scalar;
use crate::yaml::Node;

/// Longest path that fits into the address of a unix socket everywhere.
const LONGEST_SOCKET_PATH: usize = 103;

/// Variables that carry the gateway's own credentials or plumbing.
const NEVER_PASSED: [&str; 8] = [
    "DUCTILE_VAULT_TOKEN",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "CREDENTIALS_DIRECTORY",
];

/// Words that name other producers of jobs.
const PRODUCERS: [&str; 8] = ["api", "mcp", "route", "hook", "cli", "core", "webhook", "relay"];

/// All rules of the merged configuration that need no plugins and no secrets.
pub(super) fn validate(context: &Context<'_>, problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) {
    let mut check = Check { context, problems, warnings };
    check.service();
    check.api();
    check.roots();
    check.plugins();
    check.accounts();
}

struct Check<'c> {
    context: &'c Context<'c>,
    problems: &'c mut Vec<Problem>,
    warnings: &'c mut Vec<Problem>,
}

impl<'c> Check<'c> {
    fn refuse(&mut self, path: &[&str], message: impl Into<String>) {
        self.problems.push(self.context.problem("load", path, message));
    }

    fn warn(&mut self, category: &'static str, path: &[&str], message: impl Into<String>) {
        self.warnings.push(self.context.problem(category, path, message));
    }

    fn service(&mut self) {
        let service = &self.context.config.service;
        let tick = service.tick_interval;
        let path = ["service", "tick_interval"];
        if tick < Duration::from_millis(100) {
            self.refuse(&path, format!("service.tick_interval {} is below 100ms", format_duration(tick)));
        } else if tick < Duration::from_secs(1) {
            self.warn("service", &path, format!("service.tick_interval {} is below 1s", format_duration(tick)));
        }
        if service.job_queue_retention < service.dedupe_ttl {
            let message = format!(
                "service.job_queue_retention {} must be at least service.dedupe_ttl {}",
                format_duration(service.job_queue_retention),
                format_duration(service.dedupe_ttl)
            );
            self.refuse(&["service", "job_queue_retention"], message);
        }
        self.service_name(&service.name);
        for (index, name) in self.scalars(&["service", "plugin_env_passthrough"]) {
            self.passthrough(index, name);
        }
    }

    fn scalars(&self, list: &[&str]) -> Vec<(usize, &'c Scalar)> {
        self.context.merged.find(list).map(|list| list.scalars().collect()).unwrap_or_default()
    }

    fn service_name(&mut self, name: &str) {
        let path = ["service", "name"];
        let shown = self.context.shown(&path, name);
        if PRODUCERS.contains(&name) || name.starts_with("webhook:") || name.starts_with("relay:") {
            let message = format!("service.name {shown} is also the name of another producer of jobs");
            self.warn("service", &path, message);
        }
        if !is_hyphenated(name) {
            let message = format!("service.name {shown} should be lower-case words joined by single hyphens");
            self.warn("service", &path, message);
        }
    }

    fn passthrough(&mut self, index: usize, scalar: &Scalar) {
        let name = scalar.text.trim();
        let at = format!("[{index}]");
        let path = ["service", "plugin_env_passthrough", at.as_str()];
        let place = super::dotted(&path);
        if name.contains('=') {
            self.refuse(&path, format!("{place} must be the name of a variable, without a value"));
        } else if !name.is_empty() && !is_name(name) {
            self.refuse(&path, format!("{place} {} is not the name of a variable", scalar.shown()));
        } else if NEVER_PASSED.contains(&name) {
            self.warn("service", &path, format!("{place}: {name} is never passed to plugins"));
        }
    }

    fn api(&mut self) {
        let api = &self.context.config.api;
        let length = api.management_socket.as_os_str().len();
        // A default that is too long only matters when it is going to be used.
        let matters = self.context.is_bootstrap() || self.context.merged.find(&["api", "management_socket"]).is_some();
        if matters && length > LONGEST_SOCKET_PATH {
            let from_variable = self.context.merged.find(&["api", "management_socket"]).and_then(Node::scalar);
            let socket = match from_variable.filter(|scalar| !scalar.vars.is_empty()) {
                Some(scalar) => scalar.shown(),
                None => api.management_socket.display().to_string(),
            };
            let message = format!(
                "api.management_socket {socket} is {length} bytes long; at most {LONGEST_SOCKET_PATH} fit a unix \
                 socket; set a shorter path"
            );
            self.refuse(&["api", "management_socket"], message);
        }
        for (index, origin) in self.scalars(&["api", "allowed_origins"]) {
            if origin.text != "*" && !is_origin(&origin.text) {
                let at = format!("[{index}]");
                let path = ["api", "allowed_origins", at.as_str()];
                let place = super::dotted(&path);
                let origin = origin.shown();
                self.refuse(&path, format!("{place} {origin} must be scheme://host[:port] without a path, or \"*\""));
            }
        }
        if api.enabled && api.tokens.is_empty() && !self.context.vault.is_present() {
            let message = "no API tokens configured: the API is enabled and there is no vault to bootstrap from; run \
                           `ductile vault init`, or add api.auth.tokens, or set api.enabled: false";
            self.refuse(&["api", "auth", "tokens"], message);
        }
    }

    fn roots(&mut self) {
        if self.context.config.plugin_roots.is_empty() {
            self.refuse(&["plugin_roots"], "plugin_roots is required: list at least one directory with plugins");
        }
    }

    fn plugins(&mut self) {
        let workers = self.context.config.service.max_workers;
        for (name, plugin) in &self.context.config.plugins {
            let shown = self.context.merged.shown_key(&["plugins", name]);
            if let Some(parallelism) = plugin.parallelism
                && parallelism > workers
            {
                let message = format!(
                    "plugins.{shown}.parallelism {parallelism} must be from 1 to service.max_workers {workers}"
                );
                self.refuse(&["plugins", name, "parallelism"], message);
            }
            if let Some(account) = &plugin.run_as
                && self.context.merged.find(&["accounts", account]).is_none()
            {
                let path = ["plugins", name.as_str(), "run_as"];
                let account = self.context.shown(&path, account);
                let message = format!("plugins.{shown}.run_as: account {account} is not defined under accounts");
                self.refuse(&path, message);
            }
            let written = self.context.merged.find(&["plugins", name]);
            if written.is_some_and(|node| node.get("enabled").is_none()) {
                let message = format!("plugin {shown:?} does not say whether it is enabled; it will not run");
                self.warn("plugin_refs", &["plugins", name], message);
            }
            if written.is_some_and(|node| node.entries().iter().any(|entry| entry.key.text == "schedule")) {
                let message = format!("plugins.{shown}: schedule is no longer supported; use schedules[]");
                let path = ["plugins", name, "schedule"];
                if plugin.enabled {
                    self.refuse(&path, message);
                } else {
                    self.warn("plugin_refs", &path, message);
                }
            }
        }
    }

    fn accounts(&mut self) {
        for account in self.context.merged.find(&["accounts"]).map(Node::entries).unwrap_or_default() {
            let name = account.key.text.as_str();
            if account.value.get("user").is_some() {
                continue;
            }
            for key in ["uid", "gid"] {
                if account.value.get(key).is_none() {
                    let shown = account.key.written();
                    let message = format!("accounts.{shown}: {key} is required unless user is given");
                    self.refuse(&["accounts", name], message);
                }
            }
        }
    }
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let scheme_ok = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    scheme_ok && !rest.is_empty() && !rest.contains(['/', '?', '#', '@', ' ', '*'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_scheme_host_and_port() {
        for good in ["https://a.b", "http://localhost:3000", "app+x://h"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in ["a.b", "https://", "https://a.b/", "https://a.b/x", "https://*.b", "://h"] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
