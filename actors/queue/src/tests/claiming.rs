use super::*;

#[tokio::test]
async fn jobs_are_claimed_in_the_order_they_were_posted() {
    let site = Site::new().await;
    let mut posted = Vec::new();
    for _ in 0..5 {
        posted.push(site.enqueue(job("echo")).await);
    }
    let mut claims = site.activate(policy(1)).await;
    for id in &posted {
        let claimed = claim(&mut claims).await;
        assert_eq!(claimed.id, *id);
        nothing_claimed(&site, &mut claims).await;
        assert_eq!(site.finish(&claimed, succeeded()).await, stored(JobStatus::Succeeded));
    }
}

#[tokio::test]
async fn a_claim_is_a_running_row_with_its_facts_and_the_snapshot_in_force() {
    let site = Site::new().await;
    let early = site.enqueue(job("echo")).await;
    let mut claims = site.activate(policy(2)).await;
    let claimed = claim(&mut claims).await;
    assert_eq!((claimed.id.clone(), claimed.attempt, claimed.max_attempts), (early, 1, 4));
    assert_eq!(claimed.payload.as_deref(), Some(r#"{"x":1}"#));
    assert_eq!(claimed.started_at, site.clock.now());
    let snapshot: String = site.one("SELECT id FROM config_snapshots");
    assert_eq!(
        site.column("SELECT status || ' ' || ifnull(enqueued_config_snapshot_id, '-') FROM job_queue"),
        ["running -"]
    );
    assert_eq!(site.one::<String>("SELECT started_config_snapshot_id FROM job_queue"), snapshot);
    assert_eq!(site.one::<String>("SELECT started_at FROM job_queue"), site.now_text());
    assert_eq!(site.column("SELECT CAST(attempt AS TEXT) FROM job_attempts"), ["1"]);
    site.enqueue(job("echo")).await;
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_queue WHERE enqueued_config_snapshot_id IS NOT NULL"), 1);
}

#[tokio::test]
async fn a_lane_is_capped_and_others_pass_it() {
    let site = Site::new().await;
    for _ in 0..3 {
        site.enqueue(job("slow")).await;
    }
    let quick = site.enqueue(job("quick")).await;
    let mut policy = policy(4);
    policy.lane_caps.insert("slow".into(), 1);
    let mut claims = site.activate(policy).await;
    let first = claim(&mut claims).await;
    assert_eq!(first.plugin, "slow");
    assert_eq!(claim(&mut claims).await.id, quick);
    nothing_claimed(&site, &mut claims).await;
    site.finish(&first, succeeded()).await;
    assert_eq!(claim(&mut claims).await.plugin, "slow");
    nothing_claimed(&site, &mut claims).await;
}

#[tokio::test]
async fn caps_hold_across_a_change_of_generation() {
    let site = Site::new().await;
    let mut old = site.activate(policy(2)).await;
    for _ in 0..4 {
        site.enqueue(job("echo")).await;
    }
    let first = claim(&mut old).await;
    claim(&mut old).await;
    let mut new = site.activate(policy(2)).await;
    assert!(tokio::time::timeout(SOON, old.recv()).await.unwrap().is_none(), "the old generation is told its end");
    nothing_claimed(&site, &mut new).await;
    site.finish(&first, succeeded()).await;
    claim(&mut new).await;
    nothing_claimed(&site, &mut new).await;
}

#[tokio::test]
async fn equal_keys_and_targets_never_run_together_and_different_targets_do() {
    let site = Site::new().await;
    let parent = site.enqueue(job("source")).await;
    for (event, plugin) in [("e/a/1", "echo"), ("e/a/2", "echo"), ("e/a/3", "other")] {
        site.enqueue(NewJob {
            submitted_by: Producer::Route,
            parent_job_id: Some(parent.clone()),
            event_id: Some("e".into()),
            source_event_id: Some(event.into()),
            ..keyed(plugin, "k")
        })
        .await;
    }
    let mut claims = site.activate(policy(9)).await;
    let claimed = [claim(&mut claims).await, claim(&mut claims).await, claim(&mut claims).await];
    let plugins: Vec<_> = claimed.iter().map(|job| job.plugin.as_str()).collect();
    assert_eq!(plugins, ["source", "echo", "other"]);
    nothing_claimed(&site, &mut claims).await;
    site.finish(&claimed[1], succeeded()).await;
    assert_eq!(claim(&mut claims).await.plugin, "echo");
}

#[tokio::test]
async fn a_retry_waits_for_its_time_and_is_then_first_in_line() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let id = site.enqueue(job("echo")).await;
    let running = claim(&mut claims).await;
    let younger = site.enqueue(job("echo")).await;
    assert_eq!(site.finish(&running, failed(FailureReason::PluginError)).await, stored(JobStatus::Queued));
    // Base 4 s and half of a quarter of it.
    assert_eq!(
        site.one::<String>("SELECT next_retry_at FROM job_queue WHERE next_retry_at IS NOT NULL"),
        "2026-01-02 03:04:09.500000000Z"
    );
    let running = claim(&mut claims).await;
    assert_eq!(running.id, younger, "a job that waits for its time does not block younger ones");
    site.enqueue(job("echo")).await;
    site.advance(4);
    nothing_claimed(&site, &mut claims).await;
    site.advance(1);
    site.finish(&running, succeeded()).await;
    let retried = claim(&mut claims).await;
    assert_eq!((retried.id, retried.attempt), (id, 2));
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_queue WHERE next_retry_at IS NOT NULL"), 0);
}

#[tokio::test]
async fn rows_that_another_process_wrote_are_found_whatever_their_form() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(4)).await;
    site.other()
        .execute_batch(
            "INSERT INTO job_queue (id, plugin, command, payload, status, submitted_by, created_at, next_retry_at)
             VALUES ('by-hand', 'echo', 'poll', CAST('{\"a\":1}' AS BLOB), 'queued', 'cli',
                     '2026-01-02T03:04:05Z', '')",
        )
        .unwrap();
    let claimed = claim(&mut claims).await;
    assert_eq!(claimed.id.as_str(), "by-hand");
    assert_eq!(claimed.payload.as_deref(), Some("{\"a\":1}"));
    assert_eq!(Some(claimed.created_at), parse_stored("2026-01-02 03:04:05Z"));
}

