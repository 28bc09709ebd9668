//! The store and the model of it, side by side.

use ductile_model::{Decision, backoff_delay, decide};

use super::breakers::Breakers;
use super::row::{Row, Verdict, at, is_let_go, verdict};
use super::steps::{By, Foreign, How, Step, Target, What};
use super::*;
use crate::state::{StateObject, StateRefusal};
use crate::{
    BreakerPolicy, CancelTarget, Cancelled, InterruptKind, Recovered, Retention, Retried, RetryReport, RetryRequest,
    RetryScope, RetrySelection, RetrySkip, breaker_rows,
};

pub(super) const SERVICE: &str = "ductile";
const PLUGINS: [&str; 3] = ["p0", "p1", "p2"];
const COMMANDS: [&str; 2] = ["poll", "handle"];
const CANCELLED: &str = "cancelled by api: not needed";
const WINDOW: Duration = Duration::from_secs(60);
const KEEP: Retention = Retention {
    job_queue: Duration::from_secs(40),
    dedupe_ttl: WINDOW,
    // So that history is there to be compared.
    job_log: Duration::from_secs(30 * 24 * 3600),
    job_transitions: Duration::from_secs(30 * 24 * 3600),
    job_attempts: Duration::from_secs(30 * 24 * 3600),
    breaker_transitions: Duration::from_secs(90 * 24 * 3600),
};

/// A job and its history.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) row: Row,
    /// States it went through, each with its reason.
    pub(super) moves: Vec<(JobStatus, Option<String>)>,
    pub(super) claims: u32,
    /// Attempts as logged.
    pub(super) logs: Vec<(u32, JobStatus)>,
    pub(super) pruned: bool,
}

impl Job {
    fn new(row: Row) -> Self {
        Self { row, moves: vec![(JobStatus::Queued, None)], claims: 0, logs: Vec::new(), pruned: false }
    }

    fn end(&mut self, status: JobStatus, error: Option<String>, now: &str) {
        self.row.status = status;
        self.row.completed = Some(now.to_owned());
        self.row.due = None;
        self.row.error.clone_from(&error);
        self.logs.push((self.row.attempt, status));
        self.moves.push((status, error));
    }

    fn requeue(&mut self, logged: JobStatus, error: String, due: Option<String>) {
        self.logs.push((self.row.attempt, logged));
        self.row.status = JobStatus::Queued;
        self.row.attempt += 1;
        self.row.started = None;
        self.row.due = due;
        self.row.error = Some(error.clone());
        self.moves.push((JobStatus::Queued, Some(error)));
    }
}

pub(super) struct World {
    pub(super) site: Site,
    pub(super) other: Connection,
    pub(super) claims: UnboundedReceiver<ClaimedJob>,
    pub(super) policy: ClaimPolicy,
    pub(super) snapshot: Option<String>,
    /// Attempts with a process, those of cancelled jobs included.
    pub(super) processes: Vec<ClaimedJob>,
    over: Vec<ClaimedJob>,
    /// In the order of their insertion.
    pub(super) jobs: Vec<Job>,
    pub(super) breakers: Breakers,
    pub(super) facts: i64,
}

impl World {
    pub(super) async fn new() -> Self {
        let site = Site::new().await;
        let mut policy = policy(2);
        policy.dedupe_ttl = WINDOW;
        policy.lane_caps.insert("p0".into(), 1);
        policy.breakers = breakers(2);
        let (other, (_, claims)) = (site.other(), tokio::sync::mpsc::unbounded_channel());
        let mut world = Self {
            site,
            other,
            claims,
            policy,
            snapshot: None,
            processes: Vec::new(),
            over: Vec::new(),
            jobs: Vec::new(),
            breakers: Breakers::default(),
            facts: 0,
        };
        world.activate(None).await;
        world
    }

