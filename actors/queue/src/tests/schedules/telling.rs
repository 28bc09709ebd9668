use super::*;
use crate::{BreakerState, Reader, ScheduleNews, glance};

async fn news(receiver: &mut tokio::sync::broadcast::Receiver<ScheduleNews>) -> ScheduleNews {
    tokio::time::timeout(SOON, receiver.recv()).await.expect("there is no news").unwrap()
}

fn moved(id: &str, next: Option<&str>) -> ScheduleNews {
    let next = next.map(instant);
    ScheduleNews::Moved { plugin: "echo".to_owned(), schedule_id: id.to_owned(), next }
}

fn ended(command: &str) -> ScheduleNews {
    ScheduleNews::Ended { plugin: "echo".to_owned(), command: command.to_owned() }
}

#[tokio::test]
async fn what_moves_a_schedule_is_told_once_it_is_committed() {
    let mut table = Timetable::of(vec![every("every", "1h"), with_command("sync", at("at", "03:04:00"))]).await;
    let mut receiver = table.site.store.schedule_news();
    table.fires("every").await;
    assert_eq!(news(&mut receiver).await, moved("every", Some("04:04:05")));
    table.site.advance(5);
    table.ends(succeeded()).await;
    assert_eq!(news(&mut receiver).await, ended("poll"));
    assert_eq!(news(&mut receiver).await, moved("every", Some("04:04:10")));
    table.waits("every").await;
    table.fires("at").await;
    assert_eq!(news(&mut receiver).await, moved("at", None), "a look that changes nothing is no news");
    table.ends(succeeded()).await;
    assert_eq!(news(&mut receiver).await, ended("sync"));
    table.site.store.write(|_| Ok(())).await.unwrap();
    assert!(receiver.try_recv().is_err(), "what moves no time is no news");
}

#[tokio::test]
async fn writes_of_other_processes_are_told_although_nobody_asks() {
    let table = Timetable::of(vec![every("default", "1h")]).await;
    table.fires("default").await;
    table.site.store.write(|_| Ok(())).await.unwrap();
    let mut receiver = table.site.store.schedule_news();
    table.sql("UPDATE schedule_entries SET status = 'paused_manual'");
    assert_eq!(news(&mut receiver).await, ScheduleNews::Outside);
}

#[tokio::test]
async fn an_overview_shows_rows_breakers_cadence_and_what_is_left_of_others() {
    let entries = || vec![every("one", "10s"), with_command("sync", every("two", "1h")), every("gone", "1h")];
    let mut table = Timetable::under(breaking(1, 3600), entries()).await;
    table.sql(
        "INSERT INTO schedule_entries (plugin, schedule_id, command, status, updated_at)
               VALUES ('a', 'z', 'poll', 'active', ''), ('b', 'y', 'poll', 'exhausted', '')",
    );
    table.fires("gone").await;
    table.ends(succeeded()).await;
    for _ in 0..15 {
        table.fires("one").await;
        table.ends(succeeded()).await;
        table.site.advance(20);
    }
    table.fires("one").await;
    table.ends(broken()).await;
    let shown: Vec<_> = table.entries[..2].to_vec();
    let overview = Reader::open(&table.site.path()).unwrap().schedules(&shown).unwrap();
    let others: Vec<_> = overview.others.iter().map(|row| (row.plugin.as_str(), row.schedule_id.as_str())).collect();
    assert_eq!(others, [("a", "z"), ("b", "y"), ("echo", "gone")]);
    let [one, two] = overview.configured.as_slice() else { panic!("{overview:?}") };
    assert_eq!((one.row.clone(), one.breaker), (Some(table.row("one").await), BreakerState::Open));
    assert_eq!((one.runs.len(), one.runs[0]), (11, table.site.clock.now()));
    assert_eq!(one.cadence(), Some(Duration::from_secs(20)));
    assert_eq!((&two.row, two.breaker, two.cadence()), (&None, BreakerState::Closed, None));
}

#[tokio::test]
async fn jobs_of_the_scheduler_that_wait_or_run_are_listed_oldest_first() {
    let mut table = Timetable::of(vec![every("one", "1h"), with_command("sync", every("two", "1h"))]).await;
    table.site.enqueue(job("other")).await;
    claim(&mut table.claims).await;
    let first = table.fires("two").await;
    table.site.advance(1);
    let second = table.fires("one").await;
    let over = claim(&mut table.claims).await;
    assert_eq!(over.id, first);
    let reader = Reader::open(&table.site.path()).unwrap();
    let listed = reader.scheduled_jobs("ductile").unwrap();
    let ids: Vec<_> = listed.iter().map(|job| (&job.id, job.command.as_str(), job.attempt)).collect();
    assert_eq!(ids, [(&first, "sync", 1), (&second, "poll", 1)]);
    assert_eq!(listed[0].dedupe_key.as_deref(), Some("echo:sync:two"));
    assert_eq!((listed[0].created_at, listed[1].created_at), (Some(instant("03:04:05")), Some(instant("03:04:06"))));
    table.site.finish(&over, succeeded()).await;
    assert_eq!(reader.scheduled_jobs("ductile").unwrap().len(), 1);
    assert!(reader.scheduled_jobs("another").unwrap().is_empty());
}

#[tokio::test]
async fn a_glance_says_what_a_look_would_unless_there_is_something_to_do() {
    let mut table = Timetable::of(vec![every("default", "1h")]).await;
    let glance_at =
        |table: &Timetable, row: Option<&ScheduleRow>| glance(&table.due("default").entry, row, table.site.clock.now());
    assert_eq!(glance_at(&table, None), None, "it was never seen");
    table.fires("default").await;
    table.ends(broken()).await;
    let row = table.row("default").await;
    assert_eq!(glance_at(&table, Some(&row)), Some((SkipReason::NotDue, row.next_run_at)));
    for other in [
        ScheduleRow { command: "sync".into(), ..row.clone() },
        ScheduleRow { status: ScheduleStatus::PausedInvalid, ..row.clone() },
        ScheduleRow { status: ScheduleStatus::Exhausted, ..row.clone() },
        ScheduleRow { next_run_at: None, ..row.clone() },
        ScheduleRow { next_run_at: Some(instant("05:00:00")), ..row.clone() },
        ScheduleRow { definition: Definition::Unset, ..row.clone() },
        ScheduleRow { definition: Definition::Is("every 2h0m0s".into()), ..row.clone() },
        ScheduleRow { next_run_at: Some(instant("03:04:05")), ..row.clone() },
    ] {
        assert_eq!(glance_at(&table, Some(&other)), None, "{other:?}");
    }
    let paused = ScheduleRow { status: ScheduleStatus::PausedManual, ..row.clone() };
    assert_eq!(glance_at(&table, Some(&paused)), Some((SkipReason::Paused, row.next_run_at)));
}
