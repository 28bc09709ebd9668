//! What the checks of one definition find.

use crate::scalar::Scalar;
use crate::yaml::Place;

/// Something wrong in a definition: where in the file, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) place: Place,
    pub(crate) message: String,
}

impl Fault {
    /// A message behind the position it is about, such as `if.all[1].path`.
    pub(crate) fn at(place: Place, position: &str, message: impl std::fmt::Display) -> Self {
        Self { place, message: format!("{position}: {message}") }
    }
}

/// What a message may quote: what came from the environment may be a secret and is only named.
pub(crate) fn quoted<'s>(found: &'s str, scalar: &'s Scalar) -> &'s str {
    if scalar.vars.is_empty() { found } else { scalar.written() }
}
