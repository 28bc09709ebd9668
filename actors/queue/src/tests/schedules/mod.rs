//! Schedules in the real store: what is due is looked at when a test says so.

mod breaking;
mod catching_up;
mod changing;
mod cron;
mod failing;
mod firing;
mod holding_back;
mod managing;
mod once;
mod overlapping;
mod random;
mod telling;

use chrono::{DateTime, Utc};
use ductile_model::parse_duration;
use ductile_timetable::{CatchUp, Cron, Entry, Interval, Overlap, Rule, Weekdays, Window, Zone};

use super::*;
use crate::{
    BreakerPolicy, CatchUpLook, CaughtUp, Definition, Due, Evaluated, Reader, ScheduleChange, ScheduleRow,
    ScheduleStatus, SkipReason,
};

fn entry(id: &str, rule: Rule) -> Entry {
    Entry {
        plugin: "echo".to_owned(),
        id: id.to_owned(),
        command: "poll".to_owned(),
        payload: "{}".into(),
        max_attempts: 1,
        rule,
        zone: Zone::utc(),
        only_between: None,
        not_on: Weekdays::default(),
        if_running: Overlap::Skip,
        catch_up: CatchUp::Skip,
    }
}

fn span(text: &str) -> Duration {
    parse_duration(text).unwrap()
}

fn every(id: &str, interval: &str) -> Entry {
    jittery(id, interval, "0s")
}

fn jittery(id: &str, interval: &str, jitter: &str) -> Entry {
    entry(id, Rule::Every(Interval { every: span(interval), jitter: span(jitter), preferred: None }))
}

fn cron(id: &str, text: &str) -> Entry {
    entry(id, Rule::Cron(Cron::parse(text).unwrap()))
}

fn at(id: &str, text: &str) -> Entry {
    entry(id, Rule::At(instant(text)))
}

fn after(id: &str, delay: &str) -> Entry {
    entry(id, Rule::After(span(delay)))
}

/// One of each mode, all of them due at the start of a test or ten seconds later.
fn modes() -> Vec<Entry> {
    vec![every("every", "1h"), cron("cron", "* * * * *"), at("at", "03:04:00"), after("after", "10s")]
}

fn with_command(command: &str, entry: Entry) -> Entry {
    Entry { command: command.to_owned(), ..entry }
}

fn window(text: &str, entry: Entry) -> Entry {
    Entry { only_between: Some(Window::parse(text).unwrap()), ..entry }
}

/// A time of the day on which tests begin, 2026-01-02, or a date with a time.
fn instant(text: &str) -> DateTime<Utc> {
    let text = if text.len() == 8 { format!("2026-01-02 {text}Z") } else { text.to_owned() };
    parse_stored(&text).unwrap_or_else(|| panic!("{text}"))
}

/// A gateway with schedules, but for the loop that looks at them.
struct Timetable {
    site: Site,
    claims: UnboundedReceiver<ClaimedJob>,
    generation: SnapshotId,
    entries: Vec<Arc<Entry>>,
    policy: ClaimPolicy,
}

impl Timetable {
    async fn of(entries: Vec<Entry>) -> Self {
        Self::under(policy(4), entries).await
    }

    async fn under(policy: ClaimPolicy, entries: Vec<Entry>) -> Self {
        Self::at(Site::new().await, policy, entries).await
    }

    async fn at(site: Site, policy: ClaimPolicy, entries: Vec<Entry>) -> Self {
        let (claims, generation) = (tokio::sync::mpsc::unbounded_channel().1, SnapshotId::generate());
        Self { site, claims, generation, entries: Vec::new(), policy }.reload(entries).await
    }

    /// Another configuration comes into force.
    async fn reload(mut self, entries: Vec<Entry>) -> Self {
        self.policy.intervals.clear();
        for entry in &entries {
            if let Rule::Every(interval) = &entry.rule {
                let of_plugin = self.policy.intervals.entry(entry.plugin.clone()).or_default();
                of_plugin.insert(entry.id.clone(), interval.clone());
            }
        }
        let snapshot = snapshot("reload");
        self.generation = snapshot.id.clone();
        let generation = ActivateGeneration { snapshot, policy: self.policy.clone(), runnable: None, reload: None };
        self.claims = self.site.store.activate(generation).await.unwrap();
        self.entries = entries.into_iter().map(Arc::new).collect();
        self
    }

    /// The process ends and comes again, with the time that it was.
    async fn restart(mut self) -> Self {
        let now = self.site.clock.now();
        self.site = self.site.reopen().await;
        self.set_clock(now);
        self.site.store.recover(None).await.unwrap();
        let entries = self.entries.iter().map(|entry| Entry::clone(entry)).collect();
        self.reload(entries).await
    }

