use super::*;

async fn exhausted(table: &Timetable, id: &str) {
    let row = table.row(id).await;
    assert_eq!(
        (row.status, row.reason.as_deref(), row.next_run_at),
        (ScheduleStatus::Exhausted, Some("one_shot_exhausted"), None)
    );
}

#[tokio::test]
async fn an_instant_in_the_past_fires_at_the_first_look_and_never_again() {
    let mut table = Timetable::of(vec![at("default", "03:02:05")]).await;
    match table.look("default").await {
        Evaluated::Fired { slot, next, .. } => assert_eq!((slot, next), (instant("03:02:05"), None)),
        other => panic!("{other:?}"),
    }
    exhausted(&table, "default").await;
    let before = table.rows_as_stored();
    table.ends(succeeded()).await;
    table.site.advance(3600);
    assert_eq!(table.waits("default").await, SkipReason::Exhausted);
    assert_eq!(table.row("default").await.last_success_at, Some(instant("03:04:05")));
    assert_eq!((table.jobs(), before.len()), (1, 1));
}

#[tokio::test]
async fn a_delay_counts_from_the_first_look_over_restarts_and_reloads() {
    let mut table = Timetable::of(vec![after("default", "3s")]).await;
    assert_eq!(table.waits("default").await, SkipReason::NotDue);
    let seen = table.rows_as_stored();
    table.site.advance(2);
    for _ in 0..3 {
        table = table.restart().await;
        assert_eq!(table.waits("default").await, SkipReason::NotDue);
        assert_eq!(table.rows_as_stored(), seen);
    }
    table = table.reload(vec![after("default", "3s")]).await;
    table.site.advance(1);
    table.fires("default").await;
    exhausted(&table, "default").await;
}

#[tokio::test]
async fn restart_reload_and_absence_do_not_arm_it_again() {
    let mut table = Timetable::of(modes()).await;
    for id in ["at", "after"] {
        table.look(id).await;
    }
    table.ends(succeeded()).await;
    table.site.advance(10);
    table.fires("after").await;
    table.ends(broken()).await;
    let before = table.rows_as_stored();
    table = table.restart().await.reload(Vec::new()).await.restart().await.reload(modes()).await;
    for id in ["at", "after"] {
        exhausted(&table, id).await;
        assert_eq!(table.waits(id).await, SkipReason::Exhausted);
    }
    assert_eq!((table.rows_as_stored(), table.jobs()), (before, 2));
}

#[tokio::test]
async fn another_time_arms_it_again() {
    let mut table = Timetable::of(vec![at("default", "03:04:00"), after("other", "1s")]).await;
    table.fires("default").await;
    table.ends(succeeded()).await;
    table.waits("other").await;
    table.site.advance(1);
    table.fires("other").await;
    table.ends(succeeded()).await;
    table = table.reload(vec![at("default", "04:00:00"), after("other", "1m")]).await;
    for (id, due) in [("other", "03:05:06"), ("default", "04:00:00")] {
        assert_eq!(table.waits(id).await, SkipReason::NotDue);
        let row = table.row(id).await;
        assert_eq!((row.status, row.reason), (ScheduleStatus::Active, None));
        assert_eq!(row.next_run_at, Some(instant(due)));
        table.set_clock(instant(due));
        table.fires(id).await;
        table.ends(succeeded()).await;
        exhausted(&table, id).await;
    }
}

#[tokio::test]
async fn another_zone_does_not_arm_it_again() {
    let mut table = Timetable::of(vec![at("default", "03:04:00")]).await;
    table.fires("default").await;
    table.ends(succeeded()).await;
    let berlin = Zone::named("Europe/Berlin").unwrap();
    table = table.reload(vec![Entry { zone: berlin, ..at("default", "03:04:00") }]).await;
    assert_eq!(table.waits("default").await, SkipReason::Exhausted);
}

#[tokio::test]
async fn another_command_leaves_it_exhausted_and_an_armed_one_armed() {
    let mut table = Timetable::of(vec![at("default", "03:04:00")]).await;
    table.fires("default").await;
    table.ends(succeeded()).await;
    let renamed = |command: &str, time: &str| vec![with_command(command, at("default", time))];
    table = table.reload(renamed("sync", "03:04:00")).await;
    assert_eq!(table.waits("default").await, SkipReason::Exhausted);
    exhausted(&table, "default").await;
    assert_eq!(table.row("default").await.last_success_at, None);
    table = table.reload(renamed("sync", "04:00:00")).await;
    assert_eq!(table.waits("default").await, SkipReason::NotDue);
    // It fired once, for another time: that must not be taken for this one.
    table = table.reload(renamed("poll", "04:00:00")).await;
    assert_eq!(table.waits("default").await, SkipReason::NotDue);
    table.set_clock(instant("04:00:00"));
    table.fires("default").await;
}

#[tokio::test]
async fn one_that_has_fired_does_not_fire_again_because_somebody_wrote_over_its_state() {
    for status in ["active", "", "paused_invalid", "paused_manual"] {
        let mut table = Timetable::of(vec![at("default", "03:04:00")]).await;
        table.fires("default").await;
        table.ends(succeeded()).await;
        table.sql(&format!("UPDATE schedule_entries SET status = '{status}', reason = NULL"));
        table.look("default").await;
        exhausted(&table, "default").await;
        assert_eq!(table.jobs(), 1, "{status}");
    }
}

#[tokio::test]
async fn it_fires_within_its_window_only() {
    let table = Timetable::of(vec![window("08:00-09:00", at("default", "03:04:00"))]).await;
    assert_eq!(table.waits("default").await, SkipReason::Window);
    assert_eq!(table.row("default").await.status, ScheduleStatus::Active);
    table.set_clock(instant("08:59:59"));
    table.fires("default").await;
    exhausted(&table, "default").await;
}
