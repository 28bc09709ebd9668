//! What paths are read from.

use serde_json::Value;

/// The values that paths may begin at. `None`: absent as a whole.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scope<'a> {
    /// The payload of the event.
    pub payload: Option<&'a Value>,
    /// The durable values of the pipeline instance.
    pub context: Option<&'a Value>,
    /// The configuration of the gated plugin.
    pub config: Option<&'a Value>,
}
