//! Faults that a test can ask for. Empty in production: only the environment variable `DUCTILE_FAULTS` fills it.
//!
//! `DUCTILE_FAULTS=crash:queue` makes the queue actor of the active generation panic at each `SIGUSR1`.

use ductile_model::Component;

/// Name of the variable.
pub(crate) const VARIABLE: &str = "DUCTILE_FAULTS";

/// What is to go wrong.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Component that crashes at a signal.
    pub(crate) crash: Option<Component>,
}

impl Faults {
    /// Reads the variable; anything it does not know is ignored.
    pub(crate) fn from_environment() -> Self {
        let text = std::env::var(VARIABLE).unwrap_or_default();
        Self { crash: text.strip_prefix("crash:").and_then(Component::from_name) }
    }
}
