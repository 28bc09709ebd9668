use super::*;

#[tokio::test]
async fn what_did_not_change_keeps_its_row_to_the_digit_over_a_hundred_reloads() {
    let mut table = Timetable::of(modes()).await;
    for id in ["every", "cron", "at", "after"] {
        if let Evaluated::Fired { .. } = table.look(id).await {
            table.ends(succeeded()).await;
        }
    }
    let (before, jobs) = (table.rows_as_stored(), table.jobs());
    for _ in 0..100 {
        table = table.reload(modes()).await;
        for id in ["every", "cron", "at", "after"] {
            table.waits(id).await;
        }
    }
    assert_eq!((table.rows_as_stored(), table.jobs()), (before, jobs));
}

#[tokio::test]
async fn payload_policies_and_windows_count_at_the_next_look_without_touching_the_row() {
    let mut table = Timetable::of(vec![every("default", "1h")]).await;
    table.fires("default").await;
    table.ends(broken()).await;
    let before = table.rows_as_stored();
    let other = Entry { payload: "[1]".into(), if_running: Overlap::Cancel, ..every("default", "1h") };
    table = table.reload(vec![window("00:00-12:00", other)]).await;
    table.waits("default").await;
    assert_eq!(table.rows_as_stored(), before);
    table.site.advance(3600);
    let job = table.fires("default").await;
    assert_eq!(table.site.one::<String>(&format!("SELECT payload FROM job_queue WHERE id = '{job}'")), "[1]");
}

