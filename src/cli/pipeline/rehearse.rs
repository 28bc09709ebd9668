//! What would happen to an event: which steps would be queued, with which context and payload. Nothing is run, and no
//! database is needed.

use std::sync::Arc;

use chrono::Utc;
use ductile_config::{Purpose, plan};
use ductile_model::untrusted_json;
use ductile_router::{Check, Rehearsal, RehearsedJob, Router, Thought};
use serde_json::{Map, Value, json};

use crate::cli::api::typed_field;
use crate::cli::args::Common;
use crate::cli::report::{self, Failure, line};
use crate::gateway::secrets::VaultSource;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Pipeline that the event meets; without it the whole configuration is checked
    name: Option<String>,
    /// A key of the event's payload: key=value or key:=json; may be repeated
    #[arg(short, long = "field", value_name = "KEY=VALUE", requires = "name")]
    fields: Vec<String>,
    /// The whole payload, a JSON object
    #[arg(short, long, value_name = "JSON", requires = "name", conflicts_with = "fields")]
    body: Option<String>,
    /// Type of the event [default: the one that the pipeline waits for]
    #[arg(long, value_name = "TYPE", requires = "name")]
    event_type: Option<String>,
    /// Plugin that emits it [default: none, it comes from outside]
    #[arg(long, value_name = "NAME", requires = "name")]
    from_plugin: Option<String>,
}

impl Arguments {
    /// The pipeline that was named.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn payload(&self) -> Result<Map<String, Value>, Failure> {
        let Some(body) = &self.body else { return self.fields.iter().map(|field| typed_field(field)).collect() };
        match untrusted_json::value(body) {
            Ok(Value::Object(payload)) => Ok(payload),
            Ok(_) => Err(Failure::usage("--body must be a JSON object")),
            Err(error) => Err(Failure::usage(format!("--body: not valid JSON: {error}"))),
        }
    }
}

pub(super) fn run(name: &str, arguments: &Arguments, common: &Common) -> Result<u8, Failure> {
    let thought = Thought {
        event_type: arguments.event_type.clone(),
        from_plugin: arguments.from_plugin.clone(),
        payload: arguments.payload()?,
    };
    let environment = crate::environment();
    let source = common.locate(&environment).map_err(Failure::config)?;
    let plan = plan(&source, &environment, &VaultSource::default(), Purpose::Inspecting).map_err(Failure::config)?;
    let rehearsal = Router::new(Arc::new(plan)).rehearse(name, &thought, Utc::now());
    let rehearsal = rehearsal.ok_or_else(|| Failure::missing(format!("pipeline {name:?} not found")))?;
    if common.json {
        report::json(&document(name, &rehearsal));
    } else {
        show(name, &rehearsal);
    }
    let fails = rehearsal.refusal.is_some() || rehearsal.jobs.iter().any(|job| job.error.is_some());
    Ok(u8::from(fails || !rehearsal.starts()))
}

fn document(name: &str, rehearsal: &Rehearsal) -> Value {
    json!({
        "pipeline": name,
        "event_type": rehearsal.event_type,
        "starts": rehearsal.starts(),
        "trigger": check(&rehearsal.trigger),
        "from_plugin": check(&rehearsal.from_plugin),
        "if": check(&rehearsal.condition),
        "refusal": rehearsal.refusal,
        "jobs": rehearsal.jobs.iter().map(job).collect::<Vec<_>>(),
    })
}

fn check(check: &Check) -> Value {
    match check {
        Check::NotAsked => json!({"result": "not_asked"}),
        Check::Met => json!({"result": "met"}),
        Check::NotMet(wanted) => json!({"result": "not_met", "wanted": wanted}),
        Check::Failed(why) => json!({"result": "failed", "error": why}),
    }
}

fn job(job: &RehearsedJob) -> Value {
    let mut entry = Map::new();
    entry.insert("pipeline".into(), json!(job.pipeline));
    entry.insert("step_id".into(), json!(job.step));
    entry.insert("plugin".into(), json!(job.plugin));
    entry.insert("command".into(), json!(job.command));
    if let Some(matched) = job.matched {
        entry.insert("matched".into(), json!(matched));
    }
    entry.insert("context".into(), job.context.clone());
    entry.insert("payload".into(), job.payload.clone());
    if let Some(error) = &job.error {
        entry.insert("error".into(), json!(error));
    }
    Value::Object(entry)
}

fn show(name: &str, rehearsal: &Rehearsal) {
    line(format_args!("Pipeline    : {name}"));
    line(format_args!("Event       : {}", rehearsal.event_type));
    for (what, check) in
        [("on", &rehearsal.trigger), ("from_plugin", &rehearsal.from_plugin), ("if", &rehearsal.condition)]
    {
        line(format_args!("{what:<12}: {}", in_words(check)));
    }
    match &rehearsal.refusal {
        Some(why) => line(format_args!("A start would be refused: {why}")),
        None if rehearsal.starts() => line(format_args!("The event would start it:")),
        None => line(format_args!("The event would not start it. A start by name would queue:")),
    }
    for job in &rehearsal.jobs {
        let decided = match job.matched {
            Some(true) => " -> true",
            Some(false) => " -> false",
            None => "",
        };
        line(format_args!("- {}/{} ({} {}){decided}", job.pipeline, job.step, job.plugin, job.command));
        line(format_args!("    context: {}", job.context));
        line(format_args!("    payload: {}", job.payload));
        if let Some(error) = &job.error {
            line(format_args!("    would fail: {error}"));
        }
    }
}

fn in_words(check: &Check) -> String {
    match check {
        Check::NotAsked => "anything".to_owned(),
        Check::Met => "met".to_owned(),
        Check::NotMet(wanted) => format!("not met ({wanted})"),
        Check::Failed(why) => format!("can not be told: {why}"),
    }
}
