use super::*;
use crate::{CancelTarget, RetryFilter, RetryReport, RetryRequest, RetryScope, RetrySelection, RetrySkip};

fn request(selection: RetrySelection) -> RetryRequest {
    RetryRequest {
        selection,
        scope: RetryScope::Unresolved,
        per_second: 2,
        limit: 100,
        attempts: Arc::new(|plugin, _| (plugin != "gone").then_some(3)),
    }
}

fn all_of(plugin: &str) -> RetrySelection {
    RetrySelection::Matching(RetryFilter { plugin: Some(plugin.to_owned()), ..RetryFilter::default() })
}

async fn ended(site: &Site, claims: &mut UnboundedReceiver<ClaimedJob>, new: NewJob, outcome: AttemptOutcome) -> JobId {
    let id = site.enqueue(new).await;
    let claimed = claim(claims).await;
    assert_eq!(claimed.id, id);
    site.finish(&claimed, outcome).await;
    id
}

fn originals(report: &RetryReport) -> Vec<JobId> {
    report.retried.iter().map(|retried| retried.original.clone()).collect()
}

fn final_failure() -> AttemptOutcome {
    failed(FailureReason::ExitCode78)
}

#[tokio::test]
async fn a_retry_is_a_new_job_with_the_same_input_that_tells_what_it_came_from() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let parent = ended(&site, &mut claims, job("root"), succeeded()).await;
    let new = NewJob {
        parent_job_id: Some(parent.clone()),
        source_event_id: Some("e1".into()),
        event_context_id: Some("c1".into()),
        payload: Some(r#"{"n": 1.50}"#.into()),
        ..keyed("echo", "k")
    };
    let original = ended(&site, &mut claims, new, final_failure()).await;
    let report = site.store.retry(request(RetrySelection::Jobs(vec![original.clone()]))).await.unwrap();
    let retry = report.retried[0].job.clone().unwrap();
    assert_eq!((report.skipped.len(), report.more), (0, false));
    assert_eq!(
        site.column(&format!(
            "SELECT status || '|' || payload || '|' || submitted_by || '|' || max_attempts || '|' || attempt || '|' ||
                    parent_job_id || '|' || event_context_id || '|' || source_event_id || '|' ||
                    (dedupe_key IS NULL) || '|' || (enqueued_config_snapshot_id IS NOT NULL)
             FROM job_queue WHERE id = '{retry}'"
        )),
        [format!(r#"running|{{"n": 1.50}}|api|3|1|{parent}|c1|retry:{original}/{retry}|1|1"#)],
    );
    assert_eq!(site.column(&format!("SELECT status FROM job_queue WHERE id = '{original}'")), ["failed"]);
    assert_eq!(site.last_event("job.enqueued").await["job_id"], retry.as_str());
    assert_eq!(claim(&mut claims).await.id, retry);
}

#[tokio::test]
async fn what_is_not_retried_is_named_with_its_reason() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let good = ended(&site, &mut claims, job("echo"), succeeded()).await;
    let pruned = ended(&site, &mut claims, job("echo"), final_failure()).await;
    site.other().execute("DELETE FROM job_queue WHERE id = ?1", [pruned.as_str()]).unwrap();
    let unavailable = ended(&site, &mut claims, job("gone"), final_failure()).await;
    let active = site.enqueue(job("echo")).await;
    claim(&mut claims).await;
    let unknown = JobId::generate();
    let ids = [&good, &pruned, &unavailable, &active, &unknown].map(Clone::clone).to_vec();
    let before: i64 = site.one("SELECT count(*) FROM job_queue");
    let report = site.store.retry(request(RetrySelection::Jobs(ids))).await.unwrap();
    assert!(report.retried.is_empty());
    assert_eq!(
        report.skipped,
        [
            (good.clone(), RetrySkip::NotFailed(JobStatus::Succeeded)),
            (pruned, RetrySkip::PayloadGone),
            (unavailable, RetrySkip::PluginUnavailable),
            (active, RetrySkip::Active(JobStatus::Running)),
            (unknown, RetrySkip::NotFound),
        ]
    );
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_queue"), before);
    let forced = RetryRequest { scope: RetryScope::Any, ..request(RetrySelection::Jobs(vec![good.clone()])) };
    assert_eq!(originals(&site.store.retry(forced).await.unwrap()), [good]);
}

#[tokio::test]
async fn filters_find_what_went_wrong_oldest_first_and_a_second_run_retries_nothing_twice() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let mut wrong = Vec::new();
    for outcome in [final_failure(), failed(FailureReason::Timeout), final_failure()] {
        site.advance(10);
        wrong.push(ended(&site, &mut claims, NewJob { max_attempts: 1, ..job("echo") }, outcome).await);
    }
    ended(&site, &mut claims, job("echo"), succeeded()).await;
    ended(&site, &mut claims, job("other"), final_failure()).await;

    let planned = site.store.plan_retry(request(all_of("echo")), site.clock.now()).await.unwrap();
    assert_eq!(originals(&planned), wrong);
    assert!(planned.retried.iter().all(|retried| retried.job.is_none()));
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_queue WHERE status = 'queued'"), 0);

    let since = Some(site.clock.now() - TimeDelta::seconds(10));
    let late = RetryFilter { plugin: Some("echo".into()), since, ..RetryFilter::default() };
    let planned = site.store.plan_retry(request(RetrySelection::Matching(late)), site.clock.now()).await.unwrap();
    assert_eq!(originals(&planned), wrong[1..]);
    let timeouts = RetryFilter { statuses: vec![JobStatus::TimedOut], ..RetryFilter::default() };
    let planned = site.store.plan_retry(request(RetrySelection::Matching(timeouts)), site.clock.now()).await.unwrap();
    assert_eq!(originals(&planned), [wrong[1].clone()]);

    let limited = RetryRequest { limit: 2, ..request(all_of("echo")) };
    let report = site.store.retry(limited).await.unwrap();
    assert_eq!((originals(&report), report.more), (wrong[..2].to_vec(), true));
    let again = site.store.retry(RetryRequest { limit: 2, ..request(all_of("echo")) }).await.unwrap();
    assert_eq!((originals(&again), again.more), (wrong[2..].to_vec(), false), "the same request goes on");
    assert!(again.skipped.is_empty(), "{again:?}");
    let named = site.store.retry(request(RetrySelection::Jobs(wrong[..1].to_vec()))).await.unwrap();
    let first_retry = report.retried[0].job.clone().unwrap();
    assert_eq!(named.skipped, [(wrong[0].clone(), RetrySkip::AlreadyRetried(first_retry))]);
}

