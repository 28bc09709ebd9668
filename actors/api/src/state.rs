//! What the handlers of a generation share.

use std::sync::Arc;

use ductile_config::{ApiToken, Family, Plan};
use ductile_model::Clock;
use ductile_queue::QueueHandle;
use ductile_router::Router;
use tokio::sync::Semaphore;

use crate::actor::{ApiArgs, Control};
use crate::context::{Context, Credential};
use crate::error::ApiError;
use crate::rate::RateLimiter;

/// Everything a handler may use. Immutable but for counters.
pub(crate) struct Api {
    pub(crate) plan: Arc<Plan>,
    pub(crate) queue: QueueHandle,
    pub(crate) router: Router,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) control: Arc<dyn Control>,
    pub(crate) rate: Option<RateLimiter>,
    pub(crate) sync_slots: Arc<Semaphore>,
}

impl Api {
    pub(crate) fn new(args: &ApiArgs) -> Self {
        let api = &args.plan.config.api;
        let slots = usize::try_from(api.max_concurrent_sync).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            plan: args.plan.clone(),
            queue: args.queue.clone(),
            router: Router::new(args.plan.clone()),
            clock: args.clock.clone(),
            control: args.control.clone(),
            rate: api.rate_limit.map(RateLimiter::new),
            sync_slots: Arc::new(Semaphore::new(slots.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// The token of the caller, whoever it is.
    pub(crate) fn token(&self, context: &Context) -> Option<&ApiToken> {
        match context.credential {
            Credential::Token(index) => self.plan.tokens.get(index),
            Credential::Absent | Credential::Malformed | Credential::Unknown => None,
        }
    }

    /// Any valid token.
    pub(crate) fn authenticate(&self, context: &Context) -> Result<&ApiToken, ApiError> {
        self.token(context).ok_or_else(|| {
            ApiError::unauthenticated(match context.credential {
                Credential::Absent => "missing or invalid Authorization header",
                Credential::Malformed => "invalid Authorization header format",
                Credential::Unknown | Credential::Token(_) => "invalid token",
            })
        })
    }

    /// A token that opens a group of routes.
    pub(crate) fn require(&self, context: &Context, family: Family) -> Result<&ApiToken, ApiError> {
        let token = self.authenticate(context)?;
        if token.scopes.allows(family) { Ok(token) } else { Err(ApiError::scope(words_for(family))) }
    }
}

/// Scope words that open a group of routes.
fn words_for(family: Family) -> &'static [&'static str] {
    match family {
        Family::JobStatus => &["jobs:status:ro", "jobs:ro", "jobs:rw", "*"],
        Family::JobResult => &["jobs:result:ro", "jobs:ro", "jobs:rw", "*"],
        Family::JobLogs => &["jobs:logs:ro", "jobs:ro", "jobs:rw", "*"],
        Family::JobTree => &["jobs:tree:ro", "jobs:ro", "jobs:rw", "*"],
        Family::JobWrite => &["jobs:rw", "*"],
        Family::EventsMeta => &["events:meta:ro", "events:ro", "events:rw", "*"],
        Family::EventsPayload => &["events:payload:ro", "events:ro", "events:rw", "*"],
        Family::Metrics => &["metrics:ro", "system:ro", "system:rw", "*"],
        Family::SystemRead => &["system:ro", "system:rw", "*"],
        Family::SystemWrite => &["system:rw", "*"],
    }
}
