use super::*;

fn breaker(table: &Timetable) -> String {
    table.site.one("SELECT state || ' ' || failure_count FROM circuit_breakers")
}

#[tokio::test]
async fn after_the_pause_two_schedules_of_a_command_start_one_probe() {
    let mut table = Timetable::under(breaking(3, 1800), vec![every("one", "1m"), every("two", "1m")]).await;
    for _ in 0..3 {
        table.fires("one").await;
        table.ends(broken()).await;
        table.site.advance(60);
    }
    assert_eq!(breaker(&table), "open 3");
    // It opened a minute ago.
    for _ in 0..29 {
        for id in ["one", "two"] {
            assert_eq!(table.waits(id).await, SkipReason::CircuitOpen);
        }
        table.site.advance(60);
    }
    let probe = table.fires("two").await;
    assert_eq!(breaker(&table), "half_open 3");
    assert_eq!(table.waits("one").await, SkipReason::CircuitOpen);
    table.site.advance(60);
    for id in ["one", "two"] {
        assert_eq!(table.waits(id).await, SkipReason::CircuitOpen);
    }
    assert_eq!(table.ends(succeeded()).await, probe);
    assert_eq!(breaker(&table), "closed 0");
    table.fires("one").await;
    assert_eq!(table.jobs(), 5);
}

#[tokio::test]
async fn a_half_open_breaker_allows_one_job_whatever_happens_with_those_that_run() {
    for if_running in [Overlap::Queue { limit: 5 }, Overlap::Cancel] {
        let entry = Entry { if_running, ..every("default", "1m") };
        let mut table = Timetable::under(breaking(1, 60), vec![entry]).await;
        table.fires("default").await;
        table.ends(broken()).await;
        table.site.advance(60);
        let probe = table.fires("default").await;
        table.site.advance(60);
        assert_eq!(table.waits("default").await, SkipReason::CircuitOpen);
        let running = claim(&mut table.claims).await;
        assert_eq!((running.id, running.cancellation.is_cancelled()), (probe, false));
    }
}

#[tokio::test]
async fn a_half_open_breaker_without_its_probe_starts_another() {
    let mut table = Timetable::under(breaking(1, 60), vec![every("default", "1m")]).await;
    table.fires("default").await;
    table.ends(broken()).await;
    table.site.advance(60);
    let probe = table.fires("default").await;
    table.site.store.cancel(crate::CancelTarget::Job(probe), "x".into()).await.unwrap();
    table.site.advance(60);
    table.fires("default").await;
    assert_eq!(breaker(&table), "half_open 1");
}

#[tokio::test]
async fn a_breaker_that_another_process_closed_lets_through_at_once() {
    let mut table = Timetable::under(breaking(1, 3600), vec![every("default", "1m")]).await;
    table.fires("default").await;
    table.ends(broken()).await;
    table.site.advance(60);
    assert_eq!(table.waits("default").await, SkipReason::CircuitOpen);
    let mut maintainer = crate::Maintainer::open(&table.site.path()).unwrap();
    maintainer.reset_breakers("echo", None, table.site.clock.now(), crate::ChangeMode::Apply).unwrap();
    table.fires("default").await;
}

#[tokio::test]
async fn a_breaker_holds_its_own_command_back_only() {
    let entries = vec![every("one", "1m"), with_command("sync", every("two", "1m"))];
    let mut table = Timetable::under(breaking(1, 3600), entries).await;
    table.fires("one").await;
    table.ends(broken()).await;
    table.fires("two").await;
}
