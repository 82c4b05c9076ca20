//! Functions for Node.js: every kind of handler, every way to end, and the processes that wait for a function.

use std::time::Duration;

use bus::{
    outcome::{Ending, Start},
    payload::Form,
};
use rstest::rstest;
use runtimes::{FunctionConfig, RuntimeKind, Settings};
use serde_json::{Value, json};

use crate::harness::*;

/// A node without spares, so that a start is a cold one.
fn function_with(file: &str, code: &str, change: impl FnOnce(&mut FunctionConfig)) -> Node {
    let spares = |settings: &mut Settings| settings.spares = 0;
    Node::with(spares).of_with(RuntimeKind::Node, file, code, change)
}

fn function(code: &str) -> Node {
    function_with("index.js", code, |_| {})
}

#[rstest]
#[case::async_function("exports.handler = async (event) => ({ got: event })", r#"{"got":{"a":1}}"#)]
#[case::a_promise("exports.handler = (event) => Promise.resolve(event.a)", "1")]
#[case::a_plain_value("exports.handler = (event) => [event.a]", "[1]")]
#[case::a_callback("exports.handler = (event, context, callback) => callback(null, event)", r#"{"a":1}"#)]
#[case::a_late_callback(
    "exports.handler = (event, context, cb) => { setTimeout(() => cb(null, 'late'), 20) }",
    "\"late\""
)]
#[case::nothing("exports.handler = async () => {}", "null")]
#[case::neither("exports.handler = () => {}", "null")]
#[case::timers_and_promises_come_before_the_answer(
    "const wait = (ms) => new Promise((r) => setTimeout(r, ms));\nexports.handler = async () => { let s = ''; await wait(5); s += 1; await null; s += 2; await new Promise(setImmediate); s += 3; return s }",
    "\"123\""
)]
#[case::a_callback_waits_for_what_is_under_way(
    "exports.handler = (e, c, cb) => { const done = []; setTimeout(() => done.push(1), 20); cb(null, done) }",
    "[1]"
)]
#[case::a_callback_need_not_wait(
    "exports.handler = (e, c, cb) => { c.callbackWaitsForEmptyEventLoop = false; const done = []; setTimeout(() => done.push(1), 20); cb(null, done) }",
    "[]"
)]
#[case::context_succeed("exports.handler = (e, c) => { c.succeed('old') }", "\"old\"")]
#[case::unicode("exports.handler = async () => 'grüß 한국 😀'", "\"grüß 한국 😀\"")]
#[case::a_buffer_passes_as_it_is("exports.handler = async () => Buffer.from('\\0raw')", "\0raw")]
#[tokio::test]
async fn a_handler_may_be_of_any_kind(#[case] code: &str, #[case] expect: &str) {
    let node = function(code);
    for start in [Start::Cold, Start::Warm] {
        let outcome = node.invoke(r#"{"a": 1}"#).await;
        assert_eq!((outcome.ending, text(&outcome), outcome.start), (Ending::Ok, expect, start), "{outcome:?}");
    }
}

#[rstest]
#[case::commonjs("index.cjs", "exports.handler = async () => 1", &[])]
#[case::a_module("index.mjs", "import { X } from './near.mjs';\nexport const handler = async () => X;\n", &[("near.mjs", "export const X = 1;\n")])]
#[case::type_module("index.js", "export async function handler() { return 1; }\n", &[("package.json", r#"{"type":"module"}"#)])]
#[case::a_default_export("index.mjs", "export default { handler: async () => 1 };\n", &[])]
#[case::awaits_at_the_top("index.mjs", "const one = await Promise.resolve(1);\nexport const handler = async () => one;\n", &[])]
#[case::a_package("index.js", "exports.handler = async () => require('dep')", &[("node_modules/dep/index.js", "module.exports = 1")])]
#[tokio::test]
async fn a_handler_may_lie_in_a_script_or_in_a_module(
    #[case] file: &str,
    #[case] code: &str,
    #[case] more: &[(&str, &str)],
) {
    let node = Node::with(|s| s.spares = 0);
    for (file, text) in more {
        node.write(file, text);
    }
    let node = node.of(RuntimeKind::Node, file, code);
    let outcome = node.invoke("{}").await;
    assert_eq!(text(&outcome), "1", "{outcome:?}");
}

#[tokio::test]
async fn a_handler_may_be_nested_in_a_folder_and_in_an_object() {
    let node = function_with("src/shop.js", "exports.price = { get: async () => 'ok' };", |f| {
        f.handler = "src/shop.price.get".into();
    });
    assert_eq!(text(&node.invoke("{}").await), "\"ok\"");
}

#[rstest]
#[case::json(Form::Json, b"{\"a\": 1}", "object {\"a\":1}")]
#[case::text(Form::Text, b"1,2", "string \"1,2\"")]
#[case::bytes(Form::Bytes, b"1", "buffer 31")]
#[case::unknown_json(Form::Unknown, b"[1]", "object [1]")]
#[case::unknown_text(Form::Unknown, b"a,b", "string \"a,b\"")]
#[case::unknown_bytes(Form::Unknown, b"\xff\xfe", "buffer fffe")]
#[case::empty(Form::Unknown, b"", "string \"\"")]
#[tokio::test]
async fn a_payload_arrives_in_its_form(#[case] form: Form, #[case] payload: &[u8], #[case] expect: &str) {
    let node = function(
        "exports.handler = async (e) => Buffer.from(Buffer.isBuffer(e) ? `buffer ${e.toString('hex')}` : `${typeof e} ${JSON.stringify(e)}`)",
    );
    assert_eq!(text(&node.invoke_as(form, payload).await), expect);
}

#[tokio::test]
async fn a_payload_and_a_result_larger_than_a_pipe_arrive_whole() {
    let node = function("exports.handler = async (event) => event + 'z'");
    let outcome = node.invoke(&format!("\"a{}\"", "x".repeat(3_000_000))).await;
    assert_eq!(outcome.output.len(), 3_000_004, "{:?}", outcome.fault);
    assert!(text(&outcome).ends_with("xz\""));
}

#[tokio::test]
async fn the_context_is_that_of_lambda() {
    let node = function(
        "exports.handler = async (e, c) => [c.functionName, c.memoryLimitInMB, c.awsRequestId, c.eventId, c.invokedFunctionArn, c.logGroupName, c.functionVersion, c.callbackWaitsForEmptyEventLoop, c.clientContext === undefined, c.getRemainingTimeInMillis() > 29000 && c.getRemainingTimeInMillis() <= 30000, process.env._X_AMZN_TRACE_ID, JSON.stringify(c).includes('awsRequestId')]",
    );
    let mut invocation = invocation(Form::Json, b"{}");
    invocation.trace = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    let id = invocation.request_id.to_string();
    let outcome = node.lease().await.unwrap().invoke(invocation).await.unwrap();
    let arn = "arn:aws:lambda:us-east-1:000000000000:function:f";
    let trace = "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1";
    let expect = json!(["f", "256", id, "event-1", arn, "/aws/lambda/f", "1", true, true, true, trace, true]);
    assert_eq!(serde_json::from_slice::<Value>(&outcome.output).unwrap(), expect);
}

#[rstest]
#[case::thrown("exports.handler = async () => { throw new TypeError('no 한') }", "TypeError", "no 한")]
#[case::thrown_at_once("exports.handler = () => { throw new TypeError('no') }", "TypeError", "no")]
#[case::by_callback("exports.handler = (e, c, cb) => cb(new RangeError('far'))", "RangeError", "far")]
#[case::a_string_by_callback("exports.handler = (e, c, cb) => cb('sorry')", "string", "sorry")]
#[case::an_object("exports.handler = async () => { throw { code: 7 } }", "object", "{\"code\":7}")]
#[case::never_settled("exports.handler = async () => new Promise(() => {})", "Runtime.NodeJsExit", "never settled")]
#[tokio::test]
async fn an_error_is_told_as_aws_tells_it_and_the_instance_lives(
    #[case] code: &str,
    #[case] kind_: &str,
    #[case] says: &str,
) {
    let node = function(code);
    let outcome = node.invoke("{}").await;
    assert_eq!((outcome.ending, kind(&outcome)), (Ending::Error, kind_), "{outcome:?}");
    assert!(message(&outcome).contains(says), "{}", message(&outcome));
    let error: Value = serde_json::from_slice(&outcome.output).unwrap();
    assert!(error["trace"].is_array() && error["errorMessage"].is_string(), "{error}");
    assert!(outcome.log.starts_with("[ERROR] "), "{}", outcome.log);
    assert_eq!(node.invoke("{}").await.start, Start::Warm);
}

#[tokio::test]
async fn the_trace_of_an_error_leads_to_its_line() {
    let node = function("exports.handler = async () => {\n  throw new Error('here')\n}\n");
    let error: Value = serde_json::from_slice(&node.invoke("{}").await.output).unwrap();
    assert_eq!(error["trace"][0], "Error: here");
    assert!(error["trace"][1].as_str().unwrap().contains("index.js:2:9"), "{error}");
}

#[rstest]
#[case::a_rejection(
    "exports.handler = async () => { Promise.reject(new Error('lost')); return 1 }",
    "Runtime.UnhandledPromiseRejection",
    "Error: lost"
)]
#[case::an_exception_in_a_timer(
    "exports.handler = () => new Promise(() => setTimeout(() => { throw new RangeError('late') }, 5))",
    "RangeError",
    "late"
)]
#[tokio::test]
async fn what_nobody_handles_ends_the_process_with_its_reason(
    #[case] code: &str,
    #[case] kind_: &str,
    #[case] says: &str,
) {
    let node = function(code);
    for _ in 0..2 {
        let outcome = node.invoke("{}").await;
        assert_eq!((outcome.ending, kind(&outcome), message(&outcome)), (Ending::Crash, kind_, says), "{outcome:?}");
    }
}

