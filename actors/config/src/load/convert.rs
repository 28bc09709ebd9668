//! One scalar, read as its key asks.

use std::path::Path;

use ductile_model::{format_duration, is_hyphenated, parse_duration, parse_size};
use serde_json::Value;

use super::paths;
use crate::effective::ListenAddr;
use crate::keys::{Kind, Zero};
use crate::scalar::{Core, Scalar};
use crate::yaml::{Data, Node};

/// What relative paths and `~` stand for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bases<'b> {
    pub(crate) config_dir: &'b Path,
    pub(crate) home: Option<&'b Path>,
}

/// The value of a scalar in the form of the effective configuration. `Ok(None)`: the default was asked for.
///
/// The message follows the name of the key.
pub(crate) fn convert(kind: Kind, scalar: &Scalar, bases: Bases<'_>) -> Result<Option<Value>, String> {
    let text = scalar.text.as_str();
    let wrong = |what: &str| format!("must be {what}, not {}", scalar.shown());
    let some = |value: Value| Ok(Some(value));
    match kind {
        Kind::Text | Kind::SecretRef => some(Value::from(text)),
        Kind::Bool => boolean(scalar).map(|b| Some(Value::from(b))).ok_or_else(|| wrong("true or false")),
        Kind::Int { min, max, zero } => integer(scalar, min, max)
            .map(|n| (n != 0 || zero == Zero::Itself).then(|| Value::from(n)))
            .ok_or_else(|| wrong(&range(min, max))),
        Kind::Number => match scalar.core() {
            Core::Number(number) if number.as_f64().is_some_and(|n| n >= 0.0 && n.is_finite()) => {
                some(Value::Number(number))
            }
            _ => Err(wrong("a number that is not negative")),
        },
        Kind::Duration { zero } => match parse_duration(text) {
            Ok(duration) if duration.is_zero() && zero == Zero::Default => Ok(None),
            Ok(duration) => some(Value::from(format_duration(duration))),
            Err(error) if scalar.vars.is_empty() => Err(format!("is wrong: {error}")),
            Err(_) => Err(wrong("a duration such as 90s or 1h30m")),
        },
        Kind::Interval => match text.trim().to_ascii_lowercase().as_str() {
            word @ ("hourly" | "daily" | "weekly" | "monthly") => some(Value::from(word)),
            _ => convert(Kind::Duration { zero: Zero::Itself }, scalar, bases),
        },
        Kind::Size => parse_size(text)
            .map(|bytes| Some(Value::from(bytes)))
            .map_err(|_| wrong("a size: a positive number of bytes, or one with KB, MB or GB")),
        Kind::Amount => match integer(scalar, 0, i64::MAX) {
            Some(n) => some(Value::from(n)),
            None => convert(Kind::Size, scalar, bases),
        },
        Kind::Path if text.trim().is_empty() => Ok(None),
        Kind::Path => match paths::resolve(text.trim(), bases.config_dir, bases.home) {
            Ok(path) => some(Value::from(path.to_string_lossy())),
            Err(message) if scalar.vars.is_empty() => Err(format!("is wrong: {message}")),
            Err(_) => Err(wrong("a path; ~ is only understood as one's own home directory")),
        },
        Kind::Listen => listen(text)
            .map(|a| Some(Value::from(a.to_string())))
            .ok_or_else(|| wrong("host:port with port 0 to 65535")),
        Kind::Url if is_http_url(text) => some(Value::from(text)),
        Kind::Url => Err(wrong("an absolute http:// or https:// URL")),
        Kind::Name { longest, reserved } => {
            if text.len() > longest || !is_hyphenated(text) {
                let form = "lower-case letters and digits, in parts joined by single hyphens";
                return Err(wrong(&format!("a name of at most {longest} {form}")));
            }
            if reserved.contains(&text) {
                return Err(format!("must not be {}: that is the gateway itself", scalar.shown()));
            }
            some(Value::from(text))
        }
        Kind::Word(words) if words.contains(&text) => some(Value::from(text)),
        Kind::Word(words) => Err(wrong(&format!("one of {}", words.join(", ")))),
        Kind::NumberOrText | Kind::Any => Ok(Some(scalar_json(scalar))),
        Kind::Free | Kind::Section | Kind::Map => Err(wrong("a mapping")),
        Kind::List | Kind::Steps => Err(wrong("a list")),
    }
}

