//! From fields as they were typed to calls that a provider can take: defaults, bounds and contradictions.
//!
//! The bounds of sampling fields are the sampler's to check, since some depend on the model.

use hearth_sampler::SamplingRequest;
use serde_json::Number;

use super::stream::UsagePlace;
use crate::config::Limits;
use crate::providers::{CompletionCall, Cut, EmbeddingCall, Generation, OnOverflow, Prompt};
use crate::wire::chat::ChatFields;
use crate::wire::completions::{CompletionFields, ErrorBehavior, TextInput};
use crate::wire::embeddings::EmbeddingFields;
use crate::wire::options::{OutputFields, SamplingFields, Stop};
use crate::wire::{FieldError, JsonObject};

/// Tokens of an answer if the request names no number.
const DEFAULT_MAX_TOKENS: u32 = 256;
/// Most choices of one prompt.
const MOST_CHOICES: u32 = 16;
/// Most alternatives of one token.
const MOST_LOGPROBS: u8 = 20;

/// Whether the answer is streamed, and where its usage then stands.
pub(super) fn streaming(output: &OutputFields) -> Result<Option<UsagePlace>, FieldError> {
    let streamed = output.stream == Some(true);
    let Some(options) = &output.stream_options else { return Ok(streamed.then_some(UsagePlace::LastChoice)) };
    if !streamed {
        return Err(FieldError::conflict("stream_options", "only allowed with `stream`: true"));
    }
    if options.include_obfuscation == Some(true) {
        return Err(FieldError::unsupported_value("stream_options.include_obfuscation", " of true"));
    }
    let own_chunk = options.include_usage == Some(true);
    Ok(Some(if own_chunk { UsagePlace::OwnChunk } else { UsagePlace::LastChoice }))
}

/// How to answer a conversation.
pub(super) fn chat_generation(
    fields: &ChatFields,
    sampling: SamplingFields,
    output: &OutputFields,
    limits: Limits,
) -> Result<Generation, FieldError> {
    let wanted = fields.logprobs == Some(true);
    if fields.top_logprobs.is_some() && !wanted {
        return Err(FieldError::conflict("top_logprobs", "only allowed with `logprobs`: true"));
    }
    check_logprobs("top_logprobs", fields.top_logprobs)?;
    let max_tokens = max_tokens(&sampling, 1)?;
    let choices = count("n", output.n, 1)?;
    let logprobs = wanted.then(|| fields.top_logprobs.unwrap_or(0));
    let sampling = SamplingRequest { logprobs, ..sampling_request(sampling)? };
    let (deadline, given) = (limits.deadline(), JsonObject::new());
    Ok(Generation { sampling, max_tokens, choices, deadline, grammar: None, given })
}

/// What to complete, how many of the answers to return, and whether they carry log probabilities.
pub(super) struct CheckedCompletion {
    /// For the provider. Its choices are those to generate.
    pub(super) call: CompletionCall,
    /// Choices of each prompt to return.
    pub(super) returned: usize,
    /// Whether log probabilities were asked for; to choose the best answers they are made in any case.
    pub(super) logprobs: bool,
    /// Appended to every answer.
    pub(super) suffix: String,
}

/// What to complete.
pub(super) fn completion(
    fields: CompletionFields,
    sampling: SamplingFields,
    output: &OutputFields,
    limits: Limits,
) -> Result<CheckedCompletion, FieldError> {
    let echo = fields.echo == Some(true);
    check_logprobs("logprobs", fields.logprobs)?;
    let returned = count("n", output.n, 1)?;
    let choices = match fields.best_of {
        None => returned,
        best_of => count("best_of", best_of, returned)?,
    };
    if choices > returned && output.stream == Some(true) {
        return Err(FieldError::conflict(
            "best_of",
            "the best answers are known only at the end, so not with `stream`",
        ));
    }
    let templated = fields.use_raw_prompt == Some(false);
    if echo && templated {
        return Err(FieldError::conflict("echo", "only raw prompts are echoed, so not with `use_raw_prompt`: false"));
    }
    let max_tokens = max_tokens(&sampling, if echo { 0 } else { 1 })?;
    let logprobs = fields.logprobs.or((choices > returned).then_some(0));
    let sampling = SamplingRequest { logprobs, ..sampling_request(sampling)? };
    let truncate = fields.error_behavior == Some(ErrorBehavior::Truncate);
    let (deadline, given) = (limits.deadline(), JsonObject::new());
    let call = CompletionCall {
        prompts: texts("prompt", fields.prompt)?,
        echo,
        templated,
        on_overflow: if truncate { OnOverflow::DropBeginning } else { OnOverflow::Refuse },
        generation: Generation { sampling, max_tokens, choices, deadline, grammar: None, given },
    };
    let suffix = fields.suffix.unwrap_or_default();
    Ok(CheckedCompletion { call, returned, logprobs: fields.logprobs.is_some(), suffix })
}

