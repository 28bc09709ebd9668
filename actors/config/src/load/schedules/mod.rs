//! The schedules of plugins, from what is written to checked entries.

mod advice;
mod fields;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ductile_model::Problem;
use ductile_timetable::{CatchUp, Cron, Entry, Interval, Overlap, Rule, Zone};
use serde_json::Value;

use self::fields::Fields;
use super::{Context, needs};
use crate::PluginConfig;
use crate::keys::{Schema, root};
use crate::yaml::{Data, Node};

/// What a text had to be.
const CRON: &str = "a cron expression such as \"0 3 * * *\"";

/// Compiles the schedules of all plugins: those of enabled ones in the order of plugin names and then as configured. What
/// is wrong with those of other plugins is only worth a warning.
pub(super) fn compile(
    context: &Context<'_>,
    effective: &Value,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) -> Arc<[Arc<Entry>]> {
    // Taken once per load.
    let zone = Zone::of_this_machine();
    let mut entries = Vec::new();
    for (name, config) in &context.config.plugins {
        let path = ["plugins", name, "schedules"];
        let Some(written) = context.merged.find(&path).filter(|written| !written.is_null()) else { continue };
        let mut plugin = Plugin { context, name, config, zone: &zone, ids: HashSet::new(), found: Found::default() };
        let filled = effective.get("plugins").and_then(|plugins| plugins.get(name)?.get("schedules"));
        plugin.list(written, filled.unwrap_or(&Value::Null));
        let mut found = plugin.found;
        if config.enabled {
            problems.append(&mut found.faults);
            warnings.append(&mut found.advice);
            entries.extend(found.entries.into_iter().map(Arc::new));
        } else {
            warnings.append(&mut found.faults);
        }
    }
    if let Some(name) = Zone::misnamed().filter(|_| !entries.is_empty()) {
        let message = format!("TZ={name:?} names no time zone: schedules without a timezone of their own run by UTC");
        warnings.push(Problem::new("schedule", message));
    }
    entries.into()
}

/// What came of the schedules of a plugin.
#[derive(Default)]
struct Found {
    entries: Vec<Entry>,
    faults: Vec<Problem>,
    /// What is allowed and looks like a mistake.
    advice: Vec<Problem>,
}

struct Plugin<'p> {
    context: &'p Context<'p>,
    name: &'p str,
    config: &'p PluginConfig,
    /// Of schedules that name none.
    zone: &'p Zone,
    ids: HashSet<String>,
    found: Found,
}

impl Plugin<'_> {
    fn list(&mut self, written: &Node, filled: &Value) {
        let Data::List(items) = &written.data else {
            let shown = self.context.merged.shown_key(&["plugins", self.name]);
            let message = format!("plugin {shown:?}: schedules must be a list");
            self.found.faults.push(self.context.problem("schedule", &["plugins", self.name, "schedules"], message));
            return;
        };
        for (index, node) in items.iter().enumerate() {
            let place = format!("[{index}]");
            let mut fields = Fields::new(self.context, self.name, &place, node);
            let entry = self.entry(&mut fields, &filled[index]);
            self.found.entries.extend(entry.filter(|_| fields.faults.is_empty()));
            self.found.faults.append(&mut fields.faults);
            self.found.advice.append(&mut fields.advice);
        }
    }

    /// Reads every field, whatever is wrong with the others.
    fn entry(&mut self, fields: &mut Fields<'_>, filled: &Value) -> Option<Entry> {
        if !fields.is_mapping() {
            return None;
        }
        let zone = fields.zone().unwrap_or_else(|| self.zone.clone());
        let id = self.id(fields);
        let command = command(fields);
        let payload = fields.payload(filled);
        let only_between = fields.window("only_between");
        let not_on = fields.days();
        let jitter = fields.jitter().unwrap_or_default();
        let preferred = fields.preferred_window().map(|window| (window, zone.clone()));
        let rule = Self::rule(fields, filled, |every| Interval { every, jitter, preferred });
        let catch_up = fields.catch_up().unwrap_or(CatchUp::Skip);
        if catch_up != CatchUp::Skip && !fields.is_given("every") {
            fields.refuse(&["catch_up"], " is only supported for every schedules");
        }
        let if_running = fields.if_running(self.config.max_outstanding_polls).unwrap_or(Overlap::Skip);
        advice::give(fields, rule.as_ref(), jitter, not_on, self.context.config.service.tick_interval);
        let entry = Entry {
            plugin: self.name.to_owned(),
            id: id?,
            command: command?,
            payload,
            max_attempts: self.config.retry.max_attempts,
            rule: rule?,
            zone,
            only_between,
            not_on,
            if_running,
            catch_up,
        };
        advice::of_slots(fields, &entry);
        Some(entry)
    }

    fn id(&mut self, fields: &mut Fields<'_>) -> Option<String> {
        let id = fields.text("id", "default")?;
        if id.trim().is_empty() {
            fields.wrong(&["id"], "must not be empty");
        } else if id.trim() != id {
            fields.wrong(&["id"], "must not begin or end with a blank");
        } else if id.contains(':') || id.contains(char::is_control) {
            let shown = fields.shown("id", &id);
            fields.wrong(&["id"], format!("must not have colons or control characters in it, as {shown} has"));
        } else if !self.ids.insert(id.clone()) {
            let shown = fields.shown("id", &id);
            fields.wrong(&["id"], format!("duplicate schedule id {shown}"));
        }
        Some(id)
    }

    /// Each trigger that is written is judged, also when there are too many.
    fn rule(fields: &mut Fields<'_>, filled: &Value, interval: impl FnOnce(Duration) -> Interval) -> Option<Rule> {
        let lacks = match (schema(), filled) {
            (Some(schema), Value::Object(filled)) => needs::lacks(schema, filled),
            _ => Vec::new(),
        };
        for what in &lacks {
            fields.refuse(&[], &format!(" {what}"));
        }
        let every = fields.every().map(|every| Rule::Every(interval(every)));
        let cron =
            fields.trigger("cron", CRON, |text| Cron::parse(text).map_err(|error| error.to_string())).map(Rule::Cron);
        let at = fields.at().map(Rule::At);
        let after = fields.after().map(Rule::After);
        every.or(cron).or(at).or(after).filter(|_| lacks.is_empty())
    }
}

fn command(fields: &mut Fields<'_>) -> Option<String> {
    let command = fields.text("command", "poll")?;
    if command == "handle" {
        let named = fields.node("command").and_then(Node::scalar).map_or("handle", |scalar| scalar.written());
        let message = format!("{named} cannot be scheduled");
        fields.wrong(&["command"], message);
    }
    Some(command)
}

/// The keys of one schedule.
fn schema() -> Option<&'static Schema> {
    root().find(&["plugins", "*", "schedules"])?.each()
}
