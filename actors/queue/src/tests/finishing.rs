use super::*;
use crate::{InterruptKind, Recovered};

async fn running(site: &Site, claims: &mut UnboundedReceiver<ClaimedJob>, new: NewJob) -> ClaimedJob {
    site.enqueue(new).await;
    claim(claims).await
}

#[tokio::test]
async fn a_job_leaves_exactly_its_transitions_one_attempt_and_one_log_row() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let job = running(&site, &mut claims, job("echo")).await;
    site.advance(2);
    assert_eq!(site.finish(&job, succeeded()).await, stored(JobStatus::Succeeded));
    assert_eq!(
        site.column("SELECT ifnull(from_status, '-') || '>' || to_status FROM job_transitions ORDER BY id"),
        ["->queued", "queued>running", "running>succeeded"]
    );
    assert_eq!(site.column("SELECT job_id || '-' || attempt FROM job_attempts"), [format!("{}-1", job.id)]);
    assert_eq!(site.column("SELECT id FROM job_log"), [format!("{}-1", job.id)]);
    assert_eq!(site.one::<i64>("SELECT strftime('%s', completed_at) - strftime('%s', started_at) FROM job_log"), 2);
    assert_eq!(site.one::<String>("SELECT result FROM job_log"), r#"{"status":"ok","result":"done"}"#);
    assert_eq!(site.one::<String>("SELECT completed_at FROM job_queue"), site.now_text());
    assert_eq!(site.events().await, ["job.enqueued", "job.completed"]);
    assert_eq!(site.last_event("job.completed").await["duration_ms"], 12);
    assert_eq!(site.queue.depth(), 0);
}

#[tokio::test]
async fn a_late_result_writes_nothing_at_all() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let job = running(&site, &mut claims, job("echo")).await;
    site.finish(&job, succeeded()).await;
    assert_eq!(site.finish(&job, with_state(r#"{"a":1}"#, &["f"])).await, Finalised::Stale);
    let other = ClaimedJob { attempt: 2, ..job.clone() };
    assert_eq!(site.finish(&other, succeeded()).await, Finalised::Stale);
    let unknown = ClaimedJob { id: JobId::generate(), ..job };
    assert_eq!(site.finish(&unknown, succeeded()).await, Finalised::Stale);
    assert_eq!(site.one::<i64>("SELECT count(*) FROM plugin_facts"), 0);
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_log"), 1);
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_transitions"), 3);
}

#[tokio::test]
async fn a_failing_job_is_retried_to_its_last_attempt_and_keeps_its_cause() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let mut job = running(&site, &mut claims, NewJob { max_attempts: 3, ..job("echo") }).await;
    for gap in [4, 8] {
        site.finish(&job, failed(FailureReason::PluginError)).await;
        assert_eq!(site.one::<Option<String>>("SELECT started_at FROM job_queue"), None);
        site.advance(gap);
        nothing_claimed(&site, &mut claims).await;
        site.advance(1);
        job = claim(&mut claims).await;
    }
    assert_eq!(site.finish(&job, failed(FailureReason::PluginError)).await, stored(JobStatus::Failed));
    assert_eq!(
        site.column("SELECT substr(id, -1) || ' ' || status FROM job_log ORDER BY attempt"),
        ["1 failed", "2 failed", "3 failed"]
    );
    assert_eq!(
        site.events().await,
        ["job.enqueued", "job.retry_scheduled", "job.retry_scheduled", "job.retry_exhausted", "job.failed"]
    );
    let retry = site.last_event("job.retry_scheduled").await;
    assert_eq!((retry["backoff_ms"].as_u64(), retry["attempt"].as_u64()), (Some(8500), Some(2)));
    assert_eq!(retry["backoff_schedule"], serde_json::json!([8500]));
    assert_eq!(retry["retry_policy_owner"], "core");
    assert_eq!(retry["plugin_retry_field"], "v2_boundary_compatibility_signal");
    let exhausted = site.last_event("job.retry_exhausted").await;
    assert_eq!(exhausted["reason"], "attempts_exhausted");
    assert_eq!(exhausted["retry_decision_reason"], "plugin_error");
    assert_eq!(site.last_event("job.failed").await["message"], "Job failed [echo]: it broke");
}

#[tokio::test]
async fn a_failure_that_is_not_retryable_ends_at_once_with_its_class() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let job = running(&site, &mut claims, job("echo")).await;
    assert_eq!(site.finish(&job, failed(FailureReason::PluginRetryFalse)).await, stored(JobStatus::Failed));
    let event = site.last_event("job.retry_exhausted").await;
    assert_eq!(event["reason"], "plugin_retry_false");
    assert!(!event.contains_key("retry_decision_reason"));
    assert_eq!(site.one::<String>("SELECT last_error FROM job_queue"), "it broke");
}

