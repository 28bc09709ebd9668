//! Token buckets: how often a credential may call.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ductile_config::RateLimit;

/// Strangers that have a bucket of their own. All others share one.
const STRANGERS: usize = 4096;

/// Between two searches for strangers who can be forgotten: however many there are, a request hardly ever pays for one.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Who is being counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// Who has how much left.
#[derive(Default)]
struct Buckets {
    /// As many as there are tokens in the configuration.
    tokens: HashMap<usize, Bucket>,
    strangers: HashMap<IpAddr, Bucket>,
    /// The one of all strangers for whom there is no room.
    crowd: Option<Bucket>,
    swept: Option<Instant>,
}

/// The buckets of one generation.
pub(crate) struct RateLimiter {
    limit: RateLimit,
    buckets: Mutex<Buckets>,
}

impl RateLimiter {
    pub(crate) fn new(limit: RateLimit) -> Self {
        Self { limit, buckets: Mutex::default() }
    }

    /// Takes one request from the caller's bucket, if there is one in it.
    pub(crate) fn admits(&self, caller: Caller, now: Instant) -> bool {
        let full = Bucket { tokens: self.size(), at: now };
        // No code under this lock can panic half-way through a change.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = match caller {
            Caller::Token(place) => buckets.tokens.entry(place).or_insert(full),
            Caller::Stranger(address) => {
                let network = network_of(address);
                if self.has_room(&mut buckets, network, now) {
                    buckets.strangers.entry(network).or_insert(full)
                } else {
                    buckets.crowd.get_or_insert(full)
                }
            }
        };
        let tokens = self.filled(*bucket, now);
        let admitted = tokens >= 1.0;
        *bucket = Bucket { tokens: if admitted { tokens - 1.0 } else { tokens }, at: now };
        admitted
    }

    /// Whether a stranger has, or may have, a bucket of its own. Those with a full one are the same as new ones, so
    /// they can be forgotten.
    fn has_room(&self, buckets: &mut Buckets, network: IpAddr, now: Instant) -> bool {
        if buckets.strangers.len() < STRANGERS || buckets.strangers.contains_key(&network) {
            return true;
        }
        if buckets.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_EVERY) {
            buckets.swept = Some(now);
            buckets.strangers.retain(|_, bucket| self.filled(*bucket, now) < self.size());
        }
        buckets.strangers.len() < STRANGERS
    }

    fn size(&self) -> f64 {
        f64::from(self.limit.burst.max(1))
    }

    fn filled(&self, bucket: Bucket, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.tokens + passed * self.limit.requests_per_second).min(self.size())
    }
}

/// What belongs to one party: an IPv4 address, or the /64 that a site gets as its least share of IPv6.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
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

    fn stranger(number: u32) -> Caller {
        Caller::Stranger(IpAddr::from(number.to_be_bytes()))
    }

    /// A limiter that has just seen as many strangers as it remembers.
    fn crowded(limit: RateLimit, start: Instant) -> RateLimiter {
        let limiter = RateLimiter::new(limit);
        for number in 0..u32::try_from(STRANGERS).unwrap() {
            assert!(limiter.admits(stranger(number), start));
        }
        limiter
    }

    fn remembered(limiter: &RateLimiter) -> usize {
        limiter.buckets.lock().unwrap().strangers.len()
    }

    #[test]
    fn strangers_who_stopped_calling_are_forgotten() {
        let start = Instant::now();
        let limiter = crowded(RateLimit { requests_per_second: 1.0, burst: 1 }, start);
        assert!(limiter.admits(stranger(u32::MAX), start + Duration::from_secs(10)));
        assert_eq!(remembered(&limiter), 1);
    }

    #[test]
    fn strangers_beyond_the_limit_share_one_bucket_and_nobody_else_suffers() {
        let start = Instant::now();
        let limiter = crowded(RateLimit { requests_per_second: 0.001, burst: 2 }, start);
        let admitted: Vec<_> = (0..4).map(|n| limiter.admits(stranger(u32::MAX - n), start)).collect();
        assert_eq!(admitted, [true, true, false, false]);
        assert_eq!(remembered(&limiter), STRANGERS);
        assert!(limiter.admits(stranger(7), start), "one who is known has his own");
        assert!(limiter.admits(Caller::Token(0), start), "a token never belongs to the crowd");
    }

    #[test]
    fn the_search_for_strangers_to_forget_is_rare() {
        let start = Instant::now();
        let limiter = crowded(RateLimit { requests_per_second: 10.0, burst: 1 }, start);
        // Nobody's bucket is full yet, so the search finds nothing; those right after it do not search again.
        assert!(limiter.admits(stranger(u32::MAX), start));
        let filled = start + Duration::from_millis(500);
        assert!(limiter.admits(stranger(u32::MAX - 1), filled));
        assert_eq!(remembered(&limiter), STRANGERS);
        assert!(limiter.admits(stranger(u32::MAX - 2), start + SWEEP_EVERY));
        assert_eq!(remembered(&limiter), 1);
    }

    #[test]
    fn addresses_of_one_site_are_one_stranger() {
        let same = |a: &str, b: &str| network_of(a.parse().unwrap()) == network_of(b.parse().unwrap());
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("::ffff:192.0.2.1", "::ffff:192.0.2.2"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }
}