#[rstest]
#[case::exit("exports.handler = async () => process.exit(3)", "exit status 3")]
#[case::killed("exports.handler = async () => process.kill(process.pid, 9)", "signal 9")]
#[tokio::test]
async fn a_process_that_ends_in_the_middle_is_a_crash(#[case] code: &str, #[case] how: &str) {
    let node = function_with("index.js", code, |f| f.memory = 2048);
    let outcome = node.invoke("{}").await;
    assert_eq!((outcome.ending, kind(&outcome)), (Ending::Crash, "Runtime.ExitError"));
    assert!(
        message(&outcome).ends_with(&format!("{how}; see in its log what it printed last")),
        "{}",
        message(&outcome)
    );
}

#[rstest]
#[case::sleeps(
    "exports.handler = async () => { console.log('begun'); await new Promise((r) => setTimeout(r, 60000)) }"
)]
#[case::spins("exports.handler = async () => { process.on('SIGTERM', () => {}); console.log('begun'); for (;;); }")]
#[tokio::test]
async fn a_handler_over_its_timeout_is_stopped(#[case] code: &str) {
    let node = function_with("index.js", code, |f| f.timeout = Duration::from_millis(500));
    let outcome = node.invoke("{}").await;
    assert_eq!((outcome.ending, outcome.log.as_str()), (Ending::Timeout, "begun\n"));
    assert_eq!(message(&outcome), "Task timed out after 0.50 seconds; raise its `timeout`, or make it faster");
}

