//! How long a runtime is kept up by those who make it: dates, and what they mean today. Pure.
//!
//! Names and dates are those that AWS announces for its runtimes, as they stood in the autumn of 2026: projected, and
//! where one was put off, the later one. The blocks of `nodejs18.x` are not known to us and follow after the least time
//! that the policy of AWS has, 30 and 60 days. A block of invocations is ours alone.

use chrono::{DateTime, Days, NaiveDate, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::config::RuntimeKind::{self, Node, Provided, Python};

/// How long before the end of a runtime it is said.
const NOTICE: Days = Days::new(180);
/// From the block of updates to that of invocations.
const LAST: Days = Days::new(180);

/// A runtime by the name that AWS has for it, and its dates, of which each is the first day. Its name stands for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lifecycle {
    pub name: &'static str,
    pub kind: RuntimeKind,
    /// It gets no fixes any more.
    pub deprecation_date: NaiveDate,
    /// No function is made for it, where that is enforced.
    pub function_create_block_date: NaiveDate,
    /// None of its functions is changed.
    pub function_update_block_date: NaiveDate,
}

/// What is refused from a date on, where it is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Create,
    Update,
    Invoke,
}

/// How a runtime stands today.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Supported,
    /// Deprecated within half a year.
    Ending,
    Deprecated,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Supported => "supported",
            Self::Ending => "ending",
            Self::Deprecated => "deprecated",
        }
    }
}

type Ymd = (i32, u32, u32);

const fn date((year, month, day): Ymd) -> NaiveDate {
    match NaiveDate::from_ymd_opt(year, month, day) {
        Some(date) => date,
        None => NaiveDate::MAX,
    }
}

const fn of(name: &'static str, kind: RuntimeKind, deprecation: Ymd, create: Ymd, update: Ymd) -> Lifecycle {
    Lifecycle {
        name,
        kind,
        deprecation_date: date(deprecation),
        function_create_block_date: date(create),
        function_update_block_date: date(update),
    }
}

/// Every runtime that has dates.
pub const LIFECYCLES: &[Lifecycle] = &[
    of("python3.8", Python, (2024, 10, 14), (2026, 8, 31), (2026, 9, 30)),
    of("python3.9", Python, (2025, 12, 15), (2026, 8, 31), (2026, 9, 30)),
    of("python3.10", Python, (2026, 10, 31), (2026, 11, 30), (2027, 1, 15)),
    of("python3.11", Python, (2027, 6, 30), (2027, 7, 31), (2027, 8, 31)),
    of("python3.12", Python, (2028, 10, 31), (2028, 11, 30), (2029, 1, 10)),
    of("python3.13", Python, (2029, 6, 30), (2029, 7, 31), (2029, 8, 31)),
    of("python3.14", Python, (2029, 6, 30), (2029, 7, 31), (2029, 8, 31)),
    of("nodejs18.x", Node, (2025, 9, 1), (2025, 10, 1), (2025, 10, 31)),
    of("nodejs20.x", Node, (2026, 4, 30), (2026, 8, 31), (2026, 9, 30)),
    of("nodejs22.x", Node, (2027, 4, 30), (2027, 6, 1), (2027, 7, 1)),
    of("nodejs24.x", Node, (2028, 4, 30), (2028, 6, 1), (2028, 7, 1)),
    of("provided.al2", Provided, (2026, 7, 31), (2027, 2, 1), (2027, 3, 3)),
    of("provided.al2023", Provided, (2029, 6, 30), (2029, 7, 31), (2029, 8, 31)),
];

impl Lifecycle {
    /// The runtime of a name; none where there is none, or it has no dates.
    pub fn of(name: &str) -> Option<Self> {
        LIFECYCLES.iter().copied().find(|lifecycle| lifecycle.name == name)
    }

    /// None of its functions is run, where that is enforced.
    pub fn function_invoke_block_date(&self) -> NaiveDate {
        self.function_update_block_date.checked_add_days(LAST).unwrap_or(NaiveDate::MAX)
    }

    pub fn stage(&self, now: DateTime<Utc>) -> Stage {
        let today = now.date_naive();
        if today >= self.deprecation_date {
            Stage::Deprecated
        } else if today.checked_add_days(NOTICE).is_none_or(|soon| soon >= self.deprecation_date) {
            Stage::Ending
        } else {
            Stage::Supported
        }
    }

