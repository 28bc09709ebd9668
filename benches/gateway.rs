//! The real binary under load, against a bare spawn loop measured in the same run. Prints figures and their ratios;
//! asserts nothing. Only the ratios mean anything across machines.
//!
//! `cargo bench --bench gateway`, or with a part's name: `accepts`, `sync`, `drain`, `idle`, `schedules`,
//! `boot`, `reload`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test or bench that can not go on may panic")]

#[allow(dead_code, reason = "shared with the black-box tests, which use all of it")]
#[path = "../tests/gateway/site.rs"]
mod site;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use site::{Gateway, Site};

const SECONDS: u64 = 5;

/// Measures one thing with the trivial plugin.
type Part = fn(&Path);

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|word| word == name);
    let tools = tempfile::tempdir().expect("a directory");
    let plugin = static_plugin(tools.path());
    let parts: [(&str, Part); 7] = [
        ("accepts", accepts),
        ("sync", synchronous),
        ("drain", drain),
        ("idle", idle),
        ("schedules", schedules),
        ("boot", boot),
        ("reload", reload),
    ];
    for (name, part) in parts {
        if runs(name) {
            part(&plugin);
        }
    }
}

/// The smallest plugin there is: a static program that answers without reading.
fn static_plugin(dir: &Path) -> PathBuf {
    let source = dir.join("plugin.c");
    let program = dir.join("plugin");
    fs::write(&source, "#include <unistd.h>\nint main(void){static const char a[]=\"{\\\"status\\\":\\\"ok\\\",\\\"result\\\":\\\"x\\\"}\\n\";return write(1,a,sizeof a-1)<0;}\n")
        .expect("a source file");
    let status = Command::new("cc").args(["-O2", "-static", "-o"]).arg(&program).arg(&source).status().expect("cc");
    assert!(status.success());
    program
}

/// A site with that program as its plugin.
fn bench_site(plugin: &Path, service: &str, plugin_config: &str) -> Site {
    let site = Site::new()
        .service(&format!("log_level: error\n{service}"))
        .api("max_queue_depth: 0\nmax_concurrent_sync: 64")
        .plugin_with("bench", "", "", plugin_config);
    fs::copy(plugin, site.path("plugins/bench/run.sh")).expect("the plugin");
    site
}

fn start(site: &Site) -> Gateway {
    // Errors only are logged, so readiness is asked for instead of read.
    site.write_config();
    let address = site::free_address();
    let config = site.path("config/config.yaml");
    let text = fs::read_to_string(&config).expect("the configuration").replace("127.0.0.1:0", &address);
    fs::write(&config, text).expect("the configuration");
    let mut gateway = site.launch(&[]);
    gateway.wait_until_serving(&address);
    gateway
}

/// Durable asynchronous accepts: what a producer sees while nothing else wants the machine.
fn accepts(plugin: &Path) {
    println!("asynchronous accepts ({SECONDS} s each; one job holds the only worker meanwhile)");
    for synchronous in ["normal", "full"] {
        for clients in [1, 64, 128] {
            let site = bench_site(plugin, "max_workers: 1", "timeouts: {poll: 600s}");
            set_synchronous(&site, synchronous);
            fs::write(site.path("plugins/bench/run.sh"), "#!/bin/sh\nsleep 600\n").expect("a plugin that waits");
            let gateway = start_as_written(&site);
            let (rate, latencies) = load(gateway.address(), clients, "{\"payload\":{\"message\":\"hello\"}}");
            println!(
                "  {synchronous:<6} {clients:>4} clients {rate:>9.0}/s   p50 {:>7.3} ms  p99 {:>7.3} ms",
                p(&latencies, 50),
                p(&latencies, 99)
            );
        }
    }
}

fn set_synchronous(site: &Site, word: &str) {
    site.write_config();
    let config = site.path("config/config.yaml");
    let address = site::free_address();
    let text = fs::read_to_string(&config).expect("the configuration");
    let text = text.replace("path: ../data/ductile.db", &format!("path: ../data/ductile.db\n  synchronous: {word}"));
    fs::write(&config, text.replace("127.0.0.1:0", &address)).expect("the configuration");
    fs::write(site.path("address"), address).expect("the address");
}