    pub(super) async fn take(mut self, step: Step) -> Self {
        match step {
            Step::Enqueue { by, target, key, window, max_attempts } => {
                let new = self.job_by(by, target, key, max_attempts);
                self.enqueue(NewJob { dedupe_ttl: window.map(Duration::from_secs), ..new }).await;
            }
            Step::Schedule { target, key, max_attempts } => {
                let new =
                    NewJob { submitted_by: Producer::Scheduler(SERVICE.into()), ..new_job(target, key, max_attempts) };
                self.schedule(new).await;
            }
            Step::Finish { which, how } if !self.processes.is_empty() => {
                let job = self.processes.remove(which.index(self.processes.len()));
                self.finish(job, how).await;
            }
            Step::FinishLate { which } if !self.over.is_empty() => {
                let job = self.over[which.index(self.over.len())].clone();
                assert_eq!(self.site.finish(&job, succeeded()).await, Finalised::Stale);
            }
            Step::Cancel { which, what } if !self.jobs.is_empty() => {
                self.cancel(which.index(self.jobs.len()), what).await;
            }
            Step::RetryByHand { which, scope, per_second } if !self.jobs.is_empty() => {
                let which = which.iter().map(|index| index.index(self.jobs.len())).collect();
                self.retry(which, scope, per_second).await;
            }
            Step::Prune => self.prune().await,
            Step::Advance { seconds } => self.site.advance(seconds),
            Step::ChangeGeneration { workers, cap, threshold, without } => {
                self.policy.max_workers = workers;
                self.policy.lane_caps.insert("p1".into(), cap);
                self.policy.breakers = breakers(threshold);
                self.activate(without.map(name)).await;
            }
            Step::Kill => return self.kill().await,
            Step::Foreign(foreign) => self.foreign(foreign),
            Step::Finish { .. } | Step::FinishLate { .. } | Step::Cancel { .. } | Step::RetryByHand { .. } => {}
        }
        self
    }

    fn job_by(&self, by: By, target: Target, key: Option<u8>, max_attempts: u32) -> NewJob {
        let new = new_job(target, key, max_attempts);
        // The same few, so that families grow.
        let id = |parent: u8| self.jobs.get(usize::from(parent)).map(|job| JobId::from(job.row.id.clone()));
        match by {
            By::Api => new,
            By::Webhook => NewJob { submitted_by: Producer::Webhook("/in".into()), ..new },
            By::Hook { parent } => NewJob { submitted_by: Producer::Hook, parent_job_id: id(parent), ..new },
            By::Route { parent, event, further } => NewJob {
                submitted_by: Producer::Route,
                parent_job_id: id(parent),
                source_event_id: Some(if further { format!("e{event}/pipe/step") } else { format!("e{event}") }),
                ..new
            },
        }
    }

    async fn enqueue(&mut self, new: NewJob) {
        let expected = self.verdict(&new);
        let answer = self.site.queue.enqueue(new.clone()).await.unwrap();
        self.answered(&new, &expected, answer);
    }

    async fn schedule(&mut self, new: NewJob) {
        let pair = (new.plugin.clone(), new.command.clone());
        let own =
            |row: &&&Row| row.is_active() && row.by == SERVICE && (&row.plugin, &row.command) == (&pair.0, &pair.1);
        let outstanding = self.present().iter().any(|row| own(&row));
        let policy = self.policy.breaker(&new.plugin);
        let admitted = self.breakers.admits(&pair, outstanding, self.site.clock.now(), policy);
        let expected = self.verdict(&new);
        let answer = self.site.enqueue_scheduled(new.clone()).await;
        assert_eq!(answer.is_some(), admitted, "{:?}", self.breakers.rows.get(&pair));
        let Some(answer) = answer else { return };
        if let Enqueued::Queued(id) = &answer {
            self.breakers.let_through(&pair, id.as_str());
        }
        self.answered(&new, &expected, answer);
    }

    fn verdict(&self, new: &NewJob) -> Verdict {
        verdict(&self.present(), new, self.site.clock.now(), self.policy.dedupe_ttl)
    }

