//! Collecting, environment files, includes, paths.

use std::fs;
use std::os::unix::fs::symlink;

use super::site::Site;
use crate::{Posture, Purpose, SourceKind, plan};

#[test]
fn the_smallest_configuration_becomes_a_plan_with_all_defaults() {
    let site = Site::new();
    let plan = site.plan().unwrap();
    assert_eq!(plan.posture, Posture::Closed);
    assert_eq!(plan.source.kind, SourceKind::Explicit);
    assert_eq!(plan.files, [site.path("config.yaml")]);
    assert_eq!(plan.config.service.name, "ductile");
    assert_eq!(plan.config.state.path, site.path("ductile.db"));
    assert_eq!(plan.config.secrets.vault_file, site.path("vault.age"));
    assert_eq!(plan.config.api.management_socket, site.path("vault-admin.sock"));
    assert_eq!(plan.config.plugin_roots, [site.path("plugins")]);
    assert_eq!(plan.config.api.listen.to_string(), "127.0.0.1:8080");
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
}

#[test]
fn a_later_file_that_writes_a_key_wins() {
    let site =
        Site::new().config("include: [api.yaml]\napi: {enabled: true}\n").file("api.yaml", "api: {enabled: false}\n");
    assert!(!site.plan().unwrap().config.api.enabled);
}

#[test]
fn every_section_merges_from_a_fragment() {
    let site = Site::new().config("include: [more.yaml]\n").file(
        "more.yaml",
        "service: {max_workers: 3}\napi: {max_sync_timeout: 9m}\naccounts: {a: {user: nobody}}\nsecrets: {vault_file: \
         v.age}\n",
    );
    let snapshot = site.snapshot();
    assert_eq!(snapshot["service"]["max_workers"].to_string(), "3");
    assert_eq!(snapshot["api"]["max_sync_timeout"], "9m0s");
    assert_eq!(snapshot["accounts"]["a"]["user"], "nobody");
    assert_eq!(snapshot["secrets"]["vault_file"], site.path("v.age").display().to_string());
}

#[test]
fn lists_of_fragments_are_appended_in_include_order_depth_first() {
    let route = |name: &str| format!("routes: [{{from: {name}, event_type: e, to: t}}]\n");
    let site = Site::new()
        .config("include: [a.yaml, dir, z.yaml]\n")
        .file("a.yaml", &format!("include: [sub/b.yaml]\n{}", route("a")))
        .file("sub/b.yaml", &route("b"))
        .file("dir/2.yaml", &route("two"))
        .file("dir/10.yaml", &route("ten"))
        .file("dir/.hidden.yaml", &route("hidden"))
        .file("dir/other.yml", &route("yml"))
        .file("z.yaml", &route("z"));
    let snapshot = site.snapshot();
    let froms: Vec<_> = snapshot["routes"].as_array().unwrap().iter().map(|r| r["from"].as_str().unwrap()).collect();
    assert_eq!(froms, ["a", "b", "ten", "two", "z"]);
}

#[test]
fn a_plugin_in_two_files_is_entirely_the_later_one() {
    let site = Site::new()
        .config("include: [b.yaml]\nplugins: {p: {enabled: false, retry: {max_attempts: 9}}}\n")
        .file("b.yaml", "plugins: {p: {enabled: false}}\n");
    let plan = site.plan().unwrap();
    assert_eq!(plan.config.plugins["p"].retry.max_attempts, 4);
    let warnings = site.warnings();
    assert!(warnings.contains("config.yaml") && warnings.contains("b.yaml:1"), "{warnings}");
}

#[test]
fn circular_and_repeated_includes_are_refused_with_the_way_they_took() {
    let site = Site::new()
        .config("include: [a.yaml]\n")
        .file("a.yaml", "include: [b.yaml]\n")
        .file("b.yaml", "include: [a.yaml]\n");
    assert!(site.refusal().contains("circular include: a.yaml -> b.yaml -> a.yaml"), "{}", site.refusal());
    assert_eq!(site.check().errors[0].category, "load");
    let site = Site::new().config("include: [config.yaml]\n");
    assert!(site.refusal().contains("circular include: config.yaml -> config.yaml"), "{}", site.refusal());
    let site = Site::new()
        .config("include: [a.yaml, b.yaml]\n")
        .file("a.yaml", "include: [c.yaml]\n")
        .file("b.yaml", "include: [./x/../c.yaml]\n")
        .file("c.yaml", "");
    assert!(site.refusal().contains("c.yaml included twice (from a.yaml and b.yaml)"), "{}", site.refusal());
}

#[test]
fn an_include_with_a_variable_is_refused_even_when_it_is_set() {
    let site = Site::new().var("X", "/tmp").config("include:\n  - a.yaml\n  - \"${X}/b.yaml\"\n").file("a.yaml", "");
    let refusal = site.refusal();
    assert!(refusal.contains("include[1]: environment interpolation is not allowed in include paths"), "{refusal}");
    assert!(refusal.contains("config.yaml:4"), "{refusal}");
}

