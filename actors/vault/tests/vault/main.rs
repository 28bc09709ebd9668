//! The vault as its users see it: files on disk, and the answers that come out of them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod actor;
mod authenticity;
mod crash;
mod damage;
mod delivery;
mod fixtures;
mod genesis;
mod keys;
mod lock;
mod rules;
mod saving;
mod site;
