//! Reads what belongs to `cron`.

use std::{fmt, str::FromStr, time::Duration};

use bus::config::{FromValue, Reader, Shape, Value, Wrong, closest, parsed};
use chrono::Utc;
use chrono_tz::{TZ_VARIANTS, Tz};

use super::{CronTrigger, Missed, Overlap};
use crate::cron::Expression;

/// A time zone, by its IANA name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zone(pub Tz);

/// Missed slots are made up for so long.
pub(super) const MISSED_WITHIN: Duration = Duration::from_hours(1);

/// `zone` is that of the whole file.
pub(super) fn read_cron(reader: &Reader<'_>, zone: Zone) -> Option<CronTrigger> {
    let expressions = reader.required_list("cron");
    let zone = reader.get_or("timezone", zone);
    let overlap = reader.get_or("overlap", Overlap::default());
    let missed = reader.get_or("missed", Missed::default());
    let missed_within = reader.get("missed_within");
    if missed == Missed::None {
        let wrong = Wrong::of_key("says how long missed slots are made up for, and `missed` is \"none\"");
        reader.refuse("missed_within", &wrong.advice("take one of the two out").label("not used"));
    }
    let expressions: Vec<Expression> = expressions?;
    refuse_never(reader, &expressions, zone);
    let missed_within = missed_within.unwrap_or(MISSED_WITHIN);
    Some(CronTrigger { expressions, zone, overlap, missed, missed_within })
}

/// A schedule without a slot is a mistake. One for a single time is not: the time passes while the file stays.
fn refuse_never(reader: &Reader<'_>, expressions: &[Expression], zone: Zone) {
    let now = Utc::now();
    for expression in expressions {
        if !expression.is_once() && expression.next(now, zone.0, now).is_none() {
            let wrong = Wrong::sentence(format!("`{expression}` never comes")).label("no such day");
            if let Some(field) = reader.field("cron") {
                field.wrong(&wrong.advice("is the day in that month, and the year not over?"));
            }
        }
    }
}

impl FromValue for Expression {
    fn from_value(value: &Value<'_>, _: &Shape) -> Result<Self, Wrong> {
        const ADVICE: &str =
            "write five fields such as \"0 2 * * *\", or cron(…), rate(…) or at(…) as EventBridge has them";
        let named =
            |wrong: Wrong| if value.as_str().is_some() { wrong.label("not a schedule").advice(ADVICE) } else { wrong };
        parsed(value).map_err(named)
    }
}

/// Why a text is not a zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a time zone")]
pub struct InvalidZone {
    given: String,
}

impl Zone {
    /// The zone of a file that names none.
    pub const UTC: Self = Self(Tz::UTC);
}

impl FromStr for Zone {
    type Err = InvalidZone;

    fn from_str(given: &str) -> Result<Self, InvalidZone> {
        given.parse().map(Self).map_err(|_| InvalidZone { given: given.to_owned() })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl FromValue for Zone {
    fn from_value(value: &Value<'_>, _: &Shape) -> Result<Self, Wrong> {
        parsed(value).map_err(|wrong: Wrong| {
            let Some(given) = value.as_str() else { return wrong };
            wrong.label("not a zone").advice(
                match closest(given, TZ_VARIANTS.iter().map(|zone| zone.name()).filter(|name| name.contains('/'))) {
                    Some(meant) => format!("did you mean \"{meant}\"?"),
                    None => "write an IANA name such as \"UTC\", \"Asia/Seoul\" or \"Europe/Berlin\"".to_owned(),
                },
            )
        })
    }
}