    fn answered(&mut self, new: &NewJob, expected: &Verdict, answer: Enqueued) {
        match (expected, answer) {
            (Verdict::New, Enqueued::Queued(id)) => {
                self.jobs.push(Job::new(Row::of(new, &id, self.site.clock.now(), self.snapshot.clone())));
            }
            (Verdict::Counts(ids, expected), Enqueued::Duplicate { existing, status, reason }) => {
                assert!(ids.iter().any(|id| id == existing.as_str()), "{existing} is none of {ids:?}");
                assert_eq!((status, reason), (self.jobs[self.find(&existing)].row.status, *expected));
            }
            (expected, answer) => panic!("{new:?}: {expected:?} was expected, the answer is {answer:?}"),
        }
    }

    pub(super) async fn finish(&mut self, claimed: ClaimedJob, how: How) {
        let (now, index) = (self.site.now_text(), self.find(&claimed.id));
        let outcome = outcome_of(how);
        let job = &mut self.jobs[index];
        let (attempt, max) = (job.row.attempt, job.row.max_attempts);
        let last = attempt >= max;
        let after = |base, delayed_from: &str| {
            let delay = TimeDelta::from_std(backoff_delay(Duration::from_secs(base), attempt, 0.5)).unwrap();
            Some(format_db(at(delayed_from) + delay))
        };
        let expected = if job.row.status.is_terminal() {
            Finalised::Stale
        } else {
            match how {
                How::Succeed | How::SucceedWithFacts => job.end(JobStatus::Succeeded, None, &now),
                How::RefusedState => job.end(JobStatus::Failed, Some(refused_state()), &now),
                How::Skip => job.end(JobStatus::Skipped, Some("condition false".into()), &now),
                How::Fail(reason) => match decide(reason, attempt, max) {
                    Decision::Retry => job.requeue(reason.terminal_status(), "it broke".into(), after(4, &now)),
                    Decision::Final { status, .. } => job.end(status, Some("it broke".into()), &now),
                },
                How::Shutdown if last => {
                    let text = format!("Job marked dead during shutdown: max attempts ({max}) reached");
                    job.end(JobStatus::Dead, Some(text), &now);
                }
                How::Shutdown => {
                    job.requeue(JobStatus::Failed, format!("attempt {attempt} interrupted: gateway shutdown"), None);
                }
                How::Panic => {
                    let text = format!("attempt {attempt} interrupted: internal error");
                    if last {
                        job.end(JobStatus::Dead, Some(text), &now);
                    } else {
                        job.requeue(JobStatus::Failed, text, after(3, &now));
                    }
                }
            }
            self.facts += if matches!(how, How::SucceedWithFacts) { 2 } else { 0 };
            self.count_end(index, &self.policy.clone());
            stored(self.jobs[index].row.status)
        };
        assert_eq!(self.site.finish(&claimed, outcome).await, expected);
        self.over.push(claimed);
    }

    /// The breaker counts what came to its end by a verdict.
    fn count_end(&mut self, index: usize, policy: &ClaimPolicy) {
        let row = &self.jobs[index].row;
        let success = match row.status {
            JobStatus::Succeeded => true,
            JobStatus::Failed | JobStatus::TimedOut | JobStatus::Dead => false,
            JobStatus::Queued | JobStatus::Running | JobStatus::Skipped => return,
        };
        if row.by == SERVICE {
            let pair = (row.plugin.clone(), row.command.clone());
            self.breakers.ended(&pair, success, &row.id, &self.site.now_text(), policy.breaker(&row.plugin));
        }
    }

