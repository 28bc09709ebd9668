//! Whole loads of real files.

mod admission;
mod files;
mod keys;
mod plugins;
mod secrets;
pub(crate) mod site;
mod values;
