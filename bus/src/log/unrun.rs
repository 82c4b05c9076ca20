//! Deliveries that end without having run: too old, or not what was accepted. What waited for one and what was to follow from it
//! goes on.

use super::{
    DeadReason, Status, Tx, attempt,
    delivery::{Current, End, Ended, Rules, finish_attempt},
    follow,
};
use crate::{
    ambient,
    outcome::{Ending, Outcome},
};

/// Ends a pending delivery that is older than its function allows; what waited for that and what was to follow goes on.
pub(crate) fn expire(tx: &Tx<'_>, row: i64, by: &Rules<'_>) -> rusqlite::Result<Option<End>> {
    let message = "it was older than `retry.max_age` before an attempt could begin";
    end(tx, row, by, DeadReason::Expired, &Outcome::failure(Ending::Error, "Runtime.Expired", message))
}

/// Ends a pending delivery whose event has another body in the log than was accepted: that is not run. What was to follow
/// goes on, and an attempt that never began says why.
pub(crate) fn refuse(tx: &Tx<'_>, row: i64, by: &Rules<'_>) -> rusqlite::Result<Option<End>> {
    let message = "the body of the event in the log is not what was accepted, so it was not run; `fnbus backup --check` \
                   lists all such events, docs/operating.md says how a backup is restored";
    end(tx, row, by, DeadReason::Corrupt, &Outcome::failure(Ending::Error, "Log.Corrupt", message))
}

/// The same where another event has its id, `id`, with another body.
pub(crate) fn conflict(tx: &Tx<'_>, row: i64, by: &Rules<'_>, id: &str) -> rusqlite::Result<Option<End>> {
    let message = format!(
        "another event was accepted as `{id}` with another body, so this one was not run; `fnbus dead redrive` runs it \
         nevertheless"
    );
    end(tx, row, by, DeadReason::Conflict, &Outcome::failure(Ending::Error, "Event.Conflict", message))
}

fn end(tx: &Tx<'_>, row: i64, by: &Rules<'_>, reason: DeadReason, outcome: &Outcome) -> rusqlite::Result<Option<End>> {
    let Some(mut current) = Current::read(tx, row)?.filter(|current| current.status == Status::Pending) else {
        return Ok(None);
    };
    let status = if reason == DeadReason::Expired { Status::Expired } else { Status::Dead };
    if status == Status::Dead {
        current.attempts += 1;
        attempt::insert_closed(tx, attempt::attempt_row(row, current.attempts), by.node, outcome)?;
    }
    let freed = finish_attempt(tx, &current, status, Some(reason), ambient::now())?;
    let following = follow::ended(tx, &current, outcome, by, Some(reason))?;
    Ok(Some(following.of(Ended::Final(status), freed)))
}
