//! Why a command failed: one sentence and the next step.

use std::{io, path::PathBuf, process::ExitCode};

use bus::{log::backup::BackupError, node::StartError};
use miette::Diagnostic;

use crate::{config::ConfigError, node::NodeError, terminal, up::ServeError};

#[derive(Debug, thiserror::Error, Diagnostic)]
pub(crate) enum Failure {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Config(#[from] ConfigError),
    #[error("{} exists already", path.display())]
    #[diagnostic(help("nothing was written; name another folder: fnbus init DIR"))]
    Exists { path: PathBuf },
    #[error("cannot write {}: {source}", path.display())]
    #[diagnostic(help("is there space, and may you write there?"))]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Node(NodeError),
    #[error("{error}")]
    Backup {
        error: BackupError,
        #[help]
        help: &'static str,
    },
    #[error("the data cannot be read: {0}")]
    #[diagnostic(help("-d takes the data itself, @FILE, or - for stdin"))]
    Input(io::Error),
    #[error("nothing says what to deliver again")]
    #[diagnostic(help("name events by id, or filter: --trigger --function --type --status --since --until"))]
    NothingSelected,
    #[error("no {what} matches; nothing was done")]
    #[diagnostic(help("`fnbus events` and `fnbus dead list` show what there is"))]
    SelectionEmpty { what: &'static str },
    #[error("this would {what} and nobody can be asked here")]
    #[diagnostic(help("say --yes to go on, --dry-run to only look"))]
    NotConfirmed { what: &'static str },
    #[error("nobody can edit here")]
    #[diagnostic(help(
        "give the corrected body with -d: the text itself, @FILE, or - for stdin; `fnbus show {id}` has what it is now"
    ))]
    NoEditor { id: String },
    #[error("the editor `{editor}` {why}; nothing was done")]
    #[diagnostic(help("set VISUAL or EDITOR, or give the corrected body with -d @FILE"))]
    Editor { editor: String, why: String },
    #[error("the body of `{id}` is no text, and an editor could only spoil it")]
    #[diagnostic(help("give the corrected body with -d @FILE"))]
    NotText { id: String },
    #[error("{failure}")]
    #[diagnostic(help("what you wrote is in {}", kept.display()))]
    EditRefused { failure: Box<Failure>, kept: PathBuf },
    #[error("a trace of {apps} apps over {days} days is too long: at most {most} days of all apps together")]
    #[diagnostic(help("ask for fewer: --apps, --days"))]
    TraceTooLong { apps: u64, days: u64, most: u64 },
    #[error("no app of the trace is called within it")]
    #[diagnostic(help("ask for more: --apps, --days, or another --seed"))]
    TraceEmpty,
    #[error("no function has been called by the event log of {}", data.display())]
    #[diagnostic(help(
        "call some, name another node (--config FILE or --data DIR), or leave out --log for a trace that is made"
    ))]
    NothingLogged { data: PathBuf },
    #[error("fnbus cannot become two processes, one above the other: {0}")]
    #[diagnostic(help("is there memory, and does `ulimit -u` allow more processes?"))]
    Split(io::Error),
    #[error("the runtime cannot be started: {0}")]
    Runtime(io::Error),
    #[cfg(debug_assertions)]
    #[error(transparent)]
    #[diagnostic(help("they are for tests of fnbus itself; bus/src/failpoint.rs says what each is"))]
    Failpoint(#[from] bus::failpoint::InvalidFailpoint),
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

const DAMAGED: &str = "nothing was changed. Keep the file: accepted events are in it. `fnbus restore BACKUP` puts another backup in the \
                       place of a log; docs/operating.md says how to get out what still reads";

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        let help = match &error {
            BackupError::Missing { path } if path.ends_with("log.db") => "name the node: --config FILE or --data DIR",
            BackupError::Missing { .. } => "name a file that `fnbus backup` made",
            BackupError::NotALog { path, .. } if path.ends_with("log.db") => DAMAGED,
            BackupError::NotALog { .. } => "nothing was done; name a file that `fnbus backup` made",
            BackupError::Newer { .. } => "nothing was done; run the fnbus that made the backup, or a newer one",
            BackupError::NoFolder { .. } => "nothing was written; make it first (mkdir -p), or name another",
            BackupError::Folder(StartError::InUse { .. }) => {
                "nothing was done; stop that node first, or name another --data DIR"
            }
            BackupError::Folder(_) => "nothing was done; may you write there?",
            BackupError::Exists { .. } => "nothing was written; name another file, or say --force to replace it",
            BackupError::Itself { .. } => "nothing was written; name another file",
            BackupError::Damaged { .. } => DAMAGED,
            BackupError::Write { .. } => "is there space, and may you write there? what was begun is removed",
            _ => "only the user that runs fnbus may read its data folder",
        };
        Self::Backup { error, help }
    }
}

impl Failure {
    /// Says it, and what the process ends with.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            // whoever reads has had enough, as `fnbus … | head` does
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Self::Config(ConfigError::Wrong(report)) => terminal::talk(report.shown(terminal::shown)),
            other => terminal::talk(terminal::shown(other).trim_end()),
        }
        ExitCode::FAILURE
    }
}
