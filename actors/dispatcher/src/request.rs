//! The request: one line of JSON on the plugin's stdin.

use std::borrow::Cow;
use std::ffi::OsString;

use chrono::{DateTime, Utc};
use ductile_config::PluginConfig;
use ductile_model::{Secret, format_wire, untrusted_json};
use ductile_queue::ClaimedJob;
use ductile_router::Step;
use serde_json::Value;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::environment::BaseEnvironment;
use crate::json::{self, Fields};

/// The command that takes an event instead of a plain payload.
const HANDLE: &str = "handle";

/// The input of a job, checked.
pub(crate) struct Input<'a> {
    /// The payload as stored, when there is one.
    stored: Option<&'a str>,
    /// What the command works on.
    subject: Subject<'a>,
    /// What its step sets in the payload, whatever stands there.
    set: Vec<(String, Box<RawValue>)>,
}

enum Subject<'a> {
    /// No payload.
    Nothing,
    /// The payload of a command other than `handle`, when it is an object.
    Payload { text: Cow<'a, str>, fields: Fields<'a> },
    /// Anything else that is stored as payload of such a command: handed over as it is.
    Opaque,
    /// The event of `handle`.
    Event { fields: Fields<'a>, text: Cow<'a, str>, payload: Fields<'a> },
}

impl<'a> Input<'a> {
    /// Reads the payload of a job.
    ///
    /// # Errors
    /// What makes it unusable, for `last_error`.
    pub(crate) fn read(job: &'a ClaimedJob) -> Result<Self, String> {
        let stored = job.payload.as_deref().map(str::trim).filter(|text| !text.is_empty() && *text != "null");
        let Some(text) = stored else { return Ok(Self { stored: None, subject: Subject::Nothing, set: Vec::new() }) };
        let unreadable = |error: serde_json::Error| format!("payload is not valid JSON: {error}");
        if !json::is_object(text) {
            if job.command == HANDLE {
                return Err("payload of command \"handle\" must be a JSON object".to_owned());
            }
            let _: &RawValue = serde_json::from_str(text).map_err(unreadable)?;
            return Ok(Self { stored, subject: Subject::Opaque, set: Vec::new() });
        }
        let fields: Fields<'a> = serde_json::from_str(text).map_err(unreadable)?;
        let subject =
            if job.command == HANDLE { event(text, fields)? } else { Subject::Payload { text: text.into(), fields } };
        Ok(Self { stored, subject, set: Vec::new() })
    }

    /// The payload with the context's keys that it lacks.
    pub(crate) fn merged_payload(&self, context: &Context) -> Value {
        let nothing = Fields::new();
        let fields = match &self.subject {
            Subject::Nothing | Subject::Opaque => &nothing,
            Subject::Payload { fields, .. } | Subject::Event { payload: fields, .. } => fields,
        };
        let read = |raw: &RawValue| untrusted_json::value(raw.get()).unwrap_or_default();
        Value::Object(context.merged(fields).into_iter().map(|(key, raw)| (key, read(raw))).collect())
    }

    /// Sets keys of the payload, whatever stands there.
    pub(crate) fn set(&mut self, keys: Vec<(String, Value)>) {
        let raw = |(key, value): (String, Value)| serde_json::value::to_raw_value(&value).ok().map(|raw| (key, raw));
        self.set = keys.into_iter().filter_map(raw).collect();
        // A command without a payload gets one that holds just these.
        if !self.set.is_empty() && matches!(self.subject, Subject::Nothing) {
            self.subject = Subject::Payload { text: "{}".into(), fields: Fields::new() };
            self.stored = Some("{}");
        }
    }

    /// Type of the event, empty when there is none.
    pub(crate) fn event_type(&self) -> String {
        match &self.subject {
            Subject::Event { fields, .. } => fields.get("type").and_then(|raw| string(raw)).unwrap_or_default(),
            _ => String::new(),
        }
    }

    /// The environment of the attempt.
    pub(crate) fn environment(
        &self,
        base: &BaseEnvironment,
        job: &ClaimedJob,
        context: &Context,
    ) -> Vec<(OsString, OsString)> {
        let mut fields = match &self.subject {
            Subject::Nothing | Subject::Opaque => Fields::new(),
            Subject::Payload { fields, .. } | Subject::Event { payload: fields, .. } => context.merged(fields),
        };
        fields.extend(self.set.iter().map(|(key, raw)| (key.clone(), &**raw)));
        base.of_attempt(job, &self.event_type(), &fields)
    }
}

