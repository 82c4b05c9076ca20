//! What a table of the file may contain, said once: reading, JSON Schema and printed defaults follow from it.

use std::ops::RangeInclusive;

use super::Word;

/// A table with known keys.
#[derive(Debug)]
pub struct Section {
    /// One sentence.
    pub doc: &'static str,
    /// In the order they are printed.
    pub keys: Vec<Key>,
    /// Keys that are known to come and that this version does not have.
    pub later: &'static [&'static str],
}

/// One key of a section.
#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    /// What it does, and what applies when it is not there where that is more than a value.
    pub doc: &'static str,
    pub shape: Shape,
    /// What applies when the key is not there.
    pub default: Option<toml::Value>,
    /// The default depends on the machine, so it is not part of the schema.
    pub machine: bool,
    /// A table without this key is refused.
    pub required: bool,
}

/// What a value looks like.
#[derive(Debug)]
pub enum Shape {
    /// Any string; the word says what it stands for.
    Text(&'static str),
    Bool,
    Integer(RangeInclusive<u32>),
    Duration,
    Size,
    Name,
    Path,
    Address,
    NatsUrl,
    /// One of these.
    Word(Vec<&'static str>),
    /// One value or a list of them.
    OneOrMany(Box<Shape>),
    /// A list of anything.
    List,
    Table(&'static Section),
    /// A table whose keys are the user's; the word says what they stand for.
    Map(&'static str, Box<Shape>),
    Either(Vec<Shape>),
}

impl Section {
    pub fn key(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|k| k.name == name)
    }

    pub fn names(&self) -> Vec<&'static str> {
        self.keys.iter().map(|k| k.name).collect()
    }
}

impl Key {
    pub fn new(name: &'static str, shape: Shape, doc: &'static str) -> Self {
        Self { name, doc, shape, default: None, machine: false, required: false }
    }

    pub fn default(self, value: impl Into<toml::Value>) -> Self {
        Self { default: Some(value.into()), ..self }
    }

    /// A default that is computed on this machine.
    pub fn machine_default(self, value: impl Into<toml::Value>) -> Self {
        Self { default: Some(value.into()), machine: true, ..self }
    }

    pub fn required(self) -> Self {
        Self { required: true, ..self }
    }
}

impl Shape {
    pub fn word<T: Word>() -> Self {
        Self::Word(T::WORDS.iter().map(|(word, _)| *word).collect())
    }

    pub fn one_or_many(shape: Self) -> Self {
        Self::OneOrMany(Box::new(shape))
    }

    pub fn map(of: &'static str, shape: Self) -> Self {
        Self::Map(of, Box::new(shape))
    }
}
