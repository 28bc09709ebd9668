//! A configuration directory with plugins and a vault made of a map.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::Utc;
use ductile_model::{Problem, Refusal, Secret};

use crate::{
    CheckReport, Environment, Past, Plan, Purpose, SecretProjection, SecretProvider, Source, Standing, VaultPlaces,
    check, locate, plan,
};

/// Answers from a map; counts how often it was opened.
#[derive(Default)]
pub(crate) struct FakeVault {
    pub(crate) secrets: Option<HashMap<String, Result<String, &'static str>>>,
    pub(crate) standings: HashMap<String, Standing>,
    pub(crate) opened: AtomicUsize,
}

struct FakeProjection(HashMap<String, Result<String, &'static str>>, HashMap<String, Standing>);

impl SecretProvider for FakeVault {
    fn open(&self, _: &VaultPlaces, _: Purpose) -> Result<Option<Arc<dyn SecretProjection>>, Problem> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let projection = |secrets| Arc::new(FakeProjection(secrets, self.standings.clone()));
        Ok(self.secrets.clone().map(|secrets| projection(secrets) as Arc<dyn SecretProjection>))
    }
}

impl SecretProjection for FakeProjection {
    fn resolve(&self, name: &str) -> Result<Secret, &'static str> {
        self.0.get(name).cloned().unwrap_or(Err("not in the vault")).map(Secret::new)
    }

    fn fingerprint_key(&self) -> [u8; 32] {
        [7; 32]
    }

    fn standing(&self, principal: &str) -> Standing {
        self.1.get(principal).copied().unwrap_or(Standing::Unregistered)
    }
}

/// The smallest configuration that loads.
pub(crate) const MINIMAL: &str = "plugin_roots: [./plugins]\n";

pub(crate) struct Site {
    dir: tempfile::TempDir,
    pub(crate) vault: FakeVault,
    pub(crate) vars: BTreeMap<String, String>,
    pub(crate) config: PathBuf,
}

impl Site {
    /// A directory with an empty plugin root and the smallest configuration.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let site = Self { config: PathBuf::new(), dir, vault: FakeVault::default(), vars: BTreeMap::new() };
        fs::create_dir(site.path("plugins")).unwrap();
        site.file("config.yaml", MINIMAL)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file below the directory.
    pub(crate) fn file(self, name: &str, text: &str) -> Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// Writes the root file: the smallest configuration and more.
    pub(crate) fn config(self, text: &str) -> Self {
        self.file("config.yaml", &format!("{MINIMAL}{text}"))
    }

    pub(crate) fn var(mut self, name: &str, value: &str) -> Self {
        self.vars.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Puts a secret into the vault, which then exists.
    pub(crate) fn secret(self, name: &str, value: &str) -> Self {
        self.answer(name, Ok(value.to_owned()))
    }

    pub(crate) fn answer(mut self, name: &str, answer: Result<String, &'static str>) -> Self {
        self.vault.secrets.get_or_insert_with(HashMap::new).insert(name.to_owned(), answer);
        self
    }

    /// Registers a principal in the vault, which then exists.
    pub(crate) fn principal(mut self, name: &str, standing: Standing) -> Self {
        self.vault.standings.insert(name.to_owned(), standing);
        self.empty_vault()
    }

    pub(crate) fn empty_vault(mut self) -> Self {
        self.vault.secrets.get_or_insert_with(HashMap::new);
        self
    }

    /// A plugin with the command `poll`; `extra` is added to its manifest.
    pub(crate) fn plugin(self, name: &str, extra: &str) -> Self {
        let manifest = format!(
            "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: {name}\nversion: '1'\nprotocol: 2\nentrypoint: \
             run.sh\ncommands:\n  - {{name: poll, type: read}}\n  - {{name: handle}}\n{extra}"
        );
        let site = self
            .file(&format!("plugins/{name}/manifest.yaml"), &manifest)
            .file(&format!("plugins/{name}/run.sh"), "#!/bin/sh\n");
        for (path, mode) in [("", 0o755), ("/manifest.yaml", 0o644), ("/run.sh", 0o755)] {
            let path = site.path(&format!("plugins/{name}{path}"));
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        site
    }

    pub(crate) fn env(&self) -> Environment {
        Environment { vars: self.vars.clone(), home: Some(self.path("home")) }
    }

    pub(crate) fn source(&self) -> Source {
        let root = if self.config.as_os_str().is_empty() { Path::new("config.yaml") } else { &self.config };
        locate(Some(&self.dir.path().join(root)), &self.env()).unwrap()
    }

    pub(crate) fn plan(&self) -> Result<Plan, Refusal> {
        plan(&self.source(), &self.env(), &self.vault, Purpose::Admitting)
    }

    pub(crate) fn inspect(&self) -> Result<Plan, Refusal> {
        plan(&self.source(), &self.env(), &self.vault, Purpose::Inspecting)
    }

    pub(crate) fn check(&self) -> CheckReport {
        self.check_after(&Past { now: Utc::now(), has_fired: &|_, _| false })
    }

    pub(crate) fn check_after(&self, past: &Past<'_>) -> CheckReport {
        check(&self.source(), &self.env(), &self.vault, past)
    }

    /// All causes of a refused plan, one a line.
    pub(crate) fn refusal(&self) -> String {
        match self.plan() {
            Ok(_) => panic!("the configuration was accepted"),
            Err(refusal) => refusal.lines().collect::<Vec<_>>().join("\n"),
        }
    }

    /// All warnings of an accepted plan, one a line.
    pub(crate) fn warnings(&self) -> String {
        let plan = self.plan().unwrap();
        plan.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    /// The recorded configuration of an accepted plan.
    pub(crate) fn snapshot(&self) -> serde_json::Value {
        serde_json::from_str(&self.inspect().unwrap().snapshot.sanitized_config).unwrap()
    }
}
