//! The board against the rows: groups of operations, run by a writer without its thread.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;

use chrono::TimeDelta;
use ductile_model::{FailureReason, ManualClock, Producer, SnapshotId, parse_stored};
use proptest::prelude::*;
use proptest::sample::Index;
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedReceiver;

use super::group::interrupted;
use super::*;
use crate::cancel::give_up;
use crate::enqueue::{CheckedJob, enqueue};
use crate::finalise::{PreparedOutcome, finalise};
use crate::generation::activate;
use crate::open::{BUSY_TIMEOUT, writable};
use crate::scope::{Asked, Scope};
use crate::{ActivateGeneration, AttemptOutcome, CancelTarget, Finalise, InterruptKind, NewJob, Routed, SnapshotRow};

const WORKERS: usize = 3;

#[derive(Debug, Clone)]
enum Op {
    Enqueue {
        plugin: u8,
        key: Option<u8>,
    },
    Finish {
        which: Index,
        how: How,
    },
    Cancel {
        which: Index,
    },
    /// Writes, and then fails.
    Fail,
    /// The clock moves while the group runs.
    Clock {
        seconds: i64,
    },
}

#[derive(Debug, Clone, Copy)]
enum How {
    Succeed,
    Fail,
    Shutdown,
}

/// What happens between two groups.
#[derive(Debug, Clone, Copy)]
enum Between {
    Nothing,
    Clock {
        seconds: i64,
    },
    /// Another process queues a job, maybe a delayed one.
    Foreign {
        plugin: u8,
        key: Option<u8>,
        delay: i64,
    },
    /// Nobody takes claims any more, until another generation does.
    HangUp,
    /// Another generation takes over and one plugin is gone.
    Activate {
        without: u8,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let how = prop_oneof![2 => Just(How::Succeed), 2 => Just(How::Fail), 1 => Just(How::Shutdown)];
    prop_oneof![
        5 => (0u8..3, prop::option::of(0u8..2)).prop_map(|(plugin, key)| Op::Enqueue { plugin, key }),
        5 => (any::<Index>(), how).prop_map(|(which, how)| Op::Finish { which, how }),
        3 => any::<Index>().prop_map(|which| Op::Cancel { which }),
        1 => Just(Op::Fail),
        1 => (-8i64..8).prop_map(|seconds| Op::Clock { seconds }),
    ]
}

fn between() -> impl Strategy<Value = Between> {
    prop_oneof![
        4 => Just(Between::Nothing),
        3 => (-8i64..16).prop_map(|seconds| Between::Clock { seconds }),
        2 => (0u8..3, prop::option::of(0u8..2), 0i64..6)
            .prop_map(|(plugin, key, delay)| Between::Foreign { plugin, key, delay }),
        1 => Just(Between::HangUp),
        1 => (0u8..6).prop_map(|without| Between::Activate { without }),
    ]
}

/// A writer that runs when it is told to.
struct Bench {
    directory: TempDir,
    clock: Arc<ManualClock>,
    writer: Writer,
    inbox: Sender<Message>,
    claims: Option<UnboundedReceiver<ClaimedJob>>,
    /// What was claimed and did not report yet.
    processes: Vec<ClaimedJob>,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(parse_stored("2026-01-02 03:04:05Z").unwrap()));
        let path = directory.path().join("ductile.db");
        let connection = writable(&path, Synchronous::Normal, clock.now()).unwrap();
        let (inbox, messages) = std::sync::mpsc::channel();
        let shared = Shared {
            depth: AtomicU64::new(0),
            failed: watch::Sender::new(None),
            last_write_failed: std::sync::atomic::AtomicBool::new(false),
            schedules: tokio::sync::broadcast::Sender::new(1),
        };
        let parts = WriterParts {
            snapshot: None,
            connection,
            path,
            inbox: messages,
            shared: Arc::new(shared),
            hub: EventHub::new(clock.clone()),
            clock: clock.clone(),
            jitter: Arc::new(|| 0.5),
            policy: ClaimPolicy::default(),
            max_group: 256,
        };
        let writer = Writer::new(parts).unwrap();
        let mut bench = Self { directory, clock, writer, inbox, claims: None, processes: Vec::new() };
        bench.activate(None);
        bench
    }

    fn other(&self) -> Connection {
        Connection::open(self.directory.path().join("ductile.db")).unwrap()
    }

    fn activate(&mut self, without: Option<String>) {
        let (sender, claims) = tokio::sync::mpsc::unbounded_channel();
        let text = String::new;
        let snapshot = SnapshotRow {
            id: SnapshotId::generate(),
            config_hash: text(),
            source_hash: text(),
            source_path: text(),
            source: text(),
            reason: "reload",
            ductile_version: text(),
            binary_path: text(),
            semantics: "{}".into(),
            plugin_fingerprints: "{}".into(),
            sanitized_config: "{}".into(),
            secret_fingerprints: "[]".into(),
        };
        let policy = ClaimPolicy {
            max_workers: WORKERS as u32,
            lane_caps: BTreeMap::from([("p0".to_owned(), 1)]),
            ..ClaimPolicy::default()
        };
        let runnable = (0..3).map(name).filter(|name| Some(name) != without.as_ref()).collect();
        let generation = ActivateGeneration { snapshot, policy, runnable: Some(runnable), reload: None };
        self.group(vec![operation(move |scope| activate(scope, &generation, &sender))]);
        self.receive();
        self.claims = Some(claims);
        self.run(None);
    }

    fn between(&mut self, between: Between) {
        match between {
            Between::Nothing => {}
            Between::Clock { seconds } => self.clock.advance(TimeDelta::seconds(seconds)),
            Between::Foreign { plugin, key, delay } => {
                let now = self.clock.now();
                let due = (delay > 0).then(|| ductile_model::format_db(now + TimeDelta::seconds(delay)));
                self.other()
                    .execute(
                        "INSERT INTO job_queue (id, plugin, command, status, submitted_by, dedupe_key, created_at,
                                                next_retry_at)
                         VALUES (?1, ?2, 'poll', 'queued', 'cli', ?3, ?4, ?5)",
                        rusqlite::params![
                            JobId::generate().as_str(),
                            name(plugin),
                            key.map(|key| format!("k{key}")),
                            ductile_model::format_db(now),
                            due
                        ],
                    )
                    .unwrap();
            }
            Between::HangUp => {
                self.receive();
                self.claims = None;
            }
            Between::Activate { without } => self.activate((without < 3).then(|| name(without))),
        }
    }

    /// One group: what is in the inbox when the first operation begins is in its transaction.
    fn ops(&mut self, ops: Vec<Op>) {
        let mut operations = Vec::new();
        for op in ops {
            let work = match op {
                Op::Enqueue { plugin, key } => {
                    let job = CheckedJob::new(new_job(plugin, key)).unwrap();
                    operation(move |scope| enqueue(scope, &job).map(drop))
                }
                Op::Finish { which, how } if !self.processes.is_empty() => {
                    let job = self.processes.remove(which.index(self.processes.len()));
                    let outcome = PreparedOutcome::new(self.end_of(&job, how));
                    operation(move |scope| finalise(scope, &outcome).map(drop))
                }
                Op::Cancel { which } => {
                    let all = self.active();
                    if all.is_empty() {
                        continue;
                    }
                    let target = CancelTarget::Job(all[which.index(all.len())].clone());
                    operation(move |scope| give_up(scope, &target, "cancelled by api").map(drop))
                }
                Op::Fail => operation(|scope| {
                    let connection = scope.connection();
                    connection.execute("INSERT INTO plugin_state (plugin_name) VALUES ('x')", [])?;
                    connection.execute("INSERT INTO plugin_state (plugin_name) VALUES ('x')", [])?;
                    Ok(())
                }),
                Op::Clock { seconds } => {
                    let (clock, mut by) = (self.clock.clone(), Some(TimeDelta::seconds(seconds)));
                    // Once, also when the group is run again.
                    operation(move |_| {
                        by.take().into_iter().for_each(|by| clock.advance(by));
                        Ok(())
                    })
                }
                Op::Finish { .. } => continue,
            };
            operations.push(work);
        }
        self.group(operations);
    }

    fn end_of(&self, job: &ClaimedJob, how: How) -> Finalise {
        let outcome = match how {
            How::Succeed => AttemptOutcome::Succeeded { state: None, routed: Routed::default() },
            How::Fail => AttemptOutcome::Failed {
                reason: FailureReason::PluginError,
                error: "it broke".into(),
                backoff_base: Duration::from_secs(4),
            },
            How::Shutdown => AttemptOutcome::Interrupted(InterruptKind::Shutdown),
        };
        Finalise { outcome, ..interrupted(job.clone(), self.clock.now()) }
    }

    fn active(&self) -> Vec<JobId> {
        let other = self.other();
        let mut statement =
            other.prepare("SELECT id FROM job_queue WHERE status IN ('queued', 'running') ORDER BY rowid").unwrap();
        let ids = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        ids.map(|id| JobId::from(id.unwrap())).collect()
    }

    fn group(&mut self, mut operations: Vec<Message>) {
        if operations.is_empty() {
            return;
        }
        let first = operations.remove(0);
        operations.into_iter().for_each(|operation| self.inbox.send(operation).unwrap());
        self.run(Some(first));
    }

    /// What the thread does with a message, until it would wait for the next one.
    fn run(&mut self, first: Option<Message>) {
        let mut next = first;
        loop {
            let controls = self.writer.turn(next.take());
            controls.into_iter().for_each(|control| self.writer.control(control));
            if self.writer.pending.is_empty() && !self.writer.claim_soon {
                return;
            }
        }
    }

    fn receive(&mut self) {
        while let Some(Ok(job)) = self.claims.as_mut().map(UnboundedReceiver::try_recv) {
            self.processes.push(job);
        }
    }

    fn check(&mut self) {
        // A board that knows that it is not up to date is read anew when it is next needed.
        self.group(vec![operation(|_| Ok(()))]);
        self.receive();
        assert!(!self.writer.board.is_stale());
        let now = nanos(self.clock.now());
        let mut fresh = Board::load(&self.writer.connection).unwrap();
        let cancelled = self.processes.iter().filter(|process| process.cancellation.is_cancelled());
        cancelled.for_each(|process| fresh.occupy(&process.plugin.as_str().into()));
        self.writer.board.promote(now);
        fresh.promote(now);
        assert_eq!(self.writer.board.contents(), fresh.contents());
        assert_eq!(self.writer.shared.depth.load(Ordering::Acquire), self.active().len() as u64);
        self.check_places();
    }

    fn check_places(&self) {
        assert!(self.processes.len() <= WORKERS, "{:?}", self.processes);
        assert!(self.processes.iter().filter(|process| process.plugin == "p0").count() <= 1, "{:?}", self.processes);
        let mut held: Vec<_> =
            self.processes.iter().filter_map(|job| Some((job.dedupe_key.as_ref()?, &job.plugin))).collect();
        held.sort();
        let all = held.len();
        held.dedup();
        assert_eq!(held.len(), all, "{:?}", self.processes);
    }
}

fn operation(work: impl FnMut(&Scope<'_>) -> Result<(), QueueError> + Send + 'static) -> Message {
    Message::Operation(Box::new(Asked::new(BUSY_TIMEOUT, work, drop)))
}

fn name(plugin: u8) -> String {
    format!("p{plugin}")
}

fn new_job(plugin: u8, key: Option<u8>) -> NewJob {
    NewJob {
        plugin: name(plugin),
        command: "poll".into(),
        payload: None,
        submitted_by: Producer::Api,
        max_attempts: 3,
        dedupe_key: key.map(|key| format!("k{key}")),
        dedupe_ttl: Some(Duration::ZERO),
        parent_job_id: None,
        event_id: None,
        source_event_id: None,
        event_context_id: None,
        direct: false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_board_is_what_the_rows_and_the_processes_say(
        groups in prop::collection::vec((between(), prop::collection::vec(op(), 1..6)), 1..30)
    ) {
        let mut bench = Bench::new();
        for (between, ops) in groups {
            bench.between(between);
            bench.ops(ops);
            bench.check();
            if bench.claims.is_none() {
                bench.activate(None);
                bench.check();
            }
        }
    }
}
