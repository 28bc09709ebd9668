//! The scheduler room of a generation: what is to be done at a time.
//!
//! **Owns** the tick, which drives the housekeeping of the database. Schedules come with their feature.
//!
//! **Promises.** An active generation lets go of old rows once per `service.tick_interval`; one that is in standby or
//! drained does nothing. Rounds never overlap.
//!
//! **When it dies** it is restarted and ticks on; nothing is to be restored.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ductile_config::{Config, Plan};
use ductile_model::{Clock, Lifecycle};
use ductile_queue::{QueueError, Retention, Store};
use ractor::{Actor, ActorProcessingErr, ActorRef};

/// Messages of the [`SchedulerActor`].
pub enum SchedulerMsg {
    /// The tick interval has passed.
    Tick,
    /// Activate, drain, crash.
    Lifecycle(Lifecycle),
}

impl From<Lifecycle> for SchedulerMsg {
    fn from(message: Lifecycle) -> Self {
        Self::Lifecycle(message)
    }
}

/// What the actor starts, and starts again, with.
#[derive(Clone)]
pub struct SchedulerArgs {
    /// The plan of the generation.
    pub plan: Arc<Plan>,
    /// The database that is kept in order.
    pub store: Store,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Set while a round of housekeeping is under way: one for all incarnations of the actor, and all generations.
    pub housekeeping: Arc<AtomicBool>,
}

/// Whether the generation serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Standby,
    Ticking,
    Drained,
}

/// Ticks while its generation is active.
pub struct SchedulerActor;

/// State of the [`SchedulerActor`].
pub struct SchedulerState {
    args: SchedulerArgs,
    stage: Stage,
}

impl SchedulerState {
    fn tick_later(&self, myself: &ActorRef<SchedulerMsg>) {
        drop(myself.send_after(self.args.plan.config.service.tick_interval, || SchedulerMsg::Tick));
    }

    /// One round, outside the actor, which goes on listening. Skipped while the one before is under way.
    fn keep_house(&self) {
        if self.args.housekeeping.swap(true, Ordering::AcqRel) {
            return;
        }
        let SchedulerArgs { plan, store, clock, housekeeping } = self.args.clone();
        tokio::spawn(async move {
            let _done = Done(housekeeping);
            let service = &plan.config.service;
            store.prune(retention(&plan.config)).await;
            match store.run_janitor(clock.now(), service.job_log_retention).await {
                // The process is about to end.
                Ok(_) | Err(QueueError::Unavailable) => {}
                Err(error) => tracing::warn!(%error, "timings could not be summed up; tried again later"),
            }
        });
    }
}

/// Marks a round as over, whatever becomes of it.
struct Done(Arc<AtomicBool>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn retention(config: &Config) -> Retention {
    let service = &config.service;
    Retention {
        job_queue: service.job_queue_retention,
        dedupe_ttl: service.dedupe_ttl,
        job_log: service.job_log_retention,
        job_transitions: service.job_transitions_retention,
        job_attempts: service.job_attempts_retention,
        breaker_transitions: service.breaker_transitions_retention,
    }
}

impl Actor for SchedulerActor {
    type Msg = SchedulerMsg;
    type State = SchedulerState;
    type Arguments = SchedulerArgs;

    async fn pre_start(
        &self,
        _: ActorRef<SchedulerMsg>,
        args: SchedulerArgs,
    ) -> Result<SchedulerState, ActorProcessingErr> {
        Ok(SchedulerState { args, stage: Stage::Standby })
    }

    async fn handle(
        &self,
        myself: ActorRef<SchedulerMsg>,
        message: SchedulerMsg,
        state: &mut SchedulerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SchedulerMsg::Tick if state.stage == Stage::Ticking => {
                state.keep_house();
                state.tick_later(&myself);
            }
            SchedulerMsg::Tick => {}
            SchedulerMsg::Lifecycle(Lifecycle::Activate) => {
                if state.stage == Stage::Standby {
                    state.stage = Stage::Ticking;
                    state.tick_later(&myself);
                }
            }
            SchedulerMsg::Lifecycle(Lifecycle::Drain(reply)) => {
                state.stage = Stage::Drained;
                drop(reply.send(()));
            }
            SchedulerMsg::Lifecycle(Lifecycle::Crash) => panic!("crash asked for by a test"),
        }
        Ok(())
    }
}
