//! Random lives of jobs in the real store. A model in plain Rust says beforehand what every answer, every row and every
//! claim must be; after each step all rows are compared with it, and the rules are checked on the rows alone.
//!
//! - `steps`: what can happen.
//! - `world`: does it to the store and to the model.
//! - `claims`: which job must come next.
//! - `row`: a job as the model knows it, and the rules of dedupe and of pruning.
//! - `breakers`: circuit breakers as the model knows them.
//! - `invariants`: what holds after each step.

mod breakers;
mod claims;
mod invariants;
pub(super) mod row;
mod steps;
mod world;

use proptest::prelude::*;

use super::*;
use steps::{Step, anything, interruptions, schedules};
use world::World;

fn live(steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let mut world = World::new().await;
        for step in steps {
            world = world.take(step).await;
            world.settle().await;
            world.check();
        }
        world.run_dry().await;
        world.check();
        world.check_retries().await;
        world.site.store.close().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_life_of_jobs_breaks_the_rules(steps in anything()) {
        live(steps);
    }

    #[test]
    fn no_life_of_schedules_breaks_the_rules_of_breakers(steps in schedules()) {
        live(steps);
    }

    #[test]
    fn no_interruption_breaks_the_rules(steps in interruptions()) {
        live(steps);
    }
}