    /// What is to be known of it, after its name: from half a year before its end on.
    pub fn warning(&self, now: DateTime<Utc>) -> Option<String> {
        let day = self.deprecation_date;
        let ends = match self.stage(now) {
            Stage::Supported => return None,
            Stage::Ending => match (day - now.date_naive()).num_days() {
                1 => format!("is deprecated from {day}, tomorrow"),
                days => format!("is deprecated from {day}, in {days} days"),
            },
            Stage::Deprecated => format!("is deprecated since {day}"),
        };
        Some(format!("{ends}: take a newer one (`fnbus runtimes` has the dates)"))
    }

    /// Why something is not done with it, where that is enforced.
    pub fn refuses(&self, act: Act, now: DateTime<Utc>) -> Option<String> {
        let (from, what) = match act {
            Act::Create => (self.function_create_block_date, "no function is made for it"),
            Act::Update => (self.function_update_block_date, "no function of it is changed"),
            Act::Invoke => (self.function_invoke_block_date(), "no function of it is run"),
        };
        (now.date_naive() >= from).then(|| {
            let (name, ended) = (self.name, self.deprecation_date);
            format!(
                "{name} is deprecated since {ended}, and {what} since {from}: take a newer runtime, or take `enforce` out of \
                 [runtimes]"
            )
        })
    }
}

impl Serialize for Lifecycle {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name)
    }
}

impl<'de> Deserialize<'de> for Lifecycle {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        Self::of(&name).ok_or_else(|| D::Error::custom(format!("`{name}` is no runtime that this fnbus knows")))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn at(day: &str) -> DateTime<Utc> {
        format!("{day}T12:00:00Z").parse().unwrap()
    }

    #[rstest]
    #[case::long_before("2026-10-31", Stage::Supported, None)]
    #[case::half_a_year_before("2026-11-01", Stage::Ending, Some("from 2027-04-30, in 180 days"))]
    #[case::the_day_before("2027-04-29", Stage::Ending, Some("from 2027-04-30, tomorrow"))]
    #[case::on_the_day("2027-04-30", Stage::Deprecated, Some("since 2027-04-30"))]
    #[case::long_after("2040-01-01", Stage::Deprecated, Some("since 2027-04-30"))]
    fn the_end_of_a_runtime_is_said_half_a_year_before_and_ever_after(
        #[case] day: &str,
        #[case] stage: Stage,
        #[case] says: Option<&str>,
    ) {
        let node = Lifecycle::of("nodejs22.x").unwrap();
        assert_eq!(node.stage(at(day)), stage);
        let said = node.warning(at(day));
        match says {
            Some(says) => assert!(said.is_some_and(|said| said.contains(says) && said.contains("fnbus runtimes"))),
            None => assert_eq!(said, None),
        }
    }

    #[rstest]
    #[case::before_it_ends("2027-04-29", [false, false, false])]
    #[case::when_it_has_ended("2027-05-31", [false, false, false])]
    #[case::then_none_is_made("2027-06-01", [true, false, false])]
    #[case::then_none_is_changed("2027-07-01", [true, true, false])]
    #[case::then_none_is_run("2027-12-28", [true, true, true])]
    fn what_is_enforced_comes_one_after_the_other(#[case] day: &str, #[case] expect: [bool; 3]) {
        let node = Lifecycle::of("nodejs22.x").unwrap();
        let refused = [Act::Create, Act::Update, Act::Invoke].map(|act| node.refuses(act, at(day)));
        assert_eq!(refused.each_ref().map(Option::is_some), expect);
        assert!(
            refused.iter().flatten().all(|said| said.starts_with("nodejs22.x is deprecated since 2027-04-30, and no"))
        );
    }

    #[test]
    fn every_runtime_has_its_dates_in_order_and_a_name_that_reads_back() {
        for lifecycle in LIFECYCLES {
            let json = serde_json::to_string(lifecycle).unwrap();
            assert_eq!(json, format!("{:?}", lifecycle.name));
            assert_eq!(serde_json::from_str::<Lifecycle>(&json).unwrap(), *lifecycle);
            let Lifecycle { deprecation_date, function_create_block_date, function_update_block_date, .. } = *lifecycle;
            assert!(deprecation_date < function_create_block_date, "{json}");
            assert!(function_create_block_date < function_update_block_date, "{json}");
            assert!(function_update_block_date < lifecycle.function_invoke_block_date(), "{json}");
            assert!(lifecycle.function_invoke_block_date() < NaiveDate::MAX, "{json}");
        }
        assert_eq!(Lifecycle::of("command"), None);
        assert!(serde_json::from_str::<Lifecycle>("\"python2.7\"").is_err());
    }
}
