//! A command that goes on, such as `fnbus logs -f`, read line by line.

use std::process::{Command, Stdio};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout},
    time::timeout,
};

use crate::PATIENCE;

/// Ended when it is dropped.
pub struct Following {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    talk: Lines<BufReader<ChildStderr>>,
}

impl Following {
    pub(crate) fn start(command: Command) -> Self {
        let mut command = tokio::process::Command::from(command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let talk = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { _child: child, lines, talk }
    }

    /// Waits until it has said `text` on stderr.
    pub async fn says(&mut self, text: &str) {
        loop {
            let line = timeout(PATIENCE, self.talk.next_line()).await.expect("it says something").unwrap();
            let line = line.expect("it goes on");
            eprintln!("{line}");
            if line.contains(text) {
                return;
            }
        }
    }

    /// The next line it prints.
    pub async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("it prints a line").unwrap();
        line.expect("it goes on")
    }

    /// The next line with `text` in it; others are passed over.
    pub async fn line_with(&mut self, text: &str) -> String {
        loop {
            let line = self.line().await;
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Reads on to its end, and gives the lines until there.
    pub async fn rest(mut self) -> Vec<String> {
        let mut rest = Vec::new();
        while let Some(line) = timeout(PATIENCE, self.lines.next_line()).await.expect("it ends").unwrap() {
            rest.push(line);
        }
        rest
    }
}
