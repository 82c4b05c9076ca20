//! `file:path`: one line of JSON for each delivery: `delivery`, `event`, `type`, `source`, `time` and `data`. A line that
//! a crash left half written is cut off before the next is added.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::sleep;

use super::{AGAIN, Refused, Sent};
use crate::{cloudevent::timestamp, log::backlog::Due, pipeline::as_json};

/// How much of a file's end is looked at to find where its last whole line ends.
const LOOK: u64 = 64 * 1024;

pub(super) struct Files {
    base: PathBuf,
    /// One writer a file at a time.
    locks: Mutex<HashMap<PathBuf, Arc<Mutex<()>>>>,
}

#[derive(Serialize)]
struct Line<'a> {
    delivery: String,
    event: String,
    #[serde(rename = "type")]
    kind: &'a str,
    source: &'a str,
    time: String,
    data: Box<RawValue>,
}

impl Files {
    pub(super) fn new(base: PathBuf) -> Self {
        Self { base, locks: Mutex::default() }
    }

    pub(super) async fn append(&self, path: &str, due: &Due) -> Sent {
        let path = self.base.join(path);
        let line = Line {
            delivery: due.id.to_string(),
            event: due.event.id.to_string(),
            kind: &due.event.kind,
            source: &due.event.source,
            time: timestamp(due.event.time),
            data: as_json(&due.event.data),
        };
        let mut text = serde_json::to_string(&line).unwrap_or_default().replace('\n', " ");
        text.push('\n');
        let lock = self.locks.lock().unwrap_or_else(PoisonError::into_inner).entry(path.clone()).or_default().clone();
        let shown = path.display().to_string();
        let text: Arc<str> = text.into();
        let written = loop {
            let (lock, path, text) = (lock.clone(), path.clone(), text.clone());
            let written = tokio::task::spawn_blocking(move || {
                let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
                write(&path, &text)
            });
            match written.await {
                // that is no fault of the target, and costs no attempt
                Ok(Err(error)) if is_for_want_of_descriptors(&error) => sleep(AGAIN).await,
                written => break written,
            }
        };
        match written {
            Ok(Ok(())) => Ok(Bytes::new()),
            Ok(Err(error)) => Err(Refused::new("File.Write", format!("{shown} cannot be written: {error}"))),
            Err(error) => Err(Refused::new("File.Write", error.to_string())),
        }
    }
}

/// Whether this process, or the machine, has no descriptor left.
fn is_for_want_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE].iter().any(|lack| error.raw_os_error() == Some(lack.raw_os_error()))
}

fn write(path: &Path, line: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = File::options().create(true).read(true).write(true).truncate(false).open(path)?;
    let end = whole_lines(&mut file)?;
    file.set_len(end)?;
    file.seek(SeekFrom::Start(end))?;
    file.write_all(line.as_bytes())?;
    file.sync_data()
}

/// Where the last whole line of a file ends.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    while end > 0 {
        let from = end.saturating_sub(LOOK);
        let mut tail = vec![0; (end - from) as usize];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(&mut tail)?;
        match tail.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => return Ok(from + at as u64 + 1),
            None => end = from,
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_tail_is_cut_off_before_the_next_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/out.jsonl");
        write(&path, "{\"n\":1}\n").unwrap();
        File::options().append(true).open(&path).unwrap().write_all(b"{\"n\":").unwrap();
        write(&path, "{\"n\":2}\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"n\":1}\n{\"n\":2}\n");
    }

    #[test]
    fn a_tail_longer_than_one_look_is_found_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        fs::write(&path, format!("a\n{}", "x".repeat(LOOK as usize * 2 + 7))).unwrap();
        write(&path, "b\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a\nb\n");
    }
}
