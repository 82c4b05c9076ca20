//! A change as an event.

use std::{path::Path, sync::Arc};

use bus::{
    Event, EventId, Name,
    event::{FileChange, FileMeta, Meta},
};
use bytes::Bytes;
use chrono::DateTime;

use super::inventory::{Change, What};

/// How paths are told: those below the folder of the config file begin there.
pub(super) fn key_of(path: &Path, base: &Path) -> String {
    path.strip_prefix(base).unwrap_or(path).display().to_string()
}

impl What {
    pub(super) fn change(&self) -> FileChange {
        match self {
            Self::Created => FileChange::Created,
            Self::Modified => FileChange::Modified,
            Self::Removed => FileChange::Removed,
            Self::Renamed { .. } => FileChange::Renamed,
        }
    }
}

/// The event of a change; `data` is the file's content where that is wanted.
pub(super) fn event_of(change: &Change, base: &Path, trigger: &Name, source: &Arc<str>, data: Bytes) -> Event {
    let kind = change.what.change();
    let key = key_of(&change.path, base);
    let stamp = &change.stamp;
    let mut event = Event::new(source.clone(), format!("file.{}", kind.as_str()), data);
    let version = format!("{key}@{}.{}.{}", stamp.inode, stamp.size, stamp.modified);
    event.id = EventId::foreign(&match &change.what {
        What::Created => version,
        What::Renamed { from } => format!("renamed:{}>{version}", key_of(from, base)),
        _ => format!("{}:{version}", kind.as_str()),
    });
    event.subject = Some(key.as_str().into());
    event.trigger = Some(trigger.clone());
    if !event.data.is_empty() {
        event.datacontenttype = media_type(&change.path).map(Into::into);
    }
    event.meta = Meta::File(Box::new(FileMeta {
        change: kind,
        path: change.path.display().to_string(),
        from: if let What::Renamed { from } = &change.what { Some(from.display().to_string()) } else { None },
        size: stamp.size,
        modified: DateTime::from_timestamp_nanos(stamp.modified),
        etag: format!("{:x}-{:x}-{:x}", stamp.inode, stamp.size, stamp.modified),
        sequencer: format!("{:016X}", event.time.timestamp_nanos_opt().unwrap_or_default()),
        key,
    }));
    event
}

/// What a function is told of the bytes, where the name says it.
fn media_type(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    Some(match extension.as_str() {
        "csv" => "text/csv",
        "htm" | "html" => "text/html",
        "json" => "application/json",
        "jsonl" | "log" | "md" | "ndjson" | "txt" => "text/plain",
        "xml" => "application/xml",
        "yaml" | "yml" => "application/yaml",
        _ => return None,
    })
}
