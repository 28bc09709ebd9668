//! `ductile system status`: what can be told from outside.

use std::path::Path;
use std::time::Duration;

use ductile_config::{Plan, Purpose, plan};
use ductile_queue::{LogFilter, Reader, StoreError};
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::cli::args::Common;
use crate::cli::client::{Gateway, Limit, block_on};
use crate::cli::report::{self, Failure};
use crate::gateway::pid_lock::{LockState, lock_path, lock_state};
use crate::gateway::secrets::VaultSource;

/// How long a live gateway may take to answer.
const ANSWER: Duration = Duration::from_millis(500);

struct Check {
    name: &'static str,
    ok: bool,
    path: Option<String>,
    detail: String,
    pid: Option<u32>,
}

impl Check {
    fn new(name: &'static str, ok: bool, path: Option<&Path>, detail: impl Into<String>) -> Self {
        Self { name, ok, path: path.map(|path| path.display().to_string()), detail: detail.into(), pid: None }
    }

    fn skipped(name: &'static str) -> Self {
        Self::new(name, false, None, "skipped: the configuration is not usable")
    }
}

pub(super) fn run(require_running: bool, common: &Common) -> Result<u8, Failure> {
    let mut checks = Vec::new();
    let plan = load(common, &mut checks);
    let mut live = None;
    let mut warnings = Vec::new();
    match &plan {
        Some(plan) => {
            checks.push(state_db(&plan.config.state.path));
            warnings = failed_inits(plan);
            let lock = pid_lock(&lock_path(&plan.config.state.path), require_running);
            let held = lock.pid.is_some() || lock.detail.starts_with("gateway running");
            checks.push(lock);
            live = held.then(|| ask(plan)).flatten();
            checks.push(posture(live.as_ref()));
            if let Some(check) = live.as_ref().map(plugins) {
                checks.push(check);
            }
        }
        None => checks.extend(["state_db", "pid_lock", "boot_posture"].map(Check::skipped)),
    }
    let healthy = checks.iter().all(|check| check.ok);
    show(healthy, &checks, &warnings, live.as_ref(), common);
    Ok(u8::from(!healthy))
}

fn load(common: &Common, checks: &mut Vec<Check>) -> Option<Plan> {
    let source = match common.locate(&crate::environment()) {
        Ok(source) => source,
        Err(problem) => {
            checks.push(Check::new("config_discovery", false, None, problem.to_string()));
            checks.push(Check::skipped("config_load"));
            return None;
        }
    };
    let dir = source.config_dir.clone();
    checks.push(Check::new("config_discovery", true, Some(&dir), "config path resolved"));
    match plan(&source, &crate::environment(), &VaultSource::default(), Purpose::Inspecting) {
        Ok(plan) => {
            checks.push(Check::new("config_load", true, Some(&dir), "configuration loaded"));
            Some(plan)
        }
        Err(refusal) => {
            checks.push(Check::new("config_load", false, Some(&dir), refusal.to_string()));
            None
        }
    }
}

fn state_db(path: &Path) -> Check {
    let check = |ok, detail: String| Check::new("state_db", ok, Some(path), detail);
    if !path.exists() {
        return check(true, "will be created on start".to_owned());
    }
    match Reader::open(path) {
        Ok(_) => check(true, "database is readable".to_owned()),
        Err(StoreError::NotFound(_)) => check(true, "will be created on start".to_owned()),
        Err(error) => check(false, error.to_string()),
    }
}

/// Plugins whose newest `init` did not succeed. A database that can not be read is another check's matter.
fn failed_inits(plan: &Plan) -> Vec<String> {
    let Ok(reader) = Reader::open(&plan.config.state.path) else { return Vec::new() };
    let newest = |plugin: String| {
        let filter =
            LogFilter { plugin: Some(plugin), command: Some("init".to_owned()), limit: 1, ..LogFilter::default() };
        reader.logs(&filter).ok().and_then(|(_, rows)| rows.into_iter().next())
    };
    plan.init_jobs()
        .into_iter()
        .filter_map(|job| newest(job.plugin))
        .filter(|row| row.status != "succeeded")
        .map(|row| {
            let error = row.last_error.unwrap_or_default();
            format!("plugin \"{}\" is unhealthy: init failed: {error}", row.plugin)
        })
        .collect()
}

