//! Finds the place of what a check across sections speaks of.

use bus::config::{Span, Value};
use toml::{Spanned, de::DeTable};

/// The file as it was written.
#[derive(Clone, Copy)]
pub(super) struct Places<'a>(pub(super) &'a DeTable<'a>);

impl<'a> Places<'a> {
    fn entry(self, path: &[&str]) -> Option<(&'a Spanned<std::borrow::Cow<'a, str>>, &'a Spanned<Value<'a>>)> {
        let (last, tables) = path.split_last()?;
        let mut table = self.0;
        for name in tables {
            table = table.get(*name)?.get_ref().as_table()?;
        }
        table.get_key_value(*last)
    }

    /// Where a key is named.
    pub(super) fn key(self, path: &[&str]) -> Option<Span> {
        self.entry(path).map(|(key, _)| key.span())
    }

    /// Where a key's value is.
    pub(super) fn value(self, path: &[&str]) -> Option<Span> {
        self.entry(path).map(|(_, value)| value.span())
    }

    /// The keys of a table, with the place of each.
    pub(super) fn names(self, path: &[&str]) -> Vec<(&'a str, Span)> {
        let table = self.entry(path).and_then(|(_, value)| value.get_ref().as_table());
        table.into_iter().flatten().map(|(key, _)| (&**key.get_ref(), key.span())).collect()
    }

    /// The strings of one value or a list, with the place of each.
    pub(super) fn strings(self, path: &[&str]) -> Vec<(&'a str, Span)> {
        let Some((_, value)) = self.entry(path) else { return Vec::new() };
        let string = |v: &'a Spanned<Value<'a>>| v.get_ref().as_str().map(|text| (text, v.span()));
        match value.get_ref() {
            Value::Array(list) => list.iter().filter_map(string).collect(),
            _ => string(value).into_iter().collect(),
        }
    }
}
