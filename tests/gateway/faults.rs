//! A database that takes no writes for a while: nothing accepted is lost, and everybody is told.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::crash::check_invariants;
use crate::site::{Answer, GATED, Gateway, OK, Site, eventually, show, token};

/// Waits at the gate and then answers with a megabyte; notes each run.
const LARGE: &str = r#"cat >/dev/null; echo "$DUCTILE_JOB_ID" >> "$DUCTILE_PAYLOAD_RUNS"
while [ -e "$0" ] && [ ! -e "$DUCTILE_PAYLOAD_GATE" ]; do sleep 0.02; done
printf '{"status":"ok","result":"%01048576d","state_updates":{"n":1}}' 0"#;

/// A file system of a few megabytes at the place of the database.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, said aloud, where nobody may mount.
    fn mount(site: &Site) -> Option<Self> {
        let path = site.path("data");
        fs::create_dir(&path).expect("a directory");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(&path).output();
        match output {
            Ok(output) if output.status.success() => Some(Self(path)),
            Ok(output) => {
                eprintln!("SKIPPED: a full disk needs a file system of its own: {}", show(&output));
                None
            }
            Err(error) => {
                eprintln!("SKIPPED: a full disk needs a file system of its own, and mount can not be run: {error}");
                None
            }
        }
    }

    /// Writes until nothing more fits.
    fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).expect("a file");
        for size in [65_536, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).expect("the filler");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// A job that waits at its gate, whose end the database will not take.
fn at_the_gate(site: &Site, gateway: &Gateway) -> String {
    let payload = json!({"gate": site.path("gate"), "runs": site.path("runs")});
    let job = gateway.trigger_with("large", "poll", &payload);
    eventually(|| fs::read_to_string(site.path("runs"))).expect("a run");
    job
}

fn wait_until_kept(gateway: &mut Gateway, job: &str) {
    gateway.wait_for_log("the outcome to be kept", |line| {
        line["level"] == "WARN"
            && line["job_id"] == job
            && line["message"].as_str().is_some_and(|text| text.contains("kept and tried again"))
    });
}

fn assert_stored_once(site: &Site, gateway: &Gateway, job: &str) {
    let seen = gateway.wait_for(job);
    assert_eq!((&seen["status"], &seen["attempt"]), (&json!("succeeded"), &json!(1)), "{}", gateway.said());
    assert_eq!(fs::read_to_string(site.path("runs")).expect("the runs"), format!("{job}\n"), "it ran once");
    assert_eq!(site.column("SELECT id || length(result) FROM job_log WHERE plugin = 'large'").len(), 1);
    assert_eq!(site.query::<String>("SELECT state FROM plugin_state"), r#"{"n":1}"#);
    check_invariants(site);
}

/// What was answered with an id is there and ends; what was refused is not there.
fn settle(site: &Site, gateway: &Gateway, asked: &[Answer]) {
    let mut accepted = Vec::new();
    for answer in asked {
        match answer.status {
            202 => accepted.push(answer.body["job_id"].as_str().expect("an id").to_owned()),
            status => {
                assert!(matches!(status, 500 | 503), "{answer:?}");
                assert!(answer.body["error"].is_string() && answer.body["code"].is_string(), "{answer:?}");
            }
        }
    }
    accepted.iter().for_each(|job| assert_eq!(gateway.wait_for(job)["status"], "succeeded"));
    accepted.sort();
    assert_eq!(site.column("SELECT id FROM job_queue WHERE plugin = 'hello' ORDER BY id"), accepted);
}

#[test]
fn an_outcome_that_meets_a_full_disk_is_stored_when_there_is_room_again() {
    let site = Site::new().service("max_workers: 3").plugin("large", LARGE).plugin("hello", OK);
    let Some(disk) = SmallDisk::mount(&site) else { return };
    let mut gateway = site.start();
    let job = at_the_gate(&site, &gateway);
    disk.fill();
    fs::write(site.path("gate"), "").expect("a file");
    wait_until_kept(&mut gateway, &job);
    let asked: Vec<Answer> = (0..5).map(|_| gateway.post("/plugin/hello/poll", &json!({}))).collect();
    assert_eq!(gateway.get(&format!("/job/{job}")).body["status"], "running", "it is not over before it is stored");
    disk.free();
    assert_stored_once(&site, &gateway, &job);
    settle(&site, &gateway, &asked);
    assert_eq!(gateway.wait_for(&gateway.trigger("hello", "poll"))["status"], "succeeded");
    assert_eq!(gateway.stop().code(), Some(0), "{}", gateway.said());
}

/// From here on every write of the gateway to a file fails, or works again. Nobody can take a running process the right
/// to write to what it has open; a file size of nothing comes close, and needs no privilege.
#[cfg(target_os = "linux")]
fn let_write(gateway: &Gateway, may: bool) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let pid = Pid::from_raw(i32::try_from(gateway.pid()).expect("a pid")).expect("a pid");
    let current = if may { None } else { Some(0) };
    prlimit(Some(pid), Resource::Fsize, Rlimit { current, maximum: None }).expect("a limit");
}

