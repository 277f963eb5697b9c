//! JSON lines held against the schema that is committed for them.

use serde_json::{Map, Value};

const SCHEMA: &str = include_str!("../../src/cli/output/schema.json");

/// The part of JSON Schema that ours is written in; anything else in it ends the test.
pub struct Schema(Value);

impl Schema {
    pub fn committed() -> Self {
        let schema = Self(serde_json::from_str(SCHEMA).unwrap());
        for keyword in schema.types().values().flat_map(keywords) {
            let known = ["type", "description", "enum", "const", "minimum", "items"];
            assert!(
                known.contains(&keyword.as_str()),
                "the schema says `{keyword}`, which nobody checks here"
            );
        }
        schema
    }

    pub fn types(&self) -> &Map<String, Value> {
        self.0["$defs"].as_object().unwrap()
    }

    /// A line of a type named in the schema, with all required fields, each of a kind it may have, and no others.
    #[track_caller]
    pub fn check(&self, line: &Value) {
        let Some(kind) = line["type"].as_str() else {
            panic!("not a line with a type: {line}");
        };
        let rules = self
            .types()
            .get(kind)
            .unwrap_or_else(|| panic!("unknown type: {line}"));
        for name in rules["required"].as_array().unwrap() {
            assert!(
                line.get(name.as_str().unwrap()).is_some(),
                "no {name}: {line}"
            );
        }
        for (name, value) in line.as_object().unwrap() {
            let rule = &rules["properties"][name];
            assert!(rule.is_object(), "`{name}` is in no schema: {line}");
            assert!(fits(value, rule), "`{name}` does not fit {rule}: {line}");
        }
    }
}

fn keywords(rules: &Value) -> Vec<String> {
    let fields = rules["properties"].as_object().unwrap().values();
    fields
        .flat_map(|rule| rule.as_object().unwrap().keys().cloned())
        .collect()
}

fn fits(value: &Value, rule: &Value) -> bool {
    if let Some(constant) = rule.get("const") {
        return value == constant;
    }
    if let Some(allowed) = rule.get("enum") {
        return allowed.as_array().unwrap().contains(value);
    }
    let kinds: Vec<&str> = match &rule["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        kind => kind.as_str().into_iter().collect(),
    };
    let is_kind = |kind: &&str| match *kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value
            .as_array()
            .is_some_and(|items| items.iter().all(|item| fits(item, &rule["items"]))),
        other => panic!("a kind nobody checks here: {other}"),
    };
    let minimum = rule.get("minimum").and_then(Value::as_f64);
    let is_enough = |minimum| value.as_f64().is_none_or(|number| number >= minimum);
    kinds.iter().any(is_kind) && minimum.is_none_or(is_enough)
}
