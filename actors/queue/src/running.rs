//! The attempts that this process runs. A job that was given up keeps its worker, its place in the lane and its key
//! here until its process is gone, although its row is terminal.

use std::collections::HashMap;
use std::sync::Arc;

use ductile_model::{Cancellation, JobId};

use crate::ClaimedJob;

#[derive(Debug)]
struct Attempt {
    number: u32,
    plugin: Arc<str>,
    command: String,
    dedupe_key: Option<String>,
    cancellation: Cancellation,
}

#[derive(Debug, Default)]
pub(crate) struct RunningAttempts {
    attempts: HashMap<JobId, Attempt>,
    /// Those whose rows are terminal. Nearly always none.
    given_up: HashMap<JobId, Attempt>,
}

impl RunningAttempts {
    /// A committed claim is about to be handed out.
    pub(crate) fn begin(&mut self, job: &ClaimedJob) {
        let attempt = Attempt {
            number: job.attempt,
            plugin: job.plugin.as_str().into(),
            command: job.command.clone(),
            dedupe_key: job.dedupe_key.clone(),
            cancellation: job.cancellation.clone(),
        };
        self.attempts.insert(job.id.clone(), attempt);
    }

    pub(crate) fn contains(&self, job: &JobId) -> bool {
        self.attempts.contains_key(job)
    }

    /// Its cancellation is committed: its process is told to end.
    pub(crate) fn give_up(&mut self, job: JobId) {
        if let Some(attempt) = self.attempts.remove(&job) {
            attempt.cancellation.cancel();
            self.given_up.insert(job, attempt);
        }
    }

    /// Nobody runs this attempt any more. The lane that becomes free, when its row had been given up. Another attempt of
    /// the job may be under way by now: that one stays.
    pub(crate) fn release(&mut self, job: &JobId, number: u32) -> Option<Arc<str>> {
        remove(&mut self.attempts, job, number);
        remove(&mut self.given_up, job, number).map(|attempt| attempt.plugin)
    }

    /// Lanes of attempts that hold a place without a running row.
    pub(crate) fn given_up_lanes(&self, just_now: &[JobId]) -> impl Iterator<Item = &Arc<str>> {
        self.given_up(just_now).map(|attempt| &attempt.plugin)
    }

    /// Whether the process of a job that was given up, or is just being given up, holds this key for this target.
    pub(crate) fn holds(&self, just_now: &[JobId], key: &str, plugin: &str, command: &str) -> bool {
        self.given_up(just_now).any(|attempt| {
            attempt.dedupe_key.as_deref() == Some(key) && &*attempt.plugin == plugin && attempt.command == command
        })
    }

    /// Attempts of jobs that were given up, or are just being given up.
    fn given_up(&self, just_now: &[JobId]) -> impl Iterator<Item = &Attempt> {
        self.given_up.values().chain(just_now.iter().filter_map(|job| self.attempts.get(job)))
    }
}

fn remove(attempts: &mut HashMap<JobId, Attempt>, job: &JobId, number: u32) -> Option<Attempt> {
    if attempts.get(job)?.number == number { attempts.remove(job) } else { None }
}
