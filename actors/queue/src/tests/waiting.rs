use super::*;
use crate::{TreeNode, TreeWait};

fn ids(nodes: &[TreeNode]) -> Vec<JobId> {
    nodes.iter().map(|node| node.job.id.clone()).collect()
}

async fn complete(queue: &QueueHandle, root: &JobId) -> Vec<TreeNode> {
    match queue.wait_for_tree(root, SOON).await.unwrap() {
        TreeWait::Complete(nodes) => nodes,
        other => panic!("not complete: {other:?}"),
    }
}

#[tokio::test]
async fn a_waiter_is_woken_by_the_end_of_its_job_and_sees_the_result() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let root = site.enqueue(job("echo")).await;
    let running = claim(&mut claims).await;
    let (nodes, _) = tokio::join!(complete(&site.queue, &root), site.finish(&running, succeeded()));
    assert_eq!(ids(&nodes), [root]);
    assert_eq!(nodes[0].job.status, JobStatus::Succeeded);
    assert_eq!(nodes[0].job.result.as_deref(), Some(r#"{"status":"ok","result":"done"}"#));
    assert_eq!(nodes[0].step_id, "");
}

#[tokio::test]
async fn a_job_that_is_over_is_told_at_once_and_an_unknown_one_too() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let root = site.enqueue(job("echo")).await;
    let running = claim(&mut claims).await;
    site.finish(&running, failed(FailureReason::ExitCode78)).await;
    assert_eq!(complete(&site.queue, &root).await[0].job.status, JobStatus::Failed);
    let unknown = site.queue.wait_for_tree(&JobId::generate(), SOON).await.unwrap();
    assert!(matches!(unknown, TreeWait::Unknown));
}

#[tokio::test]
async fn when_time_is_up_the_status_is_told_and_the_job_runs_on() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let root = site.enqueue(job("echo")).await;
    let running = claim(&mut claims).await;
    let waited = site.queue.wait_for_tree(&root, Duration::from_millis(1)).await.unwrap();
    assert!(matches!(waited, TreeWait::TimedOut(JobStatus::Running)), "{waited:?}");
    assert_eq!(site.finish(&running, succeeded()).await, stored(JobStatus::Succeeded));
}

#[tokio::test]
async fn a_retry_does_not_wake_and_the_last_attempt_does() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let root = site.enqueue(job("echo")).await;
    let first = claim(&mut claims).await;
    let waiting = tokio::spawn({
        let (queue, root) = (site.queue.clone(), root.clone());
        async move { complete(&queue, &root).await }
    });
    site.finish(&first, failed(FailureReason::Timeout)).await;
    site.advance(60);
    let second = claim(&mut claims).await;
    assert!(!waiting.is_finished());
    site.finish(&second, succeeded()).await;
    assert_eq!(waiting.await.unwrap()[0].job.attempt, 2);
}

#[tokio::test]
async fn a_tree_is_complete_when_its_last_descendant_is_and_hooks_do_not_belong_to_it() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(9)).await;
    let root = site.enqueue(job("root")).await;
    let child =
        |parent: &JobId, submitted_by| NewJob { submitted_by, parent_job_id: Some(parent.clone()), ..job("child") };
    let one = site.enqueue(child(&root, Producer::Route)).await;
    let two = site.enqueue(child(&one, Producer::Route)).await;
    let hook = site.enqueue(child(&root, Producer::Hook)).await;
    let mut running = BTreeMap::new();
    for _ in 0..4 {
        let job = claim(&mut claims).await;
        running.insert(job.id.to_string(), job);
    }
    let waiting = tokio::spawn({
        let (queue, root) = (site.queue.clone(), root.clone());
        async move { complete(&queue, &root).await }
    });
    for id in [&root, &two] {
        site.finish(&running[id.as_str()], succeeded()).await;
        site.store.write(|_| Ok(())).await.unwrap();
        assert!(!waiting.is_finished());
    }
    let open = site.queue.tree(&root).await.unwrap().unwrap();
    assert_eq!(ids(&open), [root.clone(), one.clone(), two.clone()]);
    site.finish(&running[one.as_str()], succeeded()).await;
    assert_eq!(ids(&waiting.await.unwrap()), [root, one, two]);
    assert_eq!(site.queue.job(&hook).await.unwrap().unwrap().status, JobStatus::Running);
}

#[tokio::test]
async fn many_waiters_of_many_jobs_are_all_woken() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(50)).await;
    let mut waiting = Vec::new();
    for _ in 0..50 {
        let root = site.enqueue(job("echo")).await;
        let queue = site.queue.clone();
        waiting.push(tokio::spawn(async move { complete(&queue, &root).await.len() }));
    }
    for _ in 0..50 {
        let running = claim(&mut claims).await;
        site.finish(&running, succeeded()).await;
    }
    for waiter in waiting {
        assert_eq!(waiter.await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_row_that_somebody_deletes_does_not_leave_its_waiter_alone() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let root = site.enqueue(job("echo")).await;
    claim(&mut claims).await;
    let waiting = tokio::spawn({
        let (queue, root) = (site.queue.clone(), root.clone());
        async move { queue.wait_for_tree(&root, SOON).await.unwrap() }
    });
    site.store.write(|_| Ok(())).await.unwrap();
    site.other().execute("DELETE FROM job_queue", []).unwrap();
    assert!(matches!(waiting.await.unwrap(), TreeWait::Unknown));
}
