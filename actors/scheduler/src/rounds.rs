//! The loop: it sleeps until something is due, looks at that, and at everything once per tick.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ductile_queue::{Due, Evaluated, QueueError, ScheduleNews, ScheduleRow, SkipReason, glance};
use ductile_timetable::{CatchUp, Entry};
use futures_util::future::join_all;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{error, warn};

use crate::SchedulerArgs;
use crate::agenda::Agenda;
use crate::housekeeping::keep_house;
use crate::telling::{Lost, Ran, Teller};

/// Schedules that are looked at in one go, so that other writes get in between.
const AT_ONCE: usize = 128;
/// A wall clock that advanced by more than this between two ticks has jumped, or the machine slept.
const JUMP: TimeDelta = TimeDelta::minutes(5);
/// Clocks that show less were never set: 2020-01-01.
const LEAST_TIME: i64 = 1_577_836_800;

/// The loop of one generation.
pub(crate) struct Rounds {
    args: SchedulerArgs,
    agenda: Agenda,
    teller: Teller,
    /// Another generation has taken over; what is left is to end.
    superseded: bool,
}

impl Rounds {
    pub(crate) fn new(args: SchedulerArgs) -> Self {
        let tick = args.plan.config.service.tick_interval;
        let agenda = Agenda::new(args.plan.schedules.clone());
        let teller = Teller::new(args.hub.clone(), args.life.clone(), tick, args.clock.now());
        args.life.beat(tick);
        Self { args, agenda, teller, superseded: false }
    }