    async fn cancel(&mut self, index: usize, what: What) {
        let row = self.jobs[index].row.clone();
        let id = JobId::from(row.id.clone());
        let (target, candidates) = match what {
            What::Job => (CancelTarget::Job(id), vec![row.id]),
            What::Tree => (CancelTarget::Tree(id), self.tree(&row.id)),
            What::Scheduled => {
                let own =
                    |other: &&&Row| other.by == SERVICE && other.plugin == row.plugin && other.command == row.command;
                let own = self.present().iter().filter(own).map(|row| row.id.clone()).collect();
                (CancelTarget::Scheduled { plugin: row.plugin.clone(), command: row.command.clone() }, own)
            }
        };
        let answer = self.site.store.cancel(target, CANCELLED.to_owned()).await.unwrap();
        let (mut queued, mut running) = (Vec::new(), Vec::new());
        let now = self.site.now_text();
        for job in &mut self.jobs {
            if candidates.contains(&job.row.id) && !job.pruned && job.row.is_active() {
                let list = if job.row.status == JobStatus::Queued { &mut queued } else { &mut running };
                list.push(job.row.id.clone());
                job.end(JobStatus::Dead, Some(CANCELLED.to_owned()), &now);
            }
        }
        match answer {
            Cancelled::Done { queued: was_queued, running: was_running } => {
                assert_eq!((sorted(&was_queued), sorted(&was_running)), (queued, running));
            }
            Cancelled::NotActive(status) => {
                assert_eq!((queued.len(), running.len(), status), (0, 0, self.jobs[index].row.status));
            }
            Cancelled::Unknown => panic!("a job is known as long as its log"),
        }
    }

    /// What can be reached from a job by rows that are there, hooks left out.
    fn tree(&self, root: &str) -> Vec<String> {
        let mut tree = vec![root.to_owned()];
        let mut next = 0;
        while let Some(parent) = tree.get(next).cloned() {
            let caused = |row: &&&Row| row.by != "hook" && row.parent.as_ref() == Some(&parent);
            tree.extend(self.present().iter().filter(caused).map(|row| row.id.clone()).collect::<Vec<_>>());
            next += 1;
        }
        tree
    }

    async fn retry(&mut self, which: Vec<usize>, scope: RetryScope, per_second: u32) {
        let ids = which.iter().map(|index| JobId::from(self.jobs[*index].row.id.clone())).collect();
        let request = RetryRequest {
            selection: RetrySelection::Jobs(ids),
            scope,
            per_second,
            limit: 100,
            attempts: Arc::new(|_, _| Some(2)),
        };
        let mut report = self.site.store.retry(request).await.unwrap();
        let now = self.site.clock.now();
        let mut new_ids = std::mem::take(&mut report.retried).into_iter().filter_map(|retried| retried.job);
        let mut expected = RetryReport::default();
        let mut queued = Vec::new();
        for index in which {
            let original = self.jobs[index].row.clone();
            let id = JobId::from(original.id.clone());
            if let Some(skip) = self.not_retried(index, scope) {
                expected.skipped.push((id, skip));
                continue;
            }
            let due_at = now + TimeDelta::milliseconds(1000 / i64::from(per_second) * queued.len() as i64);
            let new_id = new_ids.next().unwrap_or_else(|| panic!("{id} was not retried"));
            let row = Row {
                id: new_id.to_string(),
                by: "api".to_owned(),
                status: JobStatus::Queued,
                attempt: 1,
                max_attempts: 2,
                key: None,
                event: Some(format!("retry:{id}/{new_id}")),
                created: format_db(now),
                started: None,
                completed: None,
                due: (due_at > now).then(|| format_db(due_at)),
                error: None,
                enqueued_under: self.snapshot.clone(),
                started_under: None,
                ..original.clone()
            };
            self.jobs.push(Job::new(row));
            queued.push(Retried {
                original: id,
                job: Some(new_id),
                plugin: original.plugin,
                command: original.command,
                due_at,
            });
        }
        assert_eq!(new_ids.next(), None);
        assert_eq!(report, expected);
    }

    fn not_retried(&self, index: usize, scope: RetryScope) -> Option<RetrySkip> {
        let Job { row, pruned, .. } = &self.jobs[index];
        if *pruned {
            return Some(RetrySkip::PayloadGone);
        }
        if row.is_active() {
            return Some(RetrySkip::Active(row.status));
        }
        if scope != RetryScope::Any && matches!(row.status, JobStatus::Succeeded | JobStatus::Skipped) {
            return Some(RetrySkip::NotFailed(row.status));
        }
        let start = format!("retry:{}/", row.id);
        let retries = self
            .present()
            .into_iter()
            .filter(|other| other.event.as_ref().is_some_and(|event| event.starts_with(&start)));
        let newest = retries.map(|row| row.id.clone()).max().filter(|_| scope == RetryScope::Unresolved);
        newest.map(|id| RetrySkip::AlreadyRetried(JobId::from(id)))
    }

