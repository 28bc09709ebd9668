//! All pipelines.

use ductile_config::{Pipeline, Pipelines, Trigger};
use ductile_model::format_duration;
use serde_json::{Value, json};

use super::{depth, trigger};
use crate::cli::args::Common;
use crate::cli::report::{self, Failure};

const HEAD: [&str; 5] = ["NAME", "TRIGGER", "MODE", "NODES", "DEPTH"];

pub(super) fn run(all: &Pipelines, common: &Common) -> Result<u8, Failure> {
    if common.json {
        let list: Vec<Value> = all.iter().map(document).collect();
        report::json(&json!({ "pipelines": list }));
        return Ok(0);
    }
    if all.is_empty() {
        report::note(format_args!("no pipelines are configured"));
        return Ok(0);
    }
    let rows: Vec<[String; 5]> = all.iter().map(row).collect();
    let widths: [usize; 5] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0).max(HEAD[column].len())
    });
    for row in std::iter::once(&HEAD.map(str::to_owned)).chain(&rows) {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        report::line(format_args!("{}", cells.join("  ").trim_end()));
    }
    Ok(0)
}

fn row(pipeline: &Pipeline) -> [String; 5] {
    [
        pipeline.name.to_string(),
        trigger(pipeline),
        pipeline.mode.as_str().to_owned(),
        pipeline.nodes().len().to_string(),
        depth(pipeline),
    ]
}

fn document(pipeline: &Pipeline) -> Value {
    let (event, signal) = match &pipeline.trigger {
        Trigger::Event(event) => (Some(&**event), None),
        Trigger::Hook(signal) => (None, Some(signal.as_str())),
    };
    json!({
        "name": &*pipeline.name,
        "trigger": event,
        "hook_signal": signal,
        "from_plugin": pipeline.from_plugin.as_deref(),
        "execution_mode": pipeline.mode.as_str(),
        "timeout": format_duration(pipeline.timeout),
        "max_depth": pipeline.max_depth,
        "steps": pipeline.nodes().len(),
        "fingerprint": pipeline.fingerprint,
    })
}
