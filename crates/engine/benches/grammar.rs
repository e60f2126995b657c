//! Time to find which tokens may come next, over vocabularies of several sizes: for each token of a text that the grammar
//! allows.
//!
//! `cargo bench -p hearth-engine --bench grammar -- [MODEL.GGUF]`. With a real model its own vocabulary is measured too,
//! and the others are made of its tokens and of pairs of them; without one, of letters.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use hearth_engine::text::grammar::{AnswerStart, GrammarSource, Grammars};
use hearth_engine::text::tool_calls::{Function, Offer, Otherwise, ToolFormat};
use hearth_engine::text::{GgufVocabulary, Tokenizer};
use hearth_engine::weights::Gguf;
use serde_json::{Map, Value, json};

/// The end token of every vocabulary here.
const END: u32 = 0;
const END_TOKENS: [u32; 1] = [END];
const SIZES: [usize; 3] = [32_768, 131_072, 152_064];

fn main() -> Result<(), Box<dyn Error>> {
    let given = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let mut words = byte_alphabet();
    let mut tokenizers = Vec::new();
    if let Some(path) = given {
        let gguf = Gguf::open(Path::new(&path))?;
        let tokenizer = Tokenizer::from_vocabulary(GgufVocabulary::from_metadata(gguf.metadata())?)?;
        let texts = (0..tokenizer.vocab_size() as u32).filter(|id| !tokenizer.is_special(*id));
        words.extend(texts.filter_map(|id| tokenizer.token_text(id)).map(str::to_owned));
        tokenizers.push((format!("{} of a model's", tokenizer.vocab_size()), tokenizer));
    } else {
        words.extend(pairs(&('a'..='z').map(String::from).collect::<Vec<_>>()));
    }
    for size in SIZES {
        tokenizers.push((format!("{size} made"), made(&words, size)?));
    }
    show(&[
        "vocabulary",
        "grammar",
        "vocabulary ready, ms",
        "compiled, ms",
        "tokens",
        "median",
        "99 of 100",
        "most, µs",
    ]);
    for (name, tokenizer) in &tokenizers {
        let begun = Instant::now();
        let grammars = Grammars::new(tokenizer.clone(), END_TOKENS.to_vec());
        grammars.compile(&GrammarSource::Choice(vec!["x".to_owned()]), AnswerStart::Continued)?;
        let ready = begun.elapsed();
        for (kind, source, text) in cases(tokenizer)? {
            measure((name, tokenizer, &grammars, ready), (kind, &source, &text))?;
        }
    }
    Ok(())
}

/// A name, a grammar and a text of it.
type Case = (&'static str, GrammarSource, String);

/// Grammars and a text of each.
fn cases(tokenizer: &Tokenizer) -> Result<Vec<Case>, Box<dyn Error>> {
    let words = "The quick brown fox jumps over the lazy dog, and then it sleeps. ".repeat(3);
    let item = json!({"name": words, "price": 12.5, "tags": ["new", "large", "red and blue"], "kind": "book"});
    let order =
        json!({"id": 1234567, "customer": {"name": "Ada Lovelace", "since": "2024-02-29"}, "items": [item, item]});
    let schema = json!({"type": "object", "additionalProperties": false, "required": ["id", "customer", "items"],
    "properties": {
        "id": {"type": "integer", "minimum": 1},
        "customer": {"type": "object", "additionalProperties": false, "required": ["name", "since"], "properties": {
            "name": {"type": "string", "maxLength": 80}, "since": {"type": "string", "format": "date"}}},
        "items": {"type": "array", "items": {"type": "object", "additionalProperties": false,
            "required": ["name", "price", "tags", "kind"], "properties": {
            "name": {"type": "string"}, "price": {"type": "number"},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 9},
            "kind": {"enum": ["book", "record", "film"]}}}}}});
    let number = "NUMBER: /[0-9]{1,9}/\n";
    let sum = format!("start: sum\nsum: term ((\"+\" | \"-\") term)*\nterm: NUMBER | \"(\" sum \")\"\n{number}");
    let free = free_text(tokenizer)?;
    // What it would be if masks were computed in free text too.
    let GrammarSource::Free { grammar, .. } = &free else { return Err("free text is no free text".into()) };
    let watched = GrammarSource::Lark(grammar.clone());
    let braces = "if (a < b) { return [a, {\"b\": 1}]; }\n".repeat(6);
    Ok(vec![
        ("JSON object", GrammarSource::JsonObject, order.to_string()),
        ("JSON schema", GrammarSource::JsonSchema { schema, strict: true }, order.to_string()),
        ("regex", GrammarSource::Regex("([A-Za-z]{1,12}[ .,]{1,2}){1,99}".to_owned()), words.clone()),
        ("Lark sums", GrammarSource::Lark(sum), "((12+3456)-(7+(89-10)))+".repeat(5) + "1"),
        ("text beside tools", free.clone(), words.clone()),
        ("code beside tools", free, braces),
        ("text, mask computed", watched, words),
    ])
}

