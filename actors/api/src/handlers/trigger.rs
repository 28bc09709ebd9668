//! Starting a command: checks, one write, and for a synchronous caller the wait for the tree.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, Bytes};
use ductile_config::{ApiToken, Command, CommandType, Plugin, PluginConfig, Unavailable};
use ductile_model::Producer;
use ductile_queue::NewJob;
use futures_util::Stream;

use super::started::{Mode, Repeat, accepted, admit, enqueue, sync_slot, wait};
use crate::body;
use crate::context::Context;
use crate::envelope::{Envelope, Keys};
use crate::error::ApiError;
use crate::query::Query;
use crate::reply::Reply;
use crate::state::Api;

/// What is to be started, as the path says it.
#[derive(Debug)]
pub(crate) enum Target {
    /// `/plugin/{plugin}/{command}`.
    Command { plugin: String, command: String },
    /// `/plugins/{plugin}/run`: the command is in the body, or guessed.
    Run { plugin: String },
}

impl Target {
    fn plugin(&self) -> &str {
        match self {
            Self::Command { plugin, .. } | Self::Run { plugin } => plugin,
        }
    }

    fn keys(&self) -> Keys {
        match self {
            Self::Command { .. } => Keys::Trigger,
            Self::Run { .. } => Keys::Run,
        }
    }
}

/// `POST /plugin/{plugin}/{command}` and `POST /plugins/{plugin}/run`.
pub(crate) async fn trigger<S, B, E>(api: &Api, context: &Context, target: Target, stream: S) -> Result<Reply, ApiError>
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
{
    let begun = Instant::now();
    let token = api.authenticate(context)?;
    if !token.scopes.allows_some_command() {
        return Err(ApiError::scope(&["plugin:rw", "plugin:invoke:ro", "<plugin>:rw", "<plugin>:ro", "*"]));
    }
    let bytes: Bytes = body::read(context, api.plan.config.api.max_body_size, stream).await?;
    let envelope = Envelope::parse(&bytes, target.keys())?;
    let mode = Mode::of(&envelope, &Query::parse(context.query()), api.plan.config.api.max_sync_timeout)?;
    let repeat = Repeat::of(context, &envelope)?;
    let (plugin, config, command) = lookup(api, &target, &envelope)?;
    permit(token, &plugin.name, command)?;
    admit(api)?;
    // Taken before anything is written, and given back when the answer is sent or the client is gone.
    let slot = match mode {
        Mode::Asynchronous => None,
        Mode::Synchronous { limit } => Some((limit, sync_slot(api)?)),
    };
    let job = new_job(plugin, config, command, envelope.payload, &repeat, token);
    let started = enqueue(api, job, &repeat).await?;
    match slot {
        None => accepted(&started, &plugin.name, &command.name),
        Some((limit, _slot)) => wait(api, &started, limit, begun).await,
    }
}

/// The command, when it exists and may run in this configuration.
fn lookup<'a>(
    api: &'a Api,
    target: &Target,
    envelope: &Envelope<'_>,
) -> Result<(&'a Arc<Plugin>, &'a PluginConfig, &'a Command), ApiError> {
    let name = target.plugin();
    let plugin = api.plan.registry.get(name).ok_or_else(|| ApiError::not_found("plugin not found"))?;
    let command = match (target, &envelope.command) {
        (Target::Command { command, .. }, _) | (Target::Run { .. }, Some(command)) => command,
        (Target::Run { .. }, None) => guess(plugin)?,
    };
    if plugin.manifest.command(command).is_none() {
        return Err(ApiError::not_found("command not supported by plugin"));
    }
    api.plan.runnable(name, command).map_err(|why| match why {
        Unavailable::NotFound(_) => ApiError::not_found("plugin not found"),
        Unavailable::NoCommand { .. } => ApiError::not_found("command not supported by plugin"),
        why @ (Unavailable::NotEnabled(_) | Unavailable::MissingKeys { .. }) => ApiError::not_enabled(why.to_string()),
    })
}

/// The command that is meant when none is said.
fn guess(plugin: &Plugin) -> Result<&str, ApiError> {
    let commands: Vec<&str> = plugin.manifest.commands.iter().map(|command| &*command.name).collect();
    match commands[..] {
        _ if commands.contains(&"poll") => Ok("poll"),
        _ if commands.contains(&"handle") => Ok("handle"),
        [only] => Ok(only),
        _ => Err(ApiError::which_command(&commands)),
    }
}

fn permit(token: &ApiToken, plugin: &str, command: &Command) -> Result<(), ApiError> {
    if token.scopes.allows_command(plugin, &command.name, command.kind) {
        return Ok(());
    }
    let mut words = vec!["plugin:rw".to_owned(), format!("{plugin}:rw"), format!("{plugin}:allow:{}", command.name)];
    if command.kind == CommandType::Read {
        words.extend(["plugin:invoke:ro".to_owned(), format!("{plugin}:ro")]);
    }
    words.push("*".to_owned());
    Err(ApiError::scope(&words))
}

fn new_job(
    plugin: &Plugin,
    config: &PluginConfig,
    command: &Command,
    payload: Option<&str>,
    repeat: &Repeat,
    token: &ApiToken,
) -> NewJob {
    let payload = payload.unwrap_or("{}");
    NewJob {
        plugin: plugin.name.clone(),
        command: command.name.clone(),
        payload: Some(match &*command.name {
            "handle" => format!("{{\"type\":\"api.trigger\",\"payload\":{payload}}}"),
            _ => payload.to_owned(),
        }),
        submitted_by: Producer::Api,
        // Set-up and health checks are never tried twice: who asks decides.
        max_attempts: if matches!(&*command.name, "init" | "health") { 1 } else { config.retry.max_attempts },
        dedupe_key: repeat.dedupe_key(token, &plugin.name, &command.name),
        dedupe_ttl: None,
        parent_job_id: None,
        event_id: None,
        source_event_id: None,
        event_context_id: None,
        direct: true,
    }
}
