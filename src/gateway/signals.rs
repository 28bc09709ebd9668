//! Signals, as messages.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use tokio::sync::mpsc;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Re-read the configuration; the sender's pid when known.
    Reload {
        /// Who sent it.
        sender: Option<i32>,
    },
    /// Stop in order; a second one cuts the stop short.
    Stop,
    /// Only with test faults: let the chosen component crash.
    Fault,
}

/// Installs the handlers and forwards signals until the receiver is gone. Once installed, a default action never
/// comes back, so this is called first and the receiver is read for the rest of the process's life.
pub(crate) fn install(with_faults: bool) -> std::io::Result<mpsc::UnboundedReceiver<Signal>> {
    let mut wanted = vec![SIGHUP, SIGINT, SIGTERM];
    if with_faults {
        wanted.push(SIGUSR1);
    }
    let mut signals = SignalsInfo::<WithOrigin>::new(wanted)?;
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for origin in signals.forever() {
            let signal = match origin.signal {
                SIGHUP => Signal::Reload { sender: origin.process.map(|process| process.pid) },
                SIGUSR1 => Signal::Fault,
                _ => Signal::Stop,
            };
            if sender.send(signal).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}
