//! Chat templates against jinja2 under Hugging Face's settings (`scripts/make-template-goldens`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hearth_engine::text::{ChatTemplate, Clock, Conversation, TemplateTokens, TextError};
use hearth_tests::further;
use serde_json::Value;

fn clock() -> Clock {
    Arc::new(|| jiff::civil::date(2024, 7, 26).at(9, 5, 0, 0).to_zoned(jiff::tz::TimeZone::UTC).unwrap())
}

fn render(source: &str, tokens: &Value, conversation: &Value) -> Result<String, TextError> {
    let token = |name: &str| tokens[name].as_str().map(str::to_owned);
    let tokens = TemplateTokens { bos: token("bos_token"), eos: token("eos_token"), ..TemplateTokens::default() };
    ChatTemplate::with_clock(source, tokens, clock())?.render(&Conversation {
        messages: conversation["messages"].as_array().unwrap(),
        tools: conversation["tools"].as_array().map(Vec::as_slice),
        add_generation_prompt: conversation["add_generation_prompt"].as_bool().unwrap_or(false),
        ..Conversation::default()
    })
}

/// Where a template renders as something else, and will until the engine changes:
/// - a `Markup` of Jinja (`|safe`) escapes for HTML what is added to it, here it is a string like any other;
/// - an empty list sliced backwards is an error here, and no conversation without messages gets so far.
const KNOWN: [(&str, &str); 4] = [
    ("meetkai-functionary-medium-v3.1.jinja", "tools"),
    ("meetkai-functionary-medium-v3.1.jinja", "tool call"),
    ("meetkai-functionary-medium-v3.1.jinja", "tool call without a name or text"),
    ("Reka-Edge.jinja", "nobody"),
];

/// What Python refuses and the engine does: to run over none as over an empty list, to write what a filter yields.
const REFUSED_BY_PYTHON: [&str; 2] =
    ["'NoneType' object is not iterable", "Object of type generator is not JSON serializable"];

/// What differs, a line a case; and how many cases there were.
fn differences(templates: &Path, goldens: &Path) -> (Vec<String>, usize) {
    let goldens: Value = serde_json::from_slice(&std::fs::read(goldens).unwrap()).unwrap();
    let mut differences = Vec::new();
    let cases = goldens["cases"].as_array().unwrap();
    for case in cases {
        let file = case["template"].as_str().unwrap();
        let source = std::fs::read_to_string(templates.join(file)).unwrap();
        let expected = &case["expected"];
        let rendered = render(&source, &goldens["tokens"], &case["conversation"]);
        let same = match (&rendered, expected["text"].as_str(), expected["error"].as_str()) {
            (Ok(text), Some(expected), _) => text == expected,
            // A template's own refusal comes in its own words; other failures need only fail.
            (Err(TextError::Template { message }), None, Some("TemplateError")) => {
                Some(message.as_str()) == expected["message"].as_str()
            }
            (Err(TextError::Template { .. }), None, Some(_)) => true,
            (Ok(_), None, Some("TypeError")) => REFUSED_BY_PYTHON.iter().any(|one| expected["message"] == *one),
            _ => false,
        };
        if !same && !KNOWN.contains(&(file, case["name"].as_str().unwrap_or_default())) {
            differences.push(format!("{file}, {}:\n  {rendered:?}\n  {expected}", case["name"]));
        }
    }
    (differences, cases.len())
}

#[test]
fn templates_render_as_the_reference_does() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../crates/engine/tests/fixtures/templates");
    let (differences, cases) = differences(&folder, &folder.join("goldens.json"));
    assert!(cases >= 35, "only {cases} cases");
    assert!(differences.is_empty(), "{} of {cases} differ:\n{}", differences.len(), differences.join("\n"));
}

/// A folder of templates with a `goldens.json`, such as llama.cpp's collection (`models/templates` of its source) after
/// `scripts/make-template-goldens --templates DIR`.
#[test]
fn a_collection_renders_as_the_reference_does() {
    let Some(folder) = std::env::var_os("HEARTH_TEST_TEMPLATES").map(PathBuf::from) else {
        return further(
            "HEARTH_TEST_TEMPLATES, a folder of templates that `scripts/make-template-goldens` has rendered",
        );
    };
    let (differences, cases) = differences(&folder, &folder.join("goldens.json"));
    assert!(cases > 0, "no cases");
    assert!(differences.is_empty(), "{} of {cases} differ:\n{}", differences.len(), differences.join("\n"));
}
