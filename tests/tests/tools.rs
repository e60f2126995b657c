//! Answers that call functions, held to each format's grammar over a vocabulary: what may be said, what may not, and that
//! what is drawn blindly is made of valid calls.

use std::sync::Arc;

use anyhow::{Context, Result};
use hearth_engine::text::grammar::{AnswerStart, Grammars};
use hearth_engine::text::tool_calls::{CallEvent, Function, Offer, TOOL_FORMATS, ToolFormat};
use hearth_engine::text::{Detokenizer, DetokenizerOptions, SpecialTokens, Tokenizer};
use hearth_sampler::TokenMask;
use hearth_tests::checkpoint;
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

    fn start(
        &self,
        format: &ToolFormat,
        required: bool,
        parallel: bool,
    ) -> Result<hearth_engine::text::grammar::GrammarState> {
        let offer = Offer { functions: &self.functions, required, parallel };
        let source = format.grammar(offer, &self.tokenizer).map_err(|(_, error)| error)?;
        Ok(self.grammars.compile(&source, AnswerStart::Anew).with_context(|| format!("{source:?}"))?.start())
    }

    /// Whether an answer may be this text, and end there.
    fn allows(&self, format: &str, (required, parallel): (bool, bool), text: &str) -> Result<bool> {
        let mut state = self.start(ToolFormat::named(format).context("format")?, required, parallel)?;
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
}

const AUTO: (bool, bool) = (false, true);
const ONE: (bool, bool) = (false, false);
const REQUIRED: (bool, bool) = (true, true);
const REQUIRED_ONE: (bool, bool) = (true, false);

#[test]
fn what_has_begun_as_a_call_goes_on_as_one() -> Result<()> {
    let held = Held::new()?;
    let good = |key: &str| format!(r#"{{"name": "get", "{key}": {{"unit": "C"}}}}"#);
    let bad = |key: &str| format!(r#"{{"name": "get", "{key}": {{"unit": "K"}}}}"#);
    let (arguments, parameters) = (good("arguments"), good("parameters"));
    let tag = |call: &str| format!("<tool_call>\n{call}\n</tool_call>");
    for (format, how, text, allowed) in [
        ("llama", AUTO, "Hello {\"a\": [1]} you".to_owned(), true),
        ("llama", AUTO, parameters.clone(), true),
        ("llama", AUTO, format!("Sure: {parameters}; {parameters} done"), true),
        ("llama", AUTO, bad("parameters"), false),
        ("llama", AUTO, format!("Sure: {}", bad("parameters")), false),
        ("llama", AUTO, r#"{"name": "other", "parameters": {"unit": "K"}}"#.to_owned(), true),
        ("llama", AUTO, "[get(unit='K')]".to_owned(), true),
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
    ] {
        assert_eq!(held.allows(format, how, &text)?, allowed, "{format}, (required, parallel) {how:?}: {text}");
    }
    Ok(())
}

/// Tokens drawn blindly among those that are allowed, with ends taken where they are.
#[test]
fn what_is_drawn_blindly_is_valid_calls() -> Result<()> {
    let held = Held::new()?;
    let names: Arc<[String]> = held.functions.iter().map(|function| function.name.clone()).collect();
    for (format, seed) in TOOL_FORMATS.iter().flat_map(|format| (0..6u64).map(move |seed| (format, seed))) {
        let mut state = held.start(format, true, seed % 2 == 0)?;
        let mut detokenizer = Detokenizer::new(&held.tokenizer, DetokenizerOptions::default());
        let mut parser = format.parser(Arc::clone(&names), 100);
        let (mut events, mut random, mut over) = (Vec::new(), seed, false);
        for _ in 0..2000 {
            let mask = state.mask()?;
            let allowed: Vec<u32> =
                (0..held.tokenizer.vocab_size() as u32).filter(|token| mask.allows(*token)).collect();
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let token = allowed[(random >> 33) as usize % allowed.len()];
            over = allowed.contains(&END);
            if over {
                break;
            }
            events.extend(parser.push(&detokenizer.push(token)));
            over = state.commit(token)?;
            if over {
                break;
            }
        }
        assert!(over, "{}: no end", format.name);
        events.extend(parser.push(&detokenizer.finish()));
        events.extend(parser.finish());
        let mut calls: Vec<(String, String)> = Vec::new();
        for event in events {
            match event {
                CallEvent::Content(text) => panic!("{}: content {text:?}", format.name),
                CallEvent::Begin { name } => calls.push((name, String::new())),
                CallEvent::Arguments(text) => calls.last_mut().context("a call")?.1.push_str(&text),
                CallEvent::End => {}
            }
        }
        assert!(!calls.is_empty() && (seed % 2 == 0 || calls.len() == 1), "{}: {calls:?}", format.name);
        for (name, arguments) in calls {
            let arguments: Value = serde_json::from_str(&arguments)?;
            let valid = match name.as_str() {
                "get" => arguments == json!({"unit": "C"}) || arguments == json!({"unit": "F"}),
                _ => arguments == json!({}),
            };
            assert!(valid, "{name}: {arguments}");
        }
    }
    Ok(())
}

#[test]
fn a_schema_that_cannot_be_honoured_is_named_by_its_function() -> Result<()> {
    let tokenizer = tokenizer()?;
    let mut functions = functions();
    functions[1].parameters = json!({"type": "object", "not": {}});
    for format in TOOL_FORMATS {
        let offer = Offer { functions: &functions, required: false, parallel: true };
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
