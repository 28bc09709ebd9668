use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// The children of a generation, in start order. Stop order is the reverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// Holds the plan.
    Config,
    /// Holds the decrypted vault.
    Vault,
    /// Owns the job state machine.
    Queue,
    /// Runs plugins.
    Dispatcher,
    /// Fires schedules.
    Scheduler,
    /// Sends and admits signed events.
    Relay,
    /// Takes webhooks.
    Webhook,
    /// Serves HTTP.
    Api,
}

impl Component {
    /// All components, in start order.
    pub const ALL: [Self; 8] = [
        Self::Config,
        Self::Vault,
        Self::Queue,
        Self::Dispatcher,
        Self::Scheduler,
        Self::Relay,
        Self::Webhook,
        Self::Api,
    ];

    /// The name in logs, events and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Vault => "vault",
            Self::Queue => "queue",
            Self::Dispatcher => "dispatcher",
            Self::Scheduler => "scheduler",
            Self::Relay => "relay",
            Self::Webhook => "webhook",
            Self::Api => "api",
        }
    }

    /// The component of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|component| component.as_str() == name)
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a supervisor does about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Start it again after this pause.
    RestartAfter(Duration),
    /// It fails too often: end the generation.
    Escalate,
}

/// Counts failures of one child and decides: the pause doubles from 100 ms to 5 s, a window of health resets it,
/// and more than `limit` failures within the window escalate.
#[derive(Debug, Clone)]
pub struct RestartWindow {
    limit: usize,
    window: Duration,
    failures: VecDeque<Instant>,
}

impl RestartWindow {
    const FIRST_PAUSE: Duration = Duration::from_millis(100);
    const LONGEST_PAUSE: Duration = Duration::from_secs(5);

    /// A window that allows `limit` failures within `window`.
    #[must_use]
    pub fn new(limit: usize, window: Duration) -> Self {
        Self { limit, window, failures: VecDeque::new() }
    }

    /// Records a failure at `now` and says what to do.
    pub fn on_failure(&mut self, now: Instant) -> Verdict {
        while self.failures.front().is_some_and(|first| now.duration_since(*first) > self.window) {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        if self.failures.len() > self.limit {
            return Verdict::Escalate;
        }
        let doublings = u32::try_from(self.failures.len() - 1).unwrap_or(u32::MAX).min(16);
        Verdict::RestartAfter((Self::FIRST_PAUSE * 2u32.pow(doublings)).min(Self::LONGEST_PAUSE))
    }

    /// Failures within the window, the last one included.
    #[must_use]
    pub fn recent(&self) -> usize {
        self.failures.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_and_the_sixth_failure_within_a_minute_escalates() {
        let mut window = RestartWindow::new(5, Duration::from_secs(60));
        let start = Instant::now();
        let verdicts: Vec<_> = (0..6).map(|i| window.on_failure(start + Duration::from_secs(i))).collect();
        let pauses = [100, 200, 400, 800, 1600].map(|ms| Verdict::RestartAfter(Duration::from_millis(ms)));
        assert_eq!(verdicts[..5], pauses);
        assert_eq!(verdicts[5], Verdict::Escalate);
    }

    #[test]
    fn a_minute_of_health_resets_the_count() {
        let mut window = RestartWindow::new(5, Duration::from_secs(60));
        let start = Instant::now();
        for i in 0..5 {
            window.on_failure(start + Duration::from_secs(i));
        }
        let later = start + Duration::from_secs(120);
        assert_eq!(window.on_failure(later), Verdict::RestartAfter(Duration::from_millis(100)));
        assert_eq!(window.recent(), 1);
    }

    #[test]
    fn the_pause_never_exceeds_five_seconds() {
        let mut window = RestartWindow::new(100, Duration::from_secs(60));
        let start = Instant::now();
        let last = (0..50).map(|_| window.on_failure(start)).last();
        assert_eq!(last, Some(Verdict::RestartAfter(Duration::from_secs(5))));
    }
}
