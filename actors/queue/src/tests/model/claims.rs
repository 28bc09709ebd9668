//! Claims as the model makes them: the writer must make the same, in the same order, and no fewer.

use super::row::{Row, at};
use super::steps::How;
use super::world::World;
use super::*;

impl World {
    /// Lets the writer claim what there is: each claim must be the one that the model makes next, and none may be
    /// missing.
    pub(super) async fn settle(&mut self) {
        for _ in 0..2 {
            self.site.store.write(|_| Ok(())).await.unwrap();
        }
        // Hands out after the answer: one more round trip and everything is in the channel.
        let (reply, flushed) = tokio::sync::oneshot::channel();
        self.site.store.flush(move || assert_eq!(reply.send(()), Ok(())));
        flushed.await.unwrap();
        while let Ok(claimed) = self.claims.try_recv() {
            let next = self.next_claim().unwrap_or_else(|| panic!("{claimed:?} must not run now"));
            assert_eq!(claimed.id.as_str(), self.jobs[next].row.id, "the oldest that can run comes first");
            self.claimed(next, claimed);
        }
        if let Some(index) = self.next_claim() {
            panic!("{:?} could run and was not claimed", self.jobs[index].row);
        }
    }

    /// The oldest of the jobs that may run now.
    fn next_claim(&self) -> Option<usize> {
        let now = self.site.clock.now();
        if self.processes.len() >= self.policy.max_workers as usize {
            return None;
        }
        let can_run = |row: &Row| {
            let cap = self.policy.lane_caps.get(&row.plugin).copied().unwrap_or(self.policy.max_workers);
            let lane = self.processes.iter().filter(|process| process.plugin == row.plugin).count();
            let held = |process: &ClaimedJob| {
                row.key.is_some()
                    && (&process.dedupe_key, &process.plugin, &process.command) == (&row.key, &row.plugin, &row.command)
            };
            row.status == JobStatus::Queued
                && row.is_due(now)
                && lane < cap as usize
                && !self.processes.iter().any(held)
        };
        let able = (0..self.jobs.len()).filter(|index| can_run(&self.jobs[*index].row));
        able.min_by_key(|index| at(&self.jobs[*index].row.created))
    }

    fn claimed(&mut self, index: usize, claimed: ClaimedJob) {
        let now = self.site.clock.now();
        let job = &mut self.jobs[index];
        job.row.status = JobStatus::Running;
        job.row.started = Some(format_db(now));
        job.row.started_under.clone_from(&self.snapshot);
        job.row.due = None;
        job.claims += 1;
        job.moves.push((JobStatus::Running, None));
        assert_eq!((claimed.attempt, claimed.started_at), (job.row.attempt, now));
        assert_eq!(claimed.dedupe_key, job.row.key);
        self.processes.push(claimed);
    }

    /// Finishes whatever there is: nothing may be stuck, and each turn must bring one attempt to its end, once the
    /// delayed ones are due.
    pub(super) async fn run_dry(&mut self) {
        self.site.advance(7200);
        self.settle().await;
        let turns = self.processes.len() + self.depth();
        for _ in 0..turns {
            let Some(job) = self.processes.pop() else { break };
            self.finish(job, How::Succeed).await;
            self.settle().await;
        }
        assert_eq!((self.processes.len(), self.depth()), (0, 0), "jobs are stuck: {:#?}", self.jobs);
    }
}
