//! What this build is.

/// Version of the program.
pub(crate) const VERSION: &str = ductile_model::VERSION;
/// Commit it was built from, 12 hex digits, or `unknown`.
pub(crate) const COMMIT: &str = env!("DUCTILE_COMMIT");
/// When it was built, RFC 3339 UTC, or `unknown`.
pub(crate) const BUILT_AT: &str = env!("DUCTILE_BUILT_AT");

/// The version as rows record it: with the commit where that is known.
pub(crate) fn stored() -> String {
    if COMMIT == "unknown" { VERSION.to_owned() } else { format!("{VERSION}+commit.{COMMIT}") }
}
