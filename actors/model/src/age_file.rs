//! Telling an age-encrypted file by its first bytes.

const BINARY: &[u8] = b"age-encryption.org/v1";
const ARMORED: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";

/// The age file that the content of a file is, without the blanks before it; `None` for any other content.
#[must_use]
pub fn age_file(content: &[u8]) -> Option<&[u8]> {
    let blanks = content.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')).count();
    let content = &content[blanks..];
    (content.starts_with(BINARY) || content.starts_with(ARMORED)).then_some(content)
}

/// Whether the content of a file is age-encrypted, whatever the file is called.
#[must_use]
pub fn is_age_encrypted(content: &[u8]) -> bool {
    age_file(content).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_file_is_told_by_its_first_bytes() {
        assert!(is_age_encrypted(b"age-encryption.org/v1\n-> X25519"));
        assert!(is_age_encrypted(b" \r\n\t-----BEGIN AGE ENCRYPTED FILE-----\n"));
        assert!(!is_age_encrypted(b"# -----BEGIN AGE ENCRYPTED FILE-----\n"));
        assert!(!is_age_encrypted(b""));
        assert_eq!(age_file(b"\nage-encryption.org/v1\n"), Some(&b"age-encryption.org/v1\n"[..]));
    }
}
