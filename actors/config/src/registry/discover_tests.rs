use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::value::RawValue;
use tempfile::TempDir;

use super::*;
use crate::{CircuitBreaker, Retry, Timeouts};

/// A temporary plugin root. Modes are set by hand, so that the umask of whoever runs the tests does not matter.
struct Site {
    root: TempDir,
}

impl Site {
    fn new() -> Self {
        let root = TempDir::with_prefix("roots").unwrap();
        chmod(root.path(), 0o755);
        Self { root }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.root.path().join(relative)
    }

    fn dir(&self, relative: &str) -> PathBuf {
        let mut path = self.root.path().to_owned();
        for component in Path::new(relative).components() {
            path.push(component);
            if !path.exists() {
                fs::create_dir(&path).unwrap();
                chmod(&path, 0o755);
            }
        }
        path
    }

    fn file(&self, relative: &str, content: &str, mode: u32) -> PathBuf {
        let path = self.path(relative);
        fs::write(&path, content).unwrap();
        chmod(&path, mode);
        path
    }

    /// A plugin that loads.
    fn plugin(&self, relative: &str, name: &str) -> PathBuf {
        let dir = self.dir(relative);
        self.file(&format!("{relative}/manifest.yaml"), &manifest(name, ""), 0o644);
        self.file(&format!("{relative}/run.sh"), "#!/bin/sh\n", 0o755);
        dir
    }

    fn discover(&self) -> Discovery {
        self.discover_with(&BTreeMap::new(), false).unwrap()
    }

