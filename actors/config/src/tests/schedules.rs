//! Schedules: what they become, and what is wrong with them.

use std::time::Duration;

use ductile_model::Problem;
use ductile_timetable::{CatchUp, Entry, Interval, Overlap, Rule, Weekdays, Window, Zone, parse_weekday};

use super::site::Site;
use crate::{Past, outline};

const MINUTES: fn(u64) -> Duration = |minutes| Duration::from_secs(60 * minutes);

/// A plugin `p` with these schedules, enabled or not.
fn site(enabled: bool, schedules: &str) -> Site {
    Site::new().plugin("p", "").config(&format!("plugins:\n  p:\n    enabled: {enabled}\n    schedules: {schedules}\n"))
}

fn enabled(schedules: &str) -> Site {
    site(true, schedules)
}

fn about_schedules(problems: Vec<Problem>) -> Vec<String> {
    let about = problems.into_iter().filter(|problem| problem.category == "schedule");
    about.map(|problem| problem.message).collect()
}

/// All errors, which must be about schedules.
fn errors(schedules: &str) -> Vec<String> {
    let report = enabled(schedules).check();
    assert!(report.errors.iter().all(|error| error.category == "schedule"), "{:?}", report.errors);
    about_schedules(report.errors)
}

fn warnings(schedules: &str) -> Vec<String> {
    let report = enabled(schedules).check();
    assert_eq!(report.errors, [], "{schedules}");
    about_schedules(report.warnings)
}

fn entries(site: &Site) -> Vec<Entry> {
    site.plan().unwrap().schedules.iter().map(|entry| Entry::clone(entry)).collect()
}

fn entry(schedule: &str) -> Entry {
    let [entry] = &entries(&enabled(&format!("[{schedule}]")))[..] else { panic!("{schedule}") };
    entry.clone()
}

/// Each is the one error of a schedule.
fn assert_each_is_refused(cases: &[(&str, &str)]) {
    for (schedule, expected) in cases {
        assert_eq!(errors(&format!("[{schedule}]")), [format!("plugin \"p\": schedules[0]{expected}")], "{schedule}");
    }
}

#[test]
fn a_schedule_needs_nothing_but_a_trigger() {
    let entry = entry("{every: 5m}");
    assert_eq!((entry.plugin.as_str(), entry.id.as_str(), entry.command.as_str()), ("p", "default", "poll"));
    assert_eq!((&*entry.payload, entry.max_attempts), ("{}", 4));
    let interval = Interval { every: MINUTES(5), jitter: Duration::ZERO, preferred: None };
    assert_eq!(entry.rule, Rule::Every(interval));
    assert_eq!(entry.zone, Zone::of_this_machine());
    assert_eq!((entry.only_between, entry.not_on), (None, Weekdays::default()));
    assert_eq!((entry.if_running, entry.catch_up), (Overlap::Skip, CatchUp::Skip));
}

