//! What callers see of guarded answers, against what they would see of whole ones.

use std::sync::Weak;
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::json::each_text;
use super::*;
use crate::providers::{Answer, AnswerEvent, CallDelta, ChatCall, Delta, Generation};
use crate::wire::options::{FinishReason, Usage};

fn guardrails(fields: Value) -> Arc<Guardrails> {
    Guardrails::of(&serde_json::from_value(fields).unwrap(), &Weak::new()).unwrap()
}

fn masking() -> Arc<Guardrails> {
    guardrails(json!({"output": {"pii": {"behavior": "MASK"}}}))
}

/// A call with those fields.
fn call(given: Value) -> ChatCall {
    let Value::Object(given) = given else { panic!("an object") };
    let generation = Generation {
        sampling: hearth_sampler::SamplingRequest::default(),
        max_tokens: 10,
        choices: 1,
        deadline: None,
        grammar: None,
        given,
    };
    ChatCall { messages: vec![ChatMessage::text(Role::User, "hi")], tools: None, generation }
}

fn event(index: usize, delta: Delta) -> Result<AnswerEvent, ProviderError> {
    Ok(AnswerEvent::Delta { index, delta })
}

fn text(text: &str) -> Delta {
    Delta { text: text.to_owned(), ..Delta::default() }
}

fn finished(index: usize) -> Result<AnswerEvent, ProviderError> {
    Ok(AnswerEvent::Finished { index, reason: FinishReason::Stop, usage: Usage::new(3, 4) })
}

/// What the caller sees of those events.
fn watched(
    guardrails: &Arc<Guardrails>,
    events: Vec<Result<AnswerEvent, ProviderError>>,
) -> Vec<Result<AnswerEvent, ProviderError>> {
    let choices = 1 + events.iter().flatten().map(index).max().unwrap_or(0);
    let watch = Watch::of(guardrails, &call(json!({}))).unwrap().unwrap();
    let answer = watch.over(Answer { choices, events: stream::iter(events).boxed() });
    // Everything is there, so nothing is waited for.
    answer.events.collect::<Vec<_>>().now_or_never().unwrap()
}

fn index(event: &AnswerEvent) -> usize {
    match event {
        AnswerEvent::Echo { index, .. } | AnswerEvent::Delta { index, .. } | AnswerEvent::Finished { index, .. } => {
            *index
        }
    }
}

/// The texts of the choices, and how they have grown.
fn shown(events: &[Result<AnswerEvent, ProviderError>], choices: usize) -> (Vec<String>, Vec<(usize, String)>) {
    let (mut texts, mut growth) = (vec![String::new(); choices], Vec::new());
    for event in events {
        if let AnswerEvent::Echo { index, delta } | AnswerEvent::Delta { index, delta } = event.as_ref().unwrap() {
            texts[*index].push_str(&delta.text);
            growth.push((*index, texts[*index].clone()));
        }
    }
    (texts, growth)
}

/// What tells something about a person, whole and broken, and what is often around it.
fn piece() -> impl Strategy<Value = String> {
    const PERSONAL: &[&str] = &[
        "ann@example.org",
        "4111 1111 1111 1111",
        "5500-0000-0000-0004",
        "378282246310005",
        "DE89 3704 0044 0532 0130 00",
        "GB29NWBK60161331926819",
        "+49 30 1234567",
        "(415) 555-2671",
        "020 7946 0958",
        "192.168.0.1",
        "2001:db8::1",
        "536-90-4399",
        "01 23 45 67 89",
        "first.last+tag@sub.example.co.uk",
        "415-555-2671x9",
        "jörg@müller.de",
    ];
    const OTHERS: &[&str] = &[
        " ",
        ", ",
        ".",
        "\n",
        "\\n",
        "-",
        "a",
        "Hello",
        "version ",
        "1",
        "42",
        "(",
        "::",
        "@",
        "+",
        "ä",
        "电话",
        "\u{a0}",
        "/",
        "12 ",
        "std::vector",
        "1.2.3",
        "4111 1111",
        "DE89",
        "\"",
        "}",
        ": ",
        "x",
        "\u{301}",
    ];
    prop_oneof![
        2 => prop::sample::select(PERSONAL).prop_map(str::to_owned),
        4 => prop::sample::select(OTHERS).prop_map(str::to_owned),
        1 => "\\PC{0,4}",
        1 => "[0-9 .()+-]{1,12}",
    ]
}

