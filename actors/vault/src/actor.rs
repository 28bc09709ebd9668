//! The actor that holds the vault of its generation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ductile_model::{AskError, Lifecycle, Link};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use crate::compose::without_vault;
use crate::{Composed, Denied, Vault};

/// Messages of the [`VaultActor`].
pub enum VaultMsg {
    /// Compose the secrets of a principal for one spawn.
    Compose {
        /// The principal.
        principal: String,
        /// Nothing deliverable is a refusal.
        requires_vault: bool,
        /// What the plugin gets, or why the job fails.
        reply: RpcReplyPort<Result<Composed, Denied>>,
    },
    /// Activate, drain, crash.
    Lifecycle(Lifecycle),
}

impl From<Lifecycle> for VaultMsg {
    fn from(message: Lifecycle) -> Self {
        Self::Lifecycle(message)
    }
}

/// What the actor starts, and starts again, with.
#[derive(Clone)]
pub struct VaultArgs {
    vault: Option<Vault>,
    /// Shared by all clones: tells the first start from the later ones.
    started: Arc<AtomicBool>,
}

impl VaultArgs {
    /// The vault opened by the load of this generation, if it has one. The first start uses it as it is; a restart
    /// re-reads its file.
    #[must_use]
    pub fn new(vault: Option<Vault>) -> Self {
        Self { vault, started: Arc::default() }
    }
}

/// Holds the decrypted vault and composes secrets.
pub struct VaultActor;

impl Actor for VaultActor {
    type Msg = VaultMsg;
    type State = Option<Vault>;
    type Arguments = VaultArgs;

    async fn pre_start(&self, _: ActorRef<VaultMsg>, args: VaultArgs) -> Result<Option<Vault>, ActorProcessingErr> {
        if !args.started.swap(true, Ordering::AcqRel) {
            return Ok(args.vault);
        }
        let Some(vault) = args.vault else { return Ok(None) };
        // Without a good file there is no vault: the start fails and is tried again, and nothing is composed meanwhile.
        let vault = tokio::task::spawn_blocking(move || vault.reopen()).await??;
        Ok(Some(vault))
    }

    async fn handle(
        &self,
        _: ActorRef<VaultMsg>,
        message: VaultMsg,
        vault: &mut Option<Vault>,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            // Who no longer listens must not cause copies of values.
            VaultMsg::Compose { reply, .. } if reply.is_closed() => {}
            VaultMsg::Compose { principal, requires_vault, reply } => {
                let answer = match vault {
                    Some(vault) => vault.compose(&principal, requires_vault),
                    None => without_vault(&principal, requires_vault),
                };
                drop(reply.send(answer));
            }
            VaultMsg::Lifecycle(Lifecycle::Activate) => {}
            VaultMsg::Lifecycle(Lifecycle::Drain(reply)) => drop(reply.send(())),
            VaultMsg::Lifecycle(Lifecycle::Crash) => return Err("crash asked for by a test".into()),
        }
        Ok(())
    }
}

/// The way to the vault of a generation. Cheap to clone.
#[derive(Clone)]
pub struct VaultHandle(Link<VaultMsg>);

impl VaultHandle {
    /// A handle over a link that the supervisor keeps.
    #[must_use]
    pub fn new(link: Link<VaultMsg>) -> Self {
        Self(link)
    }

    /// The secrets of a principal for one spawn. Waits up to 5 s for a vault that is being restarted.
    ///
    /// # Errors
    /// Outer: the vault did not answer (the attempt fails as `vault_unavailable`). Inner: the job must fail.
    pub async fn compose(&self, principal: String, requires_vault: bool) -> Result<Result<Composed, Denied>, AskError> {
        self.0
            .ask_within(std::time::Duration::from_secs(5), |reply| VaultMsg::Compose {
                principal,
                requires_vault,
                reply,
            })
            .await
    }
}
