//! What is wrong with an expression.

/// Why a text is no cron expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid cron expression {text:?}: {problem}")]
pub struct CronError {
    text: String,
    problem: Problem,
}

impl CronError {
    pub(super) fn new(text: &str, problem: Problem) -> Self {
        Self { text: text.to_owned(), problem }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    #[error("expected 5 fields")]
    FieldCount,
    #[error(
        "expected five fields or one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly and @annually; \
         use `after` for a run after a start and `every` for an interval"
    )]
    Nickname,
    #[error("{field}: {fault}")]
    Field { field: &'static str, fault: Fault },
    #[error("never matches")]
    NeverMatches,
    #[error("the days can not be computed")]
    Days,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("value {value} out of range [{low},{high}]")]
    OutOfRange { value: String, low: u8, high: u8 },
    #[error("descending range {0}")]
    DescendingRange(String),
    #[error("empty list member")]
    EmptyMember,
    #[error("step must be at least 1")]
    ZeroStep,
    #[error("{0:?} is not a value, a range or a step")]
    Unreadable(String),
    #[error("{0:?} must stand alone in its field, without a list, range or step")]
    NotAlone(String),
    #[error("{0:?} is not supported: use L-n or LW")]
    LastWithOffsetAndWeekday(String),
}

impl Fault {
    pub(super) fn of(self, field: &'static str) -> Problem {
        Problem::Field { field, fault: self }
    }
}
