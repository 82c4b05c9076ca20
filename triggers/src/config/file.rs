//! Reads what belongs to `file`.

use std::{path::Path, time::Duration};

use bus::{
    config::{Reader, Wrong},
    event::FileChange,
};

use super::{FileTrigger, PayloadKey};
use crate::file::{Pattern, pattern::InvalidPattern};

/// Writers pause, but rarely for so long.
pub(super) const SETTLE: Duration = Duration::from_millis(200);

/// `base` is the folder relative patterns begin at.
pub(super) fn read_file(reader: &Reader<'_>, payload: PayloadKey, base: &Path) -> Option<FileTrigger> {
    let patterns = read_patterns(reader, base);
    let on = match reader.field("on") {
        Some(field) => field.list().filter(|on: &Vec<_>| {
            if on.is_empty() {
                field.wrong(&Wrong::of_key("must not be empty").advice("name at least one").label("empty list"));
            }
            !on.is_empty()
        }),
        None => Some(vec![FileChange::Created]),
    };
    let settle = reader.get_or("settle", SETTLE);
    let body = payload == PayloadKey::Body;
    Some(FileTrigger { patterns: patterns?, on: on?, settle, body, base: base.to_owned() })
}

fn read_patterns(reader: &Reader<'_>, base: &Path) -> Option<Vec<Pattern>> {
    let given: Vec<String> = reader.required_list("file")?;
    let field = reader.field("file")?;
    let read = |text: &String| {
        Pattern::new(text, base)
            .map_err(|error| {
                let advice = match &error {
                    InvalidPattern::Folder { given } => format!("write \"{}/*\"", given.trim_end_matches('/')),
                    _ => "write \"inbox/*.csv\", \"inbox/**/*.json\" or \"inbox/*.{csv,json}\"".to_owned(),
                };
                field.wrong(&Wrong::sentence(error.to_string()).label("not a pattern").advice(advice));
            })
            .ok()
    };
    given.iter().map(read).collect::<Vec<_>>().into_iter().collect()
}
