//! The part of JSON Schema (2020-12) that `docs/doctor.schema.json` uses: type, enum, const, properties, required,
//! additionalProperties, items and references to definitions. Anything else in a schema is a failure.

use serde_json::Value;

/// Says where a value is not as the schema has it.
pub(crate) fn violations(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, schema, value, "$", &mut found);
    found
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let Some(rules) = schema.as_object() else { panic!("{at}: {schema} is no schema") };
    for (rule, with) in rules {
        match rule.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" => {}
            "$ref" => {
                let name = with.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                check(root, &root["$defs"][name], value, at, found);
            }
            "type" if !is_of_type(with, value) => found.push(format!("{at}: {value} is not of type {with}")),
            "enum" if !with.as_array().unwrap().contains(value) => {
                found.push(format!("{at}: {value} is none of {with}"))
            }
            "const" if with != value => found.push(format!("{at}: {value} is not {with}")),
            "required" => {
                let missing =
                    with.as_array().unwrap().iter().filter(|name| value.get(name.as_str().unwrap()).is_none());
                found.extend(missing.map(|name| format!("{at} lacks {name}")));
            }
            "properties" => {
                for (name, schema) in with.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        check(root, schema, value, &format!("{at}.{name}"), found);
                    }
                }
            }
            "additionalProperties" => {
                assert_eq!(with, false, "{at}");
                let known = &schema["properties"];
                let names = value.as_object().into_iter().flatten().map(|(name, _)| name);
                found.extend(names.filter(|name| known.get(name).is_none()).map(|name| format!("{at}.{name} is new")));
            }
            "items" => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, with, value, &format!("{at}[{index}]"), found);
                }
            }
            "type" | "enum" | "const" => {}
            other => panic!("{at}: the rule {other} is not known here"),
        }
    }
}

fn is_of_type(types: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        other => panic!("the type {other} is not known here"),
    };
    types.as_array().map_or_else(|| is(types), |types| types.iter().any(is))
}
