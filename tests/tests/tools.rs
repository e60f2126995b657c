//! Answers that call functions, held to each format's grammar over a vocabulary: what may be said, what may not, and that
//! what is drawn blindly is made of valid calls.

use anyhow::{Context, Result};
use hearth_engine::text::grammar::{AnswerStart, GrammarSource, GrammarState, Grammars};
use hearth_engine::text::tool_calls::{CallEvent, CallParser, Function, Offer, Otherwise, TOOL_FORMATS, ToolFormat};
use hearth_engine::text::{Detokenizer, DetokenizerOptions, SpecialTokens, Tokenizer};
use hearth_sampler::TokenMask;
use hearth_tests::checkpoint;
use proptest::prelude::*;
use serde_json::{Value, json};

/// The end token of the tiny checkpoints.
const END: u32 = 2;

fn tokenizer() -> Result<Tokenizer> {
    Ok(Tokenizer::from_file(checkpoint("llama-linear-f32").path.join("tokenizer.json"))?)
}

fn functions() -> Vec<Function> {
    let function = |name: &str, parameters: Value| Function {
        name: name.to_owned(),
        description: String::new(),
        parameters,
        strict: false,
    };
    let unit = json!({"enum": ["C", "F"]});
    vec![
        function("get", json!({"type": "object", "properties": {"unit": unit}, "required": ["unit"]})),
        function("now", json!({"type": "object", "properties": {}})),
    ]
}

/// The grammars of a vocabulary, and what is to be called.
struct Held {
    tokenizer: Tokenizer,
    grammars: Grammars,
    functions: Vec<Function>,
}

impl Held {
    fn new() -> Result<Self> {
        let tokenizer = tokenizer()?;
        Ok(Self { grammars: Grammars::new(tokenizer.clone(), vec![END]), tokenizer, functions: functions() })
    }

    fn start(&self, format: &ToolFormat, otherwise: Otherwise<'_>, parallel: bool) -> Result<GrammarState> {
        let offer = Offer { functions: &self.functions, otherwise, parallel };
        let source = format.grammar(offer, &self.tokenizer).map_err(|(_, error)| error)?;
        Ok(self.grammars.compile(&source, AnswerStart::Anew).with_context(|| format!("{source:?}"))?.start())
    }

    /// Whether an answer may be this text, and end there.
    fn allows(&self, format: &str, (otherwise, parallel): (Otherwise<'_>, bool), text: &str) -> Result<bool> {
        let mut state = self.start(ToolFormat::named(format).context("format")?, otherwise, parallel)?;
        let mut tokens = self.tokenizer.encode(text, SpecialTokens::Omit)?.into_iter();
        while let Some(token) = tokens.next() {
            if !state.mask()?.allows(token) {
                return Ok(false);
            }
            if state.commit(token)? {
                return Ok(tokens.next().is_none());
            }
        }
        Ok(state.mask()?.allows(END))
    }

    fn parser(&self, format: &ToolFormat, most: usize) -> CallParser {
        format.parser(self.functions.iter().map(|function| function.name.clone()).collect(), most)
    }

    /// Tokens drawn blindly among those that are allowed, until the answer may end; what it becomes.
    fn drawn(&self, state: &mut GrammarState, seed: u64, parser: CallParser) -> Result<Parsed> {
        let mut detokenizer = Detokenizer::new(&self.tokenizer, DetokenizerOptions::default());
        let (mut parsed, mut random) = (Parsed { parser, content: String::new(), calls: Vec::new() }, seed);
        for _ in 0..3000 {
            let mask = state.mask()?;
            let allowed: Vec<u32> =
                (0..self.tokenizer.vocab_size() as u32).filter(|token| mask.allows(*token)).collect();
            if allowed.contains(&END) {
                parsed.push(&detokenizer.finish());
                return Ok(parsed.finish());
            }
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let token = allowed[(random >> 33) as usize % allowed.len()];
            parsed.push(&detokenizer.push(token));
            if state.commit(token)? {
                parsed.push(&detokenizer.finish());
                return Ok(parsed.finish());
            }
        }
        anyhow::bail!("no end: {:?}, {:?}", parsed.content, parsed.calls)
    }
}

/// What an answer becomes.
struct Parsed {
    parser: CallParser,
    content: String,
    /// Names, arguments, and whether they are complete.
    calls: Vec<(String, String, bool)>,
}

impl Parsed {
    fn push(&mut self, text: &str) {
        let events = self.parser.push(text);
        self.take(events);
    }

