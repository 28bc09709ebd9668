//! Log lines: one JSON object (or one readable line) per event, written whole, never blocking the program.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use chrono::{SecondsFormat, Utc};
use ductile_config::{LogFormat, LogLevel, Service};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

/// Values longer than this are cut, with a marker.
const LONGEST_VALUE: usize = 16 * 1024;

/// Where log lines go.
pub(crate) enum LogTarget {
    /// Standard output.
    Stdout,
    /// A file, appended to; created with mode 0600.
    File(PathBuf),
}

/// Changes level and form while the program runs.
#[derive(Clone)]
pub(crate) struct LogControl {
    level: reload::Handle<LevelFilter, Registry>,
    text: Arc<AtomicBool>,
    dropped: ErrorCounter,
    reported: Arc<AtomicUsize>,
}

impl LogControl {
    /// Starts logging. The guard writes what is buffered when it is dropped.
    pub(crate) fn start(service: &Service, target: LogTarget) -> (Self, WorkerGuard) {
        let (writer, guard) = writer(target);
        let dropped = writer.error_counter();
        let text = Arc::new(AtomicBool::new(is_text(service)));
        let (filter, level) = reload::Layer::new(level_filter(service.log_level));
        let lines = tracing_subscriber::fmt::layer().with_writer(writer).event_format(Lines { text: text.clone() });
        // Fails only when logging was started before in this process, which then goes on as it was.
        drop(tracing_subscriber::registry().with(filter).with(lines).try_init());
        std::panic::set_hook(Box::new(log_panic));
        (Self { level, text, dropped, reported: Arc::new(AtomicUsize::new(0)) }, guard)
    }

    /// Says how many lines a blocked output has cost since this was said last.
    pub(crate) fn report_dropped(&self) {
        let dropped = self.dropped.dropped_lines();
        let lines = dropped.saturating_sub(self.reported.swap(dropped, Ordering::Relaxed));
        if lines > 0 {
            tracing::warn!(lines, "log lines were dropped because the output did not take them");
        }
    }

    /// Takes over level and form of a new configuration.
    pub(crate) fn follow(&self, service: &Service) {
        self.text.store(is_text(service), Ordering::Relaxed);
        drop(self.level.reload(level_filter(service.log_level)));
    }
}

/// For commands that only look: what a room finds worth a warning, in a readable form on stderr.
pub(crate) fn warnings_to_stderr() {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .event_format(Lines { text: Arc::new(AtomicBool::new(true)) });
    // Fails only when it was done before.
    drop(tracing_subscriber::registry().with(LevelFilter::WARN).with(lines).try_init());
}

/// A panic is caught where it happens and ends one actor or one attempt; where it came from is only known here.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let text = panic.payload_as_str().unwrap_or("no text");
    let backtrace = std::backtrace::Backtrace::force_capture();
    tracing::error!(event = "panic", place, error = text, backtrace = %backtrace, "a part of the program panicked");
}

fn is_text(service: &Service) -> bool {
    service.log_format == LogFormat::Text
}

fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    }
}

/// A writer with a thread of its own: a blocked or closed output drops lines instead of holding anybody up.
fn writer(target: LogTarget) -> (NonBlocking, WorkerGuard) {
    let builder = NonBlockingBuilder::default().lossy(true).thread_name("log");
    match target {
        LogTarget::Stdout => builder.finish(io::stdout()),
        LogTarget::File(path) => match open_log(&path) {
            Ok(file) => builder.finish(file),
            Err(error) => {
                eprintln!("could not open the log file {}: {error}; logging to standard output", path.display());
                builder.finish(io::stdout())
            }
        },
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Renders events.
struct Lines {
    text: Arc<AtomicBool>,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { message, mut values } = fields;
        let timestamp = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let level = metadata.level().as_str();
        // Only a room's own component name stands before the event's fields; a field of that name is about another.
        let component = component(metadata.target());
        if self.text.load(Ordering::Relaxed) {
            write!(writer, "{timestamp} {level:<5} {component}: {}", one_line(&message))?;
            for (key, value) in &values {
                write!(writer, " {key}={value}")?;
            }
            return writeln!(writer);
        }
        let mut line = Map::new();
        line.insert("timestamp".into(), timestamp.into());
        line.insert("level".into(), level.into());
        line.insert("component".into(), values.shift_remove("component").unwrap_or_else(|| component.into()));
        line.insert("message".into(), message.into());
        line.extend(values);
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// The room an event comes from: the crate without our prefix.
fn component(target: &str) -> &str {
    let krate = target.split("::").next().unwrap_or(target);
    krate.strip_prefix("ductile_").unwrap_or(if krate == "ductile" { "gateway" } else { krate })
}

/// Control characters would break the rule of one line per event.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            // Writing into a String can not fail.
            let _ = write!(line, "{}", c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[derive(Default)]
struct Fields {
    message: String,
    values: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => {
                self.values.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, cut(format!("{value:?}")).into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, cut(value.to_owned()).into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

fn cut(mut text: String) -> String {
    if text.len() > LONGEST_VALUE {
        let end = (0..=LONGEST_VALUE).rev().find(|index| text.is_char_boundary(*index)).unwrap_or(0);
        text.truncate(end);
        text.push_str("…[cut]");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_component_is_the_room() {
        assert_eq!(component("ductile_queue::store::writer"), "queue");
        assert_eq!(component("ductile::gateway::root"), "gateway");
        assert_eq!(component("hyper::proto"), "hyper");
    }

    #[test]
    fn long_values_are_cut_at_a_character_boundary() {
        let text = cut("é".repeat(LONGEST_VALUE));
        assert!(text.len() < LONGEST_VALUE + 20);
        assert!(text.ends_with("…[cut]"));
    }

    #[test]
    fn control_characters_never_reach_a_text_line() {
        assert_eq!(one_line("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
    }
}
