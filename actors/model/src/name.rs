//! The form of names that travel between rooms and gateways.

/// The gateway's own principal; nobody else may act as it.
pub const CORE_PRINCIPAL: &str = "core";

/// Longest name of a principal, in bytes.
pub const LONGEST_PRINCIPAL: usize = 128;

/// Whether a text is made of lower-case letters and digits, in parts joined by single hyphens.
#[must_use]
pub fn is_hyphenated(text: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.split('-').all(part)
}

/// Whether a text may name a principal. The gateway's own name has this form too.
#[must_use]
pub fn is_principal(text: &str) -> bool {
    text.len() <= LONGEST_PRINCIPAL && is_hyphenated(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_joined_by_single_hyphens() {
        for good in ["a", "a1-b", "ductile", "1"] {
            assert!(is_principal(good), "{good}");
        }
        for bad in ["", "A", "a--b", "-a", "a_b", "a-", "ü", "a b"] {
            assert!(!is_principal(bad), "{bad}");
        }
        assert!(is_principal(&"x".repeat(LONGEST_PRINCIPAL)));
        assert!(!is_principal(&"x".repeat(LONGEST_PRINCIPAL + 1)));
    }
}
