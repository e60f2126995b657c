//! Conversation to prompt text, by the Jinja template a model ships.
//!
//! Owns how templates are run: the settings, functions and bounds Hugging Face's `apply_chat_template` gives them.
//! Does not know tokens' ids or what is done with the text.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, Error, ErrorKind, Output, State};

use super::TextError;
use super::python_format::{self, JsonLayout};

/// The name the template has in error messages.
const TEMPLATE_NAME: &str = "chat template";
/// Instructions one rendering may take: a long conversation needs some hundred thousand.
const MAX_INSTRUCTIONS: u64 = 20_000_000;
/// Longest prompt text, in bytes.
const MAX_OUTPUT_BYTES: usize = super::MAX_TEXT_BYTES;

/// Tells a template's `strftime_now` the time.
pub type Clock = Arc<dyn Fn() -> jiff::Zoned + Send + Sync>;

/// The texts of the special tokens a template may write; one that is absent is undefined in the template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplateTokens {
    /// `bos_token`
    pub bos: Option<String>,
    /// `eos_token`
    pub eos: Option<String>,
    /// `unk_token`
    pub unknown: Option<String>,
    /// `pad_token`
    pub padding: Option<String>,
    /// `cls_token`
    pub classifier: Option<String>,
    /// `sep_token`
    pub separator: Option<String>,
    /// `mask_token`
    pub mask: Option<String>,
}

impl TemplateTokens {
    /// Each token's text under the name that templates and `tokenizer_config.json` have for it.
    #[must_use]
    pub fn named(&self) -> [(&'static str, Option<&str>); 7] {
        [
            ("bos_token", self.bos.as_deref()),
            ("eos_token", self.eos.as_deref()),
            ("unk_token", self.unknown.as_deref()),
            ("pad_token", self.padding.as_deref()),
            ("cls_token", self.classifier.as_deref()),
            ("sep_token", self.separator.as_deref()),
            ("mask_token", self.mask.as_deref()),
        ]
    }
}

/// What a template turns into a prompt.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conversation<'a> {
    /// The messages, oldest first, each an object with `role` and mostly `content`.
    pub messages: &'a [serde_json::Value],
    /// Descriptions of the functions the model may call.
    pub tools: Option<&'a [serde_json::Value]>,
    /// End the prompt where the assistant's answer begins.
    pub add_generation_prompt: bool,
    /// End the prompt with the last message's text, so that the answer goes on from it.
    pub continue_final_message: bool,
    /// Further variables; they stand over the ones above.
    pub extra: Option<&'a serde_json::Map<String, serde_json::Value>>,
}

/// A compiled chat template. Cloning it is cheap.
#[derive(Clone)]
pub struct ChatTemplate {
    source: Arc<str>,
    environment: Arc<Environment<'static>>,
    tokens: TemplateTokens,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ChatTemplate").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// Compiles a template. Its `strftime_now` tells the local time.
    ///
    /// # Errors
    /// [`TextError::Template`] for a syntax error.
    pub fn new(source: &str, tokens: TemplateTokens) -> Result<Self, TextError> {
        Self::with_clock(source, tokens, Arc::new(jiff::Zoned::now))
    }

    /// Compiles a template whose `strftime_now` asks `clock`.
    ///
    /// # Errors
    /// [`TextError::Template`] for a syntax error.
    pub fn with_clock(source: &str, tokens: TemplateTokens, clock: Clock) -> Result<Self, TextError> {
        let mut environment = environment().map_err(template_error)?;
        environment.add_function("strftime_now", move |format: &str| {
            jiff::fmt::strtime::format(format, &clock())
                .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?}): {error}")))
        });
        environment.add_template_owned(TEMPLATE_NAME, without_generation_marks(source)).map_err(template_error)?;
        Ok(Self { source: source.into(), environment: Arc::new(environment), tokens })
    }

    /// The template as the model ships it.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt text of a conversation.
    ///
    /// # Errors
    /// [`TextError::Template`] when the template refuses the conversation (`raise_exception`), fails, or exceeds its
    /// bounds of instructions, recursion or output.
    pub fn render(&self, conversation: &Conversation<'_>) -> Result<String, TextError> {
        // The engine has places that panic, such as an empty list sliced backwards; a prompt is never worth a thread.
        let render = AssertUnwindSafe(|| self.render_unguarded(conversation));
        let rendered = catch_unwind(render).unwrap_or_else(|_| {
            Err(TextError::Template { message: "the template engine failed on this conversation".to_owned() })
        })?;
        match conversation.continue_final_message {
            true => open_ended(rendered, conversation.messages),
            false => Ok(rendered),
        }
    }

    fn render_unguarded(&self, conversation: &Conversation<'_>) -> Result<String, TextError> {
        let template = self.environment.get_template(TEMPLATE_NAME).map_err(template_error)?;
        let mut output = BoundedText { bytes: Vec::new() };
        template.render_captured_to(self.variables(conversation), &mut output).map_err(template_error)?;
        String::from_utf8(output.bytes).map_err(|error| TextError::Template { message: error.to_string() })
    }

    fn variables(&self, conversation: &Conversation<'_>) -> Value {
        let tokens = self.tokens.named().into_iter().filter_map(|(name, text)| Some((name, Value::from(text?))));
        let fixed = [
            ("messages", Value::from(Serde(conversation.messages))),
            ("tools", Value::from(Serde(conversation.tools))),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(conversation.add_generation_prompt)),
        ];
        let extra = conversation.extra.into_iter().flatten();
        let extra = extra.map(|(name, value)| (name.as_str(), Value::from(Serde(value))));
        Value::from_pairs(tokens.chain(fixed).chain(extra))
    }
}

