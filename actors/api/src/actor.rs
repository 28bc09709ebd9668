//! The actor of the API and what it needs from above.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ductile_config::Plan;
use ductile_listeners::{Door, HttpService, Peer, Request, Response};
use ductile_model::{Clock, EventHub, Lifecycle, Outcome, SlotCounts, SnapshotId};
use ductile_queue::QueueHandle;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::watch;

use crate::service::ApiService;

/// A reload that happened.
#[derive(Debug, Clone)]
pub struct ReloadReport {
    /// When the new generation took over.
    pub reloaded_at: DateTime<Utc>,
    /// Its number, from 1.
    pub generation: u64,
    /// Its snapshot.
    pub snapshot_id: String,
    /// Its posture.
    pub posture: &'static str,
    /// Milliseconds it took.
    pub duration_ms: u64,
    /// Warnings of the load.
    pub warnings: Vec<String>,
}

/// A reload that did not happen; the generation before still serves.
#[derive(Debug, Clone)]
pub enum ReloadFailure {
    /// It was refused.
    Refused {
        /// `rejected` or `failed`.
        outcome: Outcome,
        /// The step that ended it.
        stage: String,
        /// The cause, beginning `config reload rejected: ` where that is so.
        error: String,
    },
    /// Another one took longer than this request could wait.
    InProgress,
    /// The process is stopping.
    Stopping,
}

/// What the process says about itself.
#[derive(Debug, Clone)]
pub struct ProcessView {
    /// Start of the process.
    pub started_at: DateTime<Utc>,
    /// Configurations in force since then, from 1.
    pub generation: u64,
    /// Why it is not ready; empty = ready.
    pub not_ready: Vec<&'static str>,
    /// Path of the binary, may be empty.
    pub binary_path: String,
    /// Version of the binary.
    pub version: String,
}

/// What the API needs from the process above it.
pub trait Control: Send + Sync + 'static {
    /// Takes the one reload path. The future may be dropped without stopping the reload.
    fn reload(&self, actor: String) -> Pin<Box<dyn Future<Output = Result<ReloadReport, ReloadFailure>> + Send>>;
    /// What the process says about itself. Cheap.
    fn process(&self) -> ProcessView;
    /// Slots of schedules that did not run in time, by plugin and schedule; one without any is not there.
    fn slot_counts(&self) -> BTreeMap<(String, String), SlotCounts>;
    /// Resolves when the process begins to stop.
    fn stopping(&self) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Messages of the [`ApiActor`].
pub enum ApiMsg {
    /// Activate, drain; a crash is a real panic of the message handler, for tests of the supervision.
    Lifecycle(Lifecycle),
}

impl From<Lifecycle> for ApiMsg {
    fn from(message: Lifecycle) -> Self {
        Self::Lifecycle(message)
    }
}

/// What the actor starts, and starts again, with.
#[derive(Clone)]
pub struct ApiArgs {
    /// The plan of the generation.
    pub plan: Arc<Plan>,
    /// The queue.
    pub queue: QueueHandle,
    /// Where events are published.
    pub hub: EventHub,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// The process above.
    pub control: Arc<dyn Control>,
    /// The listener; `None` when this posture has no API.
    pub door: Option<Door>,
}

/// What is installed on the listener. Every request holds it while it is served, so its end tells that none is left,
/// also none that the listener is only about to hand over.
struct Handle {
    service: Arc<ApiService>,
    /// Closes with the last holder.
    _held: watch::Sender<()>,
}

impl HttpService for Handle {
    fn call(&self, request: Request, peer: Peer) -> Pin<Box<dyn Future<Output = Response> + Send + '_>> {
        self.service.call(request, peer)
    }
}

/// The API of a generation on its listener; taken off when dropped, so that requests wait for the next one also after
/// a crash.
struct Mounted {
    door: Door,
    handle: Option<Arc<dyn HttpService>>,
    held: watch::Receiver<()>,
}

impl Mounted {
    /// `None`: a later generation is already there. Snapshot ids sort by creation, so they rank the generations.
    fn new(door: Door, service: Arc<ApiService>, snapshot: &SnapshotId) -> Option<Self> {
        let (sender, held) = watch::channel(());
        let handle: Arc<dyn HttpService> = Arc::new(Handle { service, _held: sender });
        let is_installed = door.install_ranked(handle.clone(), snapshot.as_str());
        is_installed.then(|| Self { door, handle: Some(handle), held })
    }

    /// Leaves the handle to the listener, which drops it when the next generation takes over or the address is given
    /// up. What is returned closes when no request has it any more.
    fn leave(mut self) -> watch::Receiver<()> {
        self.handle = None;
        self.held.clone()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            self.door.uninstall(handle);
        }
    }
}

/// What the actor holds between messages.
pub struct ApiState {
    door: Option<Door>,
    service: Arc<ApiService>,
    snapshot: SnapshotId,
    mounted: Option<Mounted>,
}

impl ApiState {
    fn activate(&mut self) {
        let Some(door) = &self.door else { return };
        if self.mounted.is_some() {
            return;
        }
        self.mounted = Mounted::new(door.clone(), self.service.clone(), &self.snapshot);
    }

    /// Waits outside of the actor, which stays able to hear. It does not matter whether the next generation has
    /// already taken over or is just about to: until then requests are served here.
    fn drain(&mut self, reply: RpcReplyPort<()>) {
        let held = self.mounted.take().map(Mounted::leave);
        tokio::spawn(async move {
            if let Some(mut held) = held {
                while held.changed().await.is_ok() {}
            }
            let _ = reply.send(());
        });
    }
}

/// Serves the API of its generation.
pub struct ApiActor;

impl Actor for ApiActor {
    type Msg = ApiMsg;
    type State = ApiState;
    type Arguments = ApiArgs;

    async fn pre_start(&self, _: ActorRef<ApiMsg>, args: ApiArgs) -> Result<ApiState, ActorProcessingErr> {
        let service = Arc::new(ApiService::new(&args));
        Ok(ApiState { snapshot: args.plan.snapshot.id.clone(), door: args.door, service, mounted: None })
    }

    async fn handle(
        &self,
        _: ActorRef<ApiMsg>,
        message: ApiMsg,
        state: &mut ApiState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ApiMsg::Lifecycle(Lifecycle::Activate) => state.activate(),
            ApiMsg::Lifecycle(Lifecycle::Drain(reply)) => state.drain(reply),
            ApiMsg::Lifecycle(Lifecycle::Crash) => panic!("crash asked for by a test"),
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<ApiMsg>, state: &mut ApiState) -> Result<(), ActorProcessingErr> {
        // The state itself may live on for a while in the event that tells the supervisor.
        drop(state.mounted.take());
        Ok(())
    }
}