#[test]
fn everything_that_is_written_is_in_the_entry() {
    let site = Site::new().plugin("p", "").config(
        "plugins: {p: {enabled: true, max_outstanding_polls: 3, retry: {max_attempts: 7}, schedules: [{id: x, every: \
         HOURLY, command: poll, payload: {big: 123456789012345678901234567890, f: 1.50, list: [~, yes]}, jitter: 10m, \
         only_between: '08:00-18:00', not_on: [Sat, 0, '1', tues, 0x3], timezone: Europe/Berlin, preferred_window: \
         {start: 22:00, end: '06:00'}, catch_up: run_all, if_running: queue}]}}\n",
    );
    let [entry] = &entries(&site)[..] else { panic!("one entry") };
    assert_eq!((entry.id.as_str(), entry.max_attempts), ("x", 7));
    assert_eq!(&*entry.payload, r#"{"big":123456789012345678901234567890,"f":1.50,"list":[null,"yes"]}"#);
    let berlin = Zone::named("Europe/Berlin").unwrap();
    let preferred = Some((Window::parse("22:00-06:00").unwrap(), berlin.clone()));
    assert_eq!(entry.rule, Rule::Every(Interval { every: MINUTES(60), jitter: MINUTES(10), preferred }));
    assert_eq!(entry.zone, berlin);
    assert_eq!(entry.only_between, Some(Window::parse("08:00-18:00").unwrap()));
    let mut days = Weekdays::default();
    for day in ["sat", "sun", "mon", "tue", "wed"] {
        days.insert(parse_weekday(day).unwrap());
    }
    assert_eq!(entry.not_on, days);
    assert_eq!((entry.if_running, entry.catch_up), (Overlap::Queue { limit: 3 }, CatchUp::RunAll));
}

#[test]
fn the_other_triggers_are_read_too() {
    assert_eq!(entry("{after: 1.5h}").rule, Rule::After(MINUTES(90)));
    assert_eq!(entry("{at: 2030-01-05T10:00:00+01:00}").rule, Rule::At("2030-01-05T09:00:00Z".parse().unwrap()));
    assert_eq!(entry("{cron: ' 0 3 * * * ', every: ~, at: ''}").mode(), "cron");
    assert_eq!(entry("{every: 2w, catch_up: run_once, if_running: cancel}").if_running, Overlap::Cancel);
}

#[test]
fn entries_come_by_plugin_name_and_then_as_configured_and_only_of_enabled_plugins() {
    let site = Site::new().plugin("z", "").plugin("b", "").config(
        "plugins:\n  z: {enabled: true, schedules: [{id: z2, every: 2h}, {id: a1, every: 1h}]}\n  off: {enabled: false, \
         uses: b, schedules: [{every: 1h}]}\n  silent: {schedules: [{every: 1h}]}\n  alias: {enabled: true, uses: z, \
         schedules: [{every: 1h}]}\n  b: {enabled: true, schedules: [{every: 1h, id: ~}]}\n",
    );
    let expected = ["alias:poll:default", "b:poll:default", "z:poll:z2", "z:poll:a1"];
    let keys: Vec<_> = entries(&site).iter().map(Entry::dedupe_key).collect();
    assert_eq!(keys, expected);
    let outlined = outline(&site.source(), &site.env()).unwrap().schedules;
    assert_eq!(outlined.iter().map(|entry| entry.dedupe_key()).collect::<Vec<_>>(), expected);
}

#[test]
fn there_is_exactly_one_trigger() {
    assert_each_is_refused(&[
        ("{id: x}", " requires one of every, cron, at, or after"),
        ("~", " requires one of every, cron, at, or after"),
        ("{every: ' '}", " requires one of every, cron, at, or after"),
        ("{every: 1h, after: 1h}", " must set exactly one of every, cron, at, or after"),
        ("5", " must be a mapping"),
    ]);
    assert_eq!(errors("{every: 1h}"), ["plugin \"p\": schedules must be a list"]);
}

#[test]
fn triggers_that_can_not_be_read_are_refused() {
    let instant = ".at: expected a time with its offset such as 2026-01-05T10:00:00+01:00, not";
    assert_each_is_refused(&[
        ("{every: 30}", ".every: duration \"30\" needs a unit (ns, us, ms, s, m, h, d, w)"),
        ("{every: yearly}", ".every: \"yearly\" is not a duration (examples: 90s, 1h30m, 30d)"),
        ("{every: 0}", ".every: schedule interval must be positive"),
        ("{every: -5m}", ".every: schedule interval must be positive"),
        ("{every: {h: 1}}", ".every: must be a single value, not a mapping"),
        ("{after: 0s}", ".after: schedule delay must be positive"),
        ("{after: -1s}", ".after: duration \"-1s\" is negative"),
        ("{after: daily}", ".after: \"daily\" is not a duration (examples: 90s, 1h30m, 30d)"),
        ("{at: 2026-01-05T10:00:00}", &format!("{instant} \"2026-01-05T10:00:00\"")),
        ("{at: tomorrow}", &format!("{instant} \"tomorrow\"")),
        ("{cron: [1]}", ".cron: must be a single value, not a list"),
    ]);
}

#[test]
fn cron_expressions_that_can_not_be_read_or_never_match_are_refused() {
    for cron in [
        "60 * * * *",
        "* * * *",
        "0 0 30 2 *",
        "0 0 31W 2 *",
        "5-1 * * * *",
        "*/0 * * * *",
        "a * * * *",
        "0 0 L-3W * *",
        "0 0 * * 8",
        "@reboot",
    ] {
        let found = errors(&format!("[{{cron: '{cron}'}}]"));
        let expected = format!("plugin \"p\": schedules[0].cron: invalid cron expression {cron:?}: ");
        assert!(found.len() == 1 && found[0].starts_with(&expected), "{cron}: {found:?}");
    }
}

#[test]
fn fields_that_can_not_be_read_are_refused() {
    let zone = ".timezone: unknown time zone \"Mars/One\": expected an IANA name such as Europe/Berlin";
    let day = |word: &str| {
        let expected = "expected sun to sat, a full name, or a number from 0 (Sunday) to 7 (Sunday too)";
        format!(".not_on[0]: unknown weekday {word:?}: {expected}")
    };
    assert_each_is_refused(&[
        ("{every: 1h, jitter: -5m}", ".jitter: duration \"-5m\" is negative"),
        ("{after: 1h, jitter: 5}", ".jitter: duration \"5\" needs a unit (ns, us, ms, s, m, h, d, w)"),
        ("{every: 1h, timezone: Mars/One}", zone),
        ("{every: 1h, only_between: '08:00-08:00'}", ".only_between: start and end are both 08:00"),
        ("{every: 1h, only_between: morning}", ".only_between: expected HH:MM-HH:MM, not \"morning\""),
        ("{every: 1h, only_between: 8:00-9:00}", ".only_between: expected a time of day such as 08:00, not \"8:00\""),
        ("{every: 1h, preferred_window: '08:00-09:00'}", ".preferred_window: must be a mapping"),
        ("{every: 1h, preferred_window: {start: 08:00}}", ".preferred_window: end is required, as HH:MM"),
        (
            "{every: 1h, preferred_window: {start: 08:00, end: [1]}}",
            ".preferred_window.end: must be a single value, not a list",
        ),
        (
            "{every: 1h, preferred_window: {start: 08:00, end: 08:00}}",
            ".preferred_window: start and end are both 08:00",
        ),
        (
            "{every: 1h, preferred_window: {start: 08:00, end: 24:00}}",
            ".preferred_window: expected a time of day such as 08:00, not \"24:00\"",
        ),
        ("{every: 1h, not_on: sunday}", ".not_on: must be a list"),
        ("{every: 1h, not_on: [funday]}", &day("funday")),
        ("{every: 1h, not_on: [1.5]}", &day("1.5")),
        ("{every: 1h, not_on: [9]}", &day("9")),
        ("{every: 1h, not_on: [[1]]}", ".not_on[0]: must be a single value, not a list"),
        ("{every: 1h, catch_up: always}", ".catch_up: expected skip, run_once, or run_all, not \"always\""),
        ("{every: 1h, if_running: wait}", ".if_running: expected skip, queue, or cancel, not \"wait\""),
        ("{cron: '@daily', catch_up: run_once}", ".catch_up is only supported for every schedules"),
        ("{after: 1h, catch_up: run_all}", ".catch_up is only supported for every schedules"),
        ("{every: 1h, payload: text}", ".payload: must be a mapping"),
        (
            "{every: 1h, payload: {a: [.inf]}}",
            ".payload.a[0]: is a number that JSON can not hold; put it in quotes to pass it as text",
        ),
        ("{every: 1h, command: handle}", ".command: handle cannot be scheduled"),
        ("{every: 1h, id: ''}", ".id: must not be empty"),
        ("{every: 1h, id: a:b}", ".id: must not have colons or control characters in it, as \"a:b\" has"),
        ("{every: 1h, id: \"a\\nb\"}", ".id: must not have colons or control characters in it, as \"a\\nb\" has"),
    ]);
}

#[test]
fn an_id_is_unique_within_its_plugin() {
    assert_eq!(
        errors("[{id: x, every: 1h}, {every: 1h}, {id: x, every: 2h}, {id: default, after: 1h}]"),
        [
            "plugin \"p\": schedules[2].id: duplicate schedule id \"x\"",
            "plugin \"p\": schedules[3].id: duplicate schedule id \"default\"",
        ]
    );
}

#[test]
fn all_problems_of_all_schedules_are_told_in_one_pass_with_their_places() {
    let site = enabled(
        "\n      - cron: '@daily'\n        catch_up: run_once\n        command: handle\n        not_on: [funday]\n        \
         timezone: Mars/One\n        only_between: '08:00-08:00'\n      - every: 1h\n",
    );
    let found: Vec<_> = site.check().errors.into_iter().map(|error| (error.field, error.line)).collect();
    let expected = [("catch_up", 7), ("command", 8), ("not_on[0]", 9), ("only_between", 11), ("timezone", 10)];
    let mut expected = expected.map(|(key, line)| (format!("plugins.p.schedules[0].{key}"), Some(line))).to_vec();
    expected.push(("plugins.p.schedules[1].id".to_owned(), Some(12)));
    assert_eq!(found, expected);
    let refusal = site.refusal();
    assert_eq!(refusal.lines().filter(|line| line.contains("plugin \"p\": schedules[")).count(), 6, "{refusal}");
    let outlined = outline(&site.source(), &site.env()).unwrap_err();
    assert_eq!(about_schedules(outlined.problems).len(), 6);
}

#[test]
fn problems_of_schedules_come_together_with_those_of_other_keys() {
    let site = Site::new().config(
        "service: {tick_interval: 50ms}\nplugins: {p: {enabled: true, parallelism: 9999, schedules: [{every: x}]}}\n\
         routes: [{from: a}]\n",
    );
    let refusal = site.refusal();
    for expected in ["tick_interval 50ms is below", "parallelism 9999", "schedules[0].every", "event_type is required"]
    {
        assert!(refusal.contains(expected), "{expected}: {refusal}");
    }
}

#[test]
fn wrong_schedules_of_a_plugin_that_is_not_enabled_are_only_warnings() {
    let schedules = "[{every: 30, jitter: {}, catch_up: always, if_running: 5, not_on: x, preferred_window: 1, id: [], \
                     payload: .inf, after: x}, 7, {at: x, timezone: '${U}', command: handle}]";
    let wrong = errors(schedules);
    assert_eq!(wrong.len(), 14, "{wrong:?}");
    let site = site(false, schedules);
    let report = site.check();
    assert_eq!(report.errors, []);
    assert_eq!(about_schedules(report.warnings), wrong);
    assert!(entries(&site).is_empty());
    assert_eq!(outline(&site.source(), &site.env()).unwrap().schedules.len(), 0);
    let shown = &site.snapshot()["plugins"]["p"]["schedules"];
    assert_eq!((&shown[0]["after"], &shown[1].to_string()), (&"x".into(), &"7".to_owned()));
}

#[test]
fn the_last_file_decides_whether_a_wrong_schedule_matters() {
    let wrong = "plugins: {p: {enabled: true, schedules: [{every: 30}]}}\n";
    let harmless = "plugins: {p: {enabled: false, schedules: [{every: 30}]}}\n";
    let site = |first: &str, last: &str| {
        Site::new().plugin("p", "").config(&format!("include: [b.yaml]\n{first}")).file("b.yaml", last)
    };
    assert!(site(wrong, harmless).plan().is_ok());
    assert!(site(harmless, wrong).refusal().contains("schedules[0].every: duration \"30\" needs a unit"));
}

#[test]
fn what_looks_like_a_mistake_is_a_warning() {
    for (schedule, expected) in [
        ("{every: 30s}", &[".every 30s is below one minute", ".every 30s is below service.tick_interval 1m0s"][..]),
        ("{every: 1h, jitter: 2h}", &[".jitter 2h0m0s is larger than every 1h0m0s, and is used as if equal to it"]),
        ("{cron: '@daily', jitter: 1m}", &[".jitter has no effect on cron schedules"]),
        ("{after: 1h, jitter: 1m}", &[".jitter has no effect on after schedules"]),
        (
            "{at: 2030-01-05T10:00:00Z, preferred_window: {start: 08:00, end: 09:00}}",
            &[".preferred_window has no effect on at schedules"],
        ),
        ("{every: 1h, not_on: [0, 1, 2, 3, 4, 5, 6]}", &[".not_on names every day of the week: it never runs"]),
        ("{every: 1m, jitter: 1m, not_on: [0, 1, 2, 3, 4, 5, 7]}", &[]),
        ("{cron: '@daily', jitter: 0}", &[]),
        (
            "{cron: '@daily', only_between: '08:00-09:00'}",
            &[".only_between leaves out every slot of the cron expression: it never runs"],
        ),
        ("{cron: '@hourly', only_between: '08:00-09:00'}", &[]),
    ] {
        let expected: Vec<_> = expected.iter().map(|what| format!("plugin \"p\": schedules[0]{what}")).collect();
        assert_eq!(warnings(&format!("[{schedule}]")), expected, "{schedule}");
    }
    let slow = Site::new()
        .plugin("p", "")
        .config("service: {tick_interval: 10m}\nplugins: {p: {enabled: true, schedules: [{every: 5m}]}}\n");
    let found = about_schedules(slow.check().warnings);
    assert_eq!(found, ["plugin \"p\": schedules[0].every 5m0s is below service.tick_interval 10m0s"]);
}

#[test]
fn a_command_that_the_plugin_lacks_refuses_without_any_gate() {
    let site = Site::new().plugin("p", "").config(
        "plugins:\n  p: {enabled: true, schedules: [{every: 1h}, {id: s, every: 1h, command: sync}]}\n  twin: {enabled: \
         true, uses: p, schedules: [{every: 1h, command: walk}]}\n",
    );
    let expected = [
        "plugin \"p\": schedules[1]: plugin \"p\" does not support command \"sync\"",
        "plugin \"twin\": schedules[0]: plugin \"twin\" does not support command \"walk\"",
    ];
    let refusal = site.refusal();
    assert!(expected.iter().all(|expected| refusal.contains(expected)), "{refusal}");
    assert!(refusal.contains("config.yaml:3"), "{refusal}");
    let report = site.check();
    assert_eq!(about_schedules(report.errors.clone()), expected);
    assert_eq!(report.errors[0].field, "plugins.p.schedules[1].command");
    assert_eq!(about_schedules(site.inspect().unwrap().doctor_errors), expected);
}

#[test]
fn schedules_of_a_plugin_that_was_not_discovered_refuse_once() {
    let text = "plugins:\n  p: {enabled: true, schedules: [{every: 1h}, {id: s, every: 1h}]}\n  q: {enabled: true}\n";
    let site = Site::new().config(text);
    let expected = "plugin \"p\": schedules[0]: plugin \"p\" was not found in configured plugin roots, so command \
                    \"poll\" can not run";
    let refusal = site.refusal();
    assert!(refusal.lines().count() == 1 && refusal.contains(expected), "{refusal}");
    let found: Vec<_> = site.check().errors.into_iter().map(|error| (error.category, error.field)).collect();
    let expected = [
        ("plugin_refs", "plugins.p".to_owned()),
        ("plugin_refs", "plugins.q".to_owned()),
        ("schedule", "plugins.p.schedules[0].command".to_owned()),
    ];
    assert_eq!(found, expected);
    assert!(Site::new().config(&text.replace("enabled: true", "enabled: false")).plan().is_ok());
}

#[test]
fn durations_are_shown_in_their_one_form() {
    let site = enabled("[{every: DAILY, jitter: 90s}, {id: b, after: 10m}, {id: c, every: 2d}]");
    let shown = &site.snapshot()["plugins"]["p"]["schedules"];
    assert_eq!((&shown[0]["every"], &shown[0]["jitter"]), (&"daily".into(), &"1m30s".into()));
    assert_eq!((&shown[1]["after"], &shown[1]["jitter"]), (&"10m0s".into(), &"0s".into()));
    assert_eq!((&shown[2]["every"], &shown[2]["id"]), (&"48h0m0s".into(), &"c".into()));
}

#[test]
fn a_variable_that_is_not_set_is_named() {
    assert_each_is_refused(&[
        ("{every: '${U}'}", ".every: needs a value: environment variable ${U} is not set"),
        ("{every: 1h, not_on: ['${U}']}", ".not_on[0]: needs a value: environment variable ${U} is not set"),
    ]);
}

#[test]
fn a_one_shot_that_was_due_long_ago_and_never_ran_is_a_warning() {
    let site = Site::new().plugin("p", "").config(
        "plugins:\n  p:\n    enabled: true\n    schedules:\n      - {id: a, every: 1h}\n      - {id: b, at: \
         '2026-01-01T00:00:00Z'}\n",
    );
    let overdue = |now: &str, fired: bool| {
        let report = site.check_after(&Past {
            now: now.parse().unwrap(),
            has_fired: &|plugin, id| fired && (plugin, id) == ("p", "b"),
        });
        report
            .warnings
            .iter()
            .filter(|warning| warning.message.contains("more than a day in the past"))
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(overdue("2026-01-02T00:00:00Z", false), Vec::<String>::new());
    let told = overdue("2026-01-02T00:00:01Z", false);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("plugin \"p\": schedules[1].at") && told[0].contains("config.yaml:"), "{told:?}");
    assert_eq!(overdue("2026-01-02T00:00:01Z", true), Vec::<String>::new());
}