    fn finish(mut self) -> Self {
        let events = self.parser.finish();
        self.take(events);
        self
    }

    fn take(&mut self, events: Vec<CallEvent>) {
        for event in events {
            match (event, self.calls.last_mut()) {
                (CallEvent::Content(text), _) => self.content.push_str(&text),
                (CallEvent::Begin { name }, _) => self.calls.push((name, String::new(), false)),
                (CallEvent::Arguments(text), Some(call)) => call.1.push_str(&text),
                (CallEvent::End, Some(call)) => call.2 = true,
                (event, None) => panic!("{event:?} of no call"),
            }
        }
    }

    /// Every call is complete and of its function's schema.
    fn check(&self) {
        for (name, arguments, complete) in &self.calls {
            let value: Value = serde_json::from_str(arguments).unwrap_or_default();
            let valid = match name.as_str() {
                "get" => value == json!({"unit": "C"}) || value == json!({"unit": "F"}),
                _ => value == json!({}),
            };
            assert!(*complete && valid, "{name}: {arguments}");
        }
    }
}

type How = (Otherwise<'static>, bool);
const AUTO: How = (Otherwise::Text, true);
const ONE: How = (Otherwise::Text, false);
const REQUIRED: How = (Otherwise::Nothing, true);
const REQUIRED_ONE: How = (Otherwise::Nothing, false);

#[test]
fn what_has_begun_as_a_call_goes_on_as_one() -> Result<()> {
    let held = Held::new()?;
    let good = |key: &str| format!(r#"{{"name": "get", "{key}": {{"unit": "C"}}}}"#);
    let bad = |key: &str| format!(r#"{{"name": "get", "{key}": {{"unit": "K"}}}}"#);
    let (arguments, parameters) = (good("arguments"), good("parameters"));
    let tag = |call: &str| format!("<tool_call>\n{call}\n</tool_call>");
    let named = |arguments: &str| format!("[TOOL_CALLS]get[ARGS]{arguments}");
    for (format, how, text, allowed) in [
        ("llama", AUTO, "Hello {\"a\": [1]} you".to_owned(), true),
        ("llama", AUTO, parameters.clone(), true),
        ("llama", AUTO, format!("Sure: {parameters}; {parameters} done"), true),
        ("llama", AUTO, bad("parameters"), false),
        ("llama", AUTO, format!("Sure: {}", bad("parameters")), false),
        ("llama", AUTO, r#"{"name": "other", "parameters": {"unit": "K"}}"#.to_owned(), true),
        ("llama", AUTO, r#"{"id": "a", "name": "get", "parameters": {"unit": "K"}}"#.to_owned(), false),
        ("llama", AUTO, r#"{ "type":"function", "name" : "get", "parameters": {"unit": "F"}}"#.to_owned(), true),
        ("llama", AUTO, r#"{"name": "now"}"#.to_owned(), true),
        ("llama", AUTO, r#"{"name": "get"}"#.to_owned(), false),
        ("llama", AUTO, r#"{"name": "get", "colour": 1}"#.to_owned(), false),
        ("llama", AUTO, r#"{"parameters": {"unit": "K"}, "name": "get"}"#.to_owned(), true),
        ("llama", AUTO, r#"{"names": "{ {"name": "get", "parameters": {"unit": "K"}}"#.to_owned(), false),
        ("llama", AUTO, "[get(unit='K')]".to_owned(), false),
        ("llama", AUTO, "[get(unit='C')]".to_owned(), true),
        ("llama", AUTO, "Both: [get(unit=\"C\"), now( )] and [now()] there.".to_owned(), true),
        ("llama", AUTO, "[get(unit)]".to_owned(), false),
        ("llama", AUTO, "[now(a=1)]".to_owned(), false),
        ("llama", AUTO, "[get(unit='C'), other()]".to_owned(), false),
        ("llama", AUTO, "[other(unit='K'), get(unit='K')]".to_owned(), true),
        ("llama", AUTO, "get(unit='K')".to_owned(), true),
        ("llama", AUTO, "<|python_tag|>get.call(unit=\"F\")".to_owned(), true),
        ("llama", AUTO, "<|python_tag|>get.call(unit=\"K\")".to_owned(), false),
        ("llama", AUTO, "<|python_tag|>print(1)".to_owned(), true),
        ("llama", ONE, "[get(unit='C')]".to_owned(), true),
        ("llama", ONE, "[get(unit='C'), now()]".to_owned(), false),
        ("llama", ONE, parameters.clone(), true),
        ("llama", ONE, format!("[{parameters}]"), true),
        ("llama", ONE, format!("{parameters}; {parameters}"), false),
        ("llama", REQUIRED, format!("{parameters}; {parameters}"), true),
        ("llama", REQUIRED_ONE, parameters.clone(), true),
        ("llama", REQUIRED_ONE, "Hello".to_owned(), false),
        ("llama", REQUIRED_ONE, String::new(), false),
        ("generic", AUTO, format!("```json\n{arguments}\n```\nThere."), true),
        ("generic", ONE, format!("```json\n[{arguments}]\n```"), true),
        ("generic", AUTO, format!("```json\n{}", bad("arguments")), false),
        ("generic", REQUIRED, format!("{arguments}\n{arguments}"), true),
        ("hermes", AUTO, format!("Both.\n{}\n{}", tag(&arguments), tag(&arguments)), true),
        ("hermes", AUTO, bad("arguments"), true),
        ("hermes", AUTO, tag(&bad("arguments")), false),
        ("hermes", AUTO, "<tool_call>what".to_owned(), false),
        ("hermes", ONE, tag(&arguments), true),
        ("hermes", ONE, format!("{}\n{}", tag(&arguments), tag(&arguments)), false),
        ("hermes", REQUIRED, format!("{}\n{}", tag(&arguments), tag(&arguments)), true),
        ("hermes", REQUIRED, format!("Both. {}", tag(&arguments)), false),
        ("mistral", AUTO, format!("[TOOL_CALLS] [{arguments}, {arguments}]"), true),
        ("mistral", AUTO, r#"Yes.[TOOL_CALLS][{"name": "now", "arguments": {}, "id": "abcdefgh1"}]"#.to_owned(), true),
        ("mistral", AUTO, format!("[TOOL_CALLS] [{}]", bad("arguments")), false),
        ("mistral", AUTO, "[a] [TOOL] none".to_owned(), true),
        ("mistral", ONE, format!("[TOOL_CALLS] [{arguments}, {arguments}]"), false),
        ("mistral", REQUIRED, format!("[TOOL_CALLS][{arguments}, {arguments}]"), true),
        ("mistral", REQUIRED_ONE, format!("[TOOL_CALLS] [{arguments}]"), true),
        ("mistral-args", AUTO, named(r#"{"unit": "C"}"#) + &named(r#"{"unit": "F"}"#) + "There.", true),
        ("mistral-args", AUTO, r#"Yes.[TOOL_CALLS]get[CALL_ID]abcdefgh1[ARGS]{"unit":"C"}"#.to_owned(), true),
        ("mistral-args", AUTO, named(r#"{"unit": "K"}"#), false),
        ("mistral-args", AUTO, "[TOOL_CALLS]other[ARGS]{}".to_owned(), false),
        ("mistral-args", AUTO, "get[ARGS]{}".to_owned(), true),
        ("mistral-args", ONE, named(r#"{"unit": "C"}"#), true),
        ("mistral-args", ONE, named(r#"{"unit": "C"}"#) + &named(r#"{"unit": "F"}"#), false),
        ("mistral-args", REQUIRED, named(r#"{"unit": "C"}"#) + "[TOOL_CALLS]now[ARGS]{}", true),
        ("mistral-args", REQUIRED, format!("Yes.{}", named(r#"{"unit": "C"}"#)), false),
    ] {
        assert_eq!(held.allows(format, how, &text)?, allowed, "{format}, (otherwise, parallel) {how:?}: {text}");
    }
    Ok(())
}

#[test]
fn what_is_drawn_blindly_is_valid_calls() -> Result<()> {
    let held = Held::new()?;
    for (format, seed) in TOOL_FORMATS.iter().flat_map(|format| (0..6u64).map(move |seed| (format, seed))) {
        let mut state = held.start(format, Otherwise::Nothing, seed % 2 == 0)?;
        let parsed = held.drawn(&mut state, seed, held.parser(format, 100))?;
        assert_eq!(parsed.content, "", "{}", format.name);
        assert!(!parsed.calls.is_empty() && (seed % 2 == 0 || parsed.calls.len() == 1), "{}", format.name);
        parsed.check();
    }
    Ok(())
}

/// An answer that may call or have a form: whatever begins as a call is valid calls, and anything else has the form.
#[test]
fn what_is_no_call_has_the_form() -> Result<()> {
    let held = Held::new()?;
    let short = json!({"type": "object", "additionalProperties": {"enum": [1, {"unit": "K"}]}, "maxProperties": 2});
    let forms = [
        GrammarSource::JsonSchema { schema: short, strict: true },
        GrammarSource::Regex(r"[^\n]{0,30}".to_owned()),
        GrammarSource::Choice(vec!["{".to_owned(), "none".to_owned(), "[TOOL".to_owned()]),
    ];
    for (format, seed) in TOOL_FORMATS.iter().flat_map(|format| (0..12u64).map(move |seed| (format, seed))) {
        let heads = format.heads(&held.functions);
        let form = &forms[seed as usize % forms.len()];
        // Nothing, a part of a call's beginning, or all of it.
        let head = &heads[seed as usize % heads.len()];
        let begun = &head[..head.len() * (seed as usize / 4) / 2];
        let mut state = held.start(format, Otherwise::Form(form), false)?;
        let mut parser = Parsed {
            parser: held.parser(format, 1).deciding(heads.clone()),
            content: String::new(),
            calls: Vec::new(),
        };
        let mut allowed = true;
        for token in held.tokenizer.encode(begun, SpecialTokens::Omit)? {
            allowed = state.mask()?.allows(token);
            if !allowed {
                break;
            }
            state.commit(token)?;
        }
        assert!(allowed, "{}: {begun:?} may begin a call beside {form:?}", format.name);
        parser.push(begun);
        let Parsed { parser, content, calls } = parser;
        let rest = held.drawn(&mut state, seed, parser)?;
        let parsed = Parsed { content: content + &rest.content, calls: [calls, rest.calls].concat(), ..rest };
        parsed.check();
        let text = &parsed.content;
        match (parsed.calls.len(), form) {
            (1, _) => assert_eq!((text.as_str(), begun == head || seed < 8), ("", true), "{}", format.name),
            (_, GrammarSource::JsonSchema { .. }) => {
                assert!(serde_json::from_str::<Value>(text)?.is_object(), "{text}")
            }
            (_, GrammarSource::Choice(choices)) => assert!(choices.contains(text), "{text}"),
            (_, _) => assert!(text.chars().count() <= 30 && !text.contains('\n'), "{text}"),
        }
        assert!(begun != head || parsed.calls.len() == 1, "{}: {head:?} was no call", format.name);
    }
    Ok(())
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
        " ",
        "\n",
        "a",
        "é",
        "\\",
        "```",
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "<|python_tag|>",
        "{\"name\": \"get\"",
        ", \"parameters\": {\"unit\": ",
        "\"C\"}}",
        "\"K\"}}",
        "{\"name\": \"now\"}",
        "{\"name\": \"now\", \"arguments\": {}}",
        ", \"arguments\": {\"unit\": ",
        "get(unit=",
        "get.call(unit=",
        "'C')",
        "'K')",
        "now()",
        "{\"id\": \"x\", ",
        "{\"type\": 5, ",
        "\"name\": \"get\"",
        "{\"parameters\": {}, ",
        "get[ARGS]",
        "{\"unit\": \"K\"}",
        "{\"unit\": \"C\"}",
    ]);
    prop::collection::vec(fragments, 0..9).prop_map(|parts| parts.concat())
}

/// Whatever a grammar lets through and the parser takes for a call is a valid one, however it came about.
#[test]
fn what_is_let_through_and_read_as_a_call_is_valid() -> Result<()> {
    let held = Held::new()?;
    let formats = prop::sample::select(TOOL_FORMATS.iter().collect::<Vec<_>>());
    let called = std::cell::Cell::new(0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(4000));
    let outcome = runner.run(&(formats, fragments(), any::<bool>()), |(format, text, parallel)| {
        let allowed = held
            .allows(format.name, (Otherwise::Text, parallel), &text)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        if allowed {
            let mut parsed = Parsed {
                parser: held.parser(format, if parallel { 100 } else { 1 }),
                content: String::new(),
                calls: Vec::new(),
            };
            parsed.push(&text);
            let parsed = parsed.finish();
            called.set(called.get() + parsed.calls.len());
            parsed.check();
        }
        Ok(())
    });
    outcome.map_err(|error| anyhow::anyhow!("{error}"))?;
    assert!(called.get() > 20, "only {} calls", called.get());
    Ok(())
}

/// Thirty-two functions whose names differ in their last characters, with schemas as long as fit.
#[test]
fn as_many_functions_as_there_may_be() -> Result<()> {
    let property = json!({"type": "object", "properties": {"part": {"$ref": "#/$defs/part"}, "note": {"type": ["string", "null"]}}});
    let properties: serde_json::Map<String, Value> = (0..20).map(|n| (format!("p{n}"), property.clone())).collect();
    let schema = json!({"type": "object", "properties": properties, "$defs": {"part": {"enum": ["é", true, null]}}});
    let functions = (0..32).map(|n| Function {
        name: format!("{}_{n}", "f".repeat(60)),
        description: String::new(),
        parameters: schema.clone(),
        strict: false,
    });
    let held = Held { functions: functions.collect(), ..Held::new()? };
    let call = |arguments: &str| format!("{{\"name\": \"{}\", \"parameters\": {arguments}}}", held.functions[31].name);
    let python = |arguments: &str| format!("[{}({arguments})]", held.functions[7].name);
    for (text, allowed) in [
        (format!("Text, code {{}} and {}", call(r#"{"p3": {"part": "é"}}"#)), true),
        (call(r#"{"p3": {"part": "e"}}"#), false),
        (python(r#"**{"p19": {"part": null}}"#), true),
        (python(r#"**{"p19": {"part": 1}}"#), false),
    ] {
        assert_eq!(held.allows("llama", AUTO, &text)?, allowed, "{text}");
    }
    for (format, how) in TOOL_FORMATS.iter().flat_map(|format| [AUTO, ONE, REQUIRED].map(|how| (format, how))) {
        held.start(format, how.0, how.1)?.mask()?;
    }
    Ok(())
}

/// Arguments as in Python: in order, left out where they may be, in Python's spelling or in JSON's.
#[test]
fn arguments_as_in_python_are_of_the_schema() -> Result<()> {
    let parameters = json!({"type": "object", "required": ["at", "on"], "properties": {
        "who": {"type": "string"}, "at": {"type": "integer", "minimum": 3, "maximum": 12},
        "on": {"anyOf": [{"type": "boolean"}, {"type": "null"}], "title": "On"}, "tags": {"type": "array", "items":
        {"$ref": "#/$defs/tag"}, "maxItems": 2}, "unit": {"type": "string", "enum": ["C", "it's"]}, "ä": {"type": "null"}},
        "$defs": {"tag": {"type": "string", "maxLength": 2}}});
    let free = json!({"type": "object"});
    let function = |name: &str, parameters: &Value| Function {
        name: name.to_owned(),
        description: String::new(),
        parameters: parameters.clone(),
        strict: false,
    };
    let held = Held { functions: vec![function("f", &parameters), function("any", &free)], ..Held::new()? };
    let validity = |arguments: &str| held.allows("llama", ONE, &format!("[{arguments}]"));
    for (text, expected) in [
        ("f(at=7, on=True)", json!({"at": 7, "on": true})),
        ("f( who = 'a \"b\"', at=12, on=None )", json!({"who": "a \"b\"", "at": 12, "on": null})),
        (
            r#"f(who="a\n", at=3, on=false, tags=["a", "bc"], unit='C')"#,
            json!({"who": "a\n", "at": 3, "on": false, "tags": ["a", "bc"], "unit": "C"}),
        ),
        (r#"f(at=3, on=null, unit="it's")"#, json!({"at": 3, "on": null, "unit": "it's"})),
        ("any()", json!({})),
        (r#"any(**{"x": [1]})"#, json!({"x": [1]})),
    ] {
        assert!(validity(text)?, "{text}");
        let mut parser = held.parser(ToolFormat::named("llama").context("format")?, 1);
        let mut events = parser.push(&format!("[{text}]"));
        events.extend(parser.finish());
        let read: String = events
            .iter()
            .filter_map(|event| match event {
                CallEvent::Arguments(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(serde_json::from_str::<Value>(&read)?, expected, "{text}");
    }
    for text in [
        "f(at=7)",
        "f(on=True, at=7)",
        "f(at=2, on=True)",
        "f(at=7.5, on=True)",
        "f(at=7, on=1)",
        "f(at=7, on=True, unit='K')",
        "f(at=7, on=True, unit='it's')",
        "f(at=7, on=True, tags=['a'])",
        r#"f(at=7, on=True, tags=["abc"])"#,
        "f(7, True)",
        "f(at=7, on=True,)",
        "f(at=7, on=True, more=1)",
        r#"f(**{"at": 7, "on": true})"#,
        "any(x=1)",
        "any(**[1])",
    ] {
        assert!(!validity(text)?, "{text}");
    }
    Ok(())
}

#[test]
fn a_schema_that_cannot_be_honoured_is_named_by_its_function() -> Result<()> {
    let tokenizer = tokenizer()?;
    let mut functions = functions();
    functions[1].parameters = json!({"type": "object", "not": {}});
    for format in TOOL_FORMATS {
        let offer = Offer { functions: &functions, otherwise: Otherwise::Text, parallel: true };
        let (index, error) = format.grammar(offer, &tokenizer).unwrap_err();
        assert!(index == 1 && error.to_string().contains("`not`"), "{error}");
    }
    Ok(())
}

#[test]
fn cards_name_formats_that_there_are() -> Result<()> {
    for card in hearth_engine::hub::Catalogue::embedded()?.cards() {
        let known = card.tool_format.as_deref().is_none_or(|name| ToolFormat::named(name).is_some());
        assert!(known, "{}: {:?}", card.name, card.tool_format);
    }
    Ok(())
}
