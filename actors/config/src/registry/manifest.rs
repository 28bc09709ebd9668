//! `manifest.yaml`: from bytes to a checked [`Manifest`].

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_yaml::{Mapping, Value};

use super::yaml::{Findings, Node, show};
use super::{Manifest, PROTOCOL, commands, facts};

/// Largest manifest that is read.
pub(super) const MAX_BYTES: u64 = 256 * 1024;

const DEFAULT_MAX_SUBS: u32 = 32;

const KEYS: &[&str] = &[
    "manifest_spec",
    "manifest_version",
    "name",
    "version",
    "protocol",
    "entrypoint",
    "description",
    "concurrency_safe",
    "commands",
    "fact_outputs",
    "config_keys",
    "stopwatch",
];

/// A manifest that passed, with what the loader still needs.
pub(super) struct Parsed {
    pub(super) manifest: Manifest,
    /// As written, trimmed; not yet looked at on disk.
    pub(super) entrypoint: String,
    pub(super) warnings: Vec<String>,
}

/// Reads and judges a whole manifest.
///
/// # Errors
/// Everything that is wrong with it, in one line.
pub(super) fn parse(path: &Path, bytes: Arc<[u8]>) -> Result<Parsed, String> {
    let text = std::str::from_utf8(&bytes).map_err(|error| format!("manifest is not UTF-8: {error}"))?;
    let map = document(text)?;
    let root = Node::new("", &map);
    let mut findings = Findings::default();
    check_dialect(root, &mut findings);
    if !findings.errors.is_empty() {
        // In another dialect every other key may mean something else, so further complaints would mislead.
        return Err(findings.errors.join("; "));
    }
    let parts = read_parts(root, text, &mut findings);
    match parts {
        Some((name, entrypoint, rest)) if findings.errors.is_empty() => Ok(Parsed {
            manifest: Manifest {
                name,
                version: rest.version,
                description: rest.description,
                concurrency_safe: rest.concurrency_safe,
                commands: rest.commands,
                fact_outputs: rest.fact_outputs,
                required_config_keys: rest.required_config_keys,
                stopwatch_max_subs: rest.stopwatch_max_subs,
                path: path.to_owned(),
                bytes,
            },
            entrypoint,
            warnings: findings.warnings,
        }),
        _ => Err(findings.errors.join("; ")),
    }
}

/// The name alone, from a manifest that may be wrong everywhere else.
pub(super) fn peek_name(bytes: &[u8]) -> Option<String> {
    let map = document(std::str::from_utf8(bytes).ok()?).ok()?;
    Some(map.get("name")?.as_str()?.trim().to_owned()).filter(|name| !name.is_empty())
}

fn document(text: &str) -> Result<Mapping, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut value: Value = serde_yaml::from_str(text).map_err(|error| format!("invalid YAML: {error}"))?;
    value.apply_merge().map_err(|error| format!("invalid YAML: {error}"))?;
    match value {
        Value::Mapping(map) => Ok(map),
        other => Err(format!("manifest must be a mapping, not {}", show(&other))),
    }
}

fn check_dialect(root: Node<'_>, findings: &mut Findings) {
    if let Some(spec) = root.required("manifest_spec", findings)
        && spec.as_str() != Some("ductile.plugin")
    {
        findings.error(format!("unsupported manifest_spec {} (supported: \"ductile.plugin\")", show(spec)));
    }
    if let Some(version) = root.required("manifest_version", findings)
        && version.as_u64() != Some(1)
    {
        findings.error(format!("unsupported manifest_version {} (supported: 1)", show(version)));
    }
    if let Some(protocol) = root.required("protocol", findings)
        && protocol.as_u64() != Some(PROTOCOL)
    {
        findings.error(format!("unsupported protocol version {} (supported: {PROTOCOL})", show(protocol)));
    }
}

struct Rest {
    version: String,
    description: Option<String>,
    concurrency_safe: bool,
    commands: Vec<super::Command>,
    fact_outputs: Vec<super::FactRule>,
    required_config_keys: Vec<String>,
    stopwatch_max_subs: u32,
}

fn read_parts(root: Node<'_>, text: &str, findings: &mut Findings) -> Option<(String, String, Rest)> {
    let name = read_name(root, findings);
    let entrypoint = read_entrypoint(root, findings);
    let commands = commands::read(root, findings);
    let rest = Rest {
        version: read_version(root, text, findings),
        description: root.text("description", findings).map(str::to_owned),
        concurrency_safe: root.boolean("concurrency_safe", findings).unwrap_or(true),
        fact_outputs: facts::read(root, &commands, findings),
        commands,
        required_config_keys: read_config_keys(root, findings),
        stopwatch_max_subs: read_max_subs(root, findings),
    };
    root.warn_unknown(KEYS, findings);
    Some((name?, entrypoint?, rest))
}

fn read_name(root: Node<'_>, findings: &mut Findings) -> Option<String> {
    let name = root.required_text("name", findings)?.trim();
    match plugin_name_fault(name) {
        None => Some(name.to_owned()),
        Some(fault) => {
            findings.error(format!("name {name:?} {fault}"));
            None
        }
    }
}

