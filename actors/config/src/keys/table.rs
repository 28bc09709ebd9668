//! The rows. A row stands after the row of its parent.

use ductile_model::{CORE_PRINCIPAL, LONGEST_PRINCIPAL};

use super::Fallback::{Computed, Empty, Nothing, Text as Default};
use super::Kind::{
    Amount, Any, Bool, Duration, Free, Int, Interval, List, Listen, Map, Name, Number, NumberOrText, Path, SecretRef,
    Section, Size, Steps, Text, Url, Word,
};
use super::{Fallback, Key, Kind, Merge, Need, Reload, Zero};

/// A count of at least 1; 0 asks for the default.
const COUNT: Kind = Int { min: 0, max: u32::MAX as i64, zero: Zero::Default };
/// A count of at least 1, where 0 is out of range.
const POSITIVE: Kind = Int { min: 1, max: u32::MAX as i64, zero: Zero::Itself };
/// A count where 0 has a meaning of its own.
const FROM_ZERO: Kind = Int { min: 0, max: u32::MAX as i64, zero: Zero::Itself };
/// A cap where 0 is none. One that is negative is refused where pipelines are, together with what else is wrong there.
const DEPTH: Kind = Int { min: i32::MIN as i64, max: u32::MAX as i64, zero: Zero::Itself };
/// User and group ids.
const UID: Kind = Int { min: 1, max: 4_294_967_294, zero: Zero::Itself };
/// A time; 0 asks for the default.
const TIME: Kind = Duration { zero: Zero::Default };
/// A time where 0 has a meaning of its own.
const TIME_FROM_ZERO: Kind = Duration { zero: Zero::Itself };

const fn key(path: &'static str, kind: Kind, fallback: Fallback) -> Key {
    let merge = match kind {
        Section => Merge::Recurse,
        Map => Merge::Replace,
        List | Steps => Merge::Append,
        _ => Merge::Last,
    };
    Key { path, kind, fallback, reload: Reload::Swap, merge, need: Need::Optional }
}

impl Key {
    const fn reload(mut self, reload: Reload) -> Self {
        self.reload = reload;
        self
    }

    const fn sticky(mut self) -> Self {
        self.merge = Merge::Sticky;
        self
    }

    const fn required(mut self) -> Self {
        self.need = Need::Required;
        self
    }

    const fn required_for(mut self, key: &'static str, values: &'static [&'static str]) -> Self {
        self.need = Need::RequiredFor { key, values };
        self
    }

    const fn one_of(mut self, keys: &'static [&'static str]) -> Self {
        self.need = Need::OneOf(keys);
        self
    }
}

/// A name of another gateway.
const GATEWAY: Kind = Name { longest: 63, reserved: &[] };
/// A principal that a plugin may act as.
const PRINCIPAL: Kind = Name { longest: LONGEST_PRINCIPAL, reserved: &[CORE_PRINCIPAL] };

/// When a schedule fires.
const TRIGGERS: &[&str] = &["every", "cron", "at", "after"];
/// What a webhook starts.
const TARGETS: &[&str] = &["plugin", "pipeline", "event"];
/// How a webhook names its secrets.
const HOOK_SECRETS: &[&str] = &["secret_ref", "secret_refs"];
/// How a peer names its secrets.
const PEER_SECRETS: &[&str] = &["secret_ref", "keys"];

/// Schemes whose sender decides in which header the signature comes.
const HEADER_SCHEMES: &[&str] = &["hmac-sha256", "hmac-sha256-base64", "token"];
const SCHEMES: &[&str] = &[
    "hmac-sha256",
    "github",
    "hmac-sha256-base64",
    "shopify",
    "stripe",
    "slack",
    "standard",
    "token",
    "bearer",
    "discord",
];

