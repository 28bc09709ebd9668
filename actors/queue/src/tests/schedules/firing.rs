use std::sync::Mutex;

use super::*;

#[tokio::test]
async fn a_schedule_that_was_never_seen_is_written_and_fires_at_once() {
    let first = Entry { payload: r#"{"kind":"full"}"#.into(), max_attempts: 3, ..every("default", "1h") };
    let table = Timetable::of(vec![first]).await;
    let job = table.fires("default").await;
    assert_eq!(
        table.site.column(
            "SELECT json_array(id, plugin, command, payload, submitted_by, max_attempts, dedupe_key, parent_job_id,
                               event_context_id) FROM job_queue"
        ),
        [serde_json::json!([
            job.as_str(),
            "echo",
            "poll",
            r#"{"kind":"full"}"#,
            "ductile",
            3,
            "echo:poll:default",
            null,
            null
        ])
        .to_string()]
    );
    assert_eq!(
        table.row("default").await,
        ScheduleRow {
            plugin: "echo".into(),
            schedule_id: "default".into(),
            command: "poll".into(),
            status: ScheduleStatus::Active,
            reason: None,
            last_fired_at: Some(instant("03:04:05")),
            last_success_job_id: None,
            last_success_at: None,
            next_run_at: Some(instant("04:04:05")),
            definition: Definition::Is("every 1h0m0s".into()),
        }
    );
    let created: String = table.site.one("SELECT created_at FROM job_queue");
    assert_eq!(created, table.site.one::<String>("SELECT last_fired_at FROM schedule_entries"));
    let told = table.site.last_event("scheduler.scheduled").await;
    let words = ["job_id", "plugin", "command", "schedule_id", "submitted_by"].map(|key| told[key].as_str().unwrap());
    assert_eq!(words, [job.as_str(), "echo", "poll", "default", "ductile"]);
}

#[tokio::test]
async fn nothing_fires_before_its_time_and_everything_at_it() {
    let mut table = Timetable::of(vec![every("default", "1h")]).await;
    table.fires("default").await;
    table.ends(broken()).await;
    assert_eq!(table.waits("default").await, SkipReason::NotDue);
    table.site.clock.advance(TimeDelta::hours(1) - TimeDelta::nanoseconds(1));
    assert_eq!(table.waits("default").await, SkipReason::NotDue);
    table.site.clock.advance(TimeDelta::nanoseconds(1));
    table.fires("default").await;
    assert_eq!(table.jobs(), 2);
}

#[tokio::test]
async fn a_failing_job_comes_again_one_interval_after_its_firing() {
    let mut table = Timetable::of(vec![every("default", "10s")]).await;
    table.fires("default").await;
    let before = table.rows_as_stored();
    table.site.advance(3);
    table.ends(broken()).await;
    assert_eq!(table.rows_as_stored(), before, "a failure changes nothing");
    table.site.advance(6);
    assert_eq!(table.waits("default").await, SkipReason::NotDue);
    table.site.advance(1);
    table.fires("default").await;
}

#[tokio::test]
async fn a_success_moves_its_own_schedule_and_no_other_of_the_command() {
    let mut table = Timetable::of(vec![every("often", "5s"), every("rarely", "1h")]).await;
    table.fires("rarely").await;
    table.ends(succeeded()).await;
    let rarely = table.row("rarely").await;
    let job = table.fires("often").await;
    table.site.advance(2);
    table.ends(succeeded()).await;
    let often = table.row("often").await;
    assert_eq!(often.next_run_at, Some(instant("03:04:12")), "from the end of the job");
    assert_eq!((often.last_success_job_id, often.last_success_at), (Some(job), Some(instant("03:04:07"))));
    assert_eq!(often.last_fired_at, Some(instant("03:04:05")));
    assert_eq!(table.row("rarely").await, rarely);
}

