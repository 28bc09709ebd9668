#![no_main]

use chrono::{DateTime, Utc};
use ductile_timetable::{Cron, Zone};

libfuzzer_sys::fuzz_target!(|input: (i64, &str)| {
    let (second, text) = input;
    let (Ok(cron), Ok(zone)) = (Cron::parse(text), Zone::named("America/Sao_Paulo")) else { return };
    let mut last = DateTime::<Utc>::from_timestamp(second, 0).unwrap_or_default();
    for _ in 0..20 {
        let Some(next) = cron.next_after(last, &zone) else { return };
        assert!(next > last, "{cron}: {next} after {last}");
        last = next;
    }
});
