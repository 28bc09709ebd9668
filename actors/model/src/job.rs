use std::fmt;

/// The seven states of a job. The last five are terminal and absorbing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobStatus {
    /// Waits for a worker.
    Queued,
    /// An attempt is under way.
    Running,
    /// The plugin answered ok and the outcome is stored.
    Succeeded,
    /// Its condition was false; nothing was started.
    Skipped,
    /// It failed and is not tried again.
    Failed,
    /// It ran too long and is not tried again.
    TimedOut,
    /// The gateway gave up without a verdict of the plugin.
    Dead,
}

impl JobStatus {
    /// All states.
    pub const ALL: [Self; 7] =
        [Self::Queued, Self::Running, Self::Succeeded, Self::Skipped, Self::Failed, Self::TimedOut, Self::Dead];

    /// The stored word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Dead => "dead",
        }
    }

    /// The state of a stored word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// The state of a word a person gives in a filter: any case, and `pending`, `ok`, `error` as other names of
    /// `queued`, `succeeded`, `failed`.
    #[must_use]
    pub fn parse_filter(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "pending" => Some(Self::Queued),
            "ok" => Some(Self::Succeeded),
            "error" => Some(Self::Failed),
            word => Self::parse(word),
        }
    }

    /// Whether nothing more happens to the job.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }

    /// The whole life of a job: the only function that decides where a job may go.
    ///
    /// # Errors
    /// A move that is not in the table. The store refuses it and leaves the row unchanged.
    pub fn apply(self, event: JobEvent) -> Result<Self, IllegalTransition> {
        use JobEvent as E;
        match (self, event) {
            (Self::Queued, E::Claimed) => Ok(Self::Running),
            (Self::Running, E::Succeeded) => Ok(Self::Succeeded),
            (Self::Running, E::Skipped) => Ok(Self::Skipped),
            (Self::Running, E::Failed) => Ok(Self::Failed),
            (Self::Running, E::TimedOut) => Ok(Self::TimedOut),
            (Self::Running, E::Requeued) => Ok(Self::Queued),
            (Self::Queued | Self::Running, E::GivenUp) => Ok(Self::Dead),
            (from, event) => Err(IllegalTransition { from, event }),
        }
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What can happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobEvent {
    /// A worker took it.
    Claimed,
    /// Answered ok.
    Succeeded,
    /// Condition false.
    Skipped,
    /// Final failure.
    Failed,
    /// Final timeout.
    TimedOut,
    /// Retry, recovery or interruption: back to the queue with the next attempt number.
    Requeued,
    /// Cancelled, or out of attempts without a verdict.
    GivenUp,
}

/// A move the life cycle does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {from} can not take {event:?}")]
pub struct IllegalTransition {
    /// Where the job is.
    pub from: JobStatus,
    /// What was asked.
    pub event: JobEvent,
}

/// Why an attempt failed. The word stands in events and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// The plugin answered `status: error`.
    PluginError,
    /// The same with `retry: false`.
    PluginRetryFalse,
    /// The process exited 78.
    ExitCode78,
    /// It ran past its deadline.
    Timeout,
    /// It could not be started or its answer could not be read.
    SpawnError,
    /// It printed nothing.
    NilResponse,
    /// The input was unusable before anything was started.
    PreflightError,
    /// The plugin is not loaded, not enabled, or lacks the command.
    PluginUnavailable,
    /// Secrets were refused.
    SecretDenied,
    /// The vault did not answer in time.
    VaultUnavailable,
    /// The account could not be dropped to.
    DropFailed,
    /// The new state or facts were refused.
    StateError,
    /// The events could not be routed.
    RoutingError,
    /// The gateway stopped, crashed or panicked while it ran.
    Interrupted,
}

