//! What outlives the actor and its generations.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use ductile_model::SlotCounts;
use ductile_queue::SkipReason;

/// A loop that has not ended a tick for so many intervals is taken for dead.
const INTERVALS_OF_PATIENCE: u32 = 3;

/// What outlives the actor and its generations: signs of life, counts, and what has been done once. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SchedulerLife(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// A round of housekeeping is under way.
    housekeeping: AtomicBool,
    beat: Mutex<Option<Beat>>,
    last_tick: Mutex<Option<Tick>>,
    /// Every schedule has been asked what it has to make up for, since the start or the last jump of the clock.
    caught_up: AtomicBool,
    /// When the first loop of the process began.
    began: Mutex<Option<DateTime<Utc>>>,
    /// What was told last of schedules that are held back, by plugin and schedule.
    told: Mutex<HashMap<(String, String), SkipReason>>,
    counts: Mutex<BTreeMap<(String, String), SlotCounts>>,
}

/// The last tick, by the wall clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tick {
    pub(crate) at: DateTime<Utc>,
    pub(crate) interval: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Beat {
    at: Instant,
    interval: Duration,
}

impl SchedulerLife {
    /// Whether the loop ended a tick lately. True as long as none has begun.
    #[must_use]
    pub fn is_alive(&self, now: Instant) -> bool {
        let beat = *lock(&self.0.beat);
        beat.is_none_or(|beat| now.saturating_duration_since(beat.at) <= beat.interval * INTERVALS_OF_PATIENCE)
    }

    /// Late and dropped slots by plugin and schedule; one without any is not there.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<(String, String), SlotCounts> {
        lock(&self.0.counts).clone()
    }

    pub(crate) fn beat(&self, interval: Duration) {
        *lock(&self.0.beat) = Some(Beat { at: Instant::now(), interval });
    }

    pub(crate) fn count(&self, plugin: &str, schedule: &str, add: impl FnOnce(&mut SlotCounts)) {
        add(lock(&self.0.counts).entry((plugin.to_owned(), schedule.to_owned())).or_default());
    }

    /// The tick before, `None` before the first of the process.
    pub(crate) fn last_tick(&self) -> Option<Tick> {
        *lock(&self.0.last_tick)
    }

    pub(crate) fn ticked(&self, tick: Tick) {
        *lock(&self.0.last_tick) = Some(tick);
    }

    /// Whether schedules are still to be asked what they have to make up for.
    pub(crate) fn owes_catch_up(&self) -> bool {
        !self.0.caught_up.load(Ordering::Acquire)
    }

    pub(crate) fn set_owes_catch_up(&self, owes: bool) {
        self.0.caught_up.store(!owes, Ordering::Release);
    }

    /// When the first loop of the process began: `now`, if this is it.
    pub(crate) fn began(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        *lock(&self.0.began).get_or_insert(now)
    }

    /// What was told last of schedules that are held back.
    pub(crate) fn told(&self) -> MutexGuard<'_, HashMap<(String, String), SkipReason>> {
        lock(&self.0.told)
    }

    /// Begins a round of housekeeping, unless one is under way.
    pub(crate) fn begin_housekeeping(&self) -> Option<Housekeeping> {
        let busy = self.0.housekeeping.swap(true, Ordering::AcqRel);
        (!busy).then(|| Housekeeping(self.clone()))
    }
}

/// A round of housekeeping: over when this is dropped, whatever became of it.
pub(crate) struct Housekeeping(SchedulerLife);

impl Drop for Housekeeping {
    fn drop(&mut self) {
        self.0.0.housekeeping.store(false, Ordering::Release);
    }
}

/// No code under these locks can panic half-way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
