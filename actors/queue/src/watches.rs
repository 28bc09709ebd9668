//! Those who wait for the tree of a job. Kept by the writer alone, so a commit and the look at its rows can not
//! miss each other, and nobody polls.

use std::collections::{HashMap, HashSet};

use ductile_model::JobId;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::scope::Finished;
use crate::{QueueError, TreeNode, read};

/// What a waiter is told: the complete tree, or `None` when there is no such job.
pub(crate) type TreeReply = oneshot::Sender<Result<Option<Vec<TreeNode>>, QueueError>>;

struct Watch {
    root: JobId,
    /// Jobs of the tree that are not terminal yet.
    open: HashSet<JobId>,
    reply: TreeReply,
}

#[derive(Default)]
pub(crate) struct Watches {
    watches: HashMap<u64, Watch>,
    by_job: HashMap<JobId, Vec<u64>>,
}

impl Watches {
    /// Answers at once when the tree is complete, else watches it.
    pub(crate) fn add(&mut self, connection: &Connection, id: u64, root: JobId, reply: TreeReply) {
        if reply.is_closed() {
            return;
        }
        // The usual case, a job that was queued a moment ago, needs no look at a tree.
        let is_alone = read::is_open_alone(connection, &root).unwrap_or(false);
        let watch = Watch { open: HashSet::new(), root, reply };
        if is_alone {
            let open = HashSet::from([watch.root.clone()]);
            self.keep(id, Watch { open, ..watch });
        } else {
            self.settle(connection, id, watch);
        }
    }

    /// The waiter is gone.
    pub(crate) fn remove(&mut self, id: u64) {
        if let Some(watch) = self.watches.remove(&id) {
            self.forget(id, &watch.open);
        }
    }

    /// After a commit: looks again at the trees of those who wait for one of these jobs and for no other.
    pub(crate) fn finished(&mut self, connection: &Connection, finished: Vec<Finished>) {
        let mut complete = Vec::new();
        for Finished { job, children } in finished {
            for id in self.by_job.remove(&job).unwrap_or_default() {
                let Some(watch) = self.watches.get_mut(&id) else { continue };
                watch.open.remove(&job);
                for child in &children {
                    if watch.open.insert(child.clone()) {
                        self.by_job.entry(child.clone()).or_default().push(id);
                    }
                }
                if watch.open.is_empty() {
                    complete.push(id);
                }
            }
        }
        for id in complete {
            // A child of a later commit of the same group may have joined meanwhile.
            if self.watches.get(&id).is_some_and(|watch| watch.open.is_empty())
                && let Some(watch) = self.watches.remove(&id)
            {
                self.settle(connection, id, watch);
            }
        }
    }

    /// Rows changed behind our back: looks at every tree again.
    pub(crate) fn look_again(&mut self, connection: &Connection) {
        self.by_job.clear();
        for (id, watch) in std::mem::take(&mut self.watches) {
            self.settle(connection, id, watch);
        }
    }

    fn settle(&mut self, connection: &Connection, id: u64, watch: Watch) {
        let nodes = match read::tree(connection, &watch.root) {
            Ok(Some(nodes)) => nodes,
            Ok(None) => return drop(watch.reply.send(Ok(None))),
            Err(error) => return drop(watch.reply.send(Err(QueueError::Storage(error)))),
        };
        let open: HashSet<JobId> =
            nodes.iter().filter(|node| !node.job.status.is_terminal()).map(|node| node.job.id.clone()).collect();
        if open.is_empty() {
            return drop(watch.reply.send(Ok(Some(nodes))));
        }
        self.keep(id, Watch { open, ..watch });
    }

    fn keep(&mut self, id: u64, watch: Watch) {
        for job in &watch.open {
            self.by_job.entry(job.clone()).or_default().push(id);
        }
        self.watches.insert(id, watch);
    }

    fn forget(&mut self, id: u64, jobs: &HashSet<JobId>) {
        for job in jobs {
            if let Some(ids) = self.by_job.get_mut(job) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    self.by_job.remove(job);
                }
            }
        }
    }
}
