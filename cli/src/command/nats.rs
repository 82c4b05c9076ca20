//! `fnbus nats`: the NATS of the bus, for people who publish to its queues or listen to its targets.

use std::{io::Write, process::ExitCode};

use anstream::stdout;
use api::control::{Heard, NatsAddress, Publish, Published, SubscribeQuery};
use base64::{Engine, prelude::BASE64_STANDARD};

use super::input::Input;
use crate::{args::Global, failure::Failure, show, terminal};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Nats {
    /// Its address with the login, for clients of your own
    Url,
    /// Publish a message, such as one for a queue trigger
    Publish(Message),
    /// Print what is published to a subject from now on
    Sub(Sub),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Message {
    /// Where to, such as payments.eu
    subject: String,
    /// Its data: text, @FILE or - for stdin
    #[arg(short = 'd', long = "payload", id = "payload", value_name = "DATA")]
    data: Option<Input>,
    /// A header
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// One JSON object: stream and sequence, when a stream has it
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Sub {
    /// May have `*` for a word and `>` at its end
    subject: String,
    /// One JSON object per message: subject, headers, data
    #[arg(long)]
    json: bool,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write NAME: VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

impl Nats {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        match self {
            Self::Url => global.ask(async |client| {
                let address: NatsAddress = client.get("/v1/nats", None::<&()>).await?;
                writeln!(stdout(), "{}", address.url)?;
                Ok(ExitCode::SUCCESS)
            }),
            Self::Publish(message) => message.publish(global),
            Self::Sub(sub) => sub.listen(global),
        }
    }
}

impl Message {
    fn publish(self, global: &Global) -> Result<ExitCode, Failure> {
        let Self { subject, data, headers, json } = self;
        let data = data.map_or(Ok(Vec::new()), Input::read).map_err(Failure::Input)?;
        let message = Publish { subject, headers, data_base64: BASE64_STANDARD.encode(data) };
        global.ask(async |client| {
            let published: Published = client.post_json("/v1/nats/publish", &message).await?;
            if json {
                show::json(&published)?;
                return Ok(ExitCode::SUCCESS);
            }
            match published.stored {
                Some(stored) => terminal::talk(format!("message {} of the stream {}", stored.sequence, stored.stream)),
                None => terminal::talk("published; no stream has this subject, so only those who listen now got it"),
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

impl Sub {
    fn listen(self, global: &Global) -> Result<ExitCode, Failure> {
        let question = SubscribeQuery { subject: self.subject };
        global.ask(async |client| {
            let mut messages = client.lines("/v1/nats/subscribe", &question).await?;
            while let Some(heard) = messages.next::<Heard>().await? {
                if self.json {
                    show::json(&heard)?;
                    continue;
                }
                let data = heard.data.or(heard.data_base64).unwrap_or_default();
                writeln!(stdout(), "{}  {}", show::clean(&heard.subject), show::clean(&data))?;
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}
