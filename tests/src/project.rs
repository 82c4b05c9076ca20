//! A project folder: a config file and functions, made in the test.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{disk::Disk, node::Node};

/// The folder of a project that its functions write to, for the test to read.
pub const NOTES: &str = "notes";

/// A project that is not running. Every part may be left out.
pub struct Project {
    folder: TempDir,
    config: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// The same for `fnbus up` alone.
    up: Vec<(String, String)>,
    /// What starts the binary, with its arguments; nothing: the test itself.
    under: Vec<String>,
    /// Where `fnbus up` prints to.
    prints: PathBuf,
}

impl Default for Project {
    fn default() -> Self {
        Self::new()
    }
}

impl Project {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("fnbus-test-").tempdir().unwrap();
        Self {
            prints: folder.path().join("up.log"),
            folder,
            config: "[api]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = \"127.0.0.1:0\"\n".to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            up: Vec::new(),
            under: Vec::new(),
        }
    }

    /// A copy of the example project, `functions/`, that listens on any free port.
    pub fn example() -> Self {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../functions");
        let project = Self::new();
        copy(&example, project.path());
        fs::create_dir(project.path().join("inbox")).unwrap();
        let config = fs::read_to_string(example.join("fnbus.toml")).unwrap();
        project.config(&config)
    }

    /// A Python function: its code in `NAME/app.py`, its table in the config.
    pub fn function(self, name: &str, code: &str) -> Self {
        self.function_with(name, code, "")
    }

    /// The same with further keys in its table. Unless they say otherwise it may write to the folder [`NOTES`].
    pub fn function_with(self, name: &str, code: &str, keys: &str) -> Self {
        let says = keys.contains("folders") || keys.contains("isolation");
        let notes = if says { String::new() } else { format!("folders = {{ write = '{NOTES}' }}") };
        fs::create_dir_all(self.path().join(NOTES)).unwrap();
        self.file(&format!("{name}/app.py"), code)
            .config(&format!("[functions.{name}]\nruntime = \"python\"\n{notes}\n{keys}\n"))
    }

    /// A file in the project's folder.
    pub fn file(self, path: &str, text: &str) -> Self {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// A file that can be executed.
    pub fn program(self, path: &str, text: &str) -> Self {
        let project = self.file(path, text);
        project.mode(path, 0o755);
        project
    }

    /// Changes who may do what with a file.
    pub fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.folder.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// More of `fnbus.toml`. It begins with an `[http]` table that listens on any free port.
    pub fn config(mut self, toml: &str) -> Self {
        self.config.push_str(toml);
        self.config.push('\n');
        self
    }

    /// All of `fnbus.toml`, without the `[http]` table.
    pub fn whole_config(mut self, toml: &str) -> Self {
        toml.clone_into(&mut self.config);
        self
    }

    /// A further argument of `fnbus up`.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// A variable in the environment of `fnbus up`.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.set_variable(name, value);
        self
    }

    pub(crate) fn set_variable(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Has the data folder of `fnbus up` on a disk that can be spoiled.
    pub fn on_disk(mut self, disk: &Disk) -> Self {
        self.up = disk.variables(&self.path().canonicalize().unwrap().join(".fnbus"));
        self
    }

    /// Has `fnbus up` print to another file than the one that [`Node::said`] reads.
    pub fn printing_to(mut self, file: &str) -> Self {
        self.prints = file.into();
        self
    }

    /// Starts every command by another program, which must become what it starts.
    pub fn under(mut self, program: &[&str]) -> Self {
        self.under = program.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `fnbus.toml` as the test wrote it.
    pub fn toml(&self) -> &str {
        &self.config
    }

    /// Runs it and waits until it is ready.
    pub async fn start(self) -> Node {
        Node::start(self).await
    }

    /// Runs `fnbus up`, which is expected not to start, and gives what it said.
    pub async fn fails_to_start(&self) -> crate::Output {
        self.write_config();
        let mut command = tokio::process::Command::from(self.up());
        let output = command.kill_on_drop(true).output();
        let output = tokio::time::timeout(crate::PATIENCE, output).await.expect("it started, or hangs").unwrap();
        output.into()
    }

    /// Runs `fnbus check`, with further arguments.
    pub fn check(&self, arguments: &[&str]) -> crate::Output {
        self.write_config();
        self.command(&[&["check"], arguments].concat()).output().unwrap().into()
    }

    pub(crate) fn prints(&self) -> &Path {
        &self.prints
    }

    pub(crate) fn write_config(&self) {
        fs::write(self.folder.path().join("fnbus.toml"), &self.config).unwrap();
    }

    pub(crate) fn up(&self) -> Command {
        let mut command = self.command(&["up"]);
        command.args(&self.arguments).envs(self.up.iter().map(|(name, value)| (name, value)));
        command
    }

    /// A `fnbus` command in the project's folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let binary = binary();
        let mut command = match self.under.split_first() {
            Some((program, rest)) => {
                let mut command = Command::new(program);
                command.args(rest).arg(binary);
                command
            }
            None => Command::new(binary),
        };
        command.args(arguments).current_dir(self.folder.path()).env_remove("FNBUS_CONFIG").env("NO_COLOR", "1");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Copies a project, without what a run of it has left.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        let left = ["inbox", "out"].map(OsStr::new).contains(&&*name) || name.as_encoded_bytes().starts_with(b".");
        if entry.path().is_dir() && !left {
            fs::create_dir(to.join(&name)).unwrap();
            copy(&entry.path(), &to.join(&name));
        } else if !left {
            fs::copy(entry.path(), to.join(&name)).unwrap();
        }
    }
}

/// The binary of the profile these tests were built in.
pub(crate) fn binary() -> PathBuf {
    let test = env::current_exe().unwrap();
    let profile = test.ancestors().find(|folder| folder.join("fnbus").is_file());
    profile.expect("no fnbus binary beside the tests: run `cargo build --workspace` (make test does)").join("fnbus")
}
