//! From a checkpoint's files to what its model knows of text: tokenizer, chat template, special tokens.

use std::path::Path;

use serde_json::Value;

use crate::checkpoint::{Checkpoint, CheckpointSource, optional_json, template_source};
use crate::error::Error;
use crate::text::tool_calls::{ToolFormat, ToolUse};
use crate::text::{ChatTemplate, GgufVocabulary, ModelText, TemplateTokens, Tokenizer};
use crate::weights::GgufMetadata;

/// Reads everything of a checkpoint that concerns text. `format` is how its model writes calls, whatever the template says.
///
/// # Errors
/// When a file is missing or broken.
pub(super) fn model_text(checkpoint: &Checkpoint, format: Option<&'static ToolFormat>) -> Result<ModelText, Error> {
    let end_tokens = checkpoint.end_tokens()?;
    let text = match &checkpoint.source {
        CheckpointSource::Gguf(gguf) => text_of_gguf(gguf.metadata(), end_tokens)?,
        CheckpointSource::Folder(folder) => text_of_folder(folder, end_tokens)?,
    };
    let tools = text.template.as_ref().map(|template| ToolUse::of(template, format));
    Ok(ModelText { tools, ..text })
}

fn text_of_gguf(metadata: &GgufMetadata, end_tokens: Vec<u32>) -> Result<ModelText, Error> {
    let tokenizer = Tokenizer::from_vocabulary(GgufVocabulary::from_metadata(metadata)?)?;
    let token = |name: &str| {
        let id = metadata.u32(&format!("tokenizer.ggml.{name}_token_id")).ok()?;
        tokenizer.token_text(id).map(str::to_owned)
    };
    let special = TemplateTokens {
        bos: token("bos"),
        eos: token("eos"),
        unknown: token("unknown"),
        padding: token("padding"),
        classifier: token("cls"),
        // Misspelled in the format's own definition.
        separator: token("seperator").or_else(|| token("separator")),
        mask: token("mask"),
    };
    let template = match metadata.contains("tokenizer.chat_template") {
        true => Some(ChatTemplate::new(metadata.string("tokenizer.chat_template")?, special.clone())?),
        false => None,
    };
    Ok(ModelText { tokenizer, template, tools: None, end_tokens, special, tokenizer_class: None })
}

fn text_of_folder(folder: &Path, end_tokens: Vec<u32>) -> Result<ModelText, Error> {
    let tokenizer = Tokenizer::from_folder(folder)?;
    let config = optional_json(&folder.join("tokenizer_config.json"))?;
    let token = |name: &str| {
        let token = config.get(name)?;
        token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
    };
    let special = TemplateTokens {
        bos: token("bos_token"),
        eos: token("eos_token"),
        unknown: token("unk_token"),
        padding: token("pad_token"),
        classifier: token("cls_token"),
        separator: token("sep_token"),
        mask: token("mask_token"),
    };
    let template = template_source(folder)?.map(|source| ChatTemplate::new(&source, special.clone())).transpose()?;
    let tokenizer_class = config.get("tokenizer_class").and_then(Value::as_str).map(str::to_owned);
    Ok(ModelText { tokenizer, template, tools: None, end_tokens, special, tokenizer_class })
}
