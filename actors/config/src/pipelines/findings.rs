//! What is wrong, with the place where it stands.

use std::path::Path;

use ductile_model::Problem;

use super::condition::Condition;
use crate::load::Files;
use crate::yaml::{Node, Place};

/// Collects, and sorts at the end.
pub(super) struct Findings<'f> {
    files: &'f Files,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl<'f> Findings<'f> {
    pub(super) fn new(files: &'f Files) -> Self {
        Self { files, errors: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    pub(super) fn error(&mut self, category: &'static str, place: Place, field: &str, message: impl Into<String>) {
        let problem = self.problem(category, place, field, message);
        self.errors.push(problem);
    }

    pub(super) fn warn(&mut self, category: &'static str, place: Place, field: &str, message: impl Into<String>) {
        let problem = self.problem(category, place, field, message);
        self.warnings.push(problem);
    }

    /// Keys that no condition has: they are ignored, and judged as all such keys are.
    pub(super) fn ignored_of_condition(&mut self, condition: &Node, at: &str) {
        for (place, field) in Condition::unknown_keys(condition, at) {
            self.warn("strict_decode", place, &field, format!("ignored config key {field:?}"));
        }
    }

    fn problem(&self, category: &'static str, place: Place, field: &str, message: impl Into<String>) -> Problem {
        self.files.at(Problem::new(category, message).at_field(field), place)
    }

    /// The file of a place as a person names it: from the directory of the first file, where it lies below that.
    pub(super) fn file(&self, place: Place) -> String {
        let root = self.files.0.first().and_then(|file| file.path.parent());
        let Some(path) = self.files.path(place) else { return String::new() };
        let shown = root.and_then(|root| path.strip_prefix(root).ok()).unwrap_or(path);
        Path::display(shown).to_string()
    }

    /// By file, then line; what stands in one line in the order in which it was found.
    pub(super) fn sorted(mut self) -> (Vec<Problem>, Vec<Problem>) {
        for list in [&mut self.errors, &mut self.warnings] {
            list.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        }
        (self.errors, self.warnings)
    }
}
