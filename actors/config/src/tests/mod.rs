//! Whole loads of real files.

mod admission;
mod files;
mod keys;
mod needs;
mod plugins;
mod schedules;
mod secrets;
mod shown;
pub(crate) mod site;
mod values;
