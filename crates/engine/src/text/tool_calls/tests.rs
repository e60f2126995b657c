//! Transcripts of each format, and that the pieces in which an answer comes change nothing.

use proptest::prelude::*;

use super::*;

const FUNCTIONS: [&str; 4] = ["get_weather", "add", "brave_search", "now"];

fn functions() -> Arc<[String]> {
    FUNCTIONS.iter().map(|name| (*name).to_owned()).collect()
}

/// A parsed answer: its content, its calls, and whether each call is complete.
#[derive(Debug, Default, PartialEq)]
struct Parsed {
    content: String,
    calls: Vec<(String, String, bool)>,
}

fn parse<'a>(format: &str, pieces: impl IntoIterator<Item = &'a str>, most: usize) -> Parsed {
    let mut parser = ToolFormat::named(format).unwrap().parser(functions(), most);
    let mut events: Vec<CallEvent> = pieces.into_iter().flat_map(|piece| parser.push(piece)).collect();
    events.extend(parser.finish());
    let mut parsed = Parsed::default();
    for event in events {
        match event {
            CallEvent::Content(text) => parsed.content.push_str(&text),
            CallEvent::Begin { name } => parsed.calls.push((name, String::new(), false)),
            CallEvent::Arguments(text) => parsed.calls.last_mut().unwrap().1.push_str(&text),
            CallEvent::End => parsed.calls.last_mut().unwrap().2 = true,
        }
    }
    parsed
}

/// Format, answer, content, calls. A call that begins with `!` is not complete.
type Transcript = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

