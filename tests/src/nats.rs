//! A nats-server of somebody else, which a test can treat badly.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use async_nats::jetstream;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::eventually;

/// A nats-server that runs until this is dropped.
pub struct Nats {
    process: Child,
    pub url: String,
    folder: TempDir,
    program: PathBuf,
    arguments: Vec<String>,
}

impl Nats {
    /// Starts one with further arguments.
    pub async fn start(arguments: &[&str]) -> Self {
        Self::configured(&Self::program_of_tests(), "", arguments).await
    }

    /// Starts one of another version.
    pub async fn of(program: &Path, arguments: &[&str]) -> Self {
        Self::configured(program, "", arguments).await
    }

    /// The server that the tests are run with.
    pub fn program_of_tests() -> PathBuf {
        env::var_os("NATS_SERVER").map_or_else(|| "nats-server".into(), PathBuf::from)
    }

    /// Starts one with JetStream and more of its config.
    pub async fn with(config: &str) -> Self {
        Self::configured(&Self::program_of_tests(), config, &["-js"]).await
    }

    async fn configured(program: &Path, config: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("fnbus-nats-").tempdir().unwrap();
        fs::write(folder.path().join("server.conf"), config).unwrap();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        // it chooses a port and says which in a file
        let process = spawn(program, folder.path(), "-1", &arguments);
        let url = eventually("nats-server says its port", || async {
            let files = fs::read_dir(folder.path()).unwrap().flatten();
            let file = files.map(|file| file.path()).find(|path| path.extension().is_some_and(|e| e == "ports"))?;
            let ports: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
            Some(ports["nats"][0].as_str()?.to_owned())
        })
        .await;
        Self { process, url, folder, program: program.to_owned(), arguments }
    }

    /// The one of another version from now on.
    pub fn program(&mut self, program: &Path) {
        program.clone_into(&mut self.program);
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again on the same port with what it has stored.
    pub fn restart(&mut self) {
        let port = self.url.rsplit_once(':').unwrap().1;
        self.process = spawn(&self.program, self.folder.path(), port, &self.arguments);
    }

    /// Such as `Signal::STOP`.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Deletes what it has stored, while it is down.
    pub fn wipe(&self) {
        fs::remove_dir_all(self.folder.path().join("jetstream")).unwrap();
    }

    /// Cuts off the end of a stream while it is down, as a power cut may: its blocks end early, and its index is of a time
    /// before.
    pub fn cut(&self, stream: &str) {
        let messages = self.folder.path().join("jetstream/$G/streams").join(stream).join("msgs");
        for file in fs::read_dir(messages).unwrap().map(|file| file.unwrap().path()) {
            if file.extension().is_some_and(|extension| extension == "blk") {
                let block = fs::File::options().write(true).open(&file).unwrap();
                block.set_len(block.metadata().unwrap().len() / 2).unwrap();
            } else {
                fs::remove_file(&file).unwrap();
            }
        }
    }

    /// Somebody else who uses it.
    pub async fn jetstream(&self) -> jetstream::Context {
        eventually("NATS is there", || async {
            let context = jetstream::new(async_nats::connect(&self.url).await.ok()?);
            context.query_account().await.ok()?;
            Some(context)
        })
        .await
    }
}

fn spawn(program: &Path, folder: &Path, port: &str, arguments: &Vec<String>) -> Child {
    let mut command = Command::new(program);
    command.args(["-a", "127.0.0.1", "-p", port, "--ports_file_dir"]).arg(folder).arg("-sd").arg(folder);
    command.arg("-c").arg(folder.join("server.conf")).args(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