#[test]
fn all_missing_includes_are_told_together_with_absolute_path_and_declaring_file() {
    let site = Site::new().config("include: [a.yaml, no.yaml]\n").file("a.yaml", "include: [nope.yaml]\n");
    let refusal = site.refusal();
    let root = site.path("config.yaml").display().to_string();
    let missing = |index: usize, name: &str, from: &str| {
        assert!(
            refusal.lines().any(|line| line.contains(&format!("include[{index}]: {}", site.path(name).display()))
                && line.contains(&format!("declared in {from}"))),
            "{refusal}"
        );
    };
    missing(1, "no.yaml", &root);
    missing(0, "nope.yaml", &site.path("a.yaml").display().to_string());
}

#[test]
fn more_than_a_thousand_files_are_refused() {
    let mut site = Site::new().config("include: [many]\n");
    for index in 0..1001 {
        site = site.file(&format!("many/{index:04}.yaml"), "");
    }
    assert!(site.refusal().contains("more than 1000 files are included"));
}

#[test]
fn broken_files_are_refused_with_file_and_line_all_together() {
    let site = Site::new()
        .config("include: [a.yaml, b.yaml, c.yaml]\n")
        .file("a.yaml", "x: 1\nx: 2\n")
        .file("b.yaml", "- 1\n")
        .file("c.yaml", "a: 1\n---\nb: 1\n");
    let refusal = site.refusal();
    assert!(refusal.contains("a.yaml:2: key \"x\" is written twice"), "{refusal}");
    assert!(refusal.contains("b.yaml:1: the top of the file must be a mapping"), "{refusal}");
    assert!(refusal.contains("c.yaml:2: the file holds more than one YAML document"), "{refusal}");
}

#[test]
fn large_and_encrypted_files_are_refused() {
    let site = Site::new().config("include: [big.yaml]\n").file("big.yaml", &"#".repeat(10 * 1024 * 1024 + 1));
    assert!(site.refusal().contains("larger than 10 MiB"));
    for start in ["age-encryption.org/v1\n-> X25519 x", "-----BEGIN AGE ENCRYPTED FILE-----\n"] {
        let site = Site::new().config("include: [s.yaml]\n").file("s.yaml", start);
        assert!(site.refusal().contains("encrypted configuration files are not supported by this version yet"));
        let site = Site::new().config("environment_vars: {include: [s.env]}\n").file("s.env", start);
        assert!(site.refusal().contains("encrypted configuration files are not supported by this version yet"));
    }
}