fn start_as_written(site: &Site) -> Gateway {
    let mut gateway = site.launch(&[]);
    gateway.wait_until_serving(&fs::read_to_string(site.path("address")).expect("the address"));
    gateway
}

/// Synchronous triggers of the trivial plugin against a bare spawn loop.
fn synchronous(plugin: &Path) {
    println!("synchronous trigger of a trivial static plugin ({SECONDS} s each)");
    for clients in [1, 8] {
        let (raw, raw_latencies) = spawn_loop(plugin, clients);
        let site = bench_site(plugin, "max_workers: 8", "");
        let gateway = start(&site);
        let before = cpu_ticks(gateway.pid());
        let (rate, latencies) = load(gateway.address(), clients, "{\"sync\":true}");
        // A tick is 10 ms; what the plugins themselves and their starts cost is the children's part.
        let per_job = (cpu_ticks(gateway.pid()) - before) as f64 * 1e4 / latencies.len() as f64;
        println!("  {clients} client(s): {per_job:.0} µs of processor time per job in the gateway, spawning included");
        println!(
            "  {clients} client(s): gateway {rate:>6.0}/s p50 {:.3} ms p99 {:.3} ms; bare spawn {raw:>6.0}/s p50 {:.3} ms p99 {:.3} ms; ratio {:.2}",
            p(&latencies, 50),
            p(&latencies, 99),
            p(&raw_latencies, 50),
            p(&raw_latencies, 99),
            rate / raw
        );
    }
}

/// A backlog of trivial jobs against a bare spawn loop with as many workers.
fn drain(plugin: &Path) {
    const JOBS: usize = 6000;
    println!("backlog drain ({JOBS} jobs)");
    for workers in [2, 8] {
        let (raw, _) = spawn_loop(plugin, workers);
        let gate = tempfile::tempdir().expect("a directory");
        let site = bench_site(plugin, &format!("max_workers: {workers}"), "");
        // The backlog is made while nothing can be claimed: the queue of a gateway whose plugin does not exist yet.
        let gateway = start(&site);
        hold(&site, &gateway, gate.path(), workers);
        let sent = AtomicUsize::new(0);
        let address = gateway.address().to_owned();
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let client = site::Client::new(&address, site::token());
                    while sent.fetch_add(1, Ordering::Relaxed) < JOBS {
                        assert_eq!(client.post("/plugin/bench/poll", "{}", &[]).status, 202);
                    }
                });
            }
        });
        fs::write(gate.path().join("go"), "").expect("the gate");
        let began = Instant::now();
        while site.query::<i64>("SELECT COUNT(*) FROM job_queue WHERE status IN ('queued','running')") > 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        let rate = JOBS as f64 / began.elapsed().as_secs_f64();
        println!("  {workers} workers: gateway {rate:>6.0}/s; bare spawn {raw:>6.0}/s; ratio {:.2}", rate / raw);
    }
}

/// Occupies all workers with jobs that wait for the gate.
fn hold(site: &Site, gateway: &Gateway, gate: &Path, workers: usize) {
    let script = format!(
        "#!/bin/sh\nwhile [ ! -e {}/go ]; do sleep 0.01; done\necho '{{\"status\":\"ok\",\"result\":\"x\"}}'\n",
        gate.display()
    );
    let real = fs::read(site.path("plugins/bench/run.sh")).expect("the plugin");
    replace(&site.path("plugins/bench/run.sh"), script.as_bytes());
    let held: Vec<String> = (0..workers).map(|_| gateway.trigger("bench", "poll")).collect();
    held.iter().for_each(|job| drop(gateway.wait_for_status(job, |status| status == "running")));
    // All are started; the jobs that follow run the real plugin.
    std::thread::sleep(Duration::from_millis(200));
    replace(&site.path("plugins/bench/run.sh"), &real);
}

fn replace(path: &Path, content: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    let new = path.with_extension("new");
    fs::write(&new, content).expect("a file");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("an execute bit");
    fs::rename(new, path).expect("a file");
}

