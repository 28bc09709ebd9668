use super::*;
use crate::{CancelTarget, Cancelled};

const TEXT: &str = "cancelled by api: not needed";

async fn cancel(site: &Site, id: &JobId) -> Cancelled {
    site.store.cancel(CancelTarget::Job(id.clone()), TEXT.to_owned()).await.unwrap()
}

#[tokio::test]
async fn a_waiting_job_is_dead_at_once_with_its_facts_and_never_claimed() {
    let site = Site::new().await;
    let id = site.enqueue(job("echo")).await;
    assert_eq!(cancel(&site, &id).await, Cancelled::Done { queued: vec![id.clone()], running: vec![] });
    assert_eq!(site.queue.depth(), 0);
    let mut claims = site.activate(policy(2)).await;
    nothing_claimed(&site, &mut claims).await;
    assert_eq!(
        site.column(
            "SELECT status || ' ' || attempt || ' ' || last_error || ' ' || (completed_at IS NOT NULL) FROM job_queue"
        ),
        [format!("dead 1 {TEXT} 1")]
    );
    assert_eq!(
        site.column("SELECT to_status || ' ' || ifnull(reason, '-') FROM job_transitions"),
        ["queued -", &format!("dead {TEXT}")]
    );
    assert_eq!(site.column("SELECT id || ' ' || status FROM job_log"), [format!("{id}-1 dead")]);
    let data = site.last_event("job.failed").await;
    assert_eq!((&data["cancelled"], &data["status"]), (&true.into(), &"dead".into()));
    assert_eq!(cancel(&site, &id).await, Cancelled::NotActive(JobStatus::Dead));
    assert_eq!(cancel(&site, &JobId::generate()).await, Cancelled::Unknown);
}

#[tokio::test]
async fn a_job_that_waits_for_its_retry_can_be_cancelled_too() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    site.enqueue(job("echo")).await;
    let claimed = claim(&mut claims).await;
    site.finish(&claimed, failed(FailureReason::PluginError)).await;
    assert!(matches!(cancel(&site, &claimed.id).await, Cancelled::Done { .. }));
    site.advance(3600);
    nothing_claimed(&site, &mut claims).await;
    assert_eq!(site.queue.depth(), 0);
}

#[tokio::test]
async fn a_running_job_is_dead_its_late_result_is_dropped_and_its_attempt_is_told() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let id = site.enqueue(job("echo")).await;
    let claimed = claim(&mut claims).await;
    assert!(!claimed.cancellation.is_cancelled());
    assert_eq!(cancel(&site, &id).await, Cancelled::Done { queued: vec![], running: vec![id.clone()] });
    site.store.write(|_| Ok(())).await.unwrap();
    assert!(claimed.cancellation.is_cancelled());
    assert_eq!(site.queue.depth(), 0);
    assert_eq!(site.finish(&claimed, with_state(r#"{"n":1}"#, &["fact"])).await, Finalised::Stale);
    assert_eq!(site.column("SELECT status || ' ' || last_error FROM job_queue"), [format!("dead {TEXT}")]);
    assert_eq!(site.one::<i64>("SELECT count(*) FROM plugin_facts"), 0);
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_log"), 1);
}

#[tokio::test]
async fn a_cancelled_job_keeps_its_worker_its_lane_and_its_key_until_its_process_is_gone() {
    let site = Site::new().await;
    let mut policy = policy(2);
    policy.lane_caps.insert("lane".into(), 1);
    let mut claims = site.activate(policy).await;
    let in_lane = site.enqueue(job("lane")).await;
    let with_key = site.enqueue(keyed("echo", "k")).await;
    let (in_lane_claim, with_key_claim) = (claim(&mut claims).await, claim(&mut claims).await);
    cancel(&site, &in_lane).await;
    cancel(&site, &with_key).await;
    // Both workers are still taken.
    let (next_in_lane, next_with_key, other) =
        (site.enqueue(job("lane")).await, site.enqueue(keyed("echo", "k")).await, site.enqueue(job("other")).await);
    nothing_claimed(&site, &mut claims).await;
    assert_eq!(site.queue.depth(), 3);
    // Another process writes: the rows are read anew, and they do not tell of the processes.
    site.other().execute("UPDATE job_queue SET last_error = last_error", []).unwrap();
    nothing_claimed(&site, &mut claims).await;

    site.finish(&with_key_claim, succeeded()).await;
    // The lane of the first is still taken; the key is free now.
    let claimed = claim(&mut claims).await;
    assert_eq!(claimed.id, next_with_key);
    nothing_claimed(&site, &mut claims).await;
    site.finish(&claimed, succeeded()).await;
    let claimed = claim(&mut claims).await;
    assert_eq!(claimed.id, other);
    site.finish(&claimed, succeeded()).await;
    nothing_claimed(&site, &mut claims).await;
    site.finish(&in_lane_claim, succeeded()).await;
    assert_eq!(claim(&mut claims).await.id, next_in_lane);
}

#[tokio::test]
async fn a_key_is_held_within_the_very_commit_that_cancels() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(2)).await;
    let first = site.enqueue(keyed("echo", "k")).await;
    let claimed = claim(&mut claims).await;
    // Queued by hand: the dedupe check would refuse it.
    site.other()
        .execute(
            "INSERT INTO job_queue (id, plugin, command, status, submitted_by, dedupe_key, created_at)
             VALUES ('second', 'echo', 'poll', 'queued', 'cli', 'k', '2026-01-02 03:04:06.000000000Z')",
            [],
        )
        .unwrap();
    nothing_claimed(&site, &mut claims).await;
    cancel(&site, &first).await;
    nothing_claimed(&site, &mut claims).await;
    site.finish(&claimed, succeeded()).await;
    assert_eq!(claim(&mut claims).await.id.as_str(), "second");
}

