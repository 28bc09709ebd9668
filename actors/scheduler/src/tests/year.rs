//! A whole year, with both changes of the clocks, in a few seconds.

use chrono::{Datelike, NaiveDate, Timelike, Weekday};
use chrono_tz::Europe::Berlin;

use super::*;

const SCHEDULES: &str = r#"
      - {id: hourly, every: 1h, jitter: 10m}
      - {id: nightly, cron: "30 2 * * *", timezone: Europe/Berlin, command: a}
      - {id: half, cron: "*/30 1-3 * * *", timezone: Europe/Berlin, command: b, not_on: [tue]}
      - {id: work, cron: "0 9 * * 1-5", timezone: Europe/Berlin, command: c}
      - {id: once, at: "2026-07-01T10:00:00+02:00", command: d}
      - {id: later, after: 100d, command: e}
      - {id: shop, every: 90m, command: f, only_between: "08:00-18:00", not_on: [sun], timezone: Europe/Berlin}
"#;

fn days() -> impl Iterator<Item = NaiveDate> {
    NaiveDate::from_ymd_opt(2026, 1, 1).unwrap().iter_days().take(365)
}

#[tokio::test]
async fn in_a_year_everything_runs_when_it_is_due_and_no_slot_is_lost_or_doubled() {
    let mut world = World::new("2025-12-31T23:00:00Z", "1h", SCHEDULES).await;
    world.pass(TimeDelta::days(365)).await;

    let nightly: Vec<_> = world.runs("p:a:nightly").iter().map(|at| at.with_timezone(&Berlin)).collect();
    let dates: Vec<_> = nightly.iter().map(|at| at.date_naive()).collect();
    assert_eq!(dates, days().collect::<Vec<_>>(), "once per date");
    for at in &nightly {
        // That night 02:30 does not exist.
        let expected = if (at.month(), at.day()) == (3, 29) { (3, 0) } else { (2, 30) };
        assert_eq!((at.hour(), at.minute(), at.second()), (expected.0, expected.1, 0), "{at}");
    }

    let work: Vec<_> = world.runs("p:c:work").iter().map(|at| at.with_timezone(&Berlin)).collect();
    let weekdays = days().filter(|day| !matches!(day.weekday(), Weekday::Sat | Weekday::Sun));
    assert_eq!(work.iter().map(|at| at.date_naive()).collect::<Vec<_>>(), weekdays.collect::<Vec<_>>());
    assert!(work.iter().all(|at| (at.hour(), at.minute()) == (9, 0)));

    let half: Vec<_> = world.runs("p:b:half").iter().map(|at| at.with_timezone(&Berlin)).collect();
    // Six a night: 01:00 to 03:30. In the night that lacks 02:00 to 03:00 both slots of it are one with 03:00, and what is
    // shown twice in autumn runs the first time.
    let nights = days().filter(|day| day.weekday() != Weekday::Tue).count();
    assert_eq!(half.len(), nights * 6 - 2);

    for gap in world.runs("p:poll:hourly").windows(2).map(|pair| pair[1] - pair[0]) {
        let (least, most) = (TimeDelta::minutes(55) + WORK, TimeDelta::minutes(65) + WORK + TimeDelta::seconds(1));
        assert!(least <= gap && gap <= most, "{gap}");
    }
    assert!(world.runs("p:poll:hourly").len() > 8_500);

    let shop = world.runs("p:f:shop");
    for at in shop.iter().map(|at| at.with_timezone(&Berlin)) {
        assert!((8..18).contains(&at.hour()) && at.weekday() != Weekday::Sun, "{at}");
    }
    let opened = shop.iter().map(|at| at.with_timezone(&Berlin)).filter(|at| (at.hour(), at.minute()) == (8, 0));
    assert_eq!(opened.count(), days().filter(|day| day.weekday() != Weekday::Sun).count(), "each day as it opens");

    assert_eq!(world.runs("p:d:once"), [at("2026-07-01T08:00:00Z")]);
    assert_eq!(world.runs("p:e:later"), [at("2026-04-10T23:00:00Z")]);
}

#[tokio::test]
async fn restarts_at_any_time_lose_and_double_nothing() {
    let mut random = fastrand::Rng::with_seed(7);
    let schedules = r#"
      - {id: minutes, cron: "*/7 * * * *", timezone: UTC, command: a}
      - {id: once, after: 3h, command: b}
      - {id: often, every: 5m}
"#;
    let mut world = World::new("2026-05-01T00:00:30Z", "1m", schedules).await;
    let mut ran = Vec::new();
    let mut down = Vec::new();
    for _ in 0..60 {
        world.pass(TimeDelta::seconds(random.i64(1..600))).await;
        let pause = TimeDelta::seconds(random.i64(0..900));
        ran.append(&mut world.ran);
        down.push((world.now(), world.now() + pause));
        world = world.restart(pause, "1m", schedules).await;
    }
    ran.append(&mut world.ran);
    let times = |key: &str| {
        let mut times: Vec<_> = ran.iter().filter(|ran| ran.key == key).map(|ran| ran.at).collect();
        // A job that a stop interrupted runs again: it is the same job.
        times.dedup();
        times
    };
    assert_eq!(times("p:b:once").len(), 1);
    for gap in times("p:poll:often").windows(2).map(|pair| pair[1] - pair[0]) {
        assert!(gap >= TimeDelta::minutes(5), "{gap}");
    }
    // Every slot that came while there was a gateway has its job, and each time without one has at most one more.
    let minutes = times("p:a:minutes");
    // What begins with a start may still run when the next slot comes, which is then passed over.
    let was_down = |slot: DateTime<Utc>| down.iter().any(|(from, to)| *from < slot && slot <= *to + WORK);
    let on_time: Vec<_> = minutes.iter().filter(|at| at.timestamp() % 60 == 0).copied().collect();
    let slots = (0..).map(|n| at("2026-05-01T00:00:00Z") + TimeDelta::minutes(n));
    for slot in slots.take_while(|slot| *slot <= world.now()).filter(|slot| slot.minute() % 7 == 0) {
        if slot > at("2026-05-01T00:00:30Z") && !was_down(slot) {
            assert_eq!(on_time.iter().filter(|at| **at == slot).count(), 1, "{slot}");
        }
    }
    let late = minutes.len() - on_time.len();
    assert!(late <= down.len(), "{late}");
}
