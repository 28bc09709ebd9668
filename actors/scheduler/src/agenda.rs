//! When to look at which schedule: a note, never the truth. A wrong one costs a look.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ductile_timetable::Entry;

/// Schedules of a generation by the time at which each is looked at next.
pub(crate) struct Agenda {
    entries: Arc<[Arc<Entry>]>,
    places: HashMap<String, HashMap<String, usize>>,
    times: Vec<Option<DateTime<Utc>>>,
    order: BTreeSet<(DateTime<Utc>, usize)>,
}

impl Agenda {
    pub(crate) fn new(entries: Arc<[Arc<Entry>]>) -> Self {
        let mut places: HashMap<String, HashMap<String, usize>> = HashMap::new();
        for (place, entry) in entries.iter().enumerate() {
            places.entry(entry.plugin.clone()).or_default().insert(entry.id.clone(), place);
        }
        Self { times: vec![None; entries.len()], order: BTreeSet::new(), places, entries }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn entries(&self) -> &Arc<[Arc<Entry>]> {
        &self.entries
    }

    pub(crate) fn entry(&self, place: usize) -> &Arc<Entry> {
        &self.entries[place]
    }

    /// The place of a configured schedule.
    pub(crate) fn place(&self, plugin: &str, schedule: &str) -> Option<usize> {
        self.places.get(plugin)?.get(schedule).copied()
    }

    /// Notes when to look at a schedule next; `None`: not before the next tick.
    pub(crate) fn set(&mut self, place: usize, at: Option<DateTime<Utc>>) {
        if let Some(before) = std::mem::replace(&mut self.times[place], at) {
            self.order.remove(&(before, place));
        }
        if let Some(at) = at {
            self.order.insert((at, place));
        }
    }

    /// The earliest time at which there is something to look at.
    pub(crate) fn earliest(&self) -> Option<DateTime<Utc>> {
        self.order.first().map(|(at, _)| *at)
    }

    /// What is to be looked at by now, in the order of the configuration.
    pub(crate) fn due(&self, now: DateTime<Utc>) -> Vec<usize> {
        let mut due: Vec<_> = self.order.range(..=(now, usize::MAX)).map(|(_, place)| *place).collect();
        due.sort_unstable();
        due
    }
}
