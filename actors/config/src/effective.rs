//! The effective configuration: what the merged files mean, defaults filled in, checked.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ductile_model::parse_duration;
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::load::listen;

/// The whole effective configuration. Sections whose feature is not built yet are checked and kept for the snapshot
/// only.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// `service`.
    pub service: Service,
    /// `state` and its alias `database`.
    pub state: State,
    /// `secrets`.
    pub secrets: SecretsConfig,
    /// `api`.
    pub api: Api,
    /// `plugin_roots`, absolute, in scan order, without repetition.
    pub plugin_roots: Vec<PathBuf>,
    /// `plugins`, by configured name.
    pub plugins: BTreeMap<String, PluginConfig>,
}

/// `service`.
#[derive(Debug, Clone, Deserialize)]
pub struct Service {
    /// Instance identity.
    pub name: String,
    /// Upper bound of the scheduler's sleep.
    #[serde(deserialize_with = "duration")]
    pub tick_interval: Duration,
    /// Least severe level that is logged.
    pub log_level: LogLevel,
    /// Form of log lines.
    pub log_format: LogFormat,
    /// Success window of dedupe.
    #[serde(deserialize_with = "duration")]
    pub dedupe_ttl: Duration,
    /// How long terminal queue rows are kept.
    #[serde(deserialize_with = "duration")]
    pub job_queue_retention: Duration,
    /// How long job log rows are kept.
    #[serde(deserialize_with = "duration")]
    pub job_log_retention: Duration,
    /// How long job transitions are kept.
    #[serde(deserialize_with = "duration")]
    pub job_transitions_retention: Duration,
    /// How long job attempts are kept.
    #[serde(deserialize_with = "duration")]
    pub job_attempts_retention: Duration,
    /// How long breaker transitions are kept.
    #[serde(deserialize_with = "duration")]
    pub breaker_transitions_retention: Duration,
    /// Jobs that run at once, at least 1.
    pub max_workers: u32,
    /// Depth limit of lifecycle hooks.
    pub hook_max_depth: u32,
    /// Time running plugins get at a stop; zero = none.
    #[serde(deserialize_with = "duration")]
    pub drain_timeout: Duration,
    /// Extra environment variable names given to plugins.
    pub plugin_env_passthrough: Vec<String>,
    /// Set `no_new_privs` on the gateway at boot.
    pub no_new_privs: bool,
    /// `cgroups: auto` (true) or `off`.
    #[serde(deserialize_with = "automatic")]
    pub cgroups: bool,
    /// Run every plugin at the gateway's uid on purpose.
    pub unconfined: bool,
    /// Admission gates.
    pub admission: Admission,
    /// Whether symlinks in configuration and plugins are accepted.
    pub allow_symlinks: bool,
}

/// `service.log_level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// `debug`.
    Debug,
    /// `info`.
    Info,
    /// `warn`.
    Warn,
    /// `error`.
    Error,
}

/// `service.log_format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// One readable line.
    Text,
}

/// `service.admission`: independent gates of a start or reload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "six independent switches of the configuration")]
pub struct Admission {
    /// `verify_integrity_on_boot`.
    pub verify_integrity_on_boot: bool,
    /// `fail_on_drift`.
    pub fail_on_drift: bool,
    /// `validate_config_on_boot`.
    pub validate_config_on_boot: bool,
    /// `require_api_auth`.
    pub require_api_auth: bool,
    /// `fail_on_sidedoor`.
    pub fail_on_sidedoor: bool,
    /// `refuse_cleartext`.
    pub refuse_cleartext: bool,
}

/// `state`.
#[derive(Debug, Clone, Deserialize)]
pub struct State {
    /// The database file, absolute.
    pub path: PathBuf,
    /// Durability of a commit against power loss.
    pub synchronous: Synchronous,
}

/// `state.synchronous`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Synchronous {
    /// A commit survives a killed process.
    Normal,
    /// A commit survives a power cut too.
    Full,
}

/// `secrets`.
#[derive(Debug, Clone, Deserialize)]
pub struct SecretsConfig {
    /// `age_key_file` when it is written, absolute.
    pub age_key_file: Option<PathBuf>,
    /// The vault blob, absolute.
    pub vault_file: PathBuf,
}

/// A `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddr {
    /// Name or address; an IPv6 address is without brackets.
    pub host: String,
    /// 0 = any free port.
    pub port: u16,
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// `api`.
#[derive(Debug, Clone, Deserialize)]
pub struct Api {
    /// Whether the API listener is opened.
    pub enabled: bool,
    /// Where it listens.
    #[serde(deserialize_with = "address")]
    pub listen: ListenAddr,
    /// Unix socket of the management posture, absolute.
    pub management_socket: PathBuf,
    /// Serve the browser dashboard.
    pub ui: bool,
    /// CORS origins, exact, or `*`.
    pub allowed_origins: Vec<String>,
    /// Synchronous requests waiting at once.
    pub max_concurrent_sync: u32,
    /// Upper bound of a synchronous wait.
    #[serde(deserialize_with = "duration")]
    pub max_sync_timeout: Duration,
    /// Bytes of a request body.
    pub max_body_size: u64,
    /// Jobs queued and running from which new work is refused; 0 = no limit.
    pub max_queue_depth: u64,
    /// Open event streams.
    pub max_event_streams: u32,
    /// Token bucket per credential; `None` = off.
    #[serde(deserialize_with = "rate_limit")]
    pub rate_limit: Option<RateLimit>,
    /// Whether discovery documents need a token.
    #[serde(rename = "discovery", deserialize_with = "needs_token")]
    pub discovery_needs_token: bool,
    /// `auth.tokens`, unresolved.
    #[serde(rename = "auth", deserialize_with = "tokens")]
    pub tokens: Vec<ApiTokenEntry>,
}