fn pid_lock(path: &Path, require_running: bool) -> Check {
    let (ok, detail, pid) = match lock_state(path) {
        LockState::Held(Some(pid)) => (true, "gateway running".to_owned(), Some(pid)),
        LockState::Held(None) => (false, "held, but the file holds no pid".to_owned(), None),
        LockState::Free => (!require_running, "no gateway running".to_owned(), None),
        LockState::Unreadable(error) => (false, error, None),
    };
    Check { pid, ..Check::new("pid_lock", ok, Some(path), detail) }
}

/// What the live gateway says about itself; nothing is guessed from the configuration.
fn ask(plan: &Plan) -> Option<Value> {
    if !plan.config.api.enabled {
        return None;
    }
    let mut listen = plan.config.api.listen.clone();
    if matches!(listen.host.as_str(), "" | "0.0.0.0" | "::") {
        listen.host = "127.0.0.1".to_owned();
    }
    let gateway = Gateway::at(&format!("http://{listen}"), None, Limit::Whole(ANSWER)).ok()?;
    block_on(async {
        let response = gateway.request(Method::GET, "/healthz").send().await.map_err(|e| gateway.unreachable(&e))?;
        let text = response.text().await.map_err(|e| gateway.unreachable(&e))?;
        serde_json::from_str(&text).map_err(Failure::internal)
    })
    .ok()
}

fn posture(live: Option<&Value>) -> Check {
    let detail = match live.and_then(|live| live["posture"].as_str()) {
        Some("management-only") => {
            "management-only (live): mint an API token, name it in api.auth.tokens, reload".to_owned()
        }
        Some(posture) => format!("{posture} (live)"),
        None => "no live gateway reachable".to_owned(),
    };
    Check::new("boot_posture", true, None, detail)
}

fn plugins(live: &Value) -> Check {
    let number = |key: &str| live[key].as_u64().unwrap_or(0);
    let detail = format!("{} loaded, {} circuit open", number("plugins_loaded"), number("plugins_circuit_open"));
    Check::new("plugins", true, None, detail)
}

fn show(healthy: bool, checks: &[Check], warnings: &[String], live: Option<&Value>, common: &Common) {
    let running = checks.iter().any(|check| check.name == "pid_lock" && check.pid.is_some());
    if !common.json {
        report::line(format_args!("System Status: {}", if healthy { "HEALTHY" } else { "DEGRADED" }));
        for check in checks {
            let state = if check.ok { "OK" } else { "FAIL" };
            let path = check.path.as_ref().map(|path| format!(" (path={path})")).unwrap_or_default();
            let pid = check.pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
            report::line(format_args!("- {}: {state}{path} - {}{pid}", check.name, check.detail));
        }
        warnings.iter().for_each(|warning| report::line(format_args!("- warning: {warning}")));
        return;
    }
    let mut document = Map::new();
    document.insert("healthy".into(), json!(healthy));
    document.insert("running".into(), json!(running));
    for key in ["generation", "uptime_seconds"] {
        if let Some(value) = live.map(|live| &live[key]).filter(|value| !value.is_null()) {
            document.insert(key.into(), value.clone());
        }
    }
    document.insert("checks".into(), checks.iter().map(check_json).collect());
    if !warnings.is_empty() {
        document.insert("warnings".into(), json!(warnings));
    }
    report::json(&Value::Object(document));
}

fn check_json(check: &Check) -> Value {
    let mut entry = Map::new();
    entry.insert("name".into(), json!(check.name));
    entry.insert("ok".into(), json!(check.ok));
    if let Some(path) = &check.path {
        entry.insert("path".into(), json!(path));
    }
    entry.insert("detail".into(), json!(check.detail));
    if let Some(pid) = check.pid {
        entry.insert("active_pid".into(), json!(pid));
    }
    Value::Object(entry)
}
