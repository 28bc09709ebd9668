//! Black-box tests: the real binary, real plugins, real SQLite, real HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test or bench that can not go on may panic")]

mod access;
mod boot;
mod cancel;
mod command_line;
mod crash;
mod database;
mod event_ids;
mod faults;
mod first_minutes;
mod first_pipeline;
mod job_command;
mod jobs;
mod maintenance;
mod migrate;
mod operations;
mod pipeline_command;
mod pipeline_keys;
mod pipelines;
mod pipelines_crash;
mod pipelines_hooks;
mod pipelines_limits;
mod pipelines_ways;
mod plugins;
mod reload;
mod retention;
mod retry;
mod schedules;
#[allow(dead_code, reason = "shared with the benches, which use other parts of it")]
mod site;
mod stopwatch;
mod supervision;
mod terminal;
mod untrusted;
mod vault_commands;