/// The event that a `handle` payload is, or is the payload of.
fn event<'a>(text: &'a str, fields: Fields<'a>) -> Result<Subject<'a>, String> {
    let typed = fields.get("type").and_then(|raw| string(raw)).is_some_and(|kind| !kind.trim().is_empty());
    let inner = fields.get("payload").copied().filter(|raw| json::is_object(raw.get()));
    match inner {
        Some(raw) => {
            let unreadable = |error| format!("event payload is not valid JSON: {error}");
            let payload = serde_json::from_str(raw.get()).map_err(unreadable)?;
            Ok(Subject::Event { fields, text: raw.get().into(), payload })
        }
        None if typed => Ok(Subject::Event { fields, text: "{}".into(), payload: Fields::new() }),
        None => Ok(Subject::Event { fields: Fields::new(), text: text.into(), payload: fields }),
    }
}

fn string(raw: &RawValue) -> Option<String> {
    raw.get().starts_with('"').then(|| serde_json::from_str(raw.get()).ok()).flatten()
}

/// The context object of a job: what its pipeline has collected, and who runs it.
pub(crate) struct Context {
    entries: Vec<(String, Box<RawValue>)>,
}

impl Context {
    /// The context of a job that belongs to no pipeline step.
    pub(crate) fn of_root_job(plugin: &str) -> Self {
        let name = serde_json::value::to_raw_value(plugin);
        Self { entries: name.into_iter().map(|raw| ("ductile_plugin".to_owned(), raw)).collect() }
    }

    /// The context of a step.
    pub(crate) fn of_step(step: &Step) -> Self {
        let raw =
            |(key, value): (&String, &Value)| serde_json::value::to_raw_value(value).ok().map(|raw| (key.clone(), raw));
        Self { entries: step.context.iter().filter_map(raw).collect() }
    }

    /// The fields of a payload and those of the context that it lacks.
    fn merged<'a>(&'a self, payload: &Fields<'a>) -> Fields<'a> {
        let mut merged = payload.clone();
        for (key, raw) in &self.entries {
            merged.entry(key.clone()).or_insert(raw);
        }
        merged
    }

    fn push(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        for (index, (key, raw)) in self.entries.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            json::push_string(out, key);
            out.push(b':');
            out.extend_from_slice(raw.get().as_bytes());
        }
        out.push(b'}');
    }

    /// Appends an object with the context's keys that it lacks and the keys that its step sets.
    fn push_input(&self, out: &mut Vec<u8>, text: &str, fields: &Fields<'_>, set: &[(String, Box<RawValue>)]) {
        if set.is_empty() {
            return self.push_merged(out, text, fields);
        }
        let mut merged = self.merged(fields);
        merged.extend(set.iter().map(|(key, raw)| (key.clone(), &**raw)));
        out.push(b'{');
        for (index, (key, raw)) in merged.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            json::push_string(out, key);
            out.push(b':');
            json::push_one_line(out, raw.get());
        }
        out.push(b'}');
    }

    /// Appends an object as it is, with the context's keys that it lacks at its end.
    fn push_merged(&self, out: &mut Vec<u8>, text: &str, fields: &Fields<'_>) {
        // The last brace of an object's text is its own.
        let open = text.trim_end().strip_suffix('}').unwrap_or(text);
        json::push_one_line(out, open);
        let mut separator = if fields.is_empty() { "" } else { "," };
        for (key, raw) in self.entries.iter().filter(|(key, _)| !fields.contains_key(key)) {
            out.extend_from_slice(separator.as_bytes());
            json::push_string(out, key);
            out.push(b':');
            out.extend_from_slice(raw.get().as_bytes());
            separator = ",";
        }
        out.push(b'}');
    }
}

/// Everything a request says.
pub(crate) struct Request<'a> {
    pub(crate) job: &'a ClaimedJob,
    pub(crate) input: &'a Input<'a>,
    pub(crate) config: &'a PluginConfig,
    pub(crate) context: &'a Context,
    /// `None`: the plugin is no principal of the vault.
    pub(crate) secrets: Option<&'a [(String, Secret)]>,
    pub(crate) deadline_at: DateTime<Utc>,
}

