//! The shell around the loop: starts it, stops it at the end of a round, and dies with it.

use std::sync::Arc;

use ductile_config::Plan;
use ductile_model::{Clock, EventHub, Lifecycle};
use ductile_queue::Store;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::SchedulerLife;
use crate::rounds::Rounds;

/// Messages of the [`SchedulerActor`].
pub enum SchedulerMsg {
    /// The loop ended by a panic, with this text.
    Failed(String),
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
    /// Rows of schedules, and the database that is kept in order.
    pub store: Store,
    /// Where is told what happens.
    pub hub: EventHub,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// One for all incarnations of the actor, and all generations.
    pub life: SchedulerLife,
}

/// Whether the generation serves.
enum Stage {
    Standby,
    Running(Loop),
    Drained,
}

/// The loop as a task. It is gone when this is dropped.
struct Loop {
    stop: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
    task: AbortHandle,
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs the schedules while its generation is active.
pub struct SchedulerActor;

/// State of the [`SchedulerActor`].
pub struct SchedulerState {
    args: SchedulerArgs,
    stage: Stage,
}

impl Loop {
    fn start(args: SchedulerArgs, myself: ActorRef<SchedulerMsg>) -> Self {
        let (stop, stopping) = watch::channel(false);
        let (end, ended) = watch::channel(false);
        let task = tokio::spawn(Rounds::new(args, stopping).run());
        let abort = task.abort_handle();
        tokio::spawn(async move {
            if let Err(error) = task.await
                && error.is_panic()
            {
                drop(myself.cast(SchedulerMsg::Failed(error.to_string())));
            }
            end.send_replace(true);
        });
        Self { stop, ended, task: abort }
    }

    /// Lets the round that is under way end, then tells.
    fn drain(self, ended: impl FnOnce() + Send + 'static) {
        self.stop.send_replace(true);
        tokio::spawn(async move {
            // An error means that whoever watched the task is gone, and the task with it.
            drop(self.ended.clone().wait_for(|ended| *ended).await);
            ended();
        });
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
            SchedulerMsg::Failed(error) => return Err(format!("the loop of the scheduler failed: {error}").into()),
            SchedulerMsg::Lifecycle(Lifecycle::Activate) => {
                if matches!(state.stage, Stage::Standby) {
                    state.stage = Stage::Running(Loop::start(state.args.clone(), myself));
                }
            }
            SchedulerMsg::Lifecycle(Lifecycle::Drain(reply)) => {
                match std::mem::replace(&mut state.stage, Stage::Drained) {
                    Stage::Running(running) => running.drain(move || drop(reply.send(()))),
                    Stage::Standby | Stage::Drained => drop(reply.send(())),
                }
            }
            SchedulerMsg::Lifecycle(Lifecycle::Crash) => panic!("crash asked for by a test"),
        }
        Ok(())
    }
}
