//! Every subject and stream name of fnbus. A subject is built or taken apart here and nowhere else; every token is a
//! [`Name`] or one of ours, so no user text can widen or break one.

use crate::name::Name;

/// The subjects of one namespace.
#[derive(Debug, Clone)]
pub struct Subjects {
    namespace: Name,
}

impl Subjects {
    pub fn new(namespace: Name) -> Self {
        Self { namespace }
    }

    pub fn namespace(&self) -> &Name {
        &self.namespace
    }

    /// The work-queue stream that carries deliveries.
    pub fn deliver_stream(&self) -> String {
        format!("{}_DELIVER", self.namespace.as_str().to_ascii_uppercase())
    }

    /// All deliveries: what the stream holds.
    pub fn all_deliveries(&self) -> String {
        format!("{}.deliver.>", self.namespace)
    }

    /// Deliveries for one function, `class` being the kind of worker that can run it.
    pub fn deliver(&self, class: &str, function: &Name) -> String {
        format!("{}.deliver.{class}.{function}", self.namespace)
    }

    /// All deliveries of one class: what its consumer filters on.
    pub fn deliver_class(&self, class: &str) -> String {
        format!("{}.deliver.{class}.*", self.namespace)
    }

    /// The durable consumer of one class.
    pub fn consumer(class: &str) -> String {
        format!("worker_{class}")
    }

    /// The consumer of a queue trigger, and the stream that is made for it where none has its subject.
    pub fn inbox(&self, trigger: &Name) -> String {
        format!("{}_in_{trigger}", self.namespace)
    }

    /// Where nodes ask who else serves this namespace.
    pub fn presence(&self) -> String {
        format!("{}.presence", self.namespace)
    }

    /// A copy of every accepted event of a trigger, for anybody who listens.
    pub fn event(&self, trigger: &str) -> String {
        format!("{}.event.{trigger}", self.namespace)
    }

    /// Why users may not use a subject of their own choosing; none when they may.
    pub fn refusal(&self, subject: &str) -> Option<&'static str> {
        if subject.starts_with('$') {
            return Some("subjects that begin with `$` belong to the NATS server");
        }
        if subject.split('.').next() == Some(self.namespace.as_str()) {
            return Some("subjects under the bus' own namespace are fnbus' own");
        }
        let valid = subject
            .split('.')
            .all(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic() && b != b'\\' && b != b'"'));
        if valid { None } else { Some("a subject is words of visible ASCII characters separated by single dots") }
    }
}

/// Whether every subject that `subject` means is also meant by `pattern`.
pub fn covers(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some("*"), Some(word)) if word != ">" => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_is_all_inside_of_it() {
        for (pattern, subject, expect) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a.>", true),
            ("a.>", "a.*.b", true),
            (">", "a", true),
            ("a.*", "a.>", false),
            ("a.b", "a.*", false),
            ("a.>", "a", false),
            ("a.b.c", "a.b", false),
        ] {
            assert_eq!(covers(pattern, subject), expect, "{pattern} {subject}");
        }
    }

    #[test]
    fn subjects_are_under_the_namespace_and_users_are_kept_out_of_it() {
        let subjects = Subjects::new("shop".parse().unwrap());
        assert_eq!(subjects.deliver("python", &"price".parse().unwrap()), "shop.deliver.python.price");
        assert_eq!(subjects.deliver_stream(), "SHOP_DELIVER");
        for refused in ["$JS.API.>", "shop.deliver.x", "shop", "a..b", "a b", ".a", "a.\r\nPUB x 0"] {
            assert!(subjects.refusal(refused).is_some(), "{refused:?} was let through");
        }
        assert_eq!(subjects.refusal("shopping.orders.>"), None);
    }
}