/// Cuts a rendered conversation behind the text of its last message, as Hugging Face's `continue_final_message` does: where
/// the template has trimmed the message, at the end of what is left of it.
fn open_ended(mut rendered: String, messages: &[serde_json::Value]) -> Result<String, TextError> {
    let content = messages.last().and_then(|message| message.get("content")?.as_str()).unwrap_or_default();
    let trimmed = content.trim();
    let Some(start) = rendered.rfind(trimmed) else {
        let message = "the last message cannot be continued: its text does not stand in the prompt".to_owned();
        return Err(TextError::Template { message });
    };
    let kept = if rendered[start..].starts_with(content) { content } else { trimmed };
    rendered.truncate(start + kept.len());
    Ok(rendered)
}

/// Jinja as Hugging Face sets it up for chat templates.
fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_fuel(Some(MAX_INSTRUCTIONS));
    environment.set_formatter(|output: &mut Output, _: &mut State, value: &Value| {
        output.write_str(&python_format::display(value)?).map_err(Error::from)
    });
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: &str| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message.to_owned())))
    });
    environment.add_filter("tojson", to_json);
    // Templates ask `tools is iterable` before they count them; without tools that is none.
    environment.add_test("iterable", |value: &Value| !value.is_none() && minijinja::tests::is_iterable(value));
    Ok(environment)
}

/// Hugging Face's `tojson`: `json.dumps` without the escaping for HTML that Jinja's own has.
fn to_json(value: &Value, indent: Option<usize>, options: Kwargs) -> Result<String, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get::<Option<usize>>("indent")?,
    };
    let separators = match options.get::<Option<Vec<String>>>("separators")?.as_deref() {
        None => JsonLayout::default_separators(indent),
        Some([item, key]) => (item.clone(), key.clone()),
        Some(other) => {
            let message = format!("tojson takes 2 separators, given {}", other.len());
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
    };
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let ensure_ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    options.assert_all_used()?;
    JsonLayout { indent, sort_keys, ensure_ascii, separators }.write(value)
}

/// `{% generation %}` and its end mark the assistant's words for training; for a prompt they are empty blocks.
fn without_generation_marks(source: &str) -> String {
    let mut kept = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, (inside, after))) =
        rest.split_once("{%").and_then(|(before, tag)| Some((before, tag.split_once("%}")?)))
    {
        let inside = match inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+') {
            "generation" => inside.replace("generation", "if true"),
            "endgeneration" => inside.replace("endgeneration", "endif"),
            _ => inside.to_owned(),
        };
        kept.extend([before, "{%", &inside, "%}"]);
        rest = after;
    }
    kept + rest
}

/// The message of a template's `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn template_error(error: Error) -> TextError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(Raised(message)) = current.downcast_ref() {
            return TextError::Template { message: message.clone() };
        }
        cause = current.source();
    }
    TextError::Template { message: error.to_string() }
}

/// A text that stops growing at [`MAX_OUTPUT_BYTES`].
struct BoundedText {
    bytes: Vec<u8>,
}

impl Write for BoundedText {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + piece.len() > MAX_OUTPUT_BYTES {
            return Err(io::Error::other(format!("the prompt is longer than {MAX_OUTPUT_BYTES} bytes")));
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(source: &str, messages: &[serde_json::Value]) -> Result<String, TextError> {
        let conversation = Conversation { messages, ..Conversation::default() };
        ChatTemplate::new(source, TemplateTokens::default())?.render(&conversation)
    }

