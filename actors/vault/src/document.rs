//! The document with types: principals, secrets, facts that wait to be recorded, and all that is not known here but
//! must not get lost.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use ductile_model::{Secret, format_db, parse_stored};

use crate::node::{Map, Node};

/// The whole decrypted store.
#[derive(Clone, Default)]
pub(crate) struct Document {
    /// Number of the save that made it; absent in documents from before there were numbers.
    pub(crate) generation: Option<u64>,
    pub(crate) secrets: BTreeMap<String, SecretEntry>,
    pub(crate) principals: BTreeMap<String, PrincipalEntry>,
    pub(crate) audit_pending: Vec<AuditFact>,
    unknown: Map,
}

/// Whether something is in force. There is no way back from revoked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Status {
    Active,
    Revoked,
}

/// Who makes the value of a secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pattern {
    Manual,
    Auto,
}

/// What a principal is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Plugin,
    Consumer,
    Gateway,
}

/// A closed set of words in the document.
pub(crate) trait Word: Copy + PartialEq + 'static {
    const ALL: &'static [(Self, &'static str)];

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, text)| *text == word).map(|(value, _)| *value)
    }

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(value, _)| *value == self).map_or("", |(_, text)| text)
    }
}

impl Word for Status {
    const ALL: &'static [(Self, &'static str)] = &[(Self::Active, "active"), (Self::Revoked, "revoked")];
}

impl Word for Pattern {
    const ALL: &'static [(Self, &'static str)] = &[(Self::Manual, "manual"), (Self::Auto, "auto")];
}

impl Word for Kind {
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::Plugin, "plugin"), (Self::Consumer, "consumer"), (Self::Gateway, "gateway")];
}

/// One secret.
#[derive(Clone)]
pub(crate) struct SecretEntry {
    pub(crate) value: Secret,
    /// In the order they were granted, without repetitions.
    pub(crate) grants: Vec<String>,
    pub(crate) status: Status,
    pub(crate) pattern: Pattern,
    pub(crate) roll_count: u64,
    /// Times are kept as they were written.
    pub(crate) created_at: Option<String>,
    pub(crate) updated_at: Option<String>,
    pub(crate) revoked_at: Option<String>,
    pub(crate) description: Option<String>,
    /// Its last grantee was purged: delivered to nobody.
    pub(crate) orphaned: bool,
    unknown: Map,
}

impl SecretEntry {
    /// A new, active secret without grants.
    pub(crate) fn new(value: Secret, pattern: Pattern, now: DateTime<Utc>) -> Self {
        let at = stamp(now);
        Self {
            value,
            grants: Vec::new(),
            status: Status::Active,
            pattern,
            roll_count: 0,
            created_at: Some(at.clone()),
            updated_at: Some(at),
            revoked_at: None,
            description: None,
            orphaned: false,
            unknown: Map::new(),
        }
    }
}

/// One principal.
#[derive(Clone)]
pub(crate) struct PrincipalEntry {
    pub(crate) kind: Kind,
    pub(crate) status: Status,
    /// Key of the fingerprints; only `core` has one.
    pub(crate) nonce: Option<Secret>,
    unknown: Map,
}

impl PrincipalEntry {
    /// A new, active principal.
    pub(crate) fn new(kind: Kind, nonce: Option<Secret>) -> Self {
        Self { kind, status: Status::Active, nonce, unknown: Map::new() }
    }
}

/// Something that was done to the vault and is not yet in the audit log. Names and outcomes only.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditFact {
    /// When, in the stored form with nanoseconds; together with the names it tells facts apart.
    pub created_at: String,
    /// What was done.
    pub op: String,
    /// Who did it.
    pub actor: String,
    /// To which principal.
    pub principal: Option<String>,
    /// To which secret.
    pub secret_name: Option<String>,
    /// How it ended.
    pub outcome: String,
    /// More about it.
    pub detail: Option<String>,
    unknown: Map,
}

