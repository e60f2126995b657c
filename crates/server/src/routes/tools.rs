//! From the fields that offer functions to what an answer may call.

use std::collections::HashSet;

use hearth_engine::text::tool_calls::Function;
use serde_json::{Value, json};

use crate::providers::{ToolUse, Tools};
use crate::wire::FieldError;
use crate::wire::options::SamplingFields;
use crate::wire::tools::{FunctionFields, Tool, ToolChoice, ToolFields, ToolMode};

/// Most functions of one request.
const MOST_TOOLS: usize = 32;
/// Longest name of a function.
const LONGEST_NAME: usize = 64;

/// What the answer may call; nothing where there is no function, or none is to be called.
pub(super) fn checked(fields: ToolFields, sampling: &SamplingFields) -> Result<Option<Tools>, FieldError> {
    let functions = functions(fields.tools.unwrap_or_default())?;
    let Some(choice) = choice(fields.tool_choice, &functions)? else { return Ok(None) };
    let conflict = |field: &str, problem: &str| Err(FieldError::conflict(field, problem));
    if sampling.ignore_eos == Some(true) {
        return conflict("ignore_eos", "not with `tools`: an answer ends behind its calls");
    }
    if sampling.min_tokens.is_some_and(|least| least > 0) {
        return conflict("min_tokens", "not with `tools`: an answer ends behind its calls");
    }
    Ok(Some(Tools { functions, choice, parallel: fields.parallel_tool_calls != Some(false) }))
}

/// Functions with names that are allowed and different.
pub(super) fn functions(tools: Vec<Tool>) -> Result<Vec<Function>, FieldError> {
    if tools.len() > MOST_TOOLS {
        return Err(FieldError::value("tools", format!("at most {MOST_TOOLS} functions"), tools.len()));
    }
    let mut names = HashSet::new();
    let mut functions = Vec::with_capacity(tools.len());
    for (index, tool) in tools.into_iter().enumerate() {
        let function = function(index, tool)?;
        if !names.insert(function.name.clone()) {
            let problem = format!("`{}` is the name of another function", function.name);
            return Err(FieldError::conflict(format!("tools[{index}].function.name"), problem));
        }
        functions.push(function);
    }
    Ok(functions)
}

fn function(index: usize, tool: Tool) -> Result<Function, FieldError> {
    let place = |field: &str| format!("tools[{index}].{field}");
    if tool.kind != "function" {
        return Err(FieldError::unsupported_value(place("type"), format!(" \"{}\"", tool.kind)));
    }
    let FunctionFields { name, description, parameters, strict } =
        tool.function.ok_or_else(|| FieldError::Missing { field: place("function") })?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(allowed) {
        let bound = format!("1 to {LONGEST_NAME} letters, digits, `_` and `-`");
        return Err(FieldError::value(place("function.name"), bound, format!("\"{name}\"")));
    }
    let mut parameters = match parameters {
        Some(parameters) if !parameters.is_empty() => Value::Object(parameters),
        _ => json!({"type": "object", "properties": {}}),
    };
    match parameters.get("type") {
        None => parameters["type"] = json!("object"),
        Some(kind) if kind == "object" => {}
        Some(kind) => return Err(FieldError::value(place("function.parameters.type"), "\"object\"", kind)),
    }
    Ok(Function { name, description: description.unwrap_or_default(), parameters, strict: strict == Some(true) })
}

