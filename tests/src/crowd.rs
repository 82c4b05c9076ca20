//! Functions that leave processes behind in every way there is, and write down which.

use crate::{Node, Process, Project};

/// The file of a project that each of them notes its id in; `NOTES` in the environment is its path.
pub const NOTES: &str = "notes/ids";

/// The beginning of a handler's file: ways to start a process that sleeps.
pub const CODE: &str = "\
import os, signal, sys, time
NOTES = os.open(os.environ['NOTES'], os.O_APPEND | os.O_CREAT | os.O_WRONLY)
def note(pid=os.getpid()):
    os.write(NOTES, b'%d\\n' % pid)
def sleep(env, seconds='1000'):
    pid = os.fork()
    if pid == 0: os.execve('/bin/sleep', ['sleep', seconds], env)
    note(pid)
def child():
    sleep(os.environ)
def session():
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.execve('/bin/sleep', ['sleep', '1000'], os.environ)
    note(pid)
def daemon(env, seconds='1000'):
    middle = os.fork()
    if middle == 0:
        os.setsid()
        sleep(env, seconds)
        os._exit(0)
    os.waitpid(middle, 0)
";

/// Ten processes an invocation: itself, a child in its group, one in a session of its own, and seven that were forked
/// twice into sessions of their own, of which three have no environment any more. It does not end.
pub const TEN: &str = "
    child(); session()
    for env in [os.environ] * 4 + [{}] * 3: daemon(env)
    note()
    time.sleep(1000)
";

/// A function `f` that begins with [`CODE`] and may write its notes, called at `/f`, and at `/later` asynchronously.
pub fn project(handler: &str, keys: &str) -> Project {
    let project = Project::new();
    let notes = project.path().join(NOTES).display().to_string();
    let keys = format!("env = {{ NOTES = '{notes}' }}\nfolders = {{ write = '{}' }}\n{keys}", crate::NOTES);
    let route = |name: &str, more: &str| {
        format!("[triggers.{name}]\nhttp = 'POST /{name}'\npayload = 'body'\nto = 'f'\n{more}")
    };
    project
        .function_with("f", &format!("{CODE}def handler(event, context):\n{handler}"), &keys)
        .config(&route("f", ""))
        .config(&route("later", "mode = 'async'\n"))
}

/// Waits until so many have noted themselves.
pub async fn noted(node: &Node, number: usize) -> Vec<Process> {
    let ids = node.lines_of(NOTES, number).await;
    ids.iter().map(|id| Process::of_id(id.parse().unwrap())).collect()
}

/// Those that have not ended.
pub fn left(all: &[Process]) -> Vec<i32> {
    all.iter().filter(|process| process.is_there()).map(|process| process.pid).collect()
}
