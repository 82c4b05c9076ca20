//! One field of an expression: numbers, names, ranges and steps, checked, and written the way the `cron` crate reads
//! them. That crate has days of the week from 1 (Sunday) to 7, no range over the end and years to 2100.

use std::fmt::Write;

/// What a field may hold.
pub(super) struct Field {
    /// For people: "minute".
    pub(super) name: &'static str,
    low: u32,
    high: u32,
    /// The last value that `*` and open steps reach: 6 where 7 is another Sunday.
    last: u32,
    /// Names from `low` on.
    names: &'static [&'static str],
    /// Whether a range may go over the end, such as `20-2`.
    wraps: bool,
}

const MONTHS: &[&str] = &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: &[&str] = &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// `from` to `to` in steps, as written; over the end when `to` is before `from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    from: u32,
    to: u32,
    step: u32,
}

/// Why a field is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {field} `{given}` {reason}")]
pub struct InvalidField {
    pub(super) field: &'static str,
    pub(super) given: String,
    pub(super) reason: String,
}

impl Field {
    const fn numbers(name: &'static str, low: u32, high: u32) -> Self {
        Self { name, low, high, last: high, names: &[], wraps: false }
    }

    pub(super) const MINUTE: Self = Self::numbers("minute", 0, 59);
    pub(super) const HOUR: Self = Self::numbers("hour", 0, 23);
    pub(super) const DATE: Self = Self::numbers("day of the month", 1, 31);
    pub(super) const MONTH: Self = Self { names: MONTHS, ..Self::numbers("month", 1, 12) };
    /// 0 and 7 are Sunday.
    pub(super) const UNIX_WEEKDAY: Self = Self { last: 6, names: DAYS, ..Self::numbers("day of the week", 0, 7) };
    /// 1 is Sunday.
    pub(super) const AWS_WEEKDAY: Self = Self { names: DAYS, ..Self::numbers("day of the week", 1, 7) };
    pub(super) const YEAR: Self = Self::numbers("year", 1970, 2199);

    /// The same field where ranges may go over the end.
    pub(super) const fn wrapping(self) -> Self {
        Self { wraps: true, ..self }
    }

    /// One of the parts between commas.
    pub(super) fn item(&self, given: &str) -> Result<Item, InvalidField> {
        let (range, step) = match given.split_once('/') {
            Some((range, step)) => (range, Some(self.step(given, step)?)),
            None => (given, None),
        };
        let (from, to) = if range == "*" {
            (self.low, self.last)
        } else if let Some((from, to)) = range.split_once('-') {
            (self.value(given, from)?, self.range_end(given, to)?)
        } else {
            let from = self.value(given, range)?;
            // `5/15` is open: from 5 to the end
            (from, if step.is_some() { self.last.max(from) } else { from })
        };
        if from > to && !self.wraps {
            return Err(self.wrong(given, "is a range whose end is before its beginning"));
        }
        Ok(Item { from, to, step: step.unwrap_or(1) })
    }

    /// A single value: a number or a name.
    pub(super) fn value(&self, given: &str, text: &str) -> Result<u32, InvalidField> {
        if let Some(place) = self.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(self.low + place as u32);
        }
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = if digits { text.parse().ok() } else { None };
        number.filter(|n| (self.low..=self.high).contains(n)).ok_or_else(|| {
            let names = match (self.names.first(), self.names.last()) {
                (Some(first), Some(last)) => format!(" or {first} to {last}"),
                _ => String::new(),
            };
            self.wrong(given, format!("is not one: use {} to {}{names}, lists, ranges and steps", self.low, self.high))
        })
    }

    /// A range that ends on Sunday ends on the later one.
    fn range_end(&self, given: &str, text: &str) -> Result<u32, InvalidField> {
        let value = self.value(given, text)?;
        Ok(if value == 0 && self.last < self.high && text != "0" { self.high } else { value })
    }

    fn step(&self, given: &str, text: &str) -> Result<u32, InvalidField> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let step = if digits { text.parse().ok() } else { None };
        step.filter(|step| *step > 0).ok_or_else(|| self.wrong(given, "has a step that is not a number above 0"))
    }

    pub(super) fn wrong(&self, given: &str, reason: impl Into<String>) -> InvalidField {
        InvalidField { field: self.name, given: given.to_owned(), reason: reason.into() }
    }

    /// The items in the syntax of the `cron` crate, each value moved by `shift`.
    pub(super) fn translated(&self, items: &[Item], shift: impl Fn(u32) -> u32) -> String {
        let mut text = String::new();
        for value in items.iter().flat_map(|item| self.values(item)) {
            let comma = if text.is_empty() { "" } else { "," };
            let _ = write!(text, "{comma}{}", shift(value));
        }
        text
    }

    fn values(&self, item: &Item) -> impl Iterator<Item = u32> {
        let size = self.last - self.low + 1;
        let to = if item.to < item.from { item.to + size } else { item.to };
        let (low, high, last) = (self.low, self.high, self.last);
        (item.from..=to).step_by(item.step as usize).map(move |v| if v > high { v - (last - low + 1) } else { v })
    }

    /// Whether any of the items has the value.
    pub(super) fn has(&self, items: &[Item], value: u32) -> bool {
        items.iter().any(|item| self.values(item).any(|v| v == value))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::one(&Field::MINUTE, "7", "7")]
    #[case::leading_zero(&Field::HOUR, "09", "9")]
    #[case::all(&Field::UNIX_WEEKDAY, "*", "0,1,2,3,4,5,6")]
    #[case::open_step(&Field::MINUTE, "1/20", "1,21,41")]
    #[case::step_over_the_end(&Field::MINUTE, "*/90", "0")]
    #[case::names(&Field::MONTH, "Jan-mar", "1,2,3")]
    #[case::to_the_later_sunday(&Field::UNIX_WEEKDAY, "FRI-SUN", "5,6,7")]
    #[case::over_the_end(&Field::HOUR.wrapping(), "20-2", "20,21,22,23,0,1,2")]
    #[case::over_the_end_in_steps(&Field::AWS_WEEKDAY.wrapping(), "FRI-MON/2", "6,1")]
    fn an_item_has_these_values(#[case] field: &Field, #[case] given: &str, #[case] values: &str) {
        assert_eq!(field.translated(&[field.item(given).unwrap()], |v| v), values);
    }

    #[rstest]
    #[case(&Field::MINUTE, "60")]
    #[case(&Field::MINUTE, "+5")]
    #[case(&Field::MINUTE, "5-")]
    #[case(&Field::MINUTE, "")]
    #[case(&Field::MINUTE, "5-1")]
    #[case(&Field::MINUTE, "1/2/3")]
    #[case(&Field::UNIX_WEEKDAY, "8")]
    #[case(&Field::UNIX_WEEKDAY, "6-0")]
    #[case(&Field::AWS_WEEKDAY, "0")]
    #[case(&Field::MONTH, "JANUARY")]
    #[case(&Field::YEAR, "99999999999")]
    fn what_is_not_an_item_is_refused(#[case] field: &Field, #[case] given: &str) {
        assert!(field.item(given).is_err());
    }
}
