use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::{Clock, format_wire};

/// Records kept for those who come back.
pub const RING_CAPACITY: usize = 256;
/// Records a subscriber may lag behind before it is cut off.
pub const SUBSCRIBER_BUFFER: usize = 128;

/// One event, as published.
#[derive(Debug, Clone)]
pub struct EventRecord {
    /// From 1, by 1, in publishing order; starts again with the process.
    pub id: u64,
    /// Dotted type, such as `job.completed`.
    pub kind: &'static str,
    /// When it was published.
    pub at: DateTime<Utc>,
    /// The data, with `at` as text in it.
    pub data: Arc<Map<String, Value>>,
}

/// Whether a record is kept for replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// Kept in the ring.
    Kept,
    /// For live subscribers only: it comes too often to be kept.
    LiveOnly,
}

/// The process-wide, in-memory stream of what happens. Publishing never blocks, never fails, and never affects a
/// job; a subscriber that does not keep up is cut off. Cheap to clone.
#[derive(Clone)]
pub struct EventHub {
    inner: Arc<Mutex<Inner>>,
    clock: Arc<dyn Clock>,
}

struct Inner {
    next_id: u64,
    ring: VecDeque<EventRecord>,
    subscribers: Vec<mpsc::Sender<EventRecord>>,
}

/// What a new subscriber gets: the kept records after the one it named, then live ones without gap or repetition.
pub struct Subscription {
    /// Kept records with a greater id, oldest first.
    pub backlog: Vec<EventRecord>,
    /// Id of the oldest record still kept, when any is.
    pub oldest: Option<u64>,
    /// Live records. Ends when the subscriber fell too far behind.
    pub live: mpsc::Receiver<EventRecord>,
}

impl EventHub {
    /// An empty hub.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let inner = Inner { next_id: 1, ring: VecDeque::with_capacity(RING_CAPACITY), subscribers: Vec::new() };
        Self { inner: Arc::new(Mutex::new(inner)), clock }
    }

    /// Publishes an event. `data` gets the key `at`.
    pub fn publish(&self, kind: &'static str, data: Map<String, Value>) {
        self.publish_as(kind, data, Replay::Kept);
    }

    /// Publishes an event and says whether it is kept for replay.
    pub fn publish_as(&self, kind: &'static str, mut data: Map<String, Value>, replay: Replay) {
        let at = self.clock.now();
        data.insert("at".to_owned(), Value::String(format_wire(at)));
        let data = Arc::new(data);
        // The id is assigned under the same lock as the insert, so order and ids agree for everybody.
        let mut inner = self.lock();
        let record = EventRecord { id: inner.next_id, kind, at, data };
        inner.next_id += 1;
        inner.subscribers.retain(|subscriber| subscriber.try_send(record.clone()).is_ok());
        if replay == Replay::Kept {
            if inner.ring.len() == RING_CAPACITY {
                inner.ring.pop_front();
            }
            inner.ring.push_back(record);
        }
    }

    /// Whether anybody listens: what is only for live subscribers need not be made for nobody.
    #[must_use]
    pub fn has_subscribers(&self) -> bool {
        !self.lock().subscribers.is_empty()
    }

    /// Subscribes after record `after` (0 = the whole ring).
    #[must_use]
    pub fn subscribe(&self, after: u64) -> Subscription {
        let (sender, live) = mpsc::channel(SUBSCRIBER_BUFFER);
        let mut inner = self.lock();
        let backlog = inner.ring.iter().filter(|record| record.id > after).cloned().collect();
        let oldest = inner.ring.front().map(|record| record.id);
        inner.subscribers.push(sender);
        Subscription { backlog, oldest, live }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code under this lock can panic half-way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemClock;

    fn hub() -> EventHub {
        EventHub::new(Arc::new(SystemClock))
    }

    #[test]
    fn the_ring_keeps_the_newest_records_and_replays_them_in_order() {
        let hub = hub();
        for _ in 0..RING_CAPACITY + 10 {
            hub.publish("job.started", Map::new());
        }
        let subscription = hub.subscribe(0);
        let ids: Vec<_> = subscription.backlog.iter().map(|record| record.id).collect();
        assert_eq!(ids, (11..=266).collect::<Vec<_>>());
        assert_eq!(subscription.oldest, Some(11));
        assert_eq!(hub.subscribe(260).backlog.len(), 6);
    }

    #[test]
    fn live_only_records_reach_subscribers_but_not_the_ring() {
        let hub = hub();
        let mut subscription = hub.subscribe(0);
        hub.publish_as("scheduler.tick", Map::new(), Replay::LiveOnly);
        assert_eq!(subscription.live.try_recv().map(|record| record.kind), Ok("scheduler.tick"));
        assert!(hub.subscribe(0).backlog.is_empty());
    }

    #[test]
    fn a_subscriber_that_never_reads_is_cut_off_and_others_are_not() {
        let hub = hub();
        let mut deaf = hub.subscribe(0);
        let mut awake = hub.subscribe(0);
        let mut seen = Vec::new();
        for _ in 0..SUBSCRIBER_BUFFER * 3 {
            hub.publish("job.started", Map::new());
            while let Ok(record) = awake.live.try_recv() {
                seen.push(record.id);
            }
        }
        assert_eq!(seen, (1..=384).collect::<Vec<_>>());
        let mut buffered = 0;
        while deaf.live.try_recv().is_ok() {
            buffered += 1;
        }
        assert_eq!(buffered, SUBSCRIBER_BUFFER);
        assert!(deaf.live.is_closed());
    }
}
