//! Tools, calls and their results in a prompt: as the chat template has them, or in plain messages where it knows none.
//!
//! Owns what is found out about a template by rendering conversations with it. A template that shows tools, calls and
//! results gets them; for any other, instructions, calls and results become text of the messages that it knows.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::super::chat_template::{ChatTemplate, Conversation};
use super::{Function, OpenerPlace, Shape, ToolFormat, generic, short_id};

/// How one model is told of tools, and how it calls them.
#[derive(Clone, Copy, Debug)]
pub struct ToolUse {
    /// How it writes calls.
    pub format: &'static ToolFormat,
    /// How the template takes calls; `None` where it does not show tools, calls and results.
    native: Option<Native>,
    /// Whether the template takes a system message.
    takes_system: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Native {
    /// The arguments of a call are an object, otherwise JSON in a string.
    objects: bool,
    /// A message may have several calls.
    several: bool,
}

/// A conversation as a chat template takes it.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolPrompt {
    /// The messages.
    pub messages: Vec<Value>,
    /// The descriptions of functions, if the template gets them.
    pub tools: Option<Vec<Value>>,
}

/// Words that no template has of its own.
const QUESTION: &str = "probe question";
const ARGUMENT: &str = r#""probe_argument": "probe value"#;
const RESULT: &str = "probe result";
const SYSTEM: &str = "probe system";

impl ToolUse {
    /// Finds out how a template takes tools. `chosen` is the format to use whatever the template says.
    #[must_use]
    pub fn of(template: &ChatTemplate, chosen: Option<&'static ToolFormat>) -> Self {
        let asked = chosen.unwrap_or_else(|| ToolFormat::of(template.source()));
        let native = if asked.name == generic::FORMAT.name { None } else { Native::of(template) };
        let format = if native.is_some() || chosen.is_some() { asked } else { &generic::FORMAT };
        let system = [json!({"role": "system", "content": SYSTEM}), json!({"role": "user", "content": QUESTION})];
        let takes_system = rendered(template, &system, None).is_some_and(|text| text.contains(SYSTEM));
        Self { format, native, takes_system }
    }

    /// The conversation for the template. A message may have `tool_calls`, whose arguments are objects, and a message of
    /// role `tool` has the `tool_call_id` of the call that it answers.
    #[must_use]
    pub fn prompt(&self, messages: Vec<Value>, functions: &[Function]) -> ToolPrompt {
        match self.native {
            Some(native) => {
                let tools: Vec<Value> = functions.iter().map(Function::described).collect();
                let messages = if native.several { messages } else { one_call_a_message(messages) };
                let messages = messages.into_iter().map(|message| self.native_message(native, message)).collect();
                ToolPrompt { messages, tools: Some(tools).filter(|tools| !tools.is_empty()) }
            }
            None => ToolPrompt { messages: self.plain_messages(messages, functions), tools: None },
        }
    }

    fn native_message(&self, native: Native, mut message: Value) -> Value {
        if let Some(calls) = message.get_mut("tool_calls").and_then(Value::as_array_mut) {
            for call in calls {
                self.shorten(&mut call["id"]);
                if !native.objects {
                    let arguments = &mut call["function"]["arguments"];
                    *arguments = Value::String(arguments.to_string());
                }
            }
        }
        if let Some(id) = message.get_mut("tool_call_id") {
            self.shorten(id);
        }
        message
    }

