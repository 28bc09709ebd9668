//! What the outside may do to a running attempt.

use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::process::TERM_GRACE;

/// Where an attempt is, as far as its processes are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No thread works for it: not yet, or not any more.
    Idle,
    /// A thread works for it; there is no process that could be signalled.
    Engaged,
    /// Its process group can be signalled: the leader has not been reaped, so the number is still its own.
    Running(Pid),
}

#[derive(Debug)]
struct Life {
    phase: Phase,
    spawned: bool,
    order: Option<Signal>,
}

/// Shared by the thread that runs a plugin and those who may want it ended. A signal is only ever sent under the
/// lock that the thread takes before it reaps the leader; a number that the system gave to somebody else is never
/// signalled.
#[derive(Debug)]
pub(crate) struct Control(watch::Sender<Life>);

/// Marks a thread at work; its drop says that nothing of the attempt is left to be waited for.
pub(crate) struct Engagement<'a>(&'a Control);

impl Default for Control {
    fn default() -> Self {
        Self(watch::Sender::new(Life { phase: Phase::Idle, spawned: false, order: None }))
    }
}

impl Control {
    /// A thread is about to work for the attempt.
    pub(crate) fn engage(&self) {
        self.0.send_modify(|life| life.phase = Phase::Engaged);
    }

    /// The thread's proof that it ends the engagement, whatever happens to it.
    pub(crate) fn engagement(&self) -> Engagement<'_> {
        Engagement(self)
    }

    /// Whether an end was ordered.
    pub(crate) fn is_ordered(&self) -> bool {
        self.0.borrow().order.is_some()
    }

    /// Whether a process was started.
    pub(crate) fn has_spawned(&self) -> bool {
        self.0.borrow().spawned
    }

    /// The process is there. An order that came while it was being started takes effect now.
    pub(crate) fn began(&self, group: Pid) {
        self.0.send_modify(|life| {
            life.phase = Phase::Running(group);
            life.spawned = true;
            if let Some(signal) = life.order {
                signal_group(group, signal);
            }
        });
    }

    /// The leader's exit was seen; from here on nobody else signals the group. Says whether an end had been ordered.
    pub(crate) fn exited(&self) -> bool {
        let mut ordered = false;
        self.0.send_modify(|life| {
            life.phase = Phase::Engaged;
            ordered = life.order.is_some();
        });
        ordered
    }

    /// Signals the group, and keeps the order for a process that is only being started.
    pub(crate) fn order(&self, signal: Signal) {
        self.0.send_modify(|life| {
            life.order = Some(signal);
            if let Phase::Running(group) = life.phase {
                signal_group(group, signal);
            }
        });
    }

    /// Ends the process politely, and after a grace period for good.
    pub(crate) fn end(self: &Arc<Self>, runtime: &Handle) {
        self.order(Signal::TERM);
        let control = self.clone();
        runtime.spawn(async move {
            if tokio::time::timeout(TERM_GRACE, control.idle()).await.is_err() {
                control.order(Signal::KILL);
            }
        });
    }

    /// Waits until no thread works for the attempt.
    pub(crate) async fn idle(&self) {
        // The sender lives in `self`, so the wait can not fail.
        drop(self.0.subscribe().wait_for(|life| life.phase == Phase::Idle).await);
    }
}

impl Drop for Engagement<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|life| life.phase = Phase::Idle);
    }
}

/// Signals a process group whose leader is not reaped. A group without members is no error; one that may not be
/// signalled is said aloud.
pub(crate) fn signal_group(group: Pid, signal: Signal) {
    match kill_process_group(group, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => {
            tracing::error!(group = group.as_raw_nonzero().get(), signal = signal.as_raw(), %error, "process group could not be signalled");
        }
    }
}
