/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a size (a positive whole number of bytes, or one with KB, MB or GB, powers of 1024)")]
pub struct SizeError(String);

/// Reads a positive number of bytes, optionally with `B`, `KB`/`KiB`, `MB`/`MiB` or `GB`/`GiB` in any case.
///
/// # Errors
/// Zero, a sign, a fraction, an overflow or another suffix.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let error = || SizeError(text.to_owned());
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (digits, suffix) = trimmed.split_at(end);
    let scale: u64 = match suffix.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" | "kib" => 1 << 10,
        "mb" | "mib" => 1 << 20,
        "gb" | "gib" => 1 << 30,
        _ => return Err(error()),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(scale)).ok_or_else(error)?;
    if bytes == 0 || i64::try_from(bytes).is_err() { Err(error()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in
            [("1", 1), ("4MB", 4 << 20), ("4 MiB", 4 << 20), ("2kb", 2048), ("1GB", 1 << 30), ("7B", 7)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in ["", "0", "-1", "1.5MB", "MB", "1TB", "99999999999GB", "1 M B"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
