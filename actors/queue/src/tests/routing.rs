//! What follows from an end, and starts from outside: rows, contexts, and what is told of them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::{Begun, Ended, Hooks, NewContext, PipelineStart, Successor};

fn context(step: &str) -> NewContext {
    NewContext {
        id: ductile_model::new_id(),
        parent_id: None,
        pipeline: "article".to_owned(),
        step_id: step.to_owned(),
        accumulated: "{}".to_owned(),
    }
}

/// A step that takes an event with this id and key.
fn step(name: &str, by: Producer, parent: Option<&JobId>, event: &str, key: &str) -> Successor {
    let context = context(name);
    let job = NewJob {
        submitted_by: by,
        parent_job_id: parent.cloned(),
        event_id: Some(event.to_owned()),
        source_event_id: Some(event.to_owned()),
        event_context_id: Some(context.id.clone()),
        ..keyed(name, key)
    };
    Successor { job, root: None, context }
}

fn routing(successors: Vec<Successor>) -> AttemptOutcome {
    AttemptOutcome::Succeeded { state: None, routed: Routed { successors, told: Vec::new() } }
}

/// What an event tells, apart from its time.
fn of(data: &serde_json::Map<String, Value>) -> Value {
    let mut data = data.clone();
    data.remove("at").unwrap();
    Value::Object(data)
}

#[tokio::test]
async fn what_follows_is_there_with_the_end_and_each_job_of_it_is_told() {
    let site = Site::new().await;
    site.enqueue(job("source")).await;
    let mut claims = site.activate(policy(1)).await;
    let source = claim(&mut claims).await;
    let next = step("fetch", Producer::Route, Some(&source.id), "e1", "k");
    let carried = next.context.id.clone();
    site.finish(&source, routing(vec![next])).await;
    let fetch = claim(&mut claims).await;
    assert_eq!(fetch.plugin, "fetch");
    assert_eq!(
        of(&site.last_event("router.enqueued").await),
        json!({
            "job_id": fetch.id, "parent_job_id": source.id, "plugin": "fetch", "command": "poll", "pipeline": "article",
            "step_id": "fetch", "event_context_id": carried,
        })
    );

    // An event of the same key, said by a later job: neither job nor context, and told as that.
    site.enqueue(job("source")).await;
    site.finish(&fetch, succeeded()).await;
    let later = claim(&mut claims).await;
    site.finish(&later, routing(vec![step("fetch", Producer::Route, Some(&later.id), "e2", "k")])).await;
    assert_eq!(
        of(&site.last_event("router.deduplicated").await),
        json!({
            "parent_job_id": later.id, "plugin": "fetch", "command": "poll", "pipeline": "article", "step_id": "fetch",
            "existing_job_id": fetch.id,
        })
    );
    assert_eq!(site.one::<i64>("SELECT count(*) FROM event_context"), 1);
}

#[tokio::test]
async fn the_same_event_twice_in_one_answer_makes_one_job_and_is_no_duplicate_by_key() {
    let site = Site::new().await;
    site.enqueue(job("source")).await;
    let mut claims = site.activate(policy(1)).await;
    let source = claim(&mut claims).await;
    let twice = || step("fetch", Producer::Route, Some(&source.id), "e1", "k");
    site.finish(&source, routing(vec![twice(), twice()])).await;
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_queue WHERE plugin = 'fetch'"), 1);
    assert!(!site.events().await.contains(&"router.deduplicated"));
}

#[tokio::test]
async fn a_start_queues_all_of_its_jobs_or_none() {
    let site = Site::new().await;
    let entry = |name: &str| step(name, Producer::Api, None, "e", name);
    let start = |names: &[&str]| PipelineStart {
        pipeline: "article".to_owned(),
        submitted_by: Producer::Api,
        successors: names.iter().map(|name| entry(name)).collect(),
    };
    let Begun::Queued(jobs) = site.queue.start(start(&["a", "b"])).await.unwrap() else {
        panic!("nothing is there yet")
    };
    assert_eq!(
        of(&site.last_event("pipeline.enqueued").await),
        json!({
            "job_id": jobs[0], "job_ids": jobs, "job_count": 2, "pipeline": "article", "submitted_by": "api",
        })
    );
    let again = site.queue.start(start(&["c", "b"])).await.unwrap();
    assert_eq!(again, Begun::Duplicate(vec![(jobs[1].clone(), JobStatus::Queued)]));
    assert_eq!(site.column("SELECT plugin FROM job_queue ORDER BY rowid"), ["a", "b"]);
    assert_eq!(site.one::<i64>("SELECT count(*) FROM event_context"), 2);
    assert_eq!(site.events().await.iter().filter(|kind| **kind == "pipeline.enqueued").count(), 1);
}

/// Raises a job for every end, and writes down what it is told.
#[derive(Debug, Default)]
struct Bell(std::sync::Mutex<Vec<String>>);

impl Hooks for Bell {
    fn raised_by(&self, ended: &Ended<'_>) -> Routed {
        let line = format!("{} {} {:?} {}", ended.plugin, ended.status.as_str(), ended.reason, ended.is_recovery);
        self.0.lock().unwrap().push(line);
        Routed { successors: vec![step("bell", Producer::Hook, Some(ended.job), "h", "")], told: Vec::new() }
    }
}

#[tokio::test]
async fn an_end_for_good_raises_hooks_once_and_an_attempt_that_is_tried_again_none() {
    let site = Site::new().await;
    site.enqueue(NewJob { max_attempts: 2, ..job("source") }).await;
    let mut claims = site.activate(policy(1)).await;
    let bell = Arc::new(Bell::default());
    let first = claim(&mut claims).await;
    let end = |job: &ClaimedJob, outcome| Finalise { hooks: Some(bell.clone()), ..site.end_of(job, outcome) };
    site.store.finalise(end(&first, failed(FailureReason::Timeout))).await.unwrap();
    assert!(bell.0.lock().unwrap().is_empty());
    site.advance(3600);
    let second = claim(&mut claims).await;
    site.store.finalise(end(&second, failed(FailureReason::Timeout))).await.unwrap();
    assert_eq!(*bell.0.lock().unwrap(), ["source timed_out Some(Timeout) false"]);
    assert_eq!(site.column("SELECT submitted_by FROM job_queue WHERE plugin = 'bell'"), ["hook"]);
}

#[tokio::test]
async fn a_start_after_a_kill_raises_the_hooks_of_what_it_finds_dead() {
    let site = Site::new().await;
    site.enqueue(NewJob { max_attempts: 1, ..job("source") }).await;
    let mut claims = site.activate(policy(1)).await;
    claim(&mut claims).await;
    let bell = Arc::new(Bell::default());
    let site = site.reopen().await;
    site.store.recover(Some(bell.clone())).await.unwrap();
    assert_eq!(*bell.0.lock().unwrap(), ["source dead Some(Interrupted) true"]);
    assert_eq!(site.column("SELECT plugin FROM job_queue WHERE status = 'queued'"), ["bell"]);
}
