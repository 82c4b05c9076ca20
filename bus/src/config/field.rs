//! One key of the file with its value.

use toml::{Spanned, de::DeTable};

use super::{FromValue, Problem, Problems, Reader, Shape, Span, Value, Wrong};

/// A key that is there. Reading it records what is wrong with it.
pub struct Field<'a> {
    /// The key as written.
    pub name: &'a str,
    pub name_span: Span,
    pub(super) value: &'a Spanned<Value<'a>>,
    pub(super) shape: &'a Shape,
    /// The dotted way to it, its name included.
    pub(super) path: String,
    pub(super) problems: &'a Problems,
}

impl<'a> Field<'a> {
    pub fn span(&self) -> Span {
        self.value.span()
    }

    pub fn value(&self) -> &'a Value<'a> {
        self.value.get_ref()
    }

    /// The value; none when it is wrong.
    pub fn read<T: FromValue>(&self) -> Option<T> {
        self.read_one(self.value, self.shape)
    }

    /// One value or a list of them; none when any is wrong.
    pub fn list<T: FromValue>(&self) -> Option<Vec<T>> {
        let shape = if let Shape::OneOrMany(shape) = self.shape { shape } else { self.shape };
        match self.value() {
            // every element is read, so that all that is wrong is said
            Value::Array(list) => {
                list.iter().map(|v| self.read_one(v, shape)).collect::<Vec<_>>().into_iter().collect()
            }
            Value::Table(_) => {
                self.wrong(&Wrong::not_a("a string or a list of strings", self.value()));
                None
            }
            _ => self.read_one(self.value, shape).map(|one| vec![one]),
        }
    }

    /// The elements of a list, each to be read as `shape`; none when it is no list.
    pub fn elements(&self, shape: &'a Shape) -> Option<Vec<Field<'a>>> {
        let Value::Array(list) = self.value() else {
            self.wrong(&Wrong::not_a("a list", self.value()));
            return None;
        };
        let element = |(index, value): (usize, &'a Spanned<Value<'a>>)| Field {
            name: self.name,
            name_span: value.span(),
            value,
            shape,
            path: format!("{}[{index}]", self.path),
            problems: self.problems,
        };
        Some(list.iter().enumerate().map(element).collect())
    }

    /// The keys of a table whose names are the user's, in the order of the file.
    pub fn fields(&self) -> Vec<Field<'a>> {
        let Some(table) = self.table() else { return Vec::new() };
        let shape = if let Shape::Map(_, shape) = self.shape { shape } else { self.shape };
        let field = |(name, value): (&'a Spanned<_>, _)| {
            let name_span = name.span();
            let name: &'a std::borrow::Cow<'a, str> = name.get_ref();
            let path = format!("{}.{name}", self.path);
            Field { name, name_span, value, shape, path, problems: self.problems }
        };
        table.iter().map(field).collect()
    }

    /// The table, to be read along its section; none when it is no table.
    pub fn reader(&self) -> Option<Reader<'a>> {
        let section = self.shape.section()?;
        let table = self.table()?;
        Some(Reader::new(table, self.name_span.clone(), section, self.path.clone(), self.problems))
    }

    fn table(&self) -> Option<&'a DeTable<'a>> {
        let table = self.value().as_table();
        if table.is_none() {
            self.wrong(&Wrong::not_a("a table", self.value()));
        }
        table
    }

    fn read_one<T: FromValue>(&self, value: &Spanned<Value<'_>>, shape: &Shape) -> Option<T> {
        let read = T::from_value(value.get_ref(), shape);
        read.map_err(|wrong| self.wrong_at(value.span(), &wrong)).ok()
    }

    /// Records that the value is refused.
    pub fn wrong(&self, wrong: &Wrong) {
        self.wrong_at(self.span(), wrong);
    }

    /// Records that the key's name is refused.
    pub fn wrong_name(&self, wrong: &Wrong) {
        self.wrong_at(self.name_span.clone(), wrong);
    }

    fn wrong_at(&self, span: Span, wrong: &Wrong) {
        let message = wrong.message(self.name);
        self.problems.record(Problem { span, message, advice: wrong.advice.clone(), label: wrong.label.clone() });
    }
}

impl Shape {
    fn section(&self) -> Option<&'static super::Section> {
        match self {
            Self::Table(section) => Some(section),
            Self::Either(shapes) => shapes.iter().find_map(Self::section),
            _ => None,
        }
    }
}
