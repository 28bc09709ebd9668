use std::sync::atomic::AtomicUsize;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::full_body;
use http_body_util::BodyExt as _;

const PATIENCE: Duration = Duration::from_secs(20);

type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;

/// A service made of a closure over the path.
struct Fake<F>(F);

impl<F: Fn(String) -> Answer + Send + Sync + 'static> HttpService for Fake<F> {
    fn call(&self, request: Request, _: Peer) -> Pin<Box<dyn Future<Output = Response> + Send + '_>> {
        (self.0)(request.uri().path().to_owned())
    }
}

fn service(answer: impl Fn(String) -> Answer + Send + Sync + 'static) -> Arc<dyn HttpService> {
    Arc::new(Fake(answer))
}

fn says(text: &'static str) -> Arc<dyn HttpService> {
    service(move |_| Box::pin(async move { Response::new(full_body(text)) }))
}

/// Answers when the gate opens; `begun` counts the requests that wait there.
fn gated(text: &'static str) -> (Arc<dyn HttpService>, watch::Sender<bool>, watch::Receiver<usize>) {
    let (gate, (begun, seen)) = (watch::Sender::new(false), watch::channel(0));
    let opened = gate.subscribe();
    let service = service(move |_| {
        let mut opened = opened.clone();
        begun.send_modify(|n| *n += 1);
        Box::pin(async move {
            let _ = opened.wait_for(|open| *open).await;
            Response::new(full_body(text))
        })
    });
    (service, gate, seen)
}

fn limits() -> DoorLimits {
    DoorLimits {
        header_timeout: Duration::from_secs(10),
        response_timeout: Duration::from_secs(600),
        max_connections: 512,
        max_header_bytes: 32 << 10,
    }
}

fn door(limits: DoorLimits) -> Door {
    Door::bind("127.0.0.1:0", limits).unwrap()
}

struct Client(TcpStream);

impl Client {
    async fn connect(door: &Door) -> Self {
        Self(TcpStream::connect(door.local_addr()).await.unwrap())
    }

    async fn send(&mut self, path: &str) {
        self.0.write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).await.unwrap();
    }

    /// One answer with a `content-length`: head and body; `None` when the connection ends before one is complete.
    async fn receive(&mut self) -> Option<(String, String)> {
        let mut bytes = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
                if body.len() >= length.parse().unwrap() {
                    return Some((head.to_owned(), body.to_owned()));
                }
            }
            let mut chunk = [0; 4096];
            let read = tokio::time::timeout(PATIENCE, self.0.read(&mut chunk)).await.expect("an answer or an end");
            match read {
                Ok(0) | Err(_) => return None,
                Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            }
        }
    }

    async fn get(&mut self, path: &str) -> Option<(String, String)> {
        self.send(path).await;
        self.receive().await
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_connections_in_a_row_see_no_error_while_services_are_swapped() {
    let door = door(limits());
    door.install(says("first"));
    let done = watch::Sender::new(false);
    let swapper = {
        let (door, stopped) = (door.clone(), done.subscribe());
        tokio::spawn(async move {
            let mut swaps = 0;
            while !*stopped.borrow() {
                let next = says("next");
                door.install(next.clone());
                tokio::task::yield_now().await;
                // As when the actor of a generation crashes and comes back.
                door.uninstall(&next);
                tokio::task::yield_now().await;
                door.install(says("again"));
                tokio::task::yield_now().await;
                swaps += 1;
            }
            swaps
        })
    };
    for number in 0..2000 {
        let answer = Client::connect(&door).await.get("/").await;
        assert!(answer.is_some_and(|(head, _)| head.starts_with("HTTP/1.1 200")), "connection {number}");
    }
    done.send_replace(true);
    assert!(soon(swapper).await.unwrap() > 100);
}

#[tokio::test]
async fn a_request_is_served_to_its_end_by_the_service_that_was_there_when_it_came() {
    let door = door(limits());
    let (old, gate, mut begun) = gated("old");
    door.install(old);
    let mut first = Client::connect(&door).await;
    first.send("/").await;
    soon(begun.wait_for(|n| *n == 1)).await.unwrap();
    door.install(says("new"));
    assert_eq!(Client::connect(&door).await.get("/").await.unwrap().1, "new");
    gate.send_replace(true);
    assert_eq!(first.receive().await.unwrap().1, "old");
    assert_eq!(first.get("/").await.unwrap().1, "new");
}

#[tokio::test]
async fn a_service_that_comes_late_does_not_push_its_successor_aside() {
    let door = door(limits());
    assert!(door.install_ranked(says("second"), "2"));
    assert!(!door.install_ranked(says("first"), "1"));
    assert_eq!(Client::connect(&door).await.get("/").await.unwrap().1, "second");
    // The same generation may come again, after a crash for instance.
    assert!(door.install_ranked(says("second again"), "2"));
    assert_eq!(Client::connect(&door).await.get("/").await.unwrap().1, "second again");
}

#[tokio::test]
async fn requests_wait_while_no_service_is_installed() {
    let door = door(limits());
    let first = says("first");
    door.install(first.clone());
    let mut client = Client::connect(&door).await;
    assert_eq!(client.get("/").await.unwrap().1, "first");
    door.uninstall(&says("somebody else"));
    assert_eq!(client.get("/").await.unwrap().1, "first");
    door.uninstall(&first);
    client.send("/").await;
    // The connection is with the door, the answer has to wait.
    let mut byte = [0];
    assert_eq!(client.0.try_read(&mut byte).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    door.install(says("second"));
    assert_eq!(client.receive().await.unwrap().1, "second");
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_headers_is_cut_off() {
    let door = door(DoorLimits { header_timeout: Duration::from_millis(300), ..limits() });
    door.install(says("hello"));
    let mut client = Client::connect(&door).await;
    client.0.write_all(b"GET / HTTP/1.1\r\nHost: te").await.unwrap();
    assert_eq!(client.receive().await, None);
    let mut silent = Client::connect(&door).await;
    assert_eq!(silent.receive().await, None);
}

#[tokio::test]
async fn an_idle_connection_ends_after_its_own_limit() {
    let door = door(DoorLimits { header_timeout: Duration::from_millis(300), ..limits() });
    door.install(says("hello"));
    let mut client = Client::connect(&door).await;
    assert_eq!(client.get("/").await.unwrap().1, "hello");
    assert_eq!(client.receive().await, None);
}

#[tokio::test]
async fn a_request_may_take_longer_than_the_headers_may() {
    let door = door(DoorLimits { header_timeout: Duration::from_millis(300), ..limits() });
    let (slow, gate, mut begun) = gated("slow");
    door.install(slow);
    let mut client = Client::connect(&door).await;
    client.send("/").await;
    soon(begun.wait_for(|n| *n == 1)).await.unwrap();
    // Another connection lives and dies of the limit meanwhile.
    assert_eq!(Client::connect(&door).await.receive().await, None);
    gate.send_replace(true);
    assert_eq!(client.receive().await.unwrap().1, "slow");
}

/// A body without an end.
struct Endless;

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(Bytes::from_static(&[b'x'; 16 << 10])))))
    }
}

