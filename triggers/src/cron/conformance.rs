//! The cron cases, where they are at hand, and the rules about skipped and repeated times, which always are.

use std::{env, fs, path::PathBuf};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use rstest::rstest;
use serde_json::Value;

use super::Expression;

/// The cases of a family; none where there is no folder of them and nobody promised one.
fn cases(family: &str) -> Vec<Value> {
    let folder = env::var_os("FNBUS_CASES")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/cases")), PathBuf::from);
    let file = folder.join(format!("{family}.json"));
    let Ok(text) = fs::read(&file) else {
        assert!(env::var("CI").as_deref() != Ok("true"), "no cases at {}", file.display());
        eprintln!("skipped: no cases at {}; set FNBUS_CASES", file.display());
        return Vec::new();
    };
    let family: Value = serde_json::from_slice(&text).unwrap();
    family["cases"].as_array().unwrap().clone()
}

fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// The first `number` slots after an instant.
fn slots(expression: &Expression, zone: Tz, from: DateTime<Utc>, number: usize) -> Vec<DateTime<Utc>> {
    let mut slots = Vec::new();
    let mut after = from;
    while let Some(slot) = expression.next(after, zone, from).filter(|_| slots.len() < number) {
        slots.push(slot);
        after = slot;
    }
    slots
}

/// What is wrong with our answer to a case.
fn wrong(case: &Value) -> Option<String> {
    let expression = case["expr"].as_str().unwrap().parse::<Expression>();
    if case["expect"] == "error" {
        return expression.ok().map(|_| "it was accepted".to_owned());
    }
    let expression = match expression {
        Ok(expression) => expression,
        Err(error) => return Some(error.to_string()),
    };
    if let Some(seconds) = case["expect_seconds"].as_i64() {
        let every = expression.every().map(|every| every.num_seconds());
        return (every != Some(seconds)).then(|| format!("{every:?}"));
    }
    let zone: Tz = case["tz"].as_str().unwrap().parse().unwrap();
    let ours = slots(&expression, zone, time(case["from"].as_str().unwrap()), 5);
    if case["expect"] == "never" {
        return (!ours.is_empty()).then(|| format!("{ours:?}"));
    }
    let said =
        |answer: &Value| -> Vec<_> { answer.as_array().unwrap().iter().map(|t| time(t.as_str().unwrap())).collect() };
    let right = match case.get("accept") {
        Some(answers) => answers.as_array().unwrap().iter().any(|answer| said(answer) == ours),
        None => said(&case["expect"]) == ours,
    };
    (!right).then(|| format!("{ours:?}"))
}

#[rstest]
#[case("cron_unix")]
#[case("cron_eventbridge")]
fn published_cases(#[case] family: &str) {
    let wrong: Vec<_> =
        cases(family).iter().filter_map(|c| Some(format!("{} {}: {}", c["id"], c["expr"], wrong(c)?))).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[rstest]
#[case::fixed_in_the_gap("30 2 * * *", "2026-03-08T05:00:00Z", &["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"])]
#[case::many_in_the_gap_are_one(
    "*/15 2 * * *",
    "2026-03-08T05:00:00Z",
    &["2026-03-08T07:00:00Z", "2026-03-09T06:00:00Z", "2026-03-09T06:15:00Z"]
)]
#[case::every_hour_has_no_gap("30 * * * *", "2026-03-08T06:00:00Z", &["2026-03-08T06:30:00Z", "2026-03-08T07:30:00Z"])]
#[case::fixed_comes_once("30 1 * * *", "2026-11-01T04:00:00Z", &["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"])]
#[case::every_hour_goes_on(
    "30 * * * *",
    "2026-11-01T05:00:00Z",
    &["2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z", "2026-11-01T07:30:00Z"]
)]
#[case::in_the_middle_of_the_repeat("30 1 * * *", "2026-11-01T05:45:00Z", &["2026-11-02T06:30:00Z"])]
#[case::at_in_the_gap("at(2026-03-08T02:30:00)", "2026-03-08T00:00:00Z", &["2026-03-08T07:00:00Z"])]
#[case::at_comes_once("at(2026-11-01T01:30:00)", "2026-10-31T00:00:00Z", &["2026-11-01T05:30:00Z"])]
#[case::rate_counts_from_its_beginning("rate(2 hours)", "2026-03-08T05:00:07Z", &["2026-03-08T07:00:07Z"])]
fn a_skipped_time_comes_once_and_a_repeated_one_once(
    #[case] expression: &str,
    #[case] from: &str,
    #[case] expect: &[&str],
) {
    let expression: Expression = expression.parse().unwrap();
    let expect: Vec<_> = expect.iter().map(|t| time(t)).collect();
    let from = time(from);
    let ours: Vec<_> = slots(&expression, chrono_tz::America::New_York, from, expect.len());
    assert_eq!(ours, expect);
}

#[test]
fn slots_only_ever_go_forward_in_every_zone() {
    for zone in ["America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca", "America/Havana"] {
        let zone: Tz = zone.parse().unwrap();
        for expression in ["*/30 * * * *", "30 0,1,2,23 * * *", "*/20 0-3 * * *"] {
            let expression: Expression = expression.parse().unwrap();
            for from in ["2006-10-28T00:00:00Z", "2011-12-29T00:00:00Z", "2026-03-28T00:00:00Z", "2026-10-31T00:00:00Z"]
            {
                let slots = slots(&expression, zone, time(from), 150);
                assert!(slots.is_sorted_by(|a, b| a < b), "{zone} {expression} {from}");
            }
        }
    }
}

#[rstest]
#[case("0 0 30 2 *")]
#[case("0 0 31 4,6,9,11 *")]
#[case("cron(0 0 1 1 ? 2020)")]
#[case("at(2020-01-01T00:00:00)")]
fn what_never_comes_is_known(#[case] expression: &str) {
    let expression: Expression = expression.parse().unwrap();
    assert_eq!(expression.next(time("2026-01-01T00:00:00Z"), Tz::UTC, time("2026-01-01T00:00:00Z")), None);
}