/// Any text, in which one of eight functions may be called.
fn free_text(tokenizer: &Tokenizer) -> Result<GrammarSource, Box<dyn Error>> {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"]});
    let function = |index: usize| Function {
        name: format!("function_{index}"),
        description: String::new(),
        parameters: schema.clone(),
        strict: false,
    };
    let functions: Vec<Function> = (0..8).map(function).collect();
    let offer = Offer { functions: &functions, otherwise: Otherwise::Text, parallel: true };
    let format = ToolFormat::named("llama").ok_or("no such format")?;
    Ok(format.grammar(offer, tokenizer).map_err(|(_, error)| error)?)
}

type Model<'a> = (&'a str, &'a Tokenizer, &'a Grammars, Duration);

fn measure(
    (name, tokenizer, grammars, ready): Model<'_>,
    (kind, source, text): (&str, &GrammarSource, &str),
) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let grammar = grammars.compile(source, AnswerStart::Continued)?;
    let compiled = begun.elapsed();
    let tokens = longest_tokens(tokenizer, text);
    let mut times = Vec::new();
    for _ in 0..5 {
        let mut state = grammar.start();
        state.mask()?;
        for token in &tokens {
            let begun = Instant::now();
            let ended = state.commit(*token)?;
            if ended {
                break;
            }
            state.mask()?;
            times.push(begun.elapsed());
        }
    }
    times.sort();
    let at = |share: f64| format!("{:.0}", times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6);
    let milliseconds = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
    let count = tokens.len().to_string();
    show(&[name, kind, &milliseconds(ready), &milliseconds(compiled), &count, &at(0.5), &at(0.99), &at(1.0)]);
    Ok(())
}

/// The text in the longest tokens there are, from its beginning.
fn longest_tokens(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let ids = (0..tokenizer.vocab_size() as u32).filter(|id| !tokenizer.is_special(*id));
    let known: HashMap<&[u8], u32> = ids.filter_map(|id| Some((tokenizer.token_bytes(id)?, id))).collect();
    let (mut rest, mut tokens) = (text.as_bytes(), Vec::new());
    while let Some(found) = (1..=rest.len().min(32)).rev().find_map(|length| known.get(&rest[..length])) {
        tokens.push(*found);
        rest = &rest[tokenizer.token_bytes(*found).map_or(rest.len(), <[u8]>::len)..];
    }
    tokens
}

#[expect(clippy::print_stdout, reason = "what a benchmark is for")]
fn show(columns: &[&str]) {
    println!("| {} |", columns.join(" | "));
}

/// The characters that stand for single bytes, which every byte-level vocabulary begins with.
fn byte_alphabet() -> Vec<String> {
    let printable = |byte: &u32| (33..=126).contains(byte) || (161..=172).contains(byte) || *byte >= 174;
    let rest = (0..256_u32).filter(|byte| !printable(byte)).enumerate().map(|(index, _)| 256 + index as u32);
    (0..256_u32).filter(printable).chain(rest).filter_map(char::from_u32).map(String::from).collect()
}

fn pairs(words: &[String]) -> impl Iterator<Item = String> {
    // Steps that share no divisor with each other spread over all words.
    let count = words.len();
    let (words, again) = (words.to_vec(), words.to_vec());
    (0..4 * SIZES[2])
        .map(move |step| format!("{}{}", words[step % count], again[(step / count * 7 + step * 3) % count]))
}

/// A byte-level vocabulary of that size: these words, and pairs of them.
fn made(words: &[String], size: usize) -> Result<Tokenizer, Box<dyn Error>> {
    let mut known = BTreeSet::new();
    let mut vocabulary = Map::new();
    vocabulary.insert("<|end|>".to_owned(), Value::from(END));
    for word in words.iter().cloned().chain(pairs(words)) {
        if vocabulary.len() < size && known.insert(word.clone()) {
            vocabulary.insert(word, Value::from(vocabulary.len()));
        }
    }
    let split = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let description = json!({"version": "1.0", "added_tokens": [{"id": END, "content": "<|end|>", "single_word": false,
        "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
        "pre_tokenizer": split, "decoder": split, "model": {"type": "BPE", "vocab": vocabulary, "merges": []}});
    Ok(Tokenizer::from_bytes(description.to_string().as_bytes())?)
}