/// What to embed.
pub(super) fn embedding(fields: EmbeddingFields, limits: Limits) -> Result<EmbeddingCall, FieldError> {
    let inputs = texts("input", fields.input)?;
    if inputs.len() > limits.texts {
        let bound = format!("at most {} texts", limits.texts);
        return Err(FieldError::value("input", bound, inputs.len()));
    }
    if let Some(index) = inputs.iter().position(|input| matches!(input, Prompt::Text(text) if text.is_empty())) {
        return Err(FieldError::value(format!("input[{index}]"), "a text that is not empty", "\"\""));
    }
    let instruction = fields.instruction.filter(|text| !text.is_empty());
    if instruction.is_some() && inputs.iter().any(|input| matches!(input, Prompt::Tokens(_))) {
        return Err(FieldError::conflict("instruction", "only texts can have an instruction, not token ids"));
    }
    let cut = cut(fields.truncate, fields.truncate_prompt_tokens)?;
    let EmbeddingFields { dimensions, input_type, .. } = fields;
    Ok(EmbeddingCall { inputs, instruction, dimensions, deadline: limits.deadline(), cut, input_type })
}

/// Where texts are cut. The number of tokens wins over `truncate`, which names none.
fn cut(truncate: Option<bool>, tokens: Option<i64>) -> Result<Option<Cut>, FieldError> {
    match tokens {
        Some(_) if truncate == Some(false) => {
            Err(FieldError::conflict("truncate_prompt_tokens", "cuts texts, so not with `truncate`: false"))
        }
        Some(-1) => Ok(Some(Cut::Context)),
        Some(tokens) => match usize::try_from(tokens) {
            Ok(tokens) if tokens > 0 => Ok(Some(Cut::Tokens(tokens))),
            _ => Err(FieldError::value(
                "truncate_prompt_tokens",
                "-1, which is the model's context, or at least 1",
                tokens,
            )),
        },
        None => Ok((truncate == Some(true)).then_some(Cut::Context)),
    }
}

/// Refuses a request for more choices than one request may have.
pub(super) fn check_choices(prompts: usize, each: usize, limits: Limits) -> Result<(), FieldError> {
    let choices = prompts * each;
    if choices <= limits.choices {
        return Ok(());
    }
    let bound = format!("so many that prompts times choices are at most {}", limits.choices);
    Err(FieldError::value("n", bound, format!("{prompts} x {each}")))
}

fn texts(field: &str, input: TextInput) -> Result<Vec<Prompt>, FieldError> {
    let texts: Vec<Prompt> = match input {
        TextInput::Text(text) => vec![Prompt::Text(text)],
        TextInput::Texts(texts) => texts.into_iter().map(Prompt::Text).collect(),
        TextInput::Tokens(tokens) => vec![Prompt::Tokens(tokens)],
        TextInput::TokenLists(lists) => lists.into_iter().map(Prompt::Tokens).collect(),
    };
    if texts.is_empty() {
        return Err(FieldError::value(field, "a list that is not empty", "[]"));
    }
    match texts.iter().position(|text| matches!(text, Prompt::Tokens(tokens) if tokens.is_empty())) {
        Some(index) => {
            Err(FieldError::value(format!("{field}[{index}]"), "a list of token ids that is not empty", "[]"))
        }
        None => Ok(texts),
    }
}

