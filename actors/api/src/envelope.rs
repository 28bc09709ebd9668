//! The body of a trigger: an envelope around a payload, or the bare payload.

use std::fmt;
use std::time::Duration;

use ductile_model::parse_duration;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::ApiError;

/// Values within values that are accepted.
const MAX_DEPTH: usize = 128;
/// A longest wait that every clock type can hold; the configured limit is far below.
const MAX_SECONDS: f64 = 1e9;

/// Which envelope keys a route knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// The command is in the path.
    Trigger,
    /// The command may be in the body.
    Run,
}

impl Keys {
    fn has(self, key: &str) -> bool {
        match key {
            "payload" | "sync" | "async" | "timeout" | "dedupe_key" => true,
            "command" => self == Self::Run,
            _ => false,
        }
    }
}

/// A checked body. The payload is the text of an object, exactly as it came.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Envelope<'a> {
    pub(crate) payload: Option<&'a str>,
    pub(crate) sync: bool,
    pub(crate) asynchronous: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) dedupe_key: Option<String>,
    pub(crate) command: Option<String>,
}

impl<'a> Envelope<'a> {
    /// Reads a body once.
    pub(crate) fn parse(body: &'a [u8], keys: Keys) -> Result<Self, ApiError> {
        let text =
            std::str::from_utf8(body).map_err(|_| ApiError::invalid_json())?.trim_matches([' ', '\t', '\r', '\n']);
        if text.is_empty() {
            return Ok(Self::default());
        }
        if is_too_deep(text.as_bytes()) {
            return Err(ApiError::invalid_json());
        }
        if !text.starts_with('{') {
            return Self::from_other_value(text);
        }
        let Members(members) = serde_json::from_str(text).map_err(|_| ApiError::invalid_json())?;
        let is_envelope =
            members.iter().any(|(key, _)| key == "payload") || members.iter().all(|(key, _)| keys.has(key));
        if !is_envelope {
            return Ok(Self { payload: Some(text), ..Self::default() });
        }
        let mut envelope = Self::default();
        for (key, value) in members.into_iter().filter(|(key, _)| keys.has(key)) {
            envelope.set(&key, value)?;
        }
        Ok(envelope)
    }

    /// Anything but an object: only `null` means something, namely no payload.
    fn from_other_value(text: &str) -> Result<Self, ApiError> {
        let value: &RawValue = serde_json::from_str(text).map_err(|_| ApiError::invalid_json())?;
        if value.get() == "null" { Ok(Self::default()) } else { Err(ApiError::invalid_payload()) }
    }

    fn set(&mut self, key: &str, value: &'a RawValue) -> Result<(), ApiError> {
        match key {
            "payload" => self.payload = payload(value.get())?,
            "sync" => self.sync = typed("sync", "a boolean", value)?,
            "async" => self.asynchronous = typed("async", "a boolean", value)?,
            "timeout" => self.timeout = Some(timeout(value)?),
            "dedupe_key" => self.dedupe_key = Some(typed("dedupe_key", "a string", value)?),
            _ => self.command = Some(typed("command", "a string", value)?),
        }
        Ok(())
    }
}

fn payload(text: &str) -> Result<Option<&str>, ApiError> {
    match text.as_bytes().first() {
        Some(b'{') => Ok(Some(text)),
        Some(b'n') => Ok(None),
        _ => Err(ApiError::invalid_payload()),
    }
}

fn typed<'a, T: Deserialize<'a>>(key: &'static str, what: &str, value: &'a RawValue) -> Result<T, ApiError> {
    serde_json::from_str(value.get()).map_err(|_| ApiError::parameter(key, format!("{key} must be {what}")))
}

fn timeout(value: &RawValue) -> Result<Duration, ApiError> {
    let wrong = || ApiError::parameter("timeout", "timeout must be a positive duration such as 30s, or seconds");
    let duration = if value.get().starts_with('"') {
        let text: String = typed("timeout", "a duration", value)?;
        parse_duration(&text).map_err(|_| wrong())?
    } else {
        let seconds: f64 = serde_json::from_str(value.get()).map_err(|_| wrong())?;
        if !(0.0..=MAX_SECONDS).contains(&seconds) {
            return Err(wrong());
        }
        Duration::from_secs_f64(seconds)
    };
    if duration.is_zero() { Err(wrong()) } else { Ok(duration) }
}

