//! Choosing the file that a load begins with.

use std::path::{Path, PathBuf};

use ductile_model::Problem;

use crate::load::paths::{clean, expand};
use crate::plan::{Environment, Source, SourceKind};

const ROOT_FILE: &str = "config.yaml";
const VARIABLE: &str = "DUCTILE_CONFIG_DIR";

/// Chooses the root file: flag, then `DUCTILE_CONFIG_DIR`, then the usual places.
///
/// # Errors
/// What was looked at and what to do.
pub fn locate(explicit: Option<&Path>, env: &Environment) -> Result<Source, Problem> {
    locate_with(explicit, env, Path::new("/etc/ductile"))
}

fn locate_with(explicit: Option<&Path>, env: &Environment, system: &Path) -> Result<Source, Problem> {
    if let Some(path) = explicit {
        let path = absolute(path, env).map_err(|error| Problem::new("load", error))?;
        return named(&path).map(|root| source(root, SourceKind::Explicit)).map_err(|e| Problem::new("load", e));
    }
    if let Some(value) = env.vars.get(VARIABLE).filter(|value| !value.trim().is_empty()) {
        let problem = |error: String| Problem::new("load", format!("{VARIABLE}: {error}"));
        let path = absolute(Path::new(value.trim()), env).map_err(problem)?;
        if !path.is_dir() {
            let message = format!("{} is not an existing directory; correct or unset the variable", path.display());
            return Err(problem(message));
        }
        return named(&path).map(|root| source(root, SourceKind::Env)).map_err(problem);
    }
    let home = env.home.as_ref().map(|home| home.join(".config/ductile"));
    let usual = home.into_iter().chain([system.to_owned()]).map(|directory| clean(&directory).join(ROOT_FILE));
    usual.into_iter().find(|root| root.is_file()).map(|root| source(root, SourceKind::AutoDiscovered)).ok_or_else(
        || {
            Problem::new(
                "load",
                "no config found (checked: $DUCTILE_CONFIG_DIR, ~/.config/ductile, /etc/ductile); run `ductile config \
             init` or pass --config PATH",
            )
        },
    )
}

fn absolute(path: &Path, env: &Environment) -> Result<PathBuf, String> {
    let expanded = match path.to_str() {
        Some(text) => expand(text, env.home.as_deref())?,
        None => path.to_owned(),
    };
    std::path::absolute(&expanded).map(|path| clean(&path)).map_err(|error| format!("{}: {error}", path.display()))
}

/// The root file that a path means.
fn named(path: &Path) -> Result<PathBuf, String> {
    if path.is_dir() {
        let root = path.join(ROOT_FILE);
        if root.is_file() {
            return Ok(root);
        }
        return Err(format!("directory provided but config.yaml not found: {}", path.display()));
    }
    if std::fs::symlink_metadata(path).is_ok() {
        return Ok(path.to_owned());
    }
    Err(format!("config file not found: {}", path.display()))
}

fn source(root_file: PathBuf, kind: SourceKind) -> Source {
    let config_dir = root_file.parent().unwrap_or(Path::new("/")).to_owned();
    Source { root_file, config_dir, kind }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Place {
        dir: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let place = Self { dir: tempfile::tempdir().unwrap() };
            for directory in ["flag", "variable", "home/.config/ductile", "etc"] {
                fs::create_dir_all(place.path(directory)).unwrap();
                fs::write(place.path(directory).join(ROOT_FILE), "").unwrap();
            }
            place
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn env(&self, variable: Option<&Path>) -> Environment {
            let vars = variable.map(|path| (VARIABLE.to_owned(), path.display().to_string())).into_iter().collect();
            Environment { vars, home: Some(self.path("home")) }
        }

        fn locate(&self, explicit: Option<&Path>, env: &Environment) -> Result<Source, Problem> {
            locate_with(explicit, env, &self.path("etc"))
        }
    }

    #[test]
    fn the_flag_beats_the_variable_which_beats_the_usual_places() {
        let place = Place::new();
        let env = place.env(Some(&place.path("variable")));
        let found = place.locate(Some(&place.path("flag")), &env).unwrap();
        assert_eq!((found.root_file, found.kind), (place.path("flag/config.yaml"), SourceKind::Explicit));
        let found = place.locate(None, &env).unwrap();
        assert_eq!((found.config_dir, found.kind), (place.path("variable"), SourceKind::Env));
        let found = place.locate(None, &place.env(None)).unwrap();
        assert_eq!((found.config_dir, found.kind), (place.path("home/.config/ductile"), SourceKind::AutoDiscovered));
        fs::remove_file(place.path("home/.config/ductile/config.yaml")).unwrap();
        assert_eq!(place.locate(None, &place.env(None)).unwrap().config_dir, place.path("etc"));
    }

    #[test]
    fn a_file_of_any_name_can_be_the_root_file() {
        let place = Place::new();
        fs::write(place.path("flag/other.yml"), "").unwrap();
        let found = place.locate(Some(&place.path("flag/../flag/./other.yml")), &place.env(None)).unwrap();
        assert_eq!(found.root_file, place.path("flag/other.yml"));
        let found = place.locate(Some(Path::new("~/.config/ductile")), &place.env(None)).unwrap();
        assert_eq!(found.root_file, place.path("home/.config/ductile/config.yaml"));
    }

    #[test]
    fn a_named_place_that_is_wrong_never_falls_through() {
        let place = Place::new();
        fs::create_dir(place.path("empty")).unwrap();
        let text = |result: Result<Source, Problem>| result.unwrap_err().message;
        assert_eq!(
            text(place.locate(Some(&place.path("empty")), &place.env(None))),
            format!("directory provided but config.yaml not found: {}", place.path("empty").display())
        );
        assert!(
            text(place.locate(Some(&place.path("none.yaml")), &place.env(None))).starts_with("config file not found")
        );
        let missing = place.env(Some(Path::new("/nonexistent")));
        let message = text(place.locate(None, &missing));
        assert!(message.starts_with("DUCTILE_CONFIG_DIR: /nonexistent"), "{message}");
        let message = text(place.locate(None, &place.env(Some(&place.path("empty")))));
        assert!(message.starts_with("DUCTILE_CONFIG_DIR: directory provided but config.yaml not found"), "{message}");
    }

    #[test]
    fn nothing_found_says_where_it_looked_and_what_to_do() {
        let place = Place::new();
        let env = Environment { vars: Default::default(), home: Some(place.path("flag")) };
        let message = locate_with(None, &env, &place.path("nowhere")).unwrap_err().message;
        assert!(message.starts_with(
            "no config found (checked: $DUCTILE_CONFIG_DIR, ~/.config/ductile, /etc/ductile); run `ductile config init`"
        ));
    }
}
