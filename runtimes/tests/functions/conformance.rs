//! The Runtime API against scripts that nobody here wrote. The test plays the process of a real instance.

use std::{collections::VecDeque, env, fs, path::PathBuf, time::Duration};

use bus::Outcome;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::{client::*, harness::*};

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

#[tokio::test]
async fn the_runtime_api_answers_as_the_cases_say() {
    for case in cases("runtime_api") {
        Script::of(&case).await.play().await;
    }
}

struct Script<'a> {
    name: &'a str,
    steps: &'a [Value],
    played: Played,
    invocations: VecDeque<JoinHandle<Outcome>>,
    id: String,
}

impl<'a> Script<'a> {
    async fn of(case: &'a Value) -> Self {
        let steps = case["steps"].as_array().unwrap();
        let times_out = steps.iter().any(|step| step["do"] == "wait_past_deadline");
        let played = Played::new(if times_out { Duration::from_secs(1) } else { LONG }).await;
        Self { name: case["id"].as_str().unwrap(), steps, played, invocations: VecDeque::new(), id: String::new() }
    }

    async fn play(mut self) {
        for step in self.steps {
            let expect = &step["expect"];
            match step["do"].as_str().unwrap() {
                "invoke" => {
                    let (node, payload) = (self.played.node.clone(), step["payload"].as_str().unwrap().to_owned());
                    let invocation = tokio::spawn(async move { node.invoke(&payload).await });
                    self.invocations.push_back(invocation);
                }
                "next" => {
                    let answer = self.send(step, "GET", NEXT).await.unwrap();
                    answer.header("lambda-runtime-aws-request-id").unwrap_or_default().clone_into(&mut self.id);
                    self.answered(expect, Some(&answer));
                }
                method @ ("GET" | "POST") => {
                    let path = step["path"].as_str().unwrap().replace("$id", &self.id);
                    let answer = self.send(step, method, &path).await;
                    self.answered(expect, answer.as_ref());
                }
                "drop_process" => self.played.kill(),
                "wait_past_deadline" => drop(self.played.node.until(|f| f.busy == 0 && f.invocations > 0).await),
                "await_result" => {
                    let outcome = self.invocations.pop_front().unwrap().await.unwrap();
                    self.ended(expect, &outcome);
                }
                "await_results" => {
                    let mut results = Vec::new();
                    for invocation in self.invocations.drain(..) {
                        results.push(serde_json::from_slice(&invocation.await.unwrap().output).unwrap());
                    }
                    for expected in expect["set"].as_array().unwrap() {
                        assert!(results.contains(expected), "{}: {results:?}", self.name);
                    }
                }
                other => panic!("{}: `{other}` is no step that is known", self.name),
            }
        }
    }

    async fn send(&self, step: &Value, method: &str, path: &str) -> Option<Answer> {
        let headers = step["headers"].as_object().into_iter().flatten();
        let headers: Vec<String> =
            headers.map(|(name, value)| format!("{name}: {}\r\n", value.as_str().unwrap())).collect();
        let body = match &step["body"] {
            Value::Object(made) => {
                let text = made["repeat"].as_str().unwrap().repeat(made["bytes"].as_u64().unwrap() as usize);
                if made["as_json_string"] == true { format!("\"{text}\"") } else { text }
            }
            body => body.as_str().unwrap_or_default().to_owned(),
        };
        let http = step["http"].as_str().unwrap_or("1.1");
        self.played.send_by(http, method, path, &headers.concat(), body.as_bytes()).await
    }

    fn answered(&self, expect: &Value, answer: Option<&Answer>) {
        let name = self.name;
        let status = answer.map_or(Value::from("refused"), |answer| answer.status.into());
        if let Some(expected) = expect.get("status") {
            assert_eq!(&status, expected, "{name}: {answer:?}");
        }
        if let Some(any) = expect.get("status_any") {
            assert!(any.as_array().unwrap().contains(&status), "{name}: {answer:?}");
        }
        let Some(answer) = answer else { return };
        for header in expect["headers_present"].as_array().into_iter().flatten() {
            assert!(answer.header(header.as_str().unwrap()).is_some(), "{name}: no {header} in {answer:?}");
        }
        for (header, value) in expect["headers"].as_object().into_iter().flatten() {
            assert_eq!(answer.header(header), value.as_str(), "{name}: {header}");
        }
        for (key, value) in expect["json_has"].as_object().into_iter().flatten() {
            assert_eq!(&answer.json()[key], value, "{name}: {key}");
        }
    }

    fn ended(&self, expect: &Value, outcome: &Outcome) {
        let name = self.name;
        let output = || serde_json::from_slice::<Value>(&outcome.output).unwrap();
        assert_eq!(outcome.fault.is_some(), expect.get("function_error").is_some(), "{name}: {outcome:?}");
        if let Some(payload) = expect.get("payload") {
            assert_eq!(&output(), payload, "{name}");
        }
        if let Some(length) = expect.get("payload_len") {
            assert_eq!(Value::from(outcome.output.len()), *length, "{name}");
        }
        if let Some(payload) = expect.get("payload_text") {
            assert_eq!(text(outcome), payload.as_str().unwrap(), "{name}");
        }
        if let Some(part) = expect.get("payload_matches") {
            assert!(text(outcome).contains(part.as_str().unwrap()), "{name}: {}", text(outcome));
        }
        for (key, value) in expect["payload_has"].as_object().into_iter().flatten() {
            assert_eq!(&output()[key], value, "{name}: {key}");
        }
    }
}
