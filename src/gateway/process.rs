//! What the process knows about itself, shared by all generations.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use chrono::{DateTime, Utc};
use ductile_model::Component;
use ductile_scheduler::SchedulerLife;
use tokio::sync::watch;

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Not yet ready.
    Booting = 0,
    /// At work.
    Ready = 1,
    /// On its way out.
    Draining = 2,
}

/// Facts that outlive every generation.
#[derive(Debug)]
pub(crate) struct ProcessState {
    /// Start of the process.
    pub(crate) started_at: DateTime<Utc>,
    /// The same on the clock that never jumps.
    pub(crate) started: Instant,
    /// Path of the binary; empty when unknown.
    pub(crate) binary_path: String,
    generation: AtomicU64,
    phase: AtomicU8,
    /// Components that are down, of the generation with this number.
    down: Mutex<(u64, BTreeSet<Component>)>,
    stopping: watch::Sender<bool>,
    /// Signs of life and counts of the scheduler.
    pub(crate) scheduler: SchedulerLife,
}

impl ProcessState {
    /// The state of a process that starts now.
    pub(crate) fn new(started_at: DateTime<Utc>, started: Instant, scheduler: SchedulerLife) -> Self {
        let binary_path = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
        Self {
            started_at,
            started,
            binary_path,
            generation: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Booting as u8),
            down: Mutex::new((0, BTreeSet::new())),
            stopping: watch::Sender::new(false),
            scheduler,
        }
    }

    /// Number of the generation in force, from 1; 0 before the first.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// A generation took over.
    pub(crate) fn set_generation(&self, number: u64) {
        self.generation.store(number, Ordering::Relaxed);
        *self.lock_down() = (number, BTreeSet::new());
    }

    /// Moves on.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        if phase == Phase::Draining {
            self.stopping.send_replace(true);
        }
    }

    /// A component of a generation went down or came back. Only those of the generation in force count.
    pub(crate) fn set_down(&self, component: Component, generation: u64, down: bool) {
        let (current, set) = &mut *self.lock_down();
        if *current == generation {
            if down {
                set.insert(component)
            } else {
                set.remove(&component)
            };
        }
    }

    /// Why the process is not ready; empty = ready.
    pub(crate) fn not_ready(&self) -> Vec<&'static str> {
        let mut reasons = Vec::new();
        match self.phase.load(Ordering::Relaxed) {
            phase if phase == Phase::Booting as u8 => reasons.push("booting"),
            phase if phase == Phase::Draining as u8 => reasons.push("draining"),
            _ => {}
        }
        let down = &self.lock_down().1;
        if down.contains(&Component::Dispatcher) {
            reasons.push("dispatcher-down");
        }
        // One that runs but does not get on is no better than one that is gone.
        if down.contains(&Component::Scheduler) || !self.scheduler.is_alive(Instant::now()) {
            reasons.push("scheduler-down");
        }
        reasons
    }

    /// Resolves when the process begins to stop.
    pub(crate) async fn stopping(&self) {
        let mut stopping = self.stopping.subscribe();
        // The sender lives as long as `self`; an error can only mean that all is over.
        drop(stopping.wait_for(|stopping| *stopping).await);
    }

    fn lock_down(&self) -> std::sync::MutexGuard<'_, (u64, BTreeSet<Component>)> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
