//! One connection of a door: its phases, its time limits, and the way of its requests to the service.
//!
//! hyper has one timer for the headers, and it also runs while a connection waits between two requests. Here the
//! two have limits of their own, so the phases are observed from outside: the socket tells when bytes come, the
//! service when a request begins, and the body of the answer when it ends.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::task::AtomicWaker;
use http::HeaderValue;
use http::header::CONNECTION;
use hyper::body::{Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::answers;
use crate::door::{Order, Shared};
use crate::{Body, DoorLimits, HttpService, Peer, Request, Response};

/// How long a request waits for a service while none is installed.
const SERVICE_WAIT: Duration = Duration::from_secs(10);
/// How long a connection may still take to send the headers of a request when its door closes.
const LAST_HEADERS: Duration = Duration::from_secs(1);

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// The head of a request is on its way.
    Head = 0,
    /// A request is being served or its answer written.
    Busy = 1,
    /// Between two requests.
    Idle = 2,
}

/// The part of a connection that others can see. Phases change only in the task of the connection.
pub(crate) struct Connection {
    born: Instant,
    phase: AtomicU8,
    /// Milliseconds from `born` to the begin of the phase, or to the last bytes of an answer that the client took.
    since: AtomicU64,
    evicted: AtomicBool,
    waker: AtomicWaker,
}

impl Connection {
    fn new() -> Self {
        Self {
            born: Instant::now(),
            phase: AtomicU8::new(Phase::Head as u8),
            since: AtomicU64::new(0),
            evicted: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Head,
            1 => Phase::Busy,
            _ => Phase::Idle,
        }
    }

    fn since(&self) -> Instant {
        self.born + Duration::from_millis(self.since.load(Ordering::Relaxed))
    }

    fn enter(&self, phase: Phase) {
        self.count_from_now();
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// The client took bytes of an answer. The rest of one may still be on its way when its body is done with, so
    /// this counts between two requests too; it gives nobody more time for the head of a request.
    fn answer_went_on(&self) {
        if self.phase() != Phase::Head {
            self.count_from_now();
        }
    }

    fn count_from_now(&self) {
        let since = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since.store(since, Ordering::Relaxed);
    }

    /// Since when it waits for its next request, if it does.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        (self.phase() == Phase::Idle && !self.evicted.load(Ordering::Relaxed)).then(|| self.since())
    }

    /// Asks it to make room.
    pub(crate) fn evict(&self) {
        self.evicted.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Makes it look at the orders of its door.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve(shared: Arc<Shared>, stream: TcpStream, peer: Peer, permit: OwnedSemaphorePermit) {
    let connection = Arc::new(Connection::new());
    let id = shared.admit(connection.clone());
    // Also when the task panics or is dropped.
    let _place = Place { shared: shared.clone(), id, _permit: permit };
    let io = TokioIo::new(Watched { stream, connection: connection.clone() });
    let requests = {
        let (shared, connection) = (shared.clone(), connection.clone());
        service_fn(move |request: Request| {
            connection.enter(Phase::Busy);
            let service = shared.service();
            answer(shared.clone(), connection.clone(), service, request, peer)
        })
    };
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_header_size(shared.limits.max_header_bytes)
        .keep_alive(true)
        .serve_connection(io, requests);
    guard(&shared, &connection, pin!(http)).await;
}

struct Place {
    shared: Arc<Shared>,
    id: u64,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.dismiss(self.id);
    }
}

/// What hyper's connection can do for us.
trait Http: Future {
    /// Closes it as soon as no request is open.
    fn finish(self: Pin<&mut Self>);
}

impl<S, B> Http for http1::Connection<TokioIo<Watched>, S>
where
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Drives a connection under the limits of its phases and the orders of its door.
async fn guard(shared: &Shared, connection: &Connection, mut http: Pin<&mut impl Http>) {
    let mut alarm = pin!(tokio::time::sleep_until(connection.born + shared.limits.header_timeout));
    let mut finishing = false;
    poll_fn(|context| {
        connection.waker.register(context.waker());
        let order = shared.order();
        if order == Order::Abort {
            return Poll::Ready(());
        }
        let must_finish = order == Order::Closing || connection.evicted.load(Ordering::Acquire);
        // A half-read head counts as idle for hyper; it gets its short time below instead.
        if must_finish && !finishing && connection.phase() != Phase::Head {
            finishing = true;
            http.as_mut().finish();
        }
        if http.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        loop {
            let deadline = deadline(&shared.limits, shared.response_timeout(), connection, order);
            // The alarm is moved only when it would ring too late: most requests never touch the timer.
            if alarm.deadline() > deadline || alarm.is_elapsed() {
                alarm.as_mut().reset(deadline);
            }
            if alarm.as_mut().poll(context).is_pending() {
                break;
            }
            if Instant::now() >= deadline {
                tracing::debug!(addr = %shared.local, phase = ?connection.phase(), "connection cut: it took too long");
                return Poll::Ready(());
            }
        }
        Poll::Pending
    })
    .await;
}

/// When the present phase must be over.
///
/// What counts for an answer is the last bytes of it that the client took, before them the begin of the request: a
/// stream of events may last for ever as long as it is read, while an answer that nobody reads, or that is never made,
/// gives its place back. Bytes from the client count for nothing here; the service limits the time of a body.
fn deadline(limits: &DoorLimits, response_timeout: Duration, connection: &Connection, order: Order) -> Instant {
    let limit = match connection.phase() {
        Phase::Busy => response_timeout,
        Phase::Idle => limits.idle_timeout(),
        Phase::Head if order == Order::Open => limits.header_timeout,
        Phase::Head => limits.header_timeout.min(LAST_HEADERS),
    };
    connection.since() + limit
}

/// Answers one request with the service that was installed when it came, or with the next one.
async fn answer(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    service: Option<Arc<dyn HttpService>>,
    request: Request,
    peer: Peer,
) -> Result<http::Response<Finishing>, Infallible> {
    let request_id = answers::given_request_id(request.headers());
    let service = match service {
        Some(service) => Some(service),
        None => shared.next_service(SERVICE_WAIT).await,
    };
    let mut response = match service {
        Some(service) => call(&*service, request, peer).await.unwrap_or_else(|()| answers::panicked(request_id)),
        None => answers::no_service(request_id),
    };
    if shared.wants_connections_back() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| Finishing { body, connection }))
}

