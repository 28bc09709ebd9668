//! The first five minutes of a new user: a complete small deployment, started, with a first real job.
//!
//! Everything is made in one directory, in steps that are written down in `.quickstart.json` there; a run that was
//! cut off at any instant is finished by the next one, and two at once take turns. A directory that is not ours is never
//! touched.

mod address;
mod bundle;
mod deployment;
mod first_job;
mod steps;
mod templates;

pub(crate) use address::parse as parse_address;
pub(crate) use deployment::{Deployment, Error};
pub(crate) use first_job::{FirstJob, trigger};
