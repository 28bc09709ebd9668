//! One bound address.

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;

use crate::accept;
use crate::connection::Connection;

/// Body of an answer.
pub type Body = BoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;
/// A request as it comes from the connection.
pub type Request = http::Request<hyper::body::Incoming>;
/// An answer.
pub type Response = http::Response<Body>;

/// Connections the kernel completes and keeps for us before it refuses more. The system caps it by its own limit.
const BACKLOG: u32 = 4096;
/// How long a connection may still take to notice that it is aborted.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// Who is at the other end.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Address of the client.
    pub remote: SocketAddr,
    /// Address it connected to.
    pub local: SocketAddr,
}

/// Serves the requests of a door.
pub trait HttpService: Send + Sync + 'static {
    /// Answers one request. A dropped future means the client is gone. A panic becomes an answer with status 500.
    fn call(&self, request: Request, peer: Peer) -> Pin<Box<dyn Future<Output = Response> + Send + '_>>;
}

/// Limits of a door.
#[derive(Debug, Clone, Copy)]
pub struct DoorLimits {
    /// Time for the headers of a request, counted from its first byte (for the first request: from the accept). A
    /// connection that waits between two requests may do so six times as long.
    pub header_timeout: Duration,
    /// How long an answer may make no progress: counted from the begin of the request (its headers were read), then
    /// from the last bytes of the answer that the client took. So it must be longer than the longest time a service
    /// takes to answer, and an answer that goes on for ever is not cut while it is read.
    pub response_timeout: Duration,
    /// Connections at once. When all are taken, one more replaces the connection that is idle longest, or waits.
    pub max_connections: usize,
    /// Bytes of the request head.
    pub max_header_bytes: usize,
}

impl DoorLimits {
    /// How long a connection may wait between two requests.
    pub(crate) fn idle_timeout(&self) -> Duration {
        self.header_timeout * 6
    }

    fn permits(&self) -> u32 {
        u32::try_from(self.max_connections.clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX)
    }
}

/// Why an address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("can not listen on {address}: {source}")]
pub struct BindError {
    /// The address as configured.
    pub address: String,
    /// Why.
    pub source: std::io::Error,
}

/// Where a door is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Order {
    /// Serve.
    Open = 0,
    /// Finish what is open, take nothing new.
    Closing = 1,
    /// Time is up.
    Abort = 2,
}

/// The service of the active generation. A struct of its own, because the slot needs a sized type.
struct Installed(Arc<dyn HttpService>);

/// What the door, its accept loop and its connections share.
pub(crate) struct Shared {
    pub(crate) local: SocketAddr,
    pub(crate) limits: DoorLimits,
    /// In milliseconds: the limit that it was bound with, or a longer one.
    response_timeout: AtomicU64,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) failure: watch::Sender<Option<String>>,
    pub(crate) closing: watch::Sender<bool>,
    slot: ArcSwapOption<Installed>,
    installed: Notify,
    /// The greatest rank that was installed.
    newest: Mutex<String>,
    order: AtomicU8,
    crowded: AtomicBool,
    next_connection: AtomicU64,
    connections: Mutex<HashMap<u64, Arc<Connection>>>,
    socket: Mutex<Socket>,
}

/// The listening socket moves from the door into its accept loop.
enum Socket {
    Bound(TcpListener),
    Accepting(JoinHandle<()>),
    Gone,
}

impl Shared {
    pub(crate) fn order(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::Open,
            1 => Order::Closing,
            _ => Order::Abort,
        }
    }

    /// How long an answer may make no progress.
    pub(crate) fn response_timeout(&self) -> Duration {
        Duration::from_millis(self.response_timeout.load(Ordering::Relaxed))
    }

    /// The service for a request whose headers have just been read.
    pub(crate) fn service(&self) -> Option<Arc<dyn HttpService>> {
        self.slot.load().as_ref().map(|installed| installed.0.clone())
    }

    /// The next service that is installed, within `limit`.
    pub(crate) async fn next_service(&self, limit: Duration) -> Option<Arc<dyn HttpService>> {
        let wait = async {
            loop {
                // Registered before the look, so that an install in between is not missed.
                let mut installed = std::pin::pin!(self.installed.notified());
                installed.as_mut().enable();
                if let Some(service) = self.service() {
                    return service;
                }
                installed.await;
            }
        };
        tokio::time::timeout(limit, wait).await.ok()
    }

    pub(crate) fn admit(&self, connection: Arc<Connection>) -> u64 {
        let id = self.next_connection.fetch_add(1, Ordering::Relaxed);
        self.connections().insert(id, connection);
        id
    }

    pub(crate) fn dismiss(&self, id: u64) {
        self.connections().remove(&id);
    }

    /// Somebody waits for a place, until the answer is dropped.
    pub(crate) fn crowded(&self) -> impl Drop + '_ {
        struct Crowded<'a>(&'a AtomicBool);
        impl Drop for Crowded<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Release);
            }
        }
        self.crowded.store(true, Ordering::Release);
        Crowded(&self.crowded)
    }

    /// Whether a connection should end after its present answer.
    pub(crate) fn wants_connections_back(&self) -> bool {
        self.order() != Order::Open || self.crowded.load(Ordering::Acquire)
    }

    /// Asks the connection that waits longest for its next request to make room.
    pub(crate) fn evict_idle(&self) {
        let connections = self.connections();
        let idle = connections.values().filter_map(|connection| Some((connection.idle_since()?, connection)));
        if let Some((_, connection)) = idle.min_by_key(|(since, _)| *since) {
            connection.evict();
        }
    }

    fn give(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::AcqRel);
        for connection in self.connections().values() {
            connection.wake();
        }
    }

    // No code under these locks can panic half-way through a change.
    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn socket(&self) -> MutexGuard<'_, Socket> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bound address with its accept loop. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    shared: Arc<Shared>,
}

