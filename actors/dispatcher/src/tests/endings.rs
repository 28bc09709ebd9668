//! How processes end, and that nothing is left of them.

use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ductile_model::JobId;

use crate::control::Control;
use crate::end_leftovers;
use crate::process::{self, Launch};
use crate::procs::JOB_VARIABLE;
use crate::testing::{Site, assert_succeeded, failure, is_alive, pid_in, wait_for};

const OK: &str = "echo '{\"status\":\"ok\",\"result\":\"x\"}'";

/// A child that says its number before the plugin goes on.
fn child(how: &str, redirect: &str) -> String {
    format!(
        "{how} sh -c 'echo $$ > \"$1/new\"; mv \"$1/new\" \"$1/pid\"; exec sleep 600' sh \"$SITE\" {redirect} &
while [ ! -e \"$SITE/pid\" ]; do sleep 0.01; done
{OK}"
    )
}

#[tokio::test]
async fn a_background_child_neither_holds_a_finished_attempt_nor_outlives_it() {
    for (how, redirect) in [("", ""), ("setsid", ""), ("", ">/dev/null 2>&1"), ("setsid", "</dev/null >/dev/null 2>&1")]
    {
        let site = Site::sh(&child(how, redirect));
        assert_succeeded(&site.poll(None).await);
        assert!(!is_alive(pid_in(&site.path("pid"))), "{how} {redirect}");
    }
}

#[tokio::test]
async fn a_daemon_that_forked_twice_is_ended_with_its_attempt() {
    let inner = "setsid sh -c \"echo \\$\\$ > $SITE/new; mv $SITE/new $SITE/pid; exec sleep 600\" & exit 0";
    let site = Site::sh(&format!(
        "export SITE\nsetsid sh -c '{inner}' </dev/null >/dev/null 2>&1\nwhile [ ! -e \"$SITE/pid\" ]; do sleep 0.01; done\n{OK}"
    ));
    assert_succeeded(&site.poll(None).await);
    assert!(!is_alive(pid_in(&site.path("pid"))));
}

#[tokio::test]
async fn the_deadline_ends_a_plugin_that_ends_politely() {
    let site = Site::sh("exec sleep 600").timeout(Duration::from_millis(100));
    let outcome = site.poll(None).await;
    assert_eq!(failure(&outcome), ("timeout", "plugin execution timed out after 100ms"));
    assert_eq!(outcome.result, None);
}

#[tokio::test]
async fn an_answer_during_the_grace_is_still_a_timeout_and_is_kept() {
    let script = format!("trap '{}; exit 0' TERM\nsleep 600 & wait", OK.replace('\'', "\""));
    let script = script.replace(
        "echo \"{\"status\":\"ok\",\"result\":\"x\"}\"",
        "echo \"{\\\"status\\\":\\\"ok\\\",\\\"result\\\":\\\"late\\\"}\"",
    );
    let site = Site::sh(&script).timeout(Duration::from_millis(300));
    let outcome = site.poll(None).await;
    assert_eq!(failure(&outcome).0, "timeout");
    assert_eq!(outcome.result.as_deref(), Some(r#"{"status":"ok","result":"late"}"#));
}

#[tokio::test]
async fn a_child_that_ignores_sigterm_is_killed_after_the_grace() {
    let script = "sh -c 'trap \"\" TERM; echo $$ > \"$1/new\"; mv \"$1/new\" \"$1/pid\"; while :; do sleep 600; done' sh \"$SITE\" &
trap '' TERM
while :; do sleep 600; done";
    let site = Site::sh(script).timeout(Duration::from_millis(500));
    let outcome = site.poll(None).await;
    assert_eq!(failure(&outcome).0, "timeout");
    assert!(!is_alive(pid_in(&site.path("pid"))));
}

#[tokio::test]
async fn a_flood_does_not_keep_the_deadline_from_coming() {
    let site = Site::sh("exec yes").timeout(Duration::from_millis(300));
    let outcome = site.poll(None).await;
    assert_eq!(failure(&outcome).0, "timeout");
    assert!(outcome.result.is_some_and(|raw| raw.contains("\"truncated\":true")));
}

#[test]
fn a_panic_while_a_plugin_runs_takes_the_plugin_along() {
    let site = Site::sh("echo $$ > \"$SITE/new\"; mv \"$SITE/new\" \"$SITE/pid\"; sleep 600");
    let pid_file = site.path("pid");
    let control = Control::default();
    let launch = Launch {
        job: JobId::generate(),
        program: site.entrypoint.clone(),
        environment: vec![("PATH".into(), std::env::var_os("PATH").unwrap())],
        request: zeroize::Zeroizing::new(b"{}\n".to_vec()),
        deadline: Instant::now() + Duration::from_secs(600),
        stderr_cap: 10,
    };
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        process::run(launch, &control, &mut |_| {
            pid_in(&pid_file);
            panic!("boom");
        })
    }));
    assert!(panicked.is_err());
    assert!(!is_alive(pid_in(&pid_file)));
}

/// A process of another life of the gateway: in its own group or session, with a job id in its environment.
fn leftover(site: &Site, job: &JobId, script: &str) -> std::process::Child {
    Command::new("/bin/sh")
        .args(["-c", script, "sh"])
        .arg(site.dir.path())
        .env(JOB_VARIABLE, job.as_str())
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap()
}

#[test]
fn leftovers_are_found_by_their_job_and_ended_wherever_they_went() {
    let site = Site::sh("");
    let (job, other) = (JobId::generate(), JobId::generate());
    let script =
        "setsid sh -c 'echo $$ > \"$1/new\"; mv \"$1/new\" \"$1/pid\"; exec sleep 600' sh \"$1\" & exec sleep 600";
    let mut first = leftover(&site, &job, script);
    let mut bystander = leftover(&site, &other, "exec sleep 600");
    let escaped = pid_in(&site.path("pid"));
    wait_for(|| is_alive(bystander.id()).then_some(()));
    assert_eq!(end_leftovers(std::slice::from_ref(&job), Duration::from_secs(30)).unwrap(), 2);
    assert!(!is_alive(first.id()) && !is_alive(escaped));
    assert!(is_alive(bystander.id()));
    assert_eq!(end_leftovers(&[job], Duration::from_secs(30)).unwrap(), 0);
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    first.wait().unwrap();
}

#[test]
fn a_leftover_in_the_gateways_own_group_is_ended_without_the_group() {
    let job = JobId::generate();
    let mut child = Command::new("sleep").arg("600").env(JOB_VARIABLE, job.as_str()).spawn().unwrap();
    assert_eq!(end_leftovers(&[job], Duration::from_secs(30)).unwrap(), 1);
    assert!(!child.wait().unwrap().success());
}

#[test]
fn without_jobs_nothing_is_looked_for() {
    assert_eq!(end_leftovers(&[], Duration::ZERO).unwrap(), 0);
}

#[tokio::test]
async fn the_end_of_a_process_is_that_of_its_exit_not_that_of_its_pipes() {
    // A child keeps the pipes open for longer than the attempt waits for it.
    let site = Site::sh("sleep 600 & echo '{\"status\":\"ok\",\"result\":\"x\"}'");
    let outcome = site.poll(None).await;
    let watch = outcome.stopwatch.unwrap();
    let after = chrono::TimeDelta::from_std(watch.after).unwrap();
    assert!(watch.exited_at + after <= outcome.completed_at, "{watch:?}");
    assert_eq!(watch.exited_at - watch.entered_at, chrono::TimeDelta::from_std(watch.process).unwrap());
}
