//! Jobs that somebody gives up: what is answered, what becomes of their processes, and that it holds.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use crate::site::{Gateway, OK, Site, eventually, is_alive, show, token};

/// Ends for no SIGTERM, and neither does what it starts: a child, a child of that, and one in a session of its own.
/// With a `leader` in its payload it only tells whether that process is there.
const STUBBORN: &str = r#"trap '' TERM; cat >/dev/null; echo "$DUCTILE_JOB_ID" >> "$DUCTILE_PAYLOAD_RUNS"
if [ -n "$DUCTILE_PAYLOAD_LEADER" ]; then
  kill -0 "$(cat "$DUCTILE_PAYLOAD_LEADER")" 2>/dev/null && echo beside >> "$DUCTILE_PAYLOAD_RUNS"
  echo '{"status":"ok","result":"after"}'; exit 0
fi
sh -c 'sleep 600 & echo $! >> "$0"; wait' "$DUCTILE_PAYLOAD_PIDS" &
echo $! >> "$DUCTILE_PAYLOAD_PIDS"
setsid sleep 600 >/dev/null 2>&1 & echo $! >> "$DUCTILE_PAYLOAD_PIDS"
echo $$ > "$DUCTILE_PAYLOAD_PIDS.leader"
while :; do sleep 1; done"#;

/// Starts one such job and gives its id and the processes that belong to it, the leader last.
fn stubborn_job(site: &Site, gateway: &Gateway, name: &str) -> (String, Vec<String>) {
    let pids = site.path(name);
    let job = gateway.trigger_with("stubborn", "poll", &json!({"pids": pids, "runs": site.path("runs")}));
    let leader = format!("{}.leader", pids.display());
    let all = eventually(|| {
        let text = fs::read_to_string(&pids).unwrap_or_default() + &fs::read_to_string(&leader).unwrap_or_default();
        let pids: Vec<String> = text.lines().map(str::to_owned).collect();
        if pids.len() == 4 { Ok(pids) } else { Err(pids) }
    });
    (job, all.unwrap_or_else(|seen| panic!("four processes, not {seen:?}\n{}", gateway.said())))
}

fn cancel(gateway: &Gateway, job: &str, body: &Value) -> (u16, Value) {
    let answer = gateway.post(&format!("/job/{job}/cancel"), body);
    (answer.status, answer.body)
}

/// What a cancelled job has to look like, for ever: the only word about its end is that of the cancellation.
fn assert_given_up(site: &Site, job: &str, before: &str, error: &str) {
    let of = |table: &str, what: &str, id: &str| format!("SELECT {what} FROM {table} WHERE {id} = '{job}'");
    assert_eq!(
        site.column(&of("job_queue", "status || '|' || last_error || '|' || attempt || '|' || (completed_at IS NOT NULL) || '|' || (next_retry_at IS NULL)", "id")),
        [format!("dead|{error}|1|1|1")]
    );
    let moves = site.column(
        &(of("job_transitions", "from_status || '>' || to_status || '|' || reason", "job_id")
            + " AND to_status = 'dead'"),
    );
    assert_eq!(moves, [format!("{before}>dead|{error}")]);
    let last = site.column(&(of("job_transitions", "to_status", "job_id") + " ORDER BY id DESC LIMIT 1"));
    assert_eq!(last, ["dead"]);
    assert_eq!(
        site.column(&of("job_log", "id || '|' || status || '|' || last_error || '|' || ifnull(result, '-')", "job_id")),
        [format!("{job}-1|dead|{error}|-")]
    );
    let attempts = i64::from(before == "running");
    assert_eq!(site.query::<i64>(&of("job_attempts", "COUNT(*)", "job_id")), attempts);
}

