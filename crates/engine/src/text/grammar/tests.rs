//! Grammars over a small vocabulary: masks against slow checks, what ends an answer, and grammars that mean harm.

use std::sync::LazyLock;

use hearth_sampler::TokenMask;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::text::gguf_vocabulary::tests::byte_vocabulary;

/// The end token of [`GRAMMARS`].
const END: u32 = 1;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::from_vocabulary(byte_vocabulary("gpt-2")).unwrap());
static GRAMMARS: LazyLock<Grammars> = LazyLock::new(|| Grammars::new(TOKENIZER.clone(), vec![END]));

fn compile(source: &GrammarSource) -> Result<Arc<Grammar>, GrammarError> {
    GRAMMARS.compile(source, AnswerStart::Anew)
}

fn strict(schema: Value) -> GrammarSource {
    GrammarSource::JsonSchema { schema, strict: true }
}

fn refusal(source: &GrammarSource) -> String {
    compile(source).unwrap_err().to_string()
}

/// The allowed tokens, by rising id.
fn allowed(state: &mut GrammarState) -> Vec<u32> {
    let mask = state.mask().unwrap();
    (0..TOKENIZER.vocab_size() as u32).filter(|token| mask.allows(*token)).collect()
}

/// A text by that choice among the allowed tokens; `None` when it has not ended after `most` tokens.
fn write(grammar: &Arc<Grammar>, most: usize, mut choose: impl FnMut(&[u32]) -> u32) -> Option<String> {
    let mut state = grammar.start();
    let mut bytes = Vec::new();
    for _ in 0..most {
        let token = choose(&allowed(&mut state));
        if token == END {
            return Some(String::from_utf8(bytes).unwrap());
        }
        bytes.extend_from_slice(TOKENIZER.token_bytes(token).unwrap());
        if state.commit(token).unwrap() {
            return Some(String::from_utf8(bytes).unwrap());
        }
    }
    None
}

/// A choice that ends soon and is another for each seed.
fn drawn(seed: u64) -> impl FnMut(&[u32]) -> u32 {
    let mut state = seed;
    move |allowed| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let ends: Vec<u32> = allowed.iter().copied().filter(|token| is_closing(*token)).collect();
        let among = if state >> 62 > 0 && !ends.is_empty() { &ends } else { allowed };
        among[(state >> 33) as usize % among.len()]
    }
}