    fn set_clock(&self, now: DateTime<Utc>) {
        self.site.clock.advance(now - self.site.clock.now());
    }

    fn due(&self, id: &str) -> Due {
        let entry = self.entries.iter().find(|entry| entry.id == id).unwrap().clone();
        Due { entry, generation: self.generation.clone() }
    }

    async fn look(&self, id: &str) -> Evaluated {
        self.site.store.evaluate_schedule(self.due(id)).await.unwrap()
    }

    async fn fires(&self, id: &str) -> JobId {
        match self.look(id).await {
            Evaluated::Fired { job, .. } => job,
            other => panic!("{id} did not fire: {other:?}"),
        }
    }

    /// Why it does not fire; it stays as it is.
    async fn waits(&self, id: &str) -> SkipReason {
        match self.look(id).await {
            Evaluated::Waits { reason, .. } => reason,
            other => panic!("{id} does not wait: {other:?}"),
        }
    }

    async fn catches_up(&self, id: &str) -> Option<CaughtUp> {
        match self.site.store.catch_up_schedule(self.due(id)).await.unwrap() {
            CatchUpLook::Done(caught_up) => Some(caught_up),
            CatchUpLook::Nothing => None,
            CatchUpLook::Stale => panic!("another generation is in force"),
        }
    }

    async fn row(&self, id: &str) -> ScheduleRow {
        let rows = self.site.store.schedules().await.unwrap();
        rows.into_iter().find(|row| row.schedule_id == id).unwrap_or_else(|| panic!("no row {id}"))
    }

    async fn next(&self, id: &str) -> Option<DateTime<Utc>> {
        self.row(id).await.next_run_at
    }

    /// Runs the job that is claimed next.
    async fn ends(&mut self, outcome: AttemptOutcome) -> JobId {
        let claimed = claim(&mut self.claims).await;
        self.site.finish(&claimed, outcome).await;
        claimed.id
    }

    fn jobs(&self) -> i64 {
        self.site.one("SELECT count(*) FROM job_queue")
    }

    /// All rows with all columns, to the digit.
    fn rows_as_stored(&self) -> Vec<String> {
        self.site.column(
            "SELECT json_array(plugin, schedule_id, command, status, reason, last_fired_at, last_success_job_id,
                               last_success_at, next_run_at, updated_at, definition)
             FROM schedule_entries ORDER BY plugin, schedule_id",
        )
    }

    fn sql(&self, sql: &str) {
        self.site.other().execute_batch(sql).unwrap();
    }
}

fn breaking(threshold: u32, reset_after: u64) -> ClaimPolicy {
    let breaker = BreakerPolicy { threshold, reset_after: Duration::from_secs(reset_after) };
    ClaimPolicy { breakers: [("echo".to_owned(), breaker)].into(), ..policy(4) }
}

fn broken() -> AttemptOutcome {
    failed(FailureReason::PluginError)
}

/// What schedules do all day, for whoever looks at the statements. Leaves a job of `poller` behind.
pub(super) async fn day(site: &Site, claims: &mut UnboundedReceiver<ClaimedJob>) {
    let generation = site.store.write(|scope| Ok(scope.snapshot().cloned())).await.unwrap().unwrap();
    let of = |overlap| {
        let entry = Entry { plugin: "poller".to_owned(), if_running: overlap, ..every("default", "1h") };
        Due { entry: Arc::new(Entry { catch_up: CatchUp::RunAll, ..entry }), generation: generation.clone() }
    };
    site.store.evaluate_schedule(of(Overlap::Skip)).await.unwrap();
    let claimed = claim(claims).await;
    site.finish(&claimed, succeeded()).await;
    site.advance(2 * 3600);
    let caught_up = site.store.catch_up_schedule(of(Overlap::Skip)).await.unwrap();
    assert!(matches!(caught_up, CatchUpLook::Done(_)), "two runs were missed");
    for overlap in [Overlap::Skip, Overlap::Queue { limit: 9 }, Overlap::Cancel] {
        site.advance(3600);
        site.store.evaluate_schedule(of(overlap)).await.unwrap();
    }
}

/// How schedules are looked at.
pub(super) async fn looks(site: &Site) {
    let entries = [Arc::new(Entry { plugin: "poller".to_owned(), ..every("default", "1h") })];
    site.store.schedules().await.unwrap();
    let reader = Reader::open(&site.path()).unwrap();
    reader.schedules(&entries).unwrap();
    reader.scheduled_jobs("ductile").unwrap();
    let mut maintainer = crate::Maintainer::open(&site.path()).unwrap();
    let change = ScheduleChange::Pause(None);
    maintainer.change_schedule(&entries[0], &change, site.clock.now(), crate::ChangeMode::Apply).unwrap();
}