#[tokio::test]
async fn a_changed_interval_counts_from_the_later_of_firing_and_success_and_not_from_the_past() {
    let mut table = Timetable::of(vec![every("default", "1h")]).await;
    table.fires("default").await;
    table.site.advance(4);
    table.ends(succeeded()).await;
    table = table.reload(vec![every("default", "10s")]).await;
    assert_eq!(table.waits("default").await, SkipReason::NotDue);
    let row = table.row("default").await;
    assert_eq!(row.next_run_at, Some(instant("03:04:19")));
    assert_eq!(row.definition, Definition::Is(table.due("default").entry.definition()));
    table.site.advance(600);
    table = table.reload(vec![every("default", "20s")]).await;
    match table.look("default").await {
        Evaluated::Fired { slot, .. } => assert_eq!(slot, table.site.clock.now()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_changed_mode_is_a_changed_definition() {
    let mut table = Timetable::of(vec![at("default", "03:04:00")]).await;
    table.fires("default").await;
    table.ends(broken()).await;
    table = table.reload(vec![every("default", "1h")]).await;
    assert_eq!(table.waits("default").await, SkipReason::NotDue);
    let row = table.row("default").await;
    assert_eq!((row.status, row.next_run_at), (ScheduleStatus::Active, Some(instant("04:04:05"))));
    table = table.reload(vec![cron("default", "0 5 * * *")]).await;
    table.waits("default").await;
    assert_eq!(table.next("default").await, Some(instant("05:00:00")));
    table = table.reload(vec![after("default", "1m")]).await;
    table.waits("default").await;
    assert_eq!(table.next("default").await, Some(instant("03:05:05")));
}

#[tokio::test]
async fn a_definition_that_was_not_noted_counts_as_unchanged_and_is_noted() {
    let mut table = Timetable::of(modes()).await;
    for id in ["every", "cron", "at", "after"] {
        if let Evaluated::Fired { .. } = table.look(id).await {
            table.ends(succeeded()).await;
        }
    }
    for nothing in ["NULL", "''"] {
        let noted = table.site.column("SELECT definition FROM schedule_entries ORDER BY schedule_id");
        let mut before = table.site.store.schedules().await.unwrap();
        before.iter_mut().for_each(|row| row.definition = Definition::Unset);
        table.sql(&format!("UPDATE schedule_entries SET definition = {nothing}"));
        assert_eq!(table.site.store.schedules().await.unwrap(), before);
        for (id, row) in [("after", &before[0]), ("at", &before[1]), ("cron", &before[2]), ("every", &before[3])] {
            table.waits(id).await;
            let definition = Definition::Is(table.due(id).entry.definition());
            assert_eq!(table.row(id).await, ScheduleRow { definition, ..row.clone() });
        }
        assert_eq!(table.site.column("SELECT definition FROM schedule_entries ORDER BY schedule_id"), noted);
    }
}

#[tokio::test]
async fn a_database_without_the_column_takes_every_definition_for_unchanged() {
    let site = Site::new().await;
    site.other().execute_batch("ALTER TABLE schedule_entries DROP COLUMN definition").unwrap();
    let mut table = Timetable::at(site.reopen().await, policy(4), modes()).await;
    for id in ["every", "cron", "at", "after"] {
        if let Evaluated::Fired { .. } = table.look(id).await {
            table.ends(succeeded()).await;
        }
    }
    assert_eq!(table.row("every").await.definition, Definition::NotKept);
    let before = table.site.store.schedules().await.unwrap();
    let others = vec![every("every", "2h"), cron("cron", "0 0 1 1 *"), at("at", "05:00:00"), after("after", "5h")];
    table = table.reload(others).await;
    for (id, reason) in [("every", SkipReason::NotDue), ("cron", SkipReason::NotDue), ("at", SkipReason::Exhausted)] {
        assert_eq!(table.waits(id).await, reason);
    }
    table.waits("after").await;
    assert_eq!(table.site.store.schedules().await.unwrap(), before);
    table.site.advance(3600);
    table.fires("every").await;
    assert_eq!(table.next("every").await, Some(instant("06:04:05")));
}

#[tokio::test]
async fn under_another_command_it_counts_as_never_seen() {
    let mut table = Timetable::of(vec![every("default", "1h")]).await;
    table.fires("default").await;
    table.ends(succeeded()).await;
    let fired = table.row("default").await.last_fired_at;
    table.site.advance(60);
    table = table.reload(vec![with_command("sync", window("08:00-09:00", every("default", "1h")))]).await;
    assert_eq!(table.waits("default").await, SkipReason::Window, "it is due at once");
    let row = table.row("default").await;
    assert_eq!((row.command.as_str(), row.last_success_at, row.last_success_job_id), ("sync", None, None));
    assert_eq!((row.next_run_at, row.last_fired_at), (Some(instant("03:05:05")), fired));
}

#[tokio::test]
async fn a_state_that_says_nothing_known_reads_as_active() {
    for status in ["", "some day", "paused_invalid"] {
        let mut table = Timetable::of(vec![every("default", "1h")]).await;
        table.fires("default").await;
        table.ends(broken()).await;
        table.sql(&format!("UPDATE schedule_entries SET status = '{status}', reason = 'for a reason'"));
        table.site.advance(3600);
        table.fires("default").await;
        assert_eq!(table.row("default").await.status, ScheduleStatus::Active, "{status}");
    }
}

#[tokio::test]
async fn one_whose_configuration_was_wrong_becomes_active_and_gets_its_time() {
    let mut table = Timetable::of(vec![every("default", "1h")]).await;
    table.fires("default").await;
    table.ends(broken()).await;
    table.sql(
        "UPDATE schedule_entries
         SET status = 'paused_invalid', reason = 'invalid_schedule_config', next_run_at = NULL",
    );
    table.fires("default").await;
    let row = table.row("default").await;
    assert_eq!((row.status, row.reason), (ScheduleStatus::Active, None));
}

#[tokio::test]
async fn one_that_is_held_back_by_hand_does_nothing() {
    let mut table = Timetable::of(vec![Entry { catch_up: CatchUp::RunAll, ..every("default", "1h") }]).await;
    table.fires("default").await;
    table.ends(broken()).await;
    // From outside, while it runs.
    table.sql("UPDATE schedule_entries SET status = 'paused_manual', reason = 'holidays'");
    let before = table.rows_as_stored();
    table.site.advance(10 * 3600);
    assert_eq!(table.waits("default").await, SkipReason::Paused);
    assert_eq!(table.catches_up("default").await, None);
    table = table.restart().await;
    assert_eq!(table.waits("default").await, SkipReason::Paused);
    assert_eq!((table.rows_as_stored(), table.jobs()), (before, 1));
    table.sql("UPDATE schedule_entries SET status = 'active'");
    table.fires("default").await;
}

#[tokio::test]
async fn a_clock_that_is_put_back_by_a_day_brings_the_next_run_within_an_interval() {
    let mut table = Timetable::of(vec![jittery("default", "1m", "10s")]).await;
    table.fires("default").await;
    table.ends(succeeded()).await;
    table.site.advance(-24 * 3600);
    assert_eq!(table.waits("default").await, SkipReason::NotDue);
    let now = table.site.clock.now();
    assert_eq!(table.next("default").await, Some(now + TimeDelta::seconds(60)));
    assert_eq!(table.waits("default").await, SkipReason::NotDue);
    table.site.advance(60);
    table.fires("default").await;
}

#[tokio::test]
async fn a_small_step_back_moves_nothing() {
    let table = Timetable::of(vec![jittery("default", "1m", "10s")]).await;
    table.fires("default").await;
    let before = table.rows_as_stored();
    table.site.advance(-10);
    assert_eq!(table.waits("default").await, SkipReason::NotDue);
    assert_eq!(table.rows_as_stored(), before);
}

#[tokio::test]
async fn rows_of_schedules_that_are_gone_are_left_alone_and_found_again() {
    let mut table = Timetable::of(vec![every("gone", "1h"), with_command("sync", every("stays", "1h"))]).await;
    table.fires("gone").await;
    let claimed = claim(&mut table.claims).await;
    table.fires("stays").await;
    table.site.finish(&claimed, broken()).await;
    let before = table.row("gone").await;
    table = table.reload(vec![with_command("sync", every("stays", "1h"))]).await.restart().await;
    table.site.advance(1800);
    table.waits("stays").await;
    assert_eq!(table.row("gone").await, before);
    table = table.reload(vec![every("gone", "1h")]).await;
    assert_eq!(table.waits("gone").await, SkipReason::NotDue);
    assert_eq!(table.row("gone").await, before);
}