pub(super) static KEYS: &[Key] = &[
    key("include", List, Empty),
    key("include.*", Text, Nothing),
    key("environment_vars", Section, Empty),
    key("environment_vars.include", List, Empty),
    key("environment_vars.include.*", Text, Nothing),
    // The service itself.
    key("service", Section, Empty),
    key("service.name", Text, Default("ductile")),
    key("service.tick_interval", TIME, Default("60s")),
    key("service.log_level", Word(&["debug", "info", "warn", "error"]), Default("info")),
    key("service.log_format", Word(&["json", "text"]), Default("json")),
    key("service.dedupe_ttl", TIME, Default("24h")),
    key("service.job_queue_retention", TIME, Default("24h")),
    key("service.job_log_retention", TIME, Default("30d")),
    key("service.job_transitions_retention", TIME, Default("30d")),
    key("service.job_attempts_retention", TIME, Default("30d")),
    key("service.breaker_transitions_retention", TIME, Default("90d")),
    key("service.max_workers", POSITIVE, Computed),
    key("service.hook_max_depth", FROM_ZERO, Default("4")),
    key("service.drain_timeout", TIME_FROM_ZERO, Default("60s")),
    key("service.plugin_env_passthrough", List, Empty),
    key("service.plugin_env_passthrough.*", Text, Nothing),
    key("service.no_new_privs", Bool, Default("false")).reload(Reload::Restart),
    key("service.cgroups", Word(&["auto", "off"]), Default("auto")).reload(Reload::Restart),
    key("service.unconfined", Bool, Default("false")),
    key("service.admission", Section, Empty),
    key("service.admission.verify_integrity_on_boot", Bool, Default("false")),
    key("service.admission.fail_on_drift", Bool, Default("false")),
    key("service.admission.validate_config_on_boot", Bool, Default("false")),
    key("service.admission.require_api_auth", Bool, Default("false")),
    key("service.admission.fail_on_sidedoor", Bool, Default("false")),
    key("service.admission.refuse_cleartext", Bool, Default("false")),
    key("service.strict_mode", Bool, Default("false")),
    key("service.allow_symlinks", Bool, Default("false")),
    key("service.api_port", Int { min: 1, max: 65_535, zero: Zero::Itself }, Nothing).reload(Reload::Rebind),
    // Where things lie.
    key("state", Section, Empty),
    key("state.path", Path, Computed).reload(Reload::Restart),
    key("state.synchronous", Word(&["normal", "full"]), Default("normal")),
    key("database", Section, Empty),
    key("database.path", Path, Nothing).reload(Reload::Restart),
    key("secrets", Section, Empty),
    key("secrets.age_key_file", Path, Nothing),
    key("secrets.vault_file", Path, Computed),
    // The HTTP interface.
    key("api", Section, Empty),
    key("api.enabled", Bool, Default("false")),
    key("api.listen", Listen, Computed).reload(Reload::Rebind),
    key("api.management_socket", Path, Computed).reload(Reload::Rebind),
    key("api.ui", Bool, Default("true")),
    key("api.allowed_origins", List, Empty),
    key("api.allowed_origins.*", Text, Nothing),
    key("api.max_concurrent_sync", POSITIVE, Default("10")),
    key("api.max_sync_timeout", TIME, Default("5m")),
    key("api.max_body_size", Size, Default("4MB")),
    key("api.max_queue_depth", Int { min: 0, max: i64::MAX, zero: Zero::Itself }, Default("10000")),
    key("api.max_event_streams", COUNT, Default("64")),
    key("api.rate_limit", Section, Empty),
    key("api.rate_limit.requests_per_second", Number, Default("0")),
    key("api.rate_limit.burst", COUNT, Computed),
    key("api.discovery", Word(&["open", "token"]), Default("open")),
    key("api.auth", Section, Empty),
    key("api.auth.tokens", List, Empty),
    key("api.auth.tokens.*", Section, Nothing),
    key("api.auth.tokens.*.name", Text, Nothing),
    key("api.auth.tokens.*.secret_ref", SecretRef, Nothing),
    key("api.auth.tokens.*.scopes", List, Nothing),
    key("api.auth.tokens.*.scopes.*", Text, Nothing),
    key("api.auth.tokens.*.scopes_file", Text, Nothing),
    key("api.auth.tokens.*.scopes_hash", Text, Nothing),
    key("api.auth.tokens.*.description", Text, Nothing),
    key("api.auth.tokens.*.created_at", Text, Nothing),
    // Plugins.
    key("plugin_roots", List, Empty),
    key("plugin_roots.*", Path, Nothing),
    key("tcc_paths", List, Empty).reload(Reload::Boot),
    key("tcc_paths.*", Path, Nothing),
    key("plugins", Map, Empty),
    key("plugins.*", Section, Empty),
    key("plugins.*.enabled", Bool, Default("false")),
    key("plugins.*.uses", Text, Nothing),
    key("plugins.*.run_as", Text, Nothing),
    key("plugins.*.vault_principal", PRINCIPAL, Nothing),
    key("plugins.*.requires_vault", Bool, Default("false")),
    key("plugins.*.schedules", List, Empty),
    key("plugins.*.schedules.*", Section, Nothing),
    key("plugins.*.schedules.*.id", Text, Default("default")),
    key("plugins.*.schedules.*.every", Interval, Nothing).one_of(TRIGGERS),
    key("plugins.*.schedules.*.cron", Text, Nothing).one_of(TRIGGERS),
    key("plugins.*.schedules.*.at", Text, Nothing).one_of(TRIGGERS),
    key("plugins.*.schedules.*.after", TIME_FROM_ZERO, Nothing).one_of(TRIGGERS),
    key("plugins.*.schedules.*.command", Text, Default("poll")),
    key("plugins.*.schedules.*.payload", Free, Empty),
    key("plugins.*.schedules.*.jitter", TIME_FROM_ZERO, Default("0")),
    key("plugins.*.schedules.*.only_between", Text, Nothing),
    key("plugins.*.schedules.*.not_on", List, Empty),
    key("plugins.*.schedules.*.not_on.*", NumberOrText, Nothing),
    key("plugins.*.schedules.*.timezone", Text, Nothing),
    key("plugins.*.schedules.*.preferred_window", Section, Nothing),
    key("plugins.*.schedules.*.preferred_window.start", Text, Nothing),
    key("plugins.*.schedules.*.preferred_window.end", Text, Nothing),
    key("plugins.*.schedules.*.catch_up", Word(&["skip", "run_once", "run_all"]), Default("skip")),
    key("plugins.*.schedules.*.if_running", Word(&["skip", "queue", "cancel"]), Default("skip")),
    key("plugins.*.config", Free, Empty),
    key("plugins.*.retry", Section, Empty),
    key("plugins.*.retry.max_attempts", COUNT, Default("4")).reload(Reload::Enqueue),
    key("plugins.*.retry.backoff_base", TIME, Default("30s")),
    key("plugins.*.timeouts", Section, Empty),
    key("plugins.*.timeouts.poll", TIME, Default("60s")),
    key("plugins.*.timeouts.handle", TIME, Default("120s")),
    key("plugins.*.timeouts.health", TIME, Default("10s")),
    key("plugins.*.timeouts.init", TIME, Default("30s")),
    key("plugins.*.timeouts.*", TIME, Default("60s")),
    key("plugins.*.circuit_breaker", Section, Empty),
    key("plugins.*.circuit_breaker.threshold", COUNT, Default("3")),
    key("plugins.*.circuit_breaker.reset_after", TIME, Default("30m")),
    key("plugins.*.max_outstanding_polls", COUNT, Default("1")),
    key("plugins.*.parallelism", POSITIVE, Computed),
    key("plugins.*.notify_on_complete", Bool, Default("false")),
    // Accounts that plugins may run as.
    key("accounts", Map, Empty),
    key("accounts.*", Section, Empty),
    key("accounts.*.uid", UID, Nothing),
    key("accounts.*.gid", UID, Nothing),
    key("accounts.*.user", Text, Nothing),
    key("accounts.*.state_dir", Path, Nothing),
    key("accounts.*.home", Path, Nothing),
    key("accounts.*.groups", List, Empty),
    key("accounts.*.groups.*", NumberOrText, Nothing),
    key("accounts.*.limits", Section, Empty),
    key("accounts.*.limits.nofile", FROM_ZERO, Nothing),
    key("accounts.*.limits.nproc", FROM_ZERO, Nothing),
    key("accounts.*.limits.cpu", FROM_ZERO, Nothing),
    key("accounts.*.limits.fsize", Amount, Nothing),
    key("accounts.*.limits.core", Amount, Default("0")),
    key("accounts.*.limits.memory", Size, Nothing),
    key("accounts.*.no_new_privs", Bool, Default("true")),
    key("accounts.*.landlock", Word(&["off", "auto", "require"]), Default("off")),
    key("accounts.*.write_paths", List, Empty),
    key("accounts.*.write_paths.*", Text, Nothing),
    key("accounts.*.seccomp", Word(&["off", "basic"]), Default("off")),
    // Other gateways.
    key("instances", List, Empty),
    key("instances.*", Section, Nothing),
    key("instances.*.name", GATEWAY, Nothing).required(),
    key("instances.*.enabled", Bool, Default("false")),
    key("instances.*.base_url", Url, Nothing).required(),
    key("instances.*.ingress_path", Text, Nothing).required(),
    key("instances.*.secret_ref", SecretRef, Nothing).required(),
    key("instances.*.key_id", Text, Nothing),
    key("instances.*.timeout", TIME, Default("10s")),
    key("instances.*.allow", List, Empty),
    key("instances.*.allow.*", Text, Nothing),
    key("instances.*.sync_timeout", TIME, Default("60s")),
    key("instances.*.retry", Section, Empty),
    key("instances.*.retry.max_attempts", COUNT, Default("4")),
    key("instances.*.retry.backoff_base", TIME, Default("30s")),
    key("instances.*.parallelism", COUNT, Default("2")),
    // Its presence opens the ingress, so it is not filled in.
    key("remote_ingress", Section, Nothing),
    key("remote_ingress.listen_path", Text, Default("/ingest/peer")),
    key("remote_ingress.max_body_size", Size, Default("1MB")),
    key("remote_ingress.allowed_clock_skew", TIME, Default("5m")),
    key("remote_ingress.require_key_id", Bool, Default("false")).sticky(),
    key("remote_ingress.sync", Section, Empty),
    key("remote_ingress.sync.enabled", Bool, Default("false")),
    key("remote_ingress.sync.max_timeout", TIME, Default("30s")),
    key("remote_ingress.sync.max_concurrent", COUNT, Default("4")),
    key("remote_ingress.peers", List, Empty),
    key("remote_ingress.peers.*", Section, Nothing),
    key("remote_ingress.peers.*.name", GATEWAY, Nothing).required(),
    key("remote_ingress.peers.*.enabled", Bool, Default("false")),
    key("remote_ingress.peers.*.secret_ref", SecretRef, Nothing).one_of(PEER_SECRETS),
    key("remote_ingress.peers.*.key_id", Text, Nothing),
    key("remote_ingress.peers.*.keys", List, Nothing).one_of(PEER_SECRETS),
    key("remote_ingress.peers.*.keys.*", Section, Nothing),
    key("remote_ingress.peers.*.keys.*.key_id", Text, Nothing).required(),
    key("remote_ingress.peers.*.keys.*.secret_ref", SecretRef, Nothing).required(),
    key("remote_ingress.peers.*.accept", List, Empty),
    key("remote_ingress.peers.*.accept.*", Text, Nothing),
    key("remote_ingress.peers.*.baggage", Section, Empty),
    key("remote_ingress.peers.*.baggage.allow", List, Empty),
    key("remote_ingress.peers.*.baggage.allow.*", Text, Nothing),
    key("remote_ingress.peers.*.allow_sync", Bool, Default("false")),
    key("remote_ingress.peers.*.rate_limit", Section, Nothing),
    key("remote_ingress.peers.*.rate_limit.rps", Number, Nothing),
    key("remote_ingress.peers.*.rate_limit.burst", COUNT, Nothing),
    // Routing.
    key("routes", List, Empty),
    key("routes.*", Section, Nothing),
    key("routes.*.from", Text, Nothing).required(),
    key("routes.*.event_type", Text, Nothing).required(),
    key("routes.*.to", Text, Nothing).required(),
    key("webhooks", Section, Empty),
    key("webhooks.listen", Listen, Default("127.0.0.1:8091")).reload(Reload::Rebind),
    key("webhooks.max_in_flight", COUNT, Default("128")),
    key("webhooks.trusted_proxies", List, Empty),
    key("webhooks.trusted_proxies.*", Text, Nothing),
    key("webhooks.endpoints", List, Empty),
    key("webhooks.endpoints.*", Section, Nothing),
    key("webhooks.endpoints.*.name", Text, Computed),
    key("webhooks.endpoints.*.path", Text, Nothing).required(),
    key("webhooks.endpoints.*.plugin", Text, Nothing).one_of(TARGETS),
    key("webhooks.endpoints.*.pipeline", Text, Nothing).one_of(TARGETS),
    key("webhooks.endpoints.*.event", Text, Nothing).one_of(TARGETS),
    key("webhooks.endpoints.*.command", Text, Default("handle")),
    key("webhooks.endpoints.*.event_type", Text, Default("webhook.received")),
    key("webhooks.endpoints.*.secret_ref", SecretRef, Nothing).one_of(HOOK_SECRETS),
    key("webhooks.endpoints.*.secret_refs", List, Nothing).one_of(HOOK_SECRETS),
    key("webhooks.endpoints.*.secret_refs.*", SecretRef, Nothing),
    key("webhooks.endpoints.*.scheme", Word(SCHEMES), Default("hmac-sha256")),
    key("webhooks.endpoints.*.signature_header", Text, Nothing).required_for("scheme", HEADER_SCHEMES),
    key("webhooks.endpoints.*.timestamp_header", Text, Nothing),
    key("webhooks.endpoints.*.signed_payload", Text, Nothing),
    key("webhooks.endpoints.*.tolerance", TIME, Default("5m")),
    key("webhooks.endpoints.*.id_header", Text, Nothing),
    key("webhooks.endpoints.*.id_path", Text, Nothing),
    key("webhooks.endpoints.*.type_header", Text, Nothing),
    key("webhooks.endpoints.*.type_path", Text, Nothing),
    key("webhooks.endpoints.*.dedupe", Word(&["id", "body", "none"]), Computed),
    key("webhooks.endpoints.*.payload_mode", Word(&["auto", "full"]), Default("auto")),
    key("webhooks.endpoints.*.forward_headers", List, Empty),
    key("webhooks.endpoints.*.forward_headers.*", Text, Nothing),
    key("webhooks.endpoints.*.max_body_size", Size, Default("1MB")),
    key("webhooks.endpoints.*.rate_limit", Section, Nothing),
    key("webhooks.endpoints.*.rate_limit.rps", Number, Nothing),
    key("webhooks.endpoints.*.rate_limit.burst", COUNT, Nothing),
    key("webhooks.endpoints.*.response", Section, Nothing),
    key("webhooks.endpoints.*.response.status", Int { min: 100, max: 599, zero: Zero::Itself }, Nothing),
    key("webhooks.endpoints.*.response.body", Any, Nothing),
    key("webhooks.endpoints.*.response.content_type", Text, Nothing),
    key("pipelines", List, Empty),
    key("pipelines.*", Section, Nothing),
    key("pipelines.*.name", Text, Nothing),
    key("pipelines.*.on", Text, Nothing),
    key("pipelines.*.on-hook", Text, Nothing),
    key("pipelines.*.on_hook", Text, Nothing),
    key("pipelines.*.from_plugin", Text, Nothing),
    key("pipelines.*.if", Any, Nothing),
    key("pipelines.*.max_depth", DEPTH, Nothing),
    key("pipelines.*.execution_mode", Word(&["async", "synchronous"]), Default("async")),
    key("pipelines.*.timeout", TIME_FROM_ZERO, Default("30s")),
    key("pipelines.*.steps", Steps, Empty),
    key("<step>.id", Text, Nothing),
    key("<step>.uses", Text, Nothing),
    key("<step>.command", Text, Nothing),
    key("<step>.call", Text, Nothing),
    key("<step>.relay", Section, Nothing),
    key("<step>.relay.to", Text, Nothing),
    key("<step>.relay.event", Text, Nothing),
    key("<step>.relay.dedupe_key", Text, Nothing),
    key("<step>.relay.with", Any, Nothing),
    key("<step>.relay.baggage", Any, Nothing),
    key("<step>.relay.reply", Section, Nothing),
    key("<step>.relay.reply.mode", Text, Nothing),
    key("<step>.relay.reply.timeout", TIME, Nothing),
    key("<step>.steps", Steps, Nothing),
    key("<step>.split", Steps, Nothing),
    key("<step>.if", Any, Nothing),
    key("<step>.with", Any, Nothing),
    key("<step>.baggage", Any, Nothing),
    // The older table of named secrets.
    key("tokens", List, Empty),
    key("tokens.*", Section, Nothing),
    key("tokens.*.name", Text, Nothing),
    key("tokens.*.key", Text, Nothing),
    key("tokens.*.scopes_file", Text, Nothing),
    key("tokens.*.scopes_hash", Text, Nothing),
    key("tokens.*.description", Text, Nothing),
    key("tokens.*.created_at", Text, Nothing),
];
