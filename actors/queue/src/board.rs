//! The queue in memory: which jobs wait, which lanes are full, when the next delayed one is due.
//!
//! It mirrors the rows `queued` and `running`, so that a claim finds its next job without looking at rows that it
//! must pass over, however many there are. It is true because the writer is the only one who changes rows, and is
//! read anew, under the write lock, when another process did.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use rusqlite::Connection;

use crate::ClaimPolicy;
use crate::rows::{nanos, required_text, text};
use crate::scope::Change;

/// Place in the order of the queue: creation in nanoseconds, then insertion.
type Place = (i64, i64);

#[derive(Debug, Default)]
struct Lane {
    ready: BTreeSet<Place>,
    running: u32,
}

/// The mirror.
#[derive(Debug, Default)]
pub(crate) struct Board {
    lanes: HashMap<Arc<str>, Lane>,
    /// Jobs that wait for a time, by that time.
    delayed: BTreeMap<(i64, i64), (Arc<str>, i64)>,
    /// Places that are taken, those of jobs that were given up included.
    running: u32,
    /// Those of them whose rows are terminal.
    given_up: u32,
    ready: u64,
    /// The latest time that a ready job had waited for.
    promoted: Option<i64>,
    stale: bool,
}

/// The job that comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) rowid: i64,
    pub(crate) plugin: Arc<str>,
    created: i64,
}

impl Board {
    /// Reads the rows. Only those that wait or run are touched, by their index.
    pub(crate) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut board = Self::default();
        let mut queued = connection
            .prepare_cached("SELECT rowid, plugin, created_at, next_retry_at FROM job_queue INDEXED BY job_queue_status_created_at_idx WHERE status = 'queued'")?;
        let mut rows = queued.query([])?;
        while let Some(row) = rows.next()? {
            let plugin = board.lane_name(&required_text(row, 1)?);
            let not_before = text(row, 3)?.filter(|at| !at.trim().is_empty()).map(|at| nanos(&at));
            board.apply(Change::Queued {
                rowid: row.get(0)?,
                plugin,
                created: nanos(&required_text(row, 2)?),
                not_before,
            });
        }
        let mut running = connection
            .prepare_cached("SELECT plugin, count(*) FROM job_queue INDEXED BY job_queue_status_created_at_idx WHERE status = 'running' GROUP BY plugin")?;
        let mut rows = running.query([])?;
        while let Some(row) = rows.next()? {
            let plugin = board.lane_name(&required_text(row, 0)?);
            let count: u32 = row.get(1)?;
            board.lanes.entry(plugin).or_default().running += count;
            board.running += count;
        }
        Ok(board)
    }

    fn lane_name(&self, plugin: &str) -> Arc<str> {
        self.lanes.get_key_value(plugin).map_or_else(|| plugin.into(), |(name, _)| name.clone())
    }

    pub(crate) fn is_stale(&self) -> bool {
        self.stale
    }

    /// What is in memory may no longer be what is in the rows.
    pub(crate) fn mark_stale(&mut self) {
        self.stale = true;
    }

    /// Jobs queued and running.
    pub(crate) fn depth(&self) -> u64 {
        self.ready + self.delayed.len() as u64 + u64::from(self.running - self.given_up)
    }

    /// When the next delayed job is due.
    pub(crate) fn next_due(&self) -> Option<i64> {
        self.delayed.first_key_value().map(|((due, _), _)| *due)
    }

    /// Takes a committed (or about to be committed) change in.
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Queued { rowid, plugin, created, not_before: None } => self.put_ready(plugin, created, rowid),
            Change::Queued { rowid, plugin, created, not_before: Some(due) } => {
                self.delayed.insert((due, rowid), (plugin, created));
            }
            Change::Ended { plugin } => self.end(&plugin),
            Change::Removed { rowid, plugin, created, not_before } => self.remove(&plugin, created, rowid, not_before),
            // Told by the writer, who knows whether there is a process.
            Change::GivenUp { .. } => self.stale = true,
        }
    }

    /// A running job's row became terminal; its place stays taken.
    pub(crate) fn give_up(&mut self) {
        self.given_up += 1;
    }

    /// The process of a job that was given up is gone.
    pub(crate) fn release(&mut self, plugin: &Arc<str>) {
        self.given_up = self.given_up.saturating_sub(1);
        self.end(plugin);
    }

    /// After a reading of the rows: a process without a running row takes a place.
    pub(crate) fn occupy(&mut self, plugin: &Arc<str>) {
        self.lanes.entry(plugin.clone()).or_default().running += 1;
        self.running += 1;
        self.given_up += 1;
    }

    fn remove(&mut self, plugin: &Arc<str>, created: i64, rowid: i64, not_before: Option<i64>) {
        if not_before.is_some_and(|due| self.delayed.remove(&(due, rowid)).is_some()) {
            return;
        }
        let Some(lane) = self.lanes.get_mut(plugin) else {
            self.stale = true;
            return;
        };
        if !lane.ready.remove(&(created, rowid)) {
            self.stale = true;
            return;
        }
        self.ready -= 1;
        if lane.running == 0 && lane.ready.is_empty() {
            self.lanes.remove(plugin);
        }
    }

    fn put_ready(&mut self, plugin: Arc<str>, created: i64, rowid: i64) {
        if self.lanes.entry(plugin).or_default().ready.insert((created, rowid)) {
            self.ready += 1;
        }
    }

    fn end(&mut self, plugin: &Arc<str>) {
        let Some(lane) = self.lanes.get_mut(plugin).filter(|lane| lane.running > 0) else {
            self.stale = true;
            return;
        };
        lane.running -= 1;
        self.running -= 1;
        if lane.running == 0 && lane.ready.is_empty() {
            self.lanes.remove(plugin);
        }
    }

    /// Delayed jobs whose time has come become ready. Where the clock was put back, some that were ready may have to wait
    /// again.
    pub(crate) fn promote(&mut self, now: i64) {
        if self.promoted.is_some_and(|due| now < due) {
            self.stale = true;
        }
        while let Some(entry) = self.delayed.first_entry() {
            let (due, rowid) = *entry.key();
            if due > now {
                break;
            }
            let (plugin, created) = entry.remove();
            self.promoted = self.promoted.max(Some(due));
            self.put_ready(plugin, created, rowid);
        }
    }

    /// The oldest ready job whose lane has room and which is not held back, if a worker is free.
    pub(crate) fn next(&self, policy: &ClaimPolicy, held: &HashSet<i64>) -> Option<Candidate> {
        if self.ready == 0 || self.running >= policy.max_workers {
            return None;
        }
        let heads = self.lanes.iter().filter_map(|(plugin, lane)| {
            let cap = policy.lane_caps.get(&**plugin).copied().unwrap_or(policy.max_workers);
            if lane.running >= cap {
                return None;
            }
            let (created, rowid) = lane.ready.iter().find(|(_, rowid)| !held.contains(rowid))?;
            Some(Candidate { rowid: *rowid, plugin: plugin.clone(), created: *created })
        });
        heads.min_by_key(|candidate| (candidate.created, candidate.rowid))
    }

    /// The candidate's row is running now.
    pub(crate) fn start(&mut self, candidate: &Candidate) {
        let lane = self.lanes.entry(candidate.plugin.clone()).or_default();
        if lane.ready.remove(&(candidate.created, candidate.rowid)) {
            self.ready -= 1;
        }
        lane.running += 1;
        self.running += 1;
    }
}

