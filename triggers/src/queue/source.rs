//! Which queue is meant: `nats:` and a subject.

use std::{fmt, str::FromStr};

/// A subject of the NATS that the bus uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSource {
    /// May end in `>` and have `*` for any of its words.
    pub subject: String,
}

/// Why a text is not a queue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidQueue {
    #[error("queues of `{scheme}` are not available in this version")]
    Broker { scheme: String },
    #[error("another NATS server than that of the bus is not available in this version")]
    Server,
    #[error("`{given}` does not say which queue")]
    NoScheme { given: String },
    #[error("`{given}` is not a subject: {reason}")]
    Subject { given: String, reason: &'static str },
}

impl FromStr for QueueSource {
    type Err = InvalidQueue;

    fn from_str(given: &str) -> Result<Self, InvalidQueue> {
        let given = given.trim();
        let Some((scheme, subject)) = given.split_once(':') else {
            return Err(InvalidQueue::NoScheme { given: given.to_owned() });
        };
        if scheme != "nats" {
            // what follows the scheme may have a password
            return Err(InvalidQueue::Broker { scheme: scheme.to_owned() });
        }
        if subject.starts_with("//") {
            return Err(InvalidQueue::Server);
        }
        let wrong = |reason| Err(InvalidQueue::Subject { given: subject.to_owned(), reason });
        let mut words = subject.split('.').peekable();
        if matches!(words.peek(), Some(&("*" | ">"))) {
            return wrong("the first word is not a wildcard: it would take what is fnbus' own");
        }
        while let Some(word) = words.next() {
            if word == ">" && words.peek().is_some() {
                return wrong("`>` stands at the end");
            }
            if word.len() > 1 && word.contains(['*', '>']) {
                return wrong("`*` and `>` stand alone between dots");
            }
        }
        Ok(Self { subject: subject.to_owned() })
    }
}

impl fmt::Display for QueueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nats:{}", self.subject)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("nats:payments.>")]
    #[case("nats:a.*.b")]
    #[case("nats:one")]
    fn a_queue_reads_back(#[case] given: &str) {
        assert_eq!(given.parse::<QueueSource>().map(|queue| queue.to_string()), Ok(given.to_owned()));
    }

    #[rstest]
    #[case("payments", "does not say which queue")]
    #[case("amqp://me:hush@host/q", "queues of `amqp` are not available")]
    #[case("nats://host:4222/a", "another NATS server")]
    #[case("nats:>", "the first word is not a wildcard")]
    #[case("nats:a.>.b", "`>` stands at the end")]
    #[case("nats:a.b*", "stand alone")]
    fn what_is_no_queue_says_why(#[case] given: &str, #[case] reason: &str) {
        let error = given.parse::<QueueSource>().unwrap_err().to_string();
        assert!(error.contains(reason) && !error.contains("hush"), "{error}");
    }
}
