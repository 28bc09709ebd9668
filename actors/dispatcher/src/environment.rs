//! The environment of a plugin: built from nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use ductile_queue::ClaimedJob;
use serde_json::value::RawValue;

use crate::json;
use crate::procs::JOB_VARIABLE;

/// Variables of the gateway that every plugin gets, when they are there.
const ALLOWED: [&str; 19] = [
    "PATH",
    "HOME",
    "TZ",
    "LANG",
    "LANGUAGE",
    "TMPDIR",
    "LC_ALL",
    "LC_CTYPE",
    "LC_NUMERIC",
    "LC_TIME",
    "LC_COLLATE",
    "LC_MONETARY",
    "LC_MESSAGES",
    "LC_PAPER",
    "LC_NAME",
    "LC_ADDRESS",
    "LC_TELEPHONE",
    "LC_MEASUREMENT",
    "LC_IDENTIFICATION",
];

/// Names that carry the vault's credential or the service manager's plumbing: never passed, even when listed.
const WITHHELD: [&str; 8] = [
    "DUCTILE_VAULT_TOKEN",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "CREDENTIALS_DIRECTORY",
];

const PAYLOAD_PREFIX: &str = "DUCTILE_PAYLOAD_";
/// Longest value (and name) of a payload variable. The system takes 128 KiB for one string.
const VALUE_CAP: usize = 32 * 1024;
/// All payload variables together, so that a large payload never makes the start fail.
const TOTAL_CAP: usize = 256 * 1024;

/// What every plugin of a generation gets.
#[derive(Debug, Clone)]
pub(crate) struct BaseEnvironment(Vec<(OsString, OsString)>);

impl BaseEnvironment {
    /// Chooses from the variables of the gateway.
    pub(crate) fn new(vars: &BTreeMap<String, String>, passthrough: &[String]) -> Self {
        let listed = passthrough.iter().map(|name| name.trim());
        let names: BTreeSet<&str> = ALLOWED.into_iter().chain(listed).filter(|name| is_passed(name)).collect();
        let chosen = names.into_iter().filter_map(|name| {
            let value = vars.get(name)?;
            (!value.contains('\0')).then(|| (OsString::from(name), OsString::from(value)))
        });
        Self(chosen.collect())
    }

    /// The whole environment of one attempt. `payload` is the input payload, or empty.
    pub(crate) fn of_attempt(
        &self,
        job: &ClaimedJob,
        event_type: &str,
        payload: &BTreeMap<String, &RawValue>,
    ) -> Vec<(OsString, OsString)> {
        let mut all = self.0.clone();
        // Later entries win over earlier ones of the same name.
        let event_type = if fits(event_type) { event_type } else { "" };
        for (name, value) in [
            (JOB_VARIABLE, job.id.as_str()),
            ("DUCTILE_PLUGIN", &job.plugin),
            ("DUCTILE_COMMAND", &job.command),
            ("DUCTILE_EVENT_TYPE", event_type),
        ] {
            all.push((name.into(), value.into()));
        }
        add_payload(&mut all, job, payload);
        all
    }
}

fn is_passed(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !name.starts_with(PAYLOAD_PREFIX) && !WITHHELD.contains(&name)
}

fn fits(text: &str) -> bool {
    text.len() <= VALUE_CAP && !text.contains('\0')
}

fn add_payload(all: &mut Vec<(OsString, OsString)>, job: &ClaimedJob, payload: &BTreeMap<String, &RawValue>) {
    let mut taken = BTreeSet::new();
    let mut total = 0;
    // The map is in byte order of the keys, so which of two colliding keys gets a number is always the same.
    for (key, raw) in payload {
        let name = unused_name(&variable_name(key), &taken);
        let value = variable_value(raw);
        let size = PAYLOAD_PREFIX.len() + name.len() + value.as_ref().map_or(0, String::len) + 2;
        taken.insert(name.clone());
        match value.filter(|value| fits(value) && fits(&name)) {
            Some(value) if total + size <= TOTAL_CAP => {
                total += size;
                all.push((format!("{PAYLOAD_PREFIX}{name}").into(), value.into()));
            }
            _ => {
                tracing::debug!(job_id = %job.id, plugin = job.plugin, size, "payload value left out of the environment");
            }
        }
    }
}

/// The variable name of a payload key, without prefix.
fn variable_name(key: &str) -> String {
    let mut name = String::with_capacity(key.len());
    for c in key.trim().chars() {
        match c.to_ascii_uppercase() {
            c @ ('A'..='Z' | '0'..='9') => name.push(c),
            _ if name.ends_with('_') => {}
            _ => name.push('_'),
        }
    }
    let name = name.trim_matches('_');
    match name.bytes().next() {
        None => "VALUE".to_owned(),
        Some(b'0'..=b'9') => format!("_{name}"),
        Some(_) => name.to_owned(),
    }
}