#[test]
fn the_process_environment_beats_environment_files_and_the_first_file_beats_the_next() {
    let site = Site::new()
        .config(
            "environment_vars: {include: [a.env]}\ninclude: [f/x.yaml]\nplugins:\n  p:\n    enabled: false\n    config: \
             {k: \"${K}\", l: \"${L}\", m: \"${M}\"}\n",
        )
        .file("a.env", "K=1\nL=first\nexport M='quoted'\n")
        .file("f/x.yaml", "environment_vars: {include: [b.env]}\n")
        .file("f/b.env", "L=second\n")
        .var("K", "2");
    let config = |site: &Site| site.plan().unwrap().config.plugins["p"].config.get().to_owned();
    assert_eq!(config(&site), r#"{"k":"2","l":"first","m":"quoted"}"#);
    let mut site = site.file("a.env", "K=3\nL=x\nM=y\n");
    site.vars.clear();
    assert_eq!(config(&site), r#"{"k":"3","l":"x","m":"y"}"#);
    let plan = site.plan().unwrap();
    assert_eq!(plan.environment["K"], "3");
    assert!(plan.files.contains(&site.path("f/b.env")));
}

#[test]
fn bad_environment_files_are_refused_without_showing_a_value() {
    let site = Site::new().config("environment_vars: {include: [a.env, none.env]}\n").file("a.env", "A=1\nhunter2\n");
    let refusal = site.refusal();
    let missing = format!("environment_vars.include[1]: {}", site.path("none.env").display());
    assert!(refusal.contains(&missing), "{refusal}");
    let site = Site::new().config("environment_vars: {include: [a.env]}\n").file("a.env", "A=1\nhunter2\n");
    assert!(site.refusal().contains("a.env:2"), "{}", site.refusal());
    assert!(!site.refusal().contains("hunter2"));
}

#[test]
fn an_environment_file_may_be_placed_by_the_process_environment_with_a_warning() {
    let site = Site::new()
        .var("WHERE", "sub")
        .config("environment_vars: {include: [\"${WHERE}/a.env\"]}\nservice: {name: \"${NAME}\"}\n")
        .file("sub/a.env", "NAME=from-file\n");
    assert_eq!(site.plan().unwrap().config.service.name, "from-file");
    assert!(site.warnings().contains("prefer a fixed path"));
}

#[test]
fn relative_paths_stand_below_the_configuration_directory_whichever_file_wrote_them() {
    let site = Site::new().config("include: [sub/x.yaml]\n").file(
        "sub/x.yaml",
        "plugin_roots: [./plugins, ../outside/../x, ./x]\nstate: {path: ./d.db}\nsecrets: {vault_file: ~/v.age}\n",
    );
    fs::create_dir(site.path("x")).unwrap();
    let refusal = site.refusal();
    let above = site.path("x");
    let above = above.parent().unwrap().parent().unwrap().join("x");
    assert!(refusal.contains(&format!("plugin root does not exist: {}", above.display())), "{refusal}");
    let site = site
        .file("sub/x.yaml", "plugin_roots: [./plugins, ./x]\nstate: {path: ./d.db}\nsecrets: {vault_file: ~/v.age}\n");
    let config = site.plan().unwrap().config;
    assert_eq!(config.plugin_roots, [site.path("plugins"), site.path("x")]);
    assert_eq!(config.state.path, site.path("d.db"));
    assert_eq!(config.secrets.vault_file, site.path("home/v.age"));
    let site = Site::new().config("state: {path: ~other/x.db}\n");
    assert!(site.refusal().contains("state.path"), "{}", site.refusal());
}

#[test]
fn the_state_file_may_lie_beside_the_configuration_directory() {
    let mut site = Site::new()
        .file("config/config.yaml", "plugin_roots: [../plugins]\nstate: {path: ./data/ductile.db}\n")
        .file("data/keep", "");
    site.config = "config/config.yaml".into();
    assert_eq!(site.plan().unwrap().config.state.path, site.path("data/ductile.db"));
    let site = site.file("config/data/keep", "");
    assert_eq!(site.plan().unwrap().config.state.path, site.path("config/data/ductile.db"));
}

#[test]
fn an_older_default_state_file_is_used_with_a_warning() {
    let site = Site::new().file("data/state.db", "");
    assert_eq!(site.plan().unwrap().config.state.path, site.path("data/state.db"));
    assert!(site.warnings().contains("state.path is not set"));
    let site = site.file("ductile.db", "");
    assert_eq!(site.plan().unwrap().config.state.path, site.path("ductile.db"));
}

#[test]
fn the_alias_of_the_state_path_counts_when_it_stands_alone() {
    let site = Site::new().config("database: {path: a.db}\n");
    assert_eq!(site.plan().unwrap().config.state.path, site.path("a.db"));
    let site = Site::new().config("database: {path: a.db}\nstate: {path: b.db}\n");
    assert_eq!(site.plan().unwrap().config.state.path, site.path("b.db"));
    assert!(site.warnings().contains("database.path is ignored"));
    let site = Site::new().config("database: {path: ./b.db}\nstate: {path: b.db}\n");
    assert_eq!(site.warnings(), "");
}

#[test]
fn a_symlinked_fragment_is_refused_unless_links_are_allowed() {
    let site = Site::new().config("include: [l.yaml]\n").file("real.yaml", "service: {name: linked}\n");
    symlink(site.path("real.yaml"), site.path("l.yaml")).unwrap();
    let refusal = site.refusal();
    assert!(refusal.starts_with("refused: symlinks: "), "{refusal}");
    assert!(refusal.contains("symlinks detected in config paths but not allowed"), "{refusal}");
    assert!(site.inspect().is_ok());
    assert!(site.check().errors.iter().any(|error| error.category == "symlinks"));
    let site = site.config("include: [l.yaml]\nservice: {allow_symlinks: true}\n");
    let plan = site.plan().unwrap();
    assert_eq!(plan.config.service.name, "linked");
    assert!(site.warnings().contains("symlink detected"));
    fs::remove_file(site.path("real.yaml")).unwrap();
    assert!(site.refusal().contains("leads nowhere"));
}

#[test]
fn an_encrypted_file_is_told_also_behind_blanks() {
    for text in ["age-encryption.org/v1\n", "\n\t-----BEGIN AGE ENCRYPTED FILE-----\n"] {
        let site = Site::new().config("include: [e.yaml]\n").file("e.yaml", text);
        assert!(site.refusal().contains("the file is age-encrypted"), "{}", site.refusal());
    }
}

#[test]
fn a_load_changes_nothing_on_the_disk() {
    let site = Site::new().config("state: {path: new/dir/x.db}\n");
    let before: Vec<_> = fs::read_dir(site.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    plan(&site.source(), &site.env(), &site.vault, Purpose::Admitting).unwrap();
    let after: Vec<_> = fs::read_dir(site.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(before, after);
}
