//! One plugin process from its start to its end.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ductile_model::JobId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};
use zeroize::Zeroizing;

use crate::capture::{Captured, Input, Output};
use crate::control::{Control, signal_group};
use crate::procs::{self, ExitWatch};

/// Bytes of stdout that are kept; more is a failure.
pub(crate) const STDOUT_CAP: usize = 10_485_760;
/// Bytes of stderr that are kept.
pub(crate) const STDERR_CAP: usize = 65_536;
/// Time between SIGTERM and SIGKILL.
pub(crate) const TERM_GRACE: Duration = Duration::from_secs(5);
/// Time a pipe may stay open after the plugin itself has exited.
const PIPE_GRACE: Duration = Duration::from_secs(2);
/// Time a process gets to disappear after SIGKILL before it is left behind with an error.
const KILL_LIMIT: Duration = Duration::from_secs(10);

const BUSY_RETRIES: u32 = 10;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// What to start.
pub(crate) struct Launch {
    pub(crate) job: JobId,
    /// Absolute.
    pub(crate) program: PathBuf,
    /// The whole environment.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// Written to stdin after the program is known to run.
    pub(crate) request: Zeroizing<Vec<u8>>,
    pub(crate) deadline: Instant,
    pub(crate) stderr_cap: usize,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
    /// It did not go away after SIGKILL.
    Unknown,
}

/// Who ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The plugin itself, as far as the gateway is concerned.
    Itself,
    /// The gateway, at the deadline.
    Deadline,
    /// The gateway, because it stops.
    Order,
}

/// What was seen of a process.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) exit: Exit,
    pub(crate) cause: Cause,
    pub(crate) stdout: Captured,
    pub(crate) stderr: Captured,
    pub(crate) began: Instant,
    /// When its exit was seen.
    pub(crate) exited: Instant,
}

/// What became of a launch.
#[derive(Debug)]
pub(crate) enum Ran {
    /// The system refused; the text is for `last_error`.
    NotStarted(String),
    /// The gateway stops: nothing was started.
    Withheld,
    /// It ran.
    Ended(Seen),
}

/// Starts a plugin, serves its pipes, enforces its deadline, reaps it and ends what it left behind. Blocking; bounded
/// by the deadline and the grace periods, whatever the plugin does. `started` is called with the process id.
pub(crate) fn run(launch: Launch, control: &Control, started: &mut dyn FnMut(u32)) -> Ran {
    procs::become_subreaper();
    if control.is_ordered() {
        return Ran::Withheld;
    }
    let began = Instant::now();
    let mut child = match spawn(&launch.program, &launch.environment) {
        Ok(child) => child,
        Err(error) => return Ran::NotStarted(start_error(&launch.program, &error)),
    };
    let stdin = child.stdin.take().map(OwnedFd::from);
    let stdout = child.stdout.take().map(OwnedFd::from);
    let stderr = child.stderr.take().map(OwnedFd::from);
    let mut leader = match Leader::new(child, &launch.job, control) {
        Ok(leader) => leader,
        Err(error) => return Ran::NotStarted(format!("start process: {error}")),
    };
    control.began(leader.group);
    started(leader.group.as_raw_nonzero().get().unsigned_abs());
    let mut pipes = Pipes {
        stdin: Input::new(stdin, launch.request),
        stdout: Output::new(stdout, STDOUT_CAP),
        stderr: Output::new(stderr, launch.stderr_cap),
    };
    let (cause, exited) = attend(&leader, &mut pipes, launch.deadline, control);
    let complete = pipes.stdout.is_closed() && pipes.stderr.is_closed();
    let exit = leader.end(complete);
    Ran::Ended(Seen { exit, cause, stdout: pipes.stdout.finish(), stderr: pipes.stderr.finish(), began, exited })
}

/// Starts the program by its absolute path with nothing that would keep the standard library from the fast way of
/// the system (no code between fork and exec, no change of user).
fn spawn(program: &Path, environment: &[(OsString, OsString)]) -> io::Result<Child> {
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut retries = 0;
    loop {
        match command.spawn() {
            // Somebody has the file open for writing: an editor or an update that is about to be done.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && retries < BUSY_RETRIES => {
                retries += 1;
                thread::sleep(BUSY_PAUSE);
            }
            outcome => return outcome,
        }
    }
}

fn start_error(program: &Path, error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let hint = match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::NOEXEC) => {
            ": an interpreter line (#!) is missing, or the file is built for another machine"
        }
        Some(rustix::io::Errno::NOENT) if program.exists() => ": the interpreter named in its first line is missing",
        _ => "",
    };
    format!("start process: {text}{hint}")
}

struct Pipes {
    stdin: Input,
    stdout: Output,
    stderr: Output,
}

/// Where the wait for the end is.
#[derive(Debug, Clone, Copy)]
enum Wait {
    /// It may run until then.
    Deadline(Instant),
    /// SIGTERM was sent; SIGKILL then.
    Term(Instant),
    /// SIGKILL was sent; given up then.
    Kill(Instant),
    /// The leader has exited; the pipes may stay open until then.
    Pipes(Instant),
}

impl Wait {
    fn until(self) -> Instant {
        match self {
            Self::Deadline(at) | Self::Term(at) | Self::Kill(at) | Self::Pipes(at) => at,
        }
    }
}

