//! Random lives of jobs in the real store, with everything that must hold checked after each step.

use std::collections::BTreeSet;

use ductile_model::decide;
use proptest::prelude::*;

use super::*;
use crate::InterruptKind;

#[derive(Debug, Clone)]
enum Step {
    Enqueue {
        plugin: u8,
        key: Option<u8>,
        max_attempts: u32,
    },
    Finish {
        which: usize,
        how: How,
    },
    FinishLate {
        which: usize,
    },
    Advance {
        seconds: i64,
    },
    ChangeGeneration {
        workers: u32,
        cap: u32,
    },
    /// The process is killed and started again.
    Kill,
}

#[derive(Debug, Clone, Copy)]
enum How {
    Succeed,
    SucceedWithFacts,
    Skip,
    Fail(FailureReason),
    Shutdown,
    Panic,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let how = prop_oneof![
        3 => Just(How::Succeed),
        1 => Just(How::SucceedWithFacts),
        1 => Just(How::Skip),
        3 => prop::sample::select(vec![
            FailureReason::PluginError, FailureReason::Timeout, FailureReason::ExitCode78, FailureReason::SpawnError,
        ]).prop_map(How::Fail),
        1 => Just(How::Shutdown),
        1 => Just(How::Panic),
    ];
    let step = prop_oneof![
        6 => (0u8..3, prop::option::of(0u8..2), 1u32..4)
            .prop_map(|(plugin, key, max_attempts)| Step::Enqueue { plugin, key, max_attempts }),
        6 => (any::<prop::sample::Index>(), how).prop_map(|(which, how)| Step::Finish { which: which.index(64), how }),
        1 => any::<prop::sample::Index>().prop_map(|which| Step::FinishLate { which: which.index(64) }),
        3 => (1i64..40).prop_map(|seconds| Step::Advance { seconds }),
        1 => (1u32..4, 1u32..3).prop_map(|(workers, cap)| Step::ChangeGeneration { workers, cap }),
        1 => Just(Step::Kill),
    ];
    prop::collection::vec(step, 1..60)
}

/// What the model expects of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Expected {
    status: JobStatus,
    attempt: u32,
    max_attempts: u32,
    finished: u32,
}

struct World {
    site: Site,
    claims: UnboundedReceiver<ClaimedJob>,
    policy: ClaimPolicy,
    running: Vec<ClaimedJob>,
    over: Vec<ClaimedJob>,
    jobs: BTreeMap<String, Expected>,
    facts: i64,
    terminal: BTreeMap<String, String>,
}

impl World {
    async fn new() -> Self {
        let site = Site::new().await;
        let mut policy = policy(2);
        policy.lane_caps.insert("p0".into(), 1);
        let claims = site.activate(policy.clone()).await;
        Self {
            site,
            claims,
            policy,
            running: Vec::new(),
            over: Vec::new(),
            jobs: BTreeMap::new(),
            facts: 0,
            terminal: BTreeMap::new(),
        }
    }

    async fn take(mut self, step: Step) -> Self {
        match step {
            Step::Enqueue { plugin, key, max_attempts } => {
                let key = key.map(|key| format!("k{key}"));
                let new = NewJob { dedupe_key: key, max_attempts, ..job(&format!("p{plugin}")) };
                if let Enqueued::Queued(id) = self.site.queue.enqueue(new).await.unwrap() {
                    let fresh = Expected { status: JobStatus::Queued, attempt: 1, max_attempts, finished: 0 };
                    self.jobs.insert(id.to_string(), fresh);
                }
            }
            Step::Finish { which, how } if !self.running.is_empty() => {
                let job = self.running.remove(which % self.running.len());
                self.finish(job, how).await;
            }
            Step::FinishLate { which } if !self.over.is_empty() => {
                let job = self.over[which % self.over.len()].clone();
                assert_eq!(self.site.finish(&job, succeeded()).await, Finalised::Stale);
            }
            Step::Advance { seconds } => self.site.advance(seconds),
            Step::ChangeGeneration { workers, cap } => {
                self.policy.max_workers = workers;
                self.policy.lane_caps.insert("p1".into(), cap);
                let claims = self.site.activate(self.policy.clone()).await;
                // What the old generation was given meanwhile is still its to run.
                let mut old = std::mem::replace(&mut self.claims, claims);
                while let Some(job) = old.recv().await {
                    self.claimed(job);
                }
            }
            Step::Kill => return self.kill().await,
            Step::Finish { .. } | Step::FinishLate { .. } => {}
        }
        self
    }

