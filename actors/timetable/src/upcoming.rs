//! The coming runs of a schedule, as far as they can be told without chance and without what runs.

use chrono::{DateTime, Days, Utc};

use crate::{Cron, Entry, HeldBack, Rule, later};

/// Steps from one excluded time to the next before a search is given up: some years of days.
const STEPS: usize = 2_000;
/// How far ahead a slot is looked for that falls on no excluded time: longer than any two dates of the calendar that are alike
/// are apart.
const LOOKED_AHEAD: Days = Days::new(365 * 41);

impl Entry {
    /// The coming runs, the first of them not before `due`: each when it is due and neither its days nor its window
    /// forbid it.
    pub fn upcoming(&self, due: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> + '_ {
        std::iter::successors(self.run_from(due), |run| match &self.rule {
            Rule::Every(interval) => self.run_from(interval.settle(later(*run, interval.every))),
            Rule::Cron(cron) => self.run_from(cron.next_after(*run, &self.zone)?),
            Rule::At(_) | Rule::After(_) => None,
        })
    }

    /// The first run of what is due from an instant on.
    fn run_from(&self, due: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match &self.rule {
            // A slot that falls on an excluded time is passed over.
            Rule::Cron(cron) => self.slot_from(cron, due),
            // Others wait for the excluded time to end.
            Rule::Every(_) | Rule::At(_) | Rule::After(_) => self.allowed_from(due),
        }
    }

    /// The first slot that falls on no excluded time. A whole excluded stretch is left at once: slots may be a minute apart.
    fn slot_from(&self, cron: &Cron, due: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let last = due.checked_add_days(LOOKED_AHEAD)?;
        let mut slot = cron.next_from(due, &self.zone)?;
        while self.held_back(slot).is_some() {
            slot = cron.next_from(self.allowed_from(slot)?, &self.zone).filter(|slot| *slot <= last)?;
        }
        Some(slot)
    }

    /// The first instant from `at` on that neither days nor window forbid. `None`: there is none for years.
    #[must_use]
    pub fn allowed_from(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut at = at;
        for _ in 0..STEPS {
            at = match self.held_back(at) {
                None => return Some(at),
                Some(HeldBack::Day) => self.zone.start_of(self.zone.wall(at).date().checked_add_days(Days::new(1))?),
                Some(HeldBack::Window) => self.only_between?.next_open(at, &self.zone),
            };
        }
        None
    }
}