fn max_tokens(fields: &SamplingFields, least: u32) -> Result<usize, FieldError> {
    let (field, given) = match (fields.max_tokens, fields.max_completion_tokens) {
        (Some(old), Some(new)) if old != new => {
            let problem = format!("is {new} and `max_tokens` is {old}; they mean the same, so give one of them");
            return Err(FieldError::conflict("max_completion_tokens", problem));
        }
        (None, Some(new)) => ("max_completion_tokens", new),
        (Some(old), _) => ("max_tokens", old),
        (None, None) => ("max_tokens", DEFAULT_MAX_TOKENS),
    };
    if given < least {
        let bound = "at least 1 (0 only in completions with `echo`)";
        return Err(FieldError::value(field, bound, given));
    }
    Ok(given as usize)
}

fn count(field: &str, given: Option<u32>, least: usize) -> Result<usize, FieldError> {
    let value = given.unwrap_or(1);
    if (value as usize) < least || value > MOST_CHOICES || value == 0 {
        return Err(FieldError::value(field, format!("between {least} and {MOST_CHOICES}"), value));
    }
    Ok(value as usize)
}

fn check_logprobs(field: &str, given: Option<u8>) -> Result<(), FieldError> {
    match given {
        Some(number) if number > MOST_LOGPROBS => {
            Err(FieldError::value(field, format!("between 0 and {MOST_LOGPROBS}"), number))
        }
        _ => Ok(()),
    }
}

fn sampling_request(fields: SamplingFields) -> Result<SamplingRequest, FieldError> {
    let defaults = SamplingRequest::default();
    Ok(SamplingRequest {
        temperature: fields.temperature.unwrap_or(1.0),
        top_p: fields.top_p.unwrap_or(1.0),
        top_k: fields.top_k,
        min_p: fields.min_p.unwrap_or(0.0),
        frequency_penalty: fields.frequency_penalty.unwrap_or(0.0),
        presence_penalty: fields.presence_penalty.unwrap_or(0.0),
        repetition_penalty: fields.repetition_penalty.unwrap_or(1.0),
        logit_bias: fields.logit_bias.unwrap_or_default().into_iter().collect(),
        min_tokens: fields.min_tokens.unwrap_or(0) as usize,
        seed: fields.seed.as_ref().map(seed).transpose()?,
        stop: match fields.stop {
            None => Vec::new(),
            Some(Stop::One(text)) => vec![text],
            Some(Stop::Many(texts)) => texts,
        },
        ignore_eos: fields.ignore_eos.unwrap_or(false),
        ..defaults
    })
}