/// Serves the pipes until the leader has exited and they are closed, or the time for that is over. Says who ended it
/// and when its exit was seen.
fn attend(leader: &Leader<'_>, pipes: &mut Pipes, deadline: Instant, control: &Control) -> (Cause, Instant) {
    let mut wait = Wait::Deadline(deadline);
    let mut cause = Cause::Itself;
    let mut exited = None;
    pipes.stdin.pump();
    loop {
        let ready = ready(leader, exited.is_some(), pipes, wait.until());
        if ready.stdin {
            pipes.stdin.pump();
        }
        if ready.stdout {
            pipes.stdout.pump();
        }
        if ready.stderr {
            pipes.stderr.pump();
        }
        if ready.exit && exited.is_none() {
            exited = Some(Instant::now());
            pipes.stdin.close();
            if control.exited() && cause == Cause::Itself {
                cause = Cause::Order;
            }
            // After a deadline its children keep the rest of the grace that the signal announced.
            if !matches!(wait, Wait::Term(_)) {
                wait = Wait::Pipes(Instant::now() + PIPE_GRACE);
            }
        }
        if let Some(exited) = exited
            && pipes.stdout.is_closed()
            && pipes.stderr.is_closed()
        {
            return (cause, exited);
        }
        let now = Instant::now();
        if now < wait.until() {
            continue;
        }
        wait = match (wait, exited) {
            (Wait::Deadline(_), _) => {
                cause = Cause::Deadline;
                signal_group(leader.group, Signal::TERM);
                Wait::Term(now + TERM_GRACE)
            }
            (Wait::Term(_), exited) => {
                signal_group(leader.group, Signal::KILL);
                if exited.is_some() { Wait::Pipes(now + PIPE_GRACE) } else { Wait::Kill(now + KILL_LIMIT) }
            }
            (Wait::Kill(_), _) => {
                control.exited();
                return (cause, now);
            }
            (Wait::Pipes(_), exited) => return (cause, exited.unwrap_or(now)),
        };
    }
}

#[derive(Default)]
struct Ready {
    exit: bool,
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

/// Sleeps until something can be done or `until`.
fn ready(leader: &Leader<'_>, exited: bool, pipes: &Pipes, until: Instant) -> Ready {
    let stdin = pipes.stdin.fd();
    let mut fds = Vec::with_capacity(4);
    // In the order of the fields of `Ready`; a place that has no descriptor is skipped below in the same order.
    let mut places = Vec::with_capacity(4);
    if !exited {
        fds.push(PollFd::new(&leader.exit, PollFlags::IN));
        places.push(0);
    }
    if let Some(fd) = &stdin {
        fds.push(PollFd::new(fd, PollFlags::OUT));
        places.push(1);
    }
    if let Some(fd) = pipes.stdout.fd() {
        fds.push(PollFd::new(fd, PollFlags::IN));
        places.push(2);
    }
    if let Some(fd) = pipes.stderr.fd() {
        fds.push(PollFd::new(fd, PollFlags::IN));
        places.push(3);
    }
    let timeout = timespec(until.saturating_duration_since(Instant::now()));
    let mut ready = Ready::default();
    // An interrupted wait is one in which nothing is ready: the caller comes back.
    if poll(&mut fds, Some(&timeout)).is_ok() {
        for (fd, place) in fds.iter().zip(places) {
            let is = !fd.revents().is_empty();
            match place {
                0 => ready.exit = is,
                1 => ready.stdin = is,
                2 => ready.stdout = is,
                _ => ready.stderr = is,
            }
        }
    }
    ready
}

pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), tv_nsec: duration.subsec_nanos().into() }
}

/// The leading process of an attempt. Dropped without [`Leader::end`], that is in a panic, it takes its group along.
struct Leader<'a> {
    child: Option<Child>,
    group: Pid,
    exit: ExitWatch,
    job: &'a JobId,
    control: &'a Control,
}

impl<'a> Leader<'a> {
    /// A process that can not be watched is ended at once.
    fn new(mut child: Child, job: &'a JobId, control: &'a Control) -> io::Result<Self> {
        let group = Pid::from_child(&child);
        match ExitWatch::new(group) {
            Ok(exit) => Ok(Self { child: Some(child), group, exit, job, control }),
            Err(error) => {
                signal_group(group, Signal::KILL);
                drop(child.wait());
                Err(error)
            }
        }
    }

    /// Ends the group, reaps the leader, and ends what has left the group.
    fn end(&mut self, pipes_complete: bool) -> Exit {
        let Some(mut child) = self.child.take() else { return Exit::Unknown };
        let job = self.job;
        // Nobody else signals from here on, and this comes before the leader is reaped: after that its number may
        // belong to somebody else.
        self.control.exited();
        signal_group(self.group, Signal::KILL);
        if !self.exit.wait(KILL_LIMIT) {
            tracing::error!(job_id = %job, pid = child.id(), "process did not end after SIGKILL; it is left behind");
            // Reaped whenever it goes.
            drop(thread::Builder::new().name("reaper".to_owned()).spawn(move || drop(child.wait())));
            return Exit::Unknown;
        }
        let exit = child.wait().map_or(Exit::Unknown, Exit::from);
        if let Err(still) = procs::end_remains(self.group, job, pipes_complete, KILL_LIMIT) {
            tracing::error!(job_id = %job, pids = ?still.pids, "processes of the attempt could not be ended");
        }
        exit
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        self.end(false);
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}

/// Whether a descriptor becomes readable (or closed) in time.
pub(crate) fn readable_within(fd: impl AsFd, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    loop {
        let timeout = timespec(until.saturating_duration_since(Instant::now()));
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(_) if Instant::now() >= until => return false,
            Err(_) => {}
        }
    }
}
