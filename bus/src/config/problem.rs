//! What is wrong with the file: where, what, and what to do about it.

use std::{cell::RefCell, ops::Range};

/// Bytes of the file.
pub type Span = Range<usize>;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub span: Span,
    /// One sentence that reads alone.
    pub message: String,
    /// The next step.
    pub advice: Option<String>,
    /// A few words under the marked place.
    pub label: String,
}

impl Problem {
    pub fn new(span: Span, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), advice: None, label: "here".to_owned() }
    }

    pub fn advice(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    pub fn label(self, label: impl Into<String>) -> Self {
        Self { label: label.into(), ..self }
    }
}

/// All that is wrong so far. Shared by the readers of one file.
#[derive(Debug, Default)]
pub struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub fn record(&self, problem: Problem) {
        self.0.borrow_mut().push(problem);
    }

    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// In the order of the file.
    pub fn into_sorted(self) -> Vec<Problem> {
        let mut problems = self.0.into_inner();
        problems.sort_by_key(|p| (p.span.start, p.span.end));
        problems
    }
}

/// The candidate somebody most likely meant: one that begins with what is given, else one of which at most a third of
/// the letters differ.
pub fn closest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_ascii_lowercase();
    let letters = given.chars().count();
    let near = (letters / 3).max(1);
    let distance = |candidate: &str| {
        let candidate = candidate.to_ascii_lowercase();
        let begun = letters > 2 && candidate.starts_with(&given);
        if begun { 0 } else { strsim::damerau_levenshtein(&given, &candidate) }
    };
    candidates
        .into_iter()
        .map(|candidate| (distance(candidate), candidate))
        .filter(|(distance, _)| *distance <= near)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// "`a`", "`a` or `b`", "`a`, `b` or `c`".
pub fn one_of(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|w| format!("`{w}`")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [some @ .., last] => format!("{} or {last}", some.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_finds_its_word_and_another_word_finds_none() {
        let keys = ["timeout", "memory", "warm", "env"];
        assert_eq!(closest("timout", keys), Some("timeout"));
        assert_eq!(closest("Memroy", keys), Some("memory"));
        assert_eq!(closest("colour", keys), None);
        assert_eq!(closest("name", ["nats", "namespace"]), Some("namespace"));
    }

    #[test]
    fn problems_come_out_in_the_order_of_the_file() {
        let problems = Problems::default();
        problems.record(Problem::new(9..10, "second"));
        problems.record(Problem::new(1..2, "first"));
        let messages: Vec<_> = problems.into_sorted().into_iter().map(|p| p.message).collect();
        assert_eq!(messages, ["first", "second"]);
    }
}
