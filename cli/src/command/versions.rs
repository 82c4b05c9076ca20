//! `fnbus functions versions|promote|rollback|unalias`: what was deployed, and which of it serves.

use std::{process::ExitCode, time::Duration};

use bus::{
    Name,
    presence::{CanaryPlan, Moved, Promote, Unaliased, VersionStatus, Which},
    target::Qualifier,
};
use indicatif::HumanBytes;

use super::functions::List;
use crate::{args::Global, failure::Failure, show, terminal};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// What can run, and how it does: what `fnbus functions` shows by itself
    List(List),
    /// The versions of a function that are kept, the newest last
    Versions(Named),
    /// Put a version into service; it stays there, unless it is the newest, which those that come follow
    Promote(Promoting),
    /// Put the version back into service that served before; it stays until another one is promoted
    Rollback(Rolling),
    /// Take an alias away to which nothing goes
    Unalias(Unaliasing),
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
    /// Its number, its id, $LATEST or an alias [default: the newest]
    version: Option<String>,
    /// Which alias is to lead to it; made where there is none
    #[arg(long, default_value = Qualifier::LIVE)]
    alias: Name,
    /// It stays even when it is the newest: edits make versions that do not serve
    #[arg(long)]
    pin: bool,
    /// It gets this part of the calls, such as 10%, until something else is promoted
    #[arg(long, value_parser = percent, value_name = "PART", conflicts_with = "canary")]
    weight: Option<f64>,
    /// It gets this part of the calls, such as 10%, is watched, and then serves or is taken back
    #[arg(long, value_parser = percent, value_name = "PART")]
    canary: Option<f64>,
    /// How long a canary is watched
    #[arg(long = "for", value_parser = humantime::parse_duration, default_value = "10m", value_name = "TIME", requires = "canary")]
    time: Duration,
    /// Most of a canary's calls that may fail
    #[arg(long, value_parser = percent, default_value = "5%", value_name = "PART", requires = "canary")]
    max_errors: f64,
    /// Before so many calls nothing is made of its errors
    #[arg(long, default_value_t = 20, value_name = "N", requires = "canary")]
    min_calls: u64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Rolling {
    #[command(flatten)]
    function: Named,
    /// Which alias is to lead where it led before
    #[arg(long, default_value = Qualifier::LIVE)]
    alias: Name,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Unaliasing {
    #[command(flatten)]
    function: Named,
    /// The alias
    alias: Name,
}

/// A part as people write it, from 0 to 1.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    let part = number.map(|number| number / 100.0).filter(|part| (0.0..=1.0).contains(part));
    part.ok_or_else(|| "write a part from 0% to 100%, such as 10%".to_owned())
}

impl Promoting {
    fn asked(&self) -> Promote {
        let Self { version, alias, pin, weight, canary, time, max_errors, min_calls, .. } = self;
        let (max_errors, min_calls) = (*max_errors, *min_calls);
        Promote {
            version: version.clone(),
            alias: other(alias),
            pin: *pin,
            share: weight.or(*canary),
            canary: canary.map(|_| CanaryPlan { seconds: time.as_secs_f64(), max_errors, min_calls }),
        }
    }
}

impl Action {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        match self {
            Self::List(list) => list.run(global),
            Self::Versions(named) => named.list(global),
            Self::Promote(promoting) => {
                let asked = promoting.asked();
                promoting.function.change(global, "promote", &asked)
            }
            Self::Rollback(Rolling { function, alias }) => {
                function.change(global, "rollback", &Which { alias: other(&alias) })
            }
            Self::Unalias(Unaliasing { function, alias }) => function.unalias(global, alias),
        }
    }
}

/// An alias that is not `live`.
fn other(alias: &Name) -> Option<Name> {
    (alias.as_str() != Qualifier::LIVE).then(|| alias.clone())
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

    fn unalias(self, global: &Global, alias: Name) -> Result<ExitCode, Failure> {
        global.ask(async |client| {
            let gone: Unaliased = client.post_json(&self.path("unalias"), &Which { alias: Some(alias) }).await?;
            if self.json {
                show::json(&gone)?;
                return Ok(ExitCode::SUCCESS);
            }
            let led = gone.before.map_or_else(String::new, |version| format!("; it led to version {version}"));
            terminal::talk(format!("`{}` has no alias `{}` any more{led}", gone.function, gone.alias));
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
            let Moved { function, alias, version, before, changed, pinned, share, note } = moved;
            if let Some(note) = note {
                terminal::talk(format!("version {version} before: {note}"));
            }
            if alias != Qualifier::LIVE || share.is_some() {
                let part = share.map_or_else(String::new, |share| format!(" for {:.0} % of the calls", share * 100.0));
                terminal::talk(format!("`{function}:{alias}` leads to version {version}{part}"));
                return Ok(ExitCode::SUCCESS);
            }
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
