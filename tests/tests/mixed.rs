//! Functions of every runtime side by side: each gets what it needs, and nothing is left of them when they are idle.

use std::process::Command;

use fnbus_tests::{Node, Project, eventually};
use futures_util::future::join_all;
use serde_json::{Value, json};

const PYTHON: &str = "import os\ndef handler(event, context): return {'n': event['n'], 'by': 'python'}\n";
const NODE: &str = "exports.handler = async (event) => ({ n: event.n, by: 'node' })\n";
const COMMAND: &str =
    "#!/bin/sh\nread event\nn=${event#*:}\necho \"{\\\"n\\\":${n%\\}},\\\"by\\\":\\\"command\\\"}\"\n";
/// The Runtime API with Python's standard library.
const BOOTSTRAP: &str = r#"#!/usr/bin/env python3
import http.client, json, os
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
base = "/2018-06-01/runtime/invocation/"
while True:
    api.request("GET", base + "next")
    reply = api.getresponse()
    event, id = json.loads(reply.read()), reply.headers["Lambda-Runtime-Aws-Request-Id"]
    api.request("POST", base + id + "/response", json.dumps({"n": event["n"], "by": "provided"}))
    api.getresponse().read()
"#;
/// The same in C, a connection a request.
const C: &str = r#"
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char reply[65536];

static void call(const char *request) {
    char *api = strdup(getenv("AWS_LAMBDA_RUNTIME_API")), *port = strchr(api, ':');
    *port++ = 0;
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(atoi(port)) };
    inet_pton(AF_INET, api, &to.sin_addr);
    int s = socket(AF_INET, SOCK_STREAM, 0), n;
    size_t length = 0;
    if (connect(s, (struct sockaddr *)&to, sizeof to) || write(s, request, strlen(request)) < 0) exit(1);
    while ((n = read(s, reply + length, sizeof reply - 1 - length)) > 0) length += n;
    reply[length] = 0;
    close(s);
    free(api);
}

int main(void) {
    const char *base = "/2018-06-01/runtime/invocation", *rest = "HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    char request[4096], id[64], body[256];
    for (;;) {
        snprintf(request, sizeof request, "GET %s/next %s\r\n", base, rest);
        call(request);
        char *at = strstr(reply, "lambda-runtime-aws-request-id: "), *event = strstr(reply, "\r\n\r\n");
        if (!at || !event || sscanf(at, "lambda-runtime-aws-request-id: %63[^\r]", id) != 1) return 1;
        int n = atoi(strchr(event, ':') + 1);
        int length = snprintf(body, sizeof body, "{\"n\":%d,\"by\":\"c\"}", n);
        snprintf(request, sizeof request, "POST %s/%s/response %sContent-Length: %d\r\n\r\n%s", base, id, rest, length, body);
        call(request);
    }
}
"#;

/// All of them, each with a route; the names of those that this machine can run.
async fn shop(keys: &str) -> (Node, Vec<&'static str>) {
    let mut project = Project::new()
        .function_with("python", PYTHON, keys)
        .file("node/index.js", NODE)
        .program("provided/bootstrap", BOOTSTRAP)
        .program("command/run.sh", COMMAND)
        .file("c/main.c", C)
        .config(&format!("[functions.node]\nruntime = 'node'\n{keys}"))
        .config(&format!("[functions.provided]\nruntime = 'provided'\n{keys}"))
        .config(&format!("[functions.command]\nruntime = 'command'\nhandler = './run.sh'\n{keys}"));
    let mut names = vec!["python", "node", "provided", "command"];
    let path = |file: &str| project.path().join(file);
    let built = Command::new("cc").arg("-o").arg(path("c/bootstrap")).arg(path("c/main.c")).status();
    if built.is_ok_and(|status| status.success()) {
        names.push("c");
        project = project.config(&format!("[functions.c]\nruntime = 'provided'\n{keys}"));
    }
    for name in &names {
        project = project.config(&format!(
            "[triggers.{name}]\nhttp = 'POST /{name}'\npayload = 'body'\nto = '{name}'\n\
             [triggers.{name}_later]\nhttp = 'POST /later/{name}'\npayload = 'body'\nmode = 'async'\nto = '{name}'\n"
        ));
    }
    (project.start().await, names)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_runtime_serves_under_load_beside_the_others_and_goes_back_to_zero() {
    let (node, names) = shop("concurrency = 2\nkeep_alive = '300ms'").await;
    for name in &names {
        node.function_ready(name).await;
    }
    let calls = (0..30_u32).flat_map(|n| names.iter().map(move |name| (*name, n)));
    let calls = calls.map(|(name, n)| {
        let node = &node;
        async move {
            let body = format!("{{\"n\":{n}}}");
            if n % 2 == 0 {
                node.accepted(&format!("/later/{name}"), body).await;
                return;
            }
            // 429 is an answer of a pool that is full; a client comes back
            let answer = eventually("a call is served", || async {
                let answer = node.post(&format!("/{name}"), body.clone()).await;
                (answer.status != 429).then_some(answer)
            })
            .await;
            assert_eq!(answer.json::<Value>(), json!({ "n": n, "by": name }), "{name}");
        }
    });
    join_all(calls).await;
    for name in &names {
        let function = eventually(&format!("{name} has served all and no instance of it is left"), || async {
            let function = node.function(name).await;
            let idle = ["warm", "busy", "starting"].iter().all(|count| function[count] == 0);
            (idle && function["invocations"] == 30).then_some(function)
        })
        .await;
        assert_eq!(function["errors"], 0, "{function}");
    }
    // what waits for the next Node.js function belongs to no function, and what Python is forked from and what is forked
    // ahead is no instance
    eventually("no process of a function is left", || async {
        let left = node.processes().into_iter().filter(|process| {
            !process.command.contains("server.conf") && !process.command.contains("fnbus_runtime.cjs")
        });
        let left: Vec<_> = left.collect();
        let zygotes = left.iter().filter(|process| process.command.contains(" zygote ")).count();
        (left.len() == 2 && zygotes == 2).then_some(())
    })
    .await;
    for name in &names {
        assert_eq!(node.post(&format!("/{name}"), "{\"n\":7}").await.json::<Value>()["n"], 7, "{name} comes back");
    }
    assert!(node.stop().await.success());
    node.nothing_runs().await;
}
