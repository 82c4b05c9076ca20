//! The schema and the printed defaults are what is read.

use bus::config::{Key, Section, Shape};
use serde_json::Value;

use super::{super::*, EXAMPLE, project, said};

/// The properties of a section in the schema, by the way to it.
fn properties(path: &str) -> Vec<String> {
    let schema = schema();
    let Value::Object(properties) = &schema.pointer(path).unwrap()["properties"] else { panic!("{path}") };
    properties.keys().cloned().collect()
}

#[test]
fn the_schema_has_the_keys_that_are_read() {
    for (path, table, rest) in [
        ("", "", ""),
        ("/properties/bus", "[bus]", ""),
        ("/properties/log", "[log]", ""),
        ("/properties/http", "[http]", ""),
        ("/properties/functions/additionalProperties", "[functions.price]", "runtime = \"python\""),
        (
            "/properties/functions/additionalProperties/properties/retry",
            "[functions.price]\nruntime = \"python\"\n[functions.price.retry]",
            "",
        ),
        (
            "/properties/triggers/additionalProperties",
            "[functions.price]\nruntime = \"python\"\n[triggers.x]",
            "to = \"price\"\nhttp = \"GET /\"",
        ),
        ("/properties/pipelines/additionalProperties", "[pipelines.x]", ""),
    ] {
        // reading proves by itself that each described key is read; here: what is read is what the schema has
        let advice = said(&format!("{table}\nqqqqqqqqqqqq = 1\n{rest}")).into_iter().find(|(m, _)| m.contains("qqqq"));
        let advice = advice.unwrap().1;
        let mut keys: Vec<_> = advice.trim_start_matches("the keys here are ").split(", ").collect();
        let mut schema = properties(path);
        keys.sort_unstable();
        schema.sort_unstable();
        assert_eq!(keys, schema, "{table}");
    }
}

#[test]
fn the_example_and_the_defaults_and_the_first_project_are_what_the_schema_allows() {
    for text in [EXAMPLE, &defaults(), include_str!("../../init/fnbus.toml")] {
        let value = serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap();
        assert_eq!(violation(&value, &schema()), None);
    }
    let wrong = serde_json::json!({ "functions": { "a": { "runtime": "python", "memory": 1 } } });
    assert!(violation(&wrong, &schema()).is_some());
}

/// The part of JSON Schema that ours uses, patterns left out.
fn violation(value: &Value, schema: &Value) -> Option<String> {
    if let Some(words) = schema["enum"].as_array() {
        return (!words.contains(value)).then(|| format!("{value} is none of {words:?}"));
    }
    if let Some(any) = schema["anyOf"].as_array() {
        return any.iter().map(|s| violation(value, s)).min_by_key(Option::is_some).flatten();
    }
    match (schema["type"].as_str()?, value) {
        ("string", Value::String(_)) | ("boolean", Value::Bool(_)) => None,
        ("integer", Value::Number(n)) => {
            let good = (schema["minimum"].as_u64()..=schema["maximum"].as_u64()).contains(&n.as_u64());
            (!good).then(|| format!("{n} is out of range"))
        }
        ("array", Value::Array(list)) => list.iter().find_map(|v| violation(v, &schema["items"])),
        ("object", Value::Object(object)) => {
            let required = schema["required"].as_array().into_iter().flatten();
            let missing = required.filter_map(|k| k.as_str()).find(|k| !object.contains_key(*k));
            missing.map(|key| format!("{key} is missing")).or_else(|| {
                object.iter().find_map(|(key, value)| {
                    match (&schema["properties"][key], &schema["additionalProperties"]) {
                        (Value::Null, Value::Bool(false)) => Some(format!("{key} is not allowed")),
                        (Value::Null, other) => violation(value, other),
                        (known, _) => violation(value, known),
                    }
                })
            })
        }
        (expected, value) => Some(format!("{value} is no {expected}")),
    }
}

#[test]
fn the_printed_defaults_are_the_defaults() {
    let uncomment = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => rest.to_owned(),
        _ => line.to_owned(),
    };
    let printed = defaults();
    // keys of the other kinds of triggers would be refused beside `http`
    let other = |doc: &str| ["# cron:", "# file:", "# queue:"].iter().any(|kind| doc.starts_with(kind));
    let lines: Vec<_> = printed.lines().collect();
    let all: Vec<_> =
        (0..lines.len()).filter(|n| *n == 0 || !other(lines[n - 1])).map(|n| uncomment(lines[n])).collect();
    let (known, _) = all.join("\n").split_once("[pipelines.NAME]").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let text = known
        .replace("[functions.NAME]", "[functions.price]\nruntime = \"python\"")
        .replace("[triggers.NAME]", "[triggers.orders]\nhttp = \"GET /\"\nto = \"price\"");
    let folder = project();
    let read = Config::parse(&text, folder.path()).map_err(|p| format!("{p:#?}\n{text}")).unwrap();
    let short = "[functions.price]\nruntime = \"python\"\n[triggers.orders]\nhttp = \"GET /\"\nto = \"price\"\n";
    assert_eq!(read, Config::parse(short, folder.path()).unwrap());

    // and every key with a default is printed
    let is_printed = |key: &Key| {
        let name =
            if matches!(key.shape, Shape::Table(_)) { format!("{}.", key.name) } else { format!("{} = ", key.name) };
        printed.contains(&name)
    };
    let printed_keys = |section: &Section| section.keys.iter().all(is_printed);
    assert!(printed_keys(BusConfig::section()) && printed_keys(LogConfig::section()));
    assert!(printed_keys(HttpConfig::section()) && printed_keys(TriggerConfig::section()));
}
