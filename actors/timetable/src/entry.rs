//! One schedule of a plugin.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Datelike, Utc};
use ductile_model::{format_duration, format_wire};

use crate::{Cron, Interval, Weekdays, Window, Zone, later};

/// When a schedule is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Some time after the last run.
    Every(Interval),
    /// At minutes of local time.
    Cron(Cron),
    /// Once, at an instant.
    At(DateTime<Utc>),
    /// Once, so long after it was first seen.
    After(Duration),
}

/// What happens when jobs of the same command still wait or run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// It is not started.
    Skip,
    /// It is queued behind them, while there are fewer than this.
    Queue {
        /// Jobs that may wait and run.
        limit: u32,
    },
    /// Those of the scheduler are given up for it.
    Cancel,
}

/// What is made up for after a time without the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUp {
    /// Nothing.
    Skip,
    /// One run for all that was missed.
    RunOnce,
    /// Each run that was missed.
    RunAll,
}

/// Why a due schedule has to wait by its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldBack {
    /// The day is one of `not_on`.
    Day,
    /// The time is outside `only_between`.
    Window,
}

/// One schedule of a plugin, checked.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Configured plugin name or alias.
    pub plugin: String,
    /// Unique within the plugin.
    pub id: String,
    /// What is run.
    pub command: String,
    /// Payload of its jobs, JSON text.
    pub payload: Arc<str>,
    /// Attempts of its jobs in all.
    pub max_attempts: u32,
    /// When it is due.
    pub rule: Rule,
    /// Zone of its cron expression, window and days.
    pub zone: Zone,
    /// Part of the day in which it may run.
    pub only_between: Option<Window>,
    /// Days on which it does not run.
    pub not_on: Weekdays,
    /// What happens when it is still running.
    pub if_running: Overlap,
    /// What is made up for.
    pub catch_up: CatchUp,
}

impl Entry {
    /// The configured key that says when it is due.
    #[must_use]
    pub fn mode(&self) -> &'static str {
        match self.rule {
            Rule::Every(_) => "every",
            Rule::Cron(_) => "cron",
            Rule::At(_) => "at",
            Rule::After(_) => "after",
        }
    }

    /// When it is due, as text.
    #[must_use]
    pub fn expression(&self) -> String {
        match &self.rule {
            Rule::Every(interval) => format_duration(interval.every),
            Rule::Cron(cron) => cron.to_string(),
            Rule::At(at) => format_wire(*at),
            Rule::After(delay) => format_duration(*delay),
        }
    }

    /// What makes it the same schedule as before: a change of it starts the entry anew. The zone counts where it moves
    /// the times, so that one-shots never fire again for a change of it.
    #[must_use]
    pub fn definition(&self) -> String {
        match self.rule {
            Rule::Cron(_) => format!("{} {} tz={}", self.mode(), self.expression(), self.zone),
            Rule::Every(_) | Rule::At(_) | Rule::After(_) => format!("{} {}", self.mode(), self.expression()),
        }
    }

    /// The key of its jobs.
    #[must_use]
    pub fn dedupe_key(&self) -> String {
        format!("{}:{}:{}", self.plugin, self.command, self.id)
    }

    /// Whether it fires only once.
    #[must_use]
    pub fn is_one_shot(&self) -> bool {
        matches!(self.rule, Rule::At(_) | Rule::After(_))
    }

    /// When it is due for the first time, first seen `now`.
    #[must_use]
    pub fn first_due(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match &self.rule {
            Rule::Every(interval) => Some(interval.settle(now)),
            Rule::Cron(cron) => {
                let minute = now.timestamp().div_euclid(60) * 60;
                cron.next_from(DateTime::from_timestamp(minute, 0)?, &self.zone)
            }
            Rule::At(at) => Some(*at),
            Rule::After(delay) => Some(later(now, *delay)),
        }
    }

    /// When it is due again after it fired, or passed a slot over, at `now`. `chance` is uniform in `[0, 1]`.
    #[must_use]
    pub fn next_due(&self, now: DateTime<Utc>, chance: f64) -> Option<DateTime<Utc>> {
        match &self.rule {
            Rule::Every(interval) => Some(interval.after(now, chance)),
            Rule::Cron(cron) => cron.next_after(now, &self.zone),
            Rule::At(_) | Rule::After(_) => None,
        }
    }

    /// When it is due after its definition was changed; `last` is the later of its last firing and success.
    #[must_use]
    pub fn due_after_change(&self, now: DateTime<Utc>, last: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
        match &self.rule {
            Rule::Every(interval) => {
                let due = last.map_or(now, |last| later(last, interval.every).max(now));
                Some(interval.settle(due))
            }
            Rule::Cron(cron) => cron.next_after(now, &self.zone),
            Rule::At(_) | Rule::After(_) => self.first_due(now),
        }
    }

    /// Why it may not run at an instant by its own words.
    #[must_use]
    pub fn held_back(&self, at: DateTime<Utc>) -> Option<HeldBack> {
        if self.not_on.is_empty() && self.only_between.is_none() {
            return None;
        }
        let wall = self.zone.wall(at);
        if self.not_on.contains(wall.weekday()) {
            return Some(HeldBack::Day);
        }
        self.only_between.filter(|window| !window.contains(wall.time())).map(|_| HeldBack::Window)
    }

    /// Slots of a cron expression after one instant and up to another, at most `most`; other modes have none that can be
    /// passed over.
    #[must_use]
    pub fn slots_between(&self, after: DateTime<Utc>, until: DateTime<Utc>, most: u64) -> u64 {
        let Rule::Cron(cron) = &self.rule else { return 0 };
        let slots =
            std::iter::successors(cron.next_after(after, &self.zone), |slot| cron.next_after(*slot, &self.zone));
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        slots.take_while(|slot| *slot <= until).take(most).count() as u64
    }
}
