//! How many jobs one event makes in one go. Calls in branches multiply, so that is counted and never tried.

use super::Input;
use super::dsl::{Authored, CATEGORY};
use super::findings::Findings;
use super::steps::{Order, Step, StepKind};
use crate::yaml::{Node, Place};

/// Jobs that one event may make in one go.
const LIMIT: usize = 1000;

/// Refuses pipelines in which one event makes too many jobs, and counts those that each one begins with. `order` has a
/// pipeline after those that it calls.
pub(super) fn check(
    input: &Input<'_>,
    authored: &[Authored<'_>],
    order: &[usize],
    findings: &mut Findings<'_>,
) -> Vec<usize> {
    let mut counts = vec![1; authored.len()];
    for position in order {
        let pipeline = &authored[*position];
        match widest(&pipeline.steps, &counts).filter(|(_, jobs)| *jobs > LIMIT) {
            // It counts as nothing for those that call it: one mistake is told once.
            Some((step, jobs)) => {
                counts[*position] = 0;
                refuse(input, pipeline, step, jobs, findings);
            }
            None => counts[*position] = first(&pipeline.steps, &counts),
        }
    }
    counts
}

fn refuse(input: &Input<'_>, pipeline: &Authored<'_>, step: usize, jobs: usize, findings: &mut Findings<'_>) {
    let field = format!("pipelines[{}].steps[{step}]", pipeline.position);
    let message = format!(
        "pipeline {:?}: one event would make {jobs} jobs at once here, more than {LIMIT}: use fewer branches, or calls \
         of pipelines that begin with fewer steps",
        pipeline.shown
    );
    findings.error(CATEGORY, place(input, pipeline.position, step), &field, message);
}

fn place(input: &Input<'_>, position: usize, step: usize) -> Place {
    let pipeline = input.merged.find(&["pipelines"]).and_then(|list| list.items().get(position));
    let step = pipeline.and_then(|pipeline| pipeline.get("steps")?.items().get(step));
    step.or(pipeline).map(|node: &Node| node.place).unwrap_or_default()
}

/// The step of a pipeline that makes the most jobs of one event, be it at its own beginning or within it.
fn widest(steps: &[Step<'_>], counts: &[usize]) -> Option<(usize, usize)> {
    let most = steps.iter().map(|step| most(step, counts)).enumerate();
    most.rev().max_by_key(|(_, jobs)| *jobs)
}

fn most(step: &Step<'_>, counts: &[usize]) -> usize {
    let within = match &step.kind {
        StepKind::Group(_, steps) => steps.iter().map(|step| most(step, counts)).max().unwrap_or(0),
        StepKind::Uses(_) | StepKind::Relay(_) | StepKind::Call(_) => 0,
    };
    within.max(behind_its_gate(step, counts))
}

/// Jobs that a sequence begins with.
fn first(steps: &[Step<'_>], counts: &[usize]) -> usize {
    steps.first().map_or(0, |step| begins_with(step, counts))
}

fn begins_with(step: &Step<'_>, counts: &[usize]) -> usize {
    if step.gate.is_some() { 1 } else { behind_its_gate(step, counts) }
}

fn behind_its_gate(step: &Step<'_>, counts: &[usize]) -> usize {
    match &step.kind {
        StepKind::Uses(_) | StepKind::Relay(_) => 1,
        StepKind::Call(target) => counts[*target],
        StepKind::Group(Order::InTurn, steps) => first(steps, counts),
        StepKind::Group(Order::SideBySide, steps) => {
            steps.iter().map(|step| begins_with(step, counts)).fold(0, usize::saturating_add)
        }
    }
}
