//! What a job caused, drawn as a tree.

use std::collections::BTreeMap;

use ductile_model::JobId;
use ductile_queue::{CausedJob, JobView};

use crate::cli::job::short;
use crate::cli::report::Form;

/// The children of each job, oldest first.
type Children<'a> = BTreeMap<&'a JobId, Vec<&'a CausedJob>>;

/// The job itself, and below it everything that it caused.
pub(super) fn lines(root: &JobView, caused: &[CausedJob], form: Form) -> Vec<String> {
    let mut children = Children::new();
    for job in caused {
        children.entry(&job.parent).or_default().push(job);
    }
    let own = label(&root.plugin, &root.command, "", &form.status(root.status.as_str()), root.id.as_str());
    let mut lines = vec![own];
    branches(&root.id, "", &children, form, &mut lines);
    lines
}

/// Goes as deep as the tree, which has at most as many levels as it has jobs.
fn branches(parent: &JobId, before: &str, children: &Children<'_>, form: Form, lines: &mut Vec<String>) {
    let Some(jobs) = children.get(parent) else { return };
    for (index, child) in jobs.iter().enumerate() {
        let is_last = index + 1 == jobs.len();
        let (branch, below) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        let job = &child.job;
        let label = label(&job.plugin, &job.command, &child.step_id, &form.status(&job.status), job.id.as_str());
        lines.push(format!("{before}{branch}{label}"));
        branches(&job.id, &format!("{before}{below}"), children, form, lines);
    }
}

fn label(plugin: &str, command: &str, step: &str, status: &str, id: &str) -> String {
    let step = if step.is_empty() { String::new() } else { format!(" [{step}]") };
    format!("{plugin}:{command}{step}  {status}  {}", short(id))
}
