//! `fnbus functions versions|promote|rollback`: what was deployed, and which of it serves.

use std::process::ExitCode;

use bus::presence::{Moved, Promote, VersionStatus};
use indicatif::HumanBytes;

use crate::{args::Global, failure::Failure, show, terminal};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// The versions of a function that are kept, the newest last
    Versions(Named),
    /// Put a version into service; it stays there, unless it is the newest, which those that come follow
    Promote(Promoting),
    /// Put the version back into service that served before; it stays until another one is promoted
    Rollback(Named),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// The function
    name: String,
    /// One JSON object: a line for each version, or what was done
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Promoting {
    #[command(flatten)]
    function: Named,
    /// Its number, its id or $LATEST [default: the newest]
    version: Option<String>,
}

impl Action {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        match self {
            Self::Versions(named) => named.list(global),
            Self::Promote(Promoting { function, version }) => function.change(global, "promote", &Promote { version }),
            Self::Rollback(named) => named.change(global, "rollback", &()),
        }
    }
}

impl Named {
    fn path(&self, what: &str) -> String {
        format!("/v1/functions/{}/{what}", show::percent(&self.name))
    }

    fn list(self, global: &Global) -> Result<ExitCode, Failure> {
        global.ask(async |client| {
            let versions: Vec<VersionStatus> = client.get(&self.path("versions"), None::<&()>).await?;
            if self.json {
                versions.iter().try_for_each(show::json)?;
                return Ok(ExitCode::SUCCESS);
            }
            if versions.is_empty() {
                terminal::talk(format!("`{}` has no version yet; `fnbus functions` says why", self.name));
                return Ok(ExitCode::SUCCESS);
            }
            let rows = versions.iter().map(|v| {
                let latest = v.latest.then(|| "$LATEST".to_owned());
                vec![
                    v.version.to_string(),
                    v.id.clone(),
                    v.runtime.clone(),
                    v.handler.clone(),
                    show::time(v.deployed),
                    HumanBytes(v.bytes).to_string(),
                    v.aliases.iter().cloned().chain(latest).collect::<Vec<_>>().join(", "),
                    v.note.clone().unwrap_or_default(),
                ]
            });
            show::table(&["VERSION", "ID", "RUNTIME", "HANDLER", "DEPLOYED", "SIZE", "ALIASES", "NOTE"], rows)?;
            Ok(ExitCode::SUCCESS)
        })
    }

    fn change(self, global: &Global, what: &str, how: &impl serde::Serialize) -> Result<ExitCode, Failure> {
        global.ask(async |client| {
            let moved: Moved = client.post_json(&self.path(what), how).await?;
            if self.json {
                show::json(&moved)?;
                return Ok(ExitCode::SUCCESS);
            }
            let Moved { function, version, before, changed, pinned } = moved;
            let until =
                if pinned { "; it stays until another one is promoted" } else { ", and newer ones as they come" };
            let instead = before.filter(|before| *before != version).map(|before| format!(" instead of {before}"));
            if changed {
                terminal::talk(format!("`{function}` serves version {version}{}{until}", instead.unwrap_or_default()));
            } else {
                terminal::talk(format!("`{function}` served version {version} already"));
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}
