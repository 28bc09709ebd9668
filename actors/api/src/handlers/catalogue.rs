//! Which plugins there are.

use ductile_config::{Command, CommandType, Plugin};
use serde::Serialize;
use serde_json::Value;

use crate::context::Context;
use crate::error::ApiError;
use crate::reply::Reply;
use crate::state::Api;

/// Version of the protocol that every loaded plugin speaks.
const PROTOCOL: u32 = 2;

#[derive(Serialize)]
struct List<'a> {
    plugins: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    commands: Vec<&'a str>,
    enabled: bool,
}

impl<'a> Entry<'a> {
    fn new(api: &Api, plugin: &'a Plugin) -> Self {
        Self {
            name: &plugin.name,
            version: &plugin.manifest.version,
            description: plugin.manifest.description.as_deref(),
            commands: plugin.manifest.commands.iter().map(|command| &*command.name).collect(),
            enabled: is_enabled(api, &plugin.name),
        }
    }
}

/// `GET /plugins`.
pub(crate) fn list(api: &Api, context: &Context) -> Result<Reply, ApiError> {
    api.authenticate(context)?;
    Reply::ok(&List { plugins: api.plan.registry.iter().map(|plugin| Entry::new(api, plugin)).collect() })
}

#[derive(Serialize)]
struct Description<'a> {
    name: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    protocol: u32,
    enabled: bool,
    commands: Vec<CommandDescription<'a>>,
}

#[derive(Serialize)]
struct CommandDescription<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_schema: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_schema: Option<&'a Value>,
}

impl<'a> CommandDescription<'a> {
    fn new(command: &'a Command) -> Self {
        Self {
            name: &command.name,
            kind: match command.kind {
                CommandType::Read => "read",
                CommandType::Write => "write",
            },
            description: command.description.as_deref(),
            input_schema: command.input_schema.as_ref(),
            output_schema: command.output_schema.as_ref(),
        }
    }
}

/// `GET /plugin/{plugin}`.
pub(crate) fn show(api: &Api, context: &Context, name: &str) -> Result<Reply, ApiError> {
    let token = api.authenticate(context)?;
    if !token.scopes.allows_catalog(name) {
        let own = [format!("{name}:ro"), format!("{name}:rw")];
        return Err(ApiError::scope(&["plugin:catalog:ro", "plugin:ro", "plugin:rw", &own[0], &own[1], "*"]));
    }
    let plugin = api.plan.registry.get(name).ok_or_else(|| ApiError::not_found("plugin not found"))?;
    Reply::ok(&Description {
        name: &plugin.name,
        version: &plugin.manifest.version,
        description: plugin.manifest.description.as_deref(),
        protocol: PROTOCOL,
        enabled: is_enabled(api, name),
        commands: plugin.manifest.commands.iter().map(CommandDescription::new).collect(),
    })
}

fn is_enabled(api: &Api, plugin: &str) -> bool {
    api.plan.config.plugins.get(plugin).is_some_and(|config| config.enabled)
}
