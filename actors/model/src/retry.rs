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
    // Over after at most 42 rounds: from a nanosecond to an hour.
    let mut power = base;
    for _ in 1..attempt {
        if power.is_zero() || power >= ceiling {
            break;
        }
        power = power.saturating_mul(2);
    }
    let jitter = (base / 4).mul_f64(share.clamp(0.0, 1.0));
    power.min(ceiling).saturating_add(jitter)
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

    /// Any base there is, small ones as often as large ones.
    fn base() -> impl Strategy<Value = Duration> {
        prop_oneof![
            (0u64..5_000_000_000_000).prop_map(Duration::from_nanos),
            (0u32..64).prop_map(|shift| Duration::from_nanos(1 << shift)),
            (any::<u64>(), 0u32..1_000_000_000).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos)),
        ]
    }

    /// Any attempt, those that make a difference as often as the others.
    fn attempt() -> impl Strategy<Value = u32> {
        prop_oneof![0u32..130, any::<u32>()]
    }

    proptest! {
        #[test]
        fn without_jitter_the_delay_is_the_base_doubled_up_to_its_ceiling(base in base(), attempt in attempt()) {
            let ceiling = base.max(Duration::from_secs(3600)).as_nanos();
            let doubled = match 1u128.checked_shl(attempt.saturating_sub(1)).and_then(|n| base.as_nanos().checked_mul(n)) {
                Some(doubled) => doubled.min(ceiling),
                None if base.is_zero() => 0,
                None => ceiling,
            };
            prop_assert_eq!(backoff_delay(base, attempt, 0.0).as_nanos(), doubled);
        }

        #[test]
        fn the_jitter_adds_between_nothing_and_a_quarter_of_the_base(
            base in base(), attempt in attempt(), share in 0.0f64..=1.0, more in 0.0f64..=1.0,
        ) {
            let bare = backoff_delay(base, attempt, 0.0);
            let delay = backoff_delay(base, attempt, share);
            // Floating point is exact to the nanosecond only for a base of less than a few months.
            let slack = Duration::from_nanos(1) + base / (1 << 30);
            prop_assert!(delay >= bare && delay <= bare.saturating_add(base / 4).saturating_add(slack));
            prop_assert!(backoff_delay(base, attempt, share.max(more)) >= delay);
            prop_assert_eq!(backoff_delay(base, attempt, 7.0), backoff_delay(base, attempt, 1.0));
            prop_assert_eq!(backoff_delay(base, attempt, -7.0), bare);
        }

        #[test]
        fn a_later_attempt_or_a_longer_base_never_waits_less(
            base in base(), other in base(), attempt in attempt(), later in attempt(), share in 0.0f64..=1.0,
        ) {
            let (sooner, later) = (attempt.min(later), attempt.max(later));
            prop_assert!(backoff_delay(base, sooner, share) <= backoff_delay(base, later, share));
            prop_assert!(backoff_delay(base.min(other), attempt, share) <= backoff_delay(base.max(other), attempt, share));
        }
    }
}