const TRANSCRIPTS: &[Transcript] = &[
    (
        "llama",
        r#"{"name": "get_weather", "parameters": {"city": "Zürich"}}"#,
        "",
        &[("get_weather", r#"{"city": "Zürich"}"#)],
    ),
    ("llama", "\n\n{\"name\": \"now\", \"parameters\": {}}\n", "", &[("now", "{}")]),
    (
        "llama",
        r#"<|python_tag|>{"name": "add", "parameters": {"a": 1, "b": [2]}}"#,
        "",
        &[("add", r#"{"a": 1, "b": [2]}"#)],
    ),
    ("llama", r#"{"type": "function", "name": "add", "parameters": {"a": 1}}"#, "", &[("add", r#"{"a": 1}"#)]),
    (
        "llama",
        r#"{"name": "add", "parameters": {"a": 1}}; {"name": "now", "parameters": {}}"#,
        "",
        &[("add", r#"{"a": 1}"#), ("now", "{}")],
    ),
    ("llama", r#"<|python_tag|>{"name": "now"};{"name": "add", "arguments": {}}"#, "", &[("now", "{}"), ("add", "{}")]),
    (
        "llama",
        r#"<|python_tag|>brave_search.call(query="a (b) \"c\"")"#,
        "",
        &[("brave_search", r#"{"query":"a (b) \"c\""}"#)],
    ),
    ("llama", r#"<|python_tag|>add(a=1)"#, "", &[("add", r#"{"a":1}"#)]),
    (
        "llama",
        "[get_weather(city='Bern', days=[1, None]), now()]",
        "",
        &[("get_weather", r#"{"city":"Bern","days":[1,null]}"#), ("now", "{}")],
    ),
    (
        "llama",
        r#"I look. {"name": "add", "parameters": {"a": {"name": "}"}}} Done."#,
        "I look.  Done.",
        &[("add", r#"{"a": {"name": "}"}}"#)],
    ),
    (
        "llama",
        r#"[{"name": "add", "parameters": {}}, {"name": "now", "parameters": {}}]"#,
        "",
        &[("add", "{}"), ("now", "{}")],
    ),
    ("llama", r#"{"name": "unknown", "parameters": {}}"#, r#"{"name": "unknown", "parameters": {}}"#, &[]),
    ("llama", r#"{"name": "add", "colour": {}}"#, r#"{"name": "add", "colour": {}}"#, &[]),
    ("llama", r#"{"name": "add", "parameters": 5}"#, r#"{"name": "add", "parameters": 5}"#, &[]),
    ("llama", r#"{"answer": {"name": "add", "parameters": {}}}"#, r#"{"answer": }"#, &[("add", "{}")]),
    ("llama", "<|python_tag|>print(1)", "<|python_tag|>print(1)", &[]),
    ("llama", "see [add] and [now](x) {", "see [add] and [now](x) {", &[]),
    ("llama", "[add(a=1), boom()]", "[add(a=1), boom()]", &[]),
    ("llama", "[add(1)]", "[add(1)]", &[]),
    ("llama", r#"[add(**{"a": [1, true]})]"#, "", &[("add", r#"{"a":[1,true]}"#)]),
    // Whose arguments they are could not be known in time.
    ("llama", r#"{"parameters": {}, "name": "add"}"#, r#"{"parameters": {}, "name": "add"}"#, &[]),
    ("llama", r#"{"name": "\u0061dd", "parameters": {}}"#, r#"{"name": "\u0061dd", "parameters": {}}"#, &[]),
    ("llama", r#"{"id": 5, "name": "add", "parameters": {}}"#, r#"{"id": 5, "name": "add", "parameters": {}}"#, &[]),
    ("llama", r#"{"name": "add", "parameters": {"a": 1"#, "", &[("!add", r#"{"a": 1"#)]),
    ("llama", r#"{"name": "add", "parameters": {"a": 1}"#, "", &[("add", r#"{"a": 1}"#)]),
    ("llama", r#"{"name": "add", "parameters": {"a": 1}, what"#, ", what", &[("add", r#"{"a": 1}"#)]),
    ("llama", r#"{"name": "add", "parameters": {"a": x}}"#, "x}}", &[("!add", r#"{"a": "#)]),
    ("llama", r#"{"name": "ad"#, r#"{"name": "ad"#, &[]),
    ("llama", "  \n", "  \n", &[]),
    ("llama", "a<|python_tag", "a<|python_tag", &[]),
    (
        "mistral",
        r#"[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}, "id": "VvvODy9mT"}]"#,
        "",
        &[("add", r#"{"a": 1}"#)],
    ),
    (
        "mistral",
        r#"[TOOL_CALLS][{"name": "add", "arguments": {}}, {"name": "now", "arguments": {}}]"#,
        "",
        &[("add", "{}"), ("now", "{}")],
    ),
    (
        "mistral",
        r#"Sure.[TOOL_CALLS] [{"arguments": {"a": 1}, "name": "add"}] Bye"#,
        "Sure. Bye",
        &[("add", r#"{"a": 1}"#)],
    ),
    ("mistral", r#"[TOOL_CALLS]{"name": "now", "arguments": {}}"#, "", &[("now", "{}")]),
    ("mistral", r#"{"name": "add", "arguments": {}}"#, r#"{"name": "add", "arguments": {}}"#, &[]),
    ("mistral", "[TOOL_CALLS] none", "[TOOL_CALLS] none", &[]),
    ("mistral-args", r#"[TOOL_CALLS]add[ARGS]{"a": 1}"#, "", &[("add", r#"{"a": 1}"#)]),
    (
        "mistral-args",
        r#"Both.[TOOL_CALLS]get_weather[ARGS]{"city": {"}": "\"{"}}[TOOL_CALLS]now[ARGS]{}"#,
        "Both.",
        &[("get_weather", r#"{"city": {"}": "\"{"}}"#), ("now", "{}")],
    ),
    ("mistral-args", r#"[TOOL_CALLS]add[CALL_ID]VvvODy9mT[ARGS]{"a": 1} Bye"#, " Bye", &[("add", r#"{"a": 1}"#)]),
    ("mistral-args", "[TOOL_CALLS]add[CALL_ID][ARGS]{}", "[TOOL_CALLS]add[CALL_ID][ARGS]{}", &[]),
    ("mistral-args", "[TOOL_CALLS]add[CALL_ID]a-b[ARGS]{}", "[TOOL_CALLS]add[CALL_ID]a-b[ARGS]{}", &[]),
    ("mistral-args", "[TOOL_CALLS]adder[ARGS]{}", "[TOOL_CALLS]adder[ARGS]{}", &[]),
    ("mistral-args", "[TOOL_CALLS]add[ARGS][1]", "[TOOL_CALLS]add[ARGS][1]", &[]),
    ("mistral-args", "[TOOL_CALLS]add{}", "[TOOL_CALLS]add{}", &[]),
    ("mistral-args", "add[ARGS]{}", "add[ARGS]{}", &[]),
    ("mistral-args", "[TOOL_CALLS]add[ARG", "[TOOL_CALLS]add[ARG", &[]),
    ("mistral-args", r#"[TOOL_CALLS]add[ARGS]{"a": "#, "", &[("!add", r#"{"a": "#)]),
    ("mistral-args", r#"[TOOL_CALLS]add[ARGS]{"a": x}"#, "x}", &[("!add", r#"{"a": "#)]),
    (
        "mistral-args",
        r#"[TOOL_CALLS][{"name": "add", "arguments": {}}]"#,
        r#"[TOOL_CALLS][{"name": "add", "arguments": {}}]"#,
        &[],
    ),
    ("mistral", "[TOOL_[TOOL_CALLS] []", "[TOOL_[TOOL_CALLS] []", &[]),
    (
        "hermes",
        "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>",
        "",
        &[("add", r#"{"a": 1}"#)],
    ),
    (
        "hermes",
        "Both.\n<tool_call>\n{\"arguments\": {}, \"name\": \"add\"}\n</tool_call>\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>\nDone.",
        "Both.\n\nDone.",
        &[("add", "{}"), ("now", "{}")],
    ),
    ("hermes", r#"<tool_call>{"name": "now", "arguments": {}}"#, "", &[("now", "{}")]),
    ("hermes", r#"<tool_call>{"name": "now", "arguments": {}}</tool_"#, "", &[("now", "{}")]),
    ("hermes", r#"<tool_call>{"name": "now", "arguments": {}}<tool_"#, "<tool_", &[("now", "{}")]),
    (
        "hermes",
        r#"<tool_call> <tool_call>{"name": "now", "arguments": {}}</tool_call>"#,
        "<tool_call> ",
        &[("now", "{}")],
    ),
    ("hermes", r#"{"name": "add", "arguments": {}}"#, r#"{"name": "add", "arguments": {}}"#, &[]),
    ("hermes", "a <b> </tool_call> <tool_call>no</tool_call>", "a <b> </tool_call> <tool_call>no</tool_call>", &[]),
    ("generic", r#"{"name": "add", "arguments": {"a": 1}}"#, "", &[("add", r#"{"a": 1}"#)]),
    (
        "generic",
        "{\"name\": \"add\", \"arguments\": {}}\n{\"name\": \"now\", \"arguments\": {}}",
        "",
        &[("add", "{}"), ("now", "{}")],
    ),
    ("generic", "Here:\n```json\n{\"name\": \"add\", \"arguments\": {}}\n```\nSo.", "Here:\n\nSo.", &[("add", "{}")]),
    (
        "generic",
        "```\n[{\"name\": \"add\", \"arguments\": {}},\n {\"name\": \"now\", \"arguments\": {}}]\n```",
        "",
        &[("add", "{}"), ("now", "{}")],
    ),
    ("generic", "```python\nprint({})\n```", "```python\nprint({})\n```", &[]),
    ("generic", "````{", "````{", &[]),
    ("generic", "```return {\"name\": \"now\"} ```", "", &[("now", "{}")]),
    ("generic", "```py\nreturn {\"name\": \"now\"}", "```py\nreturn ", &[("now", "{}")]),
];

#[test]
fn transcripts_are_understood() {
    for (format, text, content, calls) in TRANSCRIPTS {
        let calls = calls.iter().map(|(name, arguments)| {
            let whole = name.strip_prefix('!');
            (whole.unwrap_or(name).to_owned(), (*arguments).to_owned(), whole.is_none())
        });
        let expected = Parsed { content: (*content).to_owned(), calls: calls.collect() };
        assert_eq!(parse(format, [*text], 32), expected, "{format}: {text}");
    }
}

#[test]
fn no_more_calls_than_are_allowed() {
    let one = r#"{"name": "add", "parameters": {}}"#;
    let parsed = parse("llama", [format!("{one}; {one}").as_str()], 1);
    assert_eq!(parsed, Parsed { content: format!("; {one}"), calls: vec![("add".into(), "{}".into(), true)] });
    assert_eq!(parse("llama", ["[add(), now()]"], 1).content, "[add(), now()]");
}

#[test]
fn what_cannot_be_a_call_is_not_held_back() {
    let mut parser = ToolFormat::named("llama").unwrap().parser(functions(), 1);
    assert_eq!(parser.push(r#"{"city""#), [CallEvent::Content(r#"{"city""#.to_owned())]);
    let mut parser = ToolFormat::named("hermes").unwrap().parser(functions(), 1);
    assert_eq!(parser.push("Hello <t"), [CallEvent::Content("Hello ".to_owned())]);
    assert_eq!(parser.push("r> you"), [CallEvent::Content("<tr> you".to_owned())]);
}

#[test]
fn arguments_come_as_they_are_written() {
    let mut parser = ToolFormat::named("generic").unwrap().parser(functions(), 1);
    assert_eq!(parser.push(r#"{"name": "add", "arguments": "#), []);
    let begin = CallEvent::Begin { name: "add".to_owned() };
    assert_eq!(parser.push(r#"{"a"#), [begin, CallEvent::Arguments(r#"{"a"#.to_owned())]);
    assert_eq!(parser.push(r#"": 1}}"#), [CallEvent::Arguments(r#"": 1}"#.to_owned()), CallEvent::End]);
}

/// Texts made of what calls are made of.
fn fragments() -> impl Strategy<Value = String> {
    let fragments = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "\"",
        ",",
        ";",
        ":",
        " ",
        "\n",
        "a",
        "é",
        "1",
        "=",
        "'",
        "\\",
        "`",
        "```",
        "json",
        "<",
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "[ARGS]{",
        "[CALL_ID]",
        "add",
        "<|python_tag|>",
        "{\"name\": \"add\", ",
        "\"arguments\": {",
        "\"parameters\": {\"a\": ",
        "{\"name\": \"add\", \"arguments\": {\"a\": 1}}",
        "{\"name\": \"now\", \"parameters\": {}}",
        "add(a=",
        "now()",
        "[now(), ",
        ".call(",
        "{\"arguments\": {}, \"name\": \"now\"",
        "\"id\": \"x\"",
        "\"name\": \"nobody\"",
    ]);
    prop::collection::vec(fragments, 0..14).prop_map(|parts| parts.concat())
}

fn pieces<'a>(text: &'a str, cuts: &[usize]) -> Vec<&'a str> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| text.floor_char_boundary(cut % (text.len() + 1))).collect();
    places.extend([0, text.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

fn formats() -> impl Strategy<Value = &'static str> {
    prop::sample::select(TOOL_FORMATS.iter().map(|format| format.name).collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_pieces_change_nothing(
        format in formats(), text in fragments(), cuts in prop::collection::vec(0usize..400, 0..30), most in 1usize..4,
    ) {
        let whole = parse(format, [text.as_str()], most);
        prop_assert_eq!(parse(format, pieces(&text, &cuts), most), whole);
    }

    #[test]
    fn the_pieces_of_transcripts_change_nothing(
        index in 0..TRANSCRIPTS.len(), cuts in prop::collection::vec(0usize..400, 0..30),
    ) {
        let (format, text, ..) = TRANSCRIPTS[index];
        prop_assert_eq!(parse(format, pieces(text, &cuts), 32), parse(format, [text], 32));
    }

    /// Complete calls are of functions that there are, and have JSON objects for arguments.
    #[test]
    fn complete_calls_are_calls(format in formats(), text in fragments()) {
        for (name, arguments, complete) in parse(format, [text.as_str()], 8).calls {
            prop_assert!(FUNCTIONS.contains(&name.as_str()));
            if complete {
                let object: Result<serde_json::Map<String, Value>, _> = serde_json::from_str(&arguments);
                prop_assert!(object.is_ok(), "{}", arguments);
            }
        }
    }

    /// Where nothing can be called, everything is content.
    #[test]
    fn nothing_is_dropped(format in formats(), text in fragments(), cuts in prop::collection::vec(0usize..400, 0..9)) {
        let mut parser = ToolFormat::named(format).unwrap().parser(Arc::new([]), 8);
        let mut events: Vec<CallEvent> = pieces(&text, &cuts).into_iter().flat_map(|piece| parser.push(piece)).collect();
        events.extend(parser.finish());
        let content: String = events.into_iter().map(|event| match event {
            CallEvent::Content(text) => text,
            other => panic!("{other:?}"),
        }).collect();
        prop_assert_eq!(content, text);
    }
}
