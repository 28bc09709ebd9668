//! What is told of schedules that do not run, or not in time.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ductile_model::{EventHub, JobId, Replay, format_wire};
use ductile_queue::SkipReason;
use ductile_timetable::Entry;
use serde_json::{Map, Value};
use tracing::{debug, info, warn};

use crate::SchedulerLife;

/// Of at most so many schedules a tick tells that they are not due: more would crowd out what matters.
pub(crate) const NOT_DUE_PER_TICK: usize = 64;
/// A slot that is less late than this is on time.
const LEAST_DELAY: Duration = Duration::from_secs(2);
/// Slots that are counted one by one.
pub(crate) const COUNTED: u64 = 10_000;

/// A slot that ran.
pub(crate) struct Ran<'a> {
    pub(crate) job: &'a JobId,
    pub(crate) slot: DateTime<Utc>,
    pub(crate) at: DateTime<Utc>,
}

/// Slots that did not run, from one to another.
pub(crate) struct Lost {
    pub(crate) first: DateTime<Utc>,
    pub(crate) count: u64,
    pub(crate) reason: &'static str,
    /// The configuration says so: no reason to warn anybody.
    pub(crate) is_wanted: bool,
}

/// Tells, and remembers what it has told, over reloads.
pub(crate) struct Teller {
    hub: EventHub,
    life: SchedulerLife,
    /// Beyond this a slot is late.
    patience: Duration,
    /// When the first loop of the process began.
    began: DateTime<Utc>,
    /// The clock was put ahead since the tick before.
    jumped: bool,
}

impl Teller {
    pub(crate) fn new(hub: EventHub, life: SchedulerLife, tick: Duration, began: DateTime<Utc>) -> Self {
        let began = life.began(began);
        Self { hub, life, patience: LEAST_DELAY.max(tick * 2), began, jumped: false }
    }

    /// A tick begins, and the clock may have been put ahead since the one before.
    pub(crate) fn tick(&mut self, jumped: bool) {
        self.jumped = jumped;
        self.hub.publish_as("scheduler.tick", Map::new(), Replay::LiveOnly);
    }

    /// How many of those that are not due are worth telling: none when nobody listens.
    pub(crate) fn listeners_for_not_due(&self) -> usize {
        if self.hub.has_subscribers() { NOT_DUE_PER_TICK } else { 0 }
    }

    /// A schedule is not due. If it was held back by its state, that is over.
    pub(crate) fn waits(&self, entry: &Entry) {
        let mut told = self.life.told();
        if !told.is_empty()
            && let Some(SkipReason::Paused | SkipReason::Exhausted) = told.get(&key(entry))
        {
            told.remove(&key(entry));
        }
    }

    /// Schedules of a command that were held back by its jobs.
    pub(crate) fn held_by_jobs(&self, entries: &[Arc<Entry>], plugin: &str, command: &str) -> Vec<usize> {
        let told = self.life.told();
        if told.is_empty() {
            return Vec::new();
        }
        let by_jobs = |entry: &Entry| {
            let reason = told.get(&key(entry));
            matches!(reason, Some(SkipReason::AlreadyRunning | SkipReason::OutstandingLimit | SkipReason::CircuitOpen))
        };
        let own = entries.iter().enumerate().filter(|(_, entry)| entry.plugin == plugin && entry.command == command);
        own.filter(|(_, entry)| by_jobs(entry)).map(|(place, _)| place).collect()
    }

    /// Tells those who listen that a schedule is not due.
    pub(crate) fn not_due(&self, entry: &Entry, next: Option<DateTime<Utc>>) {
        let mut data = skipped(entry, SkipReason::NotDue);
        data.insert("next_run_at".to_owned(), next.map(format_wire).into());
        self.hub.publish_as("scheduler.skipped", data, Replay::LiveOnly);
    }

    /// A schedule does not start a job; told when that begins, and when the reason becomes another one.
    pub(crate) fn held(&self, entry: &Entry, reason: SkipReason) {
        if self.life.told().insert(key(entry), reason) == Some(reason) {
            return;
        }
        let (plugin, schedule_id) = (entry.plugin.as_str(), entry.id.as_str());
        info!(plugin, schedule_id, command = entry.command, reason = reason.as_str(), "schedule skipped");
        self.hub.publish("scheduler.skipped", skipped(entry, reason));
    }

    /// A schedule started a job; says so when that was late, and which slots it stands for as well.
    pub(crate) fn ran(&self, entry: &Entry, ran: &Ran<'_>) {
        let held = self.life.told().remove(&key(entry));
        let Ok(delay) = (ran.at - ran.slot).to_std() else { return };
        // What came while there was no gateway is worth a line in any case.
        let is_late = delay > self.patience;
        if !is_late && (ran.slot >= self.began || delay <= LEAST_DELAY) {
            return;
        }
        let reason = self.reason(held, ran.slot);
        let (plugin, schedule_id) = (entry.plugin.as_str(), entry.id.as_str());
        let slot = format_wire(ran.slot);
        let late_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        info!(plugin, schedule_id, slot, late_ms, reason, job_id = ran.job.as_str(), "schedule ran late");
        if !is_late {
            return;
        }
        self.life.count(plugin, schedule_id, |counts| counts.late += 1);
        let mut data = about(entry, reason);
        data.insert("job_id".to_owned(), ran.job.as_str().into());
        data.insert("slot".to_owned(), slot.into());
        data.insert("late_ms".to_owned(), late_ms.into());
        self.hub.publish("scheduler.slot_late", data);
        let passed = entry.slots_between(ran.slot, ran.at, COUNTED);
        if passed > 0 {
            self.lost(entry, &Lost { first: ran.slot, count: passed, reason, is_wanted: false });
        }
    }

    /// Slots are gone for good.
    pub(crate) fn lost(&self, entry: &Entry, lost: &Lost) {
        let (plugin, schedule_id) = (entry.plugin.as_str(), entry.id.as_str());
        let slot = format_wire(lost.first);
        let Lost { count: slots, reason, .. } = *lost;
        const TEXT: &str = "slots of a schedule passed without a run";
        if lost.is_wanted {
            debug!(plugin, schedule_id, slot, slots, reason, "{TEXT}");
        } else {
            warn!(plugin, schedule_id, slot, slots, reason, "{TEXT}");
        }
        self.life.count(plugin, schedule_id, |counts| counts.dropped += slots);
        let mut data = about(entry, reason);
        data.insert("slot".to_owned(), slot.into());
        data.insert("slots".to_owned(), slots.into());
        self.hub.publish("scheduler.slot_dropped", data);
    }

    /// Why a slot was late.
    fn reason(&self, held: Option<SkipReason>, slot: DateTime<Utc>) -> &'static str {
        held.map_or_else(|| self.absence(slot), SkipReason::as_str)
    }

    /// Why nobody looked at a slot in time.
    pub(crate) fn absence(&self, slot: DateTime<Utc>) -> &'static str {
        match self.jumped {
            _ if slot < self.began => "gateway_down",
            true => "clock_jump",
            false => "delayed",
        }
    }
}

fn key(entry: &Entry) -> (String, String) {
    (entry.plugin.clone(), entry.id.clone())
}

fn about(entry: &Entry, reason: &str) -> Map<String, Value> {
    let parts = [
        ("plugin", entry.plugin.as_str()),
        ("schedule_id", entry.id.as_str()),
        ("command", entry.command.as_str()),
        ("reason", reason),
    ];
    parts.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect()
}

fn skipped(entry: &Entry, reason: SkipReason) -> Map<String, Value> {
    about(entry, reason.as_str())
}
