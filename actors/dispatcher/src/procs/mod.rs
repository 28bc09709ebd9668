//! The process table: who has exited, who is left.
//!
//! A plugin is the leader of its own process group, so what it starts is normally ended with the group. What left
//! the group is found in two ways. The gateway makes itself the one that orphans are handed to (Linux), so after
//! each attempt it sees at the price of one small read whether any orphan exists at all; only then are processes
//! looked at one by one, by the job id in their environment. Where orphans can not be seen (macOS, or a kernel
//! without the list of children) the whole table is read, but there only when a pipe stayed open, the group is not
//! empty, or the list is missing on Linux.
//!
//! What neither way finds: a process that left the group *and* replaced its environment. Such a one survives.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod ps;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use ductile_model::JobId;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, test_kill_process_group, waitid};

#[cfg(target_os = "linux")]
use linux as table;
#[cfg(not(target_os = "linux"))]
use ps as table;

use crate::control::signal_group;
use crate::leftovers::StillRunning;
use crate::process::readable_within;

/// Variable that names the job in the environment of every plugin process.
pub(crate) const JOB_VARIABLE: &str = "DUCTILE_JOB_ID";

/// A live process that belongs to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    pid: i32,
    group: i32,
}

/// Tells that a process has exited, without reaping it.
pub(crate) struct ExitWatch(OwnedFd);

impl ExitWatch {
    /// Watches a child that has not been reaped. The descriptor becomes readable at its exit.
    pub(crate) fn new(child: Pid) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if let Ok(fd) = rustix::process::pidfd_open(child, rustix::process::PidfdFlags::empty()) {
            return Ok(Self(fd));
        }
        Self::by_thread(child)
    }

    /// For systems without process descriptors: a thread waits and closes its end of a pipe.
    fn by_thread(child: Pid) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        thread::Builder::new().name("exit-watch".to_owned()).spawn(move || {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while let Err(Errno::INTR) = waitid(WaitId::Pid(child), options) {}
            drop(writer);
        })?;
        Ok(Self(reader.into()))
    }

    /// Whether the process has exited, after at most `limit`.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        readable_within(&self.0, limit)
    }
}

impl AsFd for ExitWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes the gateway the process that orphans of its plugins are handed to, where the system knows such a thing.
pub(crate) fn become_subreaper() {
    #[cfg(target_os = "linux")]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
                tracing::warn!(%error, "orphans of plugins will not be handed to the gateway");
            }
        });
    }
}

/// Ends what is left of an attempt whose leader has been reaped and whose group has been sent SIGKILL. Blocking.
///
/// # Errors
/// Some processes are still there after `limit`.
pub(crate) fn end_remains(group: Pid, job: &JobId, pipes_complete: bool, limit: Duration) -> Result<(), StillRunning> {
    // A number that was given away meanwhile only costs a look at the table: nothing is signalled by it.
    let in_doubt = !pipes_complete || test_kill_process_group(group).is_ok();
    if !in_doubt && table::orphans() == Orphans::None {
        return Ok(());
    }
    let jobs = BTreeSet::from([job.as_str()]);
    let look = || {
        let orphans = table::orphans();
        if let Orphans::These(pids) = &orphans {
            table::reap(pids);
        }
        match orphans {
            Orphans::These(pids) if !in_doubt => table::carrying_among(&jobs, pids.into_iter()),
            Orphans::None if !in_doubt => Vec::new(),
            _ => table::carrying(&jobs),
        }
    };
    end_until_gone(limit, look).map(drop)
}

/// Ends every process that carries one of these job ids. Returns how many groups were signalled. Blocking.
///
/// # Errors
/// Some are still there after `limit`.
pub(crate) fn end_jobs(jobs: &BTreeSet<&str>, limit: Duration) -> Result<usize, StillRunning> {
    end_until_gone(limit, || table::carrying(jobs))
}

/// What the kernel says about orphans that were handed to the gateway.
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only Linux hands orphans to anybody but init"))]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Orphans {
    /// There is none.
    None,
    /// These, some of which may be other children of the gateway.
    These(Vec<i32>),
    /// It does not say.
    Unknown,
}

/// Kills what `find` finds, waits for it, and looks again, until it finds nothing.
fn end_until_gone(limit: Duration, mut find: impl FnMut() -> Vec<Found>) -> Result<usize, StillRunning> {
    let until = Instant::now() + limit;
    let protected = table::protected();
    let mut signalled = BTreeSet::new();
    loop {
        let found: Vec<_> = find().into_iter().filter(|found| !protected.pids.contains(&found.pid)).collect();
        if found.is_empty() {
            return Ok(signalled.len());
        }
        if Instant::now() >= until {
            return Err(StillRunning { pids: found.iter().map(|found| found.pid.unsigned_abs()).collect() });
        }
        // Opened before the signal, so that the wait is for the process that was found, whatever becomes of its
        // number.
        let watches: Vec<_> = found.iter().filter_map(|found| Pid::from_raw(found.pid)).map(watch).collect();
        for found in &found {
            signalled.insert(found.group);
            kill(*found, &protected);
        }
        for watch in watches {
            wait_gone(watch, until);
        }
    }
}

/// The gateway, its ancestors, and their groups: never signalled.
#[derive(Debug, Default)]
pub(crate) struct Protected {
    pids: BTreeSet<i32>,
    groups: BTreeSet<i32>,
}

fn kill(found: Found, protected: &Protected) {
    match (Pid::from_raw(found.group), Pid::from_raw(found.pid)) {
        (Some(group), _) if !protected.groups.contains(&found.group) => signal_group(group, Signal::KILL),
        (_, Some(pid)) => match kill_process(pid, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => tracing::error!(pid = found.pid, %error, "process could not be signalled"),
        },
        _ => {}
    }
}

#[cfg(target_os = "linux")]
fn watch(pid: Pid) -> Option<OwnedFd> {
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
fn watch(_: Pid) -> Option<OwnedFd> {
    None
}

/// Waits for the exit of a process, at most to the instant and a second.
fn wait_gone(watch: Option<OwnedFd>, until: Instant) {
    const SECOND: Duration = Duration::from_secs(1);
    const PAUSE: Duration = Duration::from_millis(10);
    match watch {
        Some(fd) => {
            readable_within(fd, until.saturating_duration_since(Instant::now()).min(SECOND));
        }
        // Without a descriptor there is nothing to wait on; the caller looks again.
        None => thread::sleep(PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn an_exit_is_seen_with_and_without_process_descriptors() {
        for make in [ExitWatch::new, ExitWatch::by_thread] {
            let mut child = Command::new("sleep").arg("600").spawn().unwrap();
            let watch = make(Pid::from_child(&child)).unwrap();
            assert!(!watch.wait(Duration::ZERO));
            child.kill().unwrap();
            assert!(watch.wait(Duration::from_secs(60)));
            // Seen, not reaped.
            assert!(!child.wait().unwrap().success());
        }
    }
}
