//! The answer of a plugin: stdout as a whole is one JSON object.

use ductile_model::untrusted_json;
use ductile_router::Emitted;
use serde_json::value::RawValue;

use crate::json::{self, Fields, MAX_DEPTH};

/// A decodable answer.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    /// The work is done.
    Ok {
        /// What the plugin says about its work.
        result: String,
        /// Compact text of a non-empty `state_updates`.
        state_updates: Option<String>,
        /// Its events.
        events: Events,
    },
    /// The plugin says that it failed.
    Error {
        /// Its words, not blank.
        message: Option<String>,
        /// Whether it forbids another attempt.
        retry: Retry,
    },
}

/// `retry` of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// The gateway decides.
    Allowed,
    /// Not again.
    Forbidden,
}

/// The events of an ok answer.
#[derive(Debug, PartialEq)]
pub(crate) enum Events {
    /// Each can be routed.
    Valid(Vec<Emitted>),
    /// One has no type.
    Untyped,
}

/// One entry of `logs`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LogEntry {
    pub(crate) level: LogLevel,
    pub(crate) message: String,
}

/// Level of a log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// Entries of `logs` that are written.
const LOG_ENTRIES: usize = 200;
/// Bytes of one that are written.
const LOG_BYTES: usize = 4096;

/// The key under which a plugin reports how it spent its time.
const SPANS: &str = "ductile_stopwatch_subs";

/// What stdout was.
#[derive(Debug, PartialEq)]
pub(crate) enum Decoded {
    /// Nothing but white space.
    Nothing,
    /// Not an answer, and why.
    Undecodable(String),
    /// An answer.
    Answer(Answer),
}

/// The text to decode: white space around it and a byte order mark do not count.
pub(crate) fn essence(stdout: &str) -> &str {
    stdout.strip_prefix('\u{feff}').unwrap_or(stdout).trim()
}

/// Reads an answer. Never guesses which part of the output was meant.
pub(crate) fn decode(stdout: &str) -> Decoded {
    let text = essence(stdout);
    if text.is_empty() {
        return Decoded::Nothing;
    }
    if !text.starts_with('{') {
        return Decoded::Undecodable("stdout must be exactly one JSON object".to_owned());
    }
    let fields: Fields<'_> = match serde_json::from_str(text) {
        Ok(fields) => fields,
        Err(error) => return Decoded::Undecodable(error.to_string()),
    };
    match answer(&fields) {
        Ok(answer) => Decoded::Answer(answer),
        Err(reason) => Decoded::Undecodable(reason),
    }
}

/// The `logs` of a decodable answer, within their caps.
pub(crate) fn logs(stdout: &str) -> Vec<LogEntry> {
    let Ok(fields) = serde_json::from_str::<Fields<'_>>(essence(stdout)) else { return Vec::new() };
    let Some(entries) = present(&fields, "logs").and_then(elements) else { return Vec::new() };
    entries.into_iter().filter_map(log_entry).take(LOG_ENTRIES).collect()
}

/// Spans of an answer: compact JSON text of an array of objects.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Spans {
    pub(crate) json: String,
    /// How many were beyond the number that is kept.
    pub(crate) dropped: usize,
}

/// The first `max` spans of a decodable answer. What is no object is no span, and what is no array holds none.
pub(crate) fn spans(stdout: &str, max: usize) -> Spans {
    let mut objects = Vec::new();
    if stdout.contains(SPANS)
        && let Ok(fields) = serde_json::from_str::<Fields<'_>>(essence(stdout))
        && let Some(entries) = present(&fields, SPANS).and_then(elements)
    {
        objects =
            entries.into_iter().map(RawValue::get).filter(|text| json::is_object(text)).map(json::compact).collect();
    }
    let dropped = objects.len().saturating_sub(max);
    objects.truncate(max);
    Spans { json: format!("[{}]", objects.join(",")), dropped }
}

/// The parts of a decodable answer, each as text, for a look at what it holds.
pub(crate) fn parts(stdout: &str) -> Vec<(String, String)> {
    let fields: Fields<'_> = serde_json::from_str(essence(stdout)).unwrap_or_default();
    fields.into_iter().map(|(name, raw)| (name, raw.get().to_owned())).collect()
}

fn answer(fields: &Fields<'_>) -> Result<Answer, String> {
    for (name, raw) in fields {
        // The object itself is the first level.
        if json::depth(raw.get()) >= MAX_DEPTH {
            return Err(format!("field {name:?} is nested deeper than {MAX_DEPTH} levels"));
        }
    }
    let status = text(fields, "status")?;
    let result = text(fields, "result")?;
    let error = text(fields, "error")?;
    let retry = boolean(fields, "retry")?;
    let events = objects(fields, "events")?;
    let state_updates = object(fields, "state_updates")?;
    match status.as_deref() {
        Some("ok") => {
            let result = match result {
                None => return Err("field \"result\" is required when status is \"ok\"".to_owned()),
                Some(result) if result.trim().is_empty() => {
                    return Err("field \"result\" must not be blank when status is \"ok\"".to_owned());
                }
                Some(result) => result,
            };
            let state_updates = state_updates.map(|raw| json::compact(raw.get())).filter(|text| text != "{}");
            Ok(Answer::Ok { result, state_updates, events: read_events(&events)? })
        }
        Some("error") => {
            let message = error.filter(|message| !message.trim().is_empty());
            let retry = if retry == Some(false) { Retry::Forbidden } else { Retry::Allowed };
            Ok(Answer::Error { message, retry })
        }
        Some(_) => Err("field \"status\" must be \"ok\" or \"error\"".to_owned()),
        None => Err("field \"status\" is required".to_owned()),
    }
}

