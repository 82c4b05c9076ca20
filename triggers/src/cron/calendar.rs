//! Minutes, hours and days of a calendar, and when they come next.
//!
//! The five fields as the `cron` crate matches them, and beside it what it has no word for: days by their place in the
//! month, the OR of the two day fields, and local time that is skipped or repeated.
//!
//! A slot whose local time is skipped comes once, at the end of the gap, unless every hour is named by `*`: then the
//! hours before and after it are its turns. A slot whose local time comes twice is taken the first time, unless `*`
//! names its minutes or hours: "every …" is a matter of elapsed time.

use std::str::FromStr;

use chrono::{DateTime, Datelike, MappedLocalTime, NaiveDate, NaiveDateTime, TimeDelta, TimeZone, Utc, Weekday};
use chrono_tz::Tz;
use cron::{Schedule, TimeUnitSpec};

use super::{
    day::{DateRule, WeekdayRule},
    field::{Field, InvalidField, Item},
};

/// The last year anything is planned for.
const LAST_YEAR: i32 = 2199;

/// A calendar schedule.
#[derive(Debug, Clone)]
pub(super) struct Calendar {
    /// Minutes, hours, days of the month, months and days of the week that are plain numbers.
    plain: Schedule,
    dates: Days<DateRule>,
    weekdays: Days<WeekdayRule>,
    /// Empty: every year.
    years: Vec<Item>,
    /// Minutes begin with `*`.
    every_minute: bool,
    /// Hours begin with `*`.
    every_hour: bool,
}

/// One of the two day fields.
#[derive(Debug, Clone)]
struct Days<R> {
    /// `*` or `?` comes first: the field restricts nothing by itself.
    open: bool,
    /// Some of the field is in the plain part.
    plain: bool,
    rules: Vec<R>,
}

/// Whose rules a calendar follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Five fields, Sunday is 0 or 7.
    Unix,
    /// Six fields, Sunday is 1.
    EventBridge,
}

impl Calendar {
    /// Minute, hour, day of the month, month, day of the week; and year, `*` where there is none.
    pub(super) fn new(fields: [&str; 6], dialect: Dialect) -> Result<Self, InvalidField> {
        let [minute, hour, date, month, weekday, year] = fields;
        let aws = dialect == Dialect::EventBridge;
        let field = |field: Field| if aws { field.wrapping() } else { field };
        let (minutes, hours, months) = (field(Field::MINUTE), field(Field::HOUR), field(Field::MONTH));
        let of_month = field(Field::DATE);
        let of_week = field(if aws { Field::AWS_WEEKDAY } else { Field::UNIX_WEEKDAY });
        // the crate counts from Sunday, 1
        let crate_weekday = |number: u32| if aws { number } else { number % 7 + 1 };
        let (dates, date_items) = Days::read(&of_month, date, |item| DateRule::parse(&of_month, item, aws))?;
        let (weekdays, weekday_items) = Days::read(&of_week, weekday, |item| {
            // EventBridge's week ends on Saturday
            let item = if aws && item.eq_ignore_ascii_case("L") { "7" } else { item };
            WeekdayRule::parse(&of_week, item, |number| named(crate_weekday(number)))
        })?;
        let plain = format!(
            "0 {} {} {} {} {}",
            minutes.translated(&list(&minutes, minute)?, |v| v),
            hours.translated(&list(&hours, hour)?, |v| v),
            or_all(&of_month.translated(&date_items, |v| v)),
            months.translated(&list(&months, month)?, |v| v),
            or_all(&of_week.translated(&weekday_items, crate_weekday)),
        );
        let plain = Schedule::from_str(&plain).map_err(|error| InvalidField {
            field: "schedule",
            given: plain,
            reason: error.to_string(),
        })?;
        let years = if year == "*" { Vec::new() } else { list(&Field::YEAR, year)? };
        let every = |text: &str| text.starts_with('*');
        Ok(Self { plain, dates, weekdays, years, every_minute: every(minute), every_hour: every(hour) })
    }

