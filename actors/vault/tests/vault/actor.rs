//! The actor and its restart.

use std::time::Duration;

use ductile_model::{Lifecycle, LinkOwner};
use ductile_vault::{Composed, Vault, VaultActor, VaultArgs, VaultMsg};
use ractor::Actor as _;
use ractor::concurrency::JoinHandle;

use crate::site::{Site, grant, now, set};

async fn start(args: &VaultArgs, owner: &LinkOwner<VaultMsg>) -> JoinHandle<()> {
    let (actor, ended) = VaultActor::spawn(None, VaultActor, args.clone()).await.unwrap();
    owner.set(actor);
    ended
}

fn delivered(composed: Composed) -> Vec<String> {
    match composed {
        Composed::Secrets(list) => list.into_iter().map(|(name, _)| name).collect(),
        Composed::NotAPrincipal => Vec::new(),
    }
}

fn with_mailer(site: &Site) -> Vault {
    let vault = site.open().register_principal("mailer", "plugin", now()).unwrap();
    vault.set(set("one", "v"), now()).unwrap().set(grant("one", &["mailer"]), now()).unwrap()
}

#[tokio::test]
async fn the_first_start_uses_the_opened_vault_and_a_restart_reads_the_file_again() {
    let site = Site::new();
    let vault = with_mailer(&site);
    let (args, owner) = (VaultArgs::new(Some(vault.clone())), LinkOwner::default());
    let handle = args.handle();
    let newer = vault.set(set("two", "v"), now()).unwrap().set(grant("two", &["mailer"]), now()).unwrap();
    assert_eq!(newer.generation(), 6);

    let ended = start(&args, &owner).await;
    let composed = handle.compose("mailer", true).await.unwrap().unwrap();
    assert_eq!(delivered(composed), ["one"], "the state of this generation");

    owner.link().tell(VaultMsg::Lifecycle(Lifecycle::Crash)).unwrap();
    ended.await.unwrap();
    let meanwhile = tokio::time::timeout(Duration::from_millis(50), handle.compose("mailer", true)).await;
    assert!(meanwhile.is_err(), "while it is down nothing is composed; the next incarnation is waited for");

    let ended = start(&args, &owner).await;
    let composed = handle.compose("mailer", true).await.unwrap().unwrap();
    assert_eq!(delivered(composed), ["one", "two"]);

    owner.link().tell(VaultMsg::Lifecycle(Lifecycle::Crash)).unwrap();
    ended.await.unwrap();
    std::fs::write(site.blob(), "damaged").unwrap();
    assert!(VaultActor::spawn(None, VaultActor, args).await.is_err(), "a damaged file must not give an empty vault");
}

#[tokio::test]
async fn without_a_vault_a_plugin_runs_unless_it_needs_one() {
    let (args, owner) = (VaultArgs::new(None), LinkOwner::default());
    let handle = args.handle();
    for _ in 0..2 {
        drop(start(&args, &owner).await);
        let composed = handle.compose("mailer", false).await.unwrap();
        assert!(matches!(composed, Ok(Composed::NotAPrincipal)));
        let denied = handle.compose("mailer", true).await.unwrap().unwrap_err();
        assert!(denied.to_string().contains("unknown/unregistered: \"mailer\""), "{denied}");
    }
}

#[tokio::test]
async fn a_drain_is_answered() {
    let (args, owner) = (VaultArgs::new(None), LinkOwner::default());
    drop(start(&args, &owner).await);
    owner.link().tell(VaultMsg::Lifecycle(Lifecycle::Activate)).unwrap();
    owner.link().ask(|reply| VaultMsg::Lifecycle(Lifecycle::Drain(reply))).await.unwrap();
}
