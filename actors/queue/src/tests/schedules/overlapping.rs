use super::*;

const GIVES_WAY: &str = "cancelled by scheduler (if_running=cancel)";

fn overlap(if_running: Overlap, entry: Entry) -> Entry {
    Entry { if_running, ..entry }
}

#[tokio::test]
async fn a_schedule_that_skips_never_has_two_jobs_waiting_running_or_waiting_for_a_retry() {
    let twice = Entry { max_attempts: 2, ..every("default", "2s") };
    let mut table = Timetable::of(vec![twice]).await;
    table.fires("default").await;
    table.site.advance(2);
    assert_eq!(table.waits("default").await, SkipReason::AlreadyRunning);
    let claimed = claim(&mut table.claims).await;
    assert_eq!(table.waits("default").await, SkipReason::AlreadyRunning);
    table.site.finish(&claimed, broken()).await;
    assert_eq!(table.site.column("SELECT status FROM job_queue"), ["queued"], "it waits for its retry");
    assert_eq!(table.waits("default").await, SkipReason::AlreadyRunning);
    assert_eq!(table.jobs(), 1);
}

#[tokio::test]
async fn a_success_anchors_anew_what_could_not_fire_meanwhile() {
    let mut table = Timetable::of(vec![every("default", "2s")]).await;
    table.fires("default").await;
    table.site.advance(10);
    assert_eq!(table.waits("default").await, SkipReason::AlreadyRunning);
    table.ends(succeeded()).await;
    assert_eq!(table.waits("default").await, SkipReason::NotDue);
    assert_eq!(table.next("default").await, Some(instant("03:04:17")));
}

#[tokio::test]
async fn two_schedules_that_skip_share_the_jobs_of_their_command_and_not_those_of_others() {
    let entries = vec![every("one", "1h"), every("two", "1h"), with_command("sync", every("three", "1h"))];
    let table = Timetable::of(entries).await;
    table.fires("one").await;
    assert_eq!(table.waits("two").await, SkipReason::AlreadyRunning);
    table.fires("three").await;
}

#[tokio::test]
async fn a_recent_success_holds_nothing_back() {
    let mut table = Timetable::of(vec![every("default", "5s")]).await;
    for _ in 0..3 {
        table.fires("default").await;
        table.ends(succeeded()).await;
        table.site.advance(5);
    }
    assert_eq!(table.jobs(), 3);
}

#[tokio::test]
async fn a_schedule_that_queues_has_as_many_jobs_as_it_may_and_one_of_them_runs() {
    let mut table = Timetable::of(vec![overlap(Overlap::Queue { limit: 3 }, every("default", "1s"))]).await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(table.fires("default").await);
        table.site.advance(1);
    }
    for _ in 0..3 {
        assert_eq!(table.waits("default").await, SkipReason::OutstandingLimit);
        table.site.advance(1);
    }
    let first = claim(&mut table.claims).await;
    nothing_claimed(&table.site, &mut table.claims).await;
    assert_eq!(first.id, jobs[0]);
    table.site.finish(&first, broken()).await;
    assert_eq!(claim(&mut table.claims).await.id, jobs[1]);
    table.fires("default").await;
    assert_eq!(table.waits("default").await, SkipReason::NotDue);
}

#[tokio::test]
async fn jobs_of_other_producers_count_for_the_limit() {
    let table = Timetable::of(vec![overlap(Overlap::Queue { limit: 2 }, every("default", "1s"))]).await;
    table.site.enqueue(job("echo")).await;
    table.fires("default").await;
    table.site.advance(1);
    assert_eq!(table.waits("default").await, SkipReason::OutstandingLimit);
}

#[tokio::test]
async fn a_schedule_that_cancels_takes_the_place_of_its_running_job_when_that_is_gone() {
    let mut table = Timetable::of(vec![overlap(Overlap::Cancel, every("default", "5s"))]).await;
    let old = table.fires("default").await;
    let running = claim(&mut table.claims).await;
    table.site.advance(5);
    let new = table.fires("default").await;
    nothing_claimed(&table.site, &mut table.claims).await;
    assert!(running.cancellation.is_cancelled());
    assert_eq!(
        table.site.column(
            "SELECT id || ' ' || status || ' ' || ifnull(last_error, '-') || ' ' || (completed_at IS NOT NULL)
             FROM job_queue ORDER BY rowid"
        ),
        [format!("{old} dead {GIVES_WAY} 1"), format!("{new} queued - 0")]
    );
    assert_eq!(table.site.column("SELECT id || ' ' || status FROM job_log"), [format!("{old}-1 dead")]);
    let told = table.site.last_event("job.failed").await;
    assert_eq!((&told["cancelled"], &told["job_id"]), (&true.into(), &old.as_str().into()));
    assert_eq!(table.site.one::<i64>("SELECT count(*) FROM circuit_breakers"), 0, "the breaker does not count it");
    assert_eq!(table.next("default").await, Some(instant("03:04:15")));
    // Its process is gone.
    assert_eq!(table.site.finish(&running, succeeded()).await, Finalised::Stale);
    assert_eq!(claim(&mut table.claims).await.id, new);
    assert_eq!(table.row("default").await.last_success_at, None, "a late result counts for nothing");
}

#[tokio::test]
async fn giving_way_and_the_new_job_are_one_transaction() {
    let mut table = Timetable::of(vec![overlap(Overlap::Cancel, every("default", "5s"))]).await;
    table.fires("default").await;
    let running = claim(&mut table.claims).await;
    table.site.advance(5);
    let before = table.rows_as_stored();
    table.sql("CREATE TRIGGER refuse BEFORE UPDATE ON schedule_entries BEGIN SELECT RAISE(ABORT, 'refused'); END;");
    table.site.store.evaluate_schedule(table.due("default")).await.unwrap_err();
    assert!(!running.cancellation.is_cancelled());
    assert_eq!(table.site.column("SELECT status FROM job_queue"), ["running"]);
    assert_eq!(table.rows_as_stored(), before);
}

#[tokio::test]
async fn a_schedule_that_cancels_leaves_jobs_of_others_alone() {
    let mut table = Timetable::of(vec![overlap(Overlap::Cancel, every("default", "5s"))]).await;
    let asked = table.site.enqueue(job("echo")).await;
    let running = claim(&mut table.claims).await;
    let first = table.fires("default").await;
    table.site.advance(5);
    table.fires("default").await;
    let dead = table.site.column("SELECT id FROM job_queue WHERE status = 'dead'");
    assert_eq!((dead, running.id), (vec![first.to_string()], asked));
    table.site.store.write(|_| Ok(())).await.unwrap();
    assert!(!running.cancellation.is_cancelled());
}

#[tokio::test]
async fn a_job_of_another_producer_under_the_same_key_counts_as_running() {
    let table = Timetable::of(vec![overlap(Overlap::Cancel, every("default", "5s"))]).await;
    table.site.enqueue(keyed("echo", "echo:poll:default")).await;
    assert_eq!(table.waits("default").await, SkipReason::AlreadyRunning);
    assert_eq!(table.jobs(), 1);
}
