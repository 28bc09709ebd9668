//! The way of an attempt's outcome into the database: kept and tried again until it is stored.
//!
//! An outcome belongs to the process, not to a generation: it goes straight to the writer, so that no restart and no
//! reload stands in its way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::{error, warn};

use crate::finalise::PreparedOutcome;
use crate::open::BUSY_TIMEOUT;
use crate::scope::Scope;
use crate::{AttemptOutcome, Finalise, Finalised, QueueError, Store, stopwatch};

/// How long an outcome is kept that the database can not take.
const OUTCOME_KEPT: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Store {
    /// Stores the outcome of an attempt: `Ok` means committed. Keeps trying through a database that can not take the
    /// write, for up to a minute; then [`Store::failed`] resolves.
    ///
    /// # Errors
    /// It could not be stored; the process is about to end and recovery takes over.
    pub async fn finalise(&self, outcome: Finalise) -> Result<Finalised, QueueError> {
        self.finalise_within(OUTCOME_KEPT, outcome).await
    }

    /// As [`Store::finalise`], with another limit.
    pub(crate) async fn finalise_within(&self, kept: Duration, outcome: Finalise) -> Result<Finalised, QueueError> {
        let prepared = Arc::new(PreparedOutcome::new(outcome));
        let outcome = prepared.outcome();
        self.submit_stopwatch(outcome.clone());
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let (reply, answer) = oneshot::channel();
            self.submit_finalise(prepared.clone(), move |stored| drop(reply.send(stored)));
            let error = match answer.await.unwrap_or(Err(QueueError::Unavailable)) {
                Ok(finalised) => return Ok(finalised),
                Err(error) => error,
            };
            // The same again can only end the same way.
            let hopeless = matches!(error, QueueError::Invalid { .. });
            if hopeless || begun.elapsed() >= kept {
                self.give_up(&outcome, &error, begun.elapsed());
                return Err(error);
            }
            warn!(
                job_id = outcome.job.as_str(),
                attempt = outcome.attempt,
                %error,
                pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                "the outcome of an attempt could not be stored; it is kept and tried again"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// On its way before the outcome, as an operation of its own: losing it must not cost the outcome.
    fn submit_stopwatch(&self, outcome: Arc<Finalise>) {
        if outcome.stopwatch.is_none() {
            return;
        }
        let (job, attempt) = (outcome.job.clone(), outcome.attempt);
        let work = move |scope: &Scope<'_>| match &outcome.stopwatch {
            Some(watch) => stopwatch::record(scope, &outcome.job, outcome.attempt, watch),
            None => Ok(()),
        };
        self.submit(BUSY_TIMEOUT, work, move |recorded: Result<(), QueueError>| {
            if let Err(error) = recorded {
                warn!(job_id = job.as_str(), attempt, %error, "the timing of an attempt could not be stored");
            }
        });
    }

    fn give_up(&self, outcome: &Finalise, cause: &QueueError, tried_for: Duration) {
        let (status, text) = match &outcome.outcome {
            AttemptOutcome::Succeeded { .. } => ("succeeded", None),
            AttemptOutcome::Skipped { reason } => ("skipped", Some(reason.as_str())),
            AttemptOutcome::Failed { error, .. } => ("failed", Some(error.as_str())),
            AttemptOutcome::Interrupted(_) => ("interrupted", None),
        };
        error!(
            job_id = outcome.job.as_str(),
            attempt = outcome.attempt,
            status,
            attempt_error = text,
            tried_s = tried_for.as_secs(),
            error = %cause,
            "the outcome of an attempt could not be stored; the process ends and recovery takes over"
        );
        self.fail(format!("the outcome of job {} could not be stored: {cause}", outcome.job));
    }
}
