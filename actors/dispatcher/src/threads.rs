//! Threads that run plugins.
//!
//! An attempt has one thread from its claim to its stored outcome: it starts the plugin, waits with `poll`, reaps and
//! judges it. Starting a process blocks until the new program is loaded, which is too long for a thread of the
//! runtime; a thread that waits for one child costs less than three pipes and a process registered with an event
//! loop; and every hand-over between threads that is not there is time saved on each job. The runtime's own blocking
//! threads are not used because they are a bounded good that database reads need too.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

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

/// Runs `work` on a thread of its own. Its panics end there, without a trace but the panic hook's.
///
/// # Errors
/// The system has no thread left; the work was not begun.
pub(crate) fn run(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    POOL.submit(Box::new(move || drop(catch_unwind(AssertUnwindSafe(work)))))
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

    #[test]
    fn after_a_panic_the_next_task_is_served() {
        run(|| panic!("boom")).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        run(move || sender.send(7).unwrap()).unwrap();
        assert_eq!(receiver.recv(), Ok(7));
    }

    #[test]
    fn tasks_that_wait_for_each_other_all_get_a_thread() {
        let barrier = std::sync::Arc::new(std::sync::Barrier::new(20));
        let (sender, receiver) = std::sync::mpsc::channel();
        for _ in 0..20 {
            let (barrier, sender) = (barrier.clone(), sender.clone());
            run(move || sender.send(barrier.wait().is_leader()).unwrap()).unwrap();
        }
        drop(sender);
        assert_eq!(receiver.iter().filter(|leads| *leads).count(), 1);
    }
}