    /// Ids that the template would refuse are replaced, each always by the same.
    fn shorten(&self, id: &mut Value) {
        let Some(text) = id.as_str().filter(|_| self.format.short_ids) else { return };
        if text.len() != 9 || !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            // FNV-1a, which is the same on every machine.
            let step = |hash: u128, byte: u8| (hash ^ u128::from(byte)).wrapping_mul(0x0100_0000_01b3);
            let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, step);
            *id = Value::String(short_id(hash));
        }
    }

    /// Messages of no other kinds than every template knows.
    fn plain_messages(&self, messages: Vec<Value>, functions: &[Function]) -> Vec<Value> {
        let mut names = HashMap::new();
        let mut plain: Vec<Value> = Vec::new();
        // Whether the last message is results, which are told by the user.
        let mut results = false;
        for mut message in messages {
            let calls = message.as_object_mut().and_then(|object| object.remove("tool_calls"));
            if let Some(Value::Array(calls)) = calls {
                let written: Vec<_> = calls.iter().map(name_and_arguments).collect();
                names.extend(calls.iter().zip(&written).map(|(call, (name, _))| (call["id"].clone(), name.clone())));
                let before = message["content"].as_str().unwrap_or_default();
                let line = if before.is_empty() { "" } else { "\n" };
                message["content"] = json!(format!("{before}{line}{}", self.format.written(&written)));
            }
            let is_result = message["role"] == "tool";
            if is_result {
                let name = names.get(&message["tool_call_id"]).map_or("the function", String::as_str);
                let content = message["content"].as_str().unwrap_or_default();
                message = json!({"role": "user", "content": format!("The result of {name}:\n{content}")});
            }
            match plain.last_mut() {
                Some(last) if results && message["role"] == "user" => join(last, &message),
                _ => plain.push(message),
            }
            results = is_result || (results && plain.last().is_some_and(|last| last["role"] == "user"));
        }
        if !functions.is_empty() {
            self.instruct(&mut plain, functions);
        }
        plain
    }

    /// Says in front of everything which functions there are.
    fn instruct(&self, messages: &mut Vec<Value>, functions: &[Function]) {
        let example = ("<name of the function>".to_owned(), "<object of its arguments>".to_owned());
        let mut text = generic::INSTRUCTIONS.replace("<call>", &self.format.written(&[example]));
        for function in functions {
            text.push('\n');
            text.push_str(&function.described()["function"].to_string());
        }
        let instructions = json!({"role": "system", "content": text});
        match messages.first_mut() {
            Some(first) if first["role"] == "system" => join(first, &instructions),
            Some(first) if !self.takes_system && first["role"] == "user" => {
                let mut joined = json!({"role": "user", "content": text});
                join(&mut joined, first);
                *first = joined;
            }
            _ if self.takes_system => messages.insert(0, instructions),
            _ => messages.insert(0, json!({"role": "user", "content": text})),
        }
    }
}