    /// The first slot after an instant, in the local time of a zone.
    pub(super) fn next(&self, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        // A day earlier: what is skipped or comes again may belong to the local day before.
        let mut date = after.with_timezone(&zone).date_naive().pred_opt()?;
        while date.year() <= LAST_YEAR {
            if !self.has_month(date) {
                date = month_after(date)?;
                continue;
            }
            if let Some(first) = self.first_of(date, after, zone) {
                // Where clocks go back over midnight the day after begins before this one has ended.
                let other = self.first_of(date.succ_opt()?, after, zone);
                return Some(other.map_or(first, |other| first.min(other)));
            }
            date = date.succ_opt()?;
        }
        None
    }

    /// The first slot of a local date that is after an instant.
    fn first_of(&self, date: NaiveDate, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        if !self.has_month(date) || !self.has_day(date) {
            return None;
        }
        let times = self.plain.hours().iter().flat_map(|h| self.plain.minutes().iter().map(move |m| (h, m)));
        let local = times.filter_map(|(hour, minute)| date.and_hms_opt(hour, minute, 0));
        local.flat_map(|local| self.instants(local, zone)).flatten().filter(|instant| *instant > after).min()
    }

    /// When a local time is: never, once or twice.
    fn instants(&self, local: NaiveDateTime, zone: Tz) -> [Option<DateTime<Utc>>; 2] {
        match zone.from_local_datetime(&local) {
            MappedLocalTime::Single(one) => [Some(one.to_utc()), None],
            MappedLocalTime::Ambiguous(first, second) => {
                let again = self.every_minute || self.every_hour;
                [Some(first.to_utc()), again.then(|| second.to_utc())]
            }
            MappedLocalTime::None if self.every_hour => [None, None],
            MappedLocalTime::None => [gap_end(local, zone), None],
        }
    }

    fn has_month(&self, date: NaiveDate) -> bool {
        let year = u32::try_from(date.year()).unwrap_or_default();
        self.plain.months().includes(date.month()) && (self.years.is_empty() || Field::YEAR.has(&self.years, year))
    }

    fn has_day(&self, date: NaiveDate) -> bool {
        let by_date = self.dates.plain && self.plain.days_of_month().includes(date.day())
            || self.dates.rules.iter().any(|rule| rule.matches(date));
        let number = date.weekday().number_from_sunday();
        let by_weekday = self.weekdays.plain && self.plain.days_of_week().includes(number)
            || self.weekdays.rules.iter().any(|rule| rule.matches(date));
        // as Unix has it: two restricted fields are alternatives, an open one only narrows
        if self.dates.open || self.weekdays.open { by_date && by_weekday } else { by_date || by_weekday }
    }
}

/// The instant at which a gap of local time ends; `local` is in the gap.
pub(super) fn gap_end(local: NaiveDateTime, zone: Tz) -> Option<DateTime<Utc>> {
    // the longest gap there ever was is a day, when islands changed sides of the date line
    let mut minutes = (1..=25 * 60).map(|minutes| local + TimeDelta::minutes(minutes));
    minutes.find_map(|later| zone.from_local_datetime(&later).earliest()).map(|end| end.to_utc())
}

impl<R> Days<R> {
    /// The rules of a field, and its plain items.
    fn read(
        field: &Field,
        text: &str,
        rule: impl Fn(&str) -> Result<Option<R>, InvalidField>,
    ) -> Result<(Self, Vec<Item>), InvalidField> {
        let mut days = Self { open: text.starts_with(['*', '?']), plain: false, rules: Vec::new() };
        let mut items = Vec::new();
        for item in text.split(',') {
            match rule(item)? {
                Some(rule) => days.rules.push(rule),
                None => items.push(field.item(if text == "?" { "*" } else { item })?),
            }
        }
        days.plain = !items.is_empty();
        Ok((days, items))
    }
}

fn list(field: &Field, text: &str) -> Result<Vec<Item>, InvalidField> {
    text.split(',').map(|item| field.item(item)).collect()
}

fn or_all(text: &str) -> &str {
    if text.is_empty() { "*" } else { text }
}

/// 1 is Sunday.
fn named(number: u32) -> Weekday {
    use Weekday::{Fri, Mon, Sat, Sun, Thu, Tue, Wed};
    [Sun, Mon, Tue, Wed, Thu, Fri, Sat][(number as usize + 6) % 7]
}

fn month_after(date: NaiveDate) -> Option<NaiveDate> {
    date.with_day(1)?.checked_add_months(chrono::Months::new(1))
}
