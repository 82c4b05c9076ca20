//! Functions whose answer is none.

use super::{Arena, Fault, Tally, Trial, strange};

pub(super) const FAULT: Fault = Fault {
    number: 22,
    sentence: "answers of 100 MB, that are no JSON, no answer, one too many, or too late",
    short: 1,
    full: 20,
    seconds: 140,
    run: |trial| Box::pin(run(trial)),
};

/// A whole answer of its own making, past the shim, and then the one of the shim.
const TWICE: &str = "os.write(4, b'\\x05\\x00\\x00\\x00Owrong')\nos.write(4, b'\\x05\\x00\\x00\\x00Owrong')\nreturn 1";

/// Answers when it is told that its time is over.
const LATE: &str =
    "signal.signal(signal.SIGTERM, lambda *_: os.write(4, b'\\x04\\x00\\x00\\x00Olate'))\ntime.sleep(1000)";

const CASES: [(&str, &str); 6] = [
    ("large", "return 'x' * 100_000_000"),
    ("larger", "os.write(4, b'\\xff\\xff\\xff\\x7fO' + bytes(1000))\ntime.sleep(1000)"),
    ("no json", "return object()"),
    ("no answer", "os.write(4, b'hello')\ntime.sleep(1000)"),
    ("twice", TWICE),
    ("late", LATE),
];

async fn run(trial: Trial) -> Tally {
    let mut arena = Arena::of(&trial, strange::project(&CASES, "timeout = '3s'\nmemory = 512")).await;
    let ends = [
        ("large", "too_large"),
        ("larger", "too_large"),
        ("no json", "bad_output"),
        ("no answer", "crash"),
        // the first is the answer; the rest must not be one to the next event
        ("twice", "ok"),
        ("late", "timeout"),
    ];
    strange::endure(&mut arena, &trial, &ends).await;
    arena.check().await
}
