//! Functions that write down each of their executions.

/// The file of a project that they write to.
pub const RECORD: &str = "notes/record";

/// The file that ends all slowness.
pub const RELEASED: &str = "notes/record.released";

/// A handler that notes its beginning and its end in one write each, beyond the reach of whatever kills it, and does what the event
/// asks for: `fail: n` fails its first n executions, `slow: ms` takes its time until there is a file [`RELEASED`], `do:
/// "exit" | "kill" | "hang" | "raise"` is what nobody wants. Power is not cut here, so a write that returned need not be synced to stay.
pub const CODE: &str = r#"import os, time
NAME = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
RECORD = os.environ["RECORD"]
LOG = os.open(RECORD, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)

def note(word, context):
    fields = word, NAME, context.event_id, context.aws_request_id, os.getpid(), time.time_ns() // 1000
    os.write(LOG, (" ".join(map(str, fields)) + "\n").encode())

def first(n, event_id):
    for i in range(n):
        try:
            os.close(os.open(f"{RECORD}.{NAME}.{event_id}.{i}", os.O_CREAT | os.O_EXCL))
            return True
        except FileExistsError:
            pass
    return False

def handler(event, context):
    event = event if isinstance(event, dict) else {}
    note("start", context)
    until = time.monotonic() + event.get("slow", 0) / 1000
    while time.monotonic() < until and not os.path.exists(RECORD + ".released"):
        time.sleep(0.005)
    do = event.get("do")
    if do == "exit":
        os._exit(3)
    if do == "kill":
        os.kill(os.getpid(), 9)
    if do == "hang":
        time.sleep(3600)
    if do == "raise" or first(event.get("fail", 0), context.event_id):
        note("fail", context)
        raise ValueError("the event asks for it")
    note("end", context)
    return {"n": event.get("n"), "key": event.get("key"), "by": NAME}
"#;

/// One execution of a function, as it wrote it down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    pub function: String,
    pub event: String,
    /// The attempt's id.
    pub attempt: String,
    pub pid: u32,
    /// Microseconds since 1970.
    pub started: i64,
    /// Unset: it was ended from outside.
    pub ended: Option<i64>,
    /// It raised an error.
    pub failed: bool,
}

/// The executions in a record, in the order they began.
pub fn executions(record: &str) -> Vec<Execution> {
    let mut found: Vec<Execution> = Vec::new();
    for line in record.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let &[word, function, event, attempt, pid, time] = &*fields else { continue };
        let (Ok(pid), Ok(time)) = (pid.parse(), time.parse()) else { continue };
        if word == "start" {
            found.push(Execution {
                function: function.to_owned(),
                event: event.to_owned(),
                attempt: attempt.to_owned(),
                pid,
                started: time,
                ended: None,
                failed: false,
            });
        } else if let Some(execution) = found.iter_mut().rev().find(|e| e.attempt == attempt && e.pid == pid) {
            execution.ended = Some(time);
            execution.failed = word == "fail";
        }
    }
    found
}