/// Whether a function is called; `None` where none is.
fn choice(choice: Option<ToolChoice>, functions: &[Function]) -> Result<Option<ToolUse>, FieldError> {
    let choice = match choice {
        Some(ToolChoice::Mode(ToolMode::None)) => return Ok(None),
        None if functions.is_empty() => return Ok(None),
        Some(_) if functions.is_empty() => {
            return Err(FieldError::conflict("tool_choice", "only \"none\" is allowed without `tools`"));
        }
        None | Some(ToolChoice::Mode(ToolMode::Auto)) => ToolUse::Auto,
        Some(ToolChoice::Mode(ToolMode::Required)) => ToolUse::Required,
        Some(ToolChoice::Named(named)) => {
            let name = named.function.name;
            let found = functions.iter().position(|function| function.name == name);
            let missing = || {
                FieldError::value("tool_choice.function.name", "the name of one of the `tools`", format!("\"{name}\""))
            };
            ToolUse::Named(found.ok_or_else(missing)?)
        }
    };
    Ok(Some(choice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::chat::ChatRequest;
    use crate::wire::parse_object;

    fn read(more: Value) -> Result<Option<Tools>, FieldError> {
        let mut body = json!({"messages": [{"role": "user", "content": "x"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let request = ChatRequest::read(parse_object(body.to_string().as_bytes()).unwrap())?;
        checked(request.tools, &request.sampling)
    }

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}})
    }

    #[test]
    fn functions_are_taken_with_what_is_said_of_them() {
        let tools = json!([
            {"type": "function", "function": {
                "name": "a-B_1", "description": "d", "strict": true, "parameters": {"properties": {"x": {"type": "null"}}}
            }},
            {"type": "function", "function": {"name": "b", "description": null, "parameters": null, "strict": null}},
        ]);
        let tools = read(json!({"tools": tools, "parallel_tool_calls": false})).unwrap().unwrap();
        assert_eq!((tools.choice, tools.parallel), (ToolUse::Auto, false));
        let first = json!({"properties": {"x": {"type": "null"}}, "type": "object"});
        let function = |name: &str, description: &str, parameters: Value, strict| Function {
            name: name.into(),
            description: description.into(),
            parameters,
            strict,
        };
        let second = json!({"type": "object", "properties": {}});
        assert_eq!(tools.functions, [function("a-B_1", "d", first, true), function("b", "", second, false)]);
    }

    #[test]
    fn the_choice_is_auto_where_there_are_tools() {
        let chosen = |choice: Value| read(json!({"tools": [tool("a"), tool("b")], "tool_choice": choice}));
        assert_eq!(chosen(json!(null)).unwrap().unwrap().choice, ToolUse::Auto);
        assert_eq!(chosen(json!("auto")).unwrap().unwrap().choice, ToolUse::Auto);
        assert_eq!(chosen(json!("required")).unwrap().unwrap().choice, ToolUse::Required);
        assert_eq!(chosen(json!("none")).unwrap(), None);
        let named = json!({"type": "function", "function": {"name": "b"}});
        assert_eq!(chosen(named).unwrap().unwrap().choice, ToolUse::Named(1));
        for nothing in
            [json!({}), json!({"tools": []}), json!({"tool_choice": "none"}), json!({"parallel_tool_calls": true})]
        {
            assert_eq!(read(nothing).unwrap(), None);
        }
    }

    #[test]
    fn what_is_refused_is_named_with_its_place() {
        let many: Vec<Value> = (0..33).map(|index| tool(&format!("f{index}"))).collect();
        let one = |function: Value| json!({"tools": [{"type": "function", "function": function}]});
        for (body, field) in [
            (json!({"tools": many}), "tools"),
            (json!({"tools": [tool("a"), tool("a")]}), "tools[1].function.name"),
            (json!({"tools": [tool("")]}), "tools[0].function.name"),
            (json!({"tools": [tool("a b")]}), "tools[0].function.name"),
            (json!({"tools": [tool(&"a".repeat(65))]}), "tools[0].function.name"),
            (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
            (json!({"tools": [{"type": "function"}]}), "tools[0].function"),
            (one(json!({"name": "a", "colour": 1})), "tools[0].function.colour"),
            (one(json!({"name": "a", "parameters": []})), "tools[0].function.parameters"),
            (one(json!({"name": "a", "parameters": {"type": "string"}})), "tools[0].function.parameters.type"),
            (json!({"tool_choice": "auto"}), "tool_choice"),
            (json!({"tools": [tool("a")], "tool_choice": "any"}), "tool_choice"),
            (
                json!({"tools": [tool("a")], "tool_choice": {"type": "function", "function": {"name": "b"}}}),
                "tool_choice.function.name",
            ),
            (json!({"tools": [tool("a")], "parallel_tool_calls": 1}), "parallel_tool_calls"),
            (json!({"tools": [tool("a")], "ignore_eos": true}), "ignore_eos"),
            (json!({"tools": [tool("a")], "min_tokens": 1}), "min_tokens"),
            (json!({"functions": [{"name": "a"}]}), "functions"),
            (json!({"function_call": "auto"}), "function_call"),
        ] {
            let error = read(body.clone()).unwrap_err();
            assert_eq!(error.field(), Some(field), "{body}: {error}");
        }
    }
}
