//! Days that are named by their place in the month: `L`, `LW`, `15W`, `5L`, `1#2`.

use chrono::{Datelike, NaiveDate, Weekday};

use super::field::{Field, InvalidField};

/// A day of the month that is not a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DateRule {
    /// `L`: the last day; `L-3`: three days before it.
    Last { before: u32 },
    /// `LW`: the last day from Monday to Friday.
    LastWorkday,
    /// `15W`: the day from Monday to Friday that is nearest to the 15th, in the same month.
    NearestWorkday(u32),
}

/// A day of the week in one of the month's weeks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WeekdayRule {
    /// `5L`: the last one of the month.
    Last(Weekday),
    /// `1#2`: the second one.
    Nth(Weekday, u32),
}

impl DateRule {
    /// None: it is an ordinary item. `before` allows `L-3`.
    pub(super) fn parse(field: &Field, given: &str, before: bool) -> Result<Option<Self>, InvalidField> {
        let text = given.to_ascii_uppercase();
        if text == "L" {
            return Ok(Some(Self::Last { before: 0 }));
        }
        if text == "LW" {
            return Ok(Some(Self::LastWorkday));
        }
        if let Some(days) = text.strip_prefix("L-").filter(|_| before) {
            let days = field.value(given, days)?;
            return if days < 31 {
                Ok(Some(Self::Last { before: days }))
            } else {
                Err(field.wrong(given, "is no day"))
            };
        }
        match text.strip_suffix('W') {
            Some(date) => field.value(given, date).map(|date| Some(Self::NearestWorkday(date))),
            None => Ok(None),
        }
    }

    pub(super) fn matches(&self, date: NaiveDate) -> bool {
        let last = u32::from(date.num_days_in_month());
        match *self {
            Self::Last { before } => date.day() + before == last,
            Self::LastWorkday => nearest_workday(date, last) == Some(date),
            Self::NearestWorkday(day) => nearest_workday(date, day) == Some(date),
        }
    }
}

/// The workday nearest to a day of the month that `month` is in; none when the month has no such day.
fn nearest_workday(month: NaiveDate, day: u32) -> Option<NaiveDate> {
    let date = month.with_day(day)?;
    let last = u32::from(date.num_days_in_month());
    match date.weekday() {
        Weekday::Sat if day == 1 => month.with_day(3),
        Weekday::Sat => month.with_day(day - 1),
        Weekday::Sun if day == last => month.with_day(day - 2),
        Weekday::Sun => month.with_day(day + 1),
        _ => Some(date),
    }
}

impl WeekdayRule {
    /// None: it is an ordinary item. `day` makes a weekday of the field's number.
    pub(super) fn parse(
        field: &Field,
        given: &str,
        day: impl Fn(u32) -> Weekday,
    ) -> Result<Option<Self>, InvalidField> {
        if let Some((weekday, nth)) = given.split_once('#') {
            let weekday = day(field.value(given, weekday)?);
            return match nth {
                "1" | "2" | "3" | "4" | "5" => Ok(Some(Self::Nth(weekday, u32::from(nth.as_bytes()[0] - b'0')))),
                _ => Err(field.wrong(given, "has a week of the month that is not from 1 to 5")),
            };
        }
        match given.strip_suffix(['L', 'l']) {
            Some(weekday) => field.value(given, weekday).map(|number| Some(Self::Last(day(number)))),
            None => Ok(None),
        }
    }

    pub(super) fn matches(&self, date: NaiveDate) -> bool {
        match *self {
            Self::Last(weekday) => date.weekday() == weekday && date.day() + 7 > u32::from(date.num_days_in_month()),
            Self::Nth(weekday, nth) => date.weekday() == weekday && date.day0() / 7 + 1 == nth,
        }
    }
}
