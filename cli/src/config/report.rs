//! All problems of one file, for people and for programs.

use std::{fmt, path::Path};

use bus::config::Problem;
use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};
use serde_json::{Value, json};

/// The problems of one file, in its order; at least one.
#[derive(Debug)]
pub(crate) struct Report {
    source: NamedSource<String>,
    problems: Vec<Problem>,
}

impl Report {
    /// `path` as the user wrote it.
    pub(crate) fn new(path: &Path, text: String, problems: Vec<Problem>) -> Self {
        Self { source: NamedSource::new(path.display().to_string(), hidden(text)).with_language("TOML"), problems }
    }

    /// Each problem with the lines it is in, then how many there are.
    pub(crate) fn shown(&self, show: impl Fn(&dyn Diagnostic) -> String) -> String {
        let shown = |problem| show(&Shown { problem, source: &self.source }).trim_end().to_owned() + "\n\n";
        self.problems.iter().map(shown).collect::<String>() + &self.to_string()
    }

    /// One object per problem.
    pub(crate) fn json(&self) -> Vec<Value> {
        let object = |problem: &Problem| {
            let (line, column) = position(self.source.inner(), problem.span.start);
            json!({
                "file": self.source.name(),
                "line": line,
                "column": column,
                "message": problem.message,
                "advice": problem.advice,
            })
        };
        self.problems.iter().map(object).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.problems.len();
        write!(f, "{number} problem{} in {}", if number == 1 { "" } else { "s" }, self.source.name())
    }
}

/// The text with stars in place of the logins of URLs: whoever sees a problem need not see them. Nothing moves.
fn hidden(mut text: String) -> String {
    let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>');
    let mut from = 0;
    while let Some(at) = text[from..].find('@').map(|at| from + at) {
        from = at + 1;
        let begin =
            text[..at].rfind(is_end).map_or(0, |end| end + text[end..].chars().next().map_or(1, char::len_utf8));
        let word = &text[begin..at];
        let login = match (word.find("://"), word.find(':')) {
            // an `@` in the path of a URL is no login
            (Some(scheme), _) if word[scheme + 3..].contains('/') && !word[scheme + 3..].contains(':') => continue,
            (Some(scheme), _) => begin + scheme + 3,
            // a URL that lacks its scheme
            (None, Some(colon)) => begin + colon + 1,
            (None, None) => continue,
        };
        text.replace_range(login..at, &"*".repeat(at - login));
    }
    text
}

/// Line and column of a byte, both from 1, the column in characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// One problem in its file.
#[derive(Debug)]
struct Shown<'a> {
    problem: &'a Problem,
    source: &'a NamedSource<String>,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn help(&self) -> Option<Box<dyn fmt::Display + '_>> {
        self.problem.advice.as_ref().map(|advice| Box::new(advice) as _)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = LabeledSpan::new_primary_with_span(Some(self.problem.label.clone()), self.problem.span.clone());
        Some(Box::new(std::iter::once(label)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_in_urls_are_not_shown_and_nothing_moves() {
        for (text, shown) in [
            ("nats = \"nats://me:hush@host:4222\"", "nats = \"nats://*******@host:4222\""),
            ("nats = 'nats://token@host'", "nats = 'nats://*****@host'"),
            ("nats = 'me:hu@sh@host'", "nats = 'me:*****@host'"),
            ("a://x:hu/sh@h b://y:ssh@h", "a://*******@h b://*****@h"),
            ("then = 'https://host/users/@me' # mail@host", "then = 'https://host/users/@me' # mail@host"),
            ("queue = 'nats://me:härt@host'", "queue = 'nats://********@host'"),
        ] {
            let hidden = hidden(text.to_owned());
            assert_eq!((hidden.as_str(), hidden.len()), (shown, text.len()));
        }
    }

    #[test]
    fn a_column_counts_characters_from_one() {
        let text = "a = 1\nname = \"é\" x";
        assert_eq!(position(text, 0), (1, 1));
        assert_eq!(position(text, text.len() - 1), (2, 12));
        assert_eq!(position(text, text.len() + 5), (2, 13));
    }
}