#[tokio::test]
async fn an_answer_that_nobody_reads_gives_its_place_back() {
    let door = door(DoorLimits { response_timeout: Duration::from_millis(300), max_connections: 1, ..limits() });
    door.install(service(|path| {
        Box::pin(async move {
            let body = if path == "/endless" { Endless.boxed() } else { full_body("hello") };
            Response::new(body)
        })
    }));
    let mut deaf = Client::connect(&door).await;
    deaf.send("/endless").await;
    // The answer has begun, so the connection is not an idle one that could be replaced.
    soon(deaf.0.readable()).await.unwrap();
    let mut next = Client::connect(&door).await;
    assert_eq!(next.get("/").await.unwrap().1, "hello");
}

#[tokio::test]
async fn an_answer_that_is_never_made_gives_its_place_back() {
    let door = door(DoorLimits { response_timeout: Duration::from_millis(300), ..limits() });
    let (never, _gate, _) = gated("never");
    door.install(never);
    let mut client = Client::connect(&door).await;
    assert_eq!(client.get("/").await, None);
}

#[tokio::test]
async fn a_generation_may_give_its_answers_more_time_and_never_less() {
    let door = door(DoorLimits { response_timeout: Duration::from_secs(5), ..limits() });
    let (slow, gate, mut begun) = gated("slow");
    door.install(slow);
    let mut client = Client::connect(&door).await;
    client.send("/").await;
    soon(begun.wait_for(|n| *n == 1)).await.unwrap();
    door.raise_response_timeout(Duration::from_secs(600));
    door.raise_response_timeout(Duration::from_millis(1));
    assert_eq!(door.shared.response_timeout(), Duration::from_secs(600));
    gate.send_replace(true);
    assert_eq!(client.receive().await.unwrap().1, "slow");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let door = door(DoorLimits { max_header_bytes: 1024, ..limits() });
    door.install(says("hello"));
    let mut client = Client::connect(&door).await;
    let request = format!("GET / HTTP/1.1\r\nHost: test\r\nX-Long: {}\r\n\r\n", "x".repeat(2000));
    client.0.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(client.0.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn closing_lets_an_open_request_finish_and_ends_idle_connections_at_once() {
    let door = door(limits());
    door.install(says("hello"));
    let mut idle = Client::connect(&door).await;
    assert_eq!(idle.get("/").await.unwrap().1, "hello");
    let (slow, gate, mut begun) = gated("finished");
    let held = Arc::downgrade(&slow);
    door.install(slow);
    let mut open = Client::connect(&door).await;
    open.send("/").await;
    soon(begun.wait_for(|n| *n == 1)).await.unwrap();
    let closing = tokio::spawn({
        let door = door.clone();
        async move { door.close(PATIENCE).await }
    });
    assert_eq!(idle.receive().await, None);
    assert!(TcpStream::connect(door.local_addr()).await.is_err());
    assert!(!closing.is_finished());
    gate.send_replace(true);
    let (head, body) = open.receive().await.unwrap();
    assert_eq!(body, "finished");
    assert!(head.contains("connection: close"), "{head}");
    soon(closing).await.unwrap();
    assert_eq!(door.connections(), 0);
    assert!(held.upgrade().is_none());
    // A second close finds nothing to do.
    soon(door.close(PATIENCE)).await;
}

#[tokio::test]
async fn closing_cuts_what_does_not_end_within_the_limit() {
    let door = door(limits());
    let (slow, _gate, mut begun) = gated("never");
    door.install(slow);
    let mut client = Client::connect(&door).await;
    client.send("/").await;
    soon(begun.wait_for(|n| *n == 1)).await.unwrap();
    soon(door.close(Duration::from_millis(20))).await;
    assert_eq!(client.receive().await, None);
    assert_eq!(door.connections(), 0);
}

#[tokio::test]
async fn clients_in_the_accept_queue_are_served_before_the_socket_closes() {
    let door = door(limits());
    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = Client::connect(&door).await;
        client.send("/").await;
        clients.push(client);
    }
    door.install(says("served"));
    soon(door.close(PATIENCE)).await;
    for mut client in clients {
        assert_eq!(client.receive().await.unwrap().1, "served");
    }
}

#[tokio::test]
async fn no_more_connections_than_allowed_are_served_and_the_next_one_waits() {
    let door = door(DoorLimits { max_connections: 2, ..limits() });
    let most = Arc::new(AtomicUsize::new(0));
    let (inner, gate, mut begun) = gated("served");
    let counted = Arc::new(AtomicUsize::new(0));
    let service = {
        let (most, counted, inner) = (most.clone(), counted, inner);
        struct Counting(Arc<dyn HttpService>, Arc<AtomicUsize>, Arc<AtomicUsize>);
        impl HttpService for Counting {
            fn call(&self, request: Request, peer: Peer) -> Pin<Box<dyn Future<Output = Response> + Send + '_>> {
                Box::pin(async move {
                    self.2.fetch_max(self.1.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let response = self.0.call(request, peer).await;
                    self.1.fetch_sub(1, Ordering::SeqCst);
                    response
                })
            }
        }
        Arc::new(Counting(inner, counted, most))
    };
    door.install(service);
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = Client::connect(&door).await;
        client.send("/").await;
        clients.push(client);
    }
    soon(begun.wait_for(|n| *n == 2)).await.unwrap();
    gate.send_replace(true);
    for mut client in clients {
        assert_eq!(client.receive().await.unwrap().1, "served");
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_new_client_takes_the_place_of_an_idle_one() {
    let door = door(DoorLimits { max_connections: 1, ..limits() });
    door.install(says("hello"));
    let mut idle = Client::connect(&door).await;
    assert_eq!(idle.get("/").await.unwrap().1, "hello");
    let mut next = Client::connect(&door).await;
    assert_eq!(next.get("/").await.unwrap().1, "hello");
    assert_eq!(idle.receive().await, None);
}

#[tokio::test]
async fn a_panic_in_a_service_is_an_answer_and_the_connection_lives_on() {
    let door = door(limits());
    door.install(service(|path| {
        Box::pin(async move {
            assert!(path != "/panic", "asked for by a test");
            Response::new(full_body("fine"))
        })
    }));
    let mut client = Client::connect(&door).await;
    client.0.write_all(b"GET /panic HTTP/1.1\r\nHost: t\r\nX-Request-Id: mine-1\r\n\r\n").await.unwrap();
    let (head, body) = client.receive().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 500"), "{head}");
    assert!(head.contains("x-request-id: mine-1"), "{head}");
    assert_eq!(body, "{\"error\":\"internal error\",\"code\":\"internal\",\"request_id\":\"mine-1\"}\n");
    assert_eq!(client.get("/").await.unwrap().1, "fine");
}

#[tokio::test]
async fn a_taken_address_is_an_error_that_names_it() {
    let door = door(limits());
    let address = door.local_addr().to_string();
    let error = Door::bind(&address, limits()).err().unwrap().to_string();
    assert!(error.starts_with(&format!("can not listen on {address}: ")), "{error}");
    drop(door);
    assert!(Door::bind(&address, limits()).is_ok());
}

#[tokio::test]
async fn whoever_watches_for_a_failure_is_let_go_when_the_door_is_closed() {
    let door = door(limits());
    door.install(says("hello"));
    let watching = tokio::spawn({
        let door = door.clone();
        async move { door.failed().await }
    });
    soon(door.close(PATIENCE)).await;
    assert_eq!(soon(watching).await.unwrap(), None);
    // Also when it was closed before.
    assert_eq!(soon(door.failed()).await, None);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_broken_listening_socket_is_reported() {
    let door = door(limits());
    if let Socket::Bound(listener) = &*door.shared.socket() {
        // On Linux this takes the socket out of the listening state.
        rustix::net::shutdown(listener, rustix::net::Shutdown::Read).unwrap();
    }
    door.install(says("hello"));
    let reason = soon(door.failed()).await.unwrap();
    assert!(reason.contains("can no longer accept"), "{reason}");
}