    async fn prune(&mut self) {
        let rows: Vec<&Row> = self.present();
        let now = self.site.clock.now();
        let gone: Vec<String> =
            rows.iter().filter(|row| is_let_go(row, &rows, now, &KEEP)).map(|row| row.id.clone()).collect();
        let expected = if gone.is_empty() { vec![] } else { vec![("job_queue", gone.len())] };
        assert_eq!(self.site.store.prune(KEEP).await, expected);
        self.jobs.iter_mut().filter(|job| gone.contains(&job.row.id)).for_each(|job| job.pruned = true);
    }

    /// Another configuration takes over.
    async fn activate(&mut self, without: Option<String>) {
        let snapshot = snapshot("reload");
        let id = snapshot.id.to_string();
        let runnable = PLUGINS.map(str::to_owned).into_iter().filter(|name| Some(name) != without.as_ref()).collect();
        let generation =
            ActivateGeneration { snapshot, policy: self.policy.clone(), runnable: Some(runnable), reload: None };
        let claims = self.site.store.activate(generation).await.unwrap();
        let now = self.site.now_text();
        for job in &mut self.jobs {
            if Some(&job.row.plugin) == without.as_ref() && job.row.status == JobStatus::Queued && !job.pruned {
                job.end(JobStatus::Dead, Some("cancelled by reload: plugin removed or disabled".into()), &now);
            }
        }
        let mut old = std::mem::replace(&mut self.claims, claims);
        assert!(old.recv().await.is_none(), "everything that could run was claimed before");
        self.snapshot = Some(id);
    }

    async fn kill(mut self) -> Self {
        let left = self.site.store.jobs_with_leftovers().await.unwrap();
        for process in &self.processes {
            assert!(self.jobs[self.find(&process.id)].pruned || left.contains(&process.id), "{process:?} is forgotten");
        }
        let now = self.site.clock.now();
        self.site = self.site.reopen().await;
        self.site.clock.advance(now - self.site.clock.now());
        self.other = self.site.other();
        let mut running: Vec<usize> =
            (0..self.jobs.len()).filter(|index| self.jobs[*index].row.status == JobStatus::Running).collect();
        running.sort_by_key(|index| at(&self.jobs[*index].row.created));
        let expected: Vec<Recovered> = running.into_iter().map(|index| self.recover(index)).collect();
        assert_eq!(self.site.store.recover(None).await.unwrap(), expected);
        self.over.append(&mut self.processes);
        for job in &mut self.jobs {
            // Times of the older form are brought into the present one at a start.
            if let Some(due) = job.row.due.clone().filter(|due| due.contains('T')) {
                job.row.due = Some(format_db(at(&due)));
            }
        }
        self.check();
        self.activate(None).await;
        self
    }

    fn recover(&mut self, index: usize) -> Recovered {
        let now = self.site.now_text();
        let job = &mut self.jobs[index];
        let (attempt, max) = (job.row.attempt, job.row.max_attempts);
        if attempt < max {
            let text = format!("attempt {attempt} interrupted: gateway stopped while it was running");
            job.requeue(JobStatus::Failed, text, None);
        } else {
            let text = format!("Job marked dead during crash recovery: max attempts ({max}) reached");
            job.end(JobStatus::Dead, Some(text), &now);
            // No configuration has taken over yet.
            self.count_end(index, &policy(1));
        }
        let row = &self.jobs[index].row;
        Recovered { job: JobId::from(row.id.clone()), attempt, status: row.status }
    }

