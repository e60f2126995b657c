//! The vocabularies inside GGUF files against llama.cpp's own vectors: token ids the same to the last one.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use hearth_engine::text::{GgufVocabulary, SpecialTokens, Tokenizer};
use hearth_engine::weights::Gguf;
use hearth_tests::llama_cpp_folder;

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
