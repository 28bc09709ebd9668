use ductile_timetable::parse_weekday;

use super::*;

const ALL_DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

fn not_on(days: &[&str], entry: Entry) -> Entry {
    let mut not_on = Weekdays::default();
    days.iter().for_each(|day| not_on.insert(parse_weekday(day).unwrap()));
    Entry { not_on, ..entry }
}

/// What becomes of each mode that is due but may not fire: cron passes its slot over, the others stay due.
async fn check(table: &Timetable, expected: SkipReason) {
    table.site.advance(10);
    let jobs = table.jobs();
    for id in ["every", "at", "after"] {
        // The row is written at the first look.
        let due = table.next(id).await;
        assert_eq!(table.waits(id).await, expected, "{id}");
        assert_eq!(table.next(id).await, due, "{id} stays due");
    }
    match table.look("cron").await {
        Evaluated::Dropped { reason, slot, at, next } => {
            assert_eq!((reason, slot), (expected, instant("03:04:00")));
            assert_eq!((at, next), (instant("03:04:15"), Some(instant("03:05:00"))));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(table.next("cron").await, Some(instant("03:05:00")));
    assert_eq!(table.waits("cron").await, SkipReason::NotDue);
    assert_eq!(table.jobs(), jobs);
}

/// Rows of all modes but cron, which are due within ten seconds.
async fn seen(table: &Timetable) {
    for entry in &table.entries {
        if entry.id != "cron" {
            table.look(&entry.id).await;
        }
    }
}

#[tokio::test]
async fn on_an_excluded_day_cron_passes_its_slot_over_and_the_others_wait() {
    let table = Timetable::of(modes().into_iter().map(|entry| not_on(&["fri"], entry)).collect()).await;
    seen(&table).await;
    check(&table, SkipReason::Day).await;
    table.set_clock(instant("2026-01-03 00:00:00Z"));
    for id in ["every", "at", "after"] {
        let job = table.fires(id).await;
        table.site.store.cancel(crate::CancelTarget::Job(job), "x".into()).await.unwrap();
    }
}

#[tokio::test]
async fn outside_its_window_cron_passes_its_slot_over_and_the_others_wait() {
    let table = Timetable::of(modes().into_iter().map(|entry| window("08:00-18:00", entry)).collect()).await;
    seen(&table).await;
    check(&table, SkipReason::Window).await;
    table.set_clock(instant("08:00:00"));
    for id in ["every", "at", "after"] {
        let job = table.fires(id).await;
        table.site.store.cancel(crate::CancelTarget::Job(job), "x".into()).await.unwrap();
    }
}

#[tokio::test]
async fn beside_a_job_of_the_command_cron_passes_its_slot_over_and_the_others_wait() {
    let table = Timetable::of(modes()).await;
    table.site.enqueue(job("echo")).await;
    seen(&table).await;
    check(&table, SkipReason::AlreadyRunning).await;
}

#[tokio::test]
async fn at_its_limit_cron_passes_its_slot_over_and_the_others_wait() {
    let queue = |entry| Entry { if_running: Overlap::Queue { limit: 1 }, ..entry };
    let table = Timetable::of(modes().into_iter().map(queue).collect()).await;
    table.site.enqueue(job("echo")).await;
    seen(&table).await;
    check(&table, SkipReason::OutstandingLimit).await;
}

#[tokio::test]
async fn behind_an_open_breaker_every_mode_waits() {
    let table = Timetable::under(breaking(1, 3600), modes()).await;
    table.sql(
        "INSERT INTO circuit_breakers (plugin, command, state, failure_count, opened_at, updated_at)
         VALUES ('echo', 'poll', 'open', 1, '2026-01-02 03:04:05.000000000Z', '2026-01-02 03:04:05.000000000Z')",
    );
    seen(&table).await;
    table.site.advance(600);
    for id in ["every", "cron", "at", "after"] {
        assert_eq!(table.waits(id).await, SkipReason::CircuitOpen, "{id}");
        let due = table.next(id).await;
        assert!(due.is_some_and(|due| due <= table.site.clock.now()), "{id}: {due:?}");
        table.site.advance(60);
        assert_eq!((table.waits(id).await, table.next(id).await), (SkipReason::CircuitOpen, due), "{id}");
    }
    assert_eq!(table.jobs(), 0);
}

#[tokio::test]
async fn a_window_over_midnight_is_open_on_both_sides_of_it() {
    let table = Timetable::of(vec![window("22:00-06:00", every("default", "1s"))]).await;
    for (time, expected) in [
        ("2026-01-02 06:00:00Z", Some(SkipReason::Window)),
        ("2026-01-02 21:59:59Z", Some(SkipReason::Window)),
        ("2026-01-02 23:00:00Z", None),
        ("2026-01-03 05:59:00Z", None),
        ("2026-01-03 06:00:00Z", Some(SkipReason::Window)),
    ] {
        table.set_clock(instant(time));
        match (table.look("default").await, expected) {
            (Evaluated::Fired { job, .. }, None) => {
                table.site.store.cancel(crate::CancelTarget::Job(job), "x".into()).await.unwrap();
            }
            (Evaluated::Waits { reason, .. }, Some(expected)) => assert_eq!(reason, expected, "{time}"),
            other => panic!("{time}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn days_and_windows_are_those_of_the_zone_of_the_schedule() {
    let zone = || Zone::named("Pacific/Auckland").unwrap();
    // 03:04 on Friday in UTC is 16:04 there, and Saturday begins at 11:00.
    let afternoon = window("16:00-17:00", with_command("a", every("afternoon", "1h")));
    let no_friday = not_on(&["fri"], with_command("b", every("no-friday", "1h")));
    let entries = [afternoon, no_friday].map(|entry| Entry { zone: zone(), ..entry });
    let table = Timetable::of(entries.into()).await;
    table.fires("afternoon").await;
    assert_eq!(table.waits("no-friday").await, SkipReason::Day);
    table.set_clock(instant("11:00:00"));
    table.fires("no-friday").await;
}

#[tokio::test]
async fn a_schedule_that_waits_for_its_window_fires_once_when_it_opens() {
    let mut table = Timetable::of(vec![window("06:00-23:00", every("default", "1h"))]).await;
    for _ in 0..20 {
        assert_eq!(table.waits("default").await, SkipReason::Window);
        table.site.advance(60);
    }
    table.set_clock(instant("06:00:00"));
    table.fires("default").await;
    table.ends(succeeded()).await;
    assert_eq!(table.waits("default").await, SkipReason::NotDue);
    assert_eq!((table.jobs(), table.next("default").await), (1, Some(instant("07:00:00"))));
}

#[tokio::test]
async fn what_never_may_run_waits_for_ever_without_harm() {
    let table = Timetable::of(vec![not_on(&ALL_DAYS, every("default", "1h"))]).await;
    for _ in 0..8 {
        assert_eq!(table.waits("default").await, SkipReason::Day);
        table.site.advance(24 * 3600);
    }
}