    /// Goes round until it is told to stop; never stops within a round.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut news = self.args.store.schedule_news();
        let mut ticks = tokio::time::interval(self.tick_interval());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.superseded {
            let wake = self.sleep();
            tokio::select! {
                biased;
                () = told(&mut stop) => return,
                _ = ticks.tick() => self.tick().await,
                heard = news.recv() => match heard {
                    Ok(news) => self.hear(news).await,
                    Err(RecvError::Lagged(_)) => self.read_again().await,
                    Err(RecvError::Closed) => return,
                },
                () = wake => self.wake().await,
            }
        }
    }

    fn tick_interval(&self) -> Duration {
        self.args.plan.config.service.tick_interval
    }

    /// Until the earliest schedule is due; for ever when there is none. The tick is the upper bound, so a clock that jumps
    /// meanwhile is noticed.
    fn sleep(&self) -> impl Future<Output = ()> + use<> {
        let wait = self.agenda.earliest().map(|at| (at - self.args.clock.now()).to_std().unwrap_or(Duration::ZERO));
        // A timer rounds to milliseconds; one that ends a moment early would only be set again.
        let until = wait.map(|wait| Instant::now() + wait.min(Duration::from_secs(24 * 3600)));
        async move {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        }
    }

    /// When there is something to look at.
    #[cfg(test)]
    pub(crate) fn next_wake(&self) -> Option<DateTime<Utc>> {
        self.agenda.earliest()
    }

    /// What the writer tells after its commits.
    pub(crate) async fn hear(&mut self, news: ScheduleNews) {
        match news {
            ScheduleNews::Moved { plugin, schedule_id, next } => {
                if let Some(place) = self.agenda.place(&plugin, &schedule_id) {
                    self.agenda.set(place, next);
                }
            }
            ScheduleNews::Ended { plugin, command } => {
                let now = self.args.clock.now();
                for place in self.teller.held_by_jobs() {
                    let entry = self.agenda.entry(place);
                    if entry.plugin == plugin && entry.command == command {
                        self.agenda.set(place, Some(now));
                    }
                }
            }
            ScheduleNews::Outside => self.read_again().await,
        }
    }

    /// Somebody else may have written any row.
    async fn read_again(&mut self) {
        let Some(rows) = self.rows().await else { return };
        for place in 0..self.agenda.len() {
            let entry = self.agenda.entry(place);
            let next = rows.get(&key(entry)).map(|row| row.next_run_at);
            if let Some(next) = next {
                self.agenda.set(place, next);
            }
        }
    }

    /// What is due is looked at; nothing else.
    pub(crate) async fn wake(&mut self) {
        let now = self.args.clock.now();
        if is_sane(now) {
            let due = self.agenda.due(now);
            self.evaluate(&due).await;
        }
    }

    /// Everything is looked at.
    pub(crate) async fn tick(&mut self) {
        let now = self.args.clock.now();
        if !is_sane(now) {
            error!(clock = %now, "the clock was never set: no schedule is looked at");
            self.args.life.beat(self.tick_interval());
            return;
        }
        let jump = TimeDelta::from_std(self.tick_interval() * 3).map_or(JUMP, |ticks| ticks.max(JUMP));
        let before = self.args.life.ticked(now);
        let jumped = before.is_some_and(|before| now - before > jump);
        self.teller.tick(jumped);
        if jumped || before.is_none() {
            self.catch_up().await;
        }
        self.look_at_all(now).await;
        let SchedulerArgs { plan, store, clock, life, .. } = &self.args;
        if let Some(round) = life.begin_housekeeping() {
            keep_house(plan.clone(), store.clone(), clock.clone(), round);
        }
        life.beat(plan.config.service.tick_interval);
    }

    fn due(&self, place: usize) -> Due {
        Due { entry: self.agenda.entry(place).clone(), generation: self.args.plan.snapshot.id.clone() }
    }

    /// Makes up for what was missed while there was no gateway, or no time.
    async fn catch_up(&mut self) {
        let all = 0..self.agenda.len();
        let places: Vec<_> = all.filter(|place| self.agenda.entry(*place).catch_up != CatchUp::Skip).collect();
        for places in places.chunks(AT_ONCE) {
            let store = &self.args.store;
            let looks = join_all(places.iter().map(|place| store.catch_up_schedule(self.due(*place)))).await;
            for (place, caught) in places.iter().zip(looks) {
                let entry = self.agenda.entry(*place);
                match caught {
                    Ok(Some(caught)) if caught.dropped > 0 => {
                        let (first, count) = (caught.first, caught.dropped);
                        let reason = self.teller.absence(first);
                        self.teller.lost(entry, &Lost { first, count, reason, is_wanted: false });
                    }
                    Ok(_) => {}
                    Err(error) => complain(entry, &error),
                }
            }
        }
    }

    async fn rows(&self) -> Option<HashMap<(String, String), ScheduleRow>> {
        match self.args.store.schedules().await {
            Ok(rows) => {
                let keyed = rows.into_iter().map(|row| ((row.plugin.clone(), row.schedule_id.clone()), row));
                Some(keyed.collect())
            }
            Err(QueueError::Unavailable) => None,
            Err(error) => {
                warn!(%error, "the rows of schedules could not be read; tried again at the next tick");
                None
            }
        }
    }

    async fn look_at_all(&mut self, now: DateTime<Utc>) {
        if self.agenda.len() == 0 {
            return;
        }
        let Some(rows) = self.rows().await else { return };
        let mut worth_telling = self.teller.listeners_for_not_due();
        let mut due = Vec::new();
        for place in 0..self.agenda.len() {
            let entry = self.agenda.entry(place);
            match glance(entry, rows.get(&key(entry)), now) {
                None => due.push(place),
                Some((SkipReason::NotDue, next)) => {
                    if worth_telling > 0 {
                        worth_telling -= 1;
                        self.teller.not_due(entry, next);
                    }
                    self.note(place, Ok(Evaluated::Waits { reason: SkipReason::NotDue, next, over: None }));
                }
                Some((reason, _)) => self.hold(place, reason, None),
            }
        }
        self.evaluate(&due).await;
    }

    async fn evaluate(&mut self, places: &[usize]) {
        for places in places.chunks(AT_ONCE) {
            let store = &self.args.store;
            let looks = places.iter().map(|place| store.evaluate_schedule(self.due(*place)));
            for (place, evaluated) in places.iter().zip(join_all(looks).await) {
                self.note(*place, evaluated);
            }
            if self.superseded {
                return;
            }
        }
    }

    fn note(&mut self, place: usize, evaluated: Result<Evaluated, QueueError>) {
        let entry = self.agenda.entry(place).clone();
        match evaluated {
            Ok(Evaluated::Stale) => self.superseded = true,
            Ok(Evaluated::Waits { reason: SkipReason::NotDue, next, .. }) => {
                self.agenda.set(place, next);
                self.teller.waits(place);
            }
            Ok(Evaluated::Waits { reason, over, .. }) => self.hold(place, reason, over),
            Ok(Evaluated::Dropped { reason, slot, at, next }) => {
                self.hold(place, reason, next);
                let count = 1 + entry.slots_between(slot, at, crate::telling::COUNTED);
                let is_wanted = matches!(reason, SkipReason::Day | SkipReason::Window);
                self.teller.lost(&entry, &Lost { first: slot, count, reason: reason.as_str(), is_wanted });
            }
            Ok(Evaluated::Fired { job, slot, at, next }) => {
                self.agenda.set(place, next);
                self.teller.ran(place, &entry, &Ran { job: &job, slot, at });
            }
            Err(error) => {
                // It stays due, and the next tick looks at it.
                self.agenda.set(place, None);
                complain(&entry, &error);
            }
        }
    }

    fn hold(&mut self, place: usize, reason: SkipReason, look_again: Option<DateTime<Utc>>) {
        self.agenda.set(place, look_again);
        let entry = self.agenda.entry(place).clone();
        self.teller.held(place, &entry, reason);
    }
}

/// Resolves when the flag is set, or nobody can set it any more.
async fn told(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

fn is_sane(now: DateTime<Utc>) -> bool {
    now.timestamp() >= LEAST_TIME
}

fn key(entry: &Arc<Entry>) -> (String, String) {
    (entry.plugin.clone(), entry.id.clone())
}

fn complain(entry: &Entry, error: &QueueError) {
    // The process is about to end.
    if !matches!(error, QueueError::Unavailable) {
        let (plugin, schedule_id) = (entry.plugin.as_str(), entry.id.as_str());
        warn!(plugin, schedule_id, %error, "schedule could not be looked at; tried again at the next tick");
    }
}