#[tokio::test]
async fn an_exhausted_timeout_is_told_apart_and_one_without_a_process_is_not_called_exhausted() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let once = NewJob { max_attempts: 1, ..job("echo") };
    let job = running(&site, &mut claims, once.clone()).await;
    assert_eq!(site.finish(&job, failed(FailureReason::Timeout)).await, stored(JobStatus::TimedOut));
    assert_eq!(site.last_event("job.timed_out").await["text"], "Job timed out [echo]");
    let job = running(&site, &mut claims, once).await;
    let end = Finalise { spawned: false, ..site.end_of(&job, failed(FailureReason::PreflightError)) };
    site.store.finalise(end).await.unwrap();
    assert_eq!(site.events().await.iter().filter(|kind| **kind == "job.retry_exhausted").count(), 1);
}

#[tokio::test]
async fn an_outcome_is_stored_while_there_is_no_actor() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let job = running(&site, &mut claims, job("echo")).await;
    site.link.clear();
    assert_eq!(site.finish(&job, succeeded()).await, stored(JobStatus::Succeeded));
    assert_eq!(site.queue.depth(), 0);
}

#[tokio::test]
async fn a_skipped_job_says_why_and_is_not_retried() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let job = running(&site, &mut claims, job("echo")).await;
    let skipped = AttemptOutcome::Skipped { reason: "if condition evaluated false".into() };
    let end = Finalise { result: None, stderr: None, spawned: false, ..site.end_of(&job, skipped) };
    assert_eq!(site.store.finalise(end).await.unwrap(), stored(JobStatus::Skipped));
    assert_eq!(
        site.one::<String>("SELECT result FROM job_log"),
        r#"{"status":"skipped","reason":"if condition evaluated false"}"#
    );
    assert_eq!(site.one::<String>("SELECT last_error FROM job_queue"), "if condition evaluated false");
    assert_eq!(site.last_event("job.skipped").await["reason"], "if condition evaluated false");
}

#[tokio::test]
async fn an_interrupted_attempt_comes_back_at_once_or_is_dead() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let job = running(&site, &mut claims, NewJob { max_attempts: 2, ..job("echo") }).await;
    let shutdown = AttemptOutcome::Interrupted(InterruptKind::Shutdown);
    assert_eq!(site.finish(&job, shutdown.clone()).await, stored(JobStatus::Queued));
    let job = claim(&mut claims).await;
    assert_eq!(job.attempt, 2);
    assert_eq!(site.finish(&job, shutdown).await, stored(JobStatus::Dead));
    assert_eq!(
        site.column("SELECT status || ': ' || last_error FROM job_log ORDER BY attempt"),
        [
            "failed: attempt 1 interrupted: gateway shutdown",
            "dead: Job marked dead during shutdown: max attempts (2) reached"
        ]
    );
    assert_eq!(site.last_event("job.failed").await["status"], "dead");
}

#[tokio::test]
async fn a_panic_in_the_handling_of_a_job_is_retried_after_the_delay() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let job = running(&site, &mut claims, job("echo")).await;
    let kind = InterruptKind::InternalError { backoff_base: Duration::from_secs(4) };
    site.finish(&job, AttemptOutcome::Interrupted(kind)).await;
    assert_eq!(site.one::<String>("SELECT last_error FROM job_queue"), "attempt 1 interrupted: internal error");
    assert_eq!(site.one::<String>("SELECT next_retry_at FROM job_queue"), "2026-01-02 03:04:09.500000000Z");
    assert_eq!(site.last_event("job.retry_scheduled").await["reason"], "interrupted");
}

#[tokio::test]
async fn a_poll_of_the_scheduler_tells_its_end_once_it_is_terminal() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let scheduled = NewJob {
        submitted_by: Producer::Scheduler("ductile".into()),
        max_attempts: 2,
        ..keyed("echo", "echo:poll:hourly")
    };
    let job = running(&site, &mut claims, scheduled).await;
    site.finish(&job, failed(FailureReason::PluginError)).await;
    assert_eq!(site.events().await, ["job.retry_scheduled"]);
    site.advance(10);
    let job = claim(&mut claims).await;
    site.finish(&job, failed(FailureReason::PluginError)).await;
    assert_eq!(site.events().await[1..], ["job.retry_exhausted", "job.failed", "poll.completed"]);
    let poll = site.last_event("poll.completed").await;
    assert_eq!((poll["schedule_id"].as_str(), poll["outcome"].as_str()), (Some("hourly"), Some("failed")));
    assert_eq!(poll["error"], "it broke");
}

