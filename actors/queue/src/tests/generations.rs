use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use ductile_model::Outcome;

use super::*;
use crate::scope::{Claiming, Frame, Scope};
use crate::{QueueError, Reader, generation};

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

/// What an activation with these plugins takes and leaves: steps of the database, and changes for the board.
async fn price_of_activation(site: &Site, runnable: &[&str]) -> (u32, usize) {
    let runnable = Some(runnable.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>());
    let generation = ActivateGeneration { snapshot: snapshot("reload"), policy: policy(1), runnable, reload: None };
    let work = move |outer: &Scope<'_>| {
        let frame = Frame {
            claiming: Claiming::Allowed,
            snapshot: None,
            policy: Arc::default(),
            log_has_start: true,
            definitions: crate::schedule::Definitions::Kept,
            jitter: Arc::new(|| 0.5),
        };
        let scope = Scope::new(outer.connection(), &frame, outer.now());
        let steps = Arc::new(AtomicU32::new(0));
        let counted = steps.clone();
        let count = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            false
        };
        outer.connection().progress_handler(1, Some(count))?;
        let activated = generation::activate(&scope, &generation, &tokio::sync::mpsc::unbounded_channel().0);
        outer.connection().progress_handler(0, None::<fn() -> bool>)?;
        activated?;
        Ok((steps.load(Ordering::Relaxed), scope.into_effects().changes.len()))
    };
    site.store.write(work).await.unwrap()
}

#[tokio::test]
async fn a_reload_looks_at_the_names_of_plugins_and_not_at_the_jobs_that_wait() {
    let site = Site::new().await;
    let fill = |scope: &Scope<'_>| {
        let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
                   INSERT INTO job_queue (id, plugin, command, status, submitted_by, created_at, next_retry_at)
                   SELECT 'job-' || i, 'plugin-' || (i % 3), 'poll', iif(i % 2, 'queued', 'dead'), 'api',
                          '2026-01-02 03:04:05.000000000Z', '2099-01-02 03:04:05.000000000Z' FROM n";
        Ok(scope.connection().execute_batch(sql)?)
    };
    site.store.write(fill).await.unwrap();
    let (steps, changes) = price_of_activation(&site, &["plugin-0", "plugin-1", "plugin-2"]).await;
    assert!(steps < 1000, "{steps} steps");
    assert_eq!(changes, 0, "the board is still true");
    // One job of a plugin that is gone is found among them all.
    site.enqueue(job("gone")).await;
    let (steps, changes) = price_of_activation(&site, &["plugin-0", "plugin-1", "plugin-2"]).await;
    assert!(steps < 2000, "{steps} steps");
    assert_eq!(changes, 1);
    assert_eq!(site.column("SELECT plugin FROM job_log"), ["gone"]);
}

#[tokio::test]
async fn jobs_of_all_commands_and_lost_plugins_are_cancelled_oldest_first() {
    let site = Site::new().await;
    let mut posted = Vec::new();
    for (plugin, command) in [("b", "poll"), ("a", "send"), ("kept", "poll"), ("a", "health"), ("b", "a")] {
        posted.push(site.enqueue(NewJob { command: command.to_owned(), ..job(plugin) }).await.to_string());
        site.advance(1);
    }
    posted.remove(2);
    let generation = ActivateGeneration {
        snapshot: snapshot("reload"),
        policy: policy(1),
        runnable: Some(BTreeSet::from(["kept".to_owned()])),
        reload: None,
    };
    let mut claims = site.store.activate(generation).await.unwrap();
    assert_eq!(site.column("SELECT job_id FROM job_transitions WHERE to_status = 'dead' ORDER BY id"), posted);
    assert_eq!(claim(&mut claims).await.plugin, "kept");
    nothing_claimed(&site, &mut claims).await;
}

#[tokio::test]
async fn a_stop_is_final_and_no_generation_takes_over_after_it() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    site.store.stop_claiming().await;
    site.enqueue(job("echo")).await;
    let late = ActivateGeneration {
        snapshot: snapshot("reload"),
        policy: policy(1),
        runnable: Some(BTreeSet::new()),
        reload: None,
    };
    let refused = site.store.activate(late).await.unwrap_err();
    assert!(matches!(refused, QueueError::Stopping), "{refused:?}");
    assert!(claims.recv().await.is_none(), "claiming ended");
    assert_eq!(site.column("SELECT reason FROM config_snapshots"), ["startup"]);
    assert_eq!(site.column("SELECT status FROM job_queue"), ["queued"]);
}

#[tokio::test]
async fn a_generation_that_comes_right_behind_a_stop_is_refused() {
    let site = Site::new().await;
    // The writer is kept busy, so that both wait in its inbox and are taken together.
    let (free, busy) = std::sync::mpsc::channel::<()>();
    let blocked = site.store.clone();
    let blocked = tokio::spawn(async move { blocked.write(move |_| Ok(busy.recv().is_err())).await });
    tokio::task::yield_now().await;
    let late = ActivateGeneration { snapshot: snapshot("startup"), policy: policy(1), runnable: None, reload: None };
    let mut stop = std::pin::pin!(site.store.stop_claiming());
    let mut late = std::pin::pin!(site.store.activate(late));
    assert!(poll_once(stop.as_mut()).is_none());
    assert!(poll_once(late.as_mut()).is_none());
    drop(free);
    stop.await;
    assert!(matches!(late.await, Err(QueueError::Stopping)));
    assert!(blocked.await.unwrap().unwrap());
    assert_eq!(site.one::<i64>("SELECT count(*) FROM config_snapshots"), 0);
}

/// Polls once.
fn poll_once<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
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
