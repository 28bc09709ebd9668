//! What a process that reads keys does first: leave no core file, and let no other process of the same user look into
//! its memory.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Hardens this process. Best effort: a system that refuses is said so, and the program goes on.
pub(crate) fn this_process() {
    let core = getrlimit(Resource::Core);
    let none = Rlimit { current: Some(0), maximum: core.maximum };
    if let Err(error) = setrlimit(Resource::Core, none) {
        eprintln!("warning: core files could not be switched off: {error}");
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable) {
        eprintln!("warning: this process could not be made undumpable: {error}");
    }
}
