//! The way from a command to the running node.

use std::future::Future;

use api::{Client, ClientError};
use miette::Diagnostic;

use crate::{args::Global, config, failure::Failure};

/// Why the node did not answer, with the next step.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{error}")]
pub(crate) struct NodeError {
    error: ClientError,
    #[help]
    help: Option<String>,
}

impl From<ClientError> for NodeError {
    fn from(error: ClientError) -> Self {
        let help = match &error {
            ClientError::NotRunning { .. } => {
                Some("start it with `fnbus up`, or name another project: --config FILE or --data DIR".to_owned())
            }
            ClientError::Refused { code, .. } => match code.as_str() {
                "unknown_id" => Some("`fnbus events` lists the ids; old events go by [log] keep".to_owned()),
                "settled" => Some("`fnbus show ID` has all that became of it".to_owned()),
                "unknown_function" => Some("`fnbus functions` lists them".to_owned()),
                "unknown_version" => Some("`fnbus functions versions NAME` lists them".to_owned()),
                "stopped" => Some("raise the function's `concurrency` to let it run".to_owned()),
                "log_full" => Some("free space on the disk of the data folder; it goes on by itself".to_owned()),
                "log_damaged" => Some("docs/operating.md says what to do: fnbus backup --check, restore".to_owned()),
                "busy" => Some("try again, or raise the function's `concurrency`".to_owned()),
                _ => None,
            },
            ClientError::Socket { .. } => Some("the socket is only for the user that runs fnbus".to_owned()),
            ClientError::Interrupted => Some("has it ended? see its own output".to_owned()),
            _ => None,
        };
        Self { error, help }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Node(error.into())
    }
}

impl Global {
    /// The node of this project. A config file with problems still tells where its node is.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        if let Some(data) = &self.data {
            return Ok(Client::new(std::path::absolute(data).unwrap_or_else(|_| data.clone())));
        }
        Ok(Client::new(config::data_folder(&self.config)?))
    }

    /// Asks the node on a small runtime of its own.
    pub(crate) fn ask<T, F>(&self, question: impl FnOnce(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let client = self.client()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
        runtime.block_on(question(client))
    }
}
