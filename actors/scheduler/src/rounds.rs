//! The loop: it sleeps until something is due, looks at that, and at everything once per tick.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ductile_queue::{
    CatchUpLook, Due, Evaluated, QueueError, ScheduleNews, ScheduleRow, ScheduleStatus, SkipReason, glance,
};
use ductile_timetable::{CatchUp, Entry};
use futures_util::future::join_all;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{error, warn};

use crate::SchedulerArgs;
use crate::agenda::Agenda;
use crate::housekeeping::keep_house;
use crate::life::Tick;
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
    /// Set when the loop is to end.
    stop: watch::Receiver<bool>,
    /// Another generation has taken over; what is left is to end.
    superseded: bool,
}

/// How a round went on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    On,
    /// Told to stop, superseded, or the database is busy: the rest is for the next tick.
    Enough,
}

impl Rounds {
    pub(crate) fn new(args: SchedulerArgs, stop: watch::Receiver<bool>) -> Self {
        let tick = args.plan.config.service.tick_interval;
        let agenda = Agenda::new(args.plan.schedules.clone());
        let teller = Teller::new(args.hub.clone(), args.life.clone(), tick, args.clock.now());
        args.life.beat(tick);
        Self { args, agenda, teller, stop, superseded: false }
    }

    /// Goes round until it is told to stop; never stops within a look.
    pub(crate) async fn run(mut self) {
        let mut news = self.args.store.schedule_news();
        let mut ticks = tokio::time::interval(self.tick_interval());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = self.stop.clone();
        while !self.superseded {
            let wake = self.sleep();
            tokio::select! {
                biased;
                () = told(&mut stop) => return,
                _ = ticks.tick() => self.tick().await,
                () = wake => self.wake().await,
                heard = news.recv() => match heard {
                    Ok(first) => self.hear_all(first, &mut news).await,
                    Err(RecvError::Lagged(_)) => self.read_again().await,
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    /// Everything that is to be heard by now; rows are read once for all of it.
    async fn hear_all(&mut self, first: ScheduleNews, news: &mut broadcast::Receiver<ScheduleNews>) {
        let mut next = Some(first);
        let mut read_again = false;
        while let Some(told) = next {
            read_again |= self.hear(told);
            next = news.try_recv().ok();
        }
        if read_again {
            self.read_again().await;
        }
    }

    fn tick_interval(&self) -> Duration {
        self.args.plan.config.service.tick_interval
    }

    /// Until the earliest schedule is due; for ever when there is none.
    fn sleep(&self) -> impl Future<Output = ()> + use<> {
        let wait = self.agenda.earliest().map(|at| (at - self.args.clock.now()).to_std().unwrap_or(Duration::ZERO));
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

    /// What the writer tells after its commits; whether the rows have to be read again for it.
    pub(crate) fn hear(&mut self, news: ScheduleNews) -> bool {
        match news {
            ScheduleNews::Moved { plugin, schedule_id, next } => {
                if let Some(place) = self.agenda.place(&plugin, &schedule_id) {
                    self.agenda.set(place, next);
                }
                false
            }
            ScheduleNews::Ended { plugin, command } => {
                let now = self.args.clock.now();
                for place in self.teller.held_by_jobs(self.agenda.entries(), &plugin, &command) {
                    self.agenda.set(place, Some(now));
                }
                false
            }
            ScheduleNews::Outside => true,
        }
    }

    /// Somebody else may have written any row.
    pub(crate) async fn read_again(&mut self) {
        let Some(rows) = self.rows().await else { return };
        for place in 0..self.agenda.len() {
            let entry = self.agenda.entry(place);
            // What is held back by its state is told at the next tick.
            if let Some(row) = rows.get(&key(entry)) {
                let next = row.next_run_at.filter(|_| row.status == ScheduleStatus::Active);
                self.agenda.set(place, next);
            }
        }
    }

    /// What is due is looked at; nothing else.
    pub(crate) async fn wake(&mut self) {
        let now = self.args.clock.now();
        if self.has_jumped(now) {
            // A sleep of the machine ends with whatever timer is first: what was missed comes before what is due.
            return self.tick().await;
        }
        let due = self.agenda.due(now);
        if is_sane(now) {
            self.evaluate(&due).await;
        } else {
            // Until the clock is set there is nothing to wake for.
            due.into_iter().for_each(|place| self.agenda.set(place, None));
        }
    }

    /// Whether the wall clock advanced by more than can have passed since the last tick.
    fn has_jumped(&self, now: DateTime<Utc>) -> bool {
        let Some(last) = self.args.life.last_tick() else { return false };
        let interval = last.interval.max(self.tick_interval());
        let most = TimeDelta::from_std(interval * 3).map_or(JUMP, |ticks| ticks.max(JUMP));
        now - last.at > most
    }

    /// Everything is looked at.
    pub(crate) async fn tick(&mut self) {
        let now = self.args.clock.now();
        if !is_sane(now) {
            error!(clock = %now, "the clock was never set: no schedule is looked at");
            self.args.life.beat(self.tick_interval());
            return;
        }
        let jumped = self.has_jumped(now);
        self.teller.tick(jumped);
        if jumped {
            self.args.life.set_owes_catch_up(true);
        }
        self.args.life.ticked(Tick { at: now, interval: self.tick_interval() });
        let caught_up = !self.args.life.owes_catch_up() || self.catch_up().await;
        self.args.life.set_owes_catch_up(!caught_up);
        self.look_at_all(now, caught_up).await;
        let SchedulerArgs { plan, store, clock, life, .. } = &self.args;
        if let Some(round) = life.begin_housekeeping() {
            keep_house(plan.clone(), store.clone(), clock.clone(), round);
        }
        life.beat(plan.config.service.tick_interval);
    }

    fn due(&self, place: usize) -> Due {
        Due { entry: self.agenda.entry(place).clone(), generation: self.args.plan.snapshot.id.clone() }
    }

    /// Makes up for what was missed while there was no gateway, or no time. Whether every schedule could be asked: one that
    /// could not must not fire before it is, which would look as if nothing had been missed.
    async fn catch_up(&mut self) -> bool {
        let all = 0..self.agenda.len();
        let places: Vec<_> = all.filter(|place| self.agenda.entry(*place).catch_up != CatchUp::Skip).collect();
        for places in places.chunks(AT_ONCE) {
            let store = &self.args.store;
            let looks = join_all(places.iter().map(|place| store.catch_up_schedule(self.due(*place)))).await;
            let mut is_whole = true;
            for (place, caught) in places.iter().zip(looks) {
                let entry = self.agenda.entry(*place);
                match caught {
                    Ok(CatchUpLook::Done(caught)) if caught.dropped > 0 => {
                        let (first, count) = (caught.first, caught.dropped);
                        let reason = self.teller.absence(first);
                        self.teller.lost(entry, &Lost { first, count, reason, is_wanted: false });
                    }
                    Ok(CatchUpLook::Done(_) | CatchUpLook::Nothing) => {}
                    Ok(CatchUpLook::Stale) => {
                        self.superseded = true;
                        is_whole = false;
                    }
                    Err(error) => {
                        complain(entry, &error);
                        is_whole = false;
                    }
                }
            }
            if !is_whole || *self.stop.borrow() {
                return false;
            }
        }
        true
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

    async fn look_at_all(&mut self, now: DateTime<Utc>, caught_up: bool) {
        if self.agenda.len() == 0 || self.superseded {
            return;
        }
        let Some(rows) = self.rows().await else { return };
        let mut worth_telling = self.teller.listeners_for_not_due();
        let mut due = Vec::new();
        for place in 0..self.agenda.len() {
            let entry = self.agenda.entry(place);
            match glance(entry, rows.get(&key(entry)), now) {
                None if !caught_up && entry.catch_up != CatchUp::Skip => self.agenda.set(place, None),
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
            let mut pace = Pace::On;
            for (place, evaluated) in places.iter().zip(join_all(looks).await) {
                if matches!(evaluated, Err(QueueError::Busy | QueueError::Unavailable)) {
                    pace = Pace::Enough;
                }
                self.note(*place, evaluated);
            }
            if pace == Pace::Enough || self.superseded || *self.stop.borrow() {
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
                self.teller.waits(&entry);
            }
            Ok(Evaluated::Waits { reason, over, .. }) => {
                let opens = matches!(reason, SkipReason::Day | SkipReason::Window);
                let over = if opens { entry.allowed_from(self.args.clock.now()) } else { over };
                self.hold(place, reason, over);
            }
            Ok(Evaluated::Dropped { reason, slot, at, next }) => {
                self.hold(place, reason, next);
                let count = 1 + entry.slots_between(slot, at, crate::telling::COUNTED);
                let is_wanted = matches!(reason, SkipReason::Day | SkipReason::Window);
                self.teller.lost(&entry, &Lost { first: slot, count, reason: reason.as_str(), is_wanted });
            }
            Ok(Evaluated::Fired { job, slot, at, next }) => {
                self.agenda.set(place, next);
                self.teller.ran(&entry, &Ran { job: &job, slot, at });
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
        self.teller.held(&entry, reason);
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