fn seed(number: &Number) -> Result<u64, FieldError> {
    let by_bits = || number.as_i64().map(i64::cast_unsigned);
    number.as_u64().or_else(by_bits).ok_or_else(|| FieldError::value("seed", "a whole number of 64 bits", number))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::wire::Request;
    use crate::wire::chat::ChatRequest;
    use crate::wire::completions::CompletionRequest;
    use crate::wire::parse_object;

    const LIMITS: Limits = Limits { body: 1 << 20, bodies: 1 << 20, texts: 3, choices: 8, request_timeout: None };

    fn object(mut base: Value, more: Value) -> JsonObject {
        base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        parse_object(base.to_string().as_bytes()).unwrap()
    }

    fn chat(more: Value) -> Result<Generation, FieldError> {
        let request = ChatRequest::read(object(json!({"messages": [{"role": "user", "content": "x"}]}), more))?;
        streaming(&request.output)?;
        chat_generation(&request.chat, request.sampling, &request.output, LIMITS)
    }

    fn complete(more: Value) -> Result<CheckedCompletion, FieldError> {
        let request = CompletionRequest::read(object(json!({"prompt": "x"}), more))?;
        completion(request.completion, request.sampling, &request.output, LIMITS)
    }

    fn embed(more: Value) -> Result<EmbeddingCall, FieldError> {
        embedding(Request::read(object(json!({}), more))?.fields, LIMITS)
    }

    fn text(result: Result<impl Sized, FieldError>) -> String {
        result.err().unwrap().to_string()
    }

    #[test]
    fn the_defaults_are_the_fixed_ones() {
        let generation = chat(json!({})).unwrap();
        assert_eq!((generation.max_tokens, generation.choices), (256, 1));
        assert_eq!(generation.sampling, SamplingRequest::default());
        let Generation { sampling, .. } = chat(json!({"temperature": null, "stop": null, "seed": null})).unwrap();
        assert_eq!((sampling.temperature, sampling.top_p, sampling.stop.len()), (1.0, 1.0, 0));
    }

    #[test]
    fn every_sampling_field_arrives() {
        let generation = chat(json!({
            "max_completion_tokens": 7, "temperature": 0.25, "top_p": 0.5, "top_k": 3, "min_p": 0.125,
            "frequency_penalty": 1, "presence_penalty": -1, "repetition_penalty": 1.5, "logit_bias": {"42": -100},
            "min_tokens": 2, "ignore_eos": true, "seed": -1, "stop": "END", "n": 3, "logprobs": true, "top_logprobs": 4
        }))
        .unwrap();
        let expected = SamplingRequest {
            temperature: 0.25,
            top_p: 0.5,
            top_k: Some(3),
            min_p: 0.125,
            frequency_penalty: 1.0,
            presence_penalty: -1.0,
            repetition_penalty: 1.5,
            logit_bias: vec![(42, -100.0)],
            min_tokens: 2,
            seed: Some(u64::MAX),
            logprobs: Some(4),
            stop: vec!["END".into()],
            ignore_eos: true,
            ..SamplingRequest::default()
        };
        assert_eq!(generation.sampling, expected);
        assert_eq!((generation.max_tokens, generation.choices), (7, 3));
    }

    #[test]
    fn two_different_limits_of_tokens_contradict() {
        assert!(chat(json!({"max_tokens": 5, "max_completion_tokens": 5})).is_ok());
        let error = chat(json!({"max_tokens": 5, "max_completion_tokens": 6})).unwrap_err();
        assert_eq!(error.field(), Some("max_completion_tokens"));
    }

    #[test]
    fn bounds_name_the_field_the_bound_and_the_value() {
        assert_eq!(text(chat(json!({"n": 17}))), "`n` must be between 1 and 16, not 17");
        assert_eq!(text(chat(json!({"n": 0}))), "`n` must be between 1 and 16, not 0");
        assert!(text(chat(json!({"max_tokens": 0}))).starts_with("`max_tokens` must be at least 1"));
        let error = text(chat(json!({"logprobs": true, "top_logprobs": 21})));
        assert_eq!(error, "`top_logprobs` must be between 0 and 20, not 21");
        assert!(text(chat(json!({"top_logprobs": 2}))).contains("only allowed with `logprobs`"));
        assert!(text(chat(json!({"seed": 1.5}))).contains("`seed` must be a whole number of 64 bits, not 1.5"));
        assert!(text(chat(json!({"stream_options": {"include_usage": true}}))).contains("only allowed with `stream`"));
        assert_eq!(text(complete(json!({"logprobs": 21}))), "`logprobs` must be between 0 and 20, not 21");
    }

    #[test]
    fn fields_that_come_later_are_refused_unless_they_ask_for_nothing() {
        let nothing = json!({"functions": [], "function_call": "none", "audio": null});
        assert!(chat(nothing).is_ok());
        for (field, value) in [("functions", json!([{"name": "f"}])), ("verbosity", json!("low"))] {
            let error = chat(json!({field: value})).unwrap_err();
            assert!(matches!(&error, FieldError::Unsupported { field: name, .. } if name == field), "{error}");
            assert!(error.to_string().contains("not supported yet by this server"), "{error}");
        }
    }

    #[test]
    fn bookkeeping_is_accepted_and_nothing_else_is() {
        let bookkeeping = json!({
            "user": "u", "metadata": {"a": "b"}, "store": true, "service_tier": "auto", "client_request_id": "1",
            "usage_context": {"team": "x"}, "databricks_options": {}, "custom_inputs": {}, "prompt_cache_key": "k",
            "safety_identifier": "s"
        });
        assert!(chat(bookkeeping).is_ok());
        assert_eq!(text(chat(json!({"max_token": 5}))), "unknown field `max_token`");
        assert_eq!(text(complete(json!({"messages": []}))), "unknown field `messages`");
    }

    #[test]
    fn nothing_is_generated_only_with_echo() {
        assert_eq!(complete(json!({"max_tokens": 0, "echo": true})).unwrap().call.generation.max_tokens, 0);
        assert!(text(complete(json!({"max_tokens": 0}))).contains("only in completions with `echo`"));
    }

    #[test]
    fn the_best_are_chosen_among_at_least_as_many() {
        let checked = complete(json!({"n": 2, "best_of": 4})).unwrap();
        assert_eq!((checked.returned, checked.call.generation.choices, checked.logprobs), (2, 4, false));
        assert_eq!(checked.call.generation.sampling.logprobs, Some(0), "needed for ranking");
        assert_eq!(text(complete(json!({"n": 3, "best_of": 2}))), "`best_of` must be between 3 and 16, not 2");
        assert!(text(complete(json!({"best_of": 2, "stream": true}))).contains("not with `stream`"));
    }

    #[test]
    fn prompts_come_in_four_forms() {
        let prompts = |prompt: Value| complete(json!({"prompt": prompt})).unwrap().call.prompts;
        assert_eq!(prompts(json!("a")), [Prompt::Text("a".into())]);
        assert_eq!(prompts(json!(["a", "b"])), [Prompt::Text("a".into()), Prompt::Text("b".into())]);
        assert_eq!(prompts(json!([1, 2])), [Prompt::Tokens(vec![1, 2])]);
        assert_eq!(prompts(json!([[1], [2]])), [Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2])]);
        assert!(text(complete(json!({"prompt": []}))).contains("`prompt` must be a list that is not empty"));
        assert!(text(complete(json!({"prompt": [[1], []]}))).contains("prompt[1]"));
        assert!(text(complete(json!({"prompt": {"a": 1}}))).contains("a string, a list of strings"));
    }

    #[test]
    fn prompts_are_raw_unless_the_template_is_asked_for() {
        assert!(!complete(json!({})).unwrap().call.templated);
        assert!(!complete(json!({"use_raw_prompt": true})).unwrap().call.templated);
        assert!(complete(json!({"use_raw_prompt": false})).unwrap().call.templated);
    }

    #[test]
    fn embedding_inputs_are_bounded_and_not_empty() {
        assert_eq!(embed(json!({"input": ["a", "b", "c"]})).unwrap().inputs.len(), 3);
        assert_eq!(text(embed(json!({"input": ["a", "b", "c", "d"]}))), "`input` must be at most 3 texts, not 4");
        assert!(text(embed(json!({"input": ["a", ""]}))).contains("input[1]"));
        assert_eq!(text(embed(json!({}))), "the field `input` is required");
        assert!(text(embed(json!({"input": [1, 2], "instruction": "q: "}))).contains("not token ids"));
    }

    #[test]
    fn texts_are_cut_as_either_spelling_says() {
        let cut = |more: Value| {
            embedding(Request::read(object(json!({"input": "a"}), more))?.fields, LIMITS).map(|call| call.cut)
        };
        assert_eq!(cut(json!({})).unwrap(), None);
        assert_eq!(cut(json!({"truncate": false})).unwrap(), None);
        assert_eq!(cut(json!({"truncate": true})).unwrap(), Some(Cut::Context));
        assert_eq!(cut(json!({"truncate_prompt_tokens": -1})).unwrap(), Some(Cut::Context));
        assert_eq!(cut(json!({"truncate": true, "truncate_prompt_tokens": 9})).unwrap(), Some(Cut::Tokens(9)));
        for wrong in [0, -2] {
            let message = text(cut(json!({"truncate_prompt_tokens": wrong})));
            let expected = "`truncate_prompt_tokens` must be -1, which is the model's context, or at least 1, not";
            assert_eq!(message, format!("{expected} {wrong}"));
        }
        assert!(text(cut(json!({"truncate": false, "truncate_prompt_tokens": 9}))).contains("`truncate`: false"));
    }
}
