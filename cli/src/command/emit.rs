//! `fnbus emit TYPE`: put an event on the bus.

use std::{io::Write, process::ExitCode};

use anstream::stdout;
use api::control::Emitted;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, value::RawValue};

use super::input::Input;
use crate::{args::Global, failure::Failure, show, terminal};

#[derive(Debug, clap::Args)]
pub(crate) struct Emit {
    /// The event's type, such as order.priced; or @FILE or - with a whole CloudEvent in JSON
    kind: String,
    /// Its data: JSON, text, @FILE or - for stdin
    #[arg(short = 'd', long = "payload", id = "payload", value_name = "DATA")]
    data: Option<Input>,
    /// Its source; default the namespace
    #[arg(long)]
    source: Option<String>,
    /// Its id; the same source and id again is the same event
    #[arg(long)]
    id: Option<String>,
    /// Its subject
    #[arg(long)]
    subject: Option<String>,
    /// Another attribute
    #[arg(long = "ext", value_name = "NAME=VALUE", value_parser = extension)]
    extensions: Vec<(String, String)>,
    /// One JSON object: id, deliveries, duplicate
    #[arg(long)]
    json: bool,
}

fn extension(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Emit {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        let json = self.json;
        let event = self.event()?;
        global.ask(async |client| {
            let emitted: Emitted = client.post("/v1/events", event.into()).await?;
            if json {
                show::json(&emitted)?;
                return Ok(ExitCode::SUCCESS);
            }
            writeln!(stdout(), "{}", emitted.id)?;
            if emitted.duplicate {
                terminal::talk("it was accepted before; nothing new follows");
            } else if emitted.deliveries == 0 {
                terminal::talk("no event trigger matches it; it is logged and goes nowhere");
            }
            Ok(ExitCode::SUCCESS)
        })
    }

    /// The CloudEvent in JSON.
    fn event(self) -> Result<Vec<u8>, Failure> {
        if self.kind.starts_with('@') || self.kind == "-" {
            let whole: Input = self.kind.parse().unwrap_or(Input::Stdin);
            return whole.read().map_err(Failure::Input);
        }
        let mut event = Map::new();
        event.insert("type".to_owned(), self.kind.into());
        let attributes = [("source", self.source), ("id", self.id), ("subject", self.subject)];
        event.extend(attributes.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))));
        event.extend(self.extensions.into_iter().map(|(name, value)| (name, value.into())));
        let mut raw = None;
        if let Some(data) = self.data {
            let bytes = data.read().map_err(Failure::Input)?;
            match String::from_utf8(bytes) {
                Ok(text) => {
                    // Kept to the letter: numbers and spaces of the data are the user's.
                    raw = RawValue::from_string(text.clone()).ok();
                    if raw.is_none() {
                        event.insert("datacontenttype".to_owned(), "text/plain".into());
                        event.insert("data".to_owned(), text.into());
                    }
                }
                Err(binary) => {
                    event.insert("datacontenttype".to_owned(), "application/octet-stream".into());
                    event.insert("data_base64".to_owned(), BASE64_STANDARD.encode(binary.as_bytes()).into());
                }
            }
        }
        let mut text = Value::Object(event).to_string();
        if let Some(json) = raw {
            text.truncate(text.len() - 1);
            text.push_str(",\"data\":");
            text.push_str(json.get());
            text.push('}');
        }
        Ok(text.into_bytes())
    }
}
