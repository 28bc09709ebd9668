use std::time::Duration;

use crate::{FailureReason, JobStatus};

/// What becomes of a job whose attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Back to the queue with the next attempt number.
    Retry,
    /// Over, in this state.
    Final {
        /// The terminal state.
        status: JobStatus,
        /// Whether only the number of attempts stood in the way.
        exhausted: bool,
    },
}

/// Decides after attempt `attempt` of `max_attempts` failed for `reason`. The gateway owns this decision; what the
/// plugin wishes is already part of the reason.
#[must_use]
pub fn decide(reason: FailureReason, attempt: u32, max_attempts: u32) -> Decision {
    let status = reason.terminal_status();
    if !reason.is_retryable() {
        Decision::Final { status, exhausted: false }
    } else if attempt >= max_attempts {
        Decision::Final { status, exhausted: true }
    } else {
        Decision::Retry
    }
}

/// Delay before the attempt after `attempt`: `base × 2^(attempt−1)`, at most the larger of an hour and `base`, plus
/// a jitter of `share × base/4`. `share` is a uniform random number in `[0, 1]`.
#[must_use]
pub fn backoff_delay(base: Duration, attempt: u32, share: f64) -> Duration {
    const HOUR: Duration = Duration::from_secs(3600);
    let ceiling = base.max(HOUR);
    let factor = 1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
    let power = base.checked_mul(factor).unwrap_or(ceiling).min(ceiling);
    let jitter = (base / 4).mul_f64(share.clamp(0.0, 1.0));
    power.saturating_add(jitter)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_default_base_gives_half_a_minute_a_minute_two_minutes() {
        let base = Duration::from_secs(30);
        let delays: Vec<_> = (1..=3).map(|n| backoff_delay(base, n, 0.0).as_secs()).collect();
        assert_eq!(delays, [30, 60, 120]);
    }

    #[test]
    fn reasons_decide_before_attempts_do() {
        assert_eq!(decide(FailureReason::PluginError, 1, 4), Decision::Retry);
        assert_eq!(
            decide(FailureReason::PluginError, 4, 4),
            Decision::Final { status: JobStatus::Failed, exhausted: true }
        );
        assert_eq!(
            decide(FailureReason::ExitCode78, 1, 4),
            Decision::Final { status: JobStatus::Failed, exhausted: false }
        );
        assert_eq!(
            decide(FailureReason::Timeout, 2, 2),
            Decision::Final { status: JobStatus::TimedOut, exhausted: true }
        );
    }

    proptest! {
        #[test]
        fn the_delay_stays_within_its_bounds(base_ms in 0u64..10_000_000, attempt in 0u32..200, share in 0.0f64..=1.0) {
            let base = Duration::from_millis(base_ms);
            let delay = backoff_delay(base, attempt, share);
            prop_assert!(delay >= base);
            prop_assert!(delay <= base.max(Duration::from_secs(3600)) + base / 4 + Duration::from_nanos(1));
        }
    }
}