/// Each event needs a type, and a payload that is an object when it has one.
fn read_events(events: &[&RawValue]) -> Result<Events, String> {
    let mut emitted = Vec::with_capacity(events.len());
    let mut is_untyped = false;
    for (index, event) in events.iter().enumerate() {
        let name = format!("events[{index}]");
        let fields: Fields<'_> =
            serde_json::from_str(event.get()).map_err(|error| format!("field {name:?}: {error}"))?;
        if present(&fields, "payload").is_some_and(|raw| !raw.get().starts_with('{')) {
            return Err(format!("field \"{name}.payload\" must be an object"));
        }
        let kind = text(&fields, "type").ok().flatten().unwrap_or_default();
        is_untyped |= kind.trim().is_empty();
        let payload = present(&fields, "payload").map(|raw| untrusted_json::object(raw.get())).transpose();
        let payload = payload.map_err(|error| format!("field \"{name}.payload\": {error}"))?.unwrap_or_default();
        let said = |key: &str| text(&fields, key).ok().flatten().filter(|text| !text.trim().is_empty());
        emitted.push(Emitted {
            kind,
            payload,
            dedupe_key: said("dedupe_key"),
            source: said("source"),
            timestamp: said("timestamp"),
            event_id: said("event_id"),
        });
    }
    Ok(if is_untyped { Events::Untyped } else { Events::Valid(emitted) })
}

/// A field; `null` is the same as none.
fn present<'a>(fields: &Fields<'a>, name: &str) -> Option<&'a RawValue> {
    fields.get(name).copied().filter(|raw| raw.get() != "null")
}

fn text(fields: &Fields<'_>, name: &str) -> Result<Option<String>, String> {
    let Some(raw) = present(fields, name) else { return Ok(None) };
    if !raw.get().starts_with('"') {
        return Err(format!("field {name:?} must be a string"));
    }
    // Syntax was checked before; what remains are halves of surrogate pairs.
    serde_json::from_str(raw.get()).map(Some).map_err(|_| format!("field {name:?} holds an invalid \\u escape"))
}

fn boolean(fields: &Fields<'_>, name: &str) -> Result<Option<bool>, String> {
    match present(fields, name).map(RawValue::get) {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(format!("field {name:?} must be a boolean")),
    }
}

fn object<'a>(fields: &Fields<'a>, name: &str) -> Result<Option<&'a RawValue>, String> {
    match present(fields, name) {
        Some(raw) if !raw.get().starts_with('{') => Err(format!("field {name:?} must be an object")),
        present => Ok(present),
    }
}

fn objects<'a>(fields: &Fields<'a>, name: &str) -> Result<Vec<&'a RawValue>, String> {
    let Some(raw) = present(fields, name) else { return Ok(Vec::new()) };
    let entries = elements(raw).ok_or_else(|| format!("field {name:?} must be an array of objects"))?;
    match entries.iter().position(|entry| !entry.get().starts_with('{')) {
        Some(index) => Err(format!("field \"{name}[{index}]\" must be an object")),
        None => Ok(entries),
    }
}

fn elements(raw: &RawValue) -> Option<Vec<&RawValue>> {
    raw.get().starts_with('[').then(|| serde_json::from_str(raw.get()).ok()).flatten()
}

