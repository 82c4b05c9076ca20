//! The JSON Schema of the file, for editors.

use serde_json::{Value, json};

use super::keys;

pub(crate) fn schema() -> Value {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "fnbus.toml",
    });
    if let (Value::Object(schema), Value::Object(file)) = (&mut schema, keys::FILE.schema()) {
        schema.extend(file);
    }
    schema
}