fn unused_name(name: &str, taken: &BTreeSet<String>) -> String {
    if !taken.contains(name) {
        return name.to_owned();
    }
    let numbered = (2..=taken.len() + 2).map(|n| format!("{name}_{n}"));
    numbered.into_iter().find(|name| !taken.contains(name)).unwrap_or_else(|| name.to_owned())
}

/// The text of a value; `None` when it can not be text.
fn variable_value(raw: &RawValue) -> Option<String> {
    match raw.get().as_bytes().first()? {
        b'n' => Some(String::new()),
        b't' => Some("True".to_owned()),
        b'f' => Some("False".to_owned()),
        b'"' => serde_json::from_str(raw.get()).ok(),
        b'{' | b'[' => Some(json::compact(raw.get())),
        _ => Some(raw.get().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::testing::claimed;

    fn composed(vars: &[(&str, &str)], passthrough: &[&str], payload: &str) -> HashMap<String, String> {
        let vars = vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let passthrough: Vec<_> = passthrough.iter().map(|name| (*name).to_owned()).collect();
        let job = claimed("p", "poll", None);
        let base = BaseEnvironment::new(&vars, &passthrough);
        base.of_attempt(&job, "note.created", &serde_json::from_str(payload).unwrap())
            .into_iter()
            .map(|(k, v)| (k.into_string().unwrap(), v.into_string().unwrap()))
            .collect()
    }

    #[test]
    fn only_allowed_and_listed_names_pass() {
        let vars = [
            ("PATH", "/bin"),
            ("SECRET", "x"),
            ("LC_EVIL", "x"),
            ("LISTED", "yes"),
            ("NOTIFY_SOCKET", "/run/x"),
            ("DUCTILE_PAYLOAD_OLD", "x"),
            ("DUCTILE_JOB_ID", "other"),
        ];
        let listed = [" LISTED ", "", "ABSENT", "NOTIFY_SOCKET", "DUCTILE_PAYLOAD_OLD", "DUCTILE_JOB_ID"];
        let env = composed(&vars, &listed, "{}");
        let mut names: Vec<_> = env.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["DUCTILE_COMMAND", "DUCTILE_EVENT_TYPE", "DUCTILE_JOB_ID", "DUCTILE_PLUGIN", "LISTED", "PATH"]
        );
        assert_eq!(env["DUCTILE_EVENT_TYPE"], "note.created");
        assert_ne!(env["DUCTILE_JOB_ID"], "other");
    }

    #[test]
    fn payload_keys_become_names_and_collisions_are_numbered_in_byte_order() {
        let env = composed(&[], &[], r#"{"my-key":1,"my key":true,"9x":null,"":"e","--":"f"," é ":"g"}"#);
        assert_eq!(env["DUCTILE_PAYLOAD_MY_KEY"], "True");
        assert_eq!(env["DUCTILE_PAYLOAD_MY_KEY_2"], "1");
        assert_eq!(env["DUCTILE_PAYLOAD__9X"], "");
        assert_eq!(env["DUCTILE_PAYLOAD_VALUE"], "e");
        assert_eq!(env["DUCTILE_PAYLOAD_VALUE_2"], "g");
        assert_eq!(env["DUCTILE_PAYLOAD_VALUE_3"], "f");
    }

    #[test]
    fn values_keep_their_digits_and_are_compact() {
        let env = composed(&[], &[], r#"{"n":1713740000123456789012,"f":1.50,"o":{ "a" : [1, "b c"] },"s":"x\ny"}"#);
        assert_eq!(env["DUCTILE_PAYLOAD_N"], "1713740000123456789012");
        assert_eq!(env["DUCTILE_PAYLOAD_F"], "1.50");
        assert_eq!(env["DUCTILE_PAYLOAD_O"], r#"{"a":[1,"b c"]}"#);
        assert_eq!(env["DUCTILE_PAYLOAD_S"], "x\ny");
    }

    #[test]
    fn what_is_too_large_or_holds_a_nul_is_left_out() {
        let large = "x".repeat(VALUE_CAP + 1);
        let env = composed(&[], &[], &format!(r#"{{"large":"{large}","nul":"a\u0000b","ok":"1"}}"#));
        assert!(!env.contains_key("DUCTILE_PAYLOAD_LARGE") && !env.contains_key("DUCTILE_PAYLOAD_NUL"));
        assert_eq!(env["DUCTILE_PAYLOAD_OK"], "1");
        let many: Vec<_> = (0..20).map(|i| format!(r#""k{i:02}":"{}""#, "y".repeat(VALUE_CAP))).collect();
        let env = composed(&[], &[], &format!("{{{}}}", many.join(",")));
        let total: usize =
            env.iter().filter(|(k, _)| k.starts_with(PAYLOAD_PREFIX)).map(|(k, v)| k.len() + v.len()).sum();
        assert!(total <= TOTAL_CAP && total > TOTAL_CAP - VALUE_CAP - 100, "{total}");
    }
}
