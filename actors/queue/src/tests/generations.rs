use std::collections::BTreeSet;

use ductile_model::Outcome;

use super::*;
use crate::Reader;

#[tokio::test]
async fn a_reload_cancels_queued_jobs_of_plugins_that_are_gone_and_closes_its_history() {
    let site = Site::new().await;
    let mut old = site.activate(policy(1)).await;
    site.enqueue(job("gone")).await;
    let running = claim(&mut old).await;
    let lost = site.enqueue(job("gone")).await;
    site.enqueue(job("core.switch")).await;
    site.enqueue(job("kept")).await;
    let mut entry = site.store.begin_reload("api", Some("admin".into()), "full").await.unwrap();
    entry.new_posture = Some("full");
    site.advance(3);
    let generation = ActivateGeneration {
        snapshot: snapshot("reload"),
        policy: policy(1),
        runnable: Some(BTreeSet::from(["kept".to_owned()])),
        reload: Some(entry),
    };
    let mut new = site.store.activate(generation).await.unwrap();
    let row = site.queue.job(&lost).await.unwrap().unwrap();
    assert_eq!(
        (row.status, row.last_error.as_deref()),
        (JobStatus::Dead, Some("cancelled by reload: plugin removed or disabled"))
    );
    assert!(row.completed_at.is_some());
    assert_eq!(site.column("SELECT id || ' ' || status FROM job_log"), [format!("{lost}-1 dead")]);
    assert_eq!(
        site.column("SELECT from_status || '>' || to_status FROM job_transitions ORDER BY id DESC LIMIT 1"),
        ["queued>dead"]
    );
    let event = site.last_event("job.failed").await;
    assert_eq!((event["cancelled"].as_bool(), event["job_id"].as_str()), (Some(true), Some(lost.as_str())));
    // What runs goes on, under the cap that both generations share.
    nothing_claimed(&site, &mut new).await;
    assert_eq!(site.finish(&running, succeeded()).await, stored(JobStatus::Succeeded));
    assert_eq!(claim(&mut new).await.plugin, "core.switch");
    let reloads = Reader::open(&site.path()).unwrap().reloads(10).unwrap();
    assert_eq!(reloads.len(), 1);
    assert_eq!((reloads[0].outcome, reloads[0].duration_ms), (Some(Outcome::Ok), Some(3000)));
    let reasons = site.column("SELECT reason FROM config_snapshots ORDER BY rowid");
    assert_eq!(reasons, ["startup", "reload"]);
    assert_eq!(reloads[0].new_snapshot, Some(site.one("SELECT id FROM config_snapshots WHERE reason = 'reload'")));
    assert_eq!(
        site.one::<String>("SELECT old_snapshot_id FROM reload_history"),
        site.one::<String>("SELECT id FROM config_snapshots WHERE reason = 'startup'")
    );
}

#[tokio::test]
async fn a_start_cancels_nothing() {
    let site = Site::new().await;
    site.enqueue(job("anything")).await;
    let mut claims = site.activate(policy(1)).await;
    claim(&mut claims).await;
}

#[tokio::test]
async fn an_activation_that_fails_leaves_the_generation_before_in_force() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let taken: String = site.one("SELECT id FROM config_snapshots");
    let doubled = crate::SnapshotRow { id: SnapshotId::from(taken.as_str()), ..snapshot("reload") };
    let generation =
        ActivateGeneration { snapshot: doubled, policy: policy(1), runnable: Some(BTreeSet::new()), reload: None };
    site.enqueue(job("busy")).await;
    let running = claim(&mut claims).await;
    let waiting = site.enqueue(job("echo")).await;
    site.store.activate(generation).await.unwrap_err();
    assert_eq!(site.queue.job(&waiting).await.unwrap().unwrap().status, JobStatus::Queued);
    site.finish(&running, succeeded()).await;
    assert_eq!(claim(&mut claims).await.id, waiting);
    assert_eq!(site.one::<i64>("SELECT count(*) FROM config_snapshots"), 1);
}

#[tokio::test]
async fn refused_and_interrupted_reloads_are_rows_too_and_only_the_newest_are_kept() {
    let site = Site::new().await;
    let entry = site.store.begin_reload("sighup", Some("pid:1".into()), "full").await.unwrap();
    site.store.refuse_reload(entry, Outcome::Rejected, "load", "config.yaml:3: unknown key").await.unwrap();
    site.store.begin_reload("api", None, "full").await.unwrap();
    let site = site.reopen().await;
    let reloads = Reader::open(&site.path()).unwrap().reloads(10).unwrap();
    let told: Vec<_> = reloads.iter().map(|row| (row.outcome, row.stage.as_deref(), row.trigger.as_str())).collect();
    assert_eq!(
        told,
        [(Some(Outcome::Failed), Some("interrupted"), "api"), (Some(Outcome::Rejected), Some("load"), "sighup"),]
    );
    assert_eq!(reloads[1].error.as_deref(), Some("config.yaml:3: unknown key"));
    for _ in 0..510 {
        site.store.begin_reload("sighup", None, "full").await.unwrap();
    }
    assert_eq!(site.one::<i64>("SELECT count(*) FROM reload_history"), 500);
    assert_eq!(site.one::<i64>("SELECT max(id) FROM reload_history"), 512);
}