impl Request<'_> {
    /// The line, its line break included. The buffer is large enough from the start, so that no copy with secrets is
    /// left behind by growing, and is wiped when it is dropped.
    pub(crate) fn line(&self) -> Zeroizing<Vec<u8>> {
        let mut buffer = Zeroizing::new(Vec::with_capacity(self.upper_bound()));
        let out: &mut Vec<u8> = &mut buffer;
        out.extend_from_slice(b"{\"protocol\":2,\"job_id\":");
        json::push_string(out, self.job.id.as_str());
        out.extend_from_slice(b",\"command\":");
        json::push_string(out, &self.job.command);
        out.extend_from_slice(b",\"instance\":");
        json::push_string(out, &self.job.plugin);
        out.extend_from_slice(b",\"config\":");
        json::push_one_line(out, self.config.config.get());
        if let Some(secrets) = self.secrets {
            push_secrets(out, secrets);
        }
        out.extend_from_slice(b",\"state\":");
        json::push_one_line(out, self.job.state.as_deref().unwrap_or("{}"));
        self.push_payload(out);
        out.extend_from_slice(b",\"context\":");
        self.context.push(out);
        self.push_event(out);
        out.extend_from_slice(b",\"deadline_at\":");
        json::push_string(out, &format_wire(self.deadline_at));
        out.extend_from_slice(b"}\n");
        buffer
    }

    fn upper_bound(&self) -> usize {
        // A character becomes at most six when it is escaped.
        let secrets: usize =
            self.secrets.unwrap_or_default().iter().map(|(k, v)| 6 * (k.len() + v.expose().len()) + 8).sum();
        let context: usize = self.context.entries.iter().map(|(k, v)| 6 * k.len() + v.get().len() + 8).sum();
        let set: usize = self.input.set.iter().map(|(k, v)| 6 * k.len() + v.get().len() + 8).sum();
        let payload = self.job.payload.as_deref().map_or(0, str::len) + set;
        let names = 6 * (self.job.plugin.len() + self.job.command.len() + self.job.id.as_str().len());
        let state = self.job.state.as_deref().map_or(2, str::len);
        512 + names + self.config.config.get().len() + secrets + state + 3 * payload + 3 * context
    }

    fn push_payload(&self, out: &mut Vec<u8>) {
        let Some(stored) = self.input.stored else { return };
        out.extend_from_slice(b",\"payload\":");
        match &self.input.subject {
            Subject::Payload { text, fields } => self.context.push_input(out, text, fields, &self.input.set),
            Subject::Nothing | Subject::Opaque | Subject::Event { .. } => json::push_one_line(out, stored),
        }
    }

    fn push_event(&self, out: &mut Vec<u8>) {
        let Subject::Event { fields, text, payload } = &self.input.subject else { return };
        out.extend_from_slice(b",\"event\":{\"type\":");
        json::push_string(out, &self.input.event_type());
        out.extend_from_slice(b",\"payload\":");
        self.context.push_input(out, text, payload, &self.input.set);
        for name in ["dedupe_key", "source", "event_id"] {
            if let Some(value) = text_of(fields, name) {
                push_text(out, name, &value);
            }
        }
        let timestamp = text_of(fields, "timestamp").unwrap_or_else(|| format_wire(self.job.created_at));
        push_text(out, "timestamp", &timestamp);
        out.push(b'}');
    }
}

fn text_of(fields: &Fields<'_>, name: &str) -> Option<String> {
    fields.get(name).and_then(|raw| string(raw)).filter(|text| !text.trim().is_empty())
}

fn push_text(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b',');
    json::push_string(out, name);
    out.push(b':');
    json::push_string(out, value);
}

