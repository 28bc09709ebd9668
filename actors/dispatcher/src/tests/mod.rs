//! Attempts with real processes.

mod actor;
mod endings;
mod outcomes;
mod pool;
mod surroundings;
