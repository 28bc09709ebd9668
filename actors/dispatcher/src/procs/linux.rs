//! The process table of Linux: `/proc`.

use std::collections::BTreeSet;
use std::fs;

use rustix::process::{Pid, WaitOptions, getpgrp, getpid, waitpid};

use super::{Found, JOB_VARIABLE, Orphans, Protected};

/// All live processes that carry one of these job ids.
pub(super) fn carrying(jobs: &BTreeSet<&str>) -> Vec<Found> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    carrying_among(jobs, pids)
}

/// Those of the given processes that carry one of these job ids.
pub(super) fn carrying_among(jobs: &BTreeSet<&str>, pids: impl Iterator<Item = i32>) -> Vec<Found> {
    pids.filter_map(|pid| {
        // A zombie has no environment any more, and that of another user can not be read.
        let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let carries = job_of(&environ).is_some_and(|job| jobs.contains(job));
        let stat = if carries { Stat::of(pid)? } else { return None };
        (!stat.is_dead()).then_some(Found { pid, group: stat.group })
    })
    .collect()
}

fn job_of(environ: &[u8]) -> Option<&str> {
    environ.split(|byte| *byte == 0).find_map(|entry| {
        let value = entry.strip_prefix(JOB_VARIABLE.as_bytes())?.strip_prefix(b"=")?;
        std::str::from_utf8(value).ok()
    })
}

/// The children of the main thread. Plugins are started by other threads, so these are orphans that the kernel
/// handed to the gateway, or children that another part of the program started on its main thread.
pub(super) fn orphans() -> Orphans {
    let me = getpid().as_raw_nonzero();
    let Ok(list) = fs::read_to_string(format!("/proc/{me}/task/{me}/children")) else { return Orphans::Unknown };
    let pids: Vec<i32> = list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    if pids.is_empty() { Orphans::None } else { Orphans::These(pids) }
}

/// Reaps the zombies among orphans. An orphan of a plugin is never in the gateway's own group; a child that another
/// part of the program started is, and is left to that part.
pub(super) fn reap(pids: &[i32]) {
    let own = getpgrp().as_raw_nonzero().get();
    for pid in pids {
        let is_ours = Stat::of(*pid).is_some_and(|stat| stat.is_dead() && stat.group != own);
        if let (true, Some(pid)) = (is_ours, Pid::from_raw(*pid)) {
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

/// The gateway and its ancestors.
pub(super) fn protected() -> Protected {
    let mut protected = Protected::default();
    let mut pid = getpid().as_raw_nonzero().get();
    while pid > 0 && protected.pids.insert(pid) {
        let Some(stat) = Stat::of(pid) else { break };
        protected.groups.insert(stat.group);
        pid = stat.parent;
    }
    protected
}

struct Stat {
    state: u8,
    parent: i32,
    group: i32,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(line: &[u8]) -> Option<Self> {
        // The name in parentheses may itself hold any character, also `)`.
        let end = line.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(line.get(end + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        Some(Self { state, parent, group })
    }

    fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let stat = Stat::parse(b"12 (a) b (c)) S 3 4 5 6\n").unwrap();
        assert_eq!((stat.state, stat.parent, stat.group), (b'S', 3, 4));
        assert!(Stat::parse(b"12 (a").is_none());
    }

    #[test]
    fn only_the_exact_variable_names_a_job() {
        assert_eq!(job_of(b"A=1\0DUCTILE_JOB_ID=j1\0DUCTILE_JOB_ID=j2\0"), Some("j1"));
        assert_eq!(job_of(b"XDUCTILE_JOB_ID=j1\0DUCTILE_JOB_IDS=j2"), None);
    }

    #[test]
    fn the_gateway_and_its_parent_are_protected() {
        let protected = protected();
        assert!(protected.pids.contains(&getpid().as_raw_nonzero().get()));
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
        assert!(protected.pids.contains(&parent));
        assert!(protected.groups.contains(&getpgrp().as_raw_nonzero().get()));
    }
}