/// `Err`: the service panicked; the panic hook has already reported it.
async fn call(service: &dyn HttpService, request: Request, peer: Peer) -> Result<Response, ()> {
    // A service is shared by all requests and must keep its own state whole; nothing of this request is used again.
    let call = AssertUnwindSafe(async { service.call(request, peer).await });
    call.catch_unwind().await.map_err(|_| ())
}

/// A body that tells its connection when it is done with.
struct Finishing {
    body: Body,
    connection: Arc<Connection>,
}

impl Drop for Finishing {
    fn drop(&mut self) {
        self.connection.enter(Phase::Idle);
    }
}

impl hyper::body::Body for Finishing {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that tells its connection when the first bytes of a request come and when bytes of an answer go.
struct Watched {
    stream: TcpStream,
    connection: Arc<Connection>,
}

impl Watched {
    fn wrote(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(outcome, Poll::Ready(Ok(written)) if written > 0) {
            self.connection.answer_went_on();
        }
        outcome
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before && self.connection.phase() == Phase::Idle {
            self.connection.enter(Phase::Head);
        }
        outcome
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.wrote(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: DoorLimits = DoorLimits {
        header_timeout: Duration::from_secs(10),
        response_timeout: Duration::from_secs(600),
        max_connections: 1,
        max_header_bytes: 1024,
    };

    fn due(connection: &Connection) -> Instant {
        deadline(&LIMITS, LIMITS.response_timeout, connection, Order::Open)
    }

    /// Lets the clock go on, in the steps that a connection counts in.
    fn tick() {
        let now = Instant::now();
        while now.elapsed() < Duration::from_millis(2) {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn an_answer_is_given_its_time_anew_with_all_bytes_that_are_taken() {
        let connection = Connection::new();
        connection.enter(Phase::Busy);
        let first = due(&connection);
        assert_eq!(first, connection.since() + LIMITS.response_timeout);
        tick();
        connection.answer_went_on();
        assert!(due(&connection) > first);
    }

    #[test]
    fn the_rest_of_an_answer_that_is_being_taken_does_not_count_as_idle() {
        let connection = Connection::new();
        connection.enter(Phase::Idle);
        let first = due(&connection);
        assert_eq!(first, connection.since() + LIMITS.idle_timeout());
        tick();
        connection.answer_went_on();
        assert!(due(&connection) > first);
    }

    #[test]
    fn taking_an_answer_gives_no_more_time_for_the_next_head() {
        let connection = Connection::new();
        connection.enter(Phase::Head);
        let first = due(&connection);
        tick();
        connection.answer_went_on();
        assert_eq!(due(&connection), first);
    }
}
