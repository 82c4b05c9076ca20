//! Rows and values as people read them, on stdout.

use std::io::{self, Write};

use anstream::stdout;
use anstyle::{AnsiColor, Style};
use bus::log::Status;
use chrono::{DateTime, FixedOffset, Local, Utc};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// A table without lines, as wide as it needs.
pub(crate) fn table(headers: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(headers);
    for row in rows {
        table.add_row(row.iter().map(|cell| clean(cell)));
    }
    for line in table.lines() {
        writeln!(stdout(), "{}", line.trim())?;
    }
    Ok(())
}

/// One JSON object, on a line of its own.
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string(value).map_err(io::Error::other)?;
    writeln!(stdout(), "{text}")
}

/// Local time, to the millisecond; with the date when it is not today's.
pub(crate) fn time(time: DateTime<Utc>) -> String {
    let local = time.with_timezone(&Local);
    let form = if local.date_naive() == Local::now().date_naive() { "%H:%M:%S%.3f" } else { "%Y-%m-%d %H:%M:%S" };
    local.format(form).to_string()
}

/// A time days ahead, in local time.
pub(crate) fn day(time: DateTime<Utc>) -> String {
    time.with_timezone(&Local).format("%Y-%m-%d %H:%M").to_string()
}

/// A time to come, in the zone it was planned in.
pub(crate) fn local(time: DateTime<FixedOffset>) -> String {
    time.format("%Y-%m-%d %H:%M:%S %:z").to_string()
}

/// A status in its colour, as wide as the longest; colours are taken out where nobody sees them.
pub(crate) fn status_column(status: Status) -> String {
    format!("{}{:width$}", self::status(status), "", width = 8_usize.saturating_sub(status.as_str().len()))
}

/// A status in its colour.
pub(crate) fn status(status: Status) -> String {
    let colour = match status {
        Status::Done => AnsiColor::Green,
        Status::Dead | Status::Expired => AnsiColor::Red,
        Status::Retrying => AnsiColor::Yellow,
        Status::Running | Status::Pending => AnsiColor::Cyan,
        Status::Held | Status::Filtered => AnsiColor::BrightBlack,
    };
    let style = Style::new().fg_color(Some(colour.into()));
    format!("{style}{}{style:#}", status.as_str())
}

/// A text as one segment of a path.
pub(crate) fn percent(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Text of others for a terminal: what could move the cursor or colour the screen is shown, not obeyed.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' && c != '\t' { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

/// The first line of a text, at most `width` characters.
pub(crate) fn short(text: &str, width: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= width {
        return clean(line);
    }
    let mut cut: String = line.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    clean(&cut)
}
