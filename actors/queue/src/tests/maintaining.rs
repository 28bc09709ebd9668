use super::*;
use crate::breaker_rows::{self, BreakerChange, BreakerReason, BreakerRow, BreakerState};
use crate::{ChangeMode, Maintainer, Reader, StopwatchFilter, StopwatchPart, StoreError, prune};

fn memory() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(crate::schema::SCHEMA).unwrap();
    connection
}

fn at(second: u32) -> chrono::DateTime<chrono::Utc> {
    parse_stored(&format!("2026-01-02 03:04:{second:02}.000000001Z")).unwrap()
}

fn open_row() -> BreakerRow {
    BreakerRow {
        state: BreakerState::Open,
        failure_count: 3,
        opened_at: Some(at(1)),
        last_failure_at: Some(at(1)),
        last_job_id: Some(JobId::from("job-3")),
        updated_at: None,
    }
}

#[test]
fn a_breaker_reads_back_as_it_was_written_and_is_one_row() {
    let connection = memory();
    assert_eq!(breaker_rows::read(&connection, "p", "poll").unwrap(), None);
    breaker_rows::write(&connection, "p", "poll", &open_row(), at(2)).unwrap();
    let written = BreakerRow { updated_at: Some(at(2)), ..open_row() };
    assert_eq!(breaker_rows::read(&connection, "p", "poll").unwrap(), Some(written));
    let probing = BreakerRow { state: BreakerState::HalfOpen, opened_at: None, ..open_row() };
    breaker_rows::write(&connection, "p", "poll", &probing, at(3)).unwrap();
    let written = BreakerRow { updated_at: Some(at(3)), ..probing };
    assert_eq!(breaker_rows::read(&connection, "p", "poll").unwrap(), Some(written));
    let rows: i64 = connection.query_row("SELECT count(*) FROM circuit_breakers", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1);
    let stored: String = connection.query_row("SELECT updated_at FROM circuit_breakers", [], |row| row.get(0)).unwrap();
    assert_eq!(stored, "2026-01-02 03:04:03.000000001Z");
}

#[test]
fn changes_are_listed_newest_first_those_of_one_instant_and_of_the_older_form_too() {
    let connection = memory();
    let job = JobId::from("job-3");
    let change = |count, reason| BreakerChange {
        from: Some(BreakerState::Closed),
        to: BreakerState::Open,
        failure_count: count,
        reason,
        job: Some(&job),
    };
    for count in 1..=3 {
        let change = change(count, BreakerReason::FailureThreshold);
        breaker_rows::insert_transition(&connection, "p", "poll", &change, at(5)).unwrap();
    }
    breaker_rows::insert_transition(&connection, "p", "other", &change(9, BreakerReason::Success), at(9)).unwrap();
    connection
        .execute_batch(
            "INSERT INTO circuit_breaker_transitions
             VALUES ('old', 'p', 'poll', NULL, 'closed', 0, 'manual_reset', NULL, '2026-01-02T03:04:04Z')",
        )
        .unwrap();
    let listed = breaker_rows::transitions(&connection, "p", "poll", 9).unwrap();
    assert_eq!(listed.iter().map(|row| row.failure_count).collect::<Vec<_>>(), [3, 2, 1, 0]);
    assert_eq!((listed[0].reason.as_str(), listed[0].job_id.as_deref()), ("failure_threshold", Some("job-3")));
    assert_eq!(listed[0].id.len(), 36);
    assert_eq!((listed[3].from_state.as_ref(), listed[3].job_id.as_ref()), (None, None));
    assert_eq!(breaker_rows::transitions(&connection, "p", "poll", 2).unwrap().len(), 2);
}

