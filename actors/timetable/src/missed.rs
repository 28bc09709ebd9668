//! Which runs of an interval were missed.

use chrono::{DateTime, Utc};

use crate::{Entry, Interval, Rule};

/// Slots that are looked at one by one: a year of every minute.
const LOOKED_AT: u64 = 366 * 24 * 60;

/// Runs that did not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    /// The oldest.
    pub first: DateTime<Utc>,
    /// The newest of them, oldest first.
    pub newest: Vec<DateTime<Utc>>,
    /// All of them. Those beyond what is looked at one by one are counted whatever window they fall into.
    pub total: u64,
}

impl Entry {
    /// Runs that were due after `base` and up to `now`, without those of excluded days and times; at most `most` of them
    /// are named. `None`: none was missed, or it is no interval.
    #[must_use]
    pub fn missed(&self, base: DateTime<Utc>, now: DateTime<Utc>, most: usize) -> Option<Missed> {
        let Rule::Every(interval) = &self.rule else { return None };
        let count = interval.count(base, now);
        let unseen = if self.is_limited() { count.saturating_sub(LOOKED_AT) } else { count };
        let first = self.first_missed(interval, base, now)?;
        let mut seen = 0;
        for slot in (unseen + 1..=count).map(|k| interval.slot(base, k)) {
            seen += u64::from(self.held_back(slot).is_none());
        }
        let slots =
            (1..=count).rev().map(|k| interval.slot(base, k)).take(usize::try_from(LOOKED_AT).unwrap_or(usize::MAX));
        let mut newest: Vec<_> = slots.filter(|slot| self.held_back(*slot).is_none()).take(most).collect();
        newest.reverse();
        Some(Missed { first, newest, total: seen + unseen })
    }

    fn is_limited(&self) -> bool {
        self.only_between.is_some() || !self.not_on.is_empty()
    }

    /// The oldest run that was missed: whole excluded stretches are left at once.
    fn first_missed(&self, interval: &Interval, base: DateTime<Utc>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut k = 1;
        loop {
            let slot = interval.slot(base, k);
            if slot > now {
                return None;
            }
            if self.held_back(slot).is_none() {
                return Some(slot);
            }
            k = interval.count(base, self.allowed_from(slot)?).max(k) + 1;
            // The stretch may end on a slot.
            if interval.slot(base, k - 1) > slot && self.held_back(interval.slot(base, k - 1)).is_none() {
                k -= 1;
            }
        }
    }
}