#[rstest]
#[case::the_heap(
    "exports.handler = async (n) => { const a = []; for (let i = 0; i < n << 14; i++) a.push({ i, s: 'x' + i }); return a.length }"
)]
#[case::buffers(
    "exports.handler = async (n) => { const a = []; for (let i = 0; i < n; i++) a.push(Buffer.alloc(1 << 20, 1)); return a.length }"
)]
#[tokio::test]
async fn too_much_memory_is_named_so(#[case] code: &str) {
    let node = function_with("index.js", code, |f| f.memory = 128);
    assert_eq!(node.invoke("10").await.ending, Ending::Ok);
    let outcome = node.invoke("1000").await;
    assert_eq!((outcome.ending, kind(&outcome)), (Ending::Oom, "Runtime.OutOfMemory"), "{outcome:?}");
    assert_eq!(node.invoke("1").await.ending, Ending::Ok);
}

#[tokio::test]
async fn garbage_is_no_lack_of_memory() {
    let code = "exports.handler = async () => { let n = 0; for (let i = 0; i < 3e6; i++) n += `${i}-${'x'.repeat(100)}`.split('-').length; return n }";
    let node = function_with("index.js", code, |f| f.memory = 64);
    assert_eq!(text(&node.invoke("{}").await), "6000000");
}

