//! What the API may ask of the process above it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ductile_api::{Control, ProcessView, ReloadFailure, ReloadReport};
use ductile_model::SlotCounts;
use ractor::ActorRef;
use tokio::sync::oneshot;

use super::process::ProcessState;
use super::root::{ReloadTrigger, RootMsg};
use crate::version;

/// How long a request waits for a reload, one under way before it included.
const RELOAD_PATIENCE: Duration = Duration::from_secs(60);

/// The root, as the API sees it.
pub(crate) struct GatewayControl {
    process: Arc<ProcessState>,
    root: OnceLock<ActorRef<RootMsg>>,
}

impl GatewayControl {
    /// A control whose root is not there yet.
    pub(crate) fn new(process: Arc<ProcessState>) -> Self {
        Self { process, root: OnceLock::new() }
    }

    /// The root has started.
    pub(crate) fn attach(&self, root: ActorRef<RootMsg>) {
        // There is one root per process; a second attach would change nothing.
        drop(self.root.set(root));
    }
}

impl Control for GatewayControl {
    fn reload(&self, actor: String) -> Pin<Box<dyn Future<Output = Result<ReloadReport, ReloadFailure>> + Send>> {
        let (reply, answer) = oneshot::channel();
        let trigger = ReloadTrigger::Api { actor };
        let sent =
            self.root.get().is_some_and(|root| root.cast(RootMsg::Reload { trigger, reply: Some(reply) }).is_ok());
        Box::pin(async move {
            if !sent {
                return Err(ReloadFailure::Stopping);
            }
            match tokio::time::timeout(RELOAD_PATIENCE, answer).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(ReloadFailure::Stopping),
                Err(_) => Err(ReloadFailure::InProgress),
            }
        })
    }

    fn process(&self) -> ProcessView {
        ProcessView {
            started_at: self.process.started_at,
            generation: self.process.generation(),
            not_ready: self.process.not_ready(),
            binary_path: self.process.binary_path.clone(),
            version: version::VERSION.to_owned(),
        }
    }

    fn slot_counts(&self) -> BTreeMap<(String, String), SlotCounts> {
        self.process.scheduler.counts()
    }

    fn stopping(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let process = self.process.clone();
        Box::pin(async move { process.stopping().await })
    }
}
