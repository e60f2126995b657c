//! Vocabularies in every format, token ids the same to the last one: those inside GGUF files against llama.cpp's own
//! vectors, and all of them against the reference tokenizers of `scripts/make-vocabulary-goldens`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use hearth_engine::text::{GgufVocabulary, SpecialTokens, Tokenizer};
use hearth_engine::weights::Gguf;
use hearth_tests::{further, goldens, llama_cpp_folder};
use serde::Deserialize;

const VOCABULARIES: [&str; 4] = ["llama-spm", "llama-bpe", "bert-bge", "gpt-2"];

/// What stands behind each text of an input file.
const BEHIND: &str = "\n__ggml_vocab_test__\n";

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn tokenizer(path: &Path) -> Result<Tokenizer> {
    let gguf = Gguf::open(path)?;
    Ok(Tokenizer::from_vocabulary(GgufVocabulary::from_metadata(gguf.metadata())?)?)
}

#[test]
fn token_ids_are_llama_cpps() -> Result<()> {
    let Some(models) = llama_cpp_folder("models") else { return Ok(()) };
    for name in VOCABULARIES {
        let path = models.join(format!("ggml-vocab-{name}.gguf"));
        let tokenizer = tokenizer(&path)?;
        let texts = read(&path.with_extension("gguf.inp"))?;
        let ids = read(&path.with_extension("gguf.out"))?;
        let texts: Vec<&str> = texts.split_terminator(BEHIND).collect();
        let ids: Vec<&str> = ids.lines().collect();
        assert!(texts.len() >= 40, "{name} has {} texts", texts.len());
        let mut differences = Vec::new();
        for (text, ids) in texts.iter().zip(&ids) {
            let expected = ids.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>()?;
            let found = tokenizer.encode_plain(text, SpecialTokens::Omit)?;
            if found != expected {
                differences.push(format!("{name}: {text:?}\n  {found:?}\n  {expected:?}"));
            }
        }
        assert_eq!(texts.len(), ids.len(), "{name}");
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
    Ok(())
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

/// Encodes the cases of each folder in `folder` with the tokenizer beside them; the number of cases.
fn check_folders(folder: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(folder)? {
        let folder = entry?.path();
        let vocabulary = folder.join("vocabulary.gguf");
        let tokenizer = match vocabulary.exists() {
            true => tokenizer(&vocabulary)?,
            false => Tokenizer::from_folder(&folder)?,
        };
        let cases: Vec<Case> = serde_json::from_str(&read(&folder.join("cases.json"))?)?;
        let mut differences = Vec::new();
        for Case { text, ids } in &cases {
            let found = tokenizer.encode_plain(text, SpecialTokens::Omit)?;
            if found != *ids {
                differences.push(format!("{text:?}\n  {found:?}\n  {ids:?}"));
            }
        }
        let shown = differences.iter().take(10).cloned().collect::<Vec<_>>().join("\n");
        assert!(differences.is_empty(), "{}: {} of {}\n{shown}", folder.display(), differences.len(), cases.len());
        count += cases.len();
    }
    Ok(count)
}

#[test]
fn token_ids_are_the_reference_tokenizers() -> Result<()> {
    assert!(check_folders(&goldens().join("tokenizers"))? >= 150);
    Ok(())
}

#[test]
fn token_ids_are_the_reference_tokenizers_of_real_models() -> Result<()> {
    match std::env::var_os("HEARTH_TEST_TOKENIZERS") {
        Some(folder) => println!("{} cases", check_folders(Path::new(&folder))?),
        None => further("HEARTH_TEST_TOKENIZERS, a folder that `scripts/make-vocabulary-goldens` wrote"),
    }
    Ok(())
}

/// The switches of `tokenizer_config.json`, and the special tokens of the file itself.
#[test]
fn a_sentence_piece_model_obeys_its_configuration() -> Result<()> {
    let model = fs::read(goldens().join("tokenizers/sentence-piece/tokenizer.model"))?;
    let pieces = |config: &serde_json::Value, text: &str| -> Result<Vec<String>> {
        let tokenizer = Tokenizer::from_model(&model, config)?;
        let ids = tokenizer.encode(text, SpecialTokens::Add)?;
        Ok(ids.iter().filter_map(|id| tokenizer.token_text(*id)).map(str::to_owned).collect())
    };
    let given = pieces(&serde_json::Value::Null, "[INST]the[/INST] the")?;
    assert_eq!(given, ["<s>", "[INST]", "▁the", "[/INST]", "▁", "▁the"]);
    let first = serde_json::json!({"legacy": false, "add_bos_token": false, "add_eos_token": true});
    assert_eq!(pieces(&first, "the[/INST]a")?, ["▁the", "[/INST]", "a", "</s>"]);
    let added = serde_json::json!({"added_tokens_decoder": {
        "1": {"content": "<s>", "special": true},
        "400": {"content": "<|pad|>", "special": true},
        "401": {"content": "<tool>", "special": false},
    }});
    let given = pieces(&added, "the<|pad|>the <tool>the")?;
    assert_eq!(given, ["<s>", "▁the", "<|pad|>", "▁the", "▁", "<tool>", "▁the"]);
    Ok(())
}
