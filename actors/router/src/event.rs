//! Events on their way: what a plugin emits, and the envelope that a job gets.

use chrono::{DateTime, Utc};
use ductile_config::DEFAULT_COMMAND as HANDLE;
use ductile_model::{format_wire, new_id, untrusted_json};
use serde::Serialize;
use serde_json::{Map, Value};

/// The event of a step that emits none.
pub const STEP_SUCCEEDED: &str = "ductile.step.succeeded";

/// Types that begin so belong to the gateway.
const OWN: &str = "ductile.";

/// Keys that say where a payload came from.
const UPSTREAM_PLUGIN: &str = "ductile_upstream_plugin";
const UPSTREAM_PIPELINE: &str = "ductile_upstream_pipeline";
const UPSTREAM_STEP: &str = "ductile_upstream_step_id";
const UPSTREAM_TYPE: &str = "ductile_upstream_event_type";
const UPSTREAM: [&str; 4] = [UPSTREAM_PLUGIN, UPSTREAM_PIPELINE, UPSTREAM_STEP, UPSTREAM_TYPE];

/// An event as a plugin emits it. Blank texts count as absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Emitted {
    /// Its type, not blank.
    pub kind: String,
    /// Its payload.
    pub payload: Map<String, Value>,
    /// Its dedupe key.
    pub dedupe_key: Option<String>,
    /// Who says it.
    pub source: Option<String>,
    /// When, as it was written.
    pub timestamp: Option<String>,
    /// Its id.
    pub event_id: Option<String>,
}

impl Emitted {
    /// The complete event.
    pub(crate) fn into_event(self, plugin: &str, result: Option<&str>, now: DateTime<Utc>) -> Event {
        let mut payload = self.payload;
        UPSTREAM.iter().for_each(|key| drop(payload.shift_remove(*key)));
        let result = result.filter(|result| !result.trim().is_empty());
        if let Some(result) = result
            && !payload.contains_key("result")
        {
            payload.insert("result".to_owned(), result.into());
        }
        Event {
            kind: self.kind.trim().to_owned(),
            payload,
            dedupe_key: self.dedupe_key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()),
            source: self.source.unwrap_or_else(|| plugin.to_owned()),
            timestamp: self.timestamp.unwrap_or_else(|| format_wire(now)),
            event_id: self.event_id.unwrap_or_else(new_id),
        }
    }
}

/// An event with everything it needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Type.
    pub kind: String,
    /// Payload.
    pub payload: Map<String, Value>,
    /// Dedupe key, inherited by the jobs that follow.
    pub dedupe_key: Option<String>,
    /// Who says it.
    pub source: String,
    /// When.
    pub timestamp: String,
    /// Its id.
    pub event_id: String,
}

/// Where an event comes from, as the payloads of its jobs say it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Upstream<'a> {
    pub(crate) plugin: &'a str,
    /// Pipeline and step, of a step job.
    pub(crate) step: Option<(&'a str, &'a str)>,
}

impl Event {
    /// The event of a step that succeeded without emitting any.
    pub(crate) fn of_success(plugin: &str, result: Option<&str>, now: DateTime<Utc>) -> Self {
        let emitted = Emitted { kind: STEP_SUCCEEDED.to_owned(), ..Emitted::default() };
        let mut event = emitted.into_event(plugin, result, now);
        event.payload.entry("result").or_insert(Value::from(""));
        event
    }

    /// An event from outside, with its payload as it came.
    pub(crate) fn from_outside(kind: &str, payload: Map<String, Value>, source: &str, now: DateTime<Utc>) -> Self {
        let emitted = Emitted { kind: kind.to_owned(), ..Emitted::default() };
        Self { payload, ..emitted.into_event(source, None, now) }
    }

    /// The event that is stored as the payload of a job; `None` when the text is no event.
    pub fn of_stored(text: &str) -> Option<Self> {
        let mut fields = untrusted_json::object(text).ok()?;
        let payload = match fields.shift_remove("payload") {
            Some(Value::Object(payload)) => payload,
            _ => return None,
        };
        let mut take = |key: &str| match fields.shift_remove(key) {
            Some(Value::String(text)) if !text.trim().is_empty() => Some(text),
            _ => None,
        };
        Some(Self {
            kind: take("type")?,
            payload,
            dedupe_key: take("dedupe_key"),
            source: take("source").unwrap_or_default(),
            timestamp: take("timestamp").unwrap_or_default(),
            event_id: take("event_id").unwrap_or_else(new_id),
        })
    }

    /// Whether only the gateway makes events of this type.
    pub(crate) fn is_own(&self) -> bool {
        self.kind.starts_with(OWN)
    }

    /// The payload as the jobs that follow get it.
    pub(crate) fn routed_payload(&self, upstream: &Upstream<'_>) -> Map<String, Value> {
        let mut payload = self.payload.clone();
        for (key, value) in self.upstream_values(upstream) {
            payload.insert(key.to_owned(), value.into());
        }
        payload
    }

    /// The payload as a switch passes it on: what it was told of its origin stays.
    pub(crate) fn passed_on_payload(&self, upstream: &Upstream<'_>) -> Map<String, Value> {
        let mut payload = self.payload.clone();
        if UPSTREAM.iter().any(|key| payload.contains_key(*key)) {
            return payload;
        }
        for (key, value) in self.upstream_values(upstream) {
            payload.insert(key.to_owned(), value.into());
        }
        payload
    }

    fn upstream_values<'a>(&'a self, upstream: &Upstream<'a>) -> impl Iterator<Item = (&'static str, &'a str)> {
        let step = upstream
            .step
            .into_iter()
            .flat_map(|(pipeline, step)| [(UPSTREAM_PIPELINE, pipeline), (UPSTREAM_STEP, step)]);
        [(UPSTREAM_PLUGIN, upstream.plugin)].into_iter().chain(step).chain([(UPSTREAM_TYPE, self.kind.as_str())])
    }

    /// What is stored as the input of a job: the whole event for `handle`, else its payload.
    pub(crate) fn stored(&self, payload: &Value, command: &str) -> String {
        if command != HANDLE {
            return payload.to_string();
        }
        let envelope = Envelope {
            kind: &self.kind,
            payload,
            dedupe_key: self.dedupe_key.as_deref(),
            source: &self.source,
            timestamp: &self.timestamp,
            event_id: &self.event_id,
        };
        // Texts and a value: there is nothing in it that can not be written.
        serde_json::to_string(&envelope).unwrap_or_default()
    }
}

/// An event as it is stored and as plugins get it.
#[derive(Serialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    payload: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    dedupe_key: Option<&'a str>,
    source: &'a str,
    timestamp: &'a str,
    event_id: &'a str,
}