/// All that a board says, to be compared.
#[cfg(test)]
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    lanes: BTreeMap<String, (BTreeSet<Place>, u32)>,
    delayed: BTreeMap<(i64, i64), (Arc<str>, i64)>,
    running: u32,
    given_up: u32,
    ready: u64,
}

#[cfg(test)]
impl Board {
    pub(crate) fn contents(&self) -> Contents {
        let lane = |(name, lane): (&Arc<str>, &Lane)| (name.to_string(), (lane.ready.clone(), lane.running));
        Contents {
            lanes: self.lanes.iter().map(lane).collect(),
            delayed: self.delayed.clone(),
            running: self.running,
            given_up: self.given_up,
            ready: self.ready,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queued(rowid: i64, plugin: &str, created: i64, not_before: Option<i64>) -> Change {
        Change::Queued { rowid, plugin: plugin.into(), created, not_before }
    }

    fn policy(max_workers: u32, caps: &[(&str, u32)]) -> ClaimPolicy {
        let lane_caps = caps.iter().map(|(name, cap)| ((*name).to_owned(), *cap)).collect();
        ClaimPolicy { max_workers, lane_caps, ..ClaimPolicy::default() }
    }

    fn claim_all(board: &mut Board, policy: &ClaimPolicy) -> Vec<i64> {
        let mut claimed = Vec::new();
        while let Some(candidate) = board.next(policy, &HashSet::new()) {
            board.start(&candidate);
            claimed.push(candidate.rowid);
        }
        claimed
    }

    #[test]
    fn jobs_leave_in_the_order_of_creation_then_insertion_over_all_lanes() {
        let mut board = Board::default();
        for change in [queued(1, "a", 30, None), queued(2, "b", 10, None), queued(3, "a", 10, None)] {
            board.apply(change);
        }
        assert_eq!(claim_all(&mut board, &policy(9, &[])), [2, 3, 1]);
        assert_eq!(board.depth(), 3);
    }

    #[test]
    fn a_full_lane_is_passed_over_and_does_not_block_younger_jobs_of_others() {
        let mut board = Board::default();
        for change in [queued(1, "a", 1, None), queued(2, "a", 2, None), queued(3, "b", 3, None)] {
            board.apply(change);
        }
        let policy = policy(9, &[("a", 1)]);
        assert_eq!(claim_all(&mut board, &policy), [1, 3]);
        board.apply(Change::Ended { plugin: "a".into() });
        assert_eq!(claim_all(&mut board, &policy), [2]);
    }

    #[test]
    fn workers_bound_all_lanes_together() {
        let mut board = Board::default();
        (1..=5).for_each(|n| board.apply(queued(n, "a", n, None)));
        assert_eq!(claim_all(&mut board, &policy(2, &[])), [1, 2]);
    }

    #[test]
    fn delayed_jobs_wait_for_their_time_and_then_keep_their_old_place() {
        let mut board = Board::default();
        board.apply(queued(1, "a", 1, Some(100)));
        board.apply(queued(2, "a", 2, None));
        assert_eq!(board.next_due(), Some(100));
        board.promote(99);
        assert_eq!(board.next(&policy(9, &[]), &HashSet::new()).map(|c| c.rowid), Some(2));
        board.promote(100);
        assert_eq!(claim_all(&mut board, &policy(9, &[])), [1, 2]);
    }

    #[test]
    fn a_clock_that_is_put_back_before_what_was_due_asks_for_a_new_reading() {
        let mut board = Board::default();
        board.apply(queued(1, "a", 1, Some(100)));
        board.promote(100);
        board.promote(100);
        assert!(!board.is_stale());
        board.promote(99);
        assert!(board.is_stale());
    }

    #[test]
    fn an_end_that_no_start_belongs_to_asks_for_a_new_reading() {
        let mut board = Board::default();
        board.apply(Change::Ended { plugin: "a".into() });
        assert!(board.is_stale());
    }
}
