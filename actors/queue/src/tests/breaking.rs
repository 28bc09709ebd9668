use super::*;
use crate::BreakerPolicy;

fn scheduled(plugin: &str) -> NewJob {
    NewJob { submitted_by: Producer::Scheduler("ductile".into()), direct: false, max_attempts: 1, ..job(plugin) }
}

fn breaking(threshold: u32, reset_after: u64) -> ClaimPolicy {
    let breaker = BreakerPolicy { threshold, reset_after: Duration::from_secs(reset_after) };
    ClaimPolicy { breakers: [("echo".to_owned(), breaker)].into(), ..policy(4) }
}

async fn run(site: &Site, claims: &mut UnboundedReceiver<ClaimedJob>, new: NewJob, outcome: AttemptOutcome) -> JobId {
    let id = match new.submitted_by {
        Producer::Scheduler(_) => schedule(site, new).await.expect("the breaker lets it through"),
        _ => site.enqueue(new).await,
    };
    let claimed = claim(claims).await;
    assert_eq!(claimed.id, id);
    site.finish(&claimed, outcome).await;
    id
}

async fn schedule(site: &Site, new: NewJob) -> Option<JobId> {
    match site.enqueue_scheduled(new).await {
        Some(Enqueued::Queued(id)) => Some(id),
        Some(other) => panic!("{other:?}"),
        None => None,
    }
}

fn breaker(site: &Site) -> String {
    site.one(
        "SELECT state || ' ' || failure_count || ' ' || (opened_at IS NOT NULL) || ' ' || (last_failure_at IS NOT NULL)
         FROM circuit_breakers",
    )
}

fn transitions(site: &Site) -> Vec<String> {
    site.column(
        "SELECT ifnull(from_state, '-') || ' ' || to_state || ' ' || reason || ' ' || failure_count || ' ' || (job_id IS NOT NULL)
         FROM circuit_breaker_transitions ORDER BY id",
    )
}

#[tokio::test]
async fn failures_in_a_row_open_the_breaker_one_probe_tries_and_its_outcome_decides() {
    let site = Site::new().await;
    let mut claims = site.activate(breaking(2, 60)).await;
    run(&site, &mut claims, scheduled("echo"), failed(FailureReason::PluginError)).await;
    assert_eq!(breaker(&site), "closed 1 0 1");
    let opened_by = run(&site, &mut claims, scheduled("echo"), failed(FailureReason::Timeout)).await;
    assert_eq!(breaker(&site), "open 2 1 1");
    assert_eq!(site.one::<String>("SELECT last_job_id FROM circuit_breakers"), opened_by.as_str());
    assert_eq!(site.queue.circuits_open().await.unwrap(), 1);
    let data = site.last_event("scheduler.circuit_state_changed").await;
    assert_eq!(
        (&data["previous_state"], &data["state"], &data["failure_count"]),
        (&"closed".into(), &"open".into(), &2.into())
    );

    site.advance(59);
    assert_eq!(schedule(&site, scheduled("echo")).await, None, "it is open");
    site.advance(1);
    let probe = schedule(&site, scheduled("echo")).await.expect("the pause is over");
    assert_eq!(schedule(&site, scheduled("echo")).await, None, "one probe at a time, while it waits");
    let claimed = claim(&mut claims).await;
    assert_eq!(claimed.id, probe);
    assert_eq!(schedule(&site, scheduled("echo")).await, None, "and while it runs");
    assert_eq!(site.last_event("scheduler.circuit_half_open").await["plugin"], "echo");
    site.finish(&claimed, failed(FailureReason::PluginError)).await;
    assert_eq!(breaker(&site), "open 3 1 1");

    site.advance(60);
    run(&site, &mut claims, scheduled("echo"), succeeded()).await;
    assert_eq!(breaker(&site), "closed 0 0 0");
    assert_eq!(
        transitions(&site),
        [
            "closed open failure_threshold 2 1",
            "open half_open cooldown_elapsed 2 0",
            "half_open open failure_threshold 3 1",
            "open half_open cooldown_elapsed 3 0",
            "half_open closed success 0 1",
        ]
    );
}