/// Memory and processor time of a gateway that has nothing to do.
fn idle(plugin: &Path) {
    let site = bench_site(plugin, "", "");
    let gateway = start(&site);
    gateway.wait_for(&gateway.trigger("bench", "poll"));
    std::thread::sleep(Duration::from_secs(1));
    let before = cpu_ticks(gateway.pid());
    std::thread::sleep(Duration::from_secs(5));
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("its status");
    let line = |key: &str| {
        status
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default()
            .split_whitespace()
            .nth(1)
            .unwrap_or("?")
            .to_owned()
    };
    println!(
        "idle: {} KiB resident, {} threads, {} ticks of processor time in 5 s",
        line("VmRSS"),
        line("Threads"),
        cpu_ticks(gateway.pid()) - before
    );
    let binary = fs::metadata(env!("CARGO_BIN_EXE_ductile")).expect("the binary").len();
    println!("binary: {:.1} MB", binary as f64 / 1e6);
}

/// What 10,000 schedules cost while none is due: beside a gateway without any, and with a tick that looks at all of them
/// every second.
fn schedules(plugin: &Path) {
    const SECONDS: u64 = 20;
    println!("schedules, none of them due ({SECONDS} s each)");
    for (count, tick) in [(0, "60s"), (10_000, "60s"), (10_000, "1s")] {
        let one = |n: i64| match n % 2 {
            0 => format!("  - {{id: s{n}, after: {}h}}\n", 1_000 + n),
            _ => format!("  - {{id: s{n}, cron: \"{} 3 1 {} *\"}}\n", n % 60, first_month_of_no_test()),
        };
        let lines: String = (0..count).map(one).collect();
        let config = if count == 0 { String::new() } else { format!("schedules:\n{lines}") };
        let site = bench_site(plugin, &format!("tick_interval: {tick}"), &config);
        let gateway = start(&site);
        gateway.wait_for(&gateway.trigger("bench", "poll"));
        let seen = || site.query::<i64>("SELECT count(*) FROM schedule_entries");
        site::eventually(|| (seen() == count).then_some(()).ok_or("not all have been seen")).expect("all rows");
        std::thread::sleep(Duration::from_secs(2));
        let (cpu, switches) = (cpu_ticks(gateway.pid()), voluntary_switches(gateway.pid()));
        std::thread::sleep(Duration::from_secs(SECONDS));
        println!(
            "  {count:>6} schedules, tick {tick:<3}  {:>4} ticks of processor time, {:>5} wake-ups",
            cpu_ticks(gateway.pid()) - cpu,
            voluntary_switches(gateway.pid())
                .iter()
                .map(|(thread, count)| count - switches.get(thread).copied().unwrap_or(0))
                .sum::<u64>()
        );
    }
}

/// A month that does not begin while this runs.
fn first_month_of_no_test() -> u32 {
    use chrono::Datelike;
    (chrono::Utc::now().month() + 5) % 12 + 1
}

/// How often each thread of a process went to sleep by itself.
fn voluntary_switches(pid: u32) -> HashMap<OsString, u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads").flatten();
    let count = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<u64>().ok()
    };
    let counted = tasks.filter_map(|task| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        Some((task.file_name(), count(&status)?))
    });
    counted.collect()
}

fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("its stat");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    fields[11].parse::<u64>().expect("user time") + fields[12].parse::<u64>().expect("system time")
}