#[cfg(target_os = "linux")]
#[test]
fn while_no_write_is_possible_requests_are_refused_reading_goes_on_and_outcomes_wait() {
    let site = Site::new()
        .service("max_workers: 3\ntick_interval: 100ms")
        .plugin("large", LARGE)
        .plugin("hello", OK)
        .plugin_with(
            "bad",
            "read -r line; echo '{\"status\":\"error\",\"error\":\"no\"}'",
            "",
            "retry: {max_attempts: 1}",
        )
        .plugin("gated", GATED);
    let mut gateway = site.start_with_limits();
    let failed = gateway.trigger("bad", "poll");
    assert_eq!(gateway.wait_for(&failed)["status"], "failed");
    let job = at_the_gate(&site, &gateway);
    let given_up = gateway.trigger_with("gated", "poll", &json!({"gate": site.path("never")}));
    gateway.wait_for_status(&given_up, |status| status == "running");
    let rows = |site: &Site| site.query::<i64>("SELECT COUNT(*) FROM job_queue");
    let_write(&gateway, false);
    fs::write(site.path("gate"), "").expect("a file");
    wait_until_kept(&mut gateway, &job);
    for (path, body) in [
        ("/plugin/hello/poll".to_owned(), json!({})),
        ("/plugin/hello/poll".to_owned(), json!({"dedupe_key": "k", "sync": true})),
        (format!("/job/{given_up}/cancel"), json!({})),
        ("/jobs/retry".to_owned(), json!({"job_ids": [failed]})),
    ] {
        let answer = gateway.post(&path, &body);
        assert_eq!((answer.status, &answer.body["code"]), (500, &json!("internal")), "{path}: {answer:?}");
        assert!(answer.body["error"].as_str().is_some_and(|text| !text.is_empty()), "{path}: {answer:?}");
    }
    let reload = gateway.post("/system/reload", &json!({}));
    assert!(reload.status >= 400, "{reload:?}");
    // Ticks pass while the outcome is tried again and again, with growing pauses. Housekeeping that finds nothing to do is
    // no proof that the disk takes writes.
    for _ in 0..3 {
        wait_until_kept(&mut gateway, &job);
        assert_eq!(gateway.get("/readyz").status, 503);
    }
    assert_eq!(gateway.get("/jobs?status=running").body["total"], 2);
    let document: Value = serde_json::from_str(&site.run(&["job", "inspect", &given_up, "--json"])).expect("JSON");
    assert_eq!(document["status"], "running", "what was refused has not been done");
    assert_eq!(rows(&site), 3);

    let_write(&gateway, true);
    assert_stored_once(&site, &gateway, &job);
    eventually(|| match gateway.get("/readyz") {
        answer if answer.status == 200 => Ok(()),
        answer => Err(answer),
    })
    .expect("a gateway that is ready again");
    assert_eq!(gateway.wait_for(&gateway.trigger("hello", "poll"))["status"], "succeeded");
    assert_eq!(gateway.post(&format!("/job/{given_up}/cancel"), &json!({})).status, 202);
    assert_eq!(gateway.post("/system/reload", &json!({})).status, 200, "{}", gateway.said());
    check_invariants(&site);
    assert_eq!(gateway.stop().code(), Some(0), "{}", gateway.said());
}

