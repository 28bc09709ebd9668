//! Who comes next: order, and that nobody waits for ever or for somebody who is in nobody else's way.

use proptest::prelude::*;

use super::*;

/// Takes everything that the writer claims until it has nothing more to claim.
async fn take(site: &Site, claims: &mut UnboundedReceiver<ClaimedJob>) -> Vec<ClaimedJob> {
    site.store.write(|_| Ok(())).await.unwrap();
    site.store.write(|_| Ok(())).await.unwrap();
    std::iter::from_fn(|| claims.try_recv().ok()).collect()
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(40))]
    #[test]
    fn claims_come_in_the_order_of_the_queue(plugins in prop::collection::vec(0u8..3, 1..25), cap in 1u32..3) {
        run(async move {
            let site = Site::new().await;
            let mut waiting = Vec::new();
            for plugin in plugins {
                let plugin = format!("p{plugin}");
                waiting.push((site.enqueue(job(&plugin)).await, plugin));
            }
            let mut policy = policy(2);
            policy.lane_caps.insert("p0".into(), cap);
            let mut claims = site.activate(policy).await;
            let mut running: Vec<ClaimedJob> = Vec::new();
            while !waiting.is_empty() || !running.is_empty() {
                // The oldest whose lane has room, as long as a worker is free.
                while running.len() < 2 {
                    let p0 = running.iter().filter(|job| job.plugin == "p0").count();
                    let next = waiting.iter().position(|(_, plugin)| plugin != "p0" || p0 < cap as usize);
                    let Some(next) = next else { break };
                    let claimed = claim(&mut claims).await;
                    assert_eq!(claimed.id, waiting.remove(next).0);
                    running.push(claimed);
                }
                nothing_claimed(&site, &mut claims).await;
                let done = running.remove(0);
                site.finish(&done, succeeded()).await;
            }
            site.store.close().await;
        });
    }

    /// A lane that is full for ever and a key that is held for ever keep their own jobs waiting and nobody else's.
    #[test]
    fn what_can_not_run_never_stands_in_the_way_of_what_is_younger(
        jobs in prop::collection::vec((0u8..4, prop::option::of(0u8..2)), 1..30), workers in 3u32..5,
    ) {
        run(async move {
            let site = Site::new().await;
            let mut policy = policy(workers);
            policy.lane_caps.insert("p0".into(), 1);
            let mut claims = site.activate(policy).await;
            // These two never end.
            site.enqueue(job("p0")).await;
            site.enqueue(keyed("p1", "k0")).await;
            assert_eq!(take(&site, &mut claims).await.len(), 2);
            let other = site.other();
            let (mut stuck, mut free) = (Vec::new(), Vec::new());
            for (plugin, key) in jobs {
                // Written by hand, as an enqueue with a key that is under way would be refused.
                let id = JobId::generate();
                let (plugin, key) = (format!("p{plugin}"), key.map(|key| format!("k{key}")));
                other
                    .execute(
                        "INSERT INTO job_queue (id, plugin, command, status, submitted_by, dedupe_key, created_at)
                         VALUES (?1, ?2, 'poll', 'queued', 'cli', ?3, ?4)",
                        rusqlite::params![id.as_str(), plugin, key, site.now_text()],
                    )
                    .unwrap();
                let is_stuck = plugin == "p0" || (plugin == "p1" && key.as_deref() == Some("k0"));
                if is_stuck { stuck.push(id) } else { free.push(id) }
            }
            let mut ended = Vec::new();
            for _ in 0..free.len() {
                for claimed in take(&site, &mut claims).await {
                    ended.push(claimed.id.clone());
                    assert_eq!(site.finish(&claimed, succeeded()).await, stored(JobStatus::Succeeded));
                }
            }
            ended.sort_unstable();
            free.sort_unstable();
            assert_eq!(ended, free);
            assert!(take(&site, &mut claims).await.is_empty());
            assert_eq!(site.queue.depth(), 2 + stuck.len() as u64);
            site.store.close().await;
        });
    }

    /// New jobs keep coming. Still each waits for no more than those that were there before it, and its lane is served in
    /// order.
    #[test]
    fn whoever_waits_is_served_however_many_come_after(
        arrivals in prop::collection::vec((0u8..3, 0u8..3), 10..50), workers in 1u32..4,
    ) {
        run(async move {
            let site = Site::new().await;
            let mut policy = policy(workers);
            policy.lane_caps.insert("p0".into(), 1);
            let mut claims = site.activate(policy).await;
            let mut running: Vec<ClaimedJob> = Vec::new();
            // Plugin, id, and the turn until which the job must have been claimed.
            let mut waiting: Vec<(String, JobId, usize)> = Vec::new();
            for (turn, (one, two)) in arrivals.into_iter().enumerate() {
                for plugin in [one, two] {
                    let plugin = format!("p{plugin}");
                    let id = site.enqueue(job(&plugin)).await;
                    // The one that runs longest ends first, so each of those before it takes at most so many turns.
                    let before = waiting.len() + running.len();
                    waiting.push((plugin, id, turn + (before + 1) * workers as usize));
                }
                for claimed in take(&site, &mut claims).await {
                    let first = waiting.iter().position(|(plugin, ..)| *plugin == claimed.plugin).unwrap();
                    assert_eq!(waiting.remove(first).1, claimed.id, "a lane is served in its order");
                    running.push(claimed);
                }
                for (plugin, id, until) in &waiting {
                    assert!(turn <= *until, "{id} of {plugin} starves");
                }
                site.finish(&running.remove(0), succeeded()).await;
            }
            site.store.close().await;
        });
    }
}
