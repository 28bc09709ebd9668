//! What can happen to jobs, from all sides.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::RetryScope;

#[derive(Debug, Clone)]
pub(super) enum Step {
    Enqueue {
        by: By,
        target: Target,
        key: Option<u8>,
        window: Option<u64>,
        max_attempts: u32,
    },
    /// A schedule is due: the breaker has a say.
    Schedule {
        target: Target,
        key: Option<u8>,
        max_attempts: u32,
    },
    Finish {
        which: Index,
        how: How,
    },
    /// An attempt that is over reports once more.
    FinishLate {
        which: Index,
    },
    Cancel {
        which: Index,
        what: What,
    },
    RetryByHand {
        which: Vec<Index>,
        scope: RetryScope,
        per_second: u32,
    },
    Prune,
    /// The clock goes on, or is put back.
    Advance {
        seconds: i64,
    },
    /// The configuration changes; with `without`, a plugin is gone.
    ChangeGeneration {
        workers: u32,
        cap: u32,
        threshold: u32,
        without: Option<u8>,
    },
    /// The process is killed and started again.
    Kill,
    /// Another process writes.
    Foreign(Foreign),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) plugin: u8,
    pub(super) command: u8,
}

/// Who asks for a job.
#[derive(Debug, Clone)]
pub(super) enum By {
    Api,
    Webhook,
    Hook {
        parent: u8,
    },
    /// `further`: one event goes to the same target once more, for another step.
    Route {
        parent: u8,
        event: u8,
        further: bool,
    },
}

#[derive(Debug, Clone, Copy)]
pub(super) enum How {
    Succeed,
    SucceedWithFacts,
    /// Its answer can not be kept.
    RefusedState,
    Skip,
    Fail(FailureReason),
    Shutdown,
    Panic,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    Job,
    Tree,
    Scheduled,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Foreign {
    /// A job, with times in any form that may be read.
    Insert { plugin: u8, key: Option<u8>, form: u8 },
    /// Delayed jobs may run at once.
    ClearDelays,
    /// The breakers of a plugin are closed by hand.
    ResetBreakers { plugin: u8 },
}

fn target() -> impl Strategy<Value = Target> {
    (0u8..3, prop_oneof![4 => Just(0u8), 1 => Just(1)]).prop_map(|(plugin, command)| Target { plugin, command })
}

fn key() -> impl Strategy<Value = Option<u8>> {
    prop::option::of(0u8..2)
}

fn enqueue() -> impl Strategy<Value = Step> {
    let by = prop_oneof![
        3 => Just(By::Api),
        1 => Just(By::Webhook),
        1 => (0u8..3).prop_map(|parent| By::Hook { parent }),
        3 => (0u8..2, 0u8..2, any::<bool>())
            .prop_map(|(parent, event, further)| By::Route { parent, event, further }),
    ];
    (by, target(), key(), prop::option::of(select(vec![0u64, 20, 1000])), 1u32..4)
        .prop_map(|(by, target, key, window, max_attempts)| Step::Enqueue { by, target, key, window, max_attempts })
}

fn how() -> impl Strategy<Value = How> {
    let reasons =
        vec![FailureReason::PluginError, FailureReason::Timeout, FailureReason::ExitCode78, FailureReason::SpawnError];
    prop_oneof![
        4 => Just(How::Succeed),
        1 => Just(How::SucceedWithFacts),
        1 => Just(How::RefusedState),
        1 => Just(How::Skip),
        4 => select(reasons).prop_map(How::Fail),
        1 => Just(How::Shutdown),
        1 => Just(How::Panic),
    ]
}

fn foreign() -> impl Strategy<Value = Foreign> {
    prop_oneof![
        3 => (0u8..3, key(), 0u8..4).prop_map(|(plugin, key, form)| Foreign::Insert { plugin, key, form }),
        1 => Just(Foreign::ClearDelays),
        1 => (0u8..3).prop_map(|plugin| Foreign::ResetBreakers { plugin }),
    ]
}

fn schedule() -> impl Strategy<Value = Step> {
    let key = prop::option::weighted(0.2, 0u8..2);
    (target(), key, 1u32..3).prop_map(|(target, key, max_attempts)| Step::Schedule { target, key, max_attempts })
}

fn finish(how: impl Strategy<Value = How>) -> impl Strategy<Value = Step> {
    (any::<Index>(), how).prop_map(|(which, how)| Step::Finish { which, how })
}

fn finish_late() -> impl Strategy<Value = Step> {
    any::<Index>().prop_map(|which| Step::FinishLate { which })
}

fn cancel() -> impl Strategy<Value = Step> {
    (any::<Index>(), select(vec![What::Job, What::Tree, What::Scheduled]))
        .prop_map(|(which, what)| Step::Cancel { which, what })
}

fn advance() -> impl Strategy<Value = Step> {
    prop_oneof![4 => 1i64..40, 1 => -15i64..0].prop_map(|seconds| Step::Advance { seconds })
}

fn change_generation() -> impl Strategy<Value = Step> {
    (1u32..5, 1u32..3, 1u32..3, prop::option::of(0u8..3))
        .prop_map(|(workers, cap, threshold, without)| Step::ChangeGeneration { workers, cap, threshold, without })
}

fn retry_by_hand() -> impl Strategy<Value = Step> {
    let scopes = vec![RetryScope::Unresolved, RetryScope::Failed, RetryScope::Any];
    (prop::collection::vec(any::<Index>(), 1..4), select(scopes), 1u32..3)
        .prop_map(|(which, scope, per_second)| Step::RetryByHand { which, scope, per_second })
}

/// Everything, from all sides.
pub(super) fn anything() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => enqueue(),
        6 => schedule(),
        16 => finish(how()),
        2 => finish_late(),
        4 => cancel(),
        2 => retry_by_hand(),
        2 => Just(Step::Prune),
        5 => advance(),
        2 => change_generation(),
        1 => Just(Step::Kill),
        3 => foreign().prop_map(Step::Foreign),
    ];
    prop::collection::vec(step, 1..70)
}

/// Schedules of one or two commands that often fail, and pauses as long as breakers make them.
pub(super) fn schedules() -> impl Strategy<Value = Vec<Step>> {
    let due = (0u8..2, 0u8..2, 1u32..3).prop_map(|(plugin, command, max_attempts)| Step::Schedule {
        target: Target { plugin: 1, command: command.min(plugin) },
        key: None,
        max_attempts,
    });
    let final_end =
        select(vec![How::Fail(FailureReason::ExitCode78), How::Fail(FailureReason::Timeout), How::Shutdown]);
    let step = prop_oneof![
        8 => due,
        6 => finish(final_end),
        1 => finish(how()),
        1 => cancel(),
        4 => select(vec![1i64, 5, 10, 19, 20, 21]).prop_map(|seconds| Step::Advance { seconds }),
        1 => advance(),
        1 => enqueue(),
        1 => prop_oneof![change_generation(), Just(Step::Kill), foreign().prop_map(Step::Foreign)],
    ];
    prop::collection::vec(step, 1..60)
}

/// Attempts that end without a verdict, come again, are given up, and report late.
pub(super) fn interruptions() -> impl Strategy<Value = Vec<Step>> {
    let how = select(vec![How::Shutdown, How::Shutdown, How::Panic, How::Succeed]);
    let step = prop_oneof![
        4 => enqueue(),
        5 => finish(how),
        4 => finish_late(),
        3 => cancel(),
        1 => advance(),
        1 => prop_oneof![2 => change_generation(), 1 => Just(Step::Kill)],
    ];
    prop::collection::vec(step, 1..50)
}
