//! `fnbus dead edit`: a dead letter with another body.

use std::{
    env, fs,
    io::{self, IsTerminal, Write},
    process::{Command, ExitCode},
};

use anstream::stdout;
use api::{
    Client,
    control::{DeadQuery, EditRequest},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bus::log::{
    dead::{DeadLetter, Edited},
    detail::EventDetail,
    query::Selection,
};
use clap::builder::NonEmptyStringValueParser;
use tempfile::NamedTempFile;

use super::input::Input;
use crate::{args::Global, failure::Failure, show, terminal};

#[derive(Debug, clap::Args)]
pub(crate) struct Edit {
    /// The id of the letter's event
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    id: String,
    /// Which letter, where the event has several
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// The corrected body: text, @FILE, or - for stdin; without it, an editor on a terminal
    #[arg(short = 'd', long = "payload", id = "payload", value_name = "DATA")]
    data: Option<Input>,
    /// One JSON object: event, corrects, target
    #[arg(long)]
    json: bool,
}

impl Edit {
    pub(super) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        let Self { id, target, data, json } = self;
        global.ask(async |client| {
            let edited: Edited = match data {
                Some(data) => send(&client, &id, target, &data.read().map_err(Failure::Input)?).await?,
                None => by_hand(&client, &id, target).await?,
            };
            if json {
                show::json(&edited)?;
            } else {
                let Edited { event, corrects, target } = &edited;
                writeln!(stdout(), "{event}")?;
                terminal::talk(format_args!("it stands in for {corrects} and is on its way to {target}"));
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

async fn send(client: &Client, id: &str, target: Option<String>, data: &[u8]) -> Result<Edited, Failure> {
    let request = EditRequest { id: id.to_owned(), target, data_base64: BASE64_STANDARD.encode(data) };
    Ok(client.post_json("/v1/dead/edit", &request).await?)
}

/// Opens the body in the person's editor. What was written there is not lost when it is refused.
async fn by_hand(client: &Client, id: &str, target: Option<String>) -> Result<Edited, Failure> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(Failure::NoEditor { id: id.to_owned() });
    }
    let event: EventDetail = client.get(&format!("/v1/events/{}", show::percent(id)), None::<&()>).await?;
    // nobody is to write for nothing
    let selection = Selection { ids: vec![id.to_owned()], function: target.clone(), ..Selection::default() };
    let mut letters = client.lines("/v1/dead", &DeadQuery { selection, limit: Some(2) }).await?;
    let one = letters.next::<DeadLetter>().await?.is_some() && letters.next::<DeadLetter>().await?.is_none();
    let Some(body) = event.data else { return Err(Failure::NotText { id: id.to_owned() }) };
    if !one {
        // refused with the reason
        return send(client, id, target, body.as_bytes()).await;
    }
    let suffix = if serde_json::from_str::<serde::de::IgnoredAny>(&body).is_ok() { ".json" } else { ".txt" };
    let mut file = tempfile::Builder::new().prefix("fnbus-").suffix(suffix).tempfile()?;
    file.write_all(body.as_bytes())?;
    open(&file)?;
    let mut written = fs::read(file.path())?;
    if written.strip_suffix(b"\n") == Some(body.as_bytes()) {
        // editors end a file with a line
        written.pop();
    }
    match send(client, id, target, &written).await {
        Err(failure) if written != body.as_bytes() => {
            let (_, kept) = file.keep().map_err(|error| error.error)?;
            Err(Failure::EditRefused { failure: Box::new(failure), kept })
        }
        other => other,
    }
}

/// Runs the editor, which may be written with arguments, as others do.
fn open(file: &NamedTempFile) -> Result<(), Failure> {
    let named = ["VISUAL", "EDITOR"].iter().find_map(|name| env::var(name).ok().filter(|editor| !editor.is_empty()));
    let editor = named.unwrap_or_else(|| "vi".to_owned());
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{editor} \"$1\"")).arg("fnbus").arg(file.path());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::Editor { editor, why: format!("ended with {status}") }),
        Err(error) => Err(Failure::Editor { editor, why: format!("could not be started: {error}") }),
    }
}