    fn discover_with(
        &self,
        plugins: &BTreeMap<String, PluginConfig>,
        allow_symlinks: bool,
    ) -> Result<Discovery, Vec<Problem>> {
        discover(&[self.root.path().to_owned()], plugins, &Shown::default(), allow_symlinks)
    }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn manifest(name: &str, more: &str) -> String {
    format!(
        "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: {name}\nversion: 1.0\nprotocol: 2\n\
         entrypoint: run.sh\ncommands: [{{name: poll}}]\n{more}"
    )
}

fn names(discovery: &Discovery) -> Vec<&str> {
    discovery.registry.iter().map(|plugin| plugin.name.as_str()).collect()
}

fn messages(discovery: &Discovery) -> Vec<&str> {
    discovery.warnings.iter().map(|warning| warning.message.as_str()).collect()
}

fn reason(discovery: &Discovery, name: &str) -> String {
    discovery.registry.rejection_of(name).map(|rejected| rejected.reason.clone()).unwrap_or_default()
}

fn config(enabled: bool, uses: Option<&str>) -> PluginConfig {
    PluginConfig {
        enabled,
        uses: uses.map(str::to_owned),
        run_as: None,
        vault_principal: None,
        requires_vault: false,
        config: Arc::from(RawValue::from_string("{}".to_owned()).unwrap()),
        retry: Retry { max_attempts: 4, backoff_base: std::time::Duration::from_secs(30) },
        timeouts: Timeouts(BTreeMap::new()),
        circuit_breaker: CircuitBreaker { threshold: 3, reset_after: std::time::Duration::from_secs(1800) },
        max_outstanding_polls: 1,
        parallelism: None,
        notify_on_complete: false,
    }
}

fn aliases(entries: &[(&str, bool, Option<&str>)]) -> BTreeMap<String, PluginConfig> {
    entries.iter().map(|(name, enabled, uses)| ((*name).to_owned(), config(*enabled, *uses))).collect()
}

#[test]
fn plugins_are_found_at_any_depth_and_below_each_other() {
    let site = Site::new();
    let a = site.plugin("a", "first");
    site.plugin("team/sub/b", "second");
    site.plugin("a/inner", "third");
    let discovery = site.discover();
    assert_eq!(names(&discovery), ["first", "second", "third"]);
    assert_eq!(messages(&discovery), Vec::<&str>::new());
    let first = discovery.registry.get("first").unwrap();
    assert_eq!(first.dir, a);
    assert_eq!(first.entrypoint, a.join("run.sh"));
    assert_eq!(first.manifest.version, "1.0");
    assert_eq!(&*first.manifest.bytes, fs::read(a.join("manifest.yaml")).unwrap().as_slice());
}

#[test]
fn hidden_and_tool_directories_are_not_entered() {
    let site = Site::new();
    for (index, dir) in [".git", "node_modules", "venv", "__pycache__", "kept/.venv"].iter().enumerate() {
        site.plugin(&format!("{dir}/p"), &format!("p{index}"));
    }
    site.plugin("kept/venv2", "kept");
    assert_eq!(names(&site.discover()), ["kept"]);
}

#[test]
fn symlinked_directories_are_never_entered() {
    let site = Site::new();
    let other = Site::new();
    other.plugin("p", "outside");
    symlink(other.path("p"), site.path("linked")).unwrap();
    for allow_symlinks in [false, true] {
        let discovery = site.discover_with(&BTreeMap::new(), allow_symlinks).unwrap();
        assert_eq!(names(&discovery), Vec::<&str>::new());
    }
}

#[test]
fn of_two_plugins_with_one_name_the_first_root_wins_and_both_paths_are_told() {
    let (first, second) = (Site::new(), Site::new());
    let kept = first.plugin("z", "same");
    let ignored = second.plugin("a", "same");
    let roots = [first.root.path().to_owned(), second.root.path().to_owned()];
    let discovery = discover(&roots, &BTreeMap::new(), &Shown::default(), false).unwrap();
    assert_eq!(discovery.registry.get("same").unwrap().dir, kept);
    let [message] = messages(&discovery)[..] else { panic!("{:?}", discovery.warnings) };
    assert!(message.contains(&format!("ignored_path {}", ignored.display())), "{message}");
    assert!(message.contains(&format!("kept_path {}", kept.display())), "{message}");
}

#[test]
fn entries_are_taken_in_byte_order() {
    let site = Site::new();
    site.plugin("a", "same");
    let kept = site.plugin("B", "same");
    assert_eq!(site.discover().registry.get("same").unwrap().dir, kept);
}

#[test]
fn a_root_is_scanned_once_also_when_it_lies_in_another_root() {
    let site = Site::new();
    site.plugin("team/a", "a");
    let root = site.root.path().to_owned();
    let discovery =
        discover(&[root.clone(), root, site.path("team")], &BTreeMap::new(), &Shown::default(), false).unwrap();
    assert_eq!(names(&discovery), ["a"]);
    assert_eq!(messages(&discovery), Vec::<&str>::new());
}

#[test]
fn unusable_roots_refuse_naming_every_path() {
    let site = Site::new();
    let file = site.file("file", "", 0o644);
    let missing = site.path("missing");
    let problems = discover(&[missing.clone(), file.clone()], &BTreeMap::new(), &Shown::default(), false).unwrap_err();
    let texts: Vec<_> = problems.iter().map(|problem| problem.message.clone()).collect();
    assert_eq!(
        texts,
        [
            format!("plugin root does not exist: {}", missing.display()),
            format!("plugin root is not a directory: {}", file.display()),
        ]
    );
    assert!(problems.iter().all(|problem| problem.field == "plugin_roots"));
    assert_eq!(discover(&[], &BTreeMap::new(), &Shown::default(), false).unwrap_err().len(), 1);
}

#[test]
fn a_missing_manifest_is_told_for_direct_subdirectories_only() {
    let site = Site::new();
    site.dir("forgotten/deeper");
    site.file("forgotten/run.py", "", 0o755);
    site.file("forgotten/deeper/run.py", "", 0o755);
    site.dir("plain");
    site.file("plain/notes.txt", "", 0o644);
    let discovery = site.discover();
    let [message] = messages(&discovery)[..] else { panic!("{:?}", discovery.warnings) };
    assert!(message.contains("missing manifest.yaml"), "{message}");
    assert!(message.contains(&site.path("forgotten").display().to_string()), "{message}");
}

#[test]
fn one_bad_candidate_leaves_the_others_alone_and_its_reason_is_kept() {
    let site = Site::new();
    site.plugin("good", "good");
    site.plugin("bad", "broken");
    site.file("bad/manifest.yaml", &manifest("broken", "").replace("protocol: 2", "protocol: 1"), 0o644);
    let discovery = site.discover();
    assert_eq!(names(&discovery), ["good"]);
    assert_eq!(reason(&discovery, "broken"), "unsupported protocol version 1 (supported: 2)");
    assert_eq!(reason(&discovery, "bad"), reason(&discovery, "broken"));
    let warning = &discovery.warnings[0];
    assert_eq!(warning.category, "plugin_refs");
    assert_eq!(warning.file.as_deref(), Some(site.path("bad").as_path()));
    for part in ["failed to load plugin", "path ", "root ", "error: unsupported protocol version 1"] {
        assert!(warning.message.contains(part), "{}", warning.message);
    }
}

#[test]
fn a_manifest_warning_names_plugin_and_key() {
    let site = Site::new();
    site.plugin("a", "demo");
    site.file("a/manifest.yaml", &manifest("demo", "colour: red\n"), 0o644);
    assert_eq!(messages(&site.discover()), ["manifest of plugin \"demo\": unknown key \"colour\" is ignored"]);
}

#[test]
fn a_huge_manifest_is_refused() {
    let site = Site::new();
    site.plugin("a", "demo");
    site.file("a/manifest.yaml", &manifest("demo", &format!("# {}\n", "x".repeat(256 * 1024))), 0o644);
    assert!(reason(&site.discover(), "a").contains("manifest is larger than 262144 bytes"));
}

#[test]
fn nothing_on_the_way_to_the_entrypoint_may_be_world_writable() {
    for (path, mode, expected) in [
        ("team/a", 0o777, "plugin directory is world-writable: "),
        ("team/a", 0o1777, "plugin directory is world-writable: "),
        ("team", 0o757, "directory is world-writable: "),
        ("", 0o757, "plugin root is world-writable: "),
        ("team/a/manifest.yaml", 0o646, "manifest is world-writable: "),
        ("team/a/bin", 0o757, "directory is world-writable: "),
        ("team/a/bin/run.sh", 0o757, "entrypoint is world-writable: "),
    ] {
        let site = Site::new();
        site.plugin("team/a", "demo");
        site.dir("team/a/bin");
        site.file("team/a/bin/run.sh", "#!/bin/sh\n", 0o755);
        let text = manifest("demo", "").replace("entrypoint: run.sh", "entrypoint: ./bin/run.sh");
        site.file("team/a/manifest.yaml", &text, 0o644);
        assert_eq!(names(&site.discover()), ["demo"]);
        let faulty = if path.is_empty() { site.root.path().to_owned() } else { site.path(path) };
        chmod(&faulty, mode);
        let discovery = site.discover();
        assert_eq!(names(&discovery), Vec::<&str>::new(), "{path}");
        let expected = format!("{expected}{}", faulty.display());
        assert!(reason(&discovery, "demo").starts_with(&expected), "{}", reason(&discovery, "demo"));
    }
}

#[test]
fn the_entrypoint_is_a_regular_executable_file_below_its_directory() {
    for (entrypoint, expected) in [
        ("../a/run.sh", "entrypoint contains path traversal: ../a/run.sh"),
        ("bin/../run.sh", "entrypoint contains path traversal: bin/../run.sh"),
        ("/bin/sh", "entrypoint must be relative to its plugin directory: /bin/sh"),
        ("missing.sh", "entrypoint does not exist: "),
        ("plain.sh", "entrypoint is not executable: "),
        ("bin", "entrypoint is not a regular file: "),
        ("' '", "entrypoint must not be blank"),
    ] {
        let site = Site::new();
        site.plugin("a", "demo");
        site.dir("a/bin");
        site.file("a/plain.sh", "#!/bin/sh\n", 0o644);
        let text = manifest("demo", "").replace("entrypoint: run.sh", &format!("entrypoint: {entrypoint}"));
        site.file("a/manifest.yaml", &text, 0o644);
        let reason = reason(&site.discover(), "demo");
        assert!(reason.starts_with(expected), "{entrypoint}: {reason}");
    }
}

#[test]
fn a_symlinked_entrypoint_or_manifest_needs_permission_and_is_then_told() {
    let site = Site::new();
    let dir = site.plugin("a", "demo");
    fs::rename(dir.join("run.sh"), dir.join("real.sh")).unwrap();
    symlink("real.sh", dir.join("run.sh")).unwrap();
    fs::rename(dir.join("manifest.yaml"), dir.join("real.yaml")).unwrap();
    symlink("real.yaml", dir.join("manifest.yaml")).unwrap();

    let refused = reason(&site.discover(), "demo");
    assert!(refused.contains("plugin_manifest") && refused.contains("service.allow_symlinks"), "{refused}");

    let discovery = site.discover_with(&BTreeMap::new(), true).unwrap();
    assert_eq!(discovery.registry.get("demo").unwrap().entrypoint, dir.join("run.sh"));
    let real = dir.canonicalize().unwrap();
    assert_eq!(
        messages(&discovery),
        [
            format!(
                "symlink detected: kind plugin_manifest, path {}, resolved {}",
                dir.join("manifest.yaml").display(),
                real.join("real.yaml").display()
            ),
            format!(
                "symlink detected: kind plugin_entrypoint, path {}, resolved {}",
                dir.join("run.sh").display(),
                real.join("real.sh").display()
            ),
        ]
    );

    fs::remove_file(dir.join("manifest.yaml")).unwrap();
    fs::rename(dir.join("real.yaml"), dir.join("manifest.yaml")).unwrap();
    let refused = reason(&site.discover(), "demo");
    assert!(refused.contains("plugin_entrypoint") && refused.contains("service.allow_symlinks"), "{refused}");
}

#[test]
fn an_entrypoint_outside_of_its_directory_is_refused_whatever_is_allowed() {
    let site = Site::new();
    let dir = site.plugin("p", "demo");
    // A neighbour whose path begins with the same characters.
    site.dir("p2");
    site.file("p2/x", "#!/bin/sh\n", 0o755);
    let outside = Site::new();
    outside.file("x", "#!/bin/sh\n", 0o755);
    for target in [site.path("p2/x"), outside.path("x")] {
        fs::remove_file(dir.join("run.sh")).unwrap();
        symlink(&target, dir.join("run.sh")).unwrap();
        let discovery = site.discover_with(&BTreeMap::new(), true).unwrap();
        let reason = reason(&discovery, "demo");
        assert!(reason.starts_with("entrypoint lies outside of its plugin directory: "), "{reason}");
    }
}

#[test]
fn a_symlinked_root_is_refused_or_scanned_at_its_target() {
    let site = Site::new();
    site.plugin("a", "demo");
    let elsewhere = Site::new();
    let link = elsewhere.path("link");
    symlink(site.root.path(), &link).unwrap();
    for spelled in [link.clone(), PathBuf::from(format!("{}/", link.display()))] {
        let problems =
            discover(std::slice::from_ref(&spelled), &BTreeMap::new(), &Shown::default(), false).unwrap_err();
        assert!(problems[0].message.contains("plugin_root"), "{problems:?}");
        assert!(problems[0].message.contains("service.allow_symlinks"), "{problems:?}");
        let discovery = discover(&[spelled], &BTreeMap::new(), &Shown::default(), true).unwrap();
        let real = site.root.path().canonicalize().unwrap();
        assert_eq!(discovery.registry.get("demo").unwrap().dir, real.join("a"));
        assert_eq!(discovery.warnings.len(), 1);
        assert_eq!(discovery.warnings[0].category, "symlinks");
        assert!(discovery.warnings[0].message.contains("kind plugin_root"));
    }
}

#[test]
fn a_symlink_among_the_ancestors_of_a_root_does_not_count() {
    let site = Site::new();
    site.plugin("roots/a", "demo");
    let elsewhere = Site::new();
    symlink(site.root.path(), elsewhere.path("link")).unwrap();
    let root = elsewhere.path("link/roots");
    let discovery = discover(std::slice::from_ref(&root), &BTreeMap::new(), &Shown::default(), false).unwrap();
    assert_eq!(discovery.registry.get("demo").unwrap().dir, root.join("a"));
    assert_eq!(messages(&discovery), Vec::<&str>::new());
}

#[test]
fn an_alias_shares_code_under_its_own_name() {
    let site = Site::new();
    let dir = site.plugin("a", "base");
    let plugins = aliases(&[("one", true, Some("base")), ("two", true, Some("one"))]);
    let discovery = site.discover_with(&plugins, false).unwrap();
    assert_eq!(names(&discovery), ["base", "one", "two"]);
    let two = discovery.registry.get("two").unwrap();
    assert_eq!(two.uses.as_deref(), Some("one"));
    assert_eq!(two.dir, dir);
    assert!(Arc::ptr_eq(&two.manifest, &discovery.registry.get("base").unwrap().manifest));
}

#[test]
fn a_broken_alias_refuses_when_it_is_enabled_and_warns_when_it_is_not() {
    let site = Site::new();
    site.plugin("a", "base");
    for (entries, part) in [
        (vec![("x", Some("x"))], "plugins.x uses itself"),
        (vec![("x", Some("y")), ("y", Some("x"))], "x -> y -> x"),
        (vec![("x", Some("nope"))], "plugins.x uses \"nope\""),
        (vec![("base", Some("base"))], "plugins.base uses itself"),
    ] {
        let with = |enabled| {
            let entries: Vec<_> = entries.iter().map(|(name, uses)| (*name, enabled, *uses)).collect();
            site.discover_with(&aliases(&entries), false)
        };
        let problems = with(true).unwrap_err();
        assert_eq!(problems.len(), entries.len());
        assert!(problems[0].message.contains(part), "{problems:?}");
        assert_eq!(problems[0].field, format!("plugins.{}.uses", entries[0].0));
        assert_eq!(problems[0].category, "plugin_refs");
        let discovery = with(false).unwrap();
        assert_eq!(names(&discovery), ["base"]);
        assert_eq!(discovery.warnings.len(), entries.len());
    }
}

#[test]
fn an_unknown_base_that_was_left_out_is_explained() {
    let site = Site::new();
    let dir = site.plugin("a", "base");
    chmod(&dir, 0o777);
    let problems = site.discover_with(&aliases(&[("x", true, Some("base"))]), false).unwrap_err();
    assert!(problems[0].message.contains("plugin directory is world-writable"), "{problems:?}");
    assert!(problems[0].message.contains(&dir.display().to_string()), "{problems:?}");
}

#[test]
fn an_alias_wins_over_a_discovered_plugin_of_its_name() {
    let site = Site::new();
    let base = site.plugin("a", "base");
    let stray = site.plugin("b", "mailer");
    let discovery = site.discover_with(&aliases(&[("mailer", true, Some("base"))]), false).unwrap();
    assert_eq!(discovery.registry.get("mailer").unwrap().dir, base);
    let [message] = messages(&discovery)[..] else { panic!("{:?}", discovery.warnings) };
    assert!(message.contains("\"mailer\"") && message.contains("\"base\""), "{message}");
    assert!(message.contains(&stray.display().to_string()), "{message}");
}
