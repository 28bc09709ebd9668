//! Answers of dedupe against a look at every row.

use proptest::prelude::*;

use super::model::row::{Row, Verdict, verdict};
use super::*;

/// Few enough that bounds are met exactly, or missed by a nanosecond.
fn instant() -> impl Strategy<Value = TimeDelta> {
    let nanos = prop_oneof![1 => Just(-1i64), 6 => Just(0), 1 => Just(1)];
    (-3i64..3, nanos).prop_map(|(tens, nanos)| TimeDelta::seconds(10 * tens) + TimeDelta::nanoseconds(nanos))
}

#[derive(Debug, Clone)]
struct Past {
    identity: Identity,
    status: JobStatus,
    created: TimeDelta,
    completed: TimeDelta,
}

#[derive(Debug, Clone)]
struct Identity {
    key: Option<u8>,
    plugin: u8,
    command: u8,
    /// Parent and event, for jobs that the router makes.
    event: Option<(u8, &'static str)>,
}

#[derive(Debug, Clone)]
struct Ask {
    identity: Identity,
    window: Option<u64>,
    /// How the clock moves before.
    clock: TimeDelta,
    /// Whether a new row stays for those that ask later.
    stays: bool,
}

fn identity() -> impl Strategy<Value = Identity> {
    let events = vec!["e", "e/pipe/one", "e/pipe/two", "ee", "f"];
    (
        prop::option::weighted(0.9, Just(0u8)),
        0u8..2,
        0u8..2,
        prop::option::weighted(0.3, (0u8..2, prop::sample::select(events))),
    )
        .prop_map(|(key, plugin, command, event)| Identity { key, plugin, command, event })
}

fn past() -> impl Strategy<Value = Past> {
    let status = prop_oneof![
        8 => Just(JobStatus::Succeeded),
        1 => prop::sample::select(JobStatus::ALL.to_vec()),
    ];
    (identity(), status, instant(), instant()).prop_map(|(identity, status, created, completed)| Past {
        identity,
        status,
        created,
        completed,
    })
}

fn ask() -> impl Strategy<Value = Ask> {
    let windows = prop::sample::select(vec![0, 10, 20, 30, u64::from(u32::MAX)]);
    (identity(), prop::option::of(windows), instant(), prop::bool::weighted(0.2))
        .prop_map(|(identity, window, clock, stays)| Ask { identity, window, clock, stays })
}

fn new_job(identity: &Identity) -> NewJob {
    NewJob {
        command: ["poll", "handle"][usize::from(identity.command)].into(),
        // What is around a key does not count.
        dedupe_key: identity.key.map(|key| format!(" k{key} ")),
        submitted_by: if identity.event.is_some() { Producer::Route } else { Producer::Api },
        parent_job_id: identity.event.map(|(parent, _)| JobId::from(format!("parent-{parent}"))),
        event_id: identity.event.and_then(|(_, event)| event.split('/').next()).map(str::to_owned),
        source_event_id: identity.event.map(|(_, event)| event.to_owned()),
        ..job(&format!("p{}", identity.plugin))
    }
}

fn insert(site: &Site, other: &Connection, past: &Past) {
    let now = site.clock.now();
    let new = new_job(&past.identity);
    let completed = past.status.is_terminal().then(|| format_db(now + past.completed));
    // One event makes one job per target.
    other
        .execute(
            "INSERT OR IGNORE INTO job_queue (id, plugin, command, status, submitted_by, dedupe_key, created_at,
                                              completed_at, parent_job_id, source_event_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            rusqlite::params![
                JobId::generate().as_str(),
                new.plugin,
                new.command,
                past.status.as_str(),
                new.submitted_by.to_string(),
                new.dedupe_key.as_deref().map(str::trim),
                format_db(now + past.created),
                completed,
                new.parent_job_id.as_ref().map(JobId::as_str),
                new.source_event_id,
            ],
        )
        .unwrap();
}

fn rows(other: &Connection) -> Vec<Row> {
    let mut statement = other.prepare_cached(&format!("SELECT {} FROM job_queue", Row::COLUMNS)).unwrap();
    let rows = statement.query_map([], Row::read).unwrap();
    rows.map(Result::unwrap).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn an_enqueue_is_a_duplicate_exactly_when_a_row_counts(
        past in prop::collection::vec(past(), 0..12),
        asks in prop::collection::vec(ask(), 1..12),
        default_window in 0u64..4,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let site = Site::new().await;
            let other = site.other();
            past.iter().for_each(|past| insert(&site, &other, past));
            let default_window = Duration::from_secs(10 * default_window);
            // No workers: the rows stay as they are.
            let _claims = site.activate(ClaimPolicy { dedupe_ttl: default_window, ..policy(0) }).await;
            for ask in asks {
                site.clock.advance(ask.clock);
                let new = NewJob { dedupe_ttl: ask.window.map(Duration::from_secs), ..new_job(&ask.identity) };
                let before = rows(&other);
                let expected = verdict(&before.iter().collect::<Vec<_>>(), &new, site.clock.now(), default_window);
                let answer = site.queue.enqueue(new).await.unwrap();
                match (&expected, &answer) {
                    (Verdict::New, Enqueued::Queued(id)) => {
                        assert_eq!(rows(&other).len(), before.len() + 1);
                        if !ask.stays {
                            other.execute("DELETE FROM job_queue WHERE id = ?1", [id.as_str()]).unwrap();
                        }
                    }
                    (Verdict::Counts(ids, reason), Enqueued::Duplicate { existing, reason: told, status }) => {
                        assert!(ids.iter().any(|id| id == existing.as_str()), "{existing} is none of {ids:?}");
                        assert_eq!(reason, told);
                        assert!(before.iter().any(|row| row.id == existing.as_str() && row.status == *status));
                        assert_eq!(rows(&other), before, "nothing was written");
                    }
                    _ => panic!("{ask:?}: {expected:?} was expected, the answer is {answer:?}"),
                }
            }
            site.store.close().await;
        });
    }
}