/// What is wrong with a plugin name, if anything.
fn plugin_name_fault(name: &str) -> Option<&'static str> {
    if !name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
        return Some("must begin with an ASCII letter or _");
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')) {
        return Some("may hold ASCII letters, digits, _, - and . only");
    }
    if name.len() > 128 {
        return Some("is longer than 128 characters");
    }
    name.starts_with("core.").then_some("must not begin with core., which is kept for the gateway itself")
}

fn read_entrypoint(root: Node<'_>, findings: &mut Findings) -> Option<String> {
    let entrypoint = root.required_text("entrypoint", findings)?.trim();
    if entrypoint.is_empty() {
        findings.error("entrypoint must not be blank");
        return None;
    }
    Some(entrypoint.to_owned())
}

/// A number keeps the digits that were written: `1.10` is not `1.1`.
fn read_version(root: Node<'_>, text: &str, findings: &mut Findings) -> String {
    match root.get("version") {
        None => {
            findings.warn("version is missing");
            String::new()
        }
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number_as_written(text).unwrap_or_else(|| number.to_string()),
        Some(other) => {
            findings.error(format!("version must be text or a number, not {}", show(other)));
            String::new()
        }
    }
}

fn number_as_written(text: &str) -> Option<String> {
    /// Asking for a string gives the scalar as it stands in the file, before anything is made of it.
    #[derive(Deserialize)]
    struct OnlyVersion {
        version: String,
    }
    serde_yaml::from_str::<OnlyVersion>(text).ok().map(|only| only.version)
}

fn read_config_keys(root: Node<'_>, findings: &mut Findings) -> Vec<String> {
    let Some(map) = root.mapping("config_keys", findings) else { return Vec::new() };
    let node = Node::new("config_keys", map);
    node.warn_unknown(&["required", "optional"], findings);
    node.names("optional", findings);
    node.names("required", findings)
}

