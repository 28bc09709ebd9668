//! Conditions: what gates a step, and what decides whether a pipeline starts.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::decimal::compare;
use super::equal::json_equal;
use super::needle::Needle;
use super::path::{Path, Root};
use super::scope::Scope;

mod read;

/// A condition, checked and compiled.
#[derive(Debug)]
pub struct Condition {
    root: Predicate,
}

/// Where a condition stands: that decides which roots it may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConditionPlace {
    /// On a step, which runs a plugin or does something else.
    Step { uses: bool },
    /// On a pipeline that an event starts.
    Trigger,
    /// On a pipeline that the end of a job starts.
    Hook,
}

#[derive(Debug)]
enum Predicate {
    Atom(Atom),
    All(Box<[Predicate]>),
    Any(Box<[Predicate]>),
    Not(Box<Predicate>),
}

#[derive(Debug)]
struct Atom {
    path: Path,
    op: Op,
    test: Test,
}

/// An operator, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Exists,
    Eq,
    Neq,
    In,
    Gt,
    Gte,
    Lt,
    Lte,
    Contains,
    StartsWith,
    EndsWith,
    Regex,
}

/// What the value is held against.
#[derive(Debug)]
enum Test {
    Present,
    Same(Value),
    Different(Value),
    OneOf(Vec<Value>),
    Number(fn(Ordering) -> bool, Number),
    Text(fn(&Needle, &str) -> bool, Needle),
    /// Anchored at both ends.
    Pattern(regex::Regex),
}

/// A value of a type that its operator can not judge. Never holds the value itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("path {path:?}: {op} needs a {needs}, but the value is {found}")]
pub struct EvaluationError {
    path: String,
    op: &'static str,
    needs: &'static str,
    found: &'static str,
}

impl Op {
    const ALL: [Self; 12] = [
        Self::Exists,
        Self::Eq,
        Self::Neq,
        Self::In,
        Self::Gt,
        Self::Gte,
        Self::Lt,
        Self::Lte,
        Self::Contains,
        Self::StartsWith,
        Self::EndsWith,
        Self::Regex,
    ];

    fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.word() == word)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Exists => "exists",
            Self::Eq => "eq",
            Self::Neq => "neq",
            Self::In => "in",
            Self::Gt => "gt",
            Self::Gte => "gte",
            Self::Lt => "lt",
            Self::Lte => "lte",
            Self::Contains => "contains",
            Self::StartsWith => "startswith",
            Self::EndsWith => "endswith",
            Self::Regex => "regex",
        }
    }
}

impl Condition {
    /// Whether it is true of these values.
    ///
    /// # Errors
    ///
    /// A value that is present has a type its operator does not take; nothing is coerced.
    pub fn holds(&self, scope: &Scope<'_>) -> Result<bool, EvaluationError> {
        self.root.holds(scope)
    }

    /// Whether any part of it looks at `config.*`.
    pub(crate) fn reads_config(&self) -> bool {
        self.root.reads(Root::Config)
    }
}

impl Predicate {
    /// As deep as conditions may be nested, which is checked when they are read.
    fn holds(&self, scope: &Scope<'_>) -> Result<bool, EvaluationError> {
        match self {
            Self::Atom(atom) => atom.holds(scope),
            Self::All(parts) => first(parts, scope, false),
            Self::Any(parts) => first(parts, scope, true),
            Self::Not(part) => part.holds(scope).map(|holds| !holds),
        }
    }

    fn reads(&self, root: Root) -> bool {
        match self {
            Self::Atom(atom) => atom.path.root() == root,
            Self::All(parts) | Self::Any(parts) => parts.iter().any(|part| part.reads(root)),
            Self::Not(part) => part.reads(root),
        }
    }
}

/// The wanted answer if any part gives it, or else the other one. Parts behind the first decision are not looked at.
fn first(parts: &[Predicate], scope: &Scope<'_>, wanted: bool) -> Result<bool, EvaluationError> {
    for part in parts {
        if part.holds(scope)? == wanted {
            return Ok(wanted);
        }
    }
    Ok(!wanted)
}

impl Atom {
    fn holds(&self, scope: &Scope<'_>) -> Result<bool, EvaluationError> {
        let found = self.path.resolve(scope);
        let value = found.unwrap_or(&Value::Null);
        match (&self.test, value) {
            (Test::Present, _) => Ok(found.is_some()),
            (Test::Same(wanted), value) => Ok(json_equal(wanted, value)),
            (Test::Different(wanted), value) => Ok(!json_equal(wanted, value)),
            (Test::OneOf(wanted), value) => Ok(wanted.iter().any(|wanted| json_equal(wanted, value))),
            (Test::Number(..) | Test::Text(..) | Test::Pattern(_), Value::Null) => Ok(false),
            (Test::Number(accepts, bound), Value::Number(number)) => Ok(accepts(compare(number, bound))),
            (Test::Number(..), other) => Err(self.error("number", other)),
            (Test::Text(fits, needle), Value::String(text)) => Ok(fits(needle, text)),
            (Test::Pattern(pattern), Value::String(text)) => Ok(pattern.is_match(text)),
            (Test::Text(..) | Test::Pattern(_), other) => Err(self.error("string", other)),
        }
    }

    fn error(&self, needs: &'static str, found: &Value) -> EvaluationError {
        let found = match found {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        EvaluationError { path: self.path.text().to_owned(), op: self.op.word(), needs, found }
    }
}

#[cfg(test)]
mod tests;
