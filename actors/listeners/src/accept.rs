//! The accept loop of a door.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;

use crate::connection;
use crate::door::{Peer, Shared};

/// Between two warnings of the same loop.
const WARN_EVERY: Duration = Duration::from_secs(1);

/// What an error of `accept` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AcceptError {
    /// Only the connection that was about to come is gone.
    Connection,
    /// The system is short of something (descriptors, memory): it may pass.
    Exhausted,
    /// The socket itself is broken.
    Broken,
}

impl AcceptError {
    fn of(error: &std::io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP) => Self::Broken,
            Some(Errno::CONNABORTED | Errno::CONNRESET | Errno::CONNREFUSED | Errno::PROTO | Errno::INTR) => {
                Self::Connection
            }
            _ => Self::Exhausted,
        }
    }
}

/// Accepts until the door closes or the socket breaks. Dropping the listener closes the socket.
pub(crate) async fn run(shared: Arc<Shared>, listener: TcpListener) {
    let _report = ReportPanic(&shared);
    let mut closing = shared.closing.subscribe();
    tokio::select! {
        () = accept_all(&shared, &listener) => {}
        _ = closing.wait_for(|closing| *closing) => take_waiting(&shared, &listener),
    }
}

/// A loop that is gone without having been told to is as bad as a broken socket.
struct ReportPanic<'a>(&'a Shared);

impl Drop for ReportPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failure.send_replace(Some(format!("the accept loop of {} panicked", self.0.local)));
        }
    }
}

async fn accept_all(shared: &Arc<Shared>, listener: &TcpListener) {
    let mut troubles = Troubles::default();
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                troubles.over();
                let Some(permit) = permit(shared).await else { return };
                spawn(shared, stream, remote, permit);
            }
            Err(error) => match AcceptError::of(&error) {
                AcceptError::Connection => tracing::debug!(%error, "a connection was gone before it was accepted"),
                AcceptError::Exhausted => tokio::time::sleep(troubles.pause(shared, &error)).await,
                AcceptError::Broken => {
                    let reason = format!("the listening socket on {} can no longer accept: {error}", shared.local);
                    shared.failure.send_replace(Some(reason));
                    return;
                }
            },
        }
    }
}

/// A place for one more connection. While one waits for it, connections end after their present answer.
async fn permit(shared: &Arc<Shared>) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = shared.permits.clone().try_acquire_owned() {
        return Some(permit);
    }
    let _crowded = shared.crowded();
    shared.evict_idle();
    shared.permits.clone().acquire_owned().await.ok()
}

/// Clients whose connection the kernel has completed already would see a reset if the socket were just closed.
fn take_waiting(shared: &Arc<Shared>, listener: &TcpListener) {
    while let Ok(permit) = shared.permits.clone().try_acquire_owned() {
        match listener.accept().now_or_never() {
            Some(Ok((stream, remote))) => spawn(shared, stream, remote, permit),
            _ => return,
        }
    }
}

fn spawn(shared: &Arc<Shared>, stream: TcpStream, remote: std::net::SocketAddr, permit: OwnedSemaphorePermit) {
    // Answers are written whole; waiting to fill a packet would only delay them.
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr().unwrap_or(shared.local);
    tokio::spawn(connection::serve(shared.clone(), stream, Peer { remote, local }, permit));
}

/// Back-off and rate of warnings while accepting fails.
#[derive(Default)]
struct Troubles {
    in_a_row: u32,
    warned: Option<Instant>,
}

impl Troubles {
    fn over(&mut self) {
        self.in_a_row = 0;
    }

    fn pause(&mut self, shared: &Shared, error: &std::io::Error) -> Duration {
        if self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            self.warned = Some(Instant::now());
            tracing::warn!(addr = %shared.local, %error, "can not accept connections at the moment");
        }
        self.in_a_row += 1;
        Duration::from_millis(if self.in_a_row == 1 { 50 } else { 100 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_broken_socket_ends_the_loop() {
        let of = |errno: Errno| AcceptError::of(&std::io::Error::from(errno));
        for errno in [Errno::BADF, Errno::INVAL, Errno::NOTSOCK] {
            assert_eq!(of(errno), AcceptError::Broken, "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert_eq!(of(errno), AcceptError::Exhausted, "{errno}");
        }
        for errno in [Errno::CONNABORTED, Errno::PROTO] {
            assert_eq!(of(errno), AcceptError::Connection, "{errno}");
        }
    }
}
