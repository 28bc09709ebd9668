//! Under which ids the jobs of one event are known.

use crate::site::{OK, Site, eventually};

const PIPELINES: &str = "
pipelines:
  - name: broken
    on: thing.found
    steps:
      - split:
          - {id: a1, uses: one}
          - {id: a2, uses: one, baggage: {kept: payload.missing}}
  - name: whole
    on: thing.found
    steps:
      - split:
          - {id: b1, uses: one}
          - {id: b2, uses: one}
";

#[test]
fn a_pipeline_that_is_not_started_takes_no_id_from_another() {
    let events = r#"[{"type":"thing.found","event_id":"e-1","payload":{"n":1}}]"#;
    let finder = format!(r#"cat >/dev/null; echo '{{"status":"ok","result":"x","events":{events}}}'"#);
    let site = Site::new().plugin("finder", &finder).plugin("one", OK).extra(PIPELINES);
    let gateway = site.start();
    gateway.wait_for(&gateway.trigger("finder", "poll"));
    let ids = "SELECT c.step_id || ' ' || q.source_event_id FROM job_queue q
               JOIN event_context c ON c.id = q.event_context_id WHERE q.plugin = 'one' ORDER BY 1";
    let found = eventually(|| match site.column(ids) {
        found if found.len() == 2 => Ok(found),
        found => Err(found),
    });
    assert_eq!(found.expect("two jobs"), ["b1 e-1", "b2 e-1/whole/b2"]);
}