fn read_max_subs(root: Node<'_>, findings: &mut Findings) -> u32 {
    let Some(map) = root.mapping("stopwatch", findings) else { return DEFAULT_MAX_SUBS };
    let node = Node::new("stopwatch", map);
    node.warn_unknown(&["max_subs"], findings);
    let Some(value) = node.get("max_subs") else { return DEFAULT_MAX_SUBS };
    match value.as_u64().and_then(|subs| u32::try_from(subs).ok()).filter(|subs| (1..=256).contains(subs)) {
        Some(subs) => subs,
        None => {
            findings.error(format!("stopwatch.max_subs must be a whole number from 1 to 256, not {}", show(value)));
            DEFAULT_MAX_SUBS
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "manifest_spec: ductile.plugin\nmanifest_version: 1\nprotocol: 2\n";
    const BODY: &str = "name: demo\nversion: 1.10\nentrypoint: run.sh\ncommands: [{name: poll}]\n";

    fn parse_text(text: &str) -> Result<Parsed, String> {
        parse(Path::new("/p/demo/manifest.yaml"), text.as_bytes().into())
    }

    fn refusal(text: &str) -> String {
        parse_text(text).err().unwrap_or_default()
    }

    #[test]
    fn a_small_manifest_gets_the_documented_defaults() {
        let parsed = parse_text(&format!("{HEAD}{BODY}")).unwrap();
        let manifest = parsed.manifest;
        assert_eq!(manifest.name, "demo");
        assert_eq!(manifest.version, "1.10");
        assert!(manifest.concurrency_safe);
        assert_eq!(manifest.stopwatch_max_subs, 32);
        assert_eq!(manifest.required_config_keys, Vec::<String>::new());
        assert_eq!(parsed.entrypoint, "run.sh");
        assert_eq!(parsed.warnings, Vec::<String>::new());
    }

    #[test]
    fn the_optional_keys_are_read() {
        let parsed = parse_text(&format!(
            "{HEAD}{BODY}description: words\nconcurrency_safe: false\nconfig_keys: {{required: [a, ' b '], optional: \
             [c]}}\nstopwatch: {{max_subs: 256}}\nfact_outputs: [{{when: {{command: poll}}, from: state_updates, \
             fact_type: demo.snapshot}}]\n"
        ))
        .unwrap();
        let manifest = parsed.manifest;
        assert_eq!(manifest.description.as_deref(), Some("words"));
        assert!(!manifest.concurrency_safe);
        assert_eq!(manifest.required_config_keys, ["a", "b"]);
        assert_eq!(manifest.stopwatch_max_subs, 256);
        assert_eq!(manifest.fact_outputs[0].fact_type, "demo.snapshot");
    }

    #[test]
    fn a_version_is_kept_as_it_is_written() {
        for (written, kept) in
            [("1.0", "1.0"), ("1.10", "1.10"), ("2", "2"), ("'1.0'", "1.0"), ("0.1.0-rc1", "0.1.0-rc1"), ("1e3", "1e3")]
        {
            let body = BODY.replace("1.10", written);
            assert_eq!(parse_text(&format!("{HEAD}{body}")).unwrap().manifest.version, kept, "{written}");
        }
    }

    #[test]
    fn a_missing_version_is_a_warning_and_empty() {
        let body = BODY.replace("version: 1.10\n", "");
        let parsed = parse_text(&format!("{HEAD}{body}")).unwrap();
        assert_eq!(parsed.manifest.version, "");
        assert_eq!(parsed.warnings, ["version is missing"]);
    }

    #[test]
    fn unknown_keys_are_named_and_ignored_also_those_that_would_grant_something() {
        let parsed = parse_text(&format!("{HEAD}{BODY}run_as: root\nvault_principal: x\n")).unwrap();
        assert_eq!(
            parsed.warnings,
            ["unknown key \"run_as\" is ignored", "unknown key \"vault_principal\" is ignored"]
        );
    }

    #[test]
    fn another_dialect_is_refused_by_its_own_key_alone() {
        let with = |from: &str, to: &str| refusal(&format!("{}{BODY}name2: 1", HEAD.replace(from, to)));
        assert_eq!(with("ductile.plugin", "x"), "unsupported manifest_spec \"x\" (supported: \"ductile.plugin\")");
        assert_eq!(with("manifest_version: 1", "manifest_version: 2"), "unsupported manifest_version 2 (supported: 1)");
        assert_eq!(with("protocol: 2", "protocol: 1"), "unsupported protocol version 1 (supported: 2)");
        assert_eq!(with("protocol: 2\n", ""), "protocol is required");
    }

    #[test]
    fn names_are_judged() {
        let with = |name: &str| refusal(&format!("{HEAD}{}", BODY.replace("name: demo", &format!("name: {name}"))));
        assert_eq!(with("' _a.b-9 '"), "");
        assert_eq!(with("9a"), "name \"9a\" must begin with an ASCII letter or _");
        assert!(with("'a b'").contains("name \"a b\" may hold ASCII letters"));
        assert!(with("core.x").contains("name \"core.x\" must not begin with core."));
        assert!(with(&"a".repeat(129)).contains("is longer than 128 characters"));
        assert_eq!(with(&"a".repeat(128)), "");
        assert_eq!(with("7"), "name must be a string, not 7");
    }

    #[test]
    fn every_fault_of_a_manifest_is_reported_at_once() {
        let text = format!("{HEAD}name: demo\nversion: [1]\nconcurrency_safe: maybe\ncommands: [{{name: poll}}]\n");
        assert_eq!(
            refusal(&text),
            "entrypoint is required; version must be text or a number, not [1]; concurrency_safe must be true or \
             false, not \"maybe\""
        );
    }

    #[test]
    fn the_stopwatch_cap_has_a_range() {
        for bad in ["0", "257", "-1", "1.5", "many"] {
            let text = refusal(&format!("{HEAD}{BODY}stopwatch: {{max_subs: {bad}}}\n"));
            assert!(text.starts_with("stopwatch.max_subs must be a whole number from 1 to 256, not "), "{text}");
        }
    }

    #[test]
    fn what_is_no_single_mapping_in_utf_8_is_refused() {
        assert!(refusal("- a\n").contains("manifest must be a mapping"));
        assert!(refusal("").contains("manifest must be a mapping"));
        assert!(refusal("a: 1\n---\nb: 2\n").contains("invalid YAML"));
        assert!(refusal("a: 1\na: 2\n").contains("duplicate"));
        let binary = parse(Path::new("/m"), [0xff, 0xfe, 0x00].as_slice().into());
        assert!(binary.is_err_and(|error| error.contains("not UTF-8")));
    }

    #[test]
    fn the_name_of_a_broken_manifest_can_still_be_told() {
        assert_eq!(peek_name(b"name: ' x '\nprotocol: 1\n").as_deref(), Some("x"));
        assert_eq!(peek_name(b"nope"), None);
    }

    /// The text of a file of the repository.
    fn repository(path: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    #[test]
    fn the_bundled_manifests_pass_without_a_warning() {
        for name in ["echo", "file_read", "file_watch", "word_count"] {
            let parsed = parse_text(&repository(&format!("plugins/{name}/manifest.yaml"))).unwrap();
            assert_eq!(parsed.manifest.name, name);
            assert_eq!(parsed.warnings, Vec::<String>::new());
        }
    }

    #[test]
    fn the_manifests_of_the_plugin_guide_pass_without_a_warning() {
        let guide = repository("docs/plugins.md");
        let blocks = guide.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
        let manifests: Vec<&str> = blocks.filter(|block| block.starts_with("manifest_spec")).collect();
        assert_eq!(manifests.len(), 2);
        for text in manifests {
            assert_eq!(parse_text(text).unwrap().warnings, Vec::<String>::new());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_input_makes_the_reader_panic(
            key in "[a-z_]{1,16}",
            value in "[\\PC]{0,40}",
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        ) {
            for known in KEYS.iter().copied().chain([key.as_str()]) {
                let _ = parse_text(&format!("{HEAD}{BODY}").replace(&format!("{known}:"), "old:")
                    .replace("old:", &format!("{known}: {value}\nold:")));
            }
            let _ = parse(Path::new("/m"), bytes.into());
        }
    }
}