fn push_secrets(out: &mut Vec<u8>, secrets: &[(String, Secret)]) {
    out.extend_from_slice(b",\"secrets\":{");
    for (index, (name, value)) in secrets.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::push_string(out, name);
        out.push(b':');
        json::push_string(out, value.expose());
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{claimed, plugin_config};

    fn line(job: &ClaimedJob, config: &str, secrets: Option<&[(String, Secret)]>) -> String {
        let input = Input::read(job).unwrap();
        let context = Context::of_root_job(&job.plugin);
        let config = plugin_config(config);
        let deadline_at = ductile_model::parse_stored("2026-01-02T03:06:05.000000001Z").unwrap();
        let request = Request { job, input: &input, config: &config, context: &context, secrets, deadline_at };
        let bound = request.upper_bound();
        let line = String::from_utf8(request.line().to_vec()).unwrap();
        assert!(line.len() <= bound, "{} > {bound}", line.len());
        assert!(line.ends_with("}\n") && !line.trim_end().contains('\n'));
        line
    }

    fn value(job: &ClaimedJob) -> Value {
        serde_json::from_str(&line(job, "{}", None)).unwrap()
    }

    #[test]
    fn a_job_without_anything_has_only_the_fields_that_always_are() {
        let job = claimed("echo", "poll", None);
        let value = value(&job);
        let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["protocol", "job_id", "command", "instance", "config", "state", "context", "deadline_at"]);
        assert_eq!(value["context"], json!({"ductile_plugin": "echo"}));
        assert_eq!(value["deadline_at"], "2026-01-02T03:06:05.000000001Z");
    }

    #[test]
    fn digits_of_config_state_and_payload_are_kept_exactly() {
        let mut job = claimed("p", "poll", Some("{ \"n\": 1713740000123456789012,\n \"f\": 1.50 }"));
        job.state = Some(r#"{"n":1713740000123456789}"#.to_owned());
        let line = line(&job, r#"{"big":98765432109876543210}"#, None);
        for digits in ["\"n\": 1713740000123456789012,", "1.50", "{\"n\":1713740000123456789}", "98765432109876543210"]
        {
            assert!(line.contains(digits), "{digits} in {line}");
        }
    }

    #[test]
    fn the_payload_gets_the_context_keys_that_it_lacks() {
        let job = claimed("p", "poll", Some(r#"{"a":{"b":1}}"#));
        assert_eq!(value(&job)["payload"], json!({"a": {"b": 1}, "ductile_plugin": "p"}));
        let job = claimed("p", "poll", Some(r#"{"ductile_plugin":"mine"}"#));
        assert_eq!(value(&job)["payload"], json!({"ductile_plugin": "mine"}));
        let job = claimed("p", "poll", Some("{ }"));
        assert_eq!(value(&job)["payload"], json!({"ductile_plugin": "p"}));
    }

    #[test]
    fn a_handle_payload_with_a_type_is_the_event() {
        let stored = r#"{"type":"note.created","payload":{"text":"hi"},"dedupe_key":"n:17","event_id":null,"x":1}"#;
        let mut job = claimed("p", "handle", Some(stored));
        job.created_at = ductile_model::parse_stored("2026-01-02T03:04:05Z").unwrap();
        let value = value(&job);
        assert_eq!(value["payload"], serde_json::from_str::<Value>(stored).unwrap());
        let expected = json!({"type": "note.created", "payload": {"text": "hi", "ductile_plugin": "p"},
            "dedupe_key": "n:17", "timestamp": "2026-01-02T03:04:05Z"});
        assert_eq!(value["event"], expected);
    }

    #[test]
    fn any_other_handle_object_is_the_payload_of_an_event_without_type() {
        let value = value(&claimed("p", "handle", Some(r#"{"type":" ","text":"hi"}"#)));
        assert_eq!(value["event"]["type"], "");
        assert_eq!(value["event"]["payload"], json!({"type": " ", "text": "hi", "ductile_plugin": "p"}));
        assert!(self::value(&claimed("p", "handle", None)).get("event").is_none());
    }

    #[test]
    fn a_handle_payload_that_is_no_object_is_refused() {
        assert!(Input::read(&claimed("p", "handle", Some("[1]"))).is_err());
        assert!(Input::read(&claimed("p", "poll", Some("{1"))).is_err());
        assert!(Input::read(&claimed("p", "handle", Some("null"))).is_ok());
    }

    #[test]
    fn secrets_stand_beside_config_and_only_for_a_principal() {
        let job = claimed("p", "poll", None);
        let secrets = [("smtp_pw".to_owned(), Secret::new("p@\"ss\u{1}".to_owned()))];
        let value: Value = serde_json::from_str(&line(&job, "{}", Some(&secrets))).unwrap();
        assert_eq!(value["secrets"], json!({"smtp_pw": "p@\"ss\u{1}"}));
        let value: Value = serde_json::from_str(&line(&job, "{}", Some(&[]))).unwrap();
        assert_eq!(value["secrets"], json!({}));
    }
}