fn range(min: i64, max: i64) -> String {
    match (min, max) {
        (min, _) if min < 0 => "a whole number".to_owned(),
        (0, i64::MAX) => "a whole number that is not negative".to_owned(),
        (min, max) if max == i64::from(u32::MAX) => format!("a whole number of at least {min}"),
        (min, max) => format!("a whole number from {min} to {max}"),
    }
}

fn integer(scalar: &Scalar, min: i64, max: i64) -> Option<i64> {
    match scalar.core() {
        Core::Number(number) => number.as_i64().filter(|n| (min..=max).contains(n)),
        _ => None,
    }
}

/// The words that are booleans for a boolean key, and only there.
pub(crate) fn boolean(scalar: &Scalar) -> Option<bool> {
    if !scalar.plain {
        return None;
    }
    match scalar.text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Some(true),
        "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Reads `host:port`.
pub(crate) fn listen(text: &str) -> Option<ListenAddr> {
    let (host, port) = text.trim().rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().ok()?.to_string(),
        None if host.is_empty() || host.contains([':', '[', ']', '/', ' ']) => return None,
        None => host.to_owned(),
    };
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(ListenAddr { host, port: port.parse().ok()? })
}

fn is_http_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', ':', '?', '#']) && !rest.contains(' '))
}

/// A value of a free map as JSON; numbers keep their digits.
pub(crate) fn json(node: &Node) -> Value {
    match &node.data {
        Data::Scalar(scalar) => scalar_json(scalar),
        Data::List(items) => Value::Array(items.iter().map(json).collect()),
        Data::Map(entries) => Value::Object(entries.iter().map(|e| (e.key.text.clone(), json(&e.value))).collect()),
    }
}

/// A scalar by its core type.
pub(crate) fn scalar_json(scalar: &Scalar) -> Value {
    match scalar.core() {
        Core::Null => Value::Null,
        Core::Bool(value) => Value::Bool(value),
        Core::Number(number) => Value::Number(number),
        Core::NoJson | Core::Text => Value::from(scalar.text.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases() -> Bases<'static> {
        Bases { config_dir: Path::new("/c"), home: None }
    }

    fn read(kind: Kind, text: &str) -> Result<Option<Value>, String> {
        convert(kind, &Scalar::new(text.to_owned(), true), bases())
    }

    #[test]
    fn booleans_have_six_words_and_no_quotes() {
        for (text, value) in
            [("true", true), ("Yes", true), ("ON", true), ("False", false), ("no", false), ("Off", false)]
        {
            assert_eq!(read(Kind::Bool, text), Ok(Some(Value::from(value))));
        }
        assert!(read(Kind::Bool, "1").is_err());
        assert!(convert(Kind::Bool, &Scalar::new("true".into(), false), bases()).is_err());
    }

    #[test]
    fn addresses_need_a_host_and_a_port() {
        for good in ["127.0.0.1:8080", "localhost:0", "[::1]:80"] {
            assert_eq!(listen(good).unwrap().to_string(), good);
        }
        for bad in ["8080", ":8080", "::1:80", "h:65536", "h:+1", "h:", "[h]:1", "http://h:1"] {
            assert!(listen(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn zero_is_the_default_or_itself_as_the_key_says() {
        let count = |zero| Kind::Int { min: 0, max: 9, zero };
        assert_eq!(read(count(Zero::Default), "0"), Ok(None));
        assert_eq!(read(count(Zero::Itself), "0"), Ok(Some(Value::from(0))));
        assert_eq!(read(Kind::Duration { zero: Zero::Default }, "0"), Ok(None));
        assert_eq!(read(Kind::Duration { zero: Zero::Itself }, "0"), Ok(Some(Value::from("0s"))));
        assert!(read(count(Zero::Itself), "-1").unwrap_err().contains("from 0 to 9"));
    }

    #[test]
    fn a_value_from_the_environment_is_not_shown_in_a_message() {
        let mut scalar = Scalar::new("${PIN}".into(), true);
        scalar.substitute("hunter_2".into(), vec!["PIN".into()]);
        let name = Kind::Name { longest: 9, reserved: &[] };
        let duration = Kind::Duration { zero: Zero::Itself };
        for kind in [Kind::Bool, Kind::Size, duration, Kind::Word(&["a"]), Kind::Listen, Kind::Url, name] {
            let message = convert(kind, &scalar, bases()).unwrap_err();
            assert!(!message.contains("hunter_2") && message.contains("${PIN}"), "{message}");
        }
    }
}