#[tokio::test]
async fn state_is_merged_by_top_level_key_and_keeps_every_digit() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    for update in [r#"{"a": 1, "n": 90071992547409931234567890.50}"#, r#"{"a": {"b": null}, "c": []}"#, "{}"] {
        let job = running(&site, &mut claims, job("echo")).await;
        site.finish(&job, with_state(update, &[])).await;
    }
    assert_eq!(
        site.one::<String>("SELECT state FROM plugin_state"),
        r#"{"a":{"b":null},"n":90071992547409931234567890.50,"c":[]}"#
    );
    assert_eq!(site.one::<i64>("SELECT count(*) FROM plugin_facts"), 0);
}

#[tokio::test]
async fn facts_are_numbered_without_gaps_and_the_newest_one_replaces_the_state() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(2)).await;
    for n in 0..6 {
        let plugin = if n % 2 == 0 { "left" } else { "right" };
        let job = running(&site, &mut claims, job(plugin)).await;
        site.finish(&job, with_state(&format!("{{\"n\": {n}}}"), &["x.snapshot", "x.copy"])).await;
    }
    let seqs = site.column("SELECT CAST(seq AS TEXT) FROM plugin_facts ORDER BY rowid");
    assert_eq!(seqs, (1..=12).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(site.one::<i64>("SELECT value FROM storage_sequences WHERE name = 'plugin_facts'"), 12);
    assert_eq!(
        site.column("SELECT fact_type FROM plugin_facts WHERE seq IN (1, 2) ORDER BY seq"),
        ["x.snapshot", "x.copy"]
    );
    assert_eq!(site.column("SELECT state FROM plugin_state ORDER BY plugin_name"), [r#"{"n":4}"#, r#"{"n":5}"#]);
}

#[tokio::test]
async fn a_state_that_is_too_large_fails_the_attempt_and_leaves_everything_as_it_was() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let first = running(&site, &mut claims, job("echo")).await;
    site.finish(&first, with_state(r#"{"kept":true}"#, &["f"])).await;
    let large = format!("{{\"blob\":\"{}\"}}", "x".repeat(1 << 20));
    for fact_types in [&["f"][..], &[]] {
        let job = running(&site, &mut claims, job("echo")).await;
        assert_eq!(site.finish(&job, with_state(&large, fact_types)).await, stored(JobStatus::Failed));
    }
    assert_eq!(
        site.column("SELECT DISTINCT last_error FROM job_queue WHERE status = 'failed'"),
        ["plugin state exceeds max size (1048576 bytes)"]
    );
    assert_eq!(site.one::<String>("SELECT state FROM plugin_state"), r#"{"kept":true}"#);
    assert_eq!(site.one::<i64>("SELECT count(*) FROM plugin_facts"), 1);
    assert_eq!(site.one::<i64>("SELECT value FROM storage_sequences"), 1);
    assert_eq!(site.last_event("job.retry_exhausted").await["reason"], "state_error");
}

#[tokio::test]
async fn many_small_updates_may_not_add_up_to_more_than_the_limit() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let half = "x".repeat(600_000);
    let first = running(&site, &mut claims, job("echo")).await;
    assert_eq!(
        site.finish(&first, with_state(&format!("{{\"a\":\"{half}\"}}"), &[])).await,
        stored(JobStatus::Succeeded)
    );
    let second = running(&site, &mut claims, job("echo")).await;
    assert_eq!(
        site.finish(&second, with_state(&format!("{{\"b\":\"{half}\"}}"), &[])).await,
        stored(JobStatus::Failed)
    );
}

#[tokio::test]
async fn a_counter_that_fell_behind_is_raised_at_the_start() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let job_one = running(&site, &mut claims, job("echo")).await;
    site.finish(&job_one, with_state(r#"{"n":1}"#, &["f", "g", "h"])).await;
    site.other().execute("UPDATE storage_sequences SET value = 1", []).unwrap();
    let site = site.reopen().await;
    assert_eq!(site.one::<i64>("SELECT value FROM storage_sequences"), 3);
    site.other().execute("DELETE FROM storage_sequences", []).unwrap();
    let mut claims = site.activate(policy(1)).await;
    let job_two = running(&site, &mut claims, job("echo")).await;
    site.finish(&job_two, with_state(r#"{"n":2}"#, &["f"])).await;
    assert_eq!(site.one::<i64>("SELECT max(seq) FROM plugin_facts"), 4);
}

#[tokio::test]
async fn recovery_brings_back_what_ran_and_buries_what_had_no_attempt_left() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(3)).await;
    let twice = running(&site, &mut claims, job("echo")).await;
    let once = running(&site, &mut claims, NewJob { max_attempts: 1, ..job("echo") }).await;
    // The process is gone; the next one finds both rows running.
    let site = site.reopen().await;
    assert_eq!(site.store.jobs_with_leftovers().await.unwrap(), [twice.id.clone(), once.id.clone()]);
    let recovered = site.store.recover(None).await.unwrap();
    assert_eq!(
        recovered,
        [
            Recovered { job: twice.id.clone(), attempt: 1, status: JobStatus::Queued },
            Recovered { job: once.id.clone(), attempt: 1, status: JobStatus::Dead },
        ]
    );
    assert_eq!(
        site.column("SELECT status || ' ' || attempt || ' ' || last_error FROM job_queue ORDER BY rowid"),
        [
            "queued 2 attempt 1 interrupted: gateway stopped while it was running",
            "dead 1 Job marked dead during crash recovery: max attempts (1) reached",
        ]
    );
    assert_eq!(site.column("SELECT status FROM job_log ORDER BY id"), ["failed", "dead"]);
    let event = site.last_event("job.failed").await;
    assert_eq!((event["recovery"].as_bool(), event["job_id"].as_str()), (Some(true), Some(once.id.as_str())));
    assert_eq!(site.store.recover(None).await.unwrap(), []);
    assert_eq!(site.finish(&twice, succeeded()).await, Finalised::Stale);
    let mut claims = site.activate(policy(1)).await;
    let again = claim(&mut claims).await;
    assert_eq!((again.id, again.attempt), (twice.id, 2));
}

#[tokio::test]
async fn whoever_hears_of_an_end_finds_it_stored() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let mut live = site.hub.subscribe(0).live;
    // A reader of its own, as fast as it can: it must never be ahead of the commit.
    let reader = site.other();
    let listening = std::thread::spawn(move || {
        let mut seen = Vec::new();
        while let Some(record) = live.blocking_recv() {
            let id = record.data["job_id"].as_str().unwrap_or_default().to_owned();
            let sql = "SELECT status FROM job_queue WHERE id = ?1";
            let status: String = reader.query_row(sql, [&id], |row| row.get(0)).unwrap_or_default();
            seen.push((record.kind, status));
        }
        seen
    });
    for _ in 0..50 {
        let job = running(&site, &mut claims, job("echo")).await;
        site.finish(&job, succeeded()).await;
    }
    let Site { hub, store, link, queue, .. } = site;
    store.close().await;
    drop((hub, store, link, queue));
    let seen = listening.join().unwrap();
    let ends: Vec<_> = seen.iter().filter(|(kind, _)| *kind == "job.completed").collect();
    assert_eq!(ends.len(), 50, "{seen:?}");
    assert!(ends.iter().all(|(_, status)| status == "succeeded"), "{seen:?}");
    let queued = seen.iter().filter(|(kind, _)| *kind == "job.enqueued");
    assert!(queued.clone().count() == 50 && queued.into_iter().all(|(_, status)| !status.is_empty()), "{seen:?}");
}

#[tokio::test]
async fn a_delay_beyond_all_times_keeps_the_job_waiting() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    for base in [Duration::from_secs(300 * 366 * 24 * 3600), Duration::MAX] {
        let id = site.enqueue(job("echo")).await;
        let claimed = claim(&mut claims).await;
        assert_eq!(claimed.id, id);
        let outcome =
            AttemptOutcome::Failed { reason: FailureReason::PluginError, error: "it broke".into(), backoff_base: base };
        assert_eq!(site.finish(&claimed, outcome).await, stored(JobStatus::Queued));
        nothing_claimed(&site, &mut claims).await;
        // Read anew from the rows.
        site.other().execute("UPDATE job_queue SET last_error = last_error", []).unwrap();
        nothing_claimed(&site, &mut claims).await;
    }
    let due = site.column("SELECT DISTINCT next_retry_at FROM job_queue");
    assert_eq!(due, ["2262-04-11 23:47:16.854775807Z"]);
}
