//! Token buckets: how often a credential may call.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ductile_config::RateLimit;

/// Addresses without a valid credential that are remembered. Beyond that, those with a full bucket are forgotten.
const STRANGERS: usize = 4096;

/// Who is being counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Caller {
    /// A configured token, by its place in the list.
    Token(usize),
    /// Somebody without a valid credential.
    Stranger(IpAddr),
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// The buckets of one generation.
pub(crate) struct RateLimiter {
    limit: RateLimit,
    buckets: Mutex<HashMap<Caller, Bucket>>,
}

impl RateLimiter {
    pub(crate) fn new(limit: RateLimit) -> Self {
        Self { limit, buckets: Mutex::default() }
    }

    /// Takes one request from the caller's bucket, if there is one in it.
    pub(crate) fn admits(&self, caller: Caller, now: Instant) -> bool {
        let size = f64::from(self.limit.burst.max(1));
        // No code under this lock can panic half-way through a change.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= STRANGERS && !buckets.contains_key(&caller) {
            buckets.retain(|_, bucket| self.filled(*bucket, now) < size);
        }
        let bucket = buckets.entry(caller).or_insert(Bucket { tokens: size, at: now });
        let tokens = self.filled(*bucket, now);
        let admitted = tokens >= 1.0;
        *bucket = Bucket { tokens: if admitted { tokens - 1.0 } else { tokens }, at: now };
        admitted
    }

    fn filled(&self, bucket: Bucket, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.tokens + passed * self.limit.requests_per_second).min(f64::from(self.limit.burst.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_admitted_and_then_the_rate_of_each_caller_by_itself() {
        let limiter = RateLimiter::new(RateLimit { requests_per_second: 2.0, burst: 3 });
        let start = Instant::now();
        let one = Caller::Token(0);
        let admitted: Vec<_> = (0..5).map(|_| limiter.admits(one, start)).collect();
        assert_eq!(admitted, [true, true, true, false, false]);
        assert!(limiter.admits(Caller::Token(1), start));
        let later = start + Duration::from_millis(500);
        assert!(limiter.admits(one, later));
        assert!(!limiter.admits(one, later));
        // A long pause fills the bucket, not more.
        let much_later = start + Duration::from_secs(3600);
        let admitted = (0..10).filter(|_| limiter.admits(one, much_later)).count();
        assert_eq!(admitted, 3);
    }

    #[test]
    fn strangers_who_stopped_calling_are_forgotten() {
        let limiter = RateLimiter::new(RateLimit { requests_per_second: 1.0, burst: 1 });
        let start = Instant::now();
        for number in 0..u32::try_from(STRANGERS).unwrap() {
            assert!(limiter.admits(Caller::Stranger(IpAddr::from(number.to_be_bytes())), start));
        }
        let later = start + Duration::from_secs(10);
        assert!(limiter.admits(Caller::Token(0), later));
        assert_eq!(limiter.buckets.lock().unwrap().len(), 1);
    }
}
