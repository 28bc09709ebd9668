//! Which runs of an interval were missed.

use chrono::{DateTime, Utc};

use crate::{Entry, Rule};

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
        let unseen = count.saturating_sub(LOOKED_AT);
        let mut newest = Vec::new();
        let (mut first, mut seen) = (None, 0);
        for slot in (unseen + 1..=count).rev().map(|k| interval.slot(base, k)) {
            if self.held_back(slot).is_none() {
                seen += 1;
                first = Some(slot);
                if newest.len() < most {
                    newest.push(slot);
                }
            }
        }
        newest.reverse();
        Some(Missed { first: first?, newest, total: seen + unseen })
    }
}
