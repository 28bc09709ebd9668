//! Clocks that are put forward and back, and machines that sleep.

use super::*;

const SCHEDULES: &str = r#"
      - {id: minutely, every: 1m}
      - {id: cron, cron: "*/10 * * * *", timezone: UTC, command: a}
      - {id: once, after: 2h, command: b}
"#;

#[tokio::test]
async fn after_a_day_back_an_interval_goes_on_and_no_slot_runs_twice() {
    let mut world = World::new("2026-05-02T12:00:30Z", "10s", SCHEDULES).await;
    world.pass(TimeDelta::minutes(45)).await;
    let slots = world.runs("p:a:cron").len();
    let due = world.row("cron").await.next_run_at;
    world.jump(TimeDelta::days(-1));
    let before = world.runs("p:poll:minutely").len();
    world.pass(TimeDelta::seconds(100)).await;
    assert!(world.runs("p:poll:minutely").len() > before, "within about a minute");
    world.pass(TimeDelta::hours(20)).await;
    assert_eq!(world.runs("p:a:cron").len(), slots, "these slots have run");
    assert_eq!(world.row("cron").await.next_run_at, due);
    world.pass(TimeDelta::hours(5)).await;
    assert!(world.runs("p:a:cron").len() > slots);
}

#[tokio::test]
async fn after_a_jump_ahead_what_passed_runs_once() {
    let mut world = World::new("2026-05-02T12:00:30Z", "10s", SCHEDULES).await;
    world.pass(TimeDelta::minutes(5)).await;
    let cron = world.runs("p:a:cron").len();
    let minutely = world.runs("p:poll:minutely").len();
    world.jump(TimeDelta::hours(6));
    world.tick().await;
    assert_eq!(world.runs("p:a:cron").len(), cron + 1);
    assert_eq!(world.runs("p:poll:minutely").len(), minutely + 1);
    assert_eq!(world.runs("p:b:once").len(), 1);
    let dropped: u64 = world.life.counts().values().map(|counts| counts.dropped).sum();
    assert_eq!(dropped, 35, "of 36 slots in six hours one was run");
}

#[tokio::test]
async fn a_jump_ahead_is_caught_up_with_like_a_stop() {
    let schedules = "      - {id: all, every: 10m, catch_up: run_all}\n      - {id: one, every: 10m, command: a, catch_up: run_once}\n";
    let mut world = World::new("2026-05-02T12:00:00Z", "30s", schedules).await;
    world.pass(TimeDelta::minutes(1)).await;
    // Less than five minutes are no jump.
    world.jump(TimeDelta::seconds(250));
    world.tick().await;
    assert_eq!(world.ran.len(), 2);
    world.jump(TimeDelta::hours(1));
    world.tick().await;
    let caught = |key: &str| world.ran.iter().filter(|ran| ran.key.starts_with(key)).count();
    assert_eq!((caught("p:poll:all:catchup:"), caught("p:a:one:catchup:")), (6, 1));
    assert_eq!(caught("p:poll:all") + caught("p:a:one"), 9, "nothing besides");
}

#[tokio::test]
async fn wherever_the_clock_goes_slots_run_at_most_once_and_nothing_stops_for_good() {
    let mut random = fastrand::Rng::with_seed(11);
    let start = at("2026-05-02T12:00:30Z");
    let mut world = World::new("2026-05-02T12:00:30Z", "10s", SCHEDULES).await;
    let mut furthest = start;
    for _ in 0..80 {
        world.pass(TimeDelta::seconds(random.i64(1..1200))).await;
        furthest = furthest.max(world.now());
        let (hours, minutes) = (random.i64(-9..9), random.i64(0..60));
        world.jump(TimeDelta::hours(hours) + TimeDelta::minutes(minutes));
        world.tick().await;
        furthest = furthest.max(world.now());
        let before = world.runs("p:poll:minutely").len();
        world.pass(TimeDelta::seconds(100)).await;
        assert!(world.runs("p:poll:minutely").len() > before, "at {}", world.now());
        furthest = furthest.max(world.now());
        let slots = (furthest - at("2026-05-02T12:00:00Z")).num_minutes() / 10 + 1;
        assert!(i64::try_from(world.runs("p:a:cron").len()).unwrap() <= slots);
    }
    assert_eq!(world.runs("p:b:once").len(), 1);
}

#[tokio::test]
async fn a_clock_that_was_never_set_starts_nothing() {
    let mut world = World::new("1970-01-01T00:00:10Z", "10s", SCHEDULES).await;
    world.pass(TimeDelta::hours(3)).await;
    assert_eq!(world.ran.len(), 0);
    assert!(world.store.schedules().await.unwrap().is_empty());
    let ahead = at("2026-05-02T12:00:00Z") - world.now();
    world.jump(ahead);
    world.tick().await;
    assert_eq!(world.runs("p:poll:minutely").len(), 1);
}

#[tokio::test]
async fn after_a_sleep_of_the_machine_what_was_missed_comes_before_what_is_due() {
    let schedules = "      - {id: all, every: 10m, catch_up: run_all}\n";
    let mut world = World::new("2026-05-02T12:00:00Z", "1m", schedules).await;
    world.pass(TimeDelta::seconds(30)).await;
    world.jump(TimeDelta::hours(1));
    // A timer ends before the tick.
    world.rounds.wake().await;
    world.settle().await;
    assert_eq!(world.ran.iter().filter(|ran| ran.key.contains(":catchup:")).count(), 6);
    assert_eq!(world.ran.len(), 7, "and nothing besides");
}

#[tokio::test]
async fn a_clock_that_falls_back_to_its_beginning_wakes_nobody() {
    let mut world = World::new("2026-05-02T12:00:00Z", "10s", "      - {id: x, every: 5s}\n").await;
    // Held back by its own job, whose end is news.
    world.pass(TimeDelta::seconds(9)).await;
    world.jump(DateTime::UNIX_EPOCH - world.now());
    world.end_jobs().await;
    world.running.clear();
    world.settle().await;
    let ended = ScheduleNews::Ended { plugin: "p".to_owned(), command: "poll".to_owned() };
    world.rounds.hear(ended);
    world.rounds.wake().await;
    let next = world.rounds.next_wake();
    assert!(next.is_none_or(|next| next > world.now()), "{next:?}");
}

#[tokio::test]
async fn what_could_not_be_made_up_for_is_made_up_for_at_the_next_tick() {
    let schedules = "      - {id: all, every: 10m, catch_up: run_all}\n";
    let world = World::new("2026-05-02T12:00:00Z", "10s", schedules).await;
    let World { directory, store, .. } = world;
    store.close().await;
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON job_queue BEGIN SELECT RAISE(ABORT, 'refused by a test'); END";
    let outside = rusqlite::Connection::open(directory.path().join("state.db")).unwrap();
    outside.execute_batch(refuse).unwrap();
    let mut world = World::within(directory, at("2026-05-02T13:00:00Z"), "10s", schedules).await;
    assert_eq!(world.row("all").await.last_fired_at, Some(at("2026-05-02T12:00:00Z")), "nothing was changed");
    outside.execute_batch("DROP TRIGGER refuse").unwrap();
    world.pass(TimeDelta::seconds(10)).await;
    assert_eq!(world.ran.iter().filter(|ran| ran.key.contains(":catchup:")).count(), 6);
}
