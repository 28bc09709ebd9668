//! What is no expression, and what the operator reads about it.

use ductile_timetable::Cron;

fn refusal(text: &str) -> String {
    match Cron::parse(text) {
        Ok(cron) => panic!("accepted as {cron}"),
        Err(refused) => refused.to_string(),
    }
}

#[test]
fn a_refusal_quotes_the_expression_and_says_what_is_wrong_in_which_field() {
    let refusals = [
        ("60 * * * *", "minute: value 60 out of range [0,59]"),
        ("* 24 * * *", "hour: value 24 out of range [0,23]"),
        ("* * 0 * *", "day of month: value 0 out of range [1,31]"),
        ("* * 32 * *", "day of month: value 32 out of range [1,31]"),
        ("* * 32W * *", "day of month: value 32 out of range [1,31]"),
        ("* * L-0 * *", "day of month: value 0 out of range [1,30]"),
        ("* * L-31 * *", "day of month: value 31 out of range [1,30]"),
        ("* * * 0 *", "month: value 0 out of range [1,12]"),
        ("* * * 13 *", "month: value 13 out of range [1,12]"),
        ("* * * * 8", "day of week: value 8 out of range [0,7]"),
        ("* * * * 8L", "day of week: value 8 out of range [0,7]"),
        ("* * * * fri#0", "day of week: value 0 out of range [1,5]"),
        ("* * * * fri#6", "day of week: value 6 out of range [1,5]"),
        ("99999999999999999999 * * * *", "minute: value 99999999999999999999 out of range [0,59]"),
        ("5-1 * * * *", "minute: descending range 5-1"),
        ("* 23-4 * * *", "hour: descending range 23-4"),
        ("* * 9-8/2 * *", "day of month: descending range 9-8/2"),
        ("*/0 * * * *", "minute: step must be at least 1"),
        ("* * * * mon/0", "day of week: step must be at least 1"),
        ("1,,2 * * * *", "minute: empty list member"),
        (",1 * * * *", "minute: empty list member"),
        ("* 1, * * *", "hour: empty list member"),
        ("a * * * *", r#"minute: "a" is not a value, a range or a step"#),
        ("-5 * * * *", r#"minute: "-5" is not a value, a range or a step"#),
        ("+5 * * * *", r#"minute: "+5" is not a value, a range or a step"#),
        ("*-5 * * * *", r#"minute: "*-5" is not a value, a range or a step"#),
        ("1-2-3 * * * *", r#"minute: "1-2-3" is not a value, a range or a step"#),
        ("1/2/3 * * * *", r#"minute: "1/2/3" is not a value, a range or a step"#),
        ("5/ * * * *", r#"minute: "5/" is not a value, a range or a step"#),
        ("/5 * * * *", r#"minute: "/5" is not a value, a range or a step"#),
        ("1.5 * * * *", r#"minute: "1.5" is not a value, a range or a step"#),
        ("? * * * *", r#"minute: "?" is not a value, a range or a step"#),
        ("* L * * *", r#"hour: "l" is not a value, a range or a step"#),
        ("* * mon * *", r#"day of month: "mon" is not a value, a range or a step"#),
        ("* * 5L * *", r#"day of month: "5l" is not a value, a range or a step"#),
        ("* * * ? *", r#"month: "?" is not a value, a range or a step"#),
        ("* * * january *", r#"month: "january" is not a value, a range or a step"#),
        ("* * * * monday", r#"day of week: "monday" is not a value, a range or a step"#),
        ("* * * * tues", r#"day of week: "tues" is not a value, a range or a step"#),
        ("* * * * 5W", r#"day of week: "5w" is not a value, a range or a step"#),
        ("* * * * mon#", r#"day of week: "mon#" is not a value, a range or a step"#),
        ("* * L-3W * *", r#"day of month: "l-3w" is not supported: use L-n or LW"#),
        ("* * 1,L * *", r#"day of month: "l" must stand alone in its field, without a list, range or step"#),
        ("* * LW,1 * *", r#"day of month: "lw" must stand alone in its field, without a list, range or step"#),
        ("* * 15W,1 * *", r#"day of month: "15w" must stand alone in its field, without a list, range or step"#),
        ("* * ?/2 * *", r#"day of month: "?" must stand alone in its field, without a list, range or step"#),
        ("* * L-3/2 * *", r#"day of month: "l-3" must stand alone in its field, without a list, range or step"#),
        ("* * * * friL,mon", r#"day of week: "fril" must stand alone in its field, without a list, range or step"#),
        ("* * * * mon,fri#2", r#"day of week: "fri#2" must stand alone in its field, without a list, range or step"#),
        ("* * * * ?,1", r#"day of week: "?" must stand alone in its field, without a list, range or step"#),
        ("", "expected 5 fields"),
        ("   ", "expected 5 fields"),
        ("* * * *", "expected 5 fields"),
        ("0 * * * * *", "expected 5 fields"),
        ("* * * * * 2026", "expected 5 fields"),
        ("0 0 30 2 *", "never matches"),
    ];
    for (text, problem) in refusals {
        assert_eq!(refusal(text), format!("invalid cron expression {text:?}: {problem}"));
    }
}

#[test]
fn an_unknown_nickname_is_refused_with_the_two_fields_that_are_meant_instead() {
    for text in ["@reboot", "@every 5m", "@fortnightly", "@", "@daily 5", "@hourly * * * *"] {
        let refused = refusal(text);
        assert!(refused.contains("`after`") && refused.contains("`every`"), "{refused}");
    }
}

#[test]
fn an_expression_that_never_matches_is_refused_whatever_the_year() {
    let never = [
        "0 0 31 2,4,6,9,11 *",
        "0 0 31W 2 *",
        "0 0 30W feb *",
        "0 0 31W 4 *",
        "0 0 L-30 4 *",
        "0 0 L-29 2 *",
        "0 0 */30 2 mon#5",
        "0 0 */31 * mon#2",
    ];
    for text in never {
        assert!(refusal(text).ends_with(": never matches"), "{text}");
    }
}

#[test]
fn an_expression_that_matches_seldom_is_taken_and_found() {
    // 29 February on each day of the week; 2100 has none.
    for (text, after, expected) in [
        ("0 0 29 2 *", "2096-03-01 00:00", "2104-02-29 00:00"),
        ("0 0 29W 2 *", "2025-01-01 00:00", "2028-02-29 00:00"),
        ("0 0 L-28 2 *", "2025-01-01 00:00", "2028-02-01 00:00"),
        ("0 0 */28 2 mon#5", "2072-03-01 00:00", "2112-02-29 00:00"),
        ("0 0 */28 2 tue#5", "2000-03-01 00:00", "2028-02-29 00:00"),
        ("0 0 */28 2 thu#5", "2096-01-01 00:00", "2120-02-29 00:00"),
    ] {
        assert_eq!(super::in_utc(text, after, 1), [expected], "{text}");
    }
}
