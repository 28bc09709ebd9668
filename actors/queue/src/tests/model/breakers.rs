//! Circuit breakers as the model knows them: what the outcomes, in their order, make of them.

use chrono::{DateTime, Utc};

use super::*;
use crate::{BreakerPolicy, BreakerState};

/// A change of state: before, after, failures, reason, job.
pub(super) type Fact = (Option<String>, String, u32, String, Option<String>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Breaker {
    pub(super) state: BreakerState,
    pub(super) failures: u32,
    pub(super) opened: Option<String>,
    pub(super) last_failure: Option<String>,
    pub(super) last_job: Option<String>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: BreakerState::Closed, failures: 0, opened: None, last_failure: None, last_job: None }
    }
}

/// All of them, by plugin and command.
#[derive(Debug, Default)]
pub(super) struct Breakers {
    pub(super) rows: BTreeMap<(String, String), Breaker>,
    pub(super) facts: BTreeMap<(String, String), Vec<Fact>>,
    /// Jobs that were let through since it became half open.
    pub(super) probes: BTreeMap<(String, String), Vec<String>>,
}

impl Breakers {
    fn change(&mut self, pair: &(String, String), to: Breaker, reason: &str, job: Option<&str>) {
        let from = self.rows.insert(pair.clone(), to.clone()).unwrap_or_default().state;
        if from != to.state {
            let fact = (from.as_str(), to.state.as_str(), to.failures, reason, job);
            self.tell(pair, fact);
            self.probes.remove(pair);
        }
    }

    fn tell(
        &mut self,
        pair: &(String, String),
        (from, to, failures, reason, job): (&str, &str, u32, &str, Option<&str>),
    ) {
        let fact = (Some(from.to_owned()), to.to_owned(), failures, reason.to_owned(), job.map(str::to_owned));
        self.facts.entry(pair.clone()).or_default().push(fact);
    }

    /// A job of the scheduler came to its end.
    pub(super) fn ended(&mut self, pair: &(String, String), success: bool, job: &str, at: &str, policy: BreakerPolicy) {
        let before = self.rows.get(pair).cloned().unwrap_or_default();
        let last_job = Some(job.to_owned());
        if success {
            return self.change(pair, Breaker { last_job, ..Breaker::default() }, "success", Some(job));
        }
        let failures = before.failures + 1;
        let opens = match before.state {
            BreakerState::Closed => failures >= policy.threshold,
            BreakerState::HalfOpen => true,
            BreakerState::Open => false,
        };
        let after = Breaker {
            state: if opens { BreakerState::Open } else { before.state },
            failures,
            opened: if opens { Some(at.to_owned()) } else { before.opened },
            last_failure: Some(at.to_owned()),
            last_job,
        };
        self.change(pair, after, "failure_threshold", Some(job));
    }

    /// A schedule is due; whether the breaker lets its job through.
    pub(super) fn admits(
        &mut self,
        pair: &(String, String),
        outstanding: bool,
        now: DateTime<Utc>,
        policy: BreakerPolicy,
    ) -> bool {
        let Some(breaker) = self.rows.get(pair).cloned() else { return true };
        match breaker.state {
            BreakerState::Closed => true,
            BreakerState::HalfOpen => !outstanding,
            BreakerState::Open => {
                let opened = row::at(breaker.opened.as_deref().unwrap());
                if opened <= now && now < opened + policy.reset_after {
                    return false;
                }
                self.change(pair, Breaker { state: BreakerState::HalfOpen, ..breaker }, "cooldown_elapsed", None);
                !outstanding
            }
        }
    }

    /// The breaker let a job through.
    pub(super) fn let_through(&mut self, pair: &(String, String), job: &str) {
        if self.rows.get(pair).is_some_and(|breaker| breaker.state == BreakerState::HalfOpen) {
            self.probes.entry(pair.clone()).or_default().push(job.to_owned());
        }
    }

    /// Somebody closes what a plugin has, and always `poll`.
    pub(super) fn reset(&mut self, plugin: &str) {
        let mut pairs: Vec<_> = self.rows.keys().filter(|(name, _)| name == plugin).cloned().collect();
        let poll = (plugin.to_owned(), "poll".to_owned());
        if !pairs.contains(&poll) {
            pairs.push(poll);
        }
        for pair in pairs {
            let before = self.rows.get(&pair).cloned();
            let last_job = before.as_ref().and_then(|breaker| breaker.last_job.clone());
            let from = before.map(|breaker| breaker.state.as_str().to_owned());
            self.rows.insert(pair.clone(), Breaker { last_job, ..Breaker::default() });
            self.probes.remove(&pair);
            self.facts.entry(pair).or_default().push((from, "closed".to_owned(), 0, "manual_reset".to_owned(), None));
        }
    }
}
