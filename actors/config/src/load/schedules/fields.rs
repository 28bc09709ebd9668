//! The fields of one schedule. A fault is remembered and reading goes on.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ductile_model::{Problem, parse_duration};
use ductile_timetable::{CatchUp, Overlap, Weekdays, Window, Zone, parse_interval, parse_weekday};
use serde_json::Value;

use crate::load::convert::scalar_json;
use crate::load::shape::{UNFIT, unfit};
use crate::load::{Context, dotted, needs};
use crate::scalar::Scalar;
use crate::yaml::{Data, Node};

const INTERVAL: &str = "a duration above zero such as 90s, or hourly, daily, weekly or monthly";
const DELAY: &str = "a duration above zero such as 90s or 1h30m";
const LENGTH: &str = "a duration such as 90s or 1h30m";
const INSTANT: &str = "a time with its offset such as 2026-01-05T10:00:00+01:00";
const WINDOW: &str = "two different times of day such as 08:00-18:00";
const ZONE: &str = "an IANA name such as Europe/Berlin";
const DAY: &str = "a day such as monday, or a number from 0 to 7";

pub(super) struct Fields<'f> {
    context: &'f Context<'f>,
    plugin: &'f str,
    /// `[0]`
    place: &'f str,
    written: &'f Node,
    pub(super) faults: Vec<Problem>,
    pub(super) advice: Vec<Problem>,
}

impl<'f> Fields<'f> {
    pub(super) fn new(context: &'f Context<'f>, plugin: &'f str, place: &'f str, written: &'f Node) -> Self {
        Self { context, plugin, place, written, faults: Vec::new(), advice: Vec::new() }
    }

    /// What is said follows the name of the field.
    fn problem(&self, field: &[&str], what: &str) -> Problem {
        let schedule = ["schedules", self.place];
        let local: Vec<_> = schedule.iter().chain(field).copied().collect();
        let path: Vec<_> = ["plugins", self.plugin].iter().chain(&local).copied().collect();
        let plugin = self.context.merged.shown_key(&path[..2]);
        let message = format!("plugin {plugin:?}: {}{what}", dotted(&local));
        self.context.problem("schedule", &path, message)
    }

    pub(super) fn refuse(&mut self, field: &[&str], what: &str) {
        let problem = self.problem(field, what);
        self.faults.push(problem);
    }

    pub(super) fn wrong(&mut self, field: &[&str], message: impl Display) {
        self.refuse(field, &format!(": {message}"));
    }

    pub(super) fn advise(&mut self, field: &str, what: &str) {
        let problem = self.problem(&[field], &format!(" {what}"));
        self.advice.push(problem);
    }

    pub(super) fn is_mapping(&mut self) -> bool {
        let is_mapping = self.written.is_null() || matches!(self.written.data, Data::Map(_));
        if !is_mapping {
            self.refuse(&[], " must be a mapping");
        }
        is_mapping
    }

