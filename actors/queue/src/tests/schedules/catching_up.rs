use super::*;

fn catching_up(policy: CatchUp, entry: Entry) -> Entry {
    Entry { catch_up: policy, ..entry }
}

/// A schedule of every minute that fired at 03:04:05 and then was away for so long.
async fn away(policy: CatchUp, minutes: i64) -> Timetable {
    away_with(catching_up(policy, every("default", "1m")), minutes).await
}

async fn away_with(entry: Entry, minutes: i64) -> Timetable {
    let mut table = Timetable::under(breaking(3, 60), vec![entry]).await;
    table.fires("default").await;
    table.ends(broken()).await;
    table.sql("DELETE FROM circuit_breakers; DELETE FROM job_queue;");
    table.site.advance(60 * minutes);
    table.restart().await
}

fn keys(table: &Timetable) -> Vec<String> {
    table.site.column("SELECT dedupe_key FROM job_queue ORDER BY rowid")
}

fn caught_up(first: &str, missed: u64, queued: u64, dropped: u64) -> Option<CaughtUp> {
    Some(CaughtUp { first: instant(first), missed, queued, dropped })
}

#[tokio::test]
async fn one_that_skips_fires_once_as_usual() {
    let table = away(CatchUp::Skip, 10).await;
    assert_eq!(table.catches_up("default").await, None);
    table.fires("default").await;
    assert_eq!(keys(&table), ["echo:poll:default"]);
}

#[tokio::test]
async fn one_job_makes_up_for_all() {
    let table = away(CatchUp::RunOnce, 10).await;
    assert_eq!(table.catches_up("default").await, caught_up("03:05:05", 10, 1, 0));
    assert_eq!(keys(&table), ["echo:poll:default:catchup:2026-01-02T03:05:05Z"]);
    let row = table.row("default").await;
    assert_eq!((row.last_fired_at, row.next_run_at), (Some(instant("03:14:05")), Some(instant("03:15:05"))));
    assert_eq!(table.catches_up("default").await, None);
    assert_eq!(table.waits("default").await, SkipReason::NotDue);
    let told = table.site.last_event("scheduler.scheduled").await;
    let words = ["schedule_id", "source_schedule_id", "submitted_by"].map(|key| told[key].as_str().unwrap());
    assert_eq!(words, ["catch_up", "default", "ductile"]);
}

#[tokio::test]
async fn each_run_is_made_up_for_by_a_job_of_its_own_oldest_first() {
    let table = away(CatchUp::RunAll, 10).await;
    table.site.clock.advance(TimeDelta::seconds(20));
    assert_eq!(table.catches_up("default").await, caught_up("03:05:05", 10, 10, 0));
    let expected: Vec<_> =
        (5..15).map(|minute| format!("echo:poll:default:catchup:2026-01-02T03:{minute:02}:05Z")).collect();
    assert_eq!(keys(&table), expected);
    let row = table.row("default").await;
    assert_eq!((row.last_fired_at, row.next_run_at), (Some(instant("03:14:05")), Some(instant("03:15:05"))));
    // Once more, as a start right after a kill would.
    let table = table.restart().await;
    assert_eq!(table.catches_up("default").await, None);
    assert_eq!(table.waits("default").await, SkipReason::NotDue);
    assert_eq!(table.jobs(), 10);
}

#[tokio::test]
async fn of_too_many_runs_the_newest_hundred_are_made_up_for_and_the_next_start_adds_none() {
    let table = away(CatchUp::RunAll, 500).await;
    assert_eq!(table.catches_up("default").await, caught_up("03:05:05", 500, 100, 400));
    let keys = keys(&table);
    assert_eq!(keys.len(), 100);
    assert_eq!(keys[0], "echo:poll:default:catchup:2026-01-02T09:45:05Z");
    assert_eq!(keys[99], "echo:poll:default:catchup:2026-01-02T11:24:05Z");
    let table = table.restart().await;
    assert_eq!(table.catches_up("default").await, None);
    assert_eq!(table.jobs(), 100);
}

#[tokio::test]
async fn all_jobs_and_the_row_are_one_transaction() {
    let table = away(CatchUp::RunAll, 10).await;
    let before = table.rows_as_stored();
    table.sql("CREATE TRIGGER refuse BEFORE UPDATE ON schedule_entries BEGIN SELECT RAISE(ABORT, 'refused'); END;");
    table.site.store.catch_up_schedule(table.due("default")).await.unwrap_err();
    assert_eq!((table.rows_as_stored(), table.jobs()), (before, 0));
    table.sql("DROP TRIGGER refuse");
    let table = table.restart().await;
    assert_eq!(table.catches_up("default").await, caught_up("03:05:05", 10, 10, 0));
    assert_eq!(table.jobs(), 10);
}

