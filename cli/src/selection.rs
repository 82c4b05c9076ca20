//! Which events: the filters that `events`, `dead` and `replay` share.

use bus::log::{Status, query::Selection};
use chrono::{DateTime, Local, NaiveDate, NaiveDateTime, TimeZone, Utc};

/// Filters; all that are given must hold.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Which events")]
pub(crate) struct SelectionArgs {
    /// Events that came by this trigger, or matched its rule
    #[arg(long, value_name = "NAME")]
    trigger: Option<String>,
    /// Deliveries to this function, pipeline or other target
    #[arg(long, visible_alias = "target", value_name = "NAME")]
    function: Option<String>,
    /// Events of this type, such as http.request
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Deliveries in this state: pending, running, retrying, done, dead, expired, …
    #[arg(long, value_parser = status, value_name = "STATUS")]
    status: Option<Status>,
    /// From then on: 10m, 2h, 3d (ago), 2026-11-23, 2026-11-23T14:00 (local) or RFC 3339
    #[arg(long, value_parser = when, value_name = "TIME")]
    since: Option<DateTime<Utc>>,
    /// Before then, in the same forms
    #[arg(long, value_parser = when, value_name = "TIME")]
    until: Option<DateTime<Utc>>,
}

impl SelectionArgs {
    pub(crate) fn selection(self, ids: Vec<String>) -> Selection {
        let Self { trigger, function, kind, status, since, until } = self;
        Selection { ids, trigger, function, kind, status, reason: None, since, until }
    }
}

fn status(text: &str) -> Result<Status, String> {
    Status::parse(text).ok_or_else(|| {
        let known: Vec<_> = Status::ALL.iter().map(|status| status.as_str()).collect();
        format!("use one of {}", known.join(", "))
    })
}

pub(crate) fn when(text: &str) -> Result<DateTime<Utc>, String> {
    point(text, Utc::now())
}

/// A point in time as people write it.
fn point(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(now - ago);
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().and_then(|date| date.and_hms_opt(0, 0, 0));
    let local = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .or(date);
    local
        .and_then(|local| Local.from_local_datetime(&local).earliest())
        .map(|time| time.to_utc())
        .ok_or_else(|| "use 10m, 2h or 3d (ago), 2026-11-23, 2026-11-23T14:00 or RFC 3339".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let now = Utc::now();
        assert_eq!(point("2h", now), Ok(now - chrono::Duration::hours(2)));
        assert_eq!(when("2026-11-23T14:00:00+09:00").unwrap().to_rfc3339(), "2026-11-23T05:00:00+00:00");
        for good in ["2026-11-23", "2026-11-23T14:00", "2026-11-23 14:00:05"] {
            assert!(when(good).is_ok(), "{good}");
        }
        for bad in ["", "yesterday", "14:00", "2026-13-01"] {
            assert!(when(bad).is_err(), "{bad}");
        }
    }
}