fn is_closing(token: u32) -> bool {
    token == END || matches!(TOKENIZER.token_bytes(token), Some(b"\"" | b"}" | b"]"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_choice_allows_what_a_choice_begins_with_and_ends_where_one_ends(
        choices in prop::collection::btree_set("[hel o ]{0,7}", 1..6),
        seed in any::<u64>(),
    ) {
        let choices: Vec<String> = choices.into_iter().collect();
        let grammar = compile(&GrammarSource::Choice(choices.clone())).unwrap();
        let (mut state, mut choose, mut text) = (grammar.start(), drawn(seed), Vec::new());
        loop {
            let expected: Vec<u32> = (0..TOKENIZER.vocab_size() as u32).filter(|token| {
                let longer = [&text, TOKENIZER.token_bytes(*token).unwrap()].concat();
                let goes_on = !TOKENIZER.is_special(*token)
                    && choices.iter().any(|choice| choice.as_bytes().starts_with(&longer));
                goes_on || (*token == END && choices.iter().any(|choice| choice.as_bytes() == text))
            }).collect();
            prop_assert_eq!(allowed(&mut state), expected.clone(), "after {:?}", String::from_utf8_lossy(&text));
            let token = choose(&expected);
            if token == END {
                break;
            }
            text.extend_from_slice(TOKENIZER.token_bytes(token).unwrap());
            let ended = state.commit(token).unwrap();
            let longer = choices.iter().any(|choice| choice.as_bytes().starts_with(&text) && choice.len() > text.len());
            prop_assert_eq!(ended, !longer);
            if ended {
                break;
            }
        }
        prop_assert!(choices.iter().any(|choice| choice.as_bytes() == text));
    }

    #[test]
    fn a_mask_is_what_each_token_alone_says(seed in any::<u64>(), which in 0_usize..5) {
        let sources = [
            GrammarSource::JsonObject,
            strict(json!({"type": "object", "properties": {"a": {"type": "string", "maxLength": 9},
                "b": {"enum": ["hello", 1, null]}, "c": {"type": "array", "items": {"type": "number"}}}})),
            GrammarSource::Regex("(hello|[^x]){1,9}!".to_owned()),
            GrammarSource::Lark("start: word (\" \" word)*\nword: /[a-z]+/ | \"(\" start \")\"".to_owned()),
            strict(json!({"$ref": "#/$defs/t", "$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}})),
        ];
        let grammar = compile(&sources[which]).unwrap();
        let Place::Held(mut matcher) = grammar.copied() else { panic!("one grammar") };
        let mut choose = drawn(seed);
        for _ in 0..40 {
            let mask = matcher.compute_mask().unwrap();
            let accepting = matcher.is_accepting().unwrap();
            for token in 0..TOKENIZER.vocab_size() as u32 {
                let expected = if token == END { accepting } else { matcher.validate_tokens(&[token]).unwrap() == 1 };
                prop_assert_eq!(mask.is_allowed(token), expected, "{:?}", TOKENIZER.token_text(token));
            }
            let token = choose(&mask.to_list());
            matcher.consume_token(token).unwrap();
            if matcher.is_stopped() {
                break;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// The mask that is not computed is the one that would be: whatever was said, given back and said again.
    #[test]
    fn free_text_is_held_as_its_grammar_says(seed in any::<u64>(), letters in "[hel o(]{3,8}") {
        let text = "start: (begin \"(\" /[0-9]/ \")\")* TEXT?\nbegin[lazy]: /(.|\\n)*hel?lo/\nTEXT: /(.|\\n)+/";
        let trigger = Some("(.|\n)*hel?lo".to_owned());
        let free = compile(&GrammarSource::Free { grammar: text.to_owned(), trigger }).unwrap();
        let held = compile(&GrammarSource::Lark(text.to_owned())).unwrap();
        let (mut free, mut held, mut choose) = (free.start(), held.start(), drawn(seed));
        for _ in 0..60 {
            let expected = allowed(&mut held);
            prop_assert_eq!(allowed(&mut free), expected.clone());
            let wanted = |token: &&u32| {
                let bytes = TOKENIZER.token_bytes(**token).unwrap();
                **token != END && (bytes.iter().all(|byte| letters.as_bytes().contains(byte)) || bytes == "é".as_bytes())
            };
            let wanted: Vec<u32> = expected.iter().filter(wanted).copied().collect();
            let token = choose(if wanted.is_empty() { &expected } else { &wanted });
            if token == END {
                break;
            }
            prop_assert_eq!(free.commit(token).unwrap(), held.commit(token).unwrap());
        }
    }
}

#[test]
fn an_answer_of_two_kinds_becomes_the_one_that_it_begins_as() {
    let either = |first: &str, second: GrammarSource| GrammarSource::Either {
        first: Box::new(GrammarSource::Lark(first.to_owned())),
        heads: vec!["hel".to_owned(), "<h>".to_owned()],
        second: Box::new(second),
    };
    // The second would allow anything; what begins like the first is the first.
    let source = either("start: (\"hel\" | \"<h>\") /[0-9]/", GrammarSource::Regex("(.|\n){0,9}".to_owned()));
    let grammar = compile(&source).unwrap();
    for seed in 0..200 {
        let Some(text) = write(&grammar, 60, drawn(seed)) else { continue };
        let rest = text.strip_prefix("hel").or(text.strip_prefix("<h>"));
        let is_first = rest.is_some_and(|rest| rest.len() == 1 && rest.as_bytes()[0].is_ascii_digit());
        assert!(rest.is_none() || is_first, "{text:?}");
    }
    let byte = |byte: u8| (2..258).find(|id| TOKENIZER.token_bytes(*id) == Some(&[byte])).unwrap();
    let mut state = grammar.start();
    for letter in *b"hel" {
        assert!(state.mask().unwrap().allows(byte(letter)) && !state.commit(byte(letter)).unwrap());
    }
    assert!(!state.mask().unwrap().allows(byte(b'l')) && state.commit(byte(b'7')).unwrap());
    // One that is complete where the other goes on ends, or goes on as the other.
    let grammar = compile(&either("start: \"hel7\"", GrammarSource::Choice(vec!["he".to_owned()]))).unwrap();
    let mut state = grammar.start();
    assert!(!state.commit(byte(b'h')).unwrap() && !state.commit(byte(b'e')).unwrap());
    let mask = state.mask().unwrap();
    assert!(mask.allows(END) && mask.allows(byte(b'l')) && !mask.allows(byte(b'e')));
    assert!(!state.commit(byte(b'l')).unwrap() && state.commit(byte(b'7')).unwrap());
}

#[test]
fn json_ends_with_its_last_bracket() {
    let schema = json!({"type": "object", "properties": {"name": {"const": "hello"}}, "required": ["name"]});
    let text = write(&compile(&strict(schema)).unwrap(), 50, |allowed| *allowed.last().unwrap()).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({"name": "hello"}));
    assert!(text.ends_with('}'), "{text:?}");
}

#[test]
fn white_space_is_bounded_for_whoever_wants_nothing_else() {
    let blank = |token: &u32| TOKENIZER.token_bytes(*token).unwrap().iter().all(u8::is_ascii_whitespace);
    let number = |token: &u32| TOKENIZER.token_bytes(*token) == Some(b"1");
    let schema = json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "boolean"},
        "maxItems": 3}, "b": {"type": "null"}}, "required": ["a", "b"]});
    let grammar = compile(&strict(schema)).unwrap();
    let choose = |allowed: &[u32]| {
        let wanted = allowed.iter().find(|token| blank(token)).or_else(|| allowed.iter().find(|token| number(token)));
        *wanted.unwrap_or(&allowed[0])
    };
    let text = write(&grammar, 1000, choose).expect("white space does not go on forever");
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["b"], Value::Null);
    assert!(!text.contains(&" ".repeat(25)), "{text:?}");
}

#[test]
fn texts_are_what_they_were_asked_to_be() {
    let schema = json!({"type": "object", "properties": {
        "kind": {"type": "string", "pattern": "^[a-c]{2}$"}, "many": {"type": "array", "items": {"type": "integer",
        "minimum": 3, "maximum": 5}, "minItems": 2, "maxItems": 3}}, "required": ["kind", "many"]});
    let grammar = compile(&strict(schema)).unwrap();
    for seed in 0..40 {
        let text = write(&grammar, 400, drawn(seed)).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let object = value.as_object().unwrap();
        assert!(object.len() == 2 && object["kind"].as_str().unwrap().len() == 2, "{text}");
        let many = object["many"].as_array().unwrap();
        assert!((2..=3).contains(&many.len()), "{text}");
        assert!(many.iter().all(|number| (3..=5).contains(&number.as_i64().unwrap())), "{text}");
    }
    for (regex, accepted) in [("^h+$", "h"), ("h\\$", "h$"), ("h\\\\$", "h\\"), ("(?i)HEL+O", "hello")] {
        let grammar = compile(&GrammarSource::Regex(regex.to_owned())).unwrap();
        let mut state = grammar.start();
        for byte in accepted.bytes() {
            let token = (2..258).find(|id| TOKENIZER.token_bytes(*id) == Some(&[byte])).unwrap();
            let mask = state.mask().unwrap();
            assert!(mask.allows(token), "{regex}: {accepted}");
            if state.commit(token).unwrap() {
                break;
            }
        }
    }
}

#[test]
fn what_is_not_honoured_is_refused_by_keyword_and_place() {
    let many: serde_json::Map<String, Value> = (0..1001).map(|n| (format!("p{n}"), json!(true))).collect();
    for (schema, place, problem) in [
        (json!({"properties": {"a/b": {"not": {}}}}), "#/properties/a~1b", "the keyword `not` is not supported"),
        (json!({"items": {"uniqueItems": true}}), "#/items", "the keyword `uniqueItems`"),
        (json!({"anyOf": [true, {"if": true}]}), "#/anyOf/1", "the keyword `if`"),
        (json!({"type": "text"}), "#", "`type` must be one or several of null, boolean"),
        (json!({"$ref": "https://example.com/a"}), "#", "`$ref` must be `#`, or `#/` and the way"),
        (json!({"required": "a"}), "#", "`required` must be a list of strings, not \"a\""),
        (json!({"enum": []}), "#", "`enum` must be a list that is not empty"),
        (json!({"minLength": -1}), "#", "`minLength` must be a whole number"),
        (json!({"multipleOf": 0}), "#", "`multipleOf` must be a number above 0"),
        (json!({"minProperties": 3, "required": ["a"]}), "#", "`minProperties` is supported up to"),
        (json!({"properties": many}), "#", "at most 1000 properties that are not `required`, not 1001"),
        (json!({"properties": {"x": 5}}), "#/properties/x", "a schema must be an object or a boolean, not 5"),
        (json!({"format": "colour"}), "#", "the `format` \"colour\" is not supported"),
        (json!({"nullable": true}), "#", "the keyword `nullable` is not known"),
    ] {
        let text = refusal(&strict(schema.clone()));
        assert!(text.starts_with(&format!("at `{place}`: ")) && text.contains(problem), "{schema}: {text}");
    }
    let words = json!({"type": "string", "format": "colour", "nullable": true, "x-guidance": {"lenient": true}});
    assert!(compile(&GrammarSource::JsonSchema { schema: words, strict: false }).is_ok());
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    for (source, problem) in [
        (strict(json!({"type": "string", "minLength": 3, "maxLength": 2})), "minLength (3) is greater"),
        (strict(json!({"oneOf": [{"type": "string"}, {"minLength": 2}]})), "`oneOf` must exclude each other"),
        (strict(json!(false)), "must be an object that allows something"),
        (
            strict(json!({"$ref": "#/$defs/absent"})),
            "at `#`: `$ref` must lead to a schema, and there is none at `$defs/absent`",
        ),
        (GrammarSource::Regex("(a".to_owned()), "unclosed group"),
        (GrammarSource::Regex("(?=a)b".to_owned()), "look-around"),
        (GrammarSource::Choice(vec![]), "at least 1 choice"),
        (GrammarSource::Lark("start: missing".to_owned()), "missing"),
        (GrammarSource::Lark("begin: \"a\"".to_owned()), "start"),
        (GrammarSource::Regex("a".repeat(MAX_GRAMMAR_BYTES)), "at most 131072 bytes"),
    ] {
        let text = refusal(&source);
        assert!(text.contains(problem), "{source:?}: {text}");
        assert!(!text.contains("<state>") && !text.contains("backtrace"), "{text}");
    }
}

#[test]
fn alternatives_that_exclude_each_other_are_alternatives() {
    let by_name = json!({"oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}, {"type": "null"}], "$defs": {
        "cat": {"type": "object", "properties": {"kind": {"const": "cat"}, "friend": {"oneOf":
            [{"$ref": "#/$defs/dog"}, {"type": "null"}]}}, "required": ["kind", "friend"]},
        "dog": {"type": "object", "properties": {"kind": {"enum": ["dog", "hound"]}}, "required": ["kind"]}}});
    let grammar = compile(&strict(by_name)).unwrap();
    for seed in 0..20 {
        let text = write(&grammar, 300, drawn(seed)).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(value.is_null() || ["cat", "dog", "hound"].contains(&value["kind"].as_str().unwrap()), "{text}");
    }
}