#[tokio::test]
async fn runs_count_from_the_last_firing_else_from_the_last_success_else_there_are_none() {
    let table = away(CatchUp::RunOnce, 10).await;
    table.sql("UPDATE schedule_entries SET last_success_at = '2026-01-02 03:10:00.000000000Z'");
    assert_eq!(table.catches_up("default").await, caught_up("03:05:05", 10, 1, 0));
    let table = away(CatchUp::RunOnce, 10).await;
    table.sql(
        "UPDATE schedule_entries
         SET last_success_at = '2026-01-02 03:10:00.000000000Z', last_fired_at = NULL",
    );
    assert_eq!(table.catches_up("default").await, caught_up("03:11:00", 4, 1, 0));
    let table = away(CatchUp::RunOnce, 10).await;
    table.sql("UPDATE schedule_entries SET last_fired_at = NULL");
    assert_eq!(table.catches_up("default").await, None);
    let never_seen = Timetable::of(vec![catching_up(CatchUp::RunAll, every("default", "1m"))]).await;
    assert_eq!(never_seen.catches_up("default").await, None);
    assert!(never_seen.rows_as_stored().is_empty());
}

#[tokio::test]
async fn without_a_missed_run_nothing_happens() {
    let table = away(CatchUp::RunAll, 0).await;
    table.site.advance(59);
    let before = table.rows_as_stored();
    assert_eq!(table.catches_up("default").await, None);
    assert_eq!((table.rows_as_stored(), table.jobs()), (before, 0));
}

#[tokio::test]
async fn a_run_is_missed_at_its_very_instant() {
    let table = away(CatchUp::RunAll, 1).await;
    assert_eq!(table.catches_up("default").await, caught_up("03:05:05", 1, 1, 0));
}

#[tokio::test]
async fn runs_outside_the_window_are_not_missed() {
    let only = |text: &str| catching_up(CatchUp::RunAll, window(text, every("default", "1m")));
    let mut table = away(CatchUp::RunAll, 10).await;
    table = table.reload(vec![only("03:07-03:09")]).await;
    assert_eq!(table.catches_up("default").await, caught_up("03:07:05", 2, 2, 0));
    let row = table.row("default").await;
    assert_eq!((row.last_fired_at, row.next_run_at), (Some(instant("03:08:05")), Some(instant("03:14:05"))));
    assert_eq!(table.catches_up("default").await, None);
    let mut table = away(CatchUp::RunAll, 10).await;
    table = table.reload(vec![only("08:00-09:00")]).await;
    assert_eq!(table.catches_up("default").await, None);
    assert_eq!(table.jobs(), 0);
}

#[tokio::test]
async fn a_breaker_that_is_not_closed_leaves_it_out() {
    for state in ["open", "half_open"] {
        let table = away(CatchUp::RunAll, 10).await;
        table.sql(&format!(
            "INSERT INTO circuit_breakers (plugin, command, state, failure_count, opened_at, updated_at)
             VALUES ('echo', 'poll', '{state}', 1, '2026-01-02 03:14:05.000000000Z', '2026-01-02 03:14:05.000000000Z')"
        ));
        let before = table.rows_as_stored();
        assert_eq!(table.catches_up("default").await, None);
        assert_eq!((table.rows_as_stored(), table.jobs()), (before, 0), "{state}");
    }
}

#[tokio::test]
async fn jobs_that_are_there_hold_nothing_back() {
    let table = away(CatchUp::RunAll, 3).await;
    table.site.enqueue(job("echo")).await;
    assert_eq!(table.catches_up("default").await, caught_up("03:05:05", 3, 3, 0));
}

#[tokio::test]
async fn the_success_of_such_a_job_counts_for_its_schedule() {
    let mut table = away(CatchUp::RunOnce, 10).await;
    table.catches_up("default").await;
    table.site.advance(7);
    let job = table.ends(succeeded()).await;
    let row = table.row("default").await;
    assert_eq!((row.last_success_job_id, row.next_run_at), (Some(job), Some(instant("03:15:12"))));
}

#[tokio::test]
async fn other_modes_make_up_for_nothing() {
    let entries = modes().into_iter().filter(|entry| entry.id != "every");
    let mut table = Timetable::of(entries.map(|entry| catching_up(CatchUp::RunAll, entry)).collect()).await;
    for id in ["cron", "at", "after"] {
        if let Evaluated::Fired { .. } = table.look(id).await {
            table.ends(succeeded()).await;
        }
    }
    table.site.advance(3600);
    for id in ["cron", "at", "after"] {
        assert_eq!(table.catches_up(id).await, None);
    }
}