    fn foreign(&mut self, foreign: Foreign) {
        let now = self.site.clock.now();
        match foreign {
            Foreign::Insert { plugin, key, form } => {
                let due = match form {
                    0 => None,
                    1 => Some(String::new()),
                    2 => Some((now + TimeDelta::seconds(7)).format("%Y-%m-%dT%H:%M:%SZ").to_string()),
                    _ => Some((now + TimeDelta::seconds(9 + 3600)).format("%Y-%m-%dT%H:%M:%S+01:00").to_string()),
                };
                let new = NewJob { submitted_by: Producer::Cli, ..new_job(Target { plugin, command: 0 }, key, 2) };
                let row = Row { due, ..Row::of(&new, &JobId::generate(), now, None) };
                self.insert(&row);
                self.jobs.push(Job::new(row));
            }
            Foreign::ClearDelays => {
                self.other.execute("UPDATE job_queue SET next_retry_at = NULL WHERE status = 'queued'", []).unwrap();
                self.jobs.iter_mut().filter(|job| job.row.is_active()).for_each(|job| job.row.due = None);
            }
            Foreign::ResetBreakers { plugin } => {
                let plugin = name(plugin);
                breaker_rows::reset(&self.other, &plugin, None, now).unwrap();
                self.breakers.reset(&plugin);
            }
        }
    }

    fn insert(&self, row: &Row) {
        let transaction = self.other.unchecked_transaction().unwrap();
        transaction
            .execute(
                "INSERT INTO job_queue (id, plugin, command, status, max_attempts, submitted_by, dedupe_key, created_at,
                                        next_retry_at)
                 VALUES (?1, ?2, ?3, 'queued', ?4, ?5, ?6, ?7, ?8)",
                rusqlite::params![
                    row.id, row.plugin, row.command, row.max_attempts, row.by, row.key, row.created, row.due
                ],
            )
            .unwrap();
        transaction
            .execute(
                "INSERT INTO job_transitions (job_id, to_status, created_at) VALUES (?1, 'queued', ?2)",
                [&row.id, &row.created],
            )
            .unwrap();
        transaction.commit().unwrap();
    }

    /// Rows that are there.
    pub(super) fn present(&self) -> Vec<&Row> {
        self.jobs.iter().filter(|job| !job.pruned).map(|job| &job.row).collect()
    }

    pub(super) fn depth(&self) -> usize {
        self.jobs.iter().filter(|job| job.row.is_active()).count()
    }

    pub(super) fn find(&self, id: &JobId) -> usize {
        self.jobs.iter().position(|job| job.row.id == id.as_str()).unwrap_or_else(|| panic!("{id} is unknown"))
    }
}

fn breakers(threshold: u32) -> BTreeMap<String, BreakerPolicy> {
    let breaker = BreakerPolicy { threshold, reset_after: Duration::from_secs(20) };
    PLUGINS.map(|name| (name.to_owned(), breaker)).into()
}

fn name(plugin: u8) -> String {
    PLUGINS[usize::from(plugin)].to_owned()
}

fn new_job(target: Target, key: Option<u8>, max_attempts: u32) -> NewJob {
    NewJob {
        command: COMMANDS[usize::from(target.command)].to_owned(),
        dedupe_key: key.map(|key| format!("k{key}")),
        max_attempts,
        ..job(&name(target.plugin))
    }
}

fn outcome_of(how: How) -> AttemptOutcome {
    match how {
        How::Succeed => succeeded(),
        How::SucceedWithFacts => with_state(r#"{"n":1}"#, &["one", "two"]),
        How::RefusedState => with_state("[1]", &["one"]),
        How::Skip => AttemptOutcome::Skipped { reason: "condition false".into() },
        How::Fail(reason) => failed(reason),
        How::Shutdown => AttemptOutcome::Interrupted(InterruptKind::Shutdown),
        How::Panic => {
            AttemptOutcome::Interrupted(InterruptKind::InternalError { backoff_base: Duration::from_secs(3) })
        }
    }
}

fn refused_state() -> String {
    StateRefusal::NotAnObject(StateObject::parse("[1]").unwrap_err().to_string()).to_string()
}

fn sorted(ids: &[JobId]) -> Vec<String> {
    let mut ids: Vec<String> = ids.iter().map(JobId::to_string).collect();
    ids.sort();
    ids
}
