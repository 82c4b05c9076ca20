//! An expression as written in the config: five fields with Unix meaning, or EventBridge's `cron(…)`, `rate(…)` and
//! `at(…)`.

use std::{fmt, str::FromStr};

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

use super::{
    calendar::{Calendar, Dialect, gap_end},
    field::InvalidField,
};

/// When a trigger fires.
#[derive(Debug, Clone)]
pub struct Expression {
    /// As written, without blanks around it.
    text: String,
    plan: Plan,
}

#[derive(Debug, Clone)]
enum Plan {
    Calendar(Box<Calendar>),
    /// So long after the trigger began, and again.
    Rate(TimeDelta),
    /// Once, at this local time.
    At(NaiveDateTime),
}

/// Why a text is not an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidExpression {
    #[error("`{given}` has {found} fields, and a cron expression has 5: minute, hour, day, month, day of the week")]
    Fields { given: String, found: usize },
    #[error(
        "`{given}` has {found} fields, and cron(…) has 6: minute, hour, day of the month, month, day of the week, year"
    )]
    EventBridgeFields { given: String, found: usize },
    #[error("`{given}` is not a cron expression: {error}")]
    Field { given: String, error: InvalidField },
    #[error("`{given}` needs `?` in exactly one of its two day fields")]
    Days { given: String },
    #[error("`{given}` is not one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly and @annually")]
    Macro { given: String },
    #[error("`{given}` is not a rate: write rate(1 minute), rate(5 minutes), rate(12 hours) or rate(7 days)")]
    Rate { given: String },
    #[error("`{given}` is not a time: write at(2027-01-31T08:30:00)")]
    At { given: String },
}

impl Expression {
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first slot after an instant. `began` is when the trigger was first seen: rates count from there.
    pub fn next(&self, after: DateTime<Utc>, zone: Tz, began: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match &self.plan {
            Plan::Calendar(calendar) => calendar.next(after, zone),
            Plan::Rate(every) => {
                let passed = (after - began).num_seconds().div_euclid(every.num_seconds()).max(0);
                let turn = i32::try_from(passed + 1).ok()?;
                began.checked_add_signed(every.checked_mul(turn)?)
            }
            Plan::At(local) => {
                let once = match zone.from_local_datetime(local) {
                    MappedLocalTime::Single(one) | MappedLocalTime::Ambiguous(one, _) => Some(one.to_utc()),
                    MappedLocalTime::None => gap_end(*local, zone),
                };
                once.filter(|once| *once > after)
            }
        }
    }

    /// Whether it is for one time only.
    pub fn is_once(&self) -> bool {
        matches!(self.plan, Plan::At(_))
    }

    /// How often, where that is the same at all times.
    pub fn every(&self) -> Option<TimeDelta> {
        if let Plan::Rate(every) = self.plan { Some(every) } else { None }
    }
}

impl FromStr for Expression {
    type Err = InvalidExpression;

    fn from_str(given: &str) -> Result<Self, InvalidExpression> {
        let text = given.trim();
        let inside = |word: &str| text.strip_prefix(word)?.strip_prefix('(')?.strip_suffix(')');
        let plan = if let Some(fields) = inside("cron") {
            event_bridge(text, fields)?
        } else if let Some(rate) = inside("rate") {
            Plan::Rate(every(rate).ok_or_else(|| InvalidExpression::Rate { given: text.to_owned() })?)
        } else if let Some(time) = inside("at") {
            let time = NaiveDateTime::parse_from_str(time.trim(), "%Y-%m-%dT%H:%M:%S");
            Plan::At(time.map_err(|_| InvalidExpression::At { given: text.to_owned() })?)
        } else {
            unix(text)?
        };
        Ok(Self { text: text.to_owned(), plan })
    }
}

fn unix(given: &str) -> Result<Plan, InvalidExpression> {
    let fields = match given.to_ascii_lowercase().as_str() {
        "@hourly" => "0 * * * *",
        "@daily" | "@midnight" => "0 0 * * *",
        "@weekly" => "0 0 * * 0",
        "@monthly" => "0 0 1 * *",
        "@yearly" | "@annually" => "0 0 1 1 *",
        word if word.starts_with('@') => return Err(InvalidExpression::Macro { given: given.to_owned() }),
        _ => given,
    };
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let [minute, hour, date, month, weekday] = fields[..] else {
        return Err(InvalidExpression::Fields { given: given.to_owned(), found: fields.len() });
    };
    calendar(given, [minute, hour, date, month, weekday, "*"], Dialect::Unix)
}

fn event_bridge(given: &str, fields: &str) -> Result<Plan, InvalidExpression> {
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let [minute, hour, date, month, weekday, year] = fields[..] else {
        return Err(InvalidExpression::EventBridgeFields { given: given.to_owned(), found: fields.len() });
    };
    if (date == "?") == (weekday == "?") {
        return Err(InvalidExpression::Days { given: given.to_owned() });
    }
    calendar(given, [minute, hour, date, month, weekday, year], Dialect::EventBridge)
}

fn calendar(given: &str, fields: [&str; 6], dialect: Dialect) -> Result<Plan, InvalidExpression> {
    let calendar = Calendar::new(fields, dialect);
    let calendar = calendar.map_err(|error| InvalidExpression::Field { given: given.to_owned(), error })?;
    Ok(Plan::Calendar(Box::new(calendar)))
}

/// `5 minutes`: the singular goes with 1 and with nothing else.
fn every(text: &str) -> Option<TimeDelta> {
    let (value, unit) = text.trim().split_once(char::is_whitespace)?;
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let value: i64 = if digits { value.parse::<u32>().ok()?.into() } else { return None };
    match (value, unit.trim_start()) {
        (1, "minute") => TimeDelta::try_minutes(1),
        (1, "hour") => TimeDelta::try_hours(1),
        (1, "day") => TimeDelta::try_days(1),
        (0 | 1, _) => None,
        (n, "minutes") => TimeDelta::try_minutes(n),
        (n, "hours") => TimeDelta::try_hours(n),
        (n, "days") => TimeDelta::try_days(n),
        _ => None,
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
