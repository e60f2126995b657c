//! Answers held to a grammar, through the whole engine and over each kind of tokenizer.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use futures::future::try_join_all;
use hearth_engine::serve::{EngineHandle, FinishReason, GenerationEvent, GenerationRequest};
use hearth_engine::text::grammar::{AnswerStart, GrammarSource, Grammars};
use hearth_engine::text::{Detokenizer, DetokenizerOptions, SpecialTokens, Tokenizer};
use hearth_sampler::{Sampled, SamplingParams, SamplingRequest, TokenMask};
use hearth_tests::{Arithmetic, checkpoint, decoder, further, goldens, with_each_arithmetic};
use serde_json::{Value, json};

with_each_arithmetic! {
    a_constrained_request_gives_the_same_alone_and_in_a_batch,
    what_a_grammar_forbids_changes_no_log_probability,
}

/// The end token of the tiny checkpoints.
const END: u32 = 2;

fn engine(arithmetic: Arithmetic) -> Result<EngineHandle> {
    decoder(&checkpoint("llama-linear-f32"), &arithmetic.options())
}

fn params(engine: &EngineHandle, seed: u64) -> Result<SamplingParams> {
    let request = SamplingRequest { seed: Some(seed), logprobs: Some(2), ..SamplingRequest::default() };
    Ok(request.check(engine.info().vocab_size, 0)?)
}

/// The tokens of one answer and why it ended.
async fn answer(
    engine: &EngineHandle,
    seed: u64,
    source: Option<&GrammarSource>,
) -> Result<(Vec<Sampled>, FinishReason)> {
    let grammar = source.map(|source| engine.grammars().compile(source, AnswerStart::Continued)).transpose()?;
    let request = GenerationRequest::check(vec![5, 6, 7], params(engine, seed)?, 40, None, engine.info())?;
    let mut stream = engine.submit(request.with_grammar(grammar))?;
    let mut tokens = Vec::new();
    while let Some(event) = stream.next().await {
        match event? {
            GenerationEvent::Token(sampled) => tokens.push(sampled),
            GenerationEvent::Finished(reason) => return Ok((tokens, reason)),
            GenerationEvent::Admitted { .. } | GenerationEvent::Prompt(_) => {}
        }
    }
    bail!("the stream ended without an end")
}

fn text(tokenizer: &Tokenizer, tokens: &[u32], continues_text: bool) -> String {
    let options = DetokenizerOptions { continues_text, ..DetokenizerOptions::default() };
    let mut detokenizer = Detokenizer::new(tokenizer, options);
    let mut text: String = tokens.iter().map(|token| detokenizer.push(*token)).collect();
    text.push_str(&detokenizer.finish());
    text
}

fn ids(tokens: &[Sampled]) -> Vec<u32> {
    tokens.iter().map(|sampled| sampled.token).collect()
}

fn sources() -> Vec<GrammarSource> {
    vec![
        GrammarSource::Regex("[a-z]{3}-[0-9]{3}".to_owned()),
        GrammarSource::JsonSchema {
            schema: json!({"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"enum": [1, 2]}},
                "required": ["a", "b"]}),
            strict: true,
        },
        GrammarSource::Choice(vec!["one".to_owned(), "two".to_owned(), "three".to_owned()]),
        GrammarSource::JsonObject,
    ]
}

async fn a_constrained_request_gives_the_same_alone_and_in_a_batch(arithmetic: Arithmetic) -> Result<()> {
    let engine = engine(arithmetic)?;
    let sources = sources();
    let asked: Vec<(u64, Option<&GrammarSource>)> =
        (0..16).map(|seed| (seed, sources.get(seed as usize % 5))).collect();
    let mut alone = Vec::new();
    for (seed, source) in &asked {
        alone.push(answer(&engine, *seed, *source).await?);
    }
    let together = try_join_all(asked.iter().map(|(seed, source)| answer(&engine, *seed, *source))).await?;
    for (((seed, source), alone), together) in asked.iter().zip(&alone).zip(&together) {
        if arithmetic == Arithmetic::Kernels {
            assert_eq!(alone, together, "seed {seed}");
        }
        let Some(source) = source else { continue };
        let written = text(&engine.text().tokenizer, &ids(&together.0), true);
        match (source, together.1) {
            (GrammarSource::Regex(_), reason) => assert_eq!((written.len(), reason), (7, FinishReason::Complete)),
            (GrammarSource::Choice(choices), reason) => {
                assert!(choices.contains(&written) && reason == FinishReason::Complete, "{written}");
            }
            (_, FinishReason::Length) => assert_eq!(together.0.len(), 40),
            _ => assert!(serde_json::from_str::<Value>(&written)?.is_object(), "{written}"),
        }
    }
    Ok(())
}

async fn what_a_grammar_forbids_changes_no_log_probability(arithmetic: Arithmetic) -> Result<()> {
    let engine = engine(arithmetic)?;
    let (free, _) = answer(&engine, 1, None).await?;
    let (held, _) = answer(&engine, 1, Some(&GrammarSource::Regex("[xyz]".to_owned()))).await?;
    assert_eq!(held[0].top, free[0].top, "the likeliest of the model's own output");
    assert_ne!(held[0].token, free[0].token);
    Ok(())
}

/// A text drawn from a grammar, by tokens.
fn drawn(
    grammars: &Grammars,
    source: &GrammarSource,
    start: AnswerStart,
    seed: u64,
    size: u32,
) -> Result<Option<Vec<u32>>> {
    let mut state = grammars.compile(source, start)?.start();
    let (mut random, mut tokens) = (seed, Vec::new());
    for _ in 0..200 {
        let mask = state.mask()?;
        let allowed: Vec<u32> = (0..size).filter(|token| mask.allows(*token)).collect();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let token = allowed[(random >> 33) as usize % allowed.len()];
        if token == END {
            return Ok(Some(tokens));
        }
        tokens.push(token);
        if state.commit(token)? {
            return Ok(Some(tokens));
        }
    }
    Ok(None)
}

