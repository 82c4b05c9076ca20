//! Which files a pattern means: a folder to watch and what matches inside it.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
};

use globset::{GlobBuilder, GlobMatcher};

/// `inbox/*.csv`, made absolute.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// As written.
    text: String,
    /// The folder that the part without wildcards names. Absolute.
    root: PathBuf,
    /// Matches paths below the root.
    rest: GlobMatcher,
    /// Files may be in folders below the root.
    deep: bool,
    /// A name in it begins with a dot, so hidden files are meant.
    hidden: bool,
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPattern {
    #[error("`{given}` is not a pattern of files: {reason}")]
    Glob { given: String, reason: String },
    #[error("`{given}` names a folder")]
    Folder { given: String },
    #[error("a pattern of files must not be empty")]
    Empty,
}

impl Pattern {
    /// A pattern whose relative part begins at `base`.
    pub fn new(given: &str, base: &Path) -> Result<Self, InvalidPattern> {
        if given.trim().is_empty() {
            return Err(InvalidPattern::Empty);
        }
        let folder = || InvalidPattern::Folder { given: given.to_owned() };
        if given.ends_with('/') || (!has_wildcard(given) && base.join(given).is_dir()) {
            return Err(folder());
        }
        let parts: Vec<&str> = given.split('/').collect();
        let plain = parts.iter().take_while(|part| !has_wildcard(part)).count().min(parts.len() - 1);
        let (root, rest) = parts.split_at(plain);
        if rest.iter().any(|part| matches!(*part, "" | "." | "..")) {
            let reason = "`.`, `..` and empty names stand before the first wildcard only".to_owned();
            return Err(InvalidPattern::Glob { given: given.to_owned(), reason });
        }
        let root = if given.starts_with('/') { format!("/{}", root.join("/")) } else { root.join("/") };
        let glob = GlobBuilder::new(&rest.join("/")).literal_separator(true).backslash_escape(true).build();
        let glob =
            glob.map_err(|error| InvalidPattern::Glob { given: given.to_owned(), reason: error.kind().to_string() })?;
        Ok(Self {
            text: given.to_owned(),
            root: tidied(&base.join(root)),
            rest: glob.compile_matcher(),
            deep: rest.len() > 1,
            hidden: rest.iter().any(|part| part.starts_with('.')),
        })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn is_deep(&self) -> bool {
        self.deep
    }

    /// Whether a file is meant.
    pub fn matches(&self, path: &Path) -> bool {
        let Ok(rest) = path.strip_prefix(&self.root) else { return false };
        (self.hidden || !is_hidden(rest)) && self.rest.is_match(rest)
    }
}

fn has_wildcard(text: &str) -> bool {
    text.contains(['*', '?', '[', ']', '{', '}', '\\'])
}

fn is_hidden(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."))
}

/// Without `.` and `..`, so that the paths of files read well and compare.
fn tidied(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => _ = tidy.pop(),
            part => tidy.push(part),
        }
    }
    tidy
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        (&self.text, &self.root) == (&other.text, &other.root)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::a_wildcard("inbox/*.csv", "/p/inbox", "/p/inbox/a.csv", true)]
    #[case::another_extension("inbox/*.csv", "/p/inbox", "/p/inbox/a.csv.part", false)]
    #[case::not_below("inbox/*.csv", "/p/inbox", "/p/inbox/x/a.csv", false)]
    #[case::any_depth("in/**/*.csv", "/p/in", "/p/in/x/y/a.csv", true)]
    #[case::any_depth_and_none("in/**/*.csv", "/p/in", "/p/in/a.csv", true)]
    #[case::one_of("in/*.{csv,json}", "/p/in", "/p/in/a.json", true)]
    #[case::one_file("in/a.csv", "/p/in", "/p/in/a.csv", true)]
    #[case::beside("../in/*", "/in", "/in/a", true)]
    #[case::here("*", "/p", "/p/a", true)]
    #[case::absolute("/var/in/*", "/var/in", "/var/in/a", true)]
    #[case::hidden_is_not_meant("in/*", "/p/in", "/p/in/.a.swp", false)]
    #[case::hidden_is_meant("in/.*", "/p/in", "/p/in/.a", true)]
    fn a_pattern_watches_a_folder_and_means_files(
        #[case] given: &str,
        #[case] root: &str,
        #[case] path: &str,
        #[case] matches: bool,
    ) {
        let pattern = Pattern::new(given, Path::new("/p")).unwrap();
        assert_eq!((pattern.root(), pattern.matches(Path::new(path))), (Path::new(root), matches));
    }

    #[rstest]
    #[case("")]
    #[case("in/")]
    #[case("in/[a")]
    #[case("in/{a")]
    #[case("in/*/../b")]
    #[case("/tmp")]
    fn what_is_no_pattern_is_refused(#[case] given: &str) {
        assert!(Pattern::new(given, Path::new("/")).is_err());
    }
}