#[test]
fn a_grammar_is_compiled_once() {
    let source = GrammarSource::Choice(vec!["one of a kind".to_owned()]);
    let first = compile(&source).unwrap();
    assert!(Arc::ptr_eq(&first, &compile(&source).unwrap()));
    for number in 0..KEPT {
        compile(&GrammarSource::Choice(vec![format!("another {number}")])).unwrap();
    }
    assert!(!Arc::ptr_eq(&first, &compile(&source).unwrap()));
}

/// Chains, nests, repetitions and alternatives as large as the bounds allow.
fn hostile() -> Vec<(&'static str, GrammarSource)> {
    let chain = |number: usize| (0..number).map(|n| format!("r{n}: \"(\" r{} \")\"\n", n + 1)).collect::<String>();
    let tokens = |number: usize| (0..number).map(|n| format!("T{n}: /x/ T{}\n", n + 1)).collect::<String>();
    let mut references: serde_json::Map<String, Value> =
        (0..3500).map(|n| (n.to_string(), json!({"$ref": format!("#/$defs/{}", n + 1)}))).collect();
    let mut items: serde_json::Map<String, Value> =
        (0..2500).map(|n| (n.to_string(), json!({"items": {"$ref": format!("#/$defs/{}", n + 1)}}))).collect();
    references.insert("3500".to_owned(), json!({"type": "null"}));
    items.insert("2500".to_owned(), json!({"type": "null"}));
    let optional: serde_json::Map<String, Value> = (0..1000).map(|n| (format!("p{n}"), json!({}))).collect();
    let all_of: Vec<Value> =
        (0..40).map(|n| json!({"anyOf": [{"minLength": n}, {"minimum": n}, {"minItems": n}]})).collect();
    let regex = |text: &str| GrammarSource::Regex(text.to_owned());
    vec![
        ("a chain of rules", GrammarSource::Lark(format!("start: r0\n{}r5000: \"x\"\n", chain(5000)))),
        ("a chain of terminals", GrammarSource::Lark(format!("start: T0\n{}T6000: /y/\n", tokens(6000)))),
        ("left recursion", GrammarSource::Lark("start: start start | \"a\" | \"\"".to_owned())),
        ("ambiguity", GrammarSource::Lark("start: (a | b)*\na: \"x\" a? | \"\"\nb: \"x\" b? | \"\"".to_owned())),
        ("brackets", GrammarSource::Lark(format!("start: {}\"a\"{}", "(".repeat(50_000), ")".repeat(50_000)))),
        ("nested groups", regex(&format!("{}a{}", "(".repeat(60_000), ")".repeat(60_000)))),
        ("nested counts", regex("((((a{1,99}){1,99}){1,99}){1,99}){1,99}")),
        ("a large count", regex("(a|b|ab){1000000000}c")),
        ("a backwards look", regex("(a|b)*a(a|b){5000}")),
        ("intersected unicode", regex(r"(\w{1,5000}\s){1,5000}\p{Greek}*")),
        ("a long literal", regex(&"a".repeat(120_000))),
        ("many alternatives", regex(&(0..15_000).map(|n| n.to_string()).collect::<Vec<_>>().join("|"))),
        ("a loop of references", strict(json!({"$ref": "#"}))),
        ("a chain of references", strict(json!({"$ref": "#/$defs/0", "$defs": references}))),
        ("a chain of items", strict(json!({"$ref": "#/$defs/0", "$defs": items}))),
        ("many optional properties", strict(json!({"type": "object", "properties": optional}))),
        ("intersected alternatives", strict(json!({"allOf": all_of}))),
        ("long strings", strict(json!({"type": "string", "minLength": 1_000_000_000}))),
        ("long lists", strict(json!({"type": "array", "items": {"enum": [1, 2]}, "minItems": 1_000_000_000}))),
        ("a hard pattern", strict(json!({"type": "string", "pattern": "(a|b)*a(a|b){2000}", "minLength": 2000}))),
        ("a large step", strict(json!({"type": "integer", "multipleOf": 9_999_999_967_u64}))),
    ]
}

#[test]
fn a_grammar_that_means_harm_harms_itself_alone() {
    for (name, source) in hostile() {
        let begun = std::time::Instant::now();
        let outcome = compile(&source);
        let mut reached = 0;
        if let Ok(grammar) = &outcome {
            let (mut state, mut choose) = (grammar.start(), drawn(7));
            while reached < 60 {
                let Ok(mask) = state.mask() else { break };
                let allowed: Vec<u32> =
                    (0..TOKENIZER.vocab_size() as u32).filter(|token| mask.allows(*token)).collect();
                let token = choose(&allowed);
                if token == END || !matches!(state.commit(token), Ok(false)) {
                    break;
                }
                reached += 1;
            }
        }
        // Far beyond what the bounds allow on the slowest machine: this would be a hang.
        assert!(begun.elapsed().as_secs() < 120, "{name}");
    }
}
