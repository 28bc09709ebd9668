use super::*;
use crate::QueueError;

/// Due in every mode, each with a command of its own.
async fn all_due() -> Timetable {
    let entries = modes().into_iter().map(|entry| {
        let command = format!("do-{}", entry.id);
        with_command(&command, entry)
    });
    Timetable::of(entries.collect()).await
}

#[tokio::test]
async fn a_look_that_fails_after_its_job_was_written_leaves_neither_job_nor_row() {
    for (when, trigger) in [("new", "INSERT"), ("known", "UPDATE")] {
        let mut table = all_due().await;
        table.waits("after").await;
        if when == "known" {
            table.fires("every").await;
            table.ends(broken()).await;
            table.fires("cron").await;
            table.ends(broken()).await;
            table.site.advance(3600);
        }
        table.sql(&format!(
            "CREATE TRIGGER refuse BEFORE {trigger} ON schedule_entries BEGIN SELECT RAISE(ABORT, 'refused'); END;"
        ));
        let (rows, jobs, events) = (table.rows_as_stored(), table.jobs(), table.site.events().await);
        for id in ["every", "cron"] {
            let error = table.site.store.evaluate_schedule(table.due(id)).await.unwrap_err();
            let QueueError::Storage(source) = error else { panic!("{error:?}") };
            assert_eq!(source.to_string(), "refused");
        }
        assert_eq!((table.rows_as_stored(), table.jobs()), (rows, jobs), "{when}");
        assert_eq!(table.site.one::<i64>("SELECT count(*) FROM job_transitions WHERE to_status = 'queued'"), jobs);
        assert_eq!(table.site.events().await, events, "{when}");
        table.sql("DROP TRIGGER refuse");
        table = table.restart().await;
        for id in ["every", "cron"] {
            table.fires(id).await;
            assert_eq!(table.waits(id).await, SkipReason::NotDue, "once");
        }
        assert_eq!(table.jobs(), jobs + 2, "{when}");
    }
}

#[tokio::test]
async fn a_one_shot_that_could_not_be_marked_has_not_fired() {
    let mut table = all_due().await;
    table.sql(
        "CREATE TRIGGER refuse BEFORE INSERT ON schedule_entries WHEN new.status = 'exhausted'
         BEGIN SELECT RAISE(ABORT, 'refused'); END;",
    );
    table.site.store.evaluate_schedule(table.due("at")).await.unwrap_err();
    assert_eq!((table.rows_as_stored().len(), table.jobs()), (0, 0));
    table.sql("DROP TRIGGER refuse");
    table = table.restart().await;
    table.fires("at").await;
    assert_eq!(table.waits("at").await, SkipReason::Exhausted);
}

#[tokio::test]
async fn one_that_fails_does_not_take_its_neighbours_with_it() {
    let table = all_due().await;
    table.sql(
        "CREATE TRIGGER refuse BEFORE INSERT ON schedule_entries WHEN new.schedule_id = 'cron'
         BEGIN SELECT RAISE(ABORT, 'refused'); END;",
    );
    let store = &table.site.store;
    let (every, cron, at) = tokio::join!(
        store.evaluate_schedule(table.due("every")),
        store.evaluate_schedule(table.due("cron")),
        store.evaluate_schedule(table.due("at")),
    );
    assert!(matches!(every, Ok(Evaluated::Fired { .. })) && matches!(at, Ok(Evaluated::Fired { .. })));
    cron.unwrap_err();
    assert_eq!(table.site.column("SELECT schedule_id FROM schedule_entries ORDER BY 1"), ["at", "every"]);
    assert_eq!(table.jobs(), 2);
}

#[tokio::test]
async fn a_database_that_stays_locked_changes_nothing_and_the_next_look_fires() {
    let table = all_due().await;
    let other = table.site.other();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (looked, caught_up) = tokio::join!(
        table.site.store.evaluate_schedule(table.due("every")),
        table.site.store.catch_up_schedule(table.due("every")),
    );
    assert!(matches!(looked, Err(QueueError::Busy)), "{looked:?}");
    assert!(matches!(caught_up, Err(QueueError::Busy)), "{caught_up:?}");
    assert_eq!((table.rows_as_stored().len(), table.jobs()), (0, 0));
    other.execute_batch("COMMIT").unwrap();
    table.fires("every").await;
}

#[tokio::test]
async fn a_store_beside_this_one_finds_what_this_one_did() {
    let table = all_due().await;
    let options = options(table.site.path(), table.site.clock.clone(), table.site.hub.clone());
    let options = StoreOptions { snapshot: Some(table.generation.clone()), ..options };
    let beside = Store::open(options).unwrap();
    let (here, there) =
        tokio::join!(table.site.store.evaluate_schedule(table.due("at")), beside.evaluate_schedule(table.due("at")));
    let fired = |looked: Result<Evaluated, QueueError>| matches!(looked.unwrap(), Evaluated::Fired { .. });
    assert_ne!(fired(here), fired(there), "one of them fired");
    assert_eq!(table.jobs(), 1);
    beside.close().await;
}
