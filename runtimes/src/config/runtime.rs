//! What `runtime` names.

use bus::config::{FromValue, Shape, Value, Word, Wrong};

use super::RuntimeKind;
use crate::lifecycle::{LIFECYCLES, Lifecycle};

/// A kind of runtime, and which one of it where it is called as AWS does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Runtime {
    pub kind: RuntimeKind,
    pub pin: Option<Lifecycle>,
}

impl Runtime {
    /// Every word that names one.
    pub(super) fn shape() -> Shape {
        let kinds = RuntimeKind::WORDS.iter().map(|(word, _)| *word);
        Shape::Word(kinds.chain(LIFECYCLES.iter().map(|lifecycle| lifecycle.name)).collect())
    }
}

impl FromValue for Runtime {
    fn from_value(value: &Value<'_>, shape: &Shape) -> Result<Self, Wrong> {
        if let Some(pin) = value.as_str().and_then(Lifecycle::of) {
            return Ok(Self { kind: pin.kind, pin: Some(pin) });
        }
        match RuntimeKind::from_value(value, shape) {
            Ok(kind) => Ok(Self { kind, pin: None }),
            Err(wrong) => Err(match wrong.advice.clone() {
                Some(words) => {
                    wrong.advice(format!("{words}; or a name of AWS, such as `python3.13`: see `fnbus runtimes`"))
                }
                None => wrong,
            }),
        }
    }
}