#[test]
fn a_request_waits_for_a_lock_that_is_given_back() {
    let site = Site::new().plugin("hello", OK).plugin("gated", GATED);
    let gateway = site.start();
    let gated = gateway.trigger_with("gated", "poll", &json!({"gate": site.path("gate")}));
    gateway.wait_for_status(&gated, |status| status == "running");
    let connection = site.outsider();
    connection.execute_batch("BEGIN IMMEDIATE").expect("the write lock");
    let answer = std::thread::scope(|scope| {
        let client = gateway.client();
        let asking = scope.spawn(move || client.post("/plugin/hello/poll", "{}", &[]));
        fs::write(site.path("gate"), "").expect("a file");
        // The gateway says itself when it has been waiting for the lock for a while.
        eventually(|| match gateway.get("/readyz").status {
            200 => Err(()),
            _ => Ok(()),
        })
        .expect("a gateway that can not write");
        assert_eq!(gateway.get("/jobs").status, 200, "reading goes on");
        connection.execute_batch("COMMIT").expect("the end of the transaction");
        asking.join().expect("an answer")
    });
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(gateway.wait_for(answer.body["job_id"].as_str().expect("an id"))["status"], "succeeded");
    let seen = gateway.wait_for(&gated);
    assert_eq!((&seen["status"], &seen["attempt"]), (&json!("succeeded"), &json!(1)));
}

#[test]
fn under_a_lock_that_is_held_for_long_all_writes_are_refused_clearly_and_an_outcome_comes_through() {
    let site = Site::new().service("max_workers: 3").plugin("large", LARGE).plugin("hello", OK).plugin("gated", GATED);
    let mut gateway = site.start();
    let job = at_the_gate(&site, &gateway);
    let active = gateway.trigger_with("gated", "poll", &json!({"gate": site.path("never")}));
    gateway.wait_for_status(&active, |status| status == "running");
    let other = site.outsider();
    other.execute_batch("BEGIN IMMEDIATE").expect("the write lock");
    fs::write(site.path("gate"), "").expect("a file");
    let asked: Vec<(String, Answer)> = std::thread::scope(|scope| {
        let paths = ["/plugin/hello/poll".to_owned(), "/plugins/hello/run".to_owned(), format!("/job/{active}/cancel")];
        let posts: Vec<_> = paths
            .into_iter()
            .map(|path| {
                let client = gateway.client();
                scope.spawn(move || (path.clone(), client.post(&path, "{}", &[])))
            })
            .collect();
        posts.into_iter().map(|post| post.join().expect("an answer")).collect()
    });
    for (path, answer) in &asked {
        assert_eq!((answer.status, &answer.body["code"]), (503, &json!("database_busy")), "{path}: {answer:?}");
        assert_eq!(answer.header("retry-after"), Some("1"), "{path}");
    }
    let url = format!("http://{}", gateway.address());
    let refused = site.command(&["job", "cancel", &active, "--api-url", &url, "--api-key", token()]).output();
    let refused = refused.expect("the binary");
    assert!(refused.status.code() == Some(1) && show(&refused).contains("database_busy"), "{}", show(&refused));
    // The outcome is refused as often, and goes on.
    for _ in 0..3 {
        wait_until_kept(&mut gateway, &job);
    }
    assert_eq!(gateway.get(&format!("/job/{active}")).body["status"], "running");
    other.execute_batch("ROLLBACK").expect("the end of the transaction");
    assert_stored_once(&site, &gateway, &job);
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue"), 2, "nothing of what was refused is there");
    assert_eq!(gateway.wait_for(&gateway.trigger("hello", "poll"))["status"], "succeeded");
    fs::write(site.path("never"), "").expect("a file");
    assert_eq!(gateway.wait_for(&active)["status"], "succeeded");
}