    fn message_of(result: Result<String, TextError>) -> String {
        match result.unwrap_err() {
            TextError::Template { message } => message,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_template_refuses_in_its_own_words() {
        assert_eq!(message_of(render("{{ raise_exception('roles must alternate') }}", &[])), "roles must alternate");
        let inside = "{% macro check() %}{{ raise_exception('no tools') }}{% endmacro %}{{ check() }}";
        assert_eq!(message_of(render(inside, &[])), "no tools");
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        let message = message_of(render("a\n{% if %}", &[]));
        assert!(message.contains("syntax error") && message.contains(":2"), "{message}");
    }

    #[test]
    fn a_template_cannot_run_or_write_or_recurse_without_end() {
        let rows = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}";
        assert!(message_of(render(rows, &[])).contains("fuel"));
        let wide = "{% for i in range(90000) %}{{ 'x' * 1000 }}{% endfor %}";
        let wide = message_of(render(&wide.replace("'x' * 1000", &format!("'{}'", "x".repeat(1000))), &[]));
        assert!(wide.contains("I/O error") || wide.contains("longer than"), "{wide}");
        let deep = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
        assert!(message_of(render(deep, &[])).contains("recursion"));
    }

    #[test]
    fn json_keeps_key_order_and_is_not_escaped() {
        let messages = [json!({"role": "tool", "z": "<&'é>", "a": {"y": 1, "b": [1.0, true]}})];
        assert_eq!(
            render("{{ messages[0] | tojson }}", &messages).unwrap(),
            r#"{"role": "tool", "z": "<&'é>", "a": {"y": 1, "b": [1.0, true]}}"#
        );
        assert_eq!(render("{{ {'b': [1]} | tojson(indent=1) }}", &[]).unwrap(), "{\n \"b\": [\n  1\n ]\n}");
        assert_eq!(
            render("{{ {'b': 'é', 'a': 1} | tojson(separators=(',', ':'), sort_keys=true, ensure_ascii=true) }}", &[])
                .unwrap(),
            r#"{"a":1,"b":"\u00e9"}"#
        );
    }

    #[test]
    fn a_panic_of_the_engine_is_an_error() {
        let message = message_of(render("{% for message in messages[::-1] %}{% endfor %}", &[]));
        assert!(message.contains("engine failed"), "{message}");
    }

    #[test]
    fn the_clock_is_the_one_given() {
        let clock: Clock =
            Arc::new(|| jiff::civil::date(2024, 7, 26).at(9, 5, 0, 0).to_zoned(jiff::tz::TimeZone::UTC).unwrap());
        let template = ChatTemplate::with_clock("{{ strftime_now('%d %b %Y') }}", TemplateTokens::default(), clock);
        assert_eq!(template.unwrap().render(&Conversation::default()).unwrap(), "26 Jul 2024");
    }

    #[test]
    fn extra_variables_stand_over_the_given_ones() {
        let extra = json!({"enable_thinking": false, "bos_token": "!"});
        let tokens = TemplateTokens { bos: Some("<s>".to_owned()), ..TemplateTokens::default() };
        let template = ChatTemplate::new("{{ bos_token }}{{ enable_thinking }}{{ eos_token }}", tokens).unwrap();
        let conversation = Conversation { extra: extra.as_object(), ..Conversation::default() };
        assert_eq!(template.render(&conversation).unwrap(), "!False");
        assert_eq!(template.render(&Conversation::default()).unwrap(), "<s>");
    }

    #[test]
    fn the_last_message_can_be_left_open() {
        let open = |template: &str, content: &str| {
            let messages =
                [json!({"role": "user", "content": "Paris"}), json!({"role": "assistant", "content": content})];
            let conversation =
                Conversation { messages: &messages, continue_final_message: true, ..Conversation::default() };
            ChatTemplate::new(template, TemplateTokens::default())?.render(&conversation)
        };
        let plain = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}";
        assert_eq!(open(plain, "Paris is ").unwrap(), "<user>Paris</s><assistant>Paris is ");
        assert_eq!(open(plain, "").unwrap(), "<user>Paris</s><assistant></s>", "as the reference does");
        let trimming = plain.replace("m.content", "m.content | trim");
        assert_eq!(open(&trimming, " Paris is ").unwrap(), "<user>Paris</s><assistant>Paris is");
        assert!(message_of(open("{{ messages[0].content }}", "London")).contains("cannot be continued"));
    }

    #[test]
    fn the_source_is_kept_as_it_was() {
        let source = "{% generation %}a{% endgeneration %}";
        assert_eq!(ChatTemplate::new(source, TemplateTokens::default()).unwrap().source(), source);
    }

    #[test]
    fn generation_marks_are_no_blocks_of_their_own() {
        assert_eq!(render("a {%- generation -%} b {% endgeneration %}\nc", &[]).unwrap(), "ab c");
    }
}
