//! Whole loads of real files.

mod admission;
mod files;
mod keys;
mod needs;
mod plugins;
mod secrets;
mod shown;
pub(crate) mod site;
mod values;