/// Whether brackets outside of strings nest too deep. The parser for raw values has no limit of its own, but
/// everybody who reads the payload later has one.
fn is_too_deep(text: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// The members of an object with their raw texts.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<Envelope<'_>, ApiError> {
        Envelope::parse(body.as_bytes(), Keys::Trigger)
    }

    fn code(body: &str) -> &'static str {
        parse(body).unwrap_err().code
    }

    #[test]
    fn an_object_with_a_payload_or_with_envelope_keys_only_is_an_envelope() {
        let envelope = parse(r#" {"payload":{"a": 1.50},"sync":true,"timeout":"5s","other":[1]} "#).unwrap();
        assert_eq!(envelope.payload, Some(r#"{"a": 1.50}"#));
        assert!(envelope.sync && !envelope.asynchronous);
        assert_eq!(envelope.timeout, Some(Duration::from_secs(5)));
        let envelope = parse(r#"{"async":true,"timeout":2.5,"dedupe_key":"k"}"#).unwrap();
        assert_eq!(envelope.payload, None);
        assert!(envelope.asynchronous);
        assert_eq!(envelope.timeout, Some(Duration::from_millis(2500)));
        assert_eq!(envelope.dedupe_key.as_deref(), Some("k"));
        for empty in ["", "  \n", "{}", "null", r#"{"payload":null}"#] {
            assert_eq!(parse(empty).unwrap(), Envelope::default(), "{empty:?}");
        }
    }

    #[test]
    fn any_other_object_is_the_bare_payload() {
        let text = r#"{"message":"hi","sync":true}"#;
        assert_eq!(parse(text).unwrap(), Envelope { payload: Some(text), ..Envelope::default() });
    }

    #[test]
    fn a_command_is_an_envelope_key_only_where_the_path_has_none() {
        let text = r#"{"command":"ls"}"#;
        assert_eq!(parse(text).unwrap().payload, Some(text));
        let run = Envelope::parse(text.as_bytes(), Keys::Run).unwrap();
        assert_eq!((run.payload, run.command.as_deref()), (None, Some("ls")));
    }

    #[test]
    fn wrong_bodies_are_refused_each_with_its_code() {
        for body in ["{", "{\"a\":1} x", "{\"a\":01}", "[1", "nul", "{\"payload\":{}}}"] {
            assert_eq!(code(body), "invalid_json", "{body}");
        }
        assert_eq!(Envelope::parse(b"{\"a\":\"\xff\"}", Keys::Trigger).unwrap_err().code, "invalid_json");
        for body in ["[1]", "1", "\"x\"", "true", r#"{"payload":[1]}"#, r#"{"payload":"x"}"#] {
            assert_eq!(code(body), "invalid_payload", "{body}");
        }
        for body in [
            r#"{"sync":"yes"}"#,
            r#"{"async":1}"#,
            r#"{"timeout":"soon"}"#,
            r#"{"timeout":-1}"#,
            r#"{"timeout":0}"#,
            r#"{"timeout":1e99}"#,
            r#"{"timeout":[]}"#,
            r#"{"payload":{},"dedupe_key":7}"#,
        ] {
            assert_eq!(code(body), "invalid_parameter", "{body}");
        }
    }

    #[test]
    fn a_body_may_nest_to_its_limit_and_not_deeper() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(parse(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(code(&nested(MAX_DEPTH + 1)), "invalid_json");
        assert_eq!(code(&"[".repeat(100_000)), "invalid_json");
        let brackets_in_text = format!("{{\"a\":\"\\\"{}\"}}", "[".repeat(500));
        assert!(parse(&brackets_in_text).is_ok());
    }

    #[test]
    fn numbers_keep_all_their_digits() {
        let text = r#"{"payload":{"n":123456789012345678901234567890.10}}"#;
        assert_eq!(parse(text).unwrap().payload, Some(r#"{"n":123456789012345678901234567890.10}"#));
    }
}