fn texts() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..14).prop_map(|pieces| pieces.concat())
}

/// A text cut somewhere.
fn cut(text: &str, places: &[prop::sample::Index]) -> Vec<String> {
    let mut cuts: Vec<usize> =
        places.iter().map(|place| text.floor_char_boundary(place.index(text.len() + 1))).collect();
    cuts.extend([0, text.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| text[pair[0]..pair[1]].to_owned()).collect()
}

fn places() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_stream_is_the_masked_whole_however_it_is_cut(answers in prop::collection::vec((texts(), places()), 1..4)) {
        let guardrails = masking();
        let mut pieces: Vec<_> = answers.iter().map(|(text, places)| cut(text, places).into_iter()).collect();
        let mut events = Vec::new();
        // The choices take turns.
        loop {
            let round: Vec<_> = pieces.iter_mut().enumerate().filter_map(|(index, of)| Some((index, of.next()?))).collect();
            if round.is_empty() {
                break;
            }
            events.extend(round.into_iter().map(|(index, piece)| event(index, text(&piece))));
        }
        events.extend((0..answers.len()).map(finished));
        let (seen, growth) = shown(&watched(&guardrails, events), answers.len());
        for (seen, (whole, _)) in seen.iter().zip(&answers) {
            prop_assert_eq!(seen, &guardrails.output.masks().scan(whole).text);
        }
        for (index, so_far) in growth {
            prop_assert!(seen[index].starts_with(&so_far));
        }
    }

    #[test]
    fn a_stream_stops_before_a_keyword_however_it_is_cut(
        pieces in prop::collection::vec(
            prop_oneof![piece(), prop::sample::select(&["Falcon", "PROJECT", " titan", "falconry", " "][..]).prop_map(str::to_owned)], 0..12
        ),
        places in places(),
    ) {
        let guardrails = guardrails(json!({
            "output": {"pii": {"behavior": "MASK"}, "invalid_keywords": ["falcon", "project titan"]}
        }));
        let whole = pieces.concat();
        let mut events: Vec<_> = cut(&whole, &places).into_iter().map(|piece| event(0, text(&piece))).collect();
        events.push(finished(0));
        let mut events = watched(&guardrails, events);
        let scanned = guardrails.output.scanner.scan(&whole);
        let is_refused = events.pop_if(|event| event.is_err()).is_some();
        prop_assert_eq!(is_refused, scanned.keyword);
        let seen = shown(&events, 1).0.remove(0);
        prop_assert!(scanned.text.starts_with(&seen), "{:?} of {:?}", seen, scanned.text);
        prop_assert!(!guardrails.output.scanner.scan(&seen).keyword, "{}", seen);
        prop_assert!(is_refused || seen == scanned.text);
    }

    #[test]
    fn arguments_stay_json_with_the_masks_of_their_texts(value in arguments(), places in places(), ascii in any::<bool>()) {
        let guardrails = masking();
        let mut written = value.to_string();
        if ascii {
            written = written.chars().flat_map(|letter| match letter {
                letter if letter.is_ascii() => vec![letter],
                letter => letter.encode_utf16(&mut [0; 2]).iter().flat_map(|unit| format!("\\u{unit:04x}").chars().collect::<Vec<_>>()).collect(),
            }).collect();
        }
        let piece = |arguments: String| Delta {
            calls: vec![CallDelta { index: 0, begun: None, arguments }], ..Delta::default()
        };
        let mut events: Vec<_> = cut(&written, &places).into_iter().map(|cut| event(0, piece(cut))).collect();
        events.push(finished(0));
        let mut seen = String::new();
        for event in watched(&guardrails, events) {
            if let AnswerEvent::Delta { delta, .. } = event.unwrap() {
                seen.extend(delta.calls.into_iter().map(|call| call.arguments));
            }
        }
        let mut expected = value;
        each_text(&mut expected, &mut |text| *text = guardrails.output.masks().scan(text).text.into_owned());
        prop_assert_eq!(serde_json::from_str::<Value>(&seen).unwrap(), expected, "{}", written);
    }
}