/// `api.rate_limit`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateLimit {
    /// Tokens per second.
    pub requests_per_second: f64,
    /// Bucket size.
    pub burst: u32,
}

/// One entry of `api.auth.tokens`.
#[derive(Debug, Clone, Deserialize)]
pub struct ApiTokenEntry {
    /// `name`.
    pub name: Option<String>,
    /// Vault secret with the bearer value.
    #[serde(default)]
    pub secret_ref: String,
    /// Scope words, from `scopes` or from the scope file.
    #[serde(default)]
    pub scopes: Vec<String>,
}

/// `plugins.<name>`, defaults filled in.
#[derive(Debug, Clone, Deserialize)]
pub struct PluginConfig {
    /// Whether it may run.
    pub enabled: bool,
    /// Base plugin of an alias.
    pub uses: Option<String>,
    /// Account granted.
    pub run_as: Option<String>,
    /// Principal whose secrets are composed, when written.
    pub vault_principal: Option<String>,
    /// No secret deliverable fails the attempt.
    pub requires_vault: bool,
    /// `config` as compact JSON text of an object; integers keep all their digits.
    #[serde(deserialize_with = "raw")]
    pub config: Arc<RawValue>,
    /// Retry policy.
    pub retry: Retry,
    /// Time limits by command.
    #[serde(deserialize_with = "timeouts")]
    pub timeouts: Timeouts,
    /// Breaker policy of scheduler jobs.
    pub circuit_breaker: CircuitBreaker,
    /// Outstanding polls the scheduler allows.
    pub max_outstanding_polls: u32,
    /// `parallelism` when it is written.
    pub parallelism: Option<u32>,
    /// Opt in to lifecycle hooks.
    pub notify_on_complete: bool,
}

/// `plugins.<name>.retry`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Retry {
    /// Attempts in all, the first included.
    pub max_attempts: u32,
    /// Base of the back-off.
    #[serde(deserialize_with = "duration")]
    pub backoff_base: Duration,
}

/// `plugins.<name>.timeouts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts(pub BTreeMap<String, Duration>);

impl Timeouts {
    /// Limit of one command: what is written, else the default of that command.
    #[must_use]
    pub fn of(&self, command: &str) -> Duration {
        self.0.get(command).copied().unwrap_or_else(|| default_timeout(command))
    }
}

/// Default time limit of a command.
#[must_use]
fn default_timeout(command: &str) -> Duration {
    Duration::from_secs(match command {
        "handle" => 120,
        "health" => 10,
        "init" => 30,
        _ => 60,
    })
}

/// `plugins.<name>.circuit_breaker`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct CircuitBreaker {
    /// Failures in a row that open it.
    pub threshold: u32,
    /// Time until a probe.
    #[serde(deserialize_with = "duration")]
    pub reset_after: Duration,
}

// The effective configuration is JSON that was checked key by key; what follows reads it into types.

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn automatic<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(String::deserialize(deserializer)? == "auto")
}

fn needs_token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(String::deserialize(deserializer)? == "token")
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ListenAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    listen(&text).ok_or_else(|| D::Error::custom("not a host:port"))
}

fn rate_limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RateLimit>, D::Error> {
    #[derive(Deserialize)]
    struct Written {
        requests_per_second: f64,
        burst: u32,
    }
    let Written { requests_per_second, burst } = Written::deserialize(deserializer)?;
    Ok((requests_per_second > 0.0).then_some(RateLimit { requests_per_second, burst: burst.max(1) }))
}

fn tokens<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ApiTokenEntry>, D::Error> {
    #[derive(Deserialize)]
    struct Auth {
        tokens: Vec<ApiTokenEntry>,
    }
    Auth::deserialize(deserializer).map(|auth| auth.tokens)
}

fn raw<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<RawValue>, D::Error> {
    let text = Value::deserialize(deserializer)?.to_string();
    RawValue::from_string(text).map(Arc::from).map_err(D::Error::custom)
}

fn timeouts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timeouts, D::Error> {
    let written = BTreeMap::<String, String>::deserialize(deserializer)?;
    let limits = written.into_iter().map(|(command, text)| Ok((command, parse_duration(&text)?)));
    limits.collect::<Result<_, ductile_model::DurationError>>().map(Timeouts).map_err(D::Error::custom)
}
