use super::*;
use crate::{FoundJob, InspectPart, JobFilter, LogFilter, Reader};

fn all(limit: u32) -> JobFilter {
    JobFilter { limit, ..JobFilter::default() }
}

#[tokio::test]
async fn pages_follow_each_other_without_repeats_or_holes_while_jobs_are_added() {
    let site = Site::new().await;
    let mut posted = Vec::new();
    for n in 0..7 {
        posted.push(site.enqueue(job("echo")).await);
        if n % 2 == 0 {
            site.advance(1);
        }
    }
    posted.reverse();
    let mut seen = Vec::new();
    let mut filter = all(3);
    loop {
        let page = site.queue.jobs(filter.clone()).await.unwrap();
        seen.extend(page.jobs.into_iter().map(|job| job.id));
        site.enqueue(job("later")).await;
        site.advance(1);
        match page.next {
            Some(next) => filter.after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, posted);
}

#[tokio::test]
async fn filters_are_exact_and_the_total_counts_all_pages() {
    let site = Site::new().await;
    for path in ["/x", "/y"] {
        site.enqueue(NewJob { submitted_by: Producer::Webhook(path.into()), ..job("echo") }).await;
    }
    site.advance(10);
    site.enqueue(NewJob { command: "handle".into(), ..job("webhook") }).await;
    let total = async |filter: JobFilter| site.queue.jobs(filter).await.unwrap().total;
    assert_eq!(total(all(1)).await, 3);
    assert_eq!(total(JobFilter { submitted_by: Some("webhook".into()), ..all(9) }).await, 2);
    assert_eq!(total(JobFilter { submitted_by: Some("webhook:/x".into()), ..all(9) }).await, 1);
    assert_eq!(total(JobFilter { submitted_by: Some("web".into()), ..all(9) }).await, 0);
    assert_eq!(total(JobFilter { command: Some("handle".into()), ..all(9) }).await, 1);
    assert_eq!(total(JobFilter { plugin: Some("echo".into()), status: Some(JobStatus::Queued), ..all(9) }).await, 2);
    assert_eq!(total(JobFilter { from: Some(site.clock.now()), ..all(9) }).await, 1);
    assert_eq!(total(JobFilter { to: Some(site.clock.now() - TimeDelta::seconds(10)), ..all(9) }).await, 2);
}

#[tokio::test]
async fn a_pruned_job_is_shown_from_its_newest_log_row() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let id = site.enqueue(NewJob { max_attempts: 2, ..job("echo") }).await;
    let first = claim(&mut claims).await;
    site.finish(&first, failed(FailureReason::Timeout)).await;
    site.advance(60);
    let second = claim(&mut claims).await;
    site.finish(&second, succeeded()).await;
    assert_eq!(site.queue.depth(), 0);
    site.other().execute("DELETE FROM job_queue", []).unwrap();
    let view = site.queue.job(&id).await.unwrap().unwrap();
    assert!(view.from_log);
    assert_eq!((view.status, view.attempt, view.max_attempts), (JobStatus::Succeeded, 2, None));
    assert_eq!(view.result.as_deref(), Some(r#"{"status":"ok","result":"done"}"#));
    let attempts = site.queue.attempts(&id).await.unwrap();
    assert_eq!(attempts.iter().map(|row| row.status.as_str()).collect::<Vec<_>>(), ["timed_out", "succeeded"]);
    assert!(site.queue.job(&JobId::from("no such job")).await.unwrap().is_none());
}

#[tokio::test]
async fn a_time_that_can_not_be_read_is_absent_and_fails_no_listing() {
    let site = Site::new().await;
    let id = site.enqueue(job("echo")).await;
    site.other().execute("UPDATE job_queue SET created_at = 'yesterday'", []).unwrap();
    let page = site.queue.jobs(all(9)).await.unwrap();
    assert_eq!((page.jobs[0].id.clone(), page.jobs[0].created_at), (id, None));
}

#[tokio::test]
async fn a_command_finds_jobs_by_the_start_or_the_end_of_their_ids() {
    let site = Site::new().await;
    let one = site.enqueue(job("echo")).await;
    let two = site.enqueue(job("echo")).await;
    let reader = Reader::open(&site.path()).unwrap();
    let text = one.as_str();
    assert_eq!(reader.find_job(text).unwrap(), FoundJob::One(one.clone()));
    assert_eq!(reader.find_job(&text[text.len() - 8..]).unwrap(), FoundJob::One(one.clone()));
    assert_eq!(reader.find_job(&text[text.len() - 8..].to_uppercase()).unwrap(), FoundJob::One(one.clone()));
    assert_eq!(reader.find_job(&text[text.len() - 7..]).unwrap(), FoundJob::None);
    assert_eq!(reader.find_job("ffffffff").unwrap(), FoundJob::None);
    let shared: String = text.chars().zip(two.as_str().chars()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
    assert!(matches!(reader.find_job(&shared[..8]).unwrap(), FoundJob::Several(found) if found.len() == 2));
}

#[tokio::test]
async fn a_command_sees_everything_about_a_job() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    site.other()
        .execute_batch(
            "INSERT INTO event_context VALUES ('c1', NULL, '', '', '{\"a\":1}', '2026-01-02 03:04:05.000000000Z'),
                 ('c2', 'c1', 'pipe', 'save', '{\"a\":1,\"b\":2}', '2026-01-02 03:04:05.000000000Z')",
        )
        .unwrap();
    let parent = site.enqueue(NewJob { event_context_id: Some("c1".into()), ..job("reader") }).await;
    let running = claim(&mut claims).await;
    site.finish(&running, with_state(r#"{"n":1}"#, &["x.one", "x.two"])).await;
    let child = site
        .enqueue(NewJob {
            submitted_by: Producer::Route,
            parent_job_id: Some(parent.clone()),
            event_context_id: Some("c2".into()),
            ..job("writer")
        })
        .await;
    let reader = Reader::open(&site.path()).unwrap();
    let seen = reader.inspect(&parent, &[InspectPart::Log, InspectPart::Caused]).unwrap().unwrap();
    let states: Vec<_> = seen.transitions.into_iter().map(|row| row.to_status).collect();
    assert_eq!(states, ["queued", "running", "succeeded"]);
    assert_eq!((seen.job.id, seen.attempts.len()), (parent.clone(), 1));
    assert_eq!(seen.log.unwrap()[0].stderr.as_deref(), Some("a line"));
    assert_eq!((&seen.children[0].id, &seen.caused.unwrap()[0].job.id), (&child, &child));
    let facts: Vec<_> = seen.facts.into_iter().map(|row| (row.seq, row.fact_type)).collect();
    assert_eq!(facts, [(Some(1), "x.one".to_owned()), (Some(2), "x.two".to_owned())]);
    let seen = reader.inspect(&child, &[]).unwrap().unwrap();
    assert!(seen.log.is_none() && seen.caused.is_none(), "nobody asked for them");
    let chain = seen.contexts;
    let steps: Vec<_> = chain.iter().map(|row| (row.id.as_str(), row.step_id.as_str())).collect();
    assert_eq!(steps, [("c1", ""), ("c2", "save")]);
    assert_eq!(chain[1].job.as_ref().map(|job| job.id.clone()), Some(child.clone()));
    assert!(reader.inspect(&JobId::generate(), &[]).unwrap().is_none());
    assert_eq!(reader.plugin_state("reader").unwrap().as_deref(), Some(r#"{"n":1}"#));
    let tree = reader.tree(&parent).unwrap().unwrap();
    assert_eq!(tree.iter().map(|node| node.step_id.as_str()).collect::<Vec<_>>(), ["", "save"]);
}

#[tokio::test]
async fn a_search_of_the_log_takes_wildcards_literally() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    for error in ["100%", "100x", "A_b"] {
        site.enqueue(job("echo")).await;
        let running = claim(&mut claims).await;
        let outcome = AttemptOutcome::Failed {
            reason: FailureReason::ExitCode78,
            error: error.to_owned(),
            backoff_base: Duration::ZERO,
        };
        site.advance(1);
        site.finish(&running, outcome).await;
    }
    let reader = Reader::open(&site.path()).unwrap();
    let search = |query: &str| LogFilter { query: Some(query.into()), limit: 50, ..LogFilter::default() };
    assert_eq!(reader.logs(&search("100%")).unwrap().0, 1);
    assert_eq!(reader.logs(&search("a_B")).unwrap().0, 1);
    assert_eq!(reader.logs(&search("\\")).unwrap().0, 0);
    assert_eq!(reader.logs(&search("DONE")).unwrap().0, 3);
    let (total, rows) = reader.logs(&LogFilter { limit: 2, ..LogFilter::default() }).unwrap();
    assert_eq!((total, rows.len()), (3, 2));
    assert_eq!(rows[0].last_error.as_deref(), Some("A_b"), "newest first");
    assert_eq!(rows[0].result, None);
    let filter = LogFilter {
        include_result: true,
        to: Some(site.clock.now() - TimeDelta::seconds(1)),
        limit: 9,
        ..LogFilter::default()
    };
    let (total, rows) = reader.logs(&filter).unwrap();
    assert_eq!(total, 2);
    assert!(rows[0].result.is_some());
    assert_eq!(
        reader.logs(&LogFilter { submitted_by: Some("ap".into()), limit: 9, ..LogFilter::default() }).unwrap().0,
        0
    );
}
