use super::*;
use crate::{DuplicateReason, QueueError};

#[tokio::test]
async fn an_accepted_job_is_a_committed_row_with_its_first_transition() {
    let site = Site::new().await;
    let id = site.enqueue(NewJob { payload: Some("{\"n\": 12345678901234567890123}".into()), ..job("echo") }).await;
    assert_eq!(site.one::<String>("SELECT payload FROM job_queue"), "{\"n\": 12345678901234567890123}");
    assert_eq!(site.one::<String>("SELECT typeof(payload) FROM job_queue"), "text");
    assert_eq!(site.one::<i64>("SELECT json_extract(payload, '$.n') > 1 FROM job_queue"), 1);
    assert_eq!(site.one::<String>("SELECT id FROM job_queue WHERE status = 'queued'"), id.as_str());
    assert_eq!(
        site.column("SELECT ifnull(from_status, '-') || '>' || to_status || ifnull(reason, '') FROM job_transitions"),
        ["->queued"]
    );
    assert_eq!(site.one::<String>("SELECT created_at FROM job_queue"), site.now_text());
    assert_eq!(site.queue.depth(), 1);
    assert_eq!(site.events().await, ["job.enqueued"]);
    let event = site.last_event("job.enqueued").await;
    assert_eq!((event["job_id"].as_str(), event["direct"].as_bool()), (Some(id.as_str()), Some(true)));
}

#[tokio::test]
async fn a_wrong_request_names_its_field_and_writes_nothing() {
    let site = Site::new().await;
    let wrong = [
        ("plugin", NewJob { plugin: " ".into(), ..job("echo") }),
        ("command", NewJob { command: String::new(), ..job("echo") }),
        ("submitted_by", NewJob { submitted_by: Producer::Scheduler(String::new()), ..job("echo") }),
        ("payload", NewJob { payload: Some("{not json".into()), ..job("echo") }),
    ];
    for (expected, job) in wrong {
        let error = site.queue.enqueue(job).await.unwrap_err();
        assert!(matches!(&error, QueueError::Invalid { field, .. } if *field == expected), "{error}");
        assert!(error.to_string().starts_with(expected), "{error}");
    }
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_queue"), 0);
}

#[tokio::test]
async fn of_64_concurrent_enqueues_with_one_wrong_63_are_rows_when_they_are_answered() {
    let site = Site::new().await;
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            let queue = site.queue.clone();
            let payload = if n == 17 { "{not json".to_owned() } else { format!("{{\"n\":{n}}}") };
            tokio::spawn(async move { queue.enqueue(NewJob { payload: Some(payload), ..job("echo") }).await })
        })
        .collect();
    let other = site.other();
    let mut wrong = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(Enqueued::Queued(id)) => {
                let sql = "SELECT count(*) FROM job_queue WHERE id = ?1";
                let present: i64 = other.query_row(sql, [id.as_str()], |row| row.get(0)).unwrap();
                assert_eq!(present, 1);
            }
            Ok(Enqueued::Duplicate { .. }) => panic!("no keys were given"),
            Err(error) => {
                assert!(matches!(error, QueueError::Invalid { field: "payload", .. }));
                wrong += 1;
            }
        }
    }
    assert_eq!(wrong, 1);
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_queue"), 63);
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_transitions"), 63);
}

#[tokio::test]
async fn an_operation_that_fails_in_a_group_fails_alone() {
    let site = Site::new().await;
    let bad = site.store.write(|scope| {
        scope.connection().execute("INSERT INTO plugin_state (plugin_name, state) VALUES ('gone', '{}')", [])?;
        scope.connection().execute("INSERT INTO plugin_state (plugin_name, state) VALUES ('gone', '{}')", [])?;
        Ok(())
    });
    // Held up by another process, all three end in one group.
    let other = site.other();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let free = async {
        tokio::task::yield_now().await;
        other.execute_batch("COMMIT").unwrap();
    };
    let (one, bad, two, ()) = tokio::join!(site.queue.enqueue(job("echo")), bad, site.queue.enqueue(job("echo")), free);
    assert!(matches!(bad, Err(QueueError::Storage(_))));
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(site.one::<i64>("SELECT count(*) FROM plugin_state"), 0);
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_queue"), 2);
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_transitions"), 2);
    assert_eq!(site.events().await, ["job.enqueued", "job.enqueued"]);
    assert_eq!(site.queue.depth(), 2);
}

#[tokio::test]
async fn twenty_concurrent_enqueues_with_one_key_make_one_row() {
    let site = Site::new().await;
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let queue = site.queue.clone();
            tokio::spawn(async move { queue.enqueue(keyed("echo", " same ")).await.unwrap() })
        })
        .collect();
    let mut queued = Vec::new();
    let mut existing = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Enqueued::Queued(id) => queued.push(id),
            Enqueued::Duplicate { existing: id, reason, status } => {
                assert_eq!((reason, status), (DuplicateReason::Outstanding, JobStatus::Queued));
                existing.push(id);
            }
        }
    }
    assert_eq!(queued.len(), 1);
    assert!(existing.iter().all(|id| *id == queued[0]));
    assert_eq!(site.column("SELECT dedupe_key FROM job_queue"), ["same"]);
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_transitions"), 1);
}

