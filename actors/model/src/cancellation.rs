use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

type Callback = Box<dyn FnOnce() + Send>;

#[derive(Default)]
enum State {
    /// Nobody has anything to do with it yet.
    #[default]
    Idle,
    /// Called when it is cancelled.
    Watched(Callback),
    Cancelled,
}

/// Goes with a running attempt and says, at most once, that nobody wants its outcome any more. Cheap to clone; all
/// clones are one.
#[derive(Clone, Default)]
pub struct Cancellation(Arc<Mutex<State>>);

impl Cancellation {
    /// Cancels. Whoever watches is told on this thread; who comes later is told at once.
    pub fn cancel(&self) {
        let before = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), State::Cancelled);
        if let State::Watched(told) = before {
            told();
        }
    }

    /// Calls back when it is cancelled: now, if it is already. A later watcher replaces an earlier one.
    pub fn on_cancel(&self, told: impl FnOnce() + Send + 'static) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Cancelled) {
            drop(state);
            told();
        } else {
            *state = State::Watched(Box::new(told));
        }
    }

    /// Whether it is cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(*self.0.lock().unwrap_or_else(PoisonError::into_inner), State::Cancelled)
    }
}

impl fmt::Debug for Cancellation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cancellation(cancelled: {})", self.is_cancelled())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn counting(cancellation: &Cancellation) -> Arc<AtomicU32> {
        let told = Arc::new(AtomicU32::new(0));
        let count = told.clone();
        cancellation.on_cancel(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        told
    }

    #[test]
    fn a_watcher_is_told_once_whether_it_comes_before_or_after() {
        let cancellation = Cancellation::default();
        let early = counting(&cancellation);
        assert!(!cancellation.is_cancelled());
        assert_eq!(early.load(Ordering::SeqCst), 0);
        cancellation.clone().cancel();
        cancellation.cancel();
        assert_eq!(early.load(Ordering::SeqCst), 1);
        assert!(cancellation.is_cancelled());
        assert_eq!(counting(&cancellation).load(Ordering::SeqCst), 1);
    }
}