#[tokio::test]
async fn a_row_that_another_process_ends_frees_its_place() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    site.enqueue(job("echo")).await;
    let running = claim(&mut claims).await;
    let second = site.enqueue(job("echo")).await;
    site.other().execute("DELETE FROM job_queue WHERE id = ?1", [running.id.as_str()]).unwrap();
    assert_eq!(claim(&mut claims).await.id, second);
    assert_eq!(site.finish(&running, succeeded()).await, Finalised::Stale);
}

#[tokio::test]
async fn claims_that_nobody_takes_go_back_to_the_queue() {
    let site = Site::new().await;
    let claims = site.activate(policy(2)).await;
    drop(claims);
    let lost = site.enqueue(job("echo")).await;
    let single = site.enqueue(NewJob { max_attempts: 1, ..job("echo") }).await;
    let mut claims = site.activate(policy(2)).await;
    let found = [claim(&mut claims).await, claim(&mut claims).await];
    let ids: Vec<_> = found.iter().map(|job| job.id.clone()).collect();
    assert_eq!(ids, [lost, single]);
    // The first was claimed in vain once; by the time of the second nobody claimed.
    assert_eq!([found[0].attempt, found[1].attempt], [2, 1]);
}

#[tokio::test]
async fn after_the_end_of_claiming_jobs_stay_queued_and_can_still_be_finished() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    site.enqueue(job("echo")).await;
    let running = claim(&mut claims).await;
    site.store.stop_claiming().await;
    site.enqueue(job("echo")).await;
    assert_eq!(site.finish(&running, succeeded()).await, stored(JobStatus::Succeeded));
    assert!(claims.recv().await.is_none());
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_queue WHERE status = 'queued'"), 1);
    assert_eq!(site.queue.depth(), 1);
}

#[tokio::test]
async fn a_backlog_in_a_full_lane_does_not_slow_the_others_claims_down_to_a_scan() {
    let site = Site::new().await;
    let mut policy = policy(2);
    policy.lane_caps.insert("slow".into(), 1);
    let mut claims = site.activate(policy).await;
    for _ in 0..50 {
        site.enqueue(job("slow")).await;
    }
    claim(&mut claims).await;
    for _ in 0..20 {
        let quick = site.enqueue(job("quick")).await;
        let claimed = claim(&mut claims).await;
        assert_eq!(claimed.id, quick);
        site.finish(&claimed, succeeded()).await;
    }
    assert_eq!(site.queue.depth(), 50);
}

#[tokio::test]
async fn the_state_of_the_plugin_travels_with_the_claim() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    site.enqueue(job("echo")).await;
    let first = claim(&mut claims).await;
    assert_eq!(first.state, None);
    site.enqueue(job("echo")).await;
    site.finish(&first, with_state(r#"{"cursor":"18"}"#, &[])).await;
    assert_eq!(claim(&mut claims).await.state.as_deref(), Some(r#"{"cursor":"18"}"#));
}

#[tokio::test]
async fn a_job_that_can_not_be_claimed_does_not_keep_others_from_running() {
    let site = Site::new().await;
    let damaged = site.enqueue(job("echo")).await;
    let sound = site.enqueue(job("echo")).await;
    // An attempt that nobody made: the claim would write the same row again.
    site.other()
        .execute("INSERT INTO job_attempts (job_id, attempt, created_at) VALUES (?1, 1, '')", [damaged.as_str()])
        .unwrap();
    let mut claims = site.activate(policy(1)).await;
    assert_eq!(claim(&mut claims).await.id, sound);
    assert_eq!(site.queue.job(&damaged).await.unwrap().unwrap().status, JobStatus::Queued);
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_attempts"), 2);
}

#[tokio::test]
async fn a_job_that_was_due_waits_again_when_the_clock_is_put_back() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let delayed = site.enqueue(job("echo")).await;
    let claimed = claim(&mut claims).await;
    site.finish(&claimed, failed(FailureReason::PluginError)).await;
    let busy = site.enqueue(job("echo")).await;
    let claimed = claim(&mut claims).await;
    assert_eq!(claimed.id, busy);
    // Due, but no worker is free.
    site.advance(10);
    nothing_claimed(&site, &mut claims).await;
    site.advance(-8);
    site.finish(&claimed, succeeded()).await;
    nothing_claimed(&site, &mut claims).await;
    site.advance(8);
    assert_eq!(claim_after_a_write(&site, &mut claims).await.id, delayed);
}

async fn claim_after_a_write(site: &Site, claims: &mut UnboundedReceiver<ClaimedJob>) -> ClaimedJob {
    site.store.write(|_| Ok(())).await.unwrap();
    claim(claims).await
}
