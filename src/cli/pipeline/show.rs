//! One pipeline in full.

use ductile_config::{Destination, Pipeline, Pipelines, Route};
use serde_json::{Value, json};

use super::{depth, yaml};
use crate::cli::args::Common;
use crate::cli::report::{self, Failure};

pub(super) fn run(pipeline: &Pipeline, all: &Pipelines, common: &Common) -> Result<u8, Failure> {
    let routes = pipeline.routes(all);
    if common.json {
        let routes = serde_json::to_value(&routes).map_err(Failure::internal)?;
        report::json(&json!({
            "name": &*pipeline.name,
            "fingerprint": pipeline.fingerprint,
            "max_depth": pipeline.max_depth,
            "definition": pipeline.definition(),
            "compiled_routes": routes,
        }));
        return Ok(0);
    }
    report::text(&yaml::text(pipeline.definition()));
    report::line(format_args!(
        "\nfingerprint: {}\ndepth: {}\n\ncompiled routes:",
        pipeline.fingerprint,
        depth(pipeline)
    ));
    let rows: Vec<_> = routes.iter().map(|route| (route.id.as_str(), matched(route), leads_to(route))).collect();
    let ids = rows.iter().map(|row| row.0.chars().count()).max().unwrap_or(0);
    let sources = rows.iter().map(|row| row.1.chars().count()).max().unwrap_or(0);
    for (id, source, destination) in rows {
        report::line(format_args!("  {id:ids$}  {source:sources$}  {destination}"));
    }
    Ok(0)
}

/// What a route asks of an event beyond where it comes from.
fn matched(route: &Route) -> String {
    let source = &route.source;
    let type_of_event = source.trigger.as_ref().or(source.hook_signal.as_ref()).or(source.event_type.as_ref());
    let mut said = type_of_event.cloned().unwrap_or_else(|| "any event".to_owned());
    if let Some(plugin) = &source.source_plugin {
        said.push_str(&format!(" from {plugin}"));
    }
    if source.condition.as_ref().is_some_and(|condition| *condition != Value::Null) {
        said.push_str(" if …");
    }
    said
}

fn leads_to(route: &Route) -> String {
    match &route.destination {
        Destination::Uses { plugin, command, .. } => format!("{plugin} {command}"),
        Destination::Call { call_pipeline, .. } => format!("call {call_pipeline}"),
        Destination::Terminal => "end".to_owned(),
    }
}