impl FailureReason {
    /// The word in events and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PluginError => "plugin_error",
            Self::PluginRetryFalse => "plugin_retry_false",
            Self::ExitCode78 => "exit_code_78",
            Self::Timeout => "timeout",
            Self::SpawnError => "spawn_error",
            Self::NilResponse => "nil_response",
            Self::PreflightError => "preflight_error",
            Self::PluginUnavailable => "plugin_unavailable",
            Self::SecretDenied => "secret_denied",
            Self::VaultUnavailable => "vault_unavailable",
            Self::DropFailed => "drop_failed",
            Self::StateError => "state_error",
            Self::RoutingError => "routing_error",
            Self::Interrupted => "interrupted",
        }
    }

    /// Whether another attempt may help.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            Self::PluginError
            | Self::Timeout
            | Self::SpawnError
            | Self::NilResponse
            | Self::VaultUnavailable
            | Self::Interrupted => true,
            Self::PluginRetryFalse
            | Self::ExitCode78
            | Self::PreflightError
            | Self::PluginUnavailable
            | Self::SecretDenied
            | Self::DropFailed
            | Self::StateError
            | Self::RoutingError => false,
        }
    }

    /// The terminal state when it is not tried again.
    #[must_use]
    pub fn terminal_status(self) -> JobStatus {
        match self {
            Self::Timeout => JobStatus::TimedOut,
            Self::Interrupted => JobStatus::Dead,
            _ => JobStatus::Failed,
        }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who put a job into the queue: a closed set, stored as `submitted_by`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Producer {
    /// The scheduler; carries the service name, which is what is stored.
    Scheduler(String),
    /// The HTTP API and its clients.
    Api,
    /// Tool calls of the Model Context Protocol.
    Mcp,
    /// A webhook endpoint, by path.
    Webhook(String),
    /// A relay peer, by name.
    Relay(String),
    /// The router.
    Route,
    /// A lifecycle hook.
    Hook,
    /// A tool that writes the database directly.
    Cli,
    /// The gateway itself.
    Core,
}

impl fmt::Display for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheduler(service) => f.write_str(service),
            Self::Api => f.write_str("api"),
            Self::Mcp => f.write_str("mcp"),
            Self::Webhook(path) => write!(f, "webhook:{path}"),
            Self::Relay(peer) => write!(f, "relay:{peer}"),
            Self::Route => f.write_str("route"),
            Self::Hook => f.write_str("hook"),
            Self::Cli => f.write_str("cli"),
            Self::Core => f.write_str("core"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [JobEvent; 7] = [
        JobEvent::Claimed,
        JobEvent::Succeeded,
        JobEvent::Skipped,
        JobEvent::Failed,
        JobEvent::TimedOut,
        JobEvent::Requeued,
        JobEvent::GivenUp,
    ];

    #[test]
    fn exactly_the_documented_moves_are_legal() {
        let legal: Vec<_> = JobStatus::ALL
            .into_iter()
            .flat_map(|from| EVENTS.into_iter().filter_map(move |event| from.apply(event).ok().map(|to| (from, to))))
            .collect();
        use JobStatus as S;
        assert_eq!(
            legal,
            [
                (S::Queued, S::Running),
                (S::Queued, S::Dead),
                (S::Running, S::Succeeded),
                (S::Running, S::Skipped),
                (S::Running, S::Failed),
                (S::Running, S::TimedOut),
                (S::Running, S::Queued),
                (S::Running, S::Dead),
            ]
        );
    }

    #[test]
    fn terminal_states_are_absorbing() {
        for status in JobStatus::ALL.into_iter().filter(|status| status.is_terminal()) {
            assert!(EVENTS.into_iter().all(|event| status.apply(event).is_err()), "{status}");
        }
    }

    #[test]
    fn words_read_back_and_filters_know_other_names() {
        for status in JobStatus::ALL {
            assert_eq!(JobStatus::parse(status.as_str()), Some(status));
        }
        assert_eq!(JobStatus::parse_filter("OK"), Some(JobStatus::Succeeded));
        assert_eq!(JobStatus::parse_filter("pending"), Some(JobStatus::Queued));
        assert_eq!(JobStatus::parse_filter("Error"), Some(JobStatus::Failed));
        assert_eq!(JobStatus::parse_filter("bogus"), None);
    }
}
