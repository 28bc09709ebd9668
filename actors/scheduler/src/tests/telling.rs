//! What is told of schedules that do not run, or not in time.

use ductile_model::SlotCounts;
use ductile_queue::{ChangeMode, Maintainer, ScheduleChange};

use super::*;

fn counts(world: &World, schedule: &str) -> SlotCounts {
    let key = ("p".to_owned(), schedule.to_owned());
    world.life.counts().get(&key).copied().unwrap_or_default()
}

/// Reasons of the kept events, without those of schedules that are not due.
fn skipped(world: &World) -> Vec<String> {
    world.events("scheduler.skipped").iter().map(|data| data["reason"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_runs_in_time_is_not_told_as_late() {
    let schedules = "      - {id: x, every: 1m}\n      - {id: y, cron: '* * * * *', timezone: UTC, command: a}\n";
    let mut world = World::new("2026-05-02T12:00:31Z", "10s", schedules).await;
    world.pass(TimeDelta::minutes(30)).await;
    assert_eq!(world.life.counts(), BTreeMap::new());
    assert_eq!(world.events("scheduler.slot_late"), Vec::<serde_json::Value>::new());
    assert_eq!(world.runs("p:a:y").len(), 31, "the minute it was first seen in, and thirty more");
}

#[tokio::test]
async fn each_job_is_told_after_its_commit() {
    let world = World::new("2026-05-02T12:00:31Z", "10s", "      - {id: x, every: 1m, payload: {n: 1}}\n").await;
    let told = world.events("scheduler.scheduled");
    assert_eq!(told.len(), 1);
    for (key, value) in [("plugin", "p"), ("command", "poll"), ("schedule_id", "x"), ("submitted_by", "ductile")] {
        assert_eq!(told[0][key], value, "{told:?}");
    }
    assert!(told[0]["job_id"].is_string() && told[0]["at"].is_string());
}

#[tokio::test]
async fn a_slot_that_passed_while_the_gateway_was_down_is_late_and_those_behind_it_are_lost() {
    let schedules = "      - {id: y, cron: '0 * * * *', timezone: UTC}\n";
    let world = World::new("2026-05-02T12:30:00Z", "10s", schedules).await;
    let world = world.restart(TimeDelta::hours(3), "10s", schedules).await;
    assert_eq!(world.runs("p:poll:y"), [at("2026-05-02T15:30:00Z")]);
    assert_eq!(counts(&world, "y"), SlotCounts { late: 1, dropped: 2 });
    let late = &world.events("scheduler.slot_late")[0];
    assert_eq!((&late["slot"], &late["reason"]), (&"2026-05-02T13:00:00Z".into(), &"gateway_down".into()), "{late}");
    assert_eq!((&late["late_ms"], &late["schedule_id"]), (&(150 * 60 * 1000).into(), &"y".into()));
    let lost = &world.events("scheduler.slot_dropped")[0];
    assert_eq!((&lost["slots"], &lost["reason"]), (&2.into(), &"gateway_down".into()), "{lost}");
}

#[tokio::test]
async fn a_reason_is_told_when_it_begins_and_not_again_at_every_tick() {
    // Jobs take longer than the interval.
    let mut world = World::new("2026-05-02T12:00:00Z", "1s", "      - {id: x, every: 5s}\n").await;
    world.pass(TimeDelta::seconds(19)).await;
    assert_eq!(skipped(&world), ["already_running"]);
    world.pass(TimeDelta::seconds(25)).await;
    assert_eq!(world.ran.len(), 2);
    assert_eq!(skipped(&world), ["already_running", "already_running"], "once per run");
}

#[tokio::test]
async fn a_dropped_slot_is_told_each_time() {
    let schedules = "      - {id: y, cron: '0 * * * *', timezone: UTC, not_on: [sat]}\n";
    let mut world = World::new("2026-05-01T23:30:00Z", "10s", schedules).await;
    world.pass(TimeDelta::hours(3)).await;
    assert_eq!(world.ran.len(), 0, "it is Saturday");
    assert_eq!(counts(&world, "y").dropped, 3);
    let lost = world.events("scheduler.slot_dropped");
    assert_eq!(lost.len(), 3);
    assert_eq!((&lost[2]["slot"], &lost[2]["slots"]), (&"2026-05-02T02:00:00Z".into(), &1.into()));
    assert_eq!(lost[2]["reason"], "outside_day_constraint");
    assert_eq!(skipped(&world), ["outside_day_constraint"]);
}

#[tokio::test]
async fn what_waits_for_its_window_runs_as_it_opens_and_is_told_as_late() {
    let schedules = "      - {id: x, every: 1h, only_between: '06:00-23:00', timezone: UTC}\n";
    let mut world = World::new("2026-05-01T22:30:00Z", "1m", schedules).await;
    world.pass(TimeDelta::hours(8)).await;
    assert_eq!(world.runs("p:poll:x"), [at("2026-05-01T22:30:00Z"), at("2026-05-02T06:00:00Z")]);
    let late = &world.events("scheduler.slot_late")[0];
    assert_eq!(late["reason"], "outside_time_window", "{late}");
    assert_eq!(counts(&world, "x"), SlotCounts { late: 1, dropped: 0 });
}

#[tokio::test]
async fn an_open_breaker_is_told_once_and_one_try_follows_the_pause() {
    let mut world = World::new("2026-05-01T12:00:00Z", "10s", "      - {id: x, every: 1m}\n").await;
    world.failing.insert("poll".to_owned());
    world.pass(TimeDelta::minutes(20)).await;
    assert_eq!(world.ran.len(), 3);
    assert_eq!(skipped(&world), ["circuit_open"]);
    world.failing.clear();
    // Half an hour after the third failure.
    world.pass(TimeDelta::minutes(13)).await;
    assert!(world.ran.len() >= 4);
    let late = &world.events("scheduler.slot_late")[0];
    assert_eq!(late["reason"], "circuit_open");
}

#[tokio::test]
async fn those_who_listen_hear_of_ticks_and_of_what_is_not_due() {
    let mut world = World::new("2026-05-01T12:00:00Z", "10s", "      - {id: x, every: 1h}\n").await;
    let mut subscription = world.hub.subscribe(u64::MAX);
    world.pass(TimeDelta::seconds(10)).await;
    let mut heard = Vec::new();
    while let Ok(record) = subscription.live.try_recv() {
        heard.push((record.kind, record.data.get("reason").cloned(), record.data.get("next_run_at").cloned()));
    }
    let not_due = ("scheduler.skipped", Some("not_due".into()), Some("2026-05-01T13:00:00Z".into()));
    assert_eq!(heard, [("scheduler.tick", None, None), not_due]);
    assert!(world.events("scheduler.tick").is_empty(), "they come too often to be kept");
}

#[tokio::test]
async fn many_schedules_that_are_not_due_crowd_nobody_out() {
    let many: String = (0..500).map(|n| format!("      - {{id: s{n}, after: 900h}}\n")).collect();
    let mut world = World::new("2026-05-01T12:00:00Z", "10s", &many).await;
    let subscription = world.hub.subscribe(u64::MAX);
    world.pass(TimeDelta::seconds(10)).await;
    assert!(!subscription.live.is_closed());
    assert!(subscription.live.len() <= crate::telling::NOT_DUE_PER_TICK + 1);
}

#[tokio::test]
async fn what_is_paused_from_outside_waits_and_goes_on_when_it_is_resumed() {
    let mut world = World::new("2026-05-01T12:00:00Z", "10s", "      - {id: x, every: 1m}\n").await;
    let mut outside = Maintainer::open(&world.directory.path().join("state.db")).unwrap();
    let entry = world.plan.schedules[0].clone();
    let pause = ScheduleChange::Pause(Some("a reason".to_owned()));
    outside.change_schedule(&entry, &pause, world.now(), ChangeMode::Apply).unwrap();
    world.pass(TimeDelta::minutes(5)).await;
    assert_eq!(world.ran.len(), 1);
    assert_eq!(skipped(&world), ["schedule_paused_manual"]);
    let resume = ScheduleChange::Resume { rearm: false };
    outside.change_schedule(&entry, &resume, world.now(), ChangeMode::Apply).unwrap();
    world.pass(TimeDelta::minutes(1)).await;
    assert_eq!(world.ran.len(), 2);
}

#[tokio::test]
async fn a_tick_is_a_sign_of_life() {
    let world = World::new("2026-05-01T12:00:00Z", "10s", "      - {id: x, every: 1h}\n").await;
    let now = std::time::Instant::now();
    assert!(world.life.is_alive(now + Duration::from_secs(29)));
    assert!(!world.life.is_alive(now + Duration::from_secs(31)));
}

#[tokio::test]
async fn what_waits_for_a_job_runs_when_that_is_over_and_not_at_the_next_tick() {
    for failing in [false, true] {
        let schedules = "      - {id: first, every: 2h}\n      - {id: second, after: 5s}\n";
        let mut world = World::new("2026-05-01T12:00:00Z", "1h", schedules).await;
        world.failing.extend(failing.then(|| "poll".to_owned()));
        world.pass(TimeDelta::minutes(1)).await;
        assert_eq!(skipped(&world), ["already_running"]);
        assert_eq!(world.runs("p:poll:second"), [at("2026-05-01T12:00:20Z")], "{failing}");
    }
}

#[tokio::test]
async fn what_an_open_breaker_holds_back_is_tried_when_its_pause_is_over_and_not_at_the_next_tick() {
    let mut world = World::new("2026-05-01T12:00:00Z", "12h", "      - {id: x, every: 1m}\n").await;
    world.failing.insert("poll".to_owned());
    world.pass(TimeDelta::hours(1)).await;
    let runs = world.runs("p:poll:x");
    // The third fails at 12:02:20, half an hour before the next.
    assert_eq!(runs[2..], [at("2026-05-01T12:02:00Z"), at("2026-05-01T12:32:20Z")]);
}