fn log_entry(raw: &RawValue) -> Option<LogEntry> {
    let (level, message) = if raw.get().starts_with('"') {
        (LogLevel::Info, serde_json::from_str::<String>(raw.get()).ok()?)
    } else {
        let fields: Fields<'_> = serde_json::from_str(raw.get()).ok()?;
        let level = match text(&fields, "level").ok().flatten().as_deref() {
            Some("debug") => LogLevel::Debug,
            Some("warn") => LogLevel::Warn,
            Some("error") => LogLevel::Error,
            _ => LogLevel::Info,
        };
        (level, text(&fields, "message").ok().flatten()?)
    };
    Some(LogEntry { level, message: json::cut(&message, LOG_BYTES).to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(stdout: &str) -> String {
        match decode(stdout) {
            Decoded::Undecodable(reason) => reason,
            other => panic!("{stdout}: {other:?}"),
        }
    }

    fn is_ok(stdout: &str) -> bool {
        matches!(decode(stdout), Decoded::Answer(Answer::Ok { .. }))
    }

    #[test]
    fn pretty_text_a_byte_order_mark_and_unknown_keys_are_fine() {
        assert!(is_ok("\u{feff}\n {\n \"status\": \"ok\",\n \"result\": \"x\", \"Status\": 1, \"more\": [1]\n}\n\n"));
    }

    #[test]
    fn of_repeated_keys_the_last_counts_and_null_is_absent() {
        assert!(is_ok(r#"{"status":"error","result":5,"status":"ok","result":"x","events":null,"error":null}"#));
        assert_eq!(
            reason(r#"{"status":"ok","result":"x","result":null}"#),
            "field \"result\" is required when status is \"ok\""
        );
    }

    #[test]
    fn anything_around_the_object_makes_it_undecodable() {
        for stdout in [
            "log\n{\"status\":\"ok\",\"result\":\"x\"}",
            "[]",
            "null",
            "\"x\"",
            "{\"status\":\"ok\",\"result\":\"x\"} {}",
            "{",
        ] {
            let _ = reason(stdout);
        }
        assert_eq!(decode(" \n\u{feff}"), Decoded::Undecodable("stdout must be exactly one JSON object".to_owned()));
        assert_eq!(decode("\u{feff} \n"), Decoded::Nothing);
    }

    #[test]
    fn wrong_types_are_named() {
        for (stdout, expected) in [
            (r#"{"status":1}"#, "field \"status\" must be a string"),
            (r#"{"status":"OK","result":"x"}"#, "field \"status\" must be \"ok\" or \"error\""),
            (r#"{"result":"x"}"#, "field \"status\" is required"),
            (r#"{"status":"ok","result":5}"#, "field \"result\" must be a string"),
            (r#"{"status":"ok","result":" "}"#, "field \"result\" must not be blank when status is \"ok\""),
            (r#"{"status":"error","error":{}}"#, "field \"error\" must be a string"),
            (r#"{"status":"error","retry":"no"}"#, "field \"retry\" must be a boolean"),
            (r#"{"status":"ok","result":"x","events":{}}"#, "field \"events\" must be an array of objects"),
            (r#"{"status":"ok","result":"x","events":[{"type":"a"},1]}"#, "field \"events[1]\" must be an object"),
            (
                r#"{"status":"ok","result":"x","events":[{"type":"a","payload":1}]}"#,
                "field \"events[0].payload\" must be an object",
            ),
            (r#"{"status":"ok","result":"x","state_updates":[]}"#, "field \"state_updates\" must be an object"),
        ] {
            assert_eq!(reason(stdout), expected, "{stdout}");
        }
    }

    #[test]
    fn nesting_beyond_128_levels_is_refused_with_the_field() {
        let nested = |levels: usize| {
            format!(r#"{{"status":"ok","result":"x","deep":{}{}}}"#, "[".repeat(levels), "]".repeat(levels))
        };
        assert!(is_ok(&nested(127)));
        assert_eq!(reason(&nested(128)), "field \"deep\" is nested deeper than 128 levels");
        assert_eq!(reason(&nested(100_000)), "field \"deep\" is nested deeper than 128 levels");
    }

    #[test]
    fn an_event_without_type_is_told_apart() {
        for event in [r#"{}"#, r#"{"type":" "}"#, r#"{"type":5}"#, r#"{"type":null,"payload":null}"#] {
            let stdout = format!(r#"{{"status":"ok","result":"x","events":[{event}]}}"#);
            let Decoded::Answer(Answer::Ok { events, .. }) = decode(&stdout) else { panic!("{stdout}") };
            assert_eq!(events, Events::Untyped, "{event}");
        }
    }

    #[test]
    fn empty_state_updates_are_none_and_others_keep_their_digits() {
        let state =
            |updates: &str| match decode(&format!(r#"{{"status":"ok","result":"x","state_updates":{updates}}}"#)) {
                Decoded::Answer(Answer::Ok { state_updates, .. }) => state_updates,
                other => panic!("{other:?}"),
            };
        assert_eq!(state("{ }"), None);
        assert_eq!(state("{ \"n\" : 1713740000123456789 }").as_deref(), Some("{\"n\":1713740000123456789}"));
    }

    #[test]
    fn logs_are_capped_and_other_entries_dropped() {
        let many = vec!["\"m\""; 300].join(",");
        let stdout = format!(
            r#"{{"status":"ok","result":"x","logs":[{{"level":"warn","message":"w"}},5,{{"level":"x"}},{many}]}}"#
        );
        let logs = logs(&stdout);
        assert_eq!(logs.len(), 200);
        assert_eq!(logs[0], LogEntry { level: LogLevel::Warn, message: "w".to_owned() });
        assert_eq!(logs[1], LogEntry { level: LogLevel::Info, message: "m".to_owned() });
        let long = format!(r#"{{"logs":["{}"]}}"#, "é".repeat(4000));
        assert_eq!(super::logs(&long)[0].message.len(), 4096);
    }
}
