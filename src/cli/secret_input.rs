//! A secret from stdin: bounded, kept only in memory that is wiped, never shown on a terminal.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use ductile_model::Secret;
use rustix::termios::{InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use zeroize::Zeroizing;

use super::report::{Failure, note};

/// The longest value that a vault takes.
const LIMIT: usize = 64 * 1024;
/// Room for final line ends, which are no part of the value.
const SLACK: usize = 1024;
/// From here on a terminal cuts a line off without a word.
const TERMINAL_LINE: usize = if cfg!(target_os = "linux") { 4095 } else { 1023 };

/// Reads the value: from a terminal one line without echo, otherwise everything. Final line ends are removed, unless
/// `raw`. Nothing at all is `None`.
pub(super) fn read(raw: bool) -> Result<Option<Secret>, Failure> {
    // Not through the standard library's handle, whose buffer would keep a copy.
    let stdin = io::stdin().as_fd().try_clone_to_owned().map(File::from).map_err(|error| unreadable(&error))?;
    // Never grown, so that no copy stays behind in a smaller one.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LIMIT + SLACK + 64));
    if stdin.is_terminal() {
        ask(&stdin, &mut bytes)?;
    } else {
        let most = u64::try_from(LIMIT + SLACK + 1).unwrap_or(u64::MAX);
        (&stdin).take(most).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    }
    value(&bytes, raw)
}

fn value(bytes: &[u8], raw: bool) -> Result<Option<Secret>, Failure> {
    let ends = if raw { 0 } else { bytes.iter().rev().take_while(|byte| matches!(byte, b'\r' | b'\n')).count() };
    let value = &bytes[..bytes.len() - ends];
    if value.len() > LIMIT || bytes.len() > LIMIT + SLACK {
        return Err(Failure::usage("the value on stdin is longer than 64 KiB; nothing was changed"));
    }
    let text = std::str::from_utf8(value)
        .map_err(|_| Failure::usage("the value on stdin is not UTF-8 text; nothing was changed"))?;
    Ok((!text.is_empty()).then(|| Secret::new(text.to_owned())))
}

fn unreadable(error: &io::Error) -> Failure {
    Failure::usage(format!("the value on stdin can not be read: {error}"))
}

/// Asks for one line on a terminal that shows nothing of it.
fn ask(terminal: &File, bytes: &mut Vec<u8>) -> Result<(), Failure> {
    let unusable =
        |error: io::Error| Failure::internal(format!("the terminal can not be kept from showing the value: {error}"));
    let quiet = Quiet::begin(terminal).map_err(unusable)?;
    drop(io::stderr().write_all(b"Value (not shown; Enter ends it): "));
    bytes.resize(TERMINAL_LINE + 1, 0);
    let read = loop {
        match (&*terminal).read(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => break other,
        }
    };
    bytes.truncate(*read.as_ref().unwrap_or(&0));
    drop(quiet);
    note(format_args!(""));
    match read {
        Err(error) => Err(unreadable(&error)),
        Ok(length) if length >= TERMINAL_LINE => {
            Err(Failure::usage("the value is too long to be typed: a terminal cuts it off; give it through a pipe"))
        }
        Ok(_) => Ok(()),
    }
}

/// A terminal without echo, put back as it was when this is dropped, and also when a signal ends the process.
struct Quiet<'t> {
    terminal: &'t File,
    before: Termios,
}

impl<'t> Quiet<'t> {
    fn begin(terminal: &'t File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO;
        quiet.local_modes |= LocalModes::ICANON | LocalModes::ISIG;
        quiet.input_modes |= InputModes::ICRNL;
        // A stopped process could not put the terminal back: 0 is no key.
        quiet.special_codes[SpecialCodeIndex::VSUSP] = 0;
        let ending = restore_on_signal(terminal.try_clone()?, before.clone())?;
        // Once a signal is being handled the lock is never given back, so that the echo stays on.
        let _not_ending = ending.lock().unwrap_or_else(PoisonError::into_inner);
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Puts the terminal back before one of the usual signals does what it always does. Lasts until the process ends.
fn restore_on_signal(terminal: File, before: Termios) -> io::Result<Arc<Mutex<()>>> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])?;
    let ending = Arc::new(Mutex::new(()));
    let lock = ending.clone();
    std::thread::Builder::new().name("terminal".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let _ending = lock.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = tcsetattr(&terminal, OptionalActions::Now, &before);
            drop(signal_hook::low_level::emulate_default_handler(signal));
        }
    })?;
    Ok(ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8], raw: bool) -> Option<String> {
        value(bytes, raw).unwrap().map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn final_line_ends_are_no_part_of_the_value() {
        assert_eq!(text(b"a\nb\r\n\n", false).as_deref(), Some("a\nb"));
        assert_eq!(text(b"a\r\n", true).as_deref(), Some("a\r\n"));
        assert_eq!(text(b"\n\n", false), None);
        assert_eq!(text(b"", true), None);
    }

    #[test]
    fn what_no_vault_takes_is_refused() {
        let full = vec![b'x'; LIMIT];
        assert_eq!(text(&[&full[..], b"\n"].concat(), false).unwrap().len(), LIMIT);
        assert!(value(&[&full[..], b"\n"].concat(), true).is_err());
        assert!(value(&[&full[..], b"x"].concat(), false).is_err());
        assert!(value(&[&full[..], &[b'\n'; SLACK + 1]].concat(), false).is_err());
        assert!(value(b"\xff\xfe", false).is_err());
    }
}