impl AuditFact {
    /// A success of a local command.
    pub(crate) fn by_command(op: &str, now: DateTime<Utc>) -> Self {
        Self {
            created_at: format_db(now),
            op: op.into(),
            actor: "cli".into(),
            principal: None,
            secret_name: None,
            outcome: "ok".into(),
            detail: None,
            unknown: Map::new(),
        }
    }
}

/// A time as the entries of the document carry it: whole seconds.
pub(crate) fn stamp(now: DateTime<Utc>) -> String {
    now.to_rfc3339_opts(SecondsFormat::Secs, true)
}

impl Document {
    /// Gives a tree its types. The reason of a refusal names kinds and places, never a text of the document.
    pub(crate) fn decode(map: Map) -> Result<Self, String> {
        let mut fields = Fields { map, place: "the top level".into() };
        let secrets = fields.entries("secrets", "secret", decode_secret)?;
        let principals = fields.entries("principals", "principal", decode_principal)?;
        let facts = fields.list("audit_pending")?;
        let count = facts.len();
        let mut audit_pending = Vec::with_capacity(count);
        for (at, fact) in facts.into_iter().enumerate() {
            let place = format!("fact {} of {count} in `audit_pending`", at + 1);
            audit_pending.push(decode_fact(Fields::new(fact, place)?)?);
        }
        Ok(Self { generation: fields.number("generation")?, secrets, principals, audit_pending, unknown: fields.map })
    }

    /// The tree to be written.
    pub(crate) fn encode(&self) -> Map {
        let mut map = self.unknown.clone();
        if let Some(generation) = self.generation {
            map.insert("generation".into(), Node::Number(generation.to_string()));
        }
        let secrets = self.secrets.iter().map(|(name, entry)| (name.clone(), encode_secret(entry))).collect();
        map.insert("secrets".into(), Node::Map(secrets));
        let principals = self.principals.iter().map(|(name, entry)| (name.clone(), encode_principal(entry))).collect();
        map.insert("principals".into(), Node::Map(principals));
        if !self.audit_pending.is_empty() {
            map.insert("audit_pending".into(), Node::List(self.audit_pending.iter().map(encode_fact).collect()));
        }
        map
    }
}

fn decode_secret(mut fields: Fields) -> Result<SecretEntry, String> {
    Ok(SecretEntry {
        value: fields.secret("value")?.unwrap_or_else(|| Secret::new(String::new())),
        grants: fields.texts("authorized_principals")?,
        status: fields.word("status")?,
        pattern: if fields.has("pattern") { fields.word("pattern")? } else { Pattern::Manual },
        roll_count: fields.number("roll_count")?.unwrap_or(0),
        created_at: fields.time("created_at")?,
        updated_at: fields.time("updated_at")?,
        revoked_at: fields.time("revoked_at")?,
        description: fields.text("description")?,
        orphaned: fields.flag("orphaned")?,
        unknown: fields.map,
    })
}

fn encode_secret(entry: &SecretEntry) -> Node {
    let mut map = entry.unknown.clone();
    map.insert("value".into(), Node::Text(entry.value.clone()));
    map.insert("authorized_principals".into(), Node::List(entry.grants.iter().map(Node::text).collect()));
    map.insert("status".into(), Node::text(entry.status.word()));
    map.insert("pattern".into(), Node::text(entry.pattern.word()));
    map.insert("roll_count".into(), Node::Number(entry.roll_count.to_string()));
    put_text(&mut map, "created_at", entry.created_at.as_ref());
    put_text(&mut map, "updated_at", entry.updated_at.as_ref());
    put_text(&mut map, "revoked_at", entry.revoked_at.as_ref());
    put_text(&mut map, "description", entry.description.as_ref());
    if entry.orphaned {
        map.insert("orphaned".into(), Node::Bool(true));
    }
    Node::Map(map)
}

fn decode_principal(mut fields: Fields) -> Result<PrincipalEntry, String> {
    Ok(PrincipalEntry {
        kind: fields.word("kind")?,
        status: fields.word("status")?,
        nonce: fields.secret("nonce")?,
        unknown: fields.map,
    })
}

