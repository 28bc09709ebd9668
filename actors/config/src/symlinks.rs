//! Symlinks among the configuration files: somebody else may decide what they lead to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ductile_model::Problem;

use crate::Source;

/// A configuration path that leads elsewhere.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Link {
    path: PathBuf,
    /// `None`: it leads nowhere.
    resolved: Option<PathBuf>,
}

impl Link {
    /// Why a load that admits stops here.
    pub(crate) fn refusal(&self, allowed: bool) -> Option<Problem> {
        let message = match &self.resolved {
            None => format!("the symlink {} leads nowhere", self.path.display()),
            Some(_) if allowed => return None,
            Some(resolved) => format!(
                "symlinks detected in config paths but not allowed: {} leads to {}; replace the link or set \
                 service.allow_symlinks: true",
                self.path.display(),
                resolved.display()
            ),
        };
        Some(Problem::new("symlinks", message).at_file(self.path.clone(), None))
    }

    /// The line in the log.
    pub(crate) fn warning(&self) -> Problem {
        let resolved = self.resolved.as_ref().map_or("nowhere".to_owned(), |path| path.display().to_string());
        let message = format!("symlink detected: {} leads to {resolved}", self.path.display());
        Problem::new("symlinks", message).at_file(self.path.clone(), None)
    }
}

/// Every link on the way to the configuration directory or to one of the files. Links above the directory do not
/// count: they are the machine's, not the configuration's.
pub(crate) fn scan<'f>(source: &'f Source, files: impl Iterator<Item = &'f Path>) -> Vec<Link> {
    let mut found = BTreeMap::new();
    for file in std::iter::once(source.config_dir.as_path()).chain(files) {
        for part in file.ancestors() {
            let above = part != source.config_dir && source.config_dir.starts_with(part);
            let is_link = !above && fs::symlink_metadata(part).is_ok_and(|metadata| metadata.is_symlink());
            if is_link {
                found.entry(part.to_owned()).or_insert_with(|| fs::canonicalize(part).ok());
            }
        }
    }
    found.into_iter().map(|(path, resolved)| Link { path, resolved }).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::SourceKind;

    #[test]
    fn links_above_the_configuration_directory_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("real/config")).unwrap();
        symlink(root.join("real"), root.join("alias")).unwrap();
        let config_dir = root.join("alias/config");
        fs::write(config_dir.join("a.yaml"), "").unwrap();
        symlink(config_dir.join("a.yaml"), config_dir.join("b.yaml")).unwrap();
        let root_file = config_dir.join("config.yaml");
        let source = Source { root_file, config_dir: config_dir.clone(), kind: SourceKind::Explicit };
        let files = [config_dir.join("a.yaml"), config_dir.join("b.yaml")];
        let links = scan(&source, files.iter().map(PathBuf::as_path));
        assert_eq!(links.len(), 1);
        assert_eq!(links[0].path, config_dir.join("b.yaml"));
        assert_eq!(links[0].resolved, Some(root.join("real/config/a.yaml")));
        assert!(links[0].refusal(false).unwrap().message.contains("symlinks detected in config paths but not allowed"));
        assert!(links[0].refusal(true).is_none());
    }

    #[test]
    fn a_link_to_nowhere_is_refused_even_when_links_are_allowed() {
        let link = Link { path: "/c/x".into(), resolved: None };
        assert!(link.refusal(true).is_some());
    }
}