#[tokio::test]
async fn a_retry_that_went_wrong_is_retried_itself_and_not_its_original_again() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let original = ended(&site, &mut claims, job("echo"), final_failure()).await;
    let first = site.store.retry(request(all_of("echo"))).await.unwrap().retried[0].job.clone().unwrap();
    let claimed = claim(&mut claims).await;
    site.finish(&claimed, final_failure()).await;
    let both = RetrySelection::Jobs(vec![original.clone(), first.clone()]);
    let planned = site.store.plan_retry(request(both), site.clock.now()).await.unwrap();
    assert_eq!(originals(&planned), std::slice::from_ref(&first));
    assert_eq!(planned.skipped, [(original, RetrySkip::AlreadyRetried(first.clone()))]);
    assert_eq!(originals(&site.store.retry(request(all_of("echo"))).await.unwrap()), [first]);
}

#[tokio::test]
async fn jobs_of_a_pipeline_are_found_by_their_context() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    site.other()
        .execute(
            "INSERT INTO event_context VALUES ('c1', NULL, 'nightly', 's', '{}', '2026-01-02 03:04:05.000000000Z')",
            [],
        )
        .unwrap();
    let inside = NewJob { event_context_id: Some("c1".into()), ..job("echo") };
    let inside = ended(&site, &mut claims, inside, final_failure()).await;
    ended(&site, &mut claims, job("echo"), final_failure()).await;
    let filter = RetryFilter { pipeline: Some("nightly".into()), ..RetryFilter::default() };
    let planned = site.store.plan_retry(request(RetrySelection::Matching(filter)), site.clock.now()).await.unwrap();
    assert_eq!(originals(&planned), [inside]);
}