fn encode_principal(entry: &PrincipalEntry) -> Node {
    let mut map = entry.unknown.clone();
    map.insert("kind".into(), Node::text(entry.kind.word()));
    map.insert("status".into(), Node::text(entry.status.word()));
    if let Some(nonce) = &entry.nonce {
        map.insert("nonce".into(), Node::Text(nonce.clone()));
    }
    Node::Map(map)
}

fn decode_fact(mut fields: Fields) -> Result<AuditFact, String> {
    Ok(AuditFact {
        created_at: fields.required_text("created_at")?,
        op: fields.required_text("op")?,
        actor: fields.required_text("actor")?,
        principal: fields.text("principal")?,
        secret_name: fields.text("secret_name")?,
        outcome: fields.required_text("outcome")?,
        detail: fields.text("detail")?,
        unknown: fields.map,
    })
}

fn encode_fact(fact: &AuditFact) -> Node {
    let mut map = fact.unknown.clone();
    for (key, text) in
        [("created_at", &fact.created_at), ("op", &fact.op), ("actor", &fact.actor), ("outcome", &fact.outcome)]
    {
        map.insert(key.into(), Node::text(text));
    }
    put_text(&mut map, "principal", fact.principal.as_ref());
    put_text(&mut map, "secret_name", fact.secret_name.as_ref());
    put_text(&mut map, "detail", fact.detail.as_ref());
    Node::Map(map)
}

fn put_text(map: &mut Map, key: &str, text: Option<&String>) {
    if let Some(text) = text {
        map.insert(key.into(), Node::text(text));
    }
}

/// One mapping that is being taken apart; what remains in the end is unknown and kept.
struct Fields {
    map: Map,
    /// Which mapping this is, without a word from the document.
    place: String,
}

impl Fields {
    fn new(node: Node, place: String) -> Result<Self, String> {
        match node {
            Node::Map(map) => Ok(Self { map, place }),
            _ => Err(format!("{place} must be a mapping")),
        }
    }

    fn wrong(&self, key: &str, wanted: &str) -> String {
        format!("{}: `{key}` must be {wanted}", self.place)
    }

    /// Takes a field; null counts as absent.
    fn take(&mut self, key: &str) -> Option<Node> {
        self.map.remove(key).filter(|node| *node != Node::Null)
    }

    fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|node| *node != Node::Null)
    }

    fn secret(&mut self, key: &str) -> Result<Option<Secret>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Node::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "a text")),
        }
    }

    fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        Ok(self.secret(key)?.map(|text| text.expose().to_owned()))
    }

    fn required_text(&mut self, key: &str) -> Result<String, String> {
        self.text(key)?.ok_or_else(|| self.wrong(key, "a text"))
    }

    fn time(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.text(key)? {
            Some(text) if parse_stored(&text).is_none() => Err(self.wrong(key, "a time")),
            text => Ok(text),
        }
    }

    fn number(&mut self, key: &str) -> Result<Option<u64>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Node::Number(digits)) => {
                digits.parse().map(Some).map_err(|_| self.wrong(key, "a whole number that is not negative"))
            }
            Some(_) => Err(self.wrong(key, "a whole number that is not negative")),
        }
    }

    fn flag(&mut self, key: &str) -> Result<bool, String> {
        match self.take(key) {
            None => Ok(false),
            Some(Node::Bool(flag)) => Ok(flag),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    fn word<W: Word>(&mut self, key: &str) -> Result<W, String> {
        self.text(key)?.and_then(|text| W::from_word(&text)).ok_or_else(|| {
            let words: Vec<&str> = W::ALL.iter().map(|(_, text)| *text).collect();
            self.wrong(key, &words.join(" or "))
        })
    }

    fn list(&mut self, key: &str) -> Result<Vec<Node>, String> {
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Node::List(items)) => Ok(items),
            Some(_) => Err(self.wrong(key, "a list")),
        }
    }

    fn texts(&mut self, key: &str) -> Result<Vec<String>, String> {
        let mut texts: Vec<String> = Vec::new();
        for item in self.list(key)? {
            let Node::Text(text) = item else {
                return Err(self.wrong(key, "a list of texts"));
            };
            if !texts.iter().any(|known| known == text.expose()) {
                texts.push(text.expose().to_owned());
            }
        }
        Ok(texts)
    }

    /// A mapping from names to mappings.
    fn entries<T>(
        &mut self,
        key: &str,
        what: &str,
        decode: impl Fn(Fields) -> Result<T, String>,
    ) -> Result<BTreeMap<String, T>, String> {
        let map = match self.take(key) {
            None => return Ok(BTreeMap::new()),
            Some(Node::Map(map)) => map,
            Some(_) => return Err(self.wrong(key, "a mapping")),
        };
        let count = map.len();
        let mut entries = BTreeMap::new();
        for (at, (name, node)) in map.into_iter().enumerate() {
            let fields = Fields::new(node, format!("{what} {} of {count} by name", at + 1))?;
            entries.insert(name, decode(fields)?);
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::read;

    fn decode(text: &str) -> Result<Document, String> {
        Document::decode(read(text).unwrap())
    }

    #[test]
    fn what_is_not_known_is_kept_at_every_level() {
        let text = "generation: 3\nfuture: [1, \"two\", {three: null}]\nsecrets:\n  s: {value: v, status: active, colour: red}\n\
                    principals:\n  core: {kind: gateway, status: active, rank: 7}\naudit_pending:\n- {created_at: a, op: b, \
                    actor: c, outcome: d, more: e}\n";
        let before = read(text).unwrap();
        let after = decode(text).unwrap().encode();
        assert!(after["future"] == before["future"]);
        for (list, name, key) in [("secrets", "s", "colour"), ("principals", "core", "rank")] {
            let (Node::Map(before), Node::Map(after)) = (&before[list], &after[list]) else { panic!("{list}") };
            let (Node::Map(before), Node::Map(after)) = (&before[name], &after[name]) else { panic!("{name}") };
            assert!(before.get(key).is_some() && before.get(key) == after.get(key), "{key}");
        }
        assert!(after["audit_pending"] == before["audit_pending"]);
    }

    #[test]
    fn missing_maps_mean_empty() {
        let document = decode("secrets:\n").unwrap();
        assert!(document.secrets.is_empty() && document.principals.is_empty());
        assert_eq!(document.generation, None);
    }

    #[test]
    fn wrong_types_and_unknown_words_are_refused_without_repeating_them() {
        for text in [
            "secrets: [hunter2]\n",
            "secrets: {hunter2: hunter2}\n",
            "secrets: {hunter2: {value: 17, status: active}}\n",
            "secrets: {hunter2: {value: hunter2}}\n",
            "secrets: {hunter2: {value: hunter2, status: hunter2}}\n",
            "secrets: {hunter2: {value: v, status: active, pattern: hunter2}}\n",
            "secrets: {hunter2: {value: v, status: active, roll_count: -1}}\n",
            "secrets: {hunter2: {value: v, status: active, roll_count: \"1\"}}\n",
            "secrets: {hunter2: {value: v, status: active, created_at: hunter2}}\n",
            "secrets: {hunter2: {value: v, status: active, orphaned: hunter2}}\n",
            "secrets: {hunter2: {value: v, status: active, authorized_principals: hunter2}}\n",
            "secrets: {hunter2: {value: v, status: active, authorized_principals: [1]}}\n",
            "principals: {hunter2: {kind: core, status: active}}\n",
            "principals: {hunter2: {kind: plugin}}\n",
            "generation: hunter2\n",
            "audit_pending: [hunter2]\n",
            "audit_pending: [{op: hunter2}]\n",
        ] {
            let reason = decode(text).err().unwrap_or_else(|| panic!("accepted: {text}"));
            assert!(!reason.contains("hunter2"), "{reason}");
            assert!(reason.contains("must be"), "{reason}");
        }
    }
}
