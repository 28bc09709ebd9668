//! The process table of other systems, by way of `ps`, which shows the environment of the user's own processes.
//!
//! A value with spaces can not be told from the next word, but a job id has none. Processes of other users do not
//! show their environment and are not found.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use rustix::process::{getpgrp, getpid};

use super::{Found, JOB_VARIABLE, Orphans, Protected};

struct Row {
    pid: i32,
    parent: i32,
    group: i32,
    is_dead: bool,
    rest: String,
}

fn rows() -> Vec<Row> {
    let output = Command::new("/bin/ps")
        .args(["-axEww", "-o", "pid=,ppid=,pgid=,stat=,command="])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let Ok(output) = output else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout).lines().filter_map(parse).collect()
}

fn parse(line: &str) -> Option<Row> {
    let mut fields = line.split_ascii_whitespace();
    let pid = fields.next()?.parse().ok()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let is_dead = fields.next()?.starts_with('Z');
    Some(Row { pid, parent, group, is_dead, rest: fields.collect::<Vec<_>>().join(" ") })
}

fn job_of(rest: &str) -> Option<&str> {
    rest.split(' ').find_map(|word| word.strip_prefix(JOB_VARIABLE)?.strip_prefix('='))
}

/// All live processes that carry one of these job ids.
pub(super) fn carrying(jobs: &BTreeSet<&str>) -> Vec<Found> {
    rows()
        .iter()
        .filter(|row| !row.is_dead && job_of(&row.rest).is_some_and(|job| jobs.contains(job)))
        .map(|row| Found { pid: row.pid, group: row.group })
        .collect()
}

/// Those of the given processes that carry one of these job ids.
pub(super) fn carrying_among(jobs: &BTreeSet<&str>, pids: impl Iterator<Item = i32>) -> Vec<Found> {
    let pids: BTreeSet<i32> = pids.collect();
    carrying(jobs).into_iter().filter(|found| pids.contains(&found.pid)).collect()
}

/// Orphans go to the first process of the system here, so none is ever handed to the gateway.
pub(super) fn orphans() -> Orphans {
    Orphans::None
}

/// There is nothing to reap: see [`orphans`].
pub(super) fn reap(_: &[i32]) {}

/// The gateway and its ancestors.
pub(super) fn protected() -> Protected {
    let rows = rows();
    let mut protected = Protected::default();
    protected.groups.insert(getpgrp().as_raw_nonzero().get());
    let mut pid = getpid().as_raw_nonzero().get();
    while pid > 0 && protected.pids.insert(pid) {
        let Some(row) = rows.iter().find(|row| row.pid == pid) else { break };
        protected.groups.insert(row.group);
        pid = row.parent;
    }
    protected
}
