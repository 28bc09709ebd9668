//! Letting go of old rows.

use std::sync::Arc;

use ductile_config::{Config, Plan};
use ductile_model::Clock;
use ductile_queue::{QueueError, Retention, Store};

use crate::life::Housekeeping;

/// One round, beside the loop, which goes on.
pub(crate) fn keep_house(plan: Arc<Plan>, store: Store, clock: Arc<dyn Clock>, round: Housekeeping) {
    tokio::spawn(async move {
        let _round = round;
        let service = &plan.config.service;
        store.prune(retention(&plan.config)).await;
        match store.run_janitor(clock.now(), service.job_log_retention).await {
            // The process is about to end.
            Ok(_) | Err(QueueError::Unavailable) => {}
            Err(error) => tracing::warn!(%error, "timings could not be summed up; tried again later"),
        }
    });
}

fn retention(config: &Config) -> Retention {
    let service = &config.service;
    Retention {
        job_queue: service.job_queue_retention,
        dedupe_ttl: service.dedupe_ttl,
        job_log: service.job_log_retention,
        job_transitions: service.job_transitions_retention,
        job_attempts: service.job_attempts_retention,
        breaker_transitions: service.breaker_transitions_retention,
    }
}