#[tokio::test]
async fn what_a_success_means_is_written_with_it_or_not_at_all() {
    let mut table = Timetable::of(vec![every("default", "1h")]).await;
    table.fires("default").await;
    let before = table.rows_as_stored();
    let claimed = claim(&mut table.claims).await;
    table.sql("CREATE TRIGGER refuse BEFORE UPDATE ON schedule_entries BEGIN SELECT RAISE(ABORT, 'refused'); END;");
    let end = table.site.end_of(&claimed, succeeded());
    table.site.store.finalise_within(Duration::from_millis(200), end).await.unwrap_err();
    assert_eq!(table.site.column("SELECT status FROM job_queue"), ["running"]);
    assert_eq!(table.rows_as_stored(), before);
}

#[tokio::test]
async fn successes_of_other_producers_and_of_a_former_command_move_nothing() {
    let mut table = Timetable::of(vec![every("default", "1h")]).await;
    table.fires("default").await;
    let table_after = |table: Timetable| table.reload(vec![with_command("sync", every("default", "1h"))]);
    let claimed = claim(&mut table.claims).await;
    let table = table_after(table).await;
    table.fires("default").await;
    let before = table.rows_as_stored();
    table.site.finish(&claimed, succeeded()).await;
    let mut table = table;
    table.ends(broken()).await;
    table.site.enqueue(NewJob { dedupe_ttl: Some(Duration::ZERO), ..keyed("echo", "echo:poll:default") }).await;
    table.ends(succeeded()).await;
    assert_eq!(table.rows_as_stored(), before);
}

#[tokio::test]
async fn jitter_moves_runs_by_half_of_it_to_both_sides() {
    let chance = Mutex::new(fastrand::Rng::with_seed(7));
    let directory = tempfile::tempdir().unwrap();
    let site = Site::with_chance(directory, Arc::new(move || chance.lock().unwrap().f64())).await;
    let mut table = Timetable::at(site, policy(4), vec![jittery("default", "1h", "30m")]).await;
    let mut minutes = Vec::new();
    for _ in 0..200 {
        table.fires("default").await;
        table.site.advance(2);
        table.ends(succeeded()).await;
        let next = table.next("default").await.unwrap();
        assert_eq!(table.waits("default").await, SkipReason::NotDue);
        assert_eq!(table.next("default").await, Some(next), "drawn once, not at each look");
        minutes.push((next - table.site.clock.now()).as_seconds_f64() / 60.0);
        table.set_clock(next);
    }
    assert!(minutes.iter().all(|minutes| (45.0..=75.0).contains(minutes)), "{minutes:?}");
    for side in [46.0..60.0, 60.0..74.0, 45.0..50.0, 70.0..75.0] {
        assert!(minutes.iter().any(|minutes| side.contains(minutes)), "{side:?}: {minutes:?}");
    }
}

#[tokio::test]
async fn a_configuration_that_is_not_in_force_looks_at_nothing() {
    let entries = || vec![Entry { catch_up: CatchUp::RunAll, ..every("default", "1h") }];
    let table = Timetable::of(entries()).await;
    let old = table.due("default");
    let table = table.reload(entries()).await;
    assert_eq!(table.site.store.evaluate_schedule(old.clone()).await.unwrap(), Evaluated::Stale);
    assert!(table.rows_as_stored().is_empty());
    table.fires("default").await;
    let before = table.rows_as_stored();
    table.site.advance(5 * 3600);
    assert_eq!(table.site.store.catch_up_schedule(old).await.unwrap(), crate::CatchUpLook::Stale);
    assert_eq!((table.rows_as_stored(), table.jobs()), (before, 1));
}

#[tokio::test]
async fn what_comes_behind_a_change_of_generations_in_the_same_breath_sees_it() {
    let table = Timetable::of(vec![every("default", "1h")]).await;
    let store = &table.site.store;
    // The writer is held until both wait for it.
    let (release, held) = std::sync::mpsc::channel::<()>();
    store.submit(SOON, move |_| Ok(held.recv_timeout(SOON).is_ok()), |_| ());
    let next = ActivateGeneration { snapshot: snapshot("reload"), policy: policy(4), runnable: None, reload: None };
    let (activated, looked, ()) = tokio::join!(
        biased;
        store.activate(next),
        store.evaluate_schedule(table.due("default")),
        async move { release.send(()).unwrap() }
    );
    activated.unwrap();
    assert_eq!(looked.unwrap(), Evaluated::Stale);
    assert_eq!(table.jobs(), 0);
}
