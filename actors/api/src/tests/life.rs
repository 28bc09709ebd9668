//! The actor: activation, hand-over, drain, crash; and reloads asked for over HTTP.

use chrono::Utc;
use ductile_model::{Lifecycle, Outcome};
use ractor::rpc::CallResult;
use ractor::{Actor, ActorRef, ActorStatus};

use super::client::{Client, PATIENCE};
use super::site::{Site, bind, start};
use crate::{ApiActor, ApiMsg, ReloadFailure, ReloadReport};

async fn drain(api: &ActorRef<ApiMsg>) {
    let answer = api.call(|reply| Lifecycle::Drain(reply).into(), Some(PATIENCE)).await.unwrap();
    assert!(matches!(answer, CallResult::Success(())));
}

#[tokio::test]
async fn a_generation_serves_only_when_it_is_active() {
    let site = Site::new().await;
    let door = bind();
    let args = crate::ApiArgs { door: Some(door.clone()), ..site.args.clone() };
    let (api, _) = ApiActor::spawn(None, ApiActor, args).await.unwrap();
    assert!(!door.is_accepting());
    let mut early = Client::connect(door.local_addr(), Some("all")).await;
    early.send("GET", "/plugins", b"").await;
    api.cast(Lifecycle::Activate.into()).unwrap();
    assert_eq!(early.receive().await.status, 200);
    // A second activation changes nothing.
    api.cast(Lifecycle::Activate.into()).unwrap();
    assert_eq!(early.get("/plugins").await.status, 200);
}

#[tokio::test]
async fn the_old_generation_drains_while_the_new_one_serves() {
    let site = Site::new().await;
    let mut waiting = site.client("all").await;
    waiting.send("POST", "/plugin/echo/slow?sync=true", b"").await;
    while site.total().await == 0 {
        tokio::task::yield_now().await;
    }
    let _next = start(&site.next_generation(site.queue.clone())).await;
    let drained = tokio::spawn({
        let api = site.api.clone();
        async move { drain(&api).await }
    });
    let mut client = site.client("all").await;
    assert_eq!(client.get("/plugins").await.status, 200);
    assert!(!drained.is_finished());
    site.gate.send_replace(true);
    assert_eq!(waiting.receive().await.status, 200);
    tokio::time::timeout(PATIENCE, drained).await.unwrap().unwrap();
    site.api.stop_and_wait(None, None).await.unwrap();
    // The service of the next generation is still there, on old connections and new ones.
    assert_eq!(client.get("/plugins").await.status, 200);
    assert_eq!(waiting.get("/plugins").await.status, 200);
}

#[tokio::test]
async fn requests_wait_for_the_actor_that_is_restarted_after_a_crash() {
    let site = Site::new().await;
    let mut client = site.client("all").await;
    assert_eq!(client.get("/plugins").await.status, 200);
    let (doomed, task) = ApiActor::spawn(None, ApiActor, site.args.clone()).await.unwrap();
    doomed.cast(Lifecycle::Activate.into()).unwrap();
    doomed.cast(Lifecycle::Crash.into()).unwrap();
    let _ = task.await;
    assert_eq!(doomed.get_status(), ActorStatus::Stopped);
    client.send("GET", "/plugins", b"").await;
    let _next = start(&site.args).await;
    assert_eq!(client.receive().await.status, 200);
}

#[tokio::test]
async fn a_reload_answers_with_what_came_of_it() {
    let site = Site::new().await;
    let mut client = site.client("system").await;
    let report = ReloadReport {
        reloaded_at: Utc::now(),
        generation: 4,
        snapshot_id: "cfg_x".to_owned(),
        posture: "gateway",
        duration_ms: 12,
        warnings: vec!["careful".to_owned()],
    };
    *site.control.reload.lock().unwrap() = Ok(report);
    let answer = client.post("/system/reload", "{}").await;
    assert_eq!(answer.status, 200);
    let json = answer.json();
    assert_eq!(json["status"], "ok");
    assert_eq!(json["generation"], 4);
    assert_eq!(json["config_snapshot_id"], "cfg_x");
    assert_eq!(json["warnings"][0], "careful");
    assert_eq!(*site.control.actors.lock().unwrap(), ["system"]);
    let refusals = [
        (
            ReloadFailure::Refused {
                outcome: Outcome::Rejected,
                stage: "load".to_owned(),
                error: "config reload rejected: no".to_owned(),
            },
            (409, "reload_failed".to_owned()),
        ),
        (ReloadFailure::InProgress, (409, "reload_in_progress".to_owned())),
        (ReloadFailure::Stopping, (503, "stopping".to_owned())),
    ];
    for (failure, expected) in refusals {
        *site.control.reload.lock().unwrap() = Err(failure);
        let answer = client.post("/system/reload", "").await;
        assert_eq!(answer.refusal(), expected);
        if expected.1 == "reload_failed" {
            assert_eq!(answer.json()["error"], "config reload rejected: no");
            assert_eq!(answer.json()["context"], serde_json::json!({"stage": "load", "outcome": "rejected"}));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generation_that_was_drained_is_never_called_again() {
    let site = Site::new().await;
    let done = tokio::sync::watch::Sender::new(false);
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (address, done) = (site.door.local_addr(), done.subscribe());
            tokio::spawn(async move {
                let mut client = Client::connect(address, Some("all")).await;
                let mut answers = 0;
                while !*done.borrow() {
                    let answer = client.post("/plugin/echo/poll", "").await;
                    assert_eq!(answer.status, 202, "{answer:?}");
                    answers += 1;
                }
                answers
            })
        })
        .collect();
    let mut present = site.api.clone();
    let mut present_queue = None;
    for _ in 0..50 {
        // Each generation has a queue of its own that dies with it, and the order of take-over and drain is open.
        let (link, queue, actor) = site.another_queue().await;
        let next = start(&site.next_generation(queue)).await;
        drain(&present).await;
        present.stop_and_wait(None, None).await.unwrap();
        if let Some((link, actor)) = present_queue.replace((link, actor)) {
            link.clear();
            actor.stop_and_wait(None, None).await.unwrap();
        }
        present = next;
    }
    done.send_replace(true);
    for caller in callers {
        assert!(tokio::time::timeout(PATIENCE, caller).await.unwrap().unwrap() > 0);
    }
}