#[tokio::test]
async fn a_tree_is_cancelled_as_far_as_it_is_active_without_its_hooks() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let root = site.enqueue(job("root")).await;
    let claimed = claim(&mut claims).await;
    site.finish(&claimed, succeeded()).await;
    let child = |by: Producer| NewJob { parent_job_id: Some(root.clone()), submitted_by: by, ..job("child") };
    let running = site.enqueue(child(Producer::Route)).await;
    claim(&mut claims).await;
    let waiting = site.enqueue(child(Producer::Route)).await;
    let hook = site.enqueue(child(Producer::Hook)).await;
    let target = CancelTarget::Tree(root.clone());
    let cancelled = site.store.cancel(target.clone(), TEXT.to_owned()).await.unwrap();
    assert_eq!(cancelled, Cancelled::Done { queued: vec![waiting], running: vec![running] });
    assert_eq!(site.one::<String>(&format!("SELECT status FROM job_queue WHERE id = '{hook}'")), "queued");
    let again = site.store.cancel(target, TEXT.to_owned()).await.unwrap();
    assert_eq!(again, Cancelled::NotActive(JobStatus::Succeeded));
}

#[tokio::test]
async fn the_scheduler_cancels_its_own_jobs_of_a_command_and_no_others() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let own = NewJob { submitted_by: Producer::Scheduler("ductile".into()), ..job("echo") };
    let running = site.enqueue(own.clone()).await;
    claim(&mut claims).await;
    let waiting = site.enqueue(own.clone()).await;
    let api = site.enqueue(job("echo")).await;
    let other = site.enqueue(NewJob { command: "handle".into(), ..own }).await;
    let target = CancelTarget::Scheduled { plugin: "echo".into(), command: "poll".into() };
    let cancelled = site.store.cancel(target, "cancelled by scheduler (if_running=cancel)".into()).await.unwrap();
    assert_eq!(cancelled, Cancelled::Done { queued: vec![waiting], running: vec![running] });
    assert_eq!(
        site.column("SELECT id FROM job_queue WHERE status = 'queued' ORDER BY id"),
        [api.as_str(), other.as_str()]
    );
    assert_eq!(site.last_event("poll.completed").await["status"], "dead");
}

#[tokio::test]
async fn whoever_waits_for_a_tree_is_told_when_it_is_cancelled() {
    let site = Site::new().await;
    let id = site.enqueue(job("echo")).await;
    let (queue, root) = (site.queue.clone(), id.clone());
    let waiter = tokio::spawn(async move { queue.wait_for_tree(&root, SOON).await });
    cancel(&site, &id).await;
    match waiter.await.unwrap().unwrap() {
        crate::TreeWait::Complete(nodes) => assert_eq!(nodes[0].job.status, JobStatus::Dead),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn processes_of_jobs_cancelled_while_they_ran_are_looked_for_after_a_kill() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let ran = site.enqueue(job("echo")).await;
    claim(&mut claims).await;
    let waited = site.enqueue(job("echo")).await;
    cancel(&site, &ran).await;
    cancel(&site, &waited).await;
    let site = site.reopen().await;
    assert_eq!(site.store.jobs_with_leftovers().await.unwrap(), [ran]);
    assert!(site.store.recover(None).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_late_result_of_an_earlier_attempt_does_not_free_what_the_present_one_holds() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let id = site.enqueue(keyed("echo", "k")).await;
    let first = claim(&mut claims).await;
    site.finish(&first, AttemptOutcome::Interrupted(crate::InterruptKind::Shutdown)).await;
    let second = claim(&mut claims).await;
    assert_eq!((second.id.clone(), second.attempt), (id.clone(), 2));
    assert_eq!(site.finish(&first, succeeded()).await, Finalised::Stale);
    cancel(&site, &id).await;
    let next = site.enqueue(job("echo")).await;
    assert_eq!(site.finish(&first, succeeded()).await, Finalised::Stale);
    nothing_claimed(&site, &mut claims).await;
    assert!(second.cancellation.is_cancelled(), "its process is told all the same");
    assert_eq!(site.finish(&second, succeeded()).await, Finalised::Stale);
    assert_eq!(claim(&mut claims).await.id, next);
}
