//! Random days of a handful of schedules. Whatever happens, the rules of their rows hold.

use std::collections::BTreeSet;
use std::sync::Mutex;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Advance(i64),
    /// All schedules are looked at, as in a tick.
    Look,
    Finish {
        which: Index,
        success: bool,
    },
    CatchUp,
    Restart,
    Reload,
}

fn steps(jumps: impl Strategy<Value = i64> + 'static) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1i64..70).prop_map(Step::Advance),
        1 => jumps.prop_map(Step::Advance),
        8 => Just(Step::Look),
        5 => (any::<Index>(), any::<bool>()).prop_map(|(which, success)| Step::Finish { which, success }),
        1 => Just(Step::Restart),
        1 => Just(Step::CatchUp),
        1 => Just(Step::Reload),
    ];
    prop::collection::vec(step, 20..120)
}

/// Each with a command of its own.
fn entries() -> Vec<Entry> {
    let entries = [
        jittery("skips", "1m", "20s"),
        Entry { if_running: Overlap::Queue { limit: 3 }, ..jittery("queues", "40s", "40s") },
        Entry { if_running: Overlap::Cancel, ..every("cancels", "45s") },
        Entry { catch_up: CatchUp::RunOnce, ..every("makes-up", "50s") },
        cron("cron", "*/2 * * * *"),
        Entry { if_running: Overlap::Queue { limit: 9 }, ..cron("cron-queues", "* * * * *") },
        after("after", "90s"),
        at("at", "03:09:00"),
    ];
    entries.map(|entry| with_command(&format!("do-{}", entry.id), entry)).into()
}

/// What was seen to fire.
#[derive(Default)]
struct Seen {
    slots: BTreeSet<(String, DateTime<Utc>)>,
    last: BTreeMap<String, DateTime<Utc>>,
    jobs: i64,
}

/// Whether the clock is put back in this life.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TheClock {
    GoesOn,
    Jumps,
}

impl Seen {
    fn fired(&mut self, entry: &Entry, slot: DateTime<Utc>, at: DateTime<Utc>, clock: TheClock) {
        assert!(slot <= at, "{} fired before its time", entry.id);
        let last = self.last.insert(entry.id.clone(), at);
        match &entry.rule {
            Rule::Cron(_) => assert!(self.slots.insert((entry.id.clone(), slot)), "{} fired {slot} twice", entry.id),
            Rule::At(_) | Rule::After(_) => assert_eq!(last, None, "{} fired twice", entry.id),
            Rule::Every(interval) => {
                let least = interval.every - interval.jitter / 2;
                if let (Some(last), TheClock::GoesOn) = (last, clock) {
                    assert!((at - last).to_std().unwrap() >= least, "{} fired at {last} and {at}", entry.id);
                }
            }
        }
    }
}

async fn live(steps: Vec<Step>, clock: TheClock) {
    let chance = Mutex::new(fastrand::Rng::with_seed(11));
    let directory = tempfile::tempdir().unwrap();
    let site = Site::with_chance(directory, Arc::new(move || chance.lock().unwrap().f64())).await;
    let mut table = Timetable::at(site, breaking(3, 100), entries()).await;
    let (mut seen, mut running) = (Seen::default(), Vec::new());
    for step in std::iter::once(Step::Look).chain(steps) {
        match step {
            Step::Advance(seconds) => table.site.advance(seconds),
            Step::Look => look(&table, &mut seen, clock).await,
            Step::CatchUp => {
                let due = table.due("makes-up");
                if let Some(caught_up) = table.catches_up("makes-up").await {
                    assert_eq!(caught_up.queued, 1);
                    seen.fired(&due.entry, caught_up.first, table.site.clock.now(), clock);
                    seen.jobs += 1;
                }
            }
            Step::Finish { which, success } => {
                table.site.store.write(|_| Ok(())).await.unwrap();
                while let Ok(claimed) = table.claims.try_recv() {
                    running.push(claimed);
                }
                if !running.is_empty() {
                    let job: ClaimedJob = running.swap_remove(which.index(running.len()));
                    table.site.finish(&job, if success { succeeded() } else { broken() }).await;
                }
            }
            Step::Restart => {
                running.clear();
                table = table.restart().await;
            }
            Step::Reload => {
                while let Ok(claimed) = table.claims.try_recv() {
                    running.push(claimed);
                }
                table = table.reload(entries()).await;
            }
        }
        check(&table, &seen);
    }
    table.site.store.close().await;
}

async fn look(table: &Timetable, seen: &mut Seen, clock: TheClock) {
    for entry in &table.entries {
        if let Evaluated::Fired { slot, at, .. } = table.look(&entry.id).await {
            seen.fired(entry, slot, at, clock);
            seen.jobs += 1;
        }
    }
}

/// What holds of the rows after each step.
fn check(table: &Timetable, seen: &Seen) {
    assert_eq!(table.jobs(), seen.jobs, "each firing is one job");
    let crowded = table.site.column(
        "SELECT command FROM job_queue WHERE status IN ('queued', 'running') GROUP BY command
         HAVING count(*) > CASE command WHEN 'do-queues' THEN 3 WHEN 'do-cron-queues' THEN 9 WHEN 'do-makes-up' THEN 99
                                        ELSE 1 END",
    );
    assert!(crowded.is_empty(), "too many jobs of {crowded:?}");
    let together = table
        .site
        .column("SELECT dedupe_key FROM job_queue WHERE status = 'running' GROUP BY dedupe_key HAVING count(*) > 1");
    assert!(together.is_empty(), "run at once: {together:?}");
    let stopped = table.site.column(
        "SELECT schedule_id FROM schedule_entries
         WHERE (next_run_at IS NULL) <> (status = 'exhausted') OR (status = 'exhausted') <> (reason IS NOT NULL)",
    );
    assert!(stopped.is_empty(), "neither due again nor over: {stopped:?}");
    for (id, at) in &seen.last {
        let fired: String =
            table.site.one(&format!("SELECT last_fired_at FROM schedule_entries WHERE schedule_id = '{id}'"));
        assert_eq!(fired, format_db(*at), "{id}");
    }
}

fn run(steps: Vec<Step>, clock: TheClock) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(live(steps, clock));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_day_of_schedules_breaks_their_rules(steps in steps(select(vec![200i64, 3600, 100_000]))) {
        run(steps, TheClock::GoesOn);
    }

    #[test]
    fn no_clock_that_jumps_fires_a_slot_twice(steps in steps(select(vec![-30i64, -3600, -86_400, 86_400]))) {
        run(steps, TheClock::Jumps);
    }
}
