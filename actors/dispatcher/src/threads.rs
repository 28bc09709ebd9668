//! Threads that run plugins.
//!
//! A plugin is served by one thread that starts it, waits with `poll` and reaps it. Starting a process blocks until
//! the new program is loaded, which is too long for a thread of the runtime; and a thread that waits for one child
//! costs less than three pipes and a process registered with an event loop. The runtime's own blocking threads are
//! not used because they are a bounded good that database reads need too.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

const KEEP_IDLE: Duration = Duration::from_secs(10);
const STACK: usize = 512 * 1024;

type Task = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Pool {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    tasks: VecDeque<Task>,
    idle: usize,
}

static POOL: LazyLock<Pool> = LazyLock::new(Pool::default);

/// Runs `work` on a thread of its own and gives back what it returned, or what it panicked with.
///
/// # Errors
/// The system has no thread left.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<thread::Result<T>> {
    let (answer, wait) = oneshot::channel();
    POOL.submit(Box::new(move || {
        // Nobody waits any more when the attempt's task is gone; its work is done all the same.
        drop(answer.send(catch_unwind(AssertUnwindSafe(work))));
    }))?;
    wait.await.map_err(|_| io::Error::other("the thread of the attempt is gone"))
}

impl Pool {
    fn submit(&'static self, task: Task) -> io::Result<()> {
        let mut queue = self.lock();
        queue.tasks.push_back(task);
        if queue.idle >= queue.tasks.len() {
            drop(queue);
            self.wake.notify_one();
            return Ok(());
        }
        // Under the lock, so that the task to take back is this one.
        let started = thread::Builder::new().name("attempt".to_owned()).stack_size(STACK).spawn(|| self.serve());
        started.map(drop).inspect_err(|_| drop(queue.tasks.pop_back()))
    }

    fn serve(&self) {
        let mut queue = self.lock();
        loop {
            if let Some(task) = queue.tasks.pop_front() {
                drop(queue);
                task();
                queue = self.lock();
                continue;
            }
            queue.idle += 1;
            let (woken, timeout) = self.wake.wait_timeout(queue, KEEP_IDLE).unwrap_or_else(PoisonError::into_inner);
            queue = woken;
            queue.idle -= 1;
            if timeout.timed_out() && queue.tasks.is_empty() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Tasks run outside the lock and catch their panics, so it can not be left half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_comes_back_and_the_next_task_is_served() {
        let panicked = run(|| -> u8 { panic!("boom") }).await.unwrap();
        assert_eq!(panicked.unwrap_err().downcast_ref::<&str>(), Some(&"boom"));
        assert_eq!(run(|| 7).await.unwrap().unwrap(), 7);
    }

    #[tokio::test]
    async fn tasks_that_wait_for_each_other_all_get_a_thread() {
        let barrier = std::sync::Arc::new(std::sync::Barrier::new(20));
        let waits: Vec<_> = (0..20)
            .map(|_| {
                let barrier = barrier.clone();
                tokio::spawn(run(move || barrier.wait().is_leader()))
            })
            .collect();
        let mut leaders = 0;
        for wait in waits {
            leaders += usize::from(wait.await.unwrap().unwrap().unwrap());
        }
        assert_eq!(leaders, 1);
    }
}