/// Arguments of a call, with numbers that are cards and numbers that are none.
fn arguments() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        texts().prop_map(Value::from),
        Just(json!(4_111_111_111_111_111_u64)),
        any::<i32>().prop_map(Value::from),
        Just(json!(0.5)),
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z]{1,6}", inner), 0..4).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

#[test]
fn no_more_is_held_back_than_could_become_something() {
    let guardrails = masking();
    for (so_far, expected) in [
        ("Hello wor", "Hello "),
        ("Hello, ", "Hello, "),
        ("I paid 5 euros", "I paid 5 "),
        ("It has 10 ", "It has "),
        ("on 3 May ", "on 3 May "),
        ("Reach me at ann@example", "Reach me at "),
        ("Reach me at ann@example.org ", "Reach me at <EMAIL_ADDRESS> "),
        ("4111 1111 1111 1111, ", "<CREDIT_CARD>, "),
        ("Well... ", "Well... "),
    ] {
        let (seen, _) = shown(&watched(&guardrails, vec![event(0, text(so_far))]), 1);
        assert_eq!(seen[0], expected, "{so_far}");
    }
}

fn refusal(events: &[Result<AnswerEvent, ProviderError>]) -> Value {
    match events.last() {
        Some(Err(ProviderError::Guarded(document))) => serde_json::from_str(document).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_blocks_ends_the_answer_and_shows_nothing_of_it() {
    for (fields, personal, category) in [
        (json!({"pii": {"behavior": "BLOCK"}}), true, None),
        (json!({"invalid_keywords": ["ann"], "pii": {"behavior": "MASK"}}), false, Some("invalid_keywords")),
    ] {
        let guardrails = guardrails(json!({"output": fields}));
        let mut events: Vec<_> =
            "Write to ann@exa|mple.o|rg, she |waits".split('|').map(|cut| event(0, text(cut))).collect();
        events.push(finished(0));
        let events = watched(&guardrails, events);
        let document = refusal(&events);
        let verdict = &document["output_guardrail"][0];
        assert_eq!(document["finishReason"], "output_guardrail_triggered");
        assert_eq!((&verdict["pii_detection"], &verdict["flagged"]), (&json!(personal), &json!(category.is_some())));
        assert!(category.is_none_or(|category| verdict["categories"][category] == true), "{document}");
        assert!(!document.to_string().contains("ann"), "{document}");
        let (seen, _) = shown(&events[..events.len() - 1], 1);
        assert_eq!(seen[0], "Write to ");
    }
}

#[tokio::test]
async fn a_model_is_let_go_where_its_answer_is_cut_off() {
    let guardrails = guardrails(json!({"output": {"invalid_keywords": ["falcon"]}}));
    let (open, gone) = tokio::sync::oneshot::channel::<()>();
    let hanging = stream::once(async move {
        let _open = open;
        std::future::pending().await
    });
    let events = stream::iter([event(0, text("Project Falcon ")), event(0, text("is "))]).chain(hanging);
    let watch = Watch::of(&guardrails, &call(json!({}))).unwrap().unwrap();
    let mut events = watch.over(Answer { choices: 1, events: events.boxed() }).events;
    assert!(matches!(events.next().await, Some(Err(ProviderError::Guarded(_)))));
    // Before the rest of the answer is let go.
    assert!(tokio::time::timeout(Duration::from_secs(5), gone).await.is_ok());
    assert!(events.next().await.is_none());
}

#[test]
fn an_answer_goes_on_from_its_prompt() {
    let echo = Ok(AnswerEvent::Echo { index: 0, delta: text("Mail john@") });
    let events = watched(&masking(), vec![echo, event(0, text("example.org")), finished(0)]);
    assert_eq!(shown(&events, 1).0[0], "Mail <EMAIL_ADDRESS>");
}

#[test]
fn an_answer_that_is_json_stays_json() {
    let mut call = call(json!({}));
    let source = hearth_engine::text::grammar::GrammarSource::JsonObject;
    call.generation.grammar = Some(crate::providers::AskedGrammar { field: "response_format", source });
    let watch = Watch::of(&masking(), &call).unwrap().unwrap();
    let pieces = [r#"{"card": 411111111"#, r#"1111111, "mail": "ann\u0040exam"#, r#"ple.org\n"}"#];
    let mut events: Vec<_> = pieces.into_iter().map(|piece| event(0, text(piece))).collect();
    events.push(finished(0));
    let answer = watch.over(Answer { choices: 1, events: stream::iter(events).boxed() });
    let events: Vec<_> = answer.events.collect::<Vec<_>>().now_or_never().unwrap();
    assert_eq!(shown(&events, 1).0[0], r#"{"card": "<CREDIT_CARD>", "mail": "<EMAIL_ADDRESS>\n"}"#);
}

#[test]
fn single_tokens_are_not_shown_where_texts_are_looked_for() {
    let logprobs =
        |given: Value, fields: Value| Watch::of(&guardrails(json!({"output": fields})), &call(given)).map(|_| ());
    let masks = json!({"pii": {"behavior": "MASK"}});
    let error = logprobs(json!({"logprobs": true}), masks.clone()).unwrap_err();
    assert!(matches!(error, ProviderError::Invalid { field: Some(field), .. } if field == "logprobs"));
    assert!(logprobs(json!({"logprobs": 0}), json!({"invalid_keywords": ["a"]})).is_err());
    assert!(logprobs(json!({"logprobs": false}), masks).is_ok());
    assert!(logprobs(json!({"logprobs": true}), json!({"safety": true})).is_ok());
}

#[test]
fn what_is_kept_has_the_masks_of_its_side() {
    let guardrails = guardrails(json!({
        "input": {"pii": {"behavior": "BLOCK"}, "invalid_keywords": ["mail"]}, "output": {"invalid_keywords": ["x"]}
    }));
    let text = "mail ann@example.org";
    assert_eq!(guardrails.input.masks().scan(text).text, "mail <EMAIL_ADDRESS>");
    assert_eq!(guardrails.output.masks().scan(text).text, text);
}

#[test]
fn nothing_to_guard_is_no_guardrail() {
    for fields in [
        json!({}),
        json!({"input": {}, "output": {"pii": {"behavior": "NONE"}, "invalid_keywords": [], "valid_topics": [], "safety": false}}),
    ] {
        assert!(Guardrails::of(&serde_json::from_value(fields).unwrap(), &Weak::new()).is_none());
    }
}

/// What is searched again and again comes to an end all the same.
#[test]
fn long_rows_of_what_is_almost_something_are_searched() {
    let guardrails =
        guardrails(json!({"input": {"pii": {"behavior": "MASK"}, "invalid_keywords": ["aa b", "project titan"]}}));
    let prose =
        "On 3 May 2024 at 10:15 the committee met in room 12; Ann (ann@example.org) said that 415-555-2671 is old. ";
    for (piece, personal) in [
        (prose, 2),
        ("1 ", 0),
        ("a.", 0),
        ("4111 1111 1111 1112 ", 0),
        ("a", 0),
        ("ab:cd:", 0),
        ("415-555-", 0),
        ("aa ", 0),
    ] {
        let count = 20_000 / piece.len();
        assert_eq!(guardrails.input.scanner.scan(&piece.repeat(count)).labels.len(), personal * count, "{piece}");
    }
}
