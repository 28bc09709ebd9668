//! The actor that keeps the vault of its generation, and the handle that composes secrets from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ductile_model::{AskError, Lifecycle};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use crate::compose::without_vault;
use crate::{Composed, Denied, Vault};

/// How long a spawn waits for a vault that is being restarted.
const PATIENCE: Duration = Duration::from_secs(5);

/// Messages of the [`VaultActor`].
pub enum VaultMsg {
    /// Activate, drain, crash.
    Lifecycle(Lifecycle),
}

impl From<Lifecycle> for VaultMsg {
    fn from(message: Lifecycle) -> Self {
        Self::Lifecycle(message)
    }
}

/// What lies on the desk: the decrypted vault, or that the generation has none.
#[derive(Clone)]
struct Open(Option<Vault>);

/// Where the actor lays the vault out for those who compose: reading costs no hand-over between threads. Empty while
/// the actor is down, so that nothing is composed from a state that nobody answers for.
type Desk = watch::Sender<Option<Open>>;

/// What the actor starts, and starts again, with.
#[derive(Clone)]
pub struct VaultArgs {
    vault: Option<Vault>,
    /// Shared by all clones: tells the first start from the later ones.
    started: Arc<AtomicBool>,
    desk: Arc<Desk>,
}

impl VaultArgs {
    /// The vault opened by the load of this generation, if it has one. The first start uses it as it is; a restart
    /// re-reads its file.
    #[must_use]
    pub fn new(vault: Option<Vault>) -> Self {
        Self { vault, started: Arc::default(), desk: Arc::new(Desk::new(None)) }
    }

    /// The way to the vault that the actor with these arguments keeps, through all its restarts.
    #[must_use]
    pub fn handle(&self) -> VaultHandle {
        VaultHandle(self.desk.clone())
    }
}

/// Keeps the decrypted vault of its generation.
pub struct VaultActor;

/// State of the [`VaultActor`]: the vault is on the desk for as long as this lives.
pub struct Keeper(Arc<Desk>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}

impl Actor for VaultActor {
    type Msg = VaultMsg;
    type State = Keeper;
    type Arguments = VaultArgs;

    async fn pre_start(&self, _: ActorRef<VaultMsg>, args: VaultArgs) -> Result<Keeper, ActorProcessingErr> {
        let VaultArgs { vault, started, desk } = args;
        let is_restart = started.swap(true, Ordering::AcqRel);
        let vault = match vault {
            // Without a good file there is no vault: the start fails and is tried again, and nothing is composed
            // meanwhile.
            Some(vault) if is_restart => Some(tokio::task::spawn_blocking(move || vault.reopen()).await??),
            first => first,
        };
        desk.send_replace(Some(Open(vault)));
        Ok(Keeper(desk))
    }

    async fn handle(&self, _: ActorRef<VaultMsg>, message: VaultMsg, _: &mut Keeper) -> Result<(), ActorProcessingErr> {
        match message {
            VaultMsg::Lifecycle(Lifecycle::Activate) => {}
            VaultMsg::Lifecycle(Lifecycle::Drain(reply)) => drop(reply.send(())),
            VaultMsg::Lifecycle(Lifecycle::Crash) => panic!("crash asked for by a test"),
        }
        Ok(())
    }
}

/// The way to the vault of a generation. Cheap to clone.
#[derive(Clone)]
pub struct VaultHandle(Arc<Desk>);

impl VaultHandle {
    /// The secrets of a principal for one spawn. Waits up to 5 s for a vault that is being restarted.
    ///
    /// # Errors
    /// Outer: the vault did not come back (the attempt fails as `vault_unavailable`). Inner: the job must fail.
    pub async fn compose(&self, principal: &str, requires_vault: bool) -> Result<Result<Composed, Denied>, AskError> {
        let open = self.open().await?;
        Ok(match &open.0 {
            Some(vault) => vault.compose(principal, requires_vault),
            None => without_vault(principal, requires_vault),
        })
    }

    async fn open(&self) -> Result<Open, AskError> {
        if let Some(open) = self.0.borrow().as_ref() {
            return Ok(open.clone());
        }
        let mut desk = self.0.subscribe();
        let next = tokio::time::timeout(PATIENCE, desk.wait_for(Option::is_some)).await;
        match next {
            Ok(Ok(open)) => open.clone().ok_or(AskError::Unavailable),
            Ok(Err(_)) | Err(_) => Err(AskError::Unavailable),
        }
    }
}
