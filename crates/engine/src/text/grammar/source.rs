//! The kinds of grammars there are, and how each is told to the grammar library.

use llguidance::JsonCompileOptions;
use llguidance::api::GrammarWithLexer;
use serde_json::{Value, json};

use super::{GrammarError, MAX_GRAMMAR_BYTES, schema};

/// White space between the tokens of JSON: a space, or a new line with what indents the next. Bounded, so that no model
/// fills an answer with it.
const WHITE_SPACE: &str = r"( |\n {0,24}|\n\t{0,12})";

/// What an answer must be.
#[derive(Clone, Debug, PartialEq)]
pub enum GrammarSource {
    /// Any JSON object.
    JsonObject,
    /// JSON that a schema allows.
    JsonSchema {
        /// The schema, draft 2020-12 or earlier.
        schema: Value,
        /// Whether words that no schema knows and formats that are not enforced are refused, rather than taken as remarks.
        strict: bool,
    },
    /// A text that a regular expression matches as a whole.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// A text of a context-free grammar in the Lark notation.
    Lark(String),
    /// Any text in which something may begin.
    Free {
        /// What the text is held to, in the Lark notation: any text up to the trigger, or to a special token.
        grammar: String,
        /// An expression of the texts up to where something has begun; `None` if only special tokens begin something.
        trigger: Option<String>,
    },
    /// One of two things.
    Either {
        /// What an answer is that begins with one of the heads.
        first: Box<Self>,
        /// The beginnings of all texts of the first.
        heads: Vec<String>,
        /// What any other answer is.
        second: Box<Self>,
    },
}

impl GrammarSource {
    /// What tells this grammar from all others.
    pub(super) fn check_size(&self) -> Result<String, GrammarError> {
        let text = match self {
            Self::JsonObject => "object".to_owned(),
            Self::JsonSchema { schema, strict } => format!("schema {strict} {schema}"),
            Self::Regex(regex) => format!("regex {regex}"),
            Self::Choice(choices) => format!("choice {}", json!(choices)),
            Self::Lark(grammar) => format!("lark {grammar}"),
            Self::Free { grammar, trigger } => format!("free {grammar} {trigger:?}"),
            // Each has the bound by itself.
            Self::Either { first, heads, second } => {
                return Ok(format!("either {} {} {heads:?}", first.check_size()?, second.check_size()?));
            }
        };
        if text.len() > MAX_GRAMMAR_BYTES {
            return Err(GrammarError::TooLarge { bytes: text.len(), limit: MAX_GRAMMAR_BYTES });
        }
        Ok(text)
    }

    /// A JSON schema as it stands behind `%json` in a Lark grammar.
    ///
    /// # Errors
    /// As compiling it by itself.
    pub fn embedded(schema: &Value, strict: bool) -> Result<Value, GrammarError> {
        Ok(with_options(schema::prepare(schema, strict)?))
    }

    /// The grammar as the library reads it.
    pub(super) fn prepare(&self) -> Result<GrammarWithLexer, GrammarError> {
        Ok(match self {
            Self::JsonObject => json_grammar(json!({"type": "object"})),
            Self::JsonSchema { schema, strict } => json_grammar(schema::prepare(schema, *strict)?),
            Self::Regex(regex) => GrammarWithLexer::from_regex(whole(regex)),
            Self::Choice(choices) if choices.is_empty() => return Err(GrammarError::NoChoice),
            Self::Choice(choices) => {
                let quoted: Vec<String> = choices.iter().map(|choice| quoted(choice)).collect();
                GrammarWithLexer::from_lark(format!("start: {}", quoted.join("\n  | ")))
            }
            Self::Lark(grammar) | Self::Free { grammar, .. } => GrammarWithLexer::from_lark(grammar.clone()),
            Self::Either { .. } => {
                return Err(GrammarError::Refused("one of two things is no single grammar".to_owned()));
            }
        })
    }
}

fn json_grammar(schema: Value) -> GrammarWithLexer {
    GrammarWithLexer::from_json_schema(with_options(schema))
}

fn with_options(mut schema: Value) -> Value {
    let options = JsonCompileOptions { whitespace_pattern: Some(WHITE_SPACE.to_owned()), ..Default::default() };
    options.apply_to(&mut schema);
    schema
}

/// The expression without anchors around it: it matches the whole text in any case.
fn whole(regex: &str) -> &str {
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    match regex.strip_suffix('$') {
        // Behind an odd number of backslashes it is the character itself.
        Some(rest) if rest.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 0 => rest,
        _ => regex,
    }
}

/// A text as the Lark notation quotes it.
fn quoted(text: &str) -> String {
    // The notation allows no character 0x7f between quotes, and JSON leaves it as it is.
    json!(text).to_string().replace('\u{7f}', "\\u007f")
}
