//! The long-running gateway: boot, the root supervisor, generations, signals and the PID lock.

mod boot;
mod bring_up;
mod control;
mod faults;
mod generation;
pub(crate) mod pid_lock;
mod process;
mod root;
pub(crate) mod secrets;
mod shutdown;
mod signals;

pub(crate) use boot::{Running, run};
