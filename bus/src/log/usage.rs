//! Which function was called when, read from the log for whoever looks at its use as a whole.

use std::{collections::HashMap, path::Path};

use super::{
    backup::{BackupError, existing, unread},
    open_reader,
};

/// One invocation, whatever it carried. Microseconds, `started` since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invoked {
    pub started: i64,
    pub took: i64,
}

/// The invocations of one function that are in the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FunctionUsage {
    /// In the order of time.
    pub calls: Vec<Invoked>,
    /// Those that were not warm, and what their starts took, all together.
    pub starts: u32,
    pub start_micros: i64,
}

impl FunctionUsage {
    /// What a start took, as a mean; none where none is in the log.
    pub fn start_seconds(&self) -> Option<f64> {
        (self.starts > 0).then(|| self.start_micros as f64 / 1e6 / f64::from(self.starts))
    }
}

/// Attempts of functions that have ended, synchronous calls among them. Those of one batch share an invocation, and what was
/// lost or ran no function has no version.
const CALLS: &str = "SELECT d.target, min(a.started), max(a.run_us), max(a.cold), max(a.start_us + a.init_us) \
     FROM attempt a JOIN delivery d ON d.seq = a.id >> 12 \
     WHERE a.outcome IS NOT NULL AND a.started IS NOT NULL AND a.version <> '' \
     GROUP BY d.target, coalesce(a.invocation, a.id) ORDER BY 2";

/// How functions were called, by the log of a data folder; a node may use it meanwhile. Says how many calls are read, of
/// all.
pub fn functions(data: &Path, mut tell: impl FnMut(u64, u64)) -> Result<Vec<FunctionUsage>, BackupError> {
    let log = existing(&data.join("log.db"))?;
    let unread = |error| unread(&log, error);
    let connection = open_reader(&log).map_err(unread)?;
    let mut read = || {
        let all: u64 = connection.query_row("SELECT count(*) FROM attempt", [], |row| row.get(0))?;
        let mut functions: HashMap<String, FunctionUsage> = HashMap::new();
        let mut statement = connection.prepare(CALLS)?;
        let mut rows = statement.query([])?;
        let mut done = 0;
        while let Some(row) = rows.next()? {
            let function = functions.entry(row.get(0)?).or_default();
            let took = row.get::<_, Option<i64>>(2)?.unwrap_or_default();
            function.calls.push(Invoked { started: row.get(1)?, took });
            if row.get::<_, Option<i64>>(3)?.unwrap_or_default() > 0 {
                function.starts += 1;
                function.start_micros += row.get::<_, Option<i64>>(4)?.unwrap_or_default();
            }
            done += 1;
            if done % 1000 == 0 {
                tell(done, all);
            }
        }
        // so that the same log gives the same
        let mut functions: Vec<(String, FunctionUsage)> = functions.into_iter().collect();
        functions.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(functions.into_iter().map(|(_, usage)| usage).collect())
    };
    read().map_err(unread)
}