/// Bytes in base64 with their rank, as Llama 3's and DBRX's vocabularies are written.
fn tiktoken_file() -> String {
    let words = [" the", "{\"", "\":", "ab", "\": ", "},", " {", "  "];
    let bytes = (0..=255_u8).map(|byte| vec![byte]).chain(words.iter().map(|word| word.as_bytes().to_vec()));
    bytes.enumerate().map(|(rank, bytes)| format!("{} {rank}\n", STANDARD.encode(&bytes))).collect()
}

#[test]
fn each_kind_of_tokenizer_writes_what_the_grammar_says() -> Result<()> {
    let sentence_piece = fs::read(goldens().join("tokenizers/sentence-piece/tokenizer.model"))?;
    let byte_level = Tokenizer::from_file(checkpoint("llama-linear-f32").path.join("tokenizer.json"))?;
    let tokenizers = [
        ("byte level", byte_level),
        ("sentence piece", Tokenizer::from_model(&sentence_piece, &Value::Null)?),
        ("tiktoken", Tokenizer::from_model(tiktoken_file().as_bytes(), &Value::Null)?),
    ];
    let choices: Vec<String> = [" the", "the", "  a", "b c", "ä€😀", "\"\\\n"].map(str::to_owned).to_vec();
    let choice = GrammarSource::Choice(choices.clone());
    let schema = json!({"type": "object", "properties": {"the": {"type": "string", "maxLength": 4},
        "of": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "maxItems": 2}},
        "required": ["the", "of"]});
    let schema = GrammarSource::JsonSchema { schema, strict: true };
    for (name, tokenizer) in &tokenizers {
        let size = tokenizer.vocab_size() as u32;
        let grammars = Grammars::new(tokenizer.clone(), vec![END]);
        for seed in 0..60 {
            for (start, continues) in [(AnswerStart::Anew, false), (AnswerStart::Continued, true)] {
                let tokens = drawn(&grammars, &choice, start, seed, size)?.context("a choice ends")?;
                let written = text(tokenizer, &tokens, continues);
                assert!(choices.contains(&written), "{name}, {start:?}: {written:?}");
                let Some(tokens) = drawn(&grammars, &schema, start, seed, size)? else { continue };
                let written = text(tokenizer, &tokens, continues);
                let value: Value = serde_json::from_str(&written).with_context(|| format!("{name}: {written:?}"))?;
                assert!(value["the"].as_str().is_some_and(|text| text.chars().count() <= 4), "{written}");
            }
        }
    }
    Ok(())
}

/// What became of the official cases of one keyword.
#[derive(Debug, Default)]
struct Tally {
    refused: usize,
    valid: usize,
    valid_taken: usize,
    invalid: usize,
}

/// Whether the grammar takes the text as it stands.
fn takes(grammars: &Grammars, source: &GrammarSource, tokenizer: &Tokenizer, text: &str) -> Result<bool> {
    let mut state = grammars.compile(source, AnswerStart::Continued)?.start();
    let tokens = tokenizer.encode_plain(text, SpecialTokens::Omit)?;
    for (index, token) in tokens.iter().enumerate() {
        if !state.mask()?.allows(*token) {
            return Ok(false);
        }
        if state.commit(*token)? {
            return Ok(index + 1 == tokens.len());
        }
    }
    Ok(state.mask()?.allows(END))
}

/// No instance that the official test suite of JSON Schema calls invalid is a text of its schema's grammar. A valid one may
/// be missing: a grammar has one order of properties and invents no properties where some are named.
#[test]
fn no_answer_is_invalid_by_the_official_test_suite() -> Result<()> {
    let Some(folder) = std::env::var_os("HEARTH_TEST_SCHEMAS") else {
        further("HEARTH_TEST_SCHEMAS, the folder `tests/draft2020-12` of the JSON-Schema-Test-Suite");
        return Ok(());
    };
    let tokenizer = Tokenizer::from_file(checkpoint("llama-linear-f32").path.join("tokenizer.json"))?;
    let grammars = Grammars::new(tokenizer.clone(), vec![END]);
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    let mut faults = Vec::new();
    for file in fs::read_dir(Path::new(&folder))?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()? {
        if file.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let groups: Vec<Value> = serde_json::from_str(&fs::read_to_string(&file)?)?;
        for group in &groups {
            let tally = tallies.entry(name.clone()).or_default();
            let source = GrammarSource::JsonSchema { schema: group["schema"].clone(), strict: false };
            if let Err(error) = grammars.compile(&source, AnswerStart::Continued) {
                println!("{name}: {}: {error}", group["description"]);
                tally.refused += 1;
                continue;
            }
            for case in group["tests"].as_array().context("a group has tests")? {
                let text = case["data"].to_string();
                let taken = takes(&grammars, &source, &tokenizer, &text)?;
                if case["valid"] == true {
                    tally.valid += 1;
                    tally.valid_taken += usize::from(taken);
                } else {
                    tally.invalid += 1;
                    if taken {
                        faults.push(format!("{name}: {}: {}: {text}", group["description"], case["description"]));
                    }
                }
            }
        }
    }
    tallies.iter().for_each(|(name, tally)| println!("{name}: {tally:?}"));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(
        tallies.values().map(|tally| tally.invalid).sum::<usize>() > 200,
        "the suite is not where it is looked for"
    );
    Ok(())
}
