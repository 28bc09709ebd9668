use std::fmt;
use std::path::PathBuf;

/// How a start or a reload ended, in the three words that exit codes, history rows and answers use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in force.
    Ok,
    /// Trying again can not help: configuration, admission, posture, vault, attestation. Exit 78.
    Rejected,
    /// Transient or environmental: a held lock, a taken address, the database. Exit 1.
    Failed,
}

impl Outcome {
    /// The stored and printed word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
        }
    }

    /// Exit status of a command that ended so.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Rejected => 78,
            Self::Failed => 1,
        }
    }
}

/// One thing that is wrong, said for a person: what, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Stable group, such as `load`, `plugin_refs` or `api`.
    pub category: &'static str,
    /// Dotted path of the configuration key, or empty.
    pub field: String,
    /// File it was found in.
    pub file: Option<PathBuf>,
    /// Line in that file, from 1.
    pub line: Option<usize>,
    /// The sentence, without a final dot and without any secret value.
    pub message: String,
}

impl Problem {
    /// A problem without a place.
    #[must_use]
    pub fn new(category: &'static str, message: impl Into<String>) -> Self {
        Self { category, field: String::new(), file: None, line: None, message: message.into() }
    }

    /// The same problem at a configuration key.
    #[must_use]
    pub fn at_field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// The same problem at a file and, when known, a line.
    #[must_use]
    pub fn at_file(mut self, file: impl Into<PathBuf>, line: Option<usize>) -> Self {
        self.file = Some(file.into());
        self.line = line;
        self
    }

    /// Where it is: dotted path, else file with line, else `-`.
    #[must_use]
    pub fn place(&self) -> String {
        let file = self.file.as_ref().map(|file| match self.line {
            Some(line) => format!("{}:{line}", file.display()),
            None => file.display().to_string(),
        });
        match (self.field.is_empty(), file) {
            (false, Some(file)) => format!("{} ({file})", self.field),
            (false, None) => self.field.clone(),
            (true, Some(file)) => file,
            (true, None) => "-".to_owned(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}", file.display())?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            f.write_str(": ")?;
        }
        if !self.field.is_empty() && !self.message.contains(&self.field) {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// Why a start or a reload was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// [`Outcome::Rejected`] or [`Outcome::Failed`].
    pub outcome: Outcome,
    /// The step that refused, such as `load`, `bind` or `database`.
    pub stage: &'static str,
    /// At least one cause.
    pub problems: Vec<Problem>,
}

impl Refusal {
    /// A refusal that trying again can not mend.
    #[must_use]
    pub fn rejected(stage: &'static str, problems: Vec<Problem>) -> Self {
        Self { outcome: Outcome::Rejected, stage, problems }
    }

    /// A transient or environmental refusal.
    #[must_use]
    pub fn failed(stage: &'static str, problem: Problem) -> Self {
        Self { outcome: Outcome::Failed, stage, problems: vec![problem] }
    }

    /// One machine-greppable line per cause: `refused: <category>: <place>: <message>`.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.problems.iter().map(|p| format!("refused: {}: {}: {}", p.category, p.place(), p.message))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}
