//! Every way an invocation can end, each with its own name.

use std::{fs, time::Duration};

use crate::harness::*;
use bus::{
    outcome::{Ending, Start},
    payload::Form,
};
use rstest::rstest;
use runtimes::EnvValue;
use serde_json::{Value, json};

#[tokio::test]
async fn the_result_of_a_handler_is_the_output_cold_and_then_warm() {
    let node = Node::new()
        .function("import os\ndef handler(event, context):\n    return {'got': event, 'pid': os.getpid()}\n");
    let first = node.invoke(r#"{"a": 1}"#).await;
    assert_eq!(first.ending, Ending::Ok, "{first:?}");
    assert_eq!(first.start, Start::Cold);
    assert!(first.times.start > Duration::ZERO && first.times.init > Duration::ZERO, "{:?}", first.times);
    assert!(text(&first).starts_with(r#"{"got":{"a":1},"pid":"#), "{}", text(&first));

    let second = node.invoke(r#"{"a": 1}"#).await;
    assert_eq!(second.output, first.output, "another process answered");
    assert_eq!((second.start, second.times.start), (Start::Warm, Duration::ZERO));
    assert_eq!(Some(second.version.to_string()), node.status().version);
}

#[rstest]
#[case::decimals_keep_their_digits("__import__('decimal').Decimal('1.10')", "1.10")]
#[case::nested_decimals("{'a': [__import__('decimal').Decimal('1E+5')]}", r#"{"a":[1E+5]}"#)]
#[case::unicode_is_not_escaped("'grüß 한국 😀'", "\"grüß 한국 😀\"")]
#[case::half_a_surrogate("'\\ud800'", r#""\ud800""#)]
#[case::bytes_pass_as_they_are("b'\\x00raw'", "\0raw")]
#[case::nothing("None", "null")]
#[case::a_large_number("2 ** 70", "1180591620717411303424")]
#[tokio::test]
async fn a_result_is_written_as_compact_json(#[case] result: &str, #[case] expect: &str) {
    let node = Node::new().function(&format!("def handler(event, context):\n    return {result}\n"));
    assert_eq!(text(&node.invoke("{}").await), expect);
}

#[rstest]
#[case::json(Form::Json, b"{\"a\": 1}", "{'a': 1}")]
#[case::text(Form::Text, b"1,2", "'1,2'")]
#[case::bytes(Form::Bytes, b"1", "b'1'")]
#[case::unknown_json(Form::Unknown, b"[1]", "[1]")]
#[case::unknown_text(Form::Unknown, b"a,b", "'a,b'")]
#[case::unknown_bytes(Form::Unknown, b"\xff\xfe", "b'\\xff\\xfe'")]
#[case::empty(Form::Unknown, b"", "''")]
#[tokio::test]
async fn a_payload_arrives_in_its_form(#[case] form: Form, #[case] payload: &[u8], #[case] expect: &str) {
    let node = Node::new().function("def handler(event, context):\n    return repr(event).encode()\n");
    assert_eq!(text(&node.invoke_as(form, payload).await), expect);
}

#[tokio::test]
async fn a_payload_and_a_result_larger_than_a_pipe_arrive_whole() {
    let node = Node::new().function("def handler(event, context):\n    return event[::-1]\n");
    let large = format!("\"a{}\"", "x".repeat(3_000_000));
    let outcome = node.invoke(&large).await;
    assert_eq!(outcome.output.len(), large.len());
    assert!(text(&outcome).ends_with("xa\""));
}

#[tokio::test]
async fn json_that_is_none_is_told_from_an_error_of_the_handler() {
    let node = Node::new().function("def handler(event, context):\n    return 1\n");
    let outcome = node.invoke("{oops").await;
    assert_eq!((outcome.ending, kind(&outcome)), (Ending::Error, "Runtime.UnmarshalError"));
    assert_eq!(node.invoke("{}").await.start, Start::Warm, "the instance was thrown away");
}

#[tokio::test]
async fn the_context_is_that_of_lambda() {
    let node = Node::new().function(
        "def handler(event, c):\n    return [c.function_name, c.memory_limit_in_mb, c.aws_request_id, c.event_id,\n        c.invoked_function_arn, c.log_group_name, c.client_context, c.identity.cognito_identity_id,\n        c.function_version, 29000 < c.get_remaining_time_in_millis() <= 30000]\n",
    );
    let invocation = invocation(Form::Json, b"{}");
    let id = invocation.request_id.to_string();
    let outcome = node.lease().await.unwrap().invoke(invocation).await.unwrap();
    let arn = "arn:aws:lambda:us-east-1:000000000000:function:f";
    let expect = json!(["f", "256", id, "event-1", arn, "/aws/lambda/f", null, null, "1", true]);
    assert_eq!(serde_json::from_slice::<Value>(&outcome.output).unwrap(), expect);
}

#[tokio::test]
async fn async_handlers_run_in_one_loop() {
    let node = Node::new().function(
        "import asyncio\nasync def handler(event, context):\n    await asyncio.sleep(0)\n    return id(asyncio.get_running_loop())\n",
    );
    assert_eq!(node.invoke("1").await.output, node.invoke("1").await.output);
}

#[tokio::test]
async fn an_exception_is_an_error_with_its_stack_and_the_instance_lives() {
    let node = Node::new().function("def handler(event, context):\n    raise ValueError('no 한')\n");
    let outcome = node.invoke("{}").await;
    assert_eq!((outcome.ending, kind(&outcome), message(&outcome)), (Ending::Error, "ValueError", "no 한"));
    let error: Value = serde_json::from_slice(&outcome.output).unwrap();
    assert_eq!(error["stackTrace"].as_array().unwrap().len(), 1, "{error}");
    assert!(error["stackTrace"][0].as_str().unwrap().contains("line 2, in handler"), "{error}");
    assert!(outcome.log.contains("[ERROR] ValueError: no 한\nTraceback"), "{}", outcome.log);
    assert_eq!(node.invoke("{}").await.start, Start::Warm);
}

#[rstest]
#[case::dies_of_term("import time\ndef handler(event, context):\n    print('begun')\n    time.sleep(60)\n")]
#[case::ignores_term(
    "import signal, time\ndef handler(event, context):\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    print('begun')\n    while True: time.sleep(60)\n"
)]
#[tokio::test]
async fn a_handler_over_its_timeout_is_stopped(#[case] code: &str) {
    let node = Node::new().function_with(code, |f| f.timeout = Duration::from_millis(300));
    let outcome = node.invoke("{}").await;
    assert_eq!(outcome.ending, Ending::Timeout);
    assert_eq!(message(&outcome), "Task timed out after 0.30 seconds; raise its `timeout`, or make it faster");
    assert_eq!(outcome.log, "begun\n");
    node.until(|s| s.busy == 0).await;
}

#[rstest]
#[case::exit("import os\ndef handler(event, context):\n    os._exit(3)\n", "exit status 3")]
#[case::sys_exit("import sys\ndef handler(event, context):\n    sys.exit(4)\n", "exit status 4")]
#[case::killed("import os\ndef handler(event, context):\n    os.kill(os.getpid(), 9)\n", "signal 9")]
#[tokio::test]
async fn a_process_that_ends_in_the_middle_is_a_crash(#[case] code: &str, #[case] how: &str) {
    let node = Node::new().function(code);
    let outcome = node.invoke("{}").await;
    assert_eq!((outcome.ending, kind(&outcome)), (Ending::Crash, "Runtime.ExitError"));
    assert!(
        message(&outcome).ends_with(&format!("{how}; see in its log what it printed last")),
        "{}",
        message(&outcome)
    );
    assert_eq!(node.invoke("{}").await.ending, Ending::Crash, "the next one has an instance too");
}

#[tokio::test]
async fn too_much_memory_is_named_so() {
    let node = Node::new().function("def handler(event, context):\n    return len(bytearray(event << 20))\n");
    assert_eq!(node.invoke("100").await.ending, Ending::Ok);
    let outcome = node.invoke("400").await;
    assert_eq!(outcome.ending, Ending::Oom, "{outcome:?}");
    assert_eq!(node.invoke("1").await.ending, Ending::Ok, "another one serves");
}

#[tokio::test]
async fn where_the_machine_is_out_of_memory_functions_go_before_their_node() {
    let node =
        Node::new().function("def handler(event, context):\n    return int(open('/proc/self/oom_score_adj').read())\n");
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    let score: i32 = text(&node.invoke("1").await).parse().unwrap();
    assert!(score == 500 && own < 500, "{score}, and {own} here");
}

#[tokio::test]
async fn a_kill_near_the_memory_limit_is_taken_for_out_of_memory() {
    let code =
        "import os\ndef handler(event, context):\n    x = bytearray(b'x') * (62 << 20)\n    os.kill(os.getpid(), 9)\n";
    let node = Node::new().function_with(code, |f| f.memory = 64);
    assert_eq!(node.invoke("1").await.ending, Ending::Oom);
}

#[tokio::test]
async fn an_output_over_the_limit_is_not_taken() {
    let node =
        Node::with(|s| s.payload_limit = 1000).function("def handler(event, context):\n    return 'x' * event\n");
    assert_eq!(node.invoke("998").await.ending, Ending::Ok);
    let outcome = node.invoke("999").await;
    assert_eq!((outcome.ending, kind(&outcome)), (Ending::TooLarge, "Function.ResponseSizeTooLarge"));
    // past the shim: the worker looks at the length too
    let node = Node::new()
        .function("import os\ndef handler(event, context):\n    os.write(4, b'\\xff\\xff\\xff\\x7fO' + bytes(1000))\n");
    assert_eq!(node.invoke("1").await.ending, Ending::TooLarge);
}

#[tokio::test]
async fn a_second_answer_is_taken_for_none_to_the_next_request() {
    // both at once, so that the second is there when the first is read
    let code = "import os, struct\ndef handler(event, context):\n    if event == 1:\n        \
                os.write(4, 2 * (struct.pack('<Ic', 5, b'O') + b'wrong'))\n    return os.getpid()\n";
    let node = Node::new().function(code);
    let right = node.invoke("0").await;
    assert_eq!(text(&node.invoke("1").await), "wrong", "the first answer is the answer");
    let next = node.invoke("0").await;
    assert_eq!((next.ending, next.start), (Ending::Ok, Start::Cold), "{next:?}");
    assert_ne!(next.output, right.output, "the same process was asked again");
    assert_ne!(text(&next), "wrong");
}

#[rstest]
#[case::object("return object()")]
#[case::circular("x = []; x.append(x); return x")]
#[case::set("return {1}")]
#[tokio::test]
async fn what_is_no_json_is_a_bad_output(#[case] body: &str) {
    let node = Node::new().function(&format!("def handler(event, context):\n    {body}\n"));
    let outcome = node.invoke("{}").await;
    assert_eq!((outcome.ending, kind(&outcome)), (Ending::BadOutput, "Runtime.MarshalError"));
}

#[rstest]
#[case::syntax("def handler(:\n", "app.handler", "Runtime.UserCodeSyntaxError", "app.py:1")]
#[case::import("import no_such_thing\n", "app.handler", "Runtime.ImportModuleError", "pip install --target")]
#[case::module("", "other.handler", "Runtime.ImportModuleError", "there must be a other.py")]
#[case::handler("", "app.handler", "Runtime.HandlerNotFound", "define it there")]
#[case::malformed("", "handler", "Runtime.MalformedHandlerName", "app.handler")]
#[case::raises("1 / 0\n", "app.handler", "ZeroDivisionError", "division")]
#[case::exits("print('bye')\nraise SystemExit(7)\n", "app.handler", "Runtime.ExitError", "exit status 7")]
#[tokio::test]
async fn code_that_cannot_be_loaded_says_why(
    #[case] code: &str,
    #[case] handler: &str,
    #[case] kind_: &str,
    #[case] says: &str,
) {
    let node = Node::new().function_with(code, |f| f.handler = handler.into());
    let outcome = node.invoke("{}").await;
    assert_eq!((outcome.ending, kind(&outcome)), (Ending::InitError, kind_), "{outcome:?}");
    assert!(message(&outcome).contains(says), "{}", message(&outcome));
    assert!(node.until(|s| s.version.is_none()).await.last_error.unwrap().contains(says));
}

#[tokio::test]
async fn a_handler_may_lie_in_a_package_and_use_its_neighbours() {
    let node = Node::new();
    node.write("pkg/sub/mod.py", "import near\ndef run(event, context):\n    return near.X\n");
    node.write("near.py", "X = 5\n");
    node.write(".venv/lib/python3.11/site-packages/dep.py", "");
    let node = node.function_with("", |f| f.handler = "pkg/sub/mod.run".into());
    assert_eq!(text(&node.invoke("{}").await), "5");
}

#[tokio::test]
async fn a_missing_python_says_what_to_install() {
    let node = Node::with(|s| s.python = Some("/no/such/python".into())).function("");
    let outcome = node.invoke("{}").await;
    assert_eq!(outcome.ending, Ending::InitError);
    assert!(message(&outcome).contains("set FNBUS_PYTHON"), "{}", message(&outcome));
}

#[tokio::test]
async fn the_environment_is_ours_alone_and_secrets_are_read_at_start() {
    let code = "import os\ndef handler(event, context):\n    return {**os.environ, 'fds': len(os.listdir('/proc/self/fd')), 'cwd': os.getcwd()}\n";
    let node = Node::new();
    fs::write(node.note(), "from a file\n").unwrap();
    let note = node.note();
    let node = node.function_with(code, |f| {
        f.env.insert("PLAIN".into(), plain("1"));
        f.env.insert("SECRET".into(), EnvValue::SecretEnv("CARGO_PKG_NAME".into()));
        f.env.insert("FILE".into(), EnvValue::SecretFile(note));
    });
    let env: Value = serde_json::from_slice(&node.invoke("{}").await.output).unwrap();
    let env = env.as_object().unwrap();
    for (name, value) in [
        ("PLAIN", "1"),
        ("SECRET", "fnbus-runtimes"),
        ("FILE", "from a file"),
        ("_HANDLER", "app.handler"),
        ("TZ", ":UTC"),
    ] {
        assert_eq!(env[name], value);
    }
    let ours = [
        "PATH",
        "LANG",
        "HOME",
        "TMPDIR",
        "LC_CTYPE",
        "LAMBDA_TASK_ROOT",
        "PLAIN",
        "SECRET",
        "FILE",
        "_HANDLER",
        "TZ",
        "FNBUS_INSTANCE",
        "fds",
        "cwd",
    ];
    let leaked: Vec<_> = env.keys().filter(|k| !k.starts_with("AWS_") && !ours.contains(&k.as_str())).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
    assert_eq!(env["cwd"], env["LAMBDA_TASK_ROOT"]);
    assert_eq!(env["FNBUS_INSTANCE"], env["HOME"]);
    assert_eq!(env["fds"], 6, "descriptors 0 to 4, and the one that lists them");
}

#[tokio::test]
async fn a_missing_secret_is_an_init_error() {
    let node = Node::new().function_with("def handler(e, c): pass", |f| {
        f.env.insert("TOKEN".into(), EnvValue::SecretEnv("NO_SUCH_VARIABLE".into()));
    });
    let outcome = node.invoke("{}").await;
    assert_eq!(outcome.ending, Ending::InitError);
    assert!(message(&outcome).contains("NO_SUCH_VARIABLE, which is not set"), "{}", message(&outcome));
}

#[tokio::test]
async fn everything_printed_is_kept_with_its_own_attempt_and_told_to_who_listens() {
    let code = "import os, subprocess, sys\nprint('loading')\ndef handler(event, context):\n    print('out', event)\n    sys.stdout.write('open end')\n    sys.stdout.flush()\n    print('err', file=sys.stderr)\n    os.write(1, b'raw\\n')\n    subprocess.run(['echo', 'child'])\n";
    let node = Node::new();
    let mut logs = node.functions.logs();
    let node = node.function(code);
    let (first, second) = (node.invoke("1").await, node.invoke("2").await);
    // each stream is in order; which of two comes first is as they were read
    assert!(first.log.contains("loading\n") && first.log.contains("out 1\n"), "{:?}", first.log);
    assert!(second.log.contains("out 2\n") && !second.log.contains("out 1"), "{:?}", second.log);
    for line in ["err\n", "raw\n", "child\n"] {
        assert!(second.log.contains(line), "{line} is not in {:?}", second.log);
    }
    let mut heard = Vec::new();
    while let Ok(line) = logs.try_recv() {
        heard.push(line.text);
    }
    for start in ["loading", "START RequestId: ", "out 1", "END RequestId: ", "REPORT RequestId: "] {
        assert!(heard.iter().any(|l| l.starts_with(start)), "{start} is not in {heard:?}");
    }
}

#[tokio::test]
async fn a_flood_of_output_ends_and_keeps_its_tail() {
    let code = "def handler(event, context):\n    for n in range(20):\n        print('x' * 5_000_000)\n    print('last')\n    return 1\n";
    let node = Node::new().function(code);
    let outcome = node.invoke("{}").await;
    assert_eq!(outcome.ending, Ending::Ok);
    assert!(outcome.log.len() < runtimes::TAIL + 100);
    assert!(outcome.log.ends_with("last\n") && outcome.log.contains("are cut]"));
}

#[tokio::test]
async fn a_child_that_holds_stdout_open_holds_up_nobody_and_dies_with_its_group() {
    let code = "import os, subprocess\ndef handler(event, context):\n    child = subprocess.Popen(['sleep', '1000'], close_fds=False)\n    open(event, 'w').write(str(child.pid))\n    os._exit(1)\n";
    let node = Node::new().function(code);
    let outcome = node.invoke(&serde_json::to_string(&node.note()).unwrap()).await;
    assert_eq!(outcome.ending, Ending::Crash);
    let pid = fs::read_to_string(node.note()).unwrap();
    until(|| (!is_running(&pid)).then_some(())).await;
}
