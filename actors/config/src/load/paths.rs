//! Paths as people write them, made absolute.

use std::path::{Component, Path, PathBuf};

/// Removes `.` and `..` by the text alone; links are not looked at.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                if !cleaned.pop() && !cleaned.has_root() {
                    cleaned.push("..");
                }
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => cleaned.push(component),
        }
    }
    cleaned
}

/// Replaces a leading `~` or `~/` by the home directory.
pub(crate) fn expand(text: &str, home: Option<&Path>) -> Result<PathBuf, String> {
    let Some(rest) = text.strip_prefix('~') else { return Ok(PathBuf::from(text)) };
    if !rest.is_empty() && !rest.starts_with('/') {
        return Err(format!("{text:?}: ~ of another user is not supported; write the whole path"));
    }
    let home = home.ok_or_else(|| format!("{text:?}: the home directory is not known; set HOME"))?;
    Ok(home.join(rest.trim_start_matches('/')))
}

/// Absolute and clean, relative paths standing below `base`.
pub(crate) fn resolve(text: &str, base: &Path, home: Option<&Path>) -> Result<PathBuf, String> {
    expand(text, home).map(|path| clean(&base.join(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_stand_below_the_base_and_tilde_is_home() {
        let base = Path::new("/etc/ductile");
        let home = Some(Path::new("/home/me"));
        let resolved = |text| resolve(text, base, home).unwrap().display().to_string();
        assert_eq!(resolved("./data/../x.db"), "/etc/ductile/x.db");
        assert_eq!(resolved("../x"), "/etc/x");
        assert_eq!(resolved("/../../x"), "/x");
        assert_eq!(resolved("~"), "/home/me");
        assert_eq!(resolved("~/a"), "/home/me/a");
        assert!(resolve("~you/a", base, home).unwrap_err().contains("another user"));
        assert!(resolve("~/a", base, None).unwrap_err().contains("HOME"));
    }
}