#[test]
fn a_reset_closes_what_has_a_row_and_always_polling_and_is_all_or_nothing() {
    let mut connection = memory();
    breaker_rows::write(&connection, "p", "handle", &open_row(), at(1)).unwrap();
    let transaction = connection.transaction().unwrap();
    let reset = breaker_rows::reset(&transaction, "p", None, at(4)).unwrap();
    transaction.rollback().unwrap();
    let states: Vec<_> = reset.iter().map(|breaker| (breaker.command.as_str(), breaker.previous_state)).collect();
    assert_eq!(states, [("handle", Some(BreakerState::Open)), ("poll", None)]);
    assert_eq!(breaker_rows::to_reset(&connection, "p", None).unwrap(), reset, "nothing was done yet");
    breaker_rows::reset(&connection, "p", None, at(4)).unwrap();
    let closed = breaker_rows::report(&connection, "p", "handle", 9).unwrap();
    let row = closed.row.unwrap();
    assert_eq!(
        (row.state, row.failure_count, row.opened_at, row.last_failure_at),
        (BreakerState::Closed, 0, None, None)
    );
    assert_eq!((row.last_job_id, row.updated_at), (Some(JobId::from("job-3")), Some(at(4))));
    assert_eq!(closed.transitions[0].from_state.as_deref(), Some("open"));
    assert_eq!(breaker_rows::report(&connection, "p", "poll", 9).unwrap().transitions[0].from_state, None);
    assert_eq!(breaker_rows::to_reset(&connection, "q", Some("x")).unwrap().len(), 1);
}

#[tokio::test]
async fn a_maintainer_changes_rows_beside_a_store_and_creates_nothing() {
    let site = Site::new().await;
    let reader = Reader::open(&site.path()).unwrap();
    let mut maintainer = Maintainer::open(&site.path()).unwrap();
    let preview = maintainer.reset_breakers("p", None, at(1), ChangeMode::Preview).unwrap();
    assert!(reader.breaker("p", "poll", 9).unwrap().row.is_none());
    assert_eq!(maintainer.reset_breakers("p", None, at(1), ChangeMode::Apply).unwrap(), preview);
    assert_eq!(reader.breaker("p", "poll", 9).unwrap().row.unwrap().state, BreakerState::Closed);
    site.enqueue(job("echo")).await;
    let missing = site.directory.path().join("deeper/ductile.db");
    let error = Maintainer::open(&missing).err().unwrap();
    assert!(matches!(error, StoreError::NotFound(_)), "{error}");
    let empty = site.directory.path().join("empty.db");
    std::fs::write(&empty, "").unwrap();
    let error = Maintainer::open(&empty).err().unwrap().to_string();
    assert!(error.contains("is empty"), "{error}");
    let names: Vec<String> = std::fs::read_dir(site.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("empty") || name.contains("deeper"))
        .collect();
    assert_eq!((names, std::fs::metadata(&empty).unwrap().len()), (vec!["empty.db".to_owned()], 0));
}

#[test]
fn a_batch_looks_at_a_page_of_rows_whether_or_not_they_match() {
    let connection = memory();
    connection
        .execute_batch(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
             INSERT INTO job_stopwatch (job_id, plugin, attempt, enter_wall_ns, exit_wall_ns, dur_ns, runtime_pre_ns, runtime_post_ns, status, recorded_at)
             SELECT 'j', CASE i WHEN 2400 THEN 'rare' ELSE 'p' END, 1, 0, 0, 1, 0, 0, 'ok', '2026-01-01 00:00:00.000000000Z' FROM n",
        )
        .unwrap();
    let filter = StopwatchFilter { older_than: at(1), plugin: Some("rare".into()), step: None, status: None };
    let batch =
        |after| prune::batch(&connection, &StopwatchPart::Rows, &filter, (after, 9), ChangeMode::Apply).unwrap();
    let seen: Vec<_> = [i64::MIN, 1000, 2000].map(batch).iter().map(|batch| (batch.affected, batch.next)).collect();
    assert_eq!(seen, [(0, Some(1000)), (0, Some(2000)), (1, None)]);
    assert_eq!((batch(2500).affected, batch(2500).next), (0, None));
}