    /// What is written under a key; null counts as absent.
    pub(super) fn node(&self, key: &str) -> Option<&'f Node> {
        self.written.get(key)
    }

    /// Whether a key says something: a blank text does not.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.node(key).is_some_and(|node| node.scalar().is_none_or(|scalar| !scalar.text.trim().is_empty()))
    }

    /// The text of a key as a message quotes it.
    pub(super) fn shown(&self, key: &str, default: &str) -> String {
        self.node(key).and_then(Node::scalar).map_or_else(|| format!("{default:?}"), Scalar::shown)
    }

    fn single(&mut self, field: &[&str], node: &'f Node) -> Option<&'f Scalar> {
        match &node.data {
            Data::Scalar(scalar) => return Some(scalar),
            Data::Map(_) => self.wrong(field, "must be a single value, not a mapping"),
            Data::List(_) => self.wrong(field, "must be a single value, not a list"),
        }
        None
    }

    fn scalar(&mut self, key: &str) -> Option<&'f Scalar> {
        self.single(&[key], self.node(key)?)
    }

    /// `None` when something else than a text is written.
    pub(super) fn text(&mut self, key: &str, default: &str) -> Option<String> {
        match self.node(key) {
            Some(node) => self.single(&[key], node).map(|scalar| scalar.text.clone()),
            None => Some(default.to_owned()),
        }
    }

    /// What a scalar is read as. What came from the environment may be a secret and is only named.
    fn read<T, E: Display>(
        &mut self,
        field: &[&str],
        scalar: &Scalar,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        if let Some(name) = scalar.unset.first() {
            self.wrong(field, format_args!("needs a value: environment variable ${{{name}}} is not set"));
            return None;
        }
        match parse(&scalar.text) {
            Ok(value) => return Some(value),
            Err(error) if scalar.vars.is_empty() => self.wrong(field, error),
            Err(_) => self.wrong(field, format_args!("must be {expected}, not {}", scalar.shown())),
        }
        None
    }

    fn field<T, E: Display>(
        &mut self,
        key: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let scalar = self.scalar(key)?;
        self.read(&[key], scalar, expected, parse)
    }

    /// As any field, but a blank one is none: that there is no trigger is said elsewhere.
    pub(super) fn trigger<T, E: Display>(
        &mut self,
        key: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        if self.is_given(key) { self.field(key, expected, parse) } else { None }
    }

    pub(super) fn every(&mut self) -> Option<Duration> {
        self.trigger("every", INTERVAL, parse_interval)
    }

    pub(super) fn at(&mut self) -> Option<DateTime<Utc>> {
        self.trigger("at", INSTANT, |text| {
            let at = DateTime::parse_from_rfc3339(text.trim());
            at.map(|at| at.to_utc()).map_err(|_| format!("expected {INSTANT}, not {text:?}"))
        })
    }

    pub(super) fn after(&mut self) -> Option<Duration> {
        self.trigger("after", DELAY, |text| match parse_duration(text) {
            Ok(delay) if delay.is_zero() => Err("schedule delay must be positive".to_owned()),
            Ok(delay) => Ok(delay),
            Err(error) => Err(error.to_string()),
        })
    }

    pub(super) fn jitter(&mut self) -> Option<Duration> {
        self.field("jitter", LENGTH, parse_duration)
    }

    pub(super) fn zone(&mut self) -> Option<Zone> {
        self.field("timezone", ZONE, Zone::named)
    }

    pub(super) fn window(&mut self, key: &str) -> Option<Window> {
        self.field(key, WINDOW, Window::parse)
    }

    pub(super) fn preferred_window(&mut self) -> Option<Window> {
        let key = "preferred_window";
        let node = self.node(key)?;
        if !matches!(node.data, Data::Map(_)) {
            self.wrong(&[key], "must be a mapping");
            return None;
        }
        let mut ends = Vec::new();
        for end in ["start", "end"] {
            match node.get(end) {
                Some(node) => ends.extend(self.single(&[key, end], node)),
                None => self.wrong(&[key], format_args!("{end} is required, as HH:MM")),
            }
        }
        let [start, end] = ends.as_slice() else { return None };
        let is_plain = start.vars.is_empty() && end.vars.is_empty();
        match Window::between(start.text.trim(), end.text.trim()) {
            Ok(window) => return Some(window),
            Err(error) if is_plain => self.wrong(&[key], error),
            Err(_) => {
                let (start, end) = (start.shown(), end.shown());
                self.wrong(&[key], format_args!("must be two different times of day, not {start} and {end}"));
            }
        }
        None
    }

    pub(super) fn days(&mut self) -> Weekdays {
        let mut days = Weekdays::default();
        let key = "not_on";
        let Some(node) = self.node(key) else { return days };
        let Data::List(items) = &node.data else {
            self.wrong(&[key], "must be a list");
            return days;
        };
        for (index, item) in items.iter().enumerate().filter(|(_, item)| !item.is_null()) {
            let field = [key, &format!("[{index}]")];
            let Some(scalar) = self.single(&field, item) else { continue };
            let day = self.read(&field, scalar, DAY, |_| parse_weekday(&number_or_text(scalar)));
            if let Some(day) = day {
                days.insert(day);
            }
        }
        days
    }

    pub(super) fn catch_up(&mut self) -> Option<CatchUp> {
        let words = [("skip", CatchUp::Skip), ("run_once", CatchUp::RunOnce), ("run_all", CatchUp::RunAll)];
        self.word("catch_up", words)
    }

    pub(super) fn if_running(&mut self, limit: u32) -> Option<Overlap> {
        let words = [("skip", Overlap::Skip), ("queue", Overlap::Queue { limit }), ("cancel", Overlap::Cancel)];
        self.word("if_running", words)
    }

    fn word<T: Copy>(&mut self, key: &str, words: [(&str, T); 3]) -> Option<T> {
        let scalar = self.scalar(key)?;
        let found = words.iter().find(|(word, _)| *word == scalar.text);
        if found.is_none() {
            let expected = needs::alternatives(&words.map(|(word, _)| word));
            self.wrong(&[key], format_args!("expected {expected}, not {}", scalar.shown()));
        }
        found.map(|(_, value)| *value)
    }

    /// The payload as compact JSON text; numbers keep their digits.
    pub(super) fn payload(&mut self, filled: &Value) -> Arc<str> {
        if let Some(node) = self.node("payload") {
            let unfit = if matches!(node.data, Data::Map(_)) {
                unfit(node, "")
            } else {
                self.wrong(&["payload"], "must be a mapping");
                Vec::new()
            };
            for (place, path) in unfit {
                let problem = self.problem(&["payload"], &format!("{path}: {UNFIT}"));
                self.faults.push(self.context.files.at(problem, place));
            }
        }
        filled.get("payload").map_or_else(|| "{}".into(), |payload| payload.to_string().into())
    }
}

/// A number as its digits, anything else as it is.
fn number_or_text(scalar: &Scalar) -> String {
    match scalar_json(scalar) {
        Value::Number(number) => number.to_string(),
        _ => scalar.text.clone(),
    }
}