#[tokio::test]
async fn many_come_due_one_after_the_other_also_after_a_restart() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(8)).await;
    for _ in 0..250 {
        ended(&site, &mut claims, job("echo"), final_failure()).await;
    }
    let report = site.store.retry(RetryRequest { limit: 1000, ..request(all_of("echo")) }).await.unwrap();
    assert_eq!(report.retried.len(), 250);
    let start = site.clock.now();
    let offsets: Vec<i64> = report.retried.iter().map(|r| (r.due_at - start).num_milliseconds()).collect();
    assert_eq!(offsets, (0..250).map(|n| n * 500).collect::<Vec<_>>());
    let first = claim(&mut claims).await;
    assert_eq!(first.id, report.retried[0].job.clone().unwrap());
    nothing_claimed(&site, &mut claims).await;

    let site = site.reopen().await;
    site.store.recover(None).await.unwrap();
    // The clock of the new store begins where the first began.
    site.clock.advance(start + TimeDelta::seconds(1) - site.clock.now());
    let mut claims = site.activate(policy(8)).await;
    // The recovered one, and those of half a second and of a second.
    for _ in 0..3 {
        claim(&mut claims).await;
    }
    nothing_claimed(&site, &mut claims).await;
}

#[tokio::test]
async fn a_cancelled_job_can_be_retried() {
    let site = Site::new().await;
    let id = site.enqueue(job("echo")).await;
    site.store.cancel(CancelTarget::Job(id.clone()), "cancelled by api".into()).await.unwrap();
    assert_eq!(originals(&site.store.retry(request(RetrySelection::Jobs(vec![id.clone()]))).await.unwrap()), [id]);
}

#[tokio::test]
async fn named_jobs_that_are_left_alone_do_not_use_up_the_limit() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let mut wrong = Vec::new();
    for _ in 0..3 {
        wrong.push(ended(&site, &mut claims, job("echo"), final_failure()).await);
    }
    let two = || RetryRequest { limit: 2, ..request(RetrySelection::Jobs(wrong.clone())) };
    let report = site.store.retry(two()).await.unwrap();
    assert_eq!((originals(&report), report.more), (wrong[..2].to_vec(), true));
    let report = site.store.retry(two()).await.unwrap();
    assert_eq!((originals(&report), report.skipped.len(), report.more), (wrong[2..].to_vec(), 2, false));
}

/// Failed jobs of a plugin in one statement, each a millisecond older than the next.
fn insert_failed(site: &Site, plugin: &str, day: u32, count: usize) {
    let sql = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
         INSERT INTO job_queue (id, plugin, command, status, submitted_by, created_at, completed_at, parent_job_id)
         SELECT printf('{plugin}-%05d', i), '{plugin}', 'poll', CASE i % 2 WHEN 0 THEN 'failed' ELSE 'dead' END, 'api',
                printf('2026-01-{day:02} 00:00:00.%09dZ', i / 3), '2026-01-02 00:00:00.000000000Z',
                CASE i % 4 WHEN 0 THEN 'parent' END
         FROM n"
    );
    site.other().execute(&sql, []).unwrap();
}

#[tokio::test]
async fn jobs_that_can_not_run_hold_nothing_up_and_asking_again_gets_to_the_end() {
    let site = Site::new().await;
    insert_failed(&site, "gone", 1, 1200);
    insert_failed(&site, "echo", 2, 1200);
    let everything = || RetryRequest {
        limit: 700,
        per_second: 1000,
        ..request(RetrySelection::Matching(RetryFilter { command: Some("poll".into()), ..RetryFilter::default() }))
    };
    let mut seen = Vec::new();
    for (count, more) in [(700, true), (500, false), (0, false)] {
        let report = site.store.retry(everything()).await.unwrap();
        assert_eq!((report.retried.len(), report.more), (count, more));
        assert!(report.skipped.iter().all(|(_, why)| *why == RetrySkip::PluginUnavailable), "{:?}", report.skipped);
        assert_eq!(report.skipped.len(), 1000, "there are more than anybody reads");
        seen.extend(originals(&report));
    }
    let expected: Vec<JobId> = (1..=1200).map(|i| JobId::from(format!("echo-{i:05}"))).collect();
    assert_eq!(seen, expected, "each once, oldest first");
}
