//! What people copy works: the configurations of `config-examples/`, and the commands of the documents.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod configurations;
mod documents;
#[allow(dead_code, reason = "the harness of the gateway tests, of which these need a part")]
#[path = "../gateway/site.rs"]
mod site;