#[tokio::test]
async fn a_result_that_cannot_be_written_or_is_too_large_has_its_own_name() {
    let node = function("exports.handler = async (e) => e ? 'x'.repeat(e) : { n: 1n }");
    let outcome = node.invoke("0").await;
    assert_eq!((outcome.ending, kind(&outcome)), (Ending::BadOutput, "Runtime.MarshalError"));
    let outcome = node.invoke("7000000").await;
    assert_eq!((outcome.ending, kind(&outcome)), (Ending::TooLarge, "Function.ResponseSizeTooLarge"));
    let outcome = node.invoke("{oops").await;
    assert_eq!((outcome.ending, kind(&outcome), outcome.start), (Ending::Error, "Runtime.UnmarshalError", Start::Warm));
}

#[rstest]
#[case::no_file("", "app.handler", "Runtime.ImportModuleError", "there must be a ")]
#[case::no_package("require('nothing-like-it')", "index.handler", "Runtime.ImportModuleError", "npm install --prefix ")]
#[case::no_neighbour("require('./gone')", "index.handler", "Runtime.ImportModuleError", "'./gone'")]
#[case::syntax("exports.handler = async ( => 1", "index.handler", "Runtime.UserCodeSyntaxError", "index.js:1")]
#[case::no_export("exports.other = 1", "index.handler", "Runtime.HandlerNotFound", "is undefined or not exported")]
#[case::not_a_function("exports.handler = 1", "index.handler", "Runtime.HandlerNotFound", "is not a function")]
#[case::malformed("", "handler", "Runtime.MalformedHandlerName", "index.handler")]
#[case::throws("throw new RangeError('bad config')", "index.handler", "RangeError", "bad config")]
#[case::rejects(
    "exports.handler = async () => 1; Promise.reject(new Error('boot'))",
    "index.handler",
    "Runtime.UnhandledPromiseRejection",
    "boot"
)]
#[case::exits("process.exit(7)", "index.handler", "Runtime.ExitError", "exit status 7")]
#[tokio::test]
async fn code_that_cannot_be_loaded_says_why(
    #[case] code: &str,
    #[case] handler: &str,
    #[case] kind_: &str,
    #[case] says: &str,
) {
    let node = function_with("index.js", code, |f| f.handler = handler.into());
    let outcome = node.invoke("{}").await;
    assert_eq!((outcome.ending, kind(&outcome)), (Ending::InitError, kind_), "{outcome:?}");
    assert!(message(&outcome).contains(says), "{}", message(&outcome));
}

#[tokio::test]
async fn a_missing_node_says_what_to_install() {
    let node = Node::with(|s| s.node_js = Some("/no/such/node".into()));
    let node = node.of(RuntimeKind::Node, "index.js", "exports.handler = async () => 1");
    let outcome = node.invoke("{}").await;
    assert_eq!(outcome.ending, Ending::InitError);
    assert!(message(&outcome).contains("install Node.js 18 or newer, or set FNBUS_NODE"), "{}", message(&outcome));
}