impl Door {
    /// Binds and listens; nothing is accepted yet. Needs a tokio runtime.
    ///
    /// # Errors
    /// The address is taken, unknown or not permitted.
    pub fn bind(address: &str, limits: DoorLimits) -> Result<Self, BindError> {
        let failed = |source| BindError { address: address.to_owned(), source };
        let listener = listen(address).map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        let shared = Shared {
            local,
            limits,
            response_timeout: AtomicU64::new(millis(limits.response_timeout)),
            permits: Arc::new(Semaphore::new(limits.permits() as usize)),
            failure: watch::Sender::new(None),
            closing: watch::Sender::new(false),
            slot: ArcSwapOption::empty(),
            installed: Notify::new(),
            newest: Mutex::default(),
            order: AtomicU8::new(Order::Open as u8),
            crowded: AtomicBool::new(false),
            next_connection: AtomicU64::new(0),
            connections: Mutex::default(),
            socket: Mutex::new(Socket::Bound(listener)),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The address, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local
    }

    /// Whether connections are being accepted: from the first install until the close.
    #[must_use]
    pub fn is_accepting(&self) -> bool {
        matches!(&*self.shared.socket(), Socket::Accepting(_))
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections().len()
    }

    /// Gives answers at least this long without progress from now on, for a generation that takes over the door and
    /// may answer later than the one before. Never less, because requests of the one before may still be open.
    pub fn raise_response_timeout(&self, at_least: Duration) {
        self.shared.response_timeout.fetch_max(millis(at_least), Ordering::Relaxed);
    }

    /// Installs the service of a generation, starting the accept loop at the first call. Requests whose headers were
    /// read before go on with the service they have, and each holds it until its answer is made: once a service that
    /// was replaced, or whose door was closed, is dropped, no request is left that could still call it.
    pub fn install(&self, service: Arc<dyn HttpService>) {
        self.shared.slot.store(Some(Arc::new(Installed(service))));
        self.shared.installed.notify_waiters();
        let mut socket = self.shared.socket();
        *socket = match std::mem::replace(&mut *socket, Socket::Gone) {
            Socket::Bound(listener) => Socket::Accepting(tokio::spawn(accept::run(self.shared.clone(), listener))),
            other => other,
        };
    }

    /// As [`Door::install`], unless a service of a greater rank was installed before: whoever comes late must not push
    /// its successor aside. Says whether it was installed.
    #[must_use]
    pub fn install_ranked(&self, service: Arc<dyn HttpService>, rank: &str) -> bool {
        // Held until it is installed, so that of two at once the greater one stays.
        let mut newest = self.shared.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.as_str() > rank {
            return false;
        }
        rank.clone_into(&mut newest);
        self.install(service);
        true
    }

    /// Removes a service, if it is still the one installed: requests wait for the next one.
    pub fn uninstall(&self, service: &Arc<dyn HttpService>) {
        self.shared.slot.rcu(|present| match present {
            Some(installed) if same(&installed.0, service) => None,
            other => other.clone(),
        });
    }

    /// Stops accepting, closes idle connections, lets open requests finish within `limit`, then closes the rest and
    /// the socket. Clients that are already in the accept queue are still served.
    pub async fn close(&self, limit: Duration) {
        let deadline = tokio::time::Instant::now() + limit;
        self.shared.order.fetch_max(Order::Closing as u8, Ordering::AcqRel);
        self.shared.closing.send_replace(true);
        let socket = std::mem::replace(&mut *self.shared.socket(), Socket::Gone);
        if let Socket::Accepting(mut task) = socket
            && tokio::time::timeout_at(deadline, &mut task).await.is_err()
        {
            task.abort();
        }
        self.shared.give(Order::Closing);
        let all = self.shared.limits.permits();
        if tokio::time::timeout_at(deadline, self.shared.permits.acquire_many(all)).await.is_err() {
            tracing::warn!(addr = %self.shared.local, open = self.connections(), "closing connections with open requests");
            self.shared.give(Order::Abort);
            let _ = tokio::time::timeout(ABORT_GRACE, self.shared.permits.acquire_many(all)).await;
        }
        // Nobody is left to serve; whoever waits for the end of the service learns it now.
        self.shared.slot.store(None);
    }

    /// Resolves when the socket can no longer accept, with the reason: the process must end. `None`: the door was
    /// closed in order, and there is nothing left that could fail.
    pub async fn failed(&self) -> Option<String> {
        let mut failure = self.shared.failure.subscribe();
        let mut closing = self.shared.closing.subscribe();
        // The senders live in `self`, so neither wait can end without its reason.
        tokio::select! {
            biased;
            reason = failure.wait_for(Option::is_some) => reason.ok().and_then(|reason| reason.clone()),
            _ = closing.wait_for(|closing| *closing) => None,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    // Longer than any process lives, and still something that can be added to a point in time.
    const LONGEST: u64 = 1000 * 3600 * 24 * 365 * 100;
    u64::try_from(duration.as_millis()).unwrap_or(LONGEST).min(LONGEST)
}

fn same(a: &Arc<dyn HttpService>, b: &Arc<dyn HttpService>) -> bool {
    // Addresses only: the same service may have its method table twice in a binary.
    std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
}

/// Binds the first address that a `host:port` stands for and that can be bound.
fn listen(address: &str) -> std::io::Result<TcpListener> {
    let mut last = std::io::Error::new(std::io::ErrorKind::AddrNotAvailable, "the name stands for no address");
    for candidate in address.to_socket_addrs()? {
        match listen_at(candidate) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn listen_at(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for connections of the process before to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests;