/// Cold start to ready with 100 plugins and 100,000 finished rows.
fn boot(plugin: &Path) {
    let site = full_site(plugin);
    drop(start_as_written(&site));
    fill(&site, 100_000);
    let mut times: Vec<f64> = (0..7)
        .map(|_| {
            let began = Instant::now();
            drop(start_as_written(&site));
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("cold start, 100 plugins, 100,000 rows: median {:.0} ms, worst {:.0} ms", times[3], times[6]);
}

/// Reload of an unchanged configuration of 100 plugins.
fn reload(plugin: &Path) {
    let site = full_site(plugin);
    let gateway = start_as_written(&site);
    let mut times: Vec<f64> = (0..21)
        .map(|_| {
            let began = Instant::now();
            assert_eq!(gateway.post("/system/reload", &json!({})).status, 200);
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("reload, unchanged, 100 plugins: median {:.0} ms, worst {:.0} ms", times[10], times[20]);
}

fn full_site(plugin: &Path) -> Site {
    let mut site = bench_site(plugin, "", "");
    for n in 0..99 {
        site = site.plugin(&format!("p{n}"), site::OK);
    }
    set_synchronous(&site, "normal");
    site
}

/// Finished rows, as a gateway leaves them.
fn fill(site: &Site, rows: usize) {
    let connection = rusqlite::Connection::open(site.path("data/ductile.db")).expect("the database");
    let sql = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         INSERT INTO job_queue (id, plugin, command, payload, status, submitted_by, created_at, started_at, completed_at)
         SELECT printf('00000000-0000-7000-8000-%012d', i), 'bench', 'poll', '{{}}', 'succeeded', 'api',
                '2026-01-01 00:00:00.000000000Z', '2026-01-01 00:00:00.000000000Z', '2026-01-01 00:00:00.000000000Z' FROM n;
         INSERT INTO job_log (id, job_id, plugin, command, status, attempt, submitted_by, created_at, completed_at)
         SELECT id || '-1', id, plugin, command, status, 1, submitted_by, created_at, completed_at FROM job_queue
         WHERE id LIKE '00000000-%';"
    );
    connection.execute_batch(&sql).expect("rows");
}

/// Spawns, reads and reaps in a loop, in as many threads; rate and latencies in ms.
fn spawn_loop(plugin: &Path, threads: usize) -> (f64, Vec<f64>) {
    let end = Instant::now() + Duration::from_secs(SECONDS);
    let began = Instant::now();
    let mut all: Vec<f64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(move || {
                    let mut latencies = Vec::new();
                    while Instant::now() < end {
                        let one = Instant::now();
                        let output = Command::new(plugin).stdin(Stdio::null()).output().expect("the plugin");
                        assert!(output.status.success());
                        latencies.push(one.elapsed().as_secs_f64() * 1e3);
                    }
                    latencies
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker")).collect()
    });
    let rate = all.len() as f64 / began.elapsed().as_secs_f64();
    all.sort_by(f64::total_cmp);
    (rate, all)
}

/// Posts over kept connections; rate and latencies in ms.
fn load(address: &str, clients: usize, body: &str) -> (f64, Vec<f64>) {
    let request = format!(
        "POST /plugin/bench/poll HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        site::token(),
        body.len()
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let done = std::sync::Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let mut all: Vec<f64> = runtime.block_on(async {
        let tasks: Vec<_> = (0..clients)
            .map(|_| tokio::spawn(client(address.to_owned(), request.clone().into_bytes(), done.clone())))
            .collect();
        tokio::time::sleep(Duration::from_secs(SECONDS)).await;
        done.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.expect("a client"));
        }
        all
    });
    let rate = all.len() as f64 / began.elapsed().as_secs_f64();
    all.sort_by(f64::total_cmp);
    (rate, all)
}

/// A client that does no more than it must: the generator must not be what is measured.
async fn client(address: String, request: Vec<u8>, done: std::sync::Arc<AtomicBool>) -> Vec<f64> {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("a socket option");
    let mut latencies = Vec::new();
    let mut buffer = Vec::with_capacity(4096);
    while !done.load(Ordering::Relaxed) {
        let one = Instant::now();
        stream.write_all(&request).await.expect("a request");
        buffer.clear();
        while !is_whole(&buffer) {
            assert!(stream.read_buf(&mut buffer).await.expect("an answer") > 0, "the connection was closed");
        }
        assert!(buffer.starts_with(b"HTTP/1.1 20"), "{}", String::from_utf8_lossy(&buffer));
        latencies.push(one.elapsed().as_secs_f64() * 1e3);
    }
    latencies
}

/// Whether a whole answer with a content length has been read.
fn is_whole(buffer: &[u8]) -> bool {
    let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| buffer.len() >= end + 4 + length)
}

/// Percentile of sorted values.
fn p(sorted: &[f64], percent: usize) -> f64 {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
