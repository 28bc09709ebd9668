//! What a job caused, drawn as a tree.

use ductile_queue::{CausedJob, JobView};

use crate::cli::job::tree::{self, Named, Node};
use crate::cli::report::Form;

/// The job itself, and below it everything that it caused.
pub(super) fn lines(root: &JobView, caused: &[CausedJob], form: Form) -> Vec<String> {
    let own = Named { plugin: &root.plugin, command: &root.command, step: "", status: root.status.as_str() };
    let mut nodes = vec![Node::new(root.id.as_str(), None, own, form)];
    nodes.extend(caused.iter().map(|CausedJob { job, parent, step_id, .. }| {
        let named = Named { plugin: &job.plugin, command: &job.command, step: step_id, status: &job.status };
        Node::new(job.id.as_str(), Some(parent.as_str()), named, form)
    }));
    tree::lines(&nodes)
}
