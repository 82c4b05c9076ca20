//! The JSON Schema of a section, for editors.

use serde_json::{Map, Value, json};

use super::{Section, Shape};
use crate::name::MAX_NAME;

impl Section {
    /// This table as a JSON Schema object.
    pub fn schema(&self) -> Value {
        let mut properties = Map::new();
        for key in &self.keys {
            let mut schema = key.shape.schema();
            schema["description"] = key.doc.into();
            if let Some(default) = key.default.as_ref().filter(|_| !key.machine) {
                schema["default"] = serde_json::to_value(default).unwrap_or_default();
            }
            properties.insert(key.name.to_owned(), schema);
        }
        let required: Vec<_> = self.keys.iter().filter(|k| k.required).map(|k| k.name).collect();
        let mut schema = json!({
            "type": "object",
            "description": self.doc,
            "properties": properties,
            "additionalProperties": false,
        });
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        schema
    }
}

impl Shape {
    fn schema(&self) -> Value {
        match self {
            Self::Text(_) => json!({ "type": "string" }),
            Self::Path | Self::Address => json!({ "type": "string", "minLength": 1 }),
            Self::Bool => json!({ "type": "boolean" }),
            Self::Integer(range) => json!({ "type": "integer", "minimum": range.start(), "maximum": range.end() }),
            Self::Duration => json!({
                "type": "string",
                "pattern": "^[0-9]+ ?[a-z]+( ?[0-9]+ ?[a-z]+)*$",
                "examples": ["10s", "5m"],
            }),
            Self::Size => json!({
                "type": "string",
                "pattern": "^[0-9]+(\\.[0-9]+)? ?[A-Za-z]+$",
                "examples": ["6MB", "5GiB"],
            }),
            Self::Name => json!({ "type": "string", "pattern": name_pattern() }),
            Self::NatsUrl => json!({ "type": "string", "pattern": "^(nats|tls)://" }),
            Self::Word(words) => json!({ "enum": words }),
            Self::OneOrMany(shape) => {
                let one = shape.schema();
                json!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
            }
            Self::List => json!({ "type": "array" }),
            Self::Table(section) => section.schema(),
            Self::Map("NAME", shape) => json!({
                "type": "object",
                "propertyNames": { "pattern": name_pattern() },
                "additionalProperties": shape.schema(),
            }),
            Self::Map(_, shape) => json!({ "type": "object", "additionalProperties": shape.schema() }),
            Self::Either(shapes) => json!({ "anyOf": shapes.iter().map(Self::schema).collect::<Vec<_>>() }),
        }
    }
}

fn name_pattern() -> String {
    format!("^[A-Za-z0-9][A-Za-z0-9_-]{{0,{}}}$", MAX_NAME - 1)
}
