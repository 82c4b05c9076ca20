//! Many deliveries in one invocation: how they are gathered, and which of them ended how. Pure.
//!
//! Each delivery keeps an attempt and an outcome of its own. A function says which messages failed as it says it to AWS
//! Lambda: `{"batchItemFailures": [{"itemIdentifier": ID}]}`, with `"retry": false` beside the id of one that would fail
//! again.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    outcome::{Ending, Fault, Outcome, error_object},
    payload::Format,
};

/// The most deliveries in one invocation.
pub const MAX_SIZE: u32 = 1000;

/// How deliveries are gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// Most deliveries in one invocation.
    pub size: u32,
    /// How long the first one waits for others; zero: not at all, what is there goes.
    pub window: Duration,
}

/// What a function answers of the messages that failed.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, rename = "batchItemFailures")]
    failures: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    item_identifier: String,
    retry: Option<bool>,
}

/// Whether a single delivery of this format may say that it failed: an SQS message always may.
pub fn reports_items(format: Format) -> bool {
    format == Format::Sqs
}

/// The outcome of each of the messages `ids`, in their order, of the one invocation they shared.
///
/// What went wrong with the invocation went wrong with all of them. Of those that went well the first has the output,
/// and what follows from it.
pub fn split(outcome: Outcome, ids: &[&str]) -> Vec<Outcome> {
    if outcome.fault.is_some() {
        return vec![outcome; ids.len()];
    }
    let failed = match failed_items(&outcome.output, ids) {
        Ok(failed) => failed,
        Err(message) => {
            let fault = Fault::new("Runtime.BatchItemFailures", message);
            let outcome = Outcome { ending: Ending::BadOutput, ..failure(&outcome, fault) };
            return vec![outcome; ids.len()];
        }
    };
    let mut first = true;
    let each = |id: &&str| {
        if let Some(retry) = failed.get(*id) {
            let message = "the function reported this message of its batch as failed";
            return failure(&outcome, Fault { retry: *retry, ..Fault::new("Function.BatchItemFailure", message) });
        }
        if std::mem::take(&mut first) {
            return outcome.clone();
        }
        Outcome { output: Bytes::from_static(b"null"), log: String::new(), shared: true, ..outcome.clone() }
    };
    ids.iter().map(each).collect()
}

fn failure(outcome: &Outcome, fault: Fault) -> Outcome {
    Outcome { ending: Ending::Error, output: error_object(&fault), fault: Some(fault), ..outcome.clone() }
}

/// The messages an answer names as failed, and whether they are to be tried again. One that names what is none of them is no answer: nobody can tell which
/// were meant.
fn failed_items(output: &[u8], ids: &[&str]) -> Result<HashMap<String, bool>, String> {
    let Ok(Answer { failures: Some(failures) }) = serde_json::from_slice(output) else { return Ok(HashMap::new()) };
    let failures: Option<Vec<Failure>> = serde_json::from_str(failures.get()).map_err(|_| {
        "`batchItemFailures` is not a list of {\"itemIdentifier\": MESSAGE_ID}; the whole batch is tried again"
            .to_owned()
    })?;
    let failed = failures.unwrap_or_default().into_iter();
    failed
        .map(|Failure { item_identifier: id, retry }| {
            if ids.contains(&id.as_str()) {
                return Ok((id, retry.unwrap_or(true)));
            }
            Err(format!(
                "`batchItemFailures` names `{id}`, which is no message of this batch; the whole batch is tried again"
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn outcome(output: &str) -> Outcome {
        let failed = Outcome::failure(Ending::Error, "Error", "no");
        Outcome { ending: Ending::Ok, fault: None, output: Bytes::copy_from_slice(output.as_bytes()), ..failed }
    }

    fn endings(output: &str) -> Vec<&'static str> {
        split(outcome(output), &["a", "b", "c"]).iter().map(|outcome| outcome.ending.as_str()).collect()
    }

    #[rstest]
    #[case::nothing_is_said("null", ["ok", "ok", "ok"])]
    #[case::something_else_is_said(r#"{"done":3}"#, ["ok", "ok", "ok"])]
    #[case::no_json("thanks", ["ok", "ok", "ok"])]
    #[case::none_failed(r#"{"batchItemFailures":[]}"#, ["ok", "ok", "ok"])]
    #[case::null_failed(r#"{"batchItemFailures":null}"#, ["ok", "ok", "ok"])]
    #[case::one_failed(r#"{"batchItemFailures":[{"itemIdentifier":"b"}]}"#, ["ok", "error", "ok"])]
    #[case::one_failed_twice(
        r#"{"batchItemFailures":[{"itemIdentifier":"b"},{"itemIdentifier":"b"}]}"#, ["ok", "error", "ok"])]
    #[case::an_unknown_one(
        r#"{"batchItemFailures":[{"itemIdentifier":"x"}]}"#, ["bad_output", "bad_output", "bad_output"])]
    #[case::an_empty_one(
        r#"{"batchItemFailures":[{"itemIdentifier":""}]}"#, ["bad_output", "bad_output", "bad_output"])]
    #[case::a_null_one(
        r#"{"batchItemFailures":[{"itemIdentifier":null}]}"#, ["bad_output", "bad_output", "bad_output"])]
    #[case::another_key(r#"{"batchItemFailures":[{"id":"a"}]}"#, ["bad_output", "bad_output", "bad_output"])]
    #[case::no_list(r#"{"batchItemFailures":"b"}"#, ["bad_output", "bad_output", "bad_output"])]
    fn an_answer_says_which_messages_failed(#[case] output: &str, #[case] expect: [&str; 3]) {
        assert_eq!(endings(output), expect);
    }

    #[test]
    fn the_first_that_went_well_has_the_output_and_what_follows() {
        let outcomes = split(outcome(r#"{"batchItemFailures":[{"itemIdentifier":"a"}]}"#), &["a", "b", "c"]);
        let told: Vec<_> = outcomes.iter().map(|o| (o.shared, o.output.starts_with(b"{\"batch"))).collect();
        assert_eq!(told, [(false, false), (false, true), (true, false)]);
    }

    #[test]
    fn an_answer_says_which_message_would_fail_again() {
        let answer = r#"{"batchItemFailures":[{"itemIdentifier":"a","retry":false},{"itemIdentifier":"b"}]}"#;
        let outcomes = split(outcome(answer), &["a", "b", "c"]);
        let retry: Vec<_> = outcomes.iter().map(|outcome| outcome.fault.as_ref().map(|fault| fault.retry)).collect();
        assert_eq!(retry, [Some(false), Some(true), None]);
    }

    #[test]
    fn an_invocation_that_failed_failed_for_all() {
        let outcomes = split(Outcome::failure(Ending::Timeout, "Sandbox.Timedout", "too long"), &["a", "b"]);
        assert!(outcomes.iter().all(|outcome| outcome.ending == Ending::Timeout));
    }
}
