use super::*;

#[tokio::test]
async fn a_slot_that_begins_now_fires_and_the_next_one_is_after_it() {
    let table = Timetable::of(vec![cron("now", "4 3 * * *"), cron("later", "5 3 * * *")]).await;
    table.fires("now").await;
    assert_eq!(table.next("now").await, Some(instant("2026-01-03 03:04:00Z")));
    assert_eq!(table.waits("later").await, SkipReason::NotDue);
    assert_eq!(table.next("later").await, Some(instant("03:05:00")));
}

#[tokio::test]
async fn a_slot_fires_once_however_often_it_is_looked_at() {
    let mut table = Timetable::of(vec![cron("default", "* * * * *")]).await;
    let mut slots = Vec::new();
    table.set_clock(instant("03:04:00"));
    for _ in 0..60 {
        if let Evaluated::Fired { slot, .. } = table.look("default").await {
            slots.push(slot);
            table.ends(succeeded()).await;
        }
        table.site.advance(5);
    }
    let expected: Vec<_> = (4..9).map(|minute| instant(&format!("03:0{minute}:00"))).collect();
    assert_eq!(slots, expected);
}

#[tokio::test]
async fn what_was_due_while_there_was_no_gateway_fires_once_and_late() {
    let mut table = Timetable::of(vec![cron("default", "0 * * * *")]).await;
    assert_eq!(table.waits("default").await, SkipReason::NotDue);
    table.set_clock(instant("07:10:00"));
    table = table.restart().await;
    assert_eq!(table.catches_up("default").await, None);
    match table.look("default").await {
        Evaluated::Fired { slot, at, next, .. } => {
            assert_eq!((slot, at, next), (instant("04:00:00"), instant("07:10:00"), Some(instant("08:00:00"))));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((table.waits("default").await, table.jobs()), (SkipReason::NotDue, 1));
}

#[tokio::test]
async fn a_success_does_not_move_a_cron_schedule() {
    let mut table = Timetable::of(vec![cron("default", "0 3 * * *")]).await;
    table.set_clock(instant("2026-01-03 03:00:00Z"));
    let job = table.fires("default").await;
    table.site.advance(100);
    table.ends(succeeded()).await;
    let row = table.row("default").await;
    assert_eq!(row.next_run_at, Some(instant("2026-01-04 03:00:00Z")));
    assert_eq!(row.last_success_job_id, Some(job));
}

#[tokio::test]
async fn a_slot_on_an_excluded_day_is_not_made_up_for_at_midnight() {
    let mut not_on = Weekdays::default();
    not_on.insert(ductile_timetable::parse_weekday("sunday").unwrap());
    let table = Timetable::of(vec![Entry { not_on, ..cron("default", "0 3 * * *") }]).await;
    assert_eq!(table.waits("default").await, SkipReason::NotDue);
    // 2026-01-04 is a Sunday.
    table.sql("UPDATE schedule_entries SET next_run_at = '2026-01-04 03:00:00.000000000Z'");
    table.set_clock(instant("2026-01-04 03:00:01Z"));
    let dropped = table.look("default").await;
    assert!(matches!(dropped, Evaluated::Dropped { reason: SkipReason::Day, .. }), "{dropped:?}");
    table.set_clock(instant("2026-01-05 00:00:00Z"));
    assert_eq!(table.waits("default").await, SkipReason::NotDue);
    table.set_clock(instant("2026-01-05 03:00:00Z"));
    table.fires("default").await;
    assert_eq!(table.jobs(), 1);
}

#[tokio::test]
async fn a_clock_that_is_put_back_fires_no_slot_twice() {
    let mut table = Timetable::of(vec![cron("default", "0 3 * * *")]).await;
    table.set_clock(instant("2026-01-03 03:00:00Z"));
    table.fires("default").await;
    table.ends(succeeded()).await;
    let before = table.rows_as_stored();
    table.set_clock(instant("2026-01-02 03:00:00Z"));
    assert_eq!(table.waits("default").await, SkipReason::NotDue);
    table.set_clock(instant("2026-01-03 03:00:00Z"));
    assert_eq!(table.waits("default").await, SkipReason::NotDue);
    assert_eq!(table.rows_as_stored(), before);
    table.set_clock(instant("2026-01-04 03:00:00Z"));
    table.fires("default").await;
}

#[tokio::test]
async fn a_new_command_does_not_fire_the_slot_of_this_minute_again() {
    let mut table = Timetable::of(vec![cron("default", "4 3 * * *")]).await;
    table.fires("default").await;
    table.ends(succeeded()).await;
    table.site.advance(10);
    let table = table.reload(vec![with_command("sync", cron("default", "4 3 * * *"))]).await;
    assert_eq!(table.waits("default").await, SkipReason::NotDue);
    assert_eq!(table.next("default").await, Some(instant("2026-01-03 03:04:00Z")));
}

#[tokio::test]
async fn a_changed_expression_or_zone_takes_the_first_slot_after_now() {
    let mut table = Timetable::of(vec![cron("default", "0 3 * * *")]).await;
    table.waits("default").await;
    table = table.reload(vec![cron("default", "4 3 * * *")]).await;
    assert_eq!(table.waits("default").await, SkipReason::NotDue, "the minute that runs is over");
    assert_eq!(table.next("default").await, Some(instant("2026-01-03 03:04:00Z")));
    let berlin = Zone::named("Europe/Berlin").unwrap();
    table = table.reload(vec![Entry { zone: berlin, ..cron("default", "4 3 * * *") }]).await;
    table.waits("default").await;
    assert_eq!(table.next("default").await, Some(instant("2026-01-03 02:04:00Z")));
    assert_eq!(table.row("default").await.definition, Definition::Is("cron 4 3 * * * tz=Europe/Berlin".into()));
}

#[tokio::test]
async fn resumed_it_takes_the_first_slot_after_now() {
    let table = Timetable::of(vec![cron("default", "0 * * * *")]).await;
    table.waits("default").await;
    let now = || table.site.clock.now();
    let mut maintainer = crate::Maintainer::open(&table.site.path()).unwrap();
    let entry = table.due("default").entry;
    let mut change = |change| maintainer.change_schedule(&entry, &change, now(), crate::ChangeMode::Apply).unwrap();
    change(ScheduleChange::Pause(None));
    table.set_clock(instant("05:30:00"));
    change(ScheduleChange::Resume { rearm: false });
    assert_eq!(table.next("default").await, Some(instant("06:00:00")));
    assert_eq!(table.waits("default").await, SkipReason::NotDue);
}