impl ToolFormat {
    /// Calls as the model writes them: names, and arguments as JSON.
    fn written(&self, calls: &[(String, String)]) -> String {
        let (layout, opener) = (&self.layout, self.syntax.opener);
        let closer = self.syntax.closer.unwrap_or_default();
        let written = |(name, arguments): &(String, String)| {
            let call = match self.syntax.shape {
                Shape::Object { arguments: key } => format!(r#"{{"name": {}, "{key}": {arguments}}}"#, json!(name)),
                Shape::Named { arguments: mark, .. } => format!("{name}{mark}{arguments}"),
            };
            match layout.opener {
                OpenerPlace::EachCall => format!("{opener}{}{call}{}{closer}", layout.opening, layout.closing),
                OpenerPlace::Nowhere | OpenerPlace::Once => call,
            }
        };
        let calls = calls.iter().map(written).collect::<Vec<_>>().join(layout.between);
        match layout.opener {
            OpenerPlace::Once => format!("{opener}{}{calls}{}", layout.opening, layout.closing),
            OpenerPlace::Nowhere | OpenerPlace::EachCall => calls,
        }
    }
}

impl Native {
    /// How a template takes tools, if it shows them, calls of them and their results.
    fn of(template: &ChatTemplate) -> Option<Self> {
        let function = Function {
            name: "probe_function".to_owned(),
            description: "probe".to_owned(),
            parameters: json!({"type": "object", "properties": {"probe_argument": {"type": "string", "description": "probe"}}}),
            strict: false,
        };
        let tools = [function.described()];
        let shows = |calls: usize, objects: bool| {
            let conversation = probe(calls, objects);
            let text = rendered(template, &conversation, Some(&tools))?;
            let all = (0..calls)
                .all(|call| text.contains(&format!("{ARGUMENT} {call}")) && text.contains(&format!("{RESULT} {call}")));
            all.then_some(())
        };
        rendered(template, &[json!({"role": "user", "content": QUESTION})], Some(&tools))
            .filter(|text| text.contains("probe_argument"))?;
        let objects = shows(1, true).is_some();
        if !objects {
            shows(1, false)?;
        }
        Some(Self { objects, several: shows(2, objects).is_some() })
    }
}

/// A conversation with so many calls in one message.
fn probe(calls: usize, objects: bool) -> Vec<Value> {
    let id = |call: usize| format!("probe000{call}");
    let call = |call: usize| {
        let arguments = json!({"probe_argument": format!("probe value {call}")});
        // As templates write it.
        let text = format!(r#"{{{ARGUMENT} {call}"}}"#);
        let arguments = if objects { arguments } else { Value::String(text) };
        json!({"id": id(call), "type": "function", "function": {"name": "probe_function", "arguments": arguments}})
    };
    let result = |call: usize| json!({"role": "tool", "tool_call_id": id(call), "content": format!("{RESULT} {call}")});
    let asked = [
        json!({"role": "user", "content": QUESTION}),
        json!({"role": "assistant", "content": "", "tool_calls": (0..calls).map(call).collect::<Vec<_>>()}),
    ];
    asked.into_iter().chain((0..calls).map(result)).collect()
}

fn rendered(template: &ChatTemplate, messages: &[Value], tools: Option<&[Value]>) -> Option<String> {
    let conversation = Conversation { messages, tools, add_generation_prompt: true, ..Conversation::default() };
    template.render(&conversation).ok()
}

/// A message for each call, with its results behind it.
fn one_call_a_message(messages: Vec<Value>) -> Vec<Value> {
    let mut split: Vec<Value> = Vec::new();
    let mut messages = messages.into_iter().peekable();
    while let Some(mut message) = messages.next() {
        let calls = match message.get_mut("tool_calls").map(Value::take) {
            Some(Value::Array(calls)) if calls.len() > 1 => calls,
            Some(calls) => {
                message["tool_calls"] = calls;
                split.push(message);
                continue;
            }
            None => {
                split.push(message);
                continue;
            }
        };
        let mut results = Vec::new();
        while let Some(result) = messages.next_if(|next| next["role"] == "tool") {
            results.push(result);
        }
        for call in calls {
            let own = |result: &mut Value| result["tool_call_id"] == call["id"];
            let answers: Vec<Value> = results.extract_if(.., own).collect();
            message["tool_calls"] = json!([call]);
            split.push(message.clone());
            split.extend(answers);
            message["content"] = json!("");
        }
        split.extend(results);
    }
    split
}

fn name_and_arguments(call: &Value) -> (String, String) {
    let function = &call["function"];
    (function["name"].as_str().unwrap_or_default().to_owned(), function["arguments"].to_string())
}

/// Puts the text of `more` behind that of `message`.
fn join(message: &mut Value, more: &Value) {
    let text = |message: &Value| message["content"].as_str().unwrap_or_default().to_owned();
    message["content"] = json!(format!("{}\n\n{}", text(message), text(more)));
}

#[cfg(test)]
mod tests {
    use super::super::super::TemplateTokens;
    use super::*;

    const PLAIN: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";
    const ALTERNATING: &str = "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}\
                               {{ raise_exception('alternate') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}";

    fn template(source: &str) -> ChatTemplate {
        let tokens = TemplateTokens { bos: Some("<s>".to_owned()), eos: Some("</s>".to_owned()), ..Default::default() };
        ChatTemplate::new(source, tokens).unwrap()
    }

    fn weather() -> Function {
        Function {
            name: "get_weather".to_owned(),
            description: "The weather".to_owned(),
            parameters: json!({"type": "object", "properties": {"city": {"type": "string"}}}),
            strict: false,
        }
    }

    fn call(id: &str, city: &str) -> Value {
        json!({"id": id, "type": "function", "function": {"name": "get_weather", "arguments": {"city": city}}})
    }

    fn result(id: &str, content: &str) -> Value {
        json!({"role": "tool", "tool_call_id": id, "content": content})
    }

    fn agent_loop() -> Vec<Value> {
        vec![
            json!({"role": "user", "content": "hi"}),
            json!({"role": "assistant", "content": "Well.", "tool_calls": [call("call_1", "Bern"), call("call_2", "Rom")]}),
            result("call_2", "hot"),
            result("call_1", "cold"),
            json!({"role": "user", "content": "thanks"}),
        ]
    }

    #[test]
    fn a_template_without_tools_gets_them_in_words() {
        let tools = ToolUse::of(&template(PLAIN), None);
        assert_eq!((tools.format.name, tools.native, tools.takes_system), ("generic", None, true));
        let prompt = tools.prompt(agent_loop(), &[weather()]);
        assert_eq!(prompt.tools, None);
        let roles: Vec<&str> = prompt.messages.iter().map(|message| message["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user"]);
        let told = prompt.messages[0]["content"].as_str().unwrap();
        assert!(
            told.contains(r#"{"name": "<name of the function>", "arguments": <object of its arguments>}"#),
            "{told}"
        );
        assert!(told.ends_with(r#""properties":{"city":{"type":"string"}}}}"#), "{told}");
        let called = "Well.\n{\"name\": \"get_weather\", \"arguments\": {\"city\":\"Bern\"}}\n{\"name\": \"get_weather\", \
                      \"arguments\": {\"city\":\"Rom\"}}";
        assert_eq!(prompt.messages[2], json!({"role": "assistant", "content": called}));
        let results = "The result of get_weather:\nhot\n\nThe result of get_weather:\ncold\n\nthanks";
        assert_eq!(prompt.messages[3]["content"], results);
    }

    #[test]
    fn a_template_without_system_messages_gets_them_from_the_user() {
        let source = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}".to_owned()
            + ALTERNATING;
        let template = template(&source);
        let tools = ToolUse::of(&template, None);
        assert!(!tools.takes_system);
        let prompt = tools.prompt(agent_loop(), &[weather()]);
        assert!(rendered(&template, &prompt.messages, None).is_some(), "{:?}", prompt.messages);
        let first = prompt.messages[0]["content"].as_str().unwrap();
        assert!(first.starts_with("You can call functions") && first.ends_with("\n\nhi"), "{first}");
    }

    #[test]
    fn instructions_stand_behind_the_callers_own() {
        let messages =
            vec![json!({"role": "system", "content": "Be brief."}), json!({"role": "user", "content": "hi"})];
        let prompt = ToolUse::of(&template(PLAIN), None).prompt(messages.clone(), &[weather()]);
        assert!(prompt.messages[0]["content"].as_str().unwrap().starts_with("Be brief.\n\nYou can call"));
        assert_eq!(ToolUse::of(&template(PLAIN), None).prompt(messages.clone(), &[]).messages, messages);
    }

    #[test]
    fn a_chosen_format_is_described_as_it_is() {
        let tools = ToolUse::of(&template(PLAIN), ToolFormat::named("hermes"));
        let prompt = tools.prompt(agent_loop(), &[weather()]);
        let called =
            "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\":\"Bern\"}}\n</tool_call>\n<tool_call>";
        assert!(prompt.messages[2]["content"].as_str().unwrap().contains(called));
        assert!(prompt.messages[0]["content"].as_str().unwrap().contains("<tool_call>\n{\"name\": \"<name"));
    }

    #[test]
    fn calls_are_split_for_templates_that_take_one() {
        let [_, _, second, first, _] = &agent_loop()[..] else { panic!() };
        let split = one_call_a_message(agent_loop());
        let calls = |index: usize| split[index]["tool_calls"][0]["id"].as_str().unwrap_or_default();
        assert_eq!((split.len(), calls(1), &split[2], calls(3), &split[4]), (6, "call_1", first, "call_2", second));
        assert_eq!((&split[1]["content"], &split[3]["content"]), (&json!("Well."), &json!("")));
    }

    #[test]
    fn ids_are_made_as_the_template_wants_them() {
        let source = include_str!("../../../tests/fixtures/templates/mistral.jinja");
        let template = template(source);
        let tools = ToolUse::of(&template, None);
        assert_eq!((tools.format.name, tools.native), ("mistral", Some(Native { objects: true, several: true })));
        let prompt = tools.prompt(agent_loop(), &[weather()]);
        let id = prompt.messages[1]["tool_calls"][0]["id"].as_str().unwrap();
        assert_eq!((id.len(), &prompt.messages[3]["tool_call_id"]), (9, &json!(id)));
        assert!(rendered(&template, &prompt.messages[..4], prompt.tools.as_deref()).is_some());
        let own = tools.format.call_id(u128::MAX / 7);
        assert!(own.len() == 9 && own.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }

    #[test]
    fn ids_are_shortened_for_named_calls_too() {
        let template = template(include_str!("../../../tests/fixtures/templates/mistral-args.jinja"));
        let tools = ToolUse::of(&template, None);
        let prompt = tools.prompt(agent_loop()[..4].to_vec(), &[weather()]);
        let text = rendered(&template, &prompt.messages, prompt.tools.as_deref()).unwrap();
        let id = prompt.messages[1]["tool_calls"][0]["id"].as_str().unwrap();
        assert!(text.contains(&format!("[TOOL_CALLS]get_weather[CALL_ID]{id}[ARGS]{{\"city\"")), "{text}");
        let spoken = ToolUse::of(&self::template(PLAIN), ToolFormat::named("mistral-args"));
        let told = spoken.prompt(agent_loop(), &[weather()]).messages;
        let called =
            "Well.\n[TOOL_CALLS]get_weather[ARGS]{\"city\":\"Bern\"}[TOOL_CALLS]get_weather[ARGS]{\"city\":\"Rom\"}";
        assert_eq!(told[2]["content"], called);
        assert!(told[0]["content"].as_str().unwrap().contains("[TOOL_CALLS]<name of the function>[ARGS]<object"));
    }

    #[test]
    fn known_templates_are_recognised() {
        for (source, name, native) in [
            (include_str!("../../../tests/fixtures/templates/mistral-args.jinja"), "mistral-args", Some((true, true))),
            (include_str!("../../../tests/fixtures/templates/llama31.jinja"), "llama", Some((true, false))),
            (include_str!("../../../tests/fixtures/templates/hermes.jinja"), "hermes", Some((true, true))),
            (include_str!("../../../tests/fixtures/templates/llama3.jinja"), "generic", None),
            (include_str!("../../../tests/fixtures/templates/mixtral.jinja"), "generic", None),
            (include_str!("../../../tests/fixtures/templates/smollm2.jinja"), "generic", None),
        ] {
            let tools = ToolUse::of(&template(source), None);
            let native = native.map(|(objects, several)| Native { objects, several });
            assert_eq!((tools.format.name, tools.native), (name, native));
        }
    }
}