#[tokio::test]
async fn a_start_finds_a_process_that_waits_and_another_takes_its_place() {
    let code = "exports.handler = (event, c, callback) => setTimeout(() => callback(null, [process.pid, process.env.X, process.env.HOME === require('os').tmpdir(), process.cwd() === process.env.LAMBDA_TASK_ROOT, Object.keys(process.env).includes('CARGO')]), 2000)";
    let node = Node::new().of_with(RuntimeKind::Node, "index.js", code, |f| {
        f.env.insert("X".into(), plain("y"));
    });
    assert_eq!(node.invoke("{}").await.start, Start::Cold, "at first there is none");
    // another instance is wanted as often as needed, until a spare was there
    loop {
        let (first, second) = tokio::join!(node.invoke("{}"), node.invoke("{}"));
        let [first_, second_]: [Value; 2] = [&first, &second].map(|o| serde_json::from_slice(&o.output).unwrap());
        assert_ne!(first_[0], second_[0]);
        assert_eq!(first_.as_array().unwrap()[1..], [json!("y"), json!(true), json!(true), json!(false)]);
        assert_eq!(first_.as_array().unwrap()[1..], second_.as_array().unwrap()[1..]);
        if let Some(partial) = [first, second].into_iter().find(|o| o.start == Start::Partial) {
            assert!(partial.times.init > Duration::ZERO);
            break;
        }
        let mut node = node.clone();
        node.reconfigure(|f| drop(f.env.insert("ROUND".into(), plain(&uuid::Uuid::now_v7().to_string()))));
        let version = node.status().version;
        node.until(|s| s.version != version).await;
    }
}

#[tokio::test]
async fn what_is_printed_is_kept_with_its_own_attempt() {
    let node = function(
        "console.log('loading');\nexports.handler = async (e) => { console.log('out', e); console.error('err'); process.stdout.write('open end') }",
    );
    let (first, second) = (node.invoke("1").await, node.invoke("2").await);
    assert!(first.log.contains("loading\n") && first.log.contains("out 1\n"), "{}", first.log);
    assert!(["out 2\n", "open end", "err\n"].iter().all(|part| second.log.contains(part)), "{}", second.log);
    assert!(!second.log.contains("out 1"), "{}", second.log);
}

#[tokio::test]
async fn nothing_of_a_handler_goes_on_between_two_invocations() {
    let code =
        "let ticks = 0;\nexports.handler = async (e) => { if (e === 0) setInterval(() => ticks++, 1); return ticks }";
    let node = function(code);
    node.invoke("0").await;
    let before: u32 = text(&node.invoke("1").await).parse().unwrap();
    // frozen: however long nobody calls, no timer fires
    tokio::time::sleep(Duration::from_millis(100)).await;
    let after: u32 = text(&node.invoke("2").await).parse().unwrap();
    assert!(after - before < 20, "{before} and then {after} ticks");
}

const WRITES: &str = "\
const { HttpResponseStream, streamifyResponse } = awslambda;
const does = {
  two: async (s) => { s.write('a'); s.end('b'); },
  nothing: async (s) => s.end(),
  head: async (s) => { s = HttpResponseStream.from(s, { statusCode: 201, headers: { a: 'b' } }); s.write('x'); s.end(); },
  throws: async (s) => { s.write('x'.repeat(200000)); throw new TypeError('late'); },
  open: async (s) => { s.write('a'); },
  plain: (s) => s.end('a'),
  late: async (s) => { s.write('a'); s.setContentType('text/plain'); },
  huge: async (s) => { for (let n = 0; n < 70; n++) s.write(Buffer.alloc(100000)); s.end(); },
  rejected: async (s) => { s.write('x'.repeat(200000)); Promise.reject(new Error('lost')); await new Promise(() => {}); },
};
exports.handler = streamifyResponse((event, stream) => does[event](stream));
";

