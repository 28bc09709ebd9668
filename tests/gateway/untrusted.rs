//! What plugins and callers write is data, also where it looks like something of our own.

use serde_json::{Value, json};

use crate::site::{Site, eventually};

/// A key by which `serde_json` passes on texts that are still to be read.
const RAW: &str = "$serde_json::private::RawValue";

const PIPELINES: &str = "
pipelines:
  - name: odd
    on: odd.found
    steps:
      - id: take
        uses: taker
        if: {path: payload.odd, op: exists}
        baggage: {kept: payload.odd}
        with: {say: done}
";

/// Lists in lists, with a text at the bottom that holds lists in lists, and so on.
fn layers(count: usize) -> Value {
    let mut text = "1".to_owned();
    for _ in 0..count {
        text = format!("{}{}{}", "[".repeat(100), json!({RAW: text}), "]".repeat(100));
    }
    json!({RAW: text})
}

fn site(odd: &Value) -> Site {
    let site = Site::new()
        .plugin("giver", "cat >/dev/null; cat answer")
        .plugin("taker", r#"cat > taken; echo '{"status":"ok","result":"taken"}'"#)
        .extra(PIPELINES);
    let events = json!([{"type": "odd.found", "payload": {"odd": odd}}]);
    let answer = json!({"status": "ok", "result": "given", "events": events}).to_string();
    std::fs::write(site.path("answer"), answer).expect("the answer");
    site
}

/// The request of the taker, as text: read as JSON it would not stay what it is.
fn taken(site: &Site) -> String {
    let succeeded = "SELECT count(*) FROM job_queue WHERE plugin = 'taker' AND status = 'succeeded'";
    eventually(|| if site.query::<i64>(succeeded) == 1 { Ok(()) } else { Err("nothing was taken") }).expect("a job");
    std::fs::read_to_string(site.path("taken")).expect("a request")
}

#[test]
fn texts_in_texts_end_no_gateway() {
    let odd = layers(10);
    let site = site(&odd);
    let gateway = site.start();
    assert_eq!(gateway.wait_for(&gateway.trigger("giver", "poll"))["status"], "succeeded");
    assert!(taken(&site).contains(&format!(r#""odd":{odd}"#)));
}

#[test]
fn an_odd_key_in_an_answer_reaches_the_next_plugin_as_it_is() {
    let odd = json!({RAW: "{\"b\":1}"});
    let site = site(&odd);
    let gateway = site.start();
    gateway.trigger("giver", "poll");
    let taken = taken(&site);
    assert!(taken.contains(&format!(r#""odd":{odd}"#)) && taken.contains(&format!(r#""kept":{odd}"#)), "{taken}");
}

#[test]
fn an_odd_key_in_a_request_ends_no_gateway() {
    let odd = layers(10);
    let site = site(&odd);
    let gateway = site.start();
    let body = json!({"payload": {"odd": odd}});
    let answer = gateway.post("/pipeline/odd", &body);
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert!(taken(&site).contains(&format!(r#""odd":{odd}"#)));
}
