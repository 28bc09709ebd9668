//! Definitions against what becomes of them.

mod errors;
mod properties;
mod structure;

use super::world::World;