    async fn finish(&mut self, job: ClaimedJob, how: How) {
        let expected = self.jobs.get_mut(job.id.as_str()).unwrap();
        expected.finished += 1;
        let last = expected.attempt >= expected.max_attempts;
        let (outcome, next) = match how {
            How::Succeed => (succeeded(), Some(JobStatus::Succeeded)),
            How::SucceedWithFacts => {
                self.facts += 2;
                (with_state(r#"{"n":1}"#, &["one", "two"]), Some(JobStatus::Succeeded))
            }
            How::Skip => (AttemptOutcome::Skipped { reason: "false".into() }, Some(JobStatus::Skipped)),
            How::Fail(reason) => (
                failed(reason),
                match decide(reason, expected.attempt, expected.max_attempts) {
                    ductile_model::Decision::Retry => None,
                    ductile_model::Decision::Final { status, .. } => Some(status),
                },
            ),
            How::Shutdown => (AttemptOutcome::Interrupted(InterruptKind::Shutdown), last.then_some(JobStatus::Dead)),
            How::Panic => {
                let kind = InterruptKind::InternalError { backoff_base: Duration::from_secs(3) };
                (AttemptOutcome::Interrupted(kind), last.then_some(JobStatus::Dead))
            }
        };
        expected.status = next.unwrap_or(JobStatus::Queued);
        expected.attempt += u32::from(next.is_none());
        let status = expected.status;
        assert_eq!(self.site.finish(&job, outcome).await, stored(status));
        self.over.push(job);
    }

    async fn kill(mut self) -> Self {
        self.settle().await;
        self.site = self.site.reopen().await;
        let recovered = self.site.store.recover().await.unwrap();
        assert_eq!(recovered.len(), self.running.len());
        for job in self.running.drain(..) {
            let expected = self.jobs.get_mut(job.id.as_str()).unwrap();
            expected.finished += 1;
            if expected.attempt < expected.max_attempts {
                expected.status = JobStatus::Queued;
                expected.attempt += 1;
            } else {
                expected.status = JobStatus::Dead;
            }
            self.over.push(job);
        }
        self.check();
        self.claims = self.site.activate(self.policy.clone()).await;
        self
    }

    fn claimed(&mut self, job: ClaimedJob) {
        let expected = self.jobs.get_mut(job.id.as_str()).unwrap();
        assert_eq!((expected.status, expected.attempt), (JobStatus::Queued, job.attempt));
        expected.status = JobStatus::Running;
        self.running.push(job);
    }

    /// Lets the writer claim what there is, and takes it.
    async fn settle(&mut self) {
        for _ in 0..2 {
            self.site.store.write(|_| Ok(())).await.unwrap();
        }
        // Hands out after the answer: one more round trip and everything is in the channel.
        let (reply, flushed) = tokio::sync::oneshot::channel();
        self.site.store.flush(move || assert_eq!(reply.send(()), Ok(())));
        flushed.await.unwrap();
        while let Ok(job) = self.claims.try_recv() {
            self.claimed(job);
        }
    }

    fn check(&mut self) {
        let other = self.site.other();
        let rows = self.rows(&other);
        let present: BTreeMap<String, Expected> = rows
            .into_iter()
            .map(|(id, status, attempt, max_attempts, newest, finished)| {
                assert_eq!(newest, status, "the newest transition of {id} is its status");
                let status = JobStatus::parse(&status).unwrap();
                (id, Expected { status, attempt, max_attempts, finished })
            })
            .collect();
        assert_eq!(present, self.jobs);
        for (id, expected) in &self.jobs {
            if expected.status.is_terminal() {
                let told = format!("{:?}", expected.status);
                assert_eq!(self.terminal.entry(id.clone()).or_insert_with(|| told.clone()), &told, "{id} left its end");
            }
        }
        let none = |what: &str, sql: &str| {
            let count: i64 = other.query_row(&format!("SELECT count(*) FROM ({sql})"), [], |row| row.get(0)).unwrap();
            assert_eq!(count, 0, "{what}");
        };
        none(
            "attempts are numbered without gaps, up to the one that runs or ran last",
            "SELECT q.id FROM job_queue q WHERE
                 (SELECT count(*) FROM job_attempts a WHERE a.job_id = q.id)
                     <> q.attempt - (q.status = 'queued')
                 OR q.attempt > q.max_attempts
                 OR (SELECT ifnull(max(attempt), 0) FROM job_attempts a WHERE a.job_id = q.id)
                     <> q.attempt - (q.status = 'queued')",
        );
        none(
            "a terminal job has the log row of its last attempt",
            "SELECT q.id FROM job_queue q WHERE q.status NOT IN ('queued', 'running') AND NOT EXISTS
                 (SELECT 1 FROM job_log l WHERE l.id = q.id || '-' || q.attempt AND l.status = q.status)",
        );
        none(
            "times are set exactly when they say something",
            "SELECT id FROM job_queue WHERE (completed_at IS NOT NULL) <> (status NOT IN ('queued', 'running'))
                 OR (started_at IS NOT NULL) <> (status <> 'queued') OR (next_retry_at IS NOT NULL AND status <> 'queued')",
        );
        none(
            "equal keys and targets do not run together",
            "SELECT 1 FROM job_queue WHERE status = 'running' AND dedupe_key IS NOT NULL
             GROUP BY dedupe_key, plugin, command HAVING count(*) > 1",
        );
        none("times have the stored form", "SELECT id FROM job_queue WHERE length(created_at) <> 30");
        let facts: (i64, i64) = other
            .query_row("SELECT count(*), ifnull(max(seq), 0) FROM plugin_facts", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!(facts, (self.facts, self.facts));
        assert_eq!(self.site.queue.depth(), self.depth());
    }

    fn rows(&self, other: &Connection) -> Vec<(String, String, u32, u32, String, u32)> {
        let mut statement = other
            .prepare(
                "SELECT q.id, q.status, q.attempt, q.max_attempts,
                        (SELECT t.to_status FROM job_transitions t WHERE t.job_id = q.id ORDER BY t.id DESC LIMIT 1),
                        (SELECT count(*) FROM job_log l WHERE l.job_id = q.id)
                 FROM job_queue q",
            )
            .unwrap();
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?)))
            .unwrap();
        rows.map(Result::unwrap).collect()
    }