#[test]
fn a_waiting_job_is_dead_when_its_cancellation_is_answered_and_never_starts() {
    let script = r#"cat >/dev/null; echo "$DUCTILE_JOB_ID" >> "$DUCTILE_PAYLOAD_RUNS"; while [ -e "$0" ] && [ ! -e "$DUCTILE_PAYLOAD_GATE" ]; do sleep 0.02; done; echo '{"status":"ok","result":"done"}'"#;
    let site = Site::new().service("max_workers: 1").plugin("gated", script);
    let gateway = site.start();
    let payload = json!({"gate": site.path("gate"), "runs": site.path("runs")});
    let jobs: Vec<String> = (0..4).map(|_| gateway.trigger_with("gated", "poll", &payload)).collect();
    gateway.wait_for_status(&jobs[0], |status| status == "running");
    let (status, body) = cancel(&gateway, &jobs[1], &json!({"reason": " not needed "}));
    assert_eq!((status, body), (200, json!({"job_id": jobs[1], "status": "dead"})));
    assert_given_up(&site, &jobs[1], "queued", "cancelled by api: not needed");
    // The body and its reason may be left out, or be empty.
    let answer = gateway.client().post(&format!("/job/{}/cancel", jobs[2]), "", &[]);
    assert_eq!((answer.status, &answer.body["status"]), (200, &json!("dead")));
    assert_given_up(&site, &jobs[2], "queued", "cancelled by api");
    assert_eq!(gateway.get("/healthz").body["queue_depth"], 2);

    let again = gateway.post(&format!("/job/{}/cancel", jobs[1]), &json!({}));
    assert_eq!((again.status, &again.body["code"]), (409, &json!("job_not_active")), "{again:?}");
    assert_eq!(again.body["context"], json!({"status": "dead"}));
    for unknown in ["019b7ca9-0000-7000-8000-000000000000", "no-id-at-all"] {
        let answer = gateway.post(&format!("/job/{unknown}/cancel"), &json!({}));
        assert_eq!((answer.status, &answer.body["code"]), (404, &json!("not_found")), "{answer:?}");
    }
    for (query, body, code) in [
        ("", "{", "invalid_json"),
        ("", r#"{"reason":7}"#, "invalid_parameter"),
        ("?tree=perhaps", "", "invalid_parameter"),
    ] {
        let answer = gateway.client().post(&format!("/job/{}/cancel{query}", jobs[3]), body, &[]);
        assert_eq!((answer.status, &answer.body["code"]), (400, &json!(code)), "{query} {body}: {answer:?}");
    }
    fs::write(site.path("gate"), "").expect("a file");
    for job in [&jobs[0], &jobs[3]] {
        assert_eq!(gateway.wait_for(job)["status"], "succeeded");
    }
    assert_eq!(cancel(&gateway, &jobs[0], &json!({})).0, 409, "a job that is over");
    let runs = fs::read_to_string(site.path("runs")).expect("the runs");
    assert_eq!(runs.lines().collect::<Vec<_>>(), [&jobs[0], &jobs[3]]);
    assert_given_up(&site, &jobs[1], "queued", "cancelled by api: not needed");
}

#[test]
fn a_running_job_is_dead_at_once_and_keeps_its_lane_until_all_its_processes_are_gone() {
    let site = Site::new().service("max_workers: 4").plugin_with("stubborn", STUBBORN, "", "parallelism: 1");
    let gateway = site.start();
    let (job, pids) = stubborn_job(&site, &gateway, "pids");
    let leader = format!("{}.leader", site.path("pids").display());
    let after = gateway.trigger_with("stubborn", "poll", &json!({"leader": leader, "runs": site.path("runs")}));
    let (status, body) = cancel(&gateway, &job, &json!({"reason": "hangs"}));
    assert_eq!((status, body), (202, json!({"job_id": job, "status": "cancelling"})));
    // The row comes before the processes, which have some seconds.
    assert_given_up(&site, &job, "running", "cancelled by api: hangs");
    assert_eq!(gateway.get(&format!("/job/{job}")).body["status"], "dead");
    assert_eq!(cancel(&gateway, &job, &json!({})).0, 409, "it is over for everybody");
    assert_eq!(gateway.wait_for(&after)["status"], "succeeded");
    let left: Vec<&String> = pids.iter().filter(|pid| is_alive(pid)).collect();
    assert!(left.is_empty(), "{left:?} of {pids:?} are left\n{}", gateway.said());
    let runs = fs::read_to_string(site.path("runs")).expect("the runs");
    assert_eq!(runs.lines().collect::<Vec<_>>(), [&job, &after], "one run each, and none beside the other");
    assert_given_up(&site, &job, "running", "cancelled by api: hangs");
    let watch = format!("SELECT status FROM job_stopwatch WHERE job_id = '{job}' AND attempt = 1");
    assert_eq!(site.column(&watch), ["err"]);
}

#[test]
fn what_a_cancelled_plugin_still_answers_changes_nothing() {
    let script = r#"trap 'echo late >&2; echo "{\"status\":\"ok\",\"result\":\"late\",\"state_updates\":{\"late\":true}}"; exit 0' TERM
cat >/dev/null; echo x >> "$DUCTILE_PAYLOAD_RUNS"; while :; do sleep 0.02; done"#;
    let facts = "fact_outputs:\n  - {when: {command: poll}, from: state_updates, fact_type: late.snapshot}";
    let site = Site::new().plugin_with("late", script, facts, "retry: {backoff_base: 1ms}").plugin("hello", OK);
    let mut gateway = site.start();
    let job = gateway.trigger_with("late", "poll", &json!({"runs": site.path("runs")}));
    eventually(|| fs::read_to_string(site.path("runs"))).expect("a run");
    assert_eq!(cancel(&gateway, &job, &json!({})).0, 202);
    gateway.wait_for_log("the late result to be refused", |line| {
        line["job_id"] == job.as_str() && line["message"].as_str().is_some_and(|text| text.starts_with("late result"))
    });
    // What ran afterwards went through the same queue: a retry would have come first.
    assert_eq!(gateway.wait_for(&gateway.trigger("hello", "poll"))["status"], "succeeded");
    assert_given_up(&site, &job, "running", "cancelled by api");
    assert_eq!(
        site.query::<i64>("SELECT (SELECT COUNT(*) FROM plugin_facts) + (SELECT COUNT(*) FROM plugin_state)"),
        0
    );
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_log WHERE stderr IS NOT NULL"), 0);
    assert_eq!(fs::read_to_string(site.path("runs")).expect("the runs"), "x\n");
}

#[test]
fn a_cancelled_job_never_runs_again_although_the_gateway_was_killed_right_after_the_answer() {
    let site = Site::new().service("max_workers: 1").plugin("stubborn", STUBBORN).plugin("hello", OK);
    for round in 0..4 {
        let gateway = site.start();
        let (running, pids) = stubborn_job(&site, &gateway, &format!("pids-{round}"));
        let waiting = gateway.trigger_with("stubborn", "poll", &json!({"runs": site.path("runs")}));
        assert_eq!(cancel(&gateway, &waiting, &json!({})).0, 200);
        assert_eq!(cancel(&gateway, &running, &json!({})).0, 202);
        gateway.kill_nine();
        assert!(is_alive(&pids[3]), "the plugin outlives the gateway");
        let gateway = site.start();
        let left: Vec<&String> = pids.iter().filter(|pid| is_alive(pid)).collect();
        assert!(left.is_empty(), "{left:?} of {pids:?} were not ended before anything could start");
        assert_eq!(gateway.wait_for(&gateway.trigger("hello", "poll"))["status"], "succeeded");
        assert_given_up(&site, &running, "running", "cancelled by api");
        assert_given_up(&site, &waiting, "queued", "cancelled by api");
        let runs = fs::read_to_string(site.path("runs")).expect("the runs");
        assert_eq!(runs.lines().filter(|line| *line == running).count(), 1);
        assert_eq!(runs.lines().count(), round + 1, "{runs}");
        gateway.kill_nine();
    }
}

/// Puts a job into the queue that another one caused.
fn insert_child(site: &Site, id: &str, parent: &str, by: &str, second: u32) {
    let payload = json!({"gate": site.path("gate")}).to_string();
    site.outsider()
        .execute(
            "INSERT INTO job_queue (id, plugin, command, payload, status, submitted_by, parent_job_id, created_at)
             VALUES (?1, 'gated', 'poll', ?2, 'queued', ?3, ?4, ?5)",
            (id, payload, by, parent, format!("2026-01-02 03:04:0{second}.000000000Z")),
        )
        .expect("a row");
}

#[test]
fn with_its_tree_everything_that_a_job_caused_is_cancelled_as_far_as_it_is_active() {
    let site = Site::new().service("max_workers: 2").plugin("gated", crate::site::GATED);
    let gateway = site.start();
    let root = gateway.trigger_with("gated", "poll", &json!({"gate": site.path("gate")}));
    gateway.wait_for_status(&root, |status| status == "running");
    for (n, (id, parent, by)) in [
        ("runs", root.as_str(), "route"),
        ("waits", &root, "route"),
        ("deep", "waits", "route"),
        ("hooked", &root, "hook"),
    ]
    .into_iter()
    .enumerate()
    {
        insert_child(&site, id, parent, by, u32::try_from(n).expect("a number"));
    }
    gateway.wait_for_status("runs", |status| status == "running");
    let answer = gateway.post(&format!("/job/{root}/cancel?tree=true"), &json!({"reason": "all of it"}));
    assert_eq!((answer.status, &answer.body["status"]), (202, &json!("cancelling")), "{answer:?}");
    assert_given_up(&site, &root, "running", "cancelled by api: all of it");
    for (id, before) in [("runs", "running"), ("waits", ""), ("deep", "")] {
        let told: String = site.query(&format!("SELECT status || ' ' || last_error FROM job_queue WHERE id = '{id}'"));
        assert_eq!(told, "dead cancelled by api: all of it", "{id} {before}");
    }
    // A hook is no part of what is given up.
    fs::write(site.path("gate"), "").expect("a file");
    assert_eq!(gateway.wait_for("hooked")["status"], "succeeded");
    let over = gateway.post(&format!("/job/{root}/cancel?tree=true"), &json!({}));
    assert_eq!((over.status, &over.body["code"]), (409, &json!("job_not_active")));

    // The root may be over; what waits below it is cancelled without a process to be ended.
    let root = gateway.trigger_with("gated", "poll", &json!({"gate": site.path("gate")}));
    assert_eq!(gateway.wait_for(&root)["status"], "succeeded");
    fs::remove_file(site.path("gate")).expect("the file");
    let busy: Vec<String> =
        (0..2).map(|_| gateway.trigger_with("gated", "poll", &json!({"gate": site.path("gate")}))).collect();
    busy.iter().for_each(|job| drop(gateway.wait_for_status(job, |status| status == "running")));
    insert_child(&site, "later", &root, "route", 5);
    assert_eq!(gateway.post(&format!("/job/{root}/cancel"), &json!({})).status, 409, "alone it is over");
    let below = gateway.post(&format!("/job/{root}/cancel?tree=true"), &json!({}));
    assert_eq!(
        (below.status, &below.body),
        (200, &json!({"job_id": root, "status": "succeeded", "cancelled": ["later"]}))
    );
    insert_child(&site, "latest", &root, "route", 6);
    let said = command(&site, &gateway, &[&root, "--tree"]);
    let text = format!("Job {root} was succeeded before; cancelled of what it caused: 1\n");
    assert_eq!((said.status.code(), String::from_utf8(said.stdout)), (Some(0), Ok(text)));
    assert_eq!(site.query::<String>("SELECT status FROM job_queue WHERE id = 'later'"), "dead");
    assert_eq!(gateway.get(&format!("/job/{root}")).body["status"], "succeeded");
}

fn command(site: &Site, gateway: &Gateway, args: &[&str]) -> Output {
    let url = format!("http://{}", gateway.address());
    let args = [&["job", "cancel"], args, &["--api-url", &url, "--api-key", token()]].concat();
    site.command(&args).output().expect("the binary")
}

#[test]
fn the_command_cancels_by_whole_and_short_ids_and_says_what_became_of_the_job() {
    let site = Site::new().service("max_workers: 1").plugin("gated", crate::site::GATED);
    let gateway = site.start();
    let gate = json!({"gate": site.path("gate")});
    let jobs: Vec<String> = (0..4).map(|_| gateway.trigger_with("gated", "poll", &gate)).collect();
    gateway.wait_for_status(&jobs[0], |status| status == "running");
    let said = |args: &[&str]| {
        let output = command(&site, &gateway, args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", show(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert_eq!(said(&[&jobs[3], "--reason", "wrong input"]), format!("Job {} is cancelled\n", jobs[3]));
    assert_given_up(&site, &jobs[3], "queued", "cancelled by api: wrong input");
    let short = &jobs[2][28..];
    assert_eq!(said(&[short, "--tree"]), format!("Job {} is cancelled\n", jobs[2]));
    let document: Value = serde_json::from_str(&said(&[&jobs[1], "--json"])).expect("JSON");
    assert_eq!(document, json!({"job_id": jobs[1], "status": "dead"}));
    assert_eq!(said(&[&jobs[0]]), format!("Job {} is cancelled; its process is being ended\n", jobs[0]));
    for (args, words) in [
        (vec![jobs[0].as_str()], "job_not_active"),
        (vec!["00000000"], "job \"00000000\" not found"),
        (vec!["019b7ca9-0000-7000-8000-000000000000"], "job not found"),
        (vec![], "<JOB_ID>"),
    ] {
        let output = command(&site, &gateway, &args);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{args:?}: {}", show(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{args:?}: {}", show(&output));
    }
    drop(gateway);
    let output =
        site.command(&["job", "cancel", &jobs[0], "--api-url", "http://127.0.0.1:1", "--api-key", "k"]).output();
    let output = output.expect("the binary");
    assert!(output.status.code() == Some(1) && !output.stderr.is_empty(), "{}", show(&output));
}
