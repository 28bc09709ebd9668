use super::*;
use crate::QueueError;

/// Holds the write lock as another process does.
fn lock(site: &Site) -> Connection {
    let other = site.other();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

#[tokio::test]
async fn an_enqueue_waits_for_a_lock_that_is_given_back() {
    let site = Site::new().await;
    let other = lock(&site);
    let queue = site.queue.clone();
    let waiting = tokio::spawn(async move { queue.enqueue(job("echo")).await });
    assert!(!site.store.is_writable().await, "a second under a foreign lock is not writable");
    assert!(!waiting.is_finished());
    other.execute_batch("COMMIT").unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_queue"), 1);
    assert!(site.store.is_writable().await);
}

#[tokio::test]
async fn a_lock_held_too_long_is_a_clear_error_for_producers_and_keeps_outcomes() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    site.enqueue(job("echo")).await;
    let running = claim(&mut claims).await;
    let other = lock(&site);
    let (store, end) = (site.store.clone(), site.end_of(&running, succeeded()));
    let finishing = tokio::spawn(async move { store.finalise(end).await });
    let (one, two) = tokio::join!(site.queue.enqueue(job("echo")), site.queue.enqueue(job("echo")));
    for refused in [one, two] {
        let error = refused.unwrap_err();
        assert!(matches!(error, QueueError::Busy), "{error:?}");
        assert_eq!(error.to_string(), "database is locked");
    }
    assert!(!finishing.is_finished());
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(finishing.await.unwrap().unwrap(), stored(JobStatus::Succeeded));
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_queue"), 1);
}

#[tokio::test]
async fn an_outcome_that_can_not_be_stored_in_time_ends_the_process_and_the_next_start_recovers_it() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let id = site.enqueue(job("echo")).await;
    let running = claim(&mut claims).await;
    // As on a file system that became read-only.
    site.store.write(|scope| Ok(scope.connection().execute_batch("PRAGMA query_only = ON")?)).await.unwrap();
    // The first two tries come within the limit.
    let end = site.end_of(&running, with_state(r#"{"n":1}"#, &["fact"]));
    let error = site.store.finalise_within(Duration::from_millis(200), end).await.unwrap_err();
    assert!(matches!(error, QueueError::Storage(_)), "{error:?}");
    let reason = tokio::time::timeout(SOON, site.store.failed()).await.unwrap();
    assert!(reason.contains(id.as_str()), "{reason}");
    assert_eq!(site.column("SELECT status || attempt FROM job_queue"), ["running1"]);
    let site = site.reopen().await;
    assert_eq!(site.store.recover(None).await.unwrap().len(), 1);
    assert_eq!(site.column("SELECT status || attempt FROM job_queue"), ["queued2"]);
    assert_eq!(site.one::<i64>("SELECT count(*) FROM plugin_facts"), 0);
}

#[tokio::test]
async fn readers_go_on_beside_a_foreign_lock() {
    let site = Site::new().await;
    let id = site.enqueue(job("echo")).await;
    let other = lock(&site);
    assert_eq!(site.queue.job(&id).await.unwrap().unwrap().status, JobStatus::Queued);
    drop(other);
}

#[tokio::test]
async fn claims_wait_for_the_lock_and_come_when_it_is_free() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    site.enqueue(job("echo")).await;
    let running = claim(&mut claims).await;
    site.finish(&running, failed(FailureReason::Timeout)).await;
    let other = lock(&site);
    site.advance(60);
    assert!(!site.store.is_writable().await);
    assert!(claims.try_recv().is_err());
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(claim(&mut claims).await.attempt, 2);
}

#[tokio::test]
async fn a_closed_store_answers_that_it_is_not_available() {
    let site = Site::new().await;
    site.enqueue(job("echo")).await;
    site.store.close().await;
    assert!(matches!(site.queue.enqueue(job("echo")).await, Err(QueueError::Unavailable)));
    assert!(matches!(site.queue.circuits_open().await, Err(QueueError::Unavailable)));
    assert!(!site.store.is_writable().await);
    let log = std::fs::metadata(crate::open::side_file(&site.path(), "-wal"));
    assert!(log.map_or(true, |file| file.len() == 0), "the write-ahead log is empty or gone");
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_queue"), 1);
}

#[tokio::test]
async fn what_was_submitted_before_a_close_is_committed_and_answered() {
    let site = Site::new().await;
    let asked: Vec<_> = (0..100)
        .map(|_| {
            let queue = site.queue.clone();
            tokio::spawn(async move { queue.enqueue(job("echo")).await })
        })
        .collect();
    tokio::task::yield_now().await;
    site.store.close().await;
    let mut accepted = 0;
    for answer in asked {
        match answer.await.unwrap() {
            Ok(_) => accepted += 1,
            Err(error) => assert!(matches!(error, QueueError::Unavailable)),
        }
    }
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_queue"), accepted);
}

#[tokio::test]
async fn a_file_that_was_replaced_ends_the_process() {
    let site = Site::new().await;
    let _claims = site.activate(policy(1)).await;
    let moved = site.directory.path().join("moved.db");
    std::fs::rename(site.path(), moved).unwrap();
    let reason = tokio::time::timeout(SOON, site.store.failed()).await.unwrap();
    assert!(reason.contains("was removed or replaced"), "{reason}");
}

#[tokio::test]
async fn durability_can_be_changed_while_it_runs() {
    let site = Site::new().await;
    let level = || async {
        site.store
            .write(|scope| Ok(scope.connection().query_row("PRAGMA synchronous", [], |row| row.get::<_, i64>(0))?))
            .await
            .unwrap()
    };
    assert_eq!(level().await, 1);
    site.store.set_synchronous(Synchronous::Full);
    site.enqueue(job("echo")).await;
    assert_eq!(level().await, 2);
}
