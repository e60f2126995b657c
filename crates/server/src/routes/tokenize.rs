//! A model's tokenizer, in the shapes that vLLM serves: text to tokens, tokens to text, and what there is to know.

use axum::Json;
use axum::extract::{Query as UrlQuery, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::extract::{JsonBody, named_or_only};
use super::identity::served_by_entity;
use super::{conversation, tools};
use crate::error::{ApiError, ErrorKind};
use crate::gate::Caller;
use crate::providers::{ConversationEnd, TokenizeCall};
use crate::serve::App;
use crate::wire::tokenize::{DetokenizeFields, Detokenized, TokenizeFields, Tokenized, TokenizerDescription};
use crate::wire::{self, FieldError, Request};

/// `POST .../tokenize`.
pub(super) async fn tokenize(State(app): State<App>, caller: Caller, body: JsonBody) -> Result<Response, ApiError> {
    let (endpoint, fields) = body.open_or_only(&app, &caller, None)?;
    let entity = endpoint.entity()?;
    let Request { fields, bookkeeping } = wire::tokenize::read::<TokenizeFields>(fields)?;
    endpoint.record(&bookkeeping);
    let spelled = fields.return_token_strs == Some(true);
    let found = entity.provider().tokenize(call(fields)?).await?;
    let answer = Tokenized {
        count: found.tokens.len(),
        max_model_len: found.context_length,
        token_strs: spelled.then(|| found.tokens.iter().map(|token| token.spelling.clone()).collect()),
        tokens: found.tokens.iter().map(|token| token.id).collect(),
    };
    Ok(served_by_entity(entity, Json(answer).into_response()))
}

/// `POST .../detokenize`.
pub(super) async fn detokenize(State(app): State<App>, caller: Caller, body: JsonBody) -> Result<Response, ApiError> {
    let (endpoint, fields) = body.open_or_only(&app, &caller, None)?;
    let entity = endpoint.entity()?;
    let Request { fields, bookkeeping } = wire::tokenize::read::<DetokenizeFields>(fields)?;
    endpoint.record(&bookkeeping);
    let prompt = entity.provider().detokenize(fields.tokens).await?;
    Ok(served_by_entity(entity, Json(Detokenized { prompt }).into_response()))
}

/// What `GET .../tokenizer_info` can say in its URL.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InfoParameters {
    model: Option<String>,
}

/// `GET .../tokenizer_info`.
pub(super) async fn info(
    State(app): State<App>,
    caller: Caller,
    parameters: Result<UrlQuery<InfoParameters>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    let UrlQuery(parameters) =
        parameters.map_err(|rejection| ApiError::new(ErrorKind::BadRequest, rejection.body_text()))?;
    let endpoint = named_or_only(&app, &caller, parameters.model.as_deref(), None)?;
    let entity = endpoint.entity()?;
    let facts = entity.provider().tokenizer().await?;
    let answer = TokenizerDescription {
        // What the reference implementation itself calls a tokenizer of which it knows no more than its file.
        tokenizer_class: facts.class.unwrap_or_else(|| "PreTrainedTokenizerFast".to_owned()),
        special: facts.special.into_iter().collect(),
        chat_template: facts.template,
        model_max_length: facts.context_length,
        vocab_size: facts.vocab_size,
    };
    Ok(served_by_entity(entity, Json(answer).into_response()))
}

/// What to cut.
fn call(fields: TokenizeFields) -> Result<TokenizeCall, FieldError> {
    let special = fields.add_special_tokens != Some(false);
    match (fields.prompt, fields.messages) {
        (Some(text), None) => {
            let of_chat = [
                ("add_generation_prompt", fields.add_generation_prompt.is_some()),
                ("continue_final_message", fields.continue_final_message.is_some()),
                ("tools", fields.tools.is_some()),
            ];
            match of_chat.into_iter().find(|(_, given)| *given) {
                Some((field, _)) => Err(FieldError::conflict(field, "only a conversation has this: give `messages`")),
                None => Ok(TokenizeCall::Text { text, special }),
            }
        }
        (None, Some(messages)) => {
            let end = conversation_end(fields.add_generation_prompt, fields.continue_final_message)?;
            let messages = conversation::checked(messages)?;
            let functions = tools::functions(fields.tools.unwrap_or_default())?;
            Ok(TokenizeCall::Conversation { messages, functions, end, special })
        }
        (None, None) => Err(FieldError::Missing { field: "prompt".into() }),
        (Some(_), Some(_)) => {
            Err(FieldError::conflict("messages", "a text or a conversation is cut, so not with `prompt`"))
        }
    }
}

fn conversation_end(opens_answer: Option<bool>, continues: Option<bool>) -> Result<ConversationEnd, FieldError> {
    match (opens_answer, continues == Some(true)) {
        (Some(true), true) => {
            let problem = "an answer cannot both begin and go on, so not with `add_generation_prompt`: true";
            Err(FieldError::conflict("continue_final_message", problem))
        }
        (_, true) => Ok(ConversationEnd::LastMessage),
        (Some(false), false) => Ok(ConversationEnd::Closed),
        (Some(true) | None, false) => Ok(ConversationEnd::AnswerBegins),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::wire::parse_object;

    fn read(body: Value) -> Result<TokenizeCall, FieldError> {
        let object = parse_object(body.to_string().as_bytes()).unwrap();
        call(wire::tokenize::read::<TokenizeFields>(object)?.fields)
    }

    fn end(more: Value) -> Result<ConversationEnd, FieldError> {
        let mut body = json!({"messages": [{"role": "user", "content": "x"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        match read(body)? {
            TokenizeCall::Conversation { end, special: true, .. } => Ok(end),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_conversation_ends_as_it_is_asked_to() {
        assert_eq!(end(json!({})), Ok(ConversationEnd::AnswerBegins));
        assert_eq!(end(json!({"add_generation_prompt": true})), Ok(ConversationEnd::AnswerBegins));
        assert_eq!(end(json!({"add_generation_prompt": false})), Ok(ConversationEnd::Closed));
        assert_eq!(end(json!({"continue_final_message": true})), Ok(ConversationEnd::LastMessage));
        let both = end(json!({"continue_final_message": true, "add_generation_prompt": true})).unwrap_err();
        assert_eq!(both.field(), Some("continue_final_message"));
    }

    #[test]
    fn a_text_has_special_tokens_unless_they_are_not_wanted() {
        let text = |special| TokenizeCall::Text { text: "x".into(), special };
        assert_eq!(read(json!({"prompt": "x"})), Ok(text(true)));
        assert_eq!(read(json!({"prompt": "x", "add_special_tokens": false, "user": "u"})), Ok(text(false)));
    }

    #[test]
    fn what_is_refused_is_named() {
        let messages = json!([{"role": "user", "content": "x"}]);
        for (body, field) in [
            (json!({}), "prompt"),
            (json!({"prompt": "x", "messages": messages}), "messages"),
            (json!({"prompt": "x", "add_generation_prompt": false}), "add_generation_prompt"),
            (json!({"prompt": "x", "tools": []}), "tools"),
            (json!({"prompt": ["x"]}), "prompt"),
            (json!({"messages": messages, "tools": ["x"]}), "tools[0]"),
            (json!({"messages": messages, "chat_template": "x"}), "chat_template"),
            (json!({"messages": messages, "chat_template_kwargs": {"a": 1}}), "chat_template_kwargs"),
            (json!({"messages": []}), "messages"),
            (json!({"prompt": "x", "colour": 1}), "colour"),
        ] {
            let error = read(body.clone()).unwrap_err();
            assert_eq!(error.field(), Some(field), "{body}: {error}");
        }
    }
}