    fn depth(&self) -> u64 {
        self.jobs.values().filter(|job| !job.status.is_terminal()).count() as u64
    }

    /// Caps are respected, and what still waits is not eligible: nothing older was passed over.
    fn check_claims(&self) {
        let lanes: BTreeMap<&str, usize> = self.running.iter().fold(BTreeMap::new(), |mut lanes, job| {
            *lanes.entry(job.plugin.as_str()).or_default() += 1;
            lanes
        });
        let keys: BTreeSet<(&str, &str)> = self
            .running
            .iter()
            .filter_map(|job| job.dedupe_key.as_deref().map(|key| (key, job.plugin.as_str())))
            .collect();
        let full = self.running.len() >= self.policy.max_workers as usize;
        let other = self.site.other();
        let mut statement = other
            .prepare("SELECT id, plugin, dedupe_key, next_retry_at FROM job_queue WHERE status = 'queued'")
            .unwrap();
        let now = self.site.now_text();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let (id, plugin): (String, String) = (row.get(0).unwrap(), row.get(1).unwrap());
            let key: Option<String> = row.get(2).unwrap();
            let due = row.get::<_, Option<String>>(3).unwrap().is_none_or(|at| at <= now);
            let cap = self.policy.lane_caps.get(&plugin).copied().unwrap_or(self.policy.max_workers) as usize;
            let lane_full = lanes.get(plugin.as_str()).copied().unwrap_or(0) >= cap;
            let held = key.as_deref().is_some_and(|key| keys.contains(&(key, plugin.as_str())));
            assert!(full || !due || lane_full || held, "{id} of {plugin} could run and was not claimed");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_life_of_jobs_breaks_the_rules(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let mut world = World::new().await;
            for step in steps {
                world = world.take(step).await;
                world.settle().await;
                world.check();
                world.check_claims();
            }
            world.site.store.close().await;
        });
    }

    #[test]
    fn claims_come_in_the_order_of_the_queue(plugins in prop::collection::vec(0u8..3, 1..25), cap in 1u32..3) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let site = Site::new().await;
            let mut waiting = Vec::new();
            for plugin in plugins {
                let plugin = format!("p{plugin}");
                waiting.push((site.enqueue(job(&plugin)).await, plugin));
            }
            let mut policy = policy(2);
            policy.lane_caps.insert("p0".into(), cap);
            let mut claims = site.activate(policy).await;
            let mut running: Vec<ClaimedJob> = Vec::new();
            while !waiting.is_empty() || !running.is_empty() {
                // The oldest whose lane has room, as long as a worker is free.
                while running.len() < 2 {
                    let p0 = running.iter().filter(|job| job.plugin == "p0").count();
                    let next = waiting.iter().position(|(_, plugin)| plugin != "p0" || p0 < cap as usize);
                    let Some(next) = next else { break };
                    let claimed = claim(&mut claims).await;
                    assert_eq!(claimed.id, waiting.remove(next).0);
                    running.push(claimed);
                }
                nothing_claimed(&site, &mut claims).await;
                let done = running.remove(0);
                site.finish(&done, succeeded()).await;
            }
            site.store.close().await;
        });
    }
}