#[tokio::test]
async fn a_probe_that_got_lost_does_not_hold_the_breaker_half_open() {
    let site = Site::new().await;
    let mut claims = site.activate(breaking(1, 10)).await;
    run(&site, &mut claims, scheduled("echo"), failed(FailureReason::PluginError)).await;
    site.advance(10);
    let probe = schedule(&site, scheduled("echo")).await.unwrap();
    claim(&mut claims).await;
    site.store.cancel(crate::CancelTarget::Job(probe), "cancelled by api".into()).await.unwrap();
    assert_eq!(breaker(&site), "half_open 1 1 1", "a cancellation does not count");
    assert!(schedule(&site, scheduled("echo")).await.is_some());
}

#[tokio::test]
async fn jobs_of_other_producers_and_attempts_that_are_retried_do_not_count_and_are_not_held_back() {
    let site = Site::new().await;
    let mut claims = site.activate(breaking(1, 60)).await;
    run(&site, &mut claims, NewJob { max_attempts: 1, ..job("echo") }, failed(FailureReason::PluginError)).await;
    run(&site, &mut claims, NewJob { max_attempts: 4, ..scheduled("echo") }, failed(FailureReason::PluginError)).await;
    assert_eq!(site.one::<i64>("SELECT count(*) FROM circuit_breakers"), 0);
    site.other().execute("UPDATE job_queue SET next_retry_at = NULL", []).unwrap();
    let last = claim(&mut claims).await;
    site.finish(&last, failed(FailureReason::ExitCode78)).await;
    assert_eq!(breaker(&site), "open 1 1 1");
    run(&site, &mut claims, job("echo"), succeeded()).await;
    assert_eq!(breaker(&site), "open 1 1 1");
}

#[tokio::test]
async fn a_job_queued_before_it_opened_runs_and_its_failure_does_not_prolong_the_pause() {
    let site = Site::new().await;
    let mut claims = site.activate(breaking(1, 60)).await;
    let (first, second) = (schedule(&site, scheduled("echo")).await, schedule(&site, scheduled("echo")).await);
    assert!(first.is_some() && second.is_some());
    let (first, second) = (claim(&mut claims).await, claim(&mut claims).await);
    site.finish(&first, failed(FailureReason::PluginError)).await;
    let opened: String = site.one("SELECT opened_at FROM circuit_breakers");
    site.advance(5);
    site.finish(&second, failed(FailureReason::PluginError)).await;
    assert_eq!(breaker(&site), "open 2 1 1");
    assert_eq!(site.one::<String>("SELECT opened_at FROM circuit_breakers"), opened);
    assert_eq!(transitions(&site).len(), 1);
}

#[tokio::test]
async fn a_reset_by_another_process_counts_at_once() {
    let site = Site::new().await;
    let mut claims = site.activate(breaking(1, 3600)).await;
    run(&site, &mut claims, scheduled("echo"), failed(FailureReason::PluginError)).await;
    assert_eq!(schedule(&site, scheduled("echo")).await, None);
    site.other()
        .execute("UPDATE circuit_breakers SET state = 'closed', failure_count = 0, opened_at = NULL", [])
        .unwrap();
    assert!(schedule(&site, scheduled("echo")).await.is_some());
}

#[tokio::test]
async fn a_job_that_dies_in_recovery_counts_by_the_rules_of_the_configuration_that_starts() {
    let site = Site::new().await;
    let mut claims = site.activate(breaking(1, 60)).await;
    schedule(&site, scheduled("ductile-plugin")).await.unwrap();
    claim(&mut claims).await;
    let site = site.reopen().await;
    let recovered = site.store.recover(None).await.unwrap();
    assert_eq!(recovered.len(), 1);
    assert_eq!(breaker(&site), "closed 1 0 1");
    let site = site.reopen().await;
    assert!(site.store.recover(None).await.unwrap().is_empty());
    assert_eq!(breaker(&site), "closed 1 0 1", "the same job is never counted twice");
}

#[tokio::test]
async fn a_breaker_that_opened_in_the_future_lets_a_probe_through() {
    let site = Site::new().await;
    let mut claims = site.activate(breaking(1, 60)).await;
    run(&site, &mut claims, scheduled("echo"), failed(FailureReason::PluginError)).await;
    // The clock was a year ahead, and was set right.
    site.other().execute("UPDATE circuit_breakers SET opened_at = '2027-01-02 03:04:05.000000000Z'", []).unwrap();
    assert!(schedule(&site, scheduled("echo")).await.is_some());
}