#[tokio::test]
async fn a_recent_success_counts_for_its_window_and_only_for_the_same_target() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(4)).await;
    let first = site.enqueue(keyed("echo", "k")).await;
    let running = claim(&mut claims).await;
    site.finish(&running, succeeded()).await;
    site.advance(3600);
    let again = site.queue.enqueue(keyed("echo", "k")).await.unwrap();
    assert_eq!(
        again,
        Enqueued::Duplicate { existing: first, status: JobStatus::Succeeded, reason: DuplicateReason::RecentSuccess }
    );
    // Another target, a window that is over, and no window at all.
    site.enqueue(keyed("other", "k")).await;
    site.enqueue(NewJob { command: "handle".into(), ..keyed("echo", "k") }).await;
    site.enqueue(NewJob { dedupe_ttl: Some(Duration::from_secs(60)), ..keyed("echo", "k") }).await;
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_queue"), 4);
}

#[tokio::test]
async fn a_zero_window_makes_no_success_check_and_failures_never_block() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(4)).await;
    site.enqueue(keyed("echo", "k")).await;
    let running = claim(&mut claims).await;
    site.finish(&running, failed(FailureReason::ExitCode78)).await;
    site.enqueue(keyed("echo", "k")).await;
    let running = claim(&mut claims).await;
    site.finish(&running, succeeded()).await;
    site.enqueue(NewJob { dedupe_ttl: Some(Duration::ZERO), ..keyed("echo", "k") }).await;
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_queue"), 3);
}

#[tokio::test]
async fn a_redelivered_event_makes_no_second_job_and_siblings_of_one_event_are_no_duplicates() {
    let site = Site::new().await;
    let parent = site.enqueue(job("source")).await;
    let routed = |event: &str| NewJob {
        submitted_by: Producer::Route,
        parent_job_id: Some(parent.clone()),
        event_id: event.split('/').next().map(str::to_owned),
        source_event_id: Some(event.to_owned()),
        ..keyed("echo", "k")
    };
    let first = site.enqueue(routed("e1")).await;
    site.enqueue(routed("e1/pipe/step")).await;
    assert!(matches!(
        site.queue.enqueue(routed("e1")).await.unwrap(),
        Enqueued::Duplicate { existing, .. } if existing == first
    ));
    // The key of an earlier event counts.
    assert!(matches!(site.queue.enqueue(routed("e2")).await.unwrap(), Enqueued::Duplicate { .. }));
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_queue"), 3);

    // It is the same when they have succeeded.
    let mut claims = site.activate(policy(4)).await;
    for _ in 0..2 {
        let claimed = claim(&mut claims).await;
        site.finish(&claimed, succeeded()).await;
    }
    let existing = first;
    assert_eq!(
        site.queue.enqueue(routed("e1")).await.unwrap(),
        Enqueued::Duplicate { existing, status: JobStatus::Succeeded, reason: DuplicateReason::SourceEvent }
    );
    let second = claim(&mut claims).await;
    site.finish(&second, succeeded()).await;
    site.enqueue(routed("e1/pipe/other")).await;
    assert_eq!(
        site.queue.enqueue(keyed("echo", "k")).await.unwrap(),
        Enqueued::Duplicate {
            existing: site.column("SELECT id FROM job_queue WHERE status = 'running'")[0].as_str().into(),
            status: JobStatus::Running,
            reason: DuplicateReason::Outstanding
        }
    );
}

#[tokio::test]
async fn attempts_are_fixed_at_the_enqueue_and_health_and_init_have_one() {
    let site = Site::new().await;
    for (command, asked) in [("poll", 7), ("poll", 0), ("health", 9), ("init", 9)] {
        site.enqueue(NewJob { command: command.into(), max_attempts: asked, ..job("echo") }).await;
    }
    let stored = site.column("SELECT CAST(max_attempts AS TEXT) FROM job_queue ORDER BY rowid");
    assert_eq!(stored, ["7", "4", "1", "1"]);
}

#[tokio::test]
async fn events_tell_who_asked_directly_and_leave_out_what_others_tell() {
    let site = Site::new().await;
    let producers = [
        (Producer::Webhook("/x".into()), false),
        (Producer::Core, false),
        (Producer::Cli, true),
        (Producer::Route, false),
        (Producer::Scheduler("ductile".into()), false),
    ];
    for (submitted_by, direct) in producers {
        site.enqueue(NewJob { submitted_by, direct, ..job("echo") }).await;
    }
    site.events().await;
    let told: Vec<_> = site
        .hub
        .subscribe(0)
        .backlog
        .iter()
        .map(|record| format!("{} {}", record.data["submitted_by"].as_str().unwrap(), record.data["direct"]))
        .collect();
    assert_eq!(told, ["webhook:/x false", "core false", "cli true"]);
}

#[tokio::test]
async fn a_restarted_queue_goes_on_and_what_reached_the_writer_is_answered() {
    let site = Site::new().await;
    let actor = site.link.link();
    let before = site.queue.enqueue(job("echo"));
    let (before, ()) = tokio::join!(before, async {
        actor.tell(QueueMsg::Lifecycle(ductile_model::Lifecycle::Crash)).unwrap();
    });
    // Either it was handed on, or the asker is told that nothing was done.
    let mut rows = i64::from(before.is_ok());
    site.link.clear();
    let waiting = tokio::spawn({
        let queue = site.queue.clone();
        async move { queue.enqueue(job("echo")).await }
    });
    site.start_actor().await;
    waiting.await.unwrap().unwrap();
    rows += 1;
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_queue"), rows);
}
