//! Takes one table of the file apart along its section.
//!
//! A getter never fails: what is wrong is recorded with its place, and reading goes on with nothing or with the
//! default. [`Reader::finish`] then says which keys nobody knows.

use std::{cell::RefCell, sync::LazyLock};

use toml::de::DeTable;

use super::{Field, FromValue, Problem, Problems, Section, Shape, Span, Wrong, closest};

static EMPTY: LazyLock<DeTable<'static>> = LazyLock::new(DeTable::new);

/// Reads one table. Call `finish` at the end, or drop it where one problem already says it all.
pub struct Reader<'a> {
    table: &'a DeTable<'a>,
    at: Span,
    section: &'a Section,
    path: String,
    problems: &'a Problems,
    /// The keys that were asked for, to prove that what is described is read.
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Reader<'a> {
    /// A table that was named at `at`; `path` is the dotted way to it, empty for the whole file.
    pub fn new(
        table: &'a DeTable<'a>,
        at: Span,
        section: &'a Section,
        path: impl Into<String>,
        problems: &'a Problems,
    ) -> Self {
        Self { table, at, section, path: path.into(), problems, asked: RefCell::default() }
    }

    /// Where the table is named: for what is missing in it.
    pub fn at(&self) -> Span {
        self.at.clone()
    }

    /// The table's name for people: `[functions.price]`.
    pub fn title(&self) -> String {
        if self.path.is_empty() { "the file".to_owned() } else { format!("[{}]", self.path) }
    }

    /// Whether the key is there, right or wrong.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Where a key is, known or not; the table itself when it is not there.
    pub fn key_span(&self, key: &str) -> Span {
        self.table.get_key_value(key).map_or(self.at(), |(name, _)| name.span())
    }

    /// The key with its place.
    pub fn field(&self, key: &str) -> Option<Field<'a>> {
        let known = self.section.key(key);
        debug_assert!(known.is_some(), "`{key}` is read and not described in {}", self.title());
        let known = known?;
        self.asked.borrow_mut().push(known.name);
        let (name, value) = self.table.get_key_value(key)?;
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        let name_span = name.span();
        Some(Field { name: name.get_ref(), name_span, value, shape: &known.shape, path, problems: self.problems })
    }

    /// The value; none when it is not there or wrong.
    pub fn get<T: FromValue>(&self, key: &str) -> Option<T> {
        self.field(key)?.read()
    }

    pub fn get_or<T: FromValue>(&self, key: &str, default: T) -> T {
        self.get(key).unwrap_or(default)
    }

    /// The value; that it is missing is a problem.
    pub fn required<T: FromValue>(&self, key: &str) -> Option<T> {
        self.require(key)?.read()
    }

    /// One value or a list of at least one; none when it is missing or any is wrong.
    pub fn required_list<T: FromValue>(&self, key: &str) -> Option<Vec<T>> {
        let field = self.require(key)?;
        let list = field.list()?;
        if list.is_empty() {
            field.wrong(&Wrong::of_key("must not be empty").advice("name at least one").label("empty list"));
            return None;
        }
        Some(list)
    }

    /// The key with its place; that it is missing is a problem.
    pub fn require_field(&self, key: &str) -> Option<Field<'a>> {
        self.require(key)
    }

    /// One value or a list of them; empty when it is not there or any is wrong.
    pub fn list<T: FromValue>(&self, key: &str) -> Vec<T> {
        self.field(key).and_then(|field| field.list()).unwrap_or_default()
    }

    fn require(&self, key: &str) -> Option<Field<'a>> {
        let field = self.field(key);
        if field.is_none() {
            let problem = Problem::new(self.at(), format!("{} has no `{key}`", self.title())).label("incomplete");
            let advice = match self.section.key(key).map(|k| &k.shape) {
                Some(Shape::Word(words)) => format!("add {key} = \"{}\"", words.first().unwrap_or(&"")),
                _ => format!("add {key} = …"),
            };
            self.problems.record(problem.advice(advice));
        }
        field
    }

    /// A table with keys of its own; where it is not there, an empty one, so that its defaults come out.
    pub fn table(&self, key: &str) -> Reader<'a> {
        if let Some(reader) = self.field(key).and_then(|f| f.reader()) {
            return reader;
        }
        let section = match self.section.key(key).map(|k| &k.shape) {
            Some(Shape::Table(section)) => section,
            _ => self.section,
        };
        Reader::new(&EMPTY, self.at(), section, key, self.problems)
    }

    /// The keys of a table whose names are the user's, in the order of the file; nothing when it is not there.
    pub fn fields(&self, key: &str) -> Vec<Field<'a>> {
        self.field(key).map(|f| f.fields()).unwrap_or_default()
    }

    /// Refuses a key that is there, whatever its value.
    pub fn refuse(&self, key: &str, wrong: &Wrong) {
        if let Some(field) = self.field(key) {
            field.wrong_name(wrong);
        }
    }

    /// Records a problem that no single key has.
    pub fn problem(&self, problem: Problem) {
        self.problems.record(problem);
    }

    /// Says which keys are not known, and what was probably meant.
    pub fn finish(self) {
        let asked = self.asked.borrow();
        for key in &self.section.keys {
            let read = asked.contains(&key.name);
            debug_assert!(read, "`{}` is described and never read in {}", key.name, self.title());
        }
        let known = self.section.names();
        for name in self.table.keys().filter(|name| self.section.key(name.get_ref()).is_none()) {
            let key: &str = name.get_ref();
            let place = if self.path.is_empty() { String::new() } else { format!(" in {}", self.title()) };
            self.problems.record(if self.section.later.contains(&key) {
                Problem::new(name.span(), format!("`{key}`{place} is not available in this version"))
                    .label("not available")
                    .advice("take it out")
            } else {
                let keys = format!("the keys here are {}", known.join(", "));
                Problem::new(name.span(), format!("`{key}`{place} is not a known key")).label("unknown key").advice(
                    match closest(key, known.iter().copied()) {
                        Some(meant) => format!("did you mean `{meant}`? {keys}"),
                        None => keys,
                    },
                )
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use super::*;
    use crate::config::{BusConfig, LogConfig};

    fn read<T>(text: &str, section: &'static Section, read: impl FnOnce(Reader<'_>) -> T) -> (T, Vec<Problem>) {
        let document = DeTable::parse(text).unwrap();
        let problems = Problems::default();
        let value = read(Reader::new(document.get_ref(), 0..0, section, "log", &problems));
        (value, problems.into_sorted())
    }

    #[test]
    fn a_wrong_value_leaves_the_default_and_the_others_are_still_read() {
        let text = "keep = 7\nmax_size = \"1GB\"\n";
        let (log, problems) = read(text, LogConfig::section(), LogConfig::read);
        assert_eq!(log, LogConfig { max_size: 1_000_000_000, ..LogConfig::default() });
        assert_eq!(problems.len(), 1);
        assert_eq!(&text[problems[0].span.clone()], "7");
    }

    #[test]
    fn all_unknown_keys_are_said_with_what_was_meant() {
        let (_, problems) = read("kep = \"1d\"\nmaxsize = \"1GB\"\n", LogConfig::section(), LogConfig::read);
        let advice: Vec<_> = problems.iter().filter_map(|p| p.advice.as_deref()).collect();
        assert_eq!(
            advice,
            [
                "did you mean `keep`? the keys here are keep, keep_dead, max_size",
                "did you mean `max_size`? the keys here are keep, keep_dead, max_size",
            ]
        );
    }

    #[test]
    fn nothing_written_is_the_default() {
        let base = Path::new("/srv");
        let (bus, problems) = read("", BusConfig::section(), |r| BusConfig::read(r, base));
        assert_eq!(bus, BusConfig { data: "/srv/.fnbus".into(), ..BusConfig::default() });
        assert!(problems.is_empty());
        let (log, _) = read("keep = \"1d\"", LogConfig::section(), LogConfig::read);
        assert_eq!(log.keep, Duration::from_hours(24));
    }

    #[test]
    fn an_own_port_and_a_foreign_server_exclude_each_other() {
        let text = "nats = \"nats://host:4222\"\nnats_port = 4222";
        let (_, problems) = read(text, BusConfig::section(), |r| BusConfig::read(r, Path::new("/")));
        assert_eq!(problems.len(), 1, "{problems:?}");
    }
}