#[rstest]
#[case::in_two_pieces("two", Ok("ab"))]
#[case::without_a_byte("nothing", Ok(""))]
#[case::with_a_head("head", Ok(r#"{"body":"x","headers":{"a":"b"},"isBase64Encoded":false,"statusCode":201}"#))]
#[case::an_error_behind_it("throws", Err((Ending::Error, "TypeError", "late")))]
#[case::never_ended("open", Err((Ending::Error, "Runtime.NodeJsExit", "call end() on it")))]
#[case::without_a_promise("plain", Err((Ending::Error, "string", "Streaming does not support non-async handlers.")))]
#[case::a_type_too_late("late", Err((Ending::Error, "Runtime.InvalidStreamingOperation", "too late")))]
#[case::over_the_limit("huge", Err((Ending::TooLarge, "Function.ResponseSizeTooLarge", "7000000 bytes")))]
#[tokio::test]
async fn a_handler_may_stream_its_answer(#[case] what: &str, #[case] expect: Result<&str, (Ending, &str, &str)>) {
    let node = function(WRITES);
    for start in [Start::Cold, Start::Warm] {
        let outcome = node.invoke(&format!("\"{what}\"")).await;
        assert_eq!(outcome.start, start, "{outcome:?}");
        match expect {
            Ok(output) => {
                let json: Result<Value, _> = serde_json::from_slice(&outcome.output);
                assert_eq!(json.map_or_else(|_| text(&outcome).to_owned(), |json| json.to_string()), output);
            }
            Err((ending, kind_, says)) => {
                assert_eq!((outcome.ending, kind(&outcome)), (ending, kind_), "{outcome:?}");
                assert!(message(&outcome).contains(says), "{}", message(&outcome));
            }
        }
    }
}

#[tokio::test]
async fn what_nobody_handles_while_it_streams_is_still_told() {
    let node = function(WRITES);
    let outcome = node.invoke("\"rejected\"").await;
    let expect = (Ending::Crash, "Runtime.UnhandledPromiseRejection", "Error: lost");
    assert_eq!((outcome.ending, kind(&outcome), message(&outcome)), expect, "{outcome:?}");
}

#[tokio::test]
async fn what_is_streamed_comes_in_pieces_and_a_slow_caller_holds_it_up_until_the_timeout() {
    let code = "exports.handler = awslambda.streamifyResponse(async (event, stream) => {
        stream.setContentType('text/x'); stream.write('first');
        for (;;) if (!stream.write(Buffer.alloc(65536))) await new Promise((go) => stream.once('drain', go)); });";
    let node = function_with("index.js", code, |f| f.timeout = Duration::from_secs(1));
    let (outlet, inlet) = bus::streamed::channel();
    let asked = runtimes::Invocation { outlet: Some(outlet), ..invocation(Form::Json, b"{}") };
    let (id, lease) = (asked.request_id, node.lease().await.unwrap());
    let (told, ended) = tokio::sync::oneshot::channel();
    let call = tokio::spawn(async move {
        let outcome = lease.invoke(asked).await.unwrap();
        let _ = told.send(outcome.clone());
        Ok(bus::sink::Reply { event: bus::EventId::new(), outcome })
    });
    let mut call = bus::streamed::UnderWay::new(call, inlet);
    let head = call.head().await.unwrap();
    assert_eq!((head.request_id, head.media_type.as_deref()), (Some(id), Some("text/x")));
    assert_eq!(call.data().await.unwrap(), "first");
    // nobody takes the rest
    let outcome = ended.await.unwrap();
    assert_eq!(
        (outcome.ending, outcome.output.len()),
        (Ending::Timeout, bus::outcome::error_object(outcome.fault.as_ref().unwrap()).len())
    );
    let mut rest = 0;
    while let Some(data) = call.data().await {
        rest += data.len();
    }
    assert!(rest <= 4 * 65536, "{rest} bytes waited");
}
