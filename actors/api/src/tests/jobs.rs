//! Looking at jobs and plugins.

use serde_json::{Value, json};

use super::client::Client;
use super::site::{Site, count, finished};

async fn trigger(client: &mut Client, path: &str) -> String {
    client.post(path, r#"{"payload":{"n":1}}"#).await.json()["job_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn paging_gives_every_job_once_and_in_order_while_new_ones_come() {
    let site = Site::new().await;
    let mut client = site.client("all").await;
    let mut made = Vec::new();
    for _ in 0..130 {
        made.push(trigger(&mut client, "/plugin/echo/poll").await);
    }
    made.reverse();
    let mut seen = Vec::new();
    let mut path = "/jobs?limit=50".to_owned();
    let mut pages = 0;
    loop {
        let answer = client.get(&path).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let page = answer.json();
        seen.extend(page["jobs"].as_array().unwrap().iter().map(|job| job["job_id"].as_str().unwrap().to_owned()));
        pages += 1;
        let Some(cursor) = page["next_cursor"].as_str() else {
            assert_eq!(answer.header("link"), None);
            break;
        };
        let next = format!("/jobs?limit=50&cursor={cursor}");
        assert_eq!(answer.header("link"), Some(&*format!("<{next}>; rel=\"next\"")));
        path = next;
        trigger(&mut client, "/plugin/echo/poll").await;
    }
    assert_eq!(pages, 3);
    assert_eq!(seen, made);
    assert!(count(seen).values().all(|times| *times == 1));
    assert_eq!(client.get("/jobs").await.json()["total"], 132);
}

#[tokio::test]
async fn lists_are_filtered_and_wrong_filters_refused() {
    let site = Site::new().await;
    let mut client = site.client("status").await;
    let mut all = site.client("all").await;
    for path in ["/plugin/echo/poll", "/plugin/other/poll", "/plugin/echo/fail", "/plugin/echo/slow"] {
        let id = trigger(&mut all, path).await;
        if !path.ends_with("slow") {
            finished(&mut all, &id).await;
        }
    }
    let total =
        async |client: &mut Client, query: &str| client.get(&format!("/jobs?{query}")).await.json()["total"].clone();
    assert_eq!(total(&mut client, "").await, 4);
    assert_eq!(total(&mut client, "plugin=echo").await, 3);
    assert_eq!(total(&mut client, "plugin=echo&command=poll").await, 1);
    assert_eq!(total(&mut client, "status=ok").await, 2);
    assert_eq!(total(&mut client, "status=ERROR").await, 1);
    assert_eq!(total(&mut client, "status=succeeded&plugin=other").await, 1);
    assert_eq!(total(&mut client, "submitted_by=api").await, 4);
    assert_eq!(total(&mut client, "submitted_by=hook").await, 0);
    assert_eq!(total(&mut client, "to=2020-01-01T00:00:00Z").await, 0);
    for (query, text) in [
        ("status=bogus", "invalid status filter"),
        ("limit=0", "limit must be a positive integer"),
        ("limit=201", "limit must be <= 200"),
        ("cursor=nonsense", "invalid cursor"),
        ("from=yesterday", "invalid from timestamp"),
    ] {
        let answer = client.get(&format!("/jobs?{query}")).await;
        assert_eq!(answer.refusal(), (400, "invalid_parameter".to_owned()), "{query}");
        assert_eq!(answer.json()["error"], text, "{query}");
        assert_eq!(answer.json()["context"]["parameter"], query.split('=').next().unwrap());
    }
    let rows = client.get("/jobs?limit=1").await.json();
    assert!(rows["jobs"][0].get("result").is_none());
}

#[tokio::test]
async fn results_are_dropped_for_those_who_may_see_the_status_only() {
    let site = Site::new().await;
    let mut all = site.client("all").await;
    let id = trigger(&mut all, "/plugin/echo/fail").await;
    let job = finished(&mut all, &id).await;
    assert_eq!(job["last_error"], "told to fail");
    assert_eq!(job["result"]["status"], "error");
    assert_eq!((&job["attempt"], &job["max_attempts"]), (&json!(1), &json!(4)));
    let path = format!("/job/{id}?include=payload,log");
    let with = site.client("status-and-result").await.get(&path).await.json();
    assert_eq!(with["payload"], json!({"n": 1}));
    assert_eq!(with["log"][0]["last_error"], "told to fail");
    let without = site.client("status").await.get(&path).await.json();
    assert_eq!(without["status"], "failed");
    for key in ["result", "last_error", "payload", "log"] {
        assert_eq!(without.get(key), None, "{key}");
    }
    let payload_only = all.get(&format!("/job/{id}?include=payload")).await.json();
    assert!(payload_only.get("log").is_none() && payload_only.get("payload").is_some());
    assert_eq!(all.get(&format!("/job/{id}?include=secrets")).await.status, 400);
    let tree = site.client("tree").await.get(&format!("/job/{id}/tree")).await.json();
    assert_eq!(tree[0]["job_id"], *id);
    assert_eq!(tree[0]["parent_job_id"], Value::Null);
    assert_eq!(tree[0].get("result"), None);
    assert_eq!(all.get(&format!("/job/{id}/tree")).await.json()[0]["last_error"], "told to fail");
}

#[tokio::test]
async fn a_job_that_does_not_exist_is_not_found_whatever_its_id_looks_like() {
    let site = Site::new().await;
    let mut client = site.client("all").await;
    for id in ["019b7ca9-0000-7000-8000-000000000000", "x", "%20", "a'b"] {
        for path in [format!("/job/{id}"), format!("/job/{id}/tree")] {
            let answer = client.get(&path).await;
            assert_eq!(answer.refusal(), (404, "not_found".to_owned()), "{path}");
            assert_eq!(answer.json()["error"], "job not found");
        }
    }
}

#[tokio::test]
async fn the_catalogue_lists_all_plugins_and_describes_one() {
    let site = Site::new().await;
    let mut client = site.client("all").await;
    let list = client.get("/plugins").await.json();
    let names: Vec<_> = list["plugins"].as_array().unwrap().iter().map(|p| (&p["name"], &p["enabled"])).collect();
    let expected = [("echo", true), ("idle", false), ("one", true), ("other", true), ("two", true)];
    let expected: Vec<_> = expected.iter().map(|(name, enabled)| (json!(name), json!(enabled))).collect();
    assert_eq!(names, expected.iter().map(|(name, enabled)| (name, enabled)).collect::<Vec<_>>());
    assert_eq!(list["plugins"][0]["commands"], json!(["poll", "handle", "read", "slow", "fail", "health"]));
    let echo = client.get("/plugin/echo").await.json();
    assert_eq!(echo["protocol"], 2);
    assert_eq!(echo["version"], "1.0");
    assert_eq!(
        echo["commands"][0],
        json!({"name": "poll", "type": "write", "description": "Polls",
               "input_schema": {"type": "object", "properties": {"message": {"type": "string"}}}})
    );
    assert_eq!(echo["commands"][2], json!({"name": "read", "type": "read"}));
    assert_eq!(client.get("/plugin/nobody").await.json()["error"], "plugin not found");
}

#[tokio::test]
async fn health_checks_are_not_tried_again() {
    let site = Site::new().await;
    let mut client = site.client("all").await;
    let id = trigger(&mut client, "/plugin/echo/health").await;
    assert_eq!(finished(&mut client, &id).await["max_attempts"], 1);
}
