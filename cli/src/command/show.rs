//! `fnbus show ID`: everything the log knows of one event.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anstream::stdout;
use bus::{
    event::Meta,
    log::detail::{AttemptDetail, DeliveryDetail, EventDetail, Settled, StepDetail},
};
use clap::builder::NonEmptyStringValueParser;

use crate::{args::Global, failure::Failure, show};

/// Headers whose values are secrets: shown only in JSON.
const SECRET_HEADERS: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "x-api-key"];

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The event's id, as `fnbus events` and a 202 answer give it
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    id: String,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        global.ask(async |client| {
            let path = format!("/v1/events/{}", show::percent(&self.id));
            let event: EventDetail = client.get(&path, None::<&()>).await?;
            if self.json {
                show::json(&event)?;
            } else {
                print(&event)?;
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// A field and its value, when there is one.
pub(super) fn field(name: &str, value: Option<&str>) -> io::Result<()> {
    match value {
        Some(value) => writeln!(stdout(), "{name:<12} {}", show::clean(value)),
        None => Ok(()),
    }
}

fn print(event: &EventDetail) -> io::Result<()> {
    field("event", Some(&event.id))?;
    field("type", Some(&event.kind))?;
    field("source", Some(&event.source))?;
    writeln!(stdout(), "{:<12} {}", "time", event.time.with_timezone(&chrono::Local).to_rfc3339())?;
    writeln!(stdout(), "{:<12} {}", "status", show::status(event.status))?;
    field("trigger", event.trigger.as_deref())?;
    field("subject", event.subject.as_deref())?;
    field("content type", event.datacontenttype.as_deref())?;
    match &event.corrects {
        Some(original) => field("corrects", Some(original))?,
        None => field("follows", event.causation.as_deref())?,
    }
    if let Meta::Http(http) = &event.meta {
        let query = if http.query.is_empty() { String::new() } else { format!("?{}", http.query) };
        field("request", Some(&format!("{} {}{query} from {}", http.method, http.path, http.source_ip)))?;
        for (name, value) in &http.headers {
            let value = if SECRET_HEADERS.contains(&name.as_str()) { "(hidden)" } else { value };
            writeln!(stdout(), "             {}: {}", show::clean(name), show::clean(value))?;
        }
    }
    match (&event.data, &event.data_base64) {
        (Some(text), _) if !text.is_empty() => block("data", text)?,
        (_, Some(base64)) => {
            field("data", Some(&format!("{} bytes of base64: {}", base64.len(), show::short(base64, 60))))?;
        }
        _ => {}
    }
    if event.corrupt {
        field("data", Some("damaged: the log has something else than was accepted (fnbus backup --check)"))?;
    }
    for delivery in &event.deliveries {
        print_delivery(delivery)?;
    }
    if event.deliveries.is_empty() {
        writeln!(stdout(), "\nnothing was bound to it: no trigger or event rule delivers it anywhere")?;
    }
    Ok(())
}

/// What there is to say of a delivery besides its target and status.
pub(super) fn words(delivery: &DeliveryDetail) -> String {
    let mut words = Vec::new();
    if let Some(trigger) = &delivery.trigger {
        words.push(format!("by {trigger}"));
    }
    if let Some(key) = &delivery.key {
        words.push(format!("key {key}"));
    }
    if let Some(replay) = &delivery.replay {
        words.push(format!("replayed by {replay}"));
    }
    if let Some(reason) = &delivery.reason {
        words.push(reason.replace('_', " "));
    }
    if let Some(at) = delivery.retry_at {
        words.push(format!("next attempt at {}", show::time(at)));
    }
    if delivery.blocks > 0 {
        words.push(format!("{} of its key wait for it", delivery.blocks));
    }
    match &delivery.settled {
        Some(Settled::Drop { time }) => words.push(format!("dropped at {}", show::time(*time))),
        Some(Settled::Edit { time, event }) => {
            let event = event.as_ref().map_or("an event that is gone".to_owned(), |id| format!("event {id}"));
            words.push(format!("edited at {}: {event} stands in for it", show::time(*time)));
        }
        None => {}
    }
    if words.is_empty() { String::new() } else { format!("  ({})", words.join(", ")) }
}

fn print_delivery(delivery: &DeliveryDetail) -> io::Result<()> {
    writeln!(
        stdout(),
        "\n-> {}  {}{}",
        show::clean(&delivery.target),
        show::status(delivery.status),
        show::clean(&words(delivery))
    )?;
    if let (Some(run), Some(step)) = (&delivery.run, &delivery.step) {
        writeln!(stdout(), "   step {} of run {run}", show::clean(step))?;
    }
    print_waits(delivery)?;
    delivery.attempts.iter().try_for_each(print_attempt)?;
    delivery.steps.iter().try_for_each(print_step)
}

/// Why it does not go on, where that is known.
pub(super) fn print_waits(delivery: &DeliveryDetail) -> io::Result<()> {
    match &delivery.waits {
        Some(waits) => writeln!(stdout(), "   waits: {}", show::clean(waits)),
        None => Ok(()),
    }
}

fn print_step(step: &StepDetail) -> io::Result<()> {
    let StepDetail { step, event, status, waits, .. } = step;
    let waits = waits.as_ref().map(|waits| format!(": {waits}")).unwrap_or_default();
    writeln!(
        stdout(),
        "      at step {}, {}{} (fnbus show {})",
        show::clean(step),
        status.as_str(),
        show::clean(&waits),
        show::clean(event)
    )
}

pub(super) fn print_attempt(attempt: &AttemptDetail) -> io::Result<()> {
    let outcome = attempt.outcome.as_deref().unwrap_or("running");
    let started = attempt.started.map(show::time).unwrap_or_default();
    let mut times = Vec::new();
    for (name, ms) in
        [("queue", attempt.queue_ms), ("start", attempt.start_ms), ("init", attempt.init_ms), ("run", attempt.run_ms)]
    {
        if let Some(ms) = ms.filter(|ms| *ms >= 0.05) {
            times.push(format!("{name} {ms:.1} ms"));
        }
    }
    let version = attempt.version.as_deref().filter(|v| !v.is_empty()).unwrap_or("-");
    let line = format!("   {}. {outcome:<10} {started}  version {version}  {}", attempt.n, times.join(", "));
    writeln!(stdout(), "{}", line.trim_end())?;
    match (&attempt.error, &attempt.output) {
        (Some(error), _) => writeln!(stdout(), "      {}: {}", show::clean(&error.kind), show::clean(&error.message))?,
        (None, Some(output)) if !output.is_empty() => writeln!(stdout(), "      = {}", show::short(output, 200))?,
        _ => {}
    }
    if let Some(log) = &attempt.log {
        for line in log.lines() {
            writeln!(stdout(), "      | {}", show::clean(line))?;
        }
    }
    Ok(())
}

fn block(name: &str, text: &str) -> io::Result<()> {
    const MOST: usize = 20;
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().take(MOST).enumerate() {
        let name = if index == 0 { name } else { "" };
        writeln!(stdout(), "{name:<12} {}", show::short(line, 400))?;
    }
    if lines.len() > MOST {
        writeln!(stdout(), "{:<12} … {} more lines; --json has all", "", lines.len() - MOST)?;
    }
    Ok(())
}
