//! Proof that a document was written by a holder of the key. Anybody who knows the public recipient can encrypt a
//! blob; only who has the identity can add the entry that belongs to it.

use zeroize::Zeroizing;

use crate::key::Identities;
use crate::node::{Map, Node, write_canonical};

/// Where in the document the entries lie.
pub(crate) const AUTH: &str = "auth";

const CONTEXT: &str = "ductile vault document v1";

const ADOPT: &str = "if it is known to be good, 'ductile vault adopt' shows what it holds and accepts it";

/// How a document stands that is not refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// An entry of an own identity verified.
    Authentic,
    /// From before documents were authenticated: neither entries nor a generation.
    Legacy,
}

/// The entries for a document that does not have them, one per identity.
pub(crate) fn sign(document: &Map, identities: &Identities) -> std::io::Result<Node> {
    let mut entries = Map::new();
    for identity in identities.iter() {
        let mark = mark(document, identity.secret())?;
        entries.insert(identity.recipient(), Node::text(mark.to_hex().as_str()));
    }
    Ok(Node::Map(entries))
}

/// Takes the entries off a document and checks those of the own identities.
pub(crate) fn verify(document: &mut Map, identities: &Identities) -> Result<Standing, String> {
    let Some(entries) = document.remove(AUTH) else {
        return if document.contains_key("generation") {
            Err(format!("not authentic: it has a generation but no proof of who wrote it; {ADOPT}"))
        } else {
            Ok(Standing::Legacy)
        };
    };
    let Node::Map(entries) = entries else {
        return Err("the document is damaged: `auth` must be a mapping".into());
    };
    let mut own = 0_usize;
    for identity in identities.iter() {
        let Some(entry) = entries.get(&identity.recipient()) else { continue };
        own += 1;
        let mark = mark(document, identity.secret()).map_err(|error| error.to_string())?;
        if !matches(entry, mark) {
            return Err(format!("not authentic: its content was not written with this key; {ADOPT}"));
        }
    }
    if own == 0 {
        return Err(format!("not authentic: it holds no proof for this key; {ADOPT}"));
    }
    Ok(Standing::Authentic)
}

/// Compared in constant time, as the hash type does.
fn matches(entry: &Node, mark: blake3::Hash) -> bool {
    let Node::Text(entry) = entry else { return false };
    blake3::Hash::from_hex(entry.expose()).is_ok_and(|entry| entry == mark)
}

fn mark(document: &Map, secret: &[u8; 32]) -> std::io::Result<blake3::Hash> {
    let key = Zeroizing::new(blake3::derive_key(CONTEXT, secret));
    let mut hasher = blake3::Hasher::new_keyed(&key);
    write_canonical(document, &mut hasher)?;
    Ok(hasher.finalize())
}
