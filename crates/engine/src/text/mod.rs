//! Text to tokens and back: tokenizer, detokenizer and chat template of one model.
//!
//! Owns every rule about how a model's text is cut and joined. Knows no tensor, no request and no wire format.

mod chat_template;
mod detokenizer;
mod error;
mod folder;
mod gguf_vocabulary;
pub mod grammar;
mod pair;
mod pipeline;
mod python_format;
mod ranked_merges;
mod sentence_piece_file;
mod tiktoken_file;
mod token_table;
mod tokenizer;

pub use chat_template::{ChatTemplate, Clock, Conversation, TemplateTokens};
pub use detokenizer::{Detokenizer, DetokenizerOptions};
pub use error::TextError;
pub use gguf_vocabulary::{GgufVocabulary, SpecialIds};
pub use pair::{PairTemplate, TypedText};
pub use sentence_piece_file::SentencePieceFile;
pub use tokenizer::{MAX_TEXT_BYTES, SpecialTokens, Tokenizer};

/// Everything a model knows about text.
#[derive(Clone, Debug)]
pub struct ModelText {
    /// Cuts text into token ids.
    pub tokenizer: Tokenizer,
    /// Turns a conversation into text; a base model has none.
    pub template: Option<ChatTemplate>,
    /// Tokens that end an answer when the model emits one of them.
    pub end_tokens: Vec<u32>,
    /// The texts of the special tokens.
    pub special: TemplateTokens,
    /// The reference implementation's class of tokenizers, where the model names one.
    pub tokenizer_class: Option<String>,
}

impl ModelText {
    /// The prompt of a conversation: the template's text, encoded with its special tokens recognised.
    ///
    /// The tokenizer's own leading special tokens (the beginning-of-sequence token, mostly) are put in front unless
    /// the template already wrote them. Nothing is put behind: an end token there would end the conversation.
    ///
    /// Special tokens are recognised in the messages' text too, as in the reference implementation.
    ///
    /// # Errors
    /// [`TextError::NoTemplate`] without a template, [`TextError::Template`] when it refuses the conversation.
    pub fn prompt_tokens(&self, conversation: &Conversation<'_>) -> Result<Vec<u32>, TextError> {
        self.conversation_tokens(conversation, SpecialTokens::Add)
    }

    /// As [`ModelText::prompt_tokens`], or with [`SpecialTokens::Omit`] no more than what the template wrote.
    ///
    /// # Errors
    /// As [`ModelText::prompt_tokens`].
    pub fn conversation_tokens(
        &self,
        conversation: &Conversation<'_>,
        special: SpecialTokens,
    ) -> Result<Vec<u32>, TextError> {
        let template = self.template.as_ref().ok_or(TextError::NoTemplate)?;
        let text = template.render(conversation)?;
        let tokens = self.tokenizer.encode(&text, SpecialTokens::Omit)?;
        let leading = self.tokenizer.leading_tokens();
        if special == SpecialTokens::Omit || tokens.starts_with(leading) {
            return Ok(tokens);
        }
        Ok([leading, &tokens].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn model_text(template: Option<&str>, add_bos: bool) -> ModelText {
        let mut vocabulary = gguf_vocabulary::tests::byte_vocabulary("gpt-2");
        vocabulary.add_bos = Some(add_bos);
        let tokens = TemplateTokens { bos: Some("<s>".to_owned()), ..TemplateTokens::default() };
        ModelText {
            tokenizer: Tokenizer::from_vocabulary(vocabulary).unwrap(),
            template: template.map(|source| ChatTemplate::new(source, tokens.clone()).unwrap()),
            end_tokens: vec![1],
            special: tokens,
            tokenizer_class: None,
        }
    }

    fn conversation(messages: &[serde_json::Value]) -> Conversation<'_> {
        Conversation { messages, ..Conversation::default() }
    }

    #[test]
    fn beginning_of_sequence_is_never_doubled() {
        let messages = [json!({"role": "user", "content": "ab"})];
        let written = "{{ bos_token }}{{ messages[0].content }}";
        let silent = "{{ messages[0].content }}";
        for (template, add_bos, expected) in [
            (written, true, vec!["<s>", "a", "b"]),
            (written, false, vec!["<s>", "a", "b"]),
            (silent, true, vec!["<s>", "a", "b"]),
            (silent, false, vec!["a", "b"]),
        ] {
            let text = model_text(Some(template), add_bos);
            let tokens = text.prompt_tokens(&conversation(&messages)).unwrap();
            let names: Vec<&str> = tokens.iter().map(|id| text.tokenizer.token_text(*id).unwrap()).collect();
            assert_eq!(names, expected, "{template} with add_bos {add_bos}");
        }
    }

    #[test]
    fn a_model_without_a_template_says_so() {
        let error = model_text(None, true).prompt_tokens(&conversation(&[])).unwrap_err();
        assert!(matches!(error, TextError::NoTemplate));
    }
}
