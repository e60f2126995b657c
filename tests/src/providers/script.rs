//! What the assistant behind every stub says: the same for the same conversation, whatever wire it comes over.

/// What was asked, whatever wire it came over.
#[derive(Debug, Default, Clone)]
pub(super) struct Asked {
    pub(super) model: String,
    pub(super) stream: bool,
    pub(super) choices: usize,
    /// The user's last text; without, results of calls come last.
    pub(super) text: Option<String>,
    /// Results of calls, in order.
    pub(super) results: Vec<String>,
    /// Functions that may be called.
    pub(super) tools: Vec<String>,
    /// Whether one has to be.
    pub(super) must_call: bool,
    /// Whether the answer is JSON.
    pub(super) json: bool,
    /// Images in the conversation, as the wire has them.
    pub(super) images: Vec<String>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Stop,
    Length,
    Calls,
    Refusal,
}

/// One call.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) id: String,
    pub(super) name: String,
    /// JSON.
    pub(super) arguments: String,
}

/// One answer.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) text: String,
    pub(super) calls: Vec<Call>,
    pub(super) end: End,
}

/// Tokens of every prompt, of which some came from the cache and some went there.
pub(super) const PROMPT: usize = 20;
/// Those from the cache.
pub(super) const CACHED: usize = 5;
/// Those that went there.
pub(super) const CREATED: usize = 3;

impl Reply {
    /// Tokens of the answer.
    pub(super) fn tokens(&self) -> usize {
        self.text.len() + self.calls.len()
    }

    /// The text in pieces.
    pub(super) fn pieces(&self) -> Vec<String> {
        pieces(&self.text)
    }
}

/// A text in pieces of a few characters.
pub(super) fn pieces(text: &str) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    letters.chunks(5).map(|piece| piece.iter().collect()).collect()
}

/// The answer.
pub(super) fn reply(asked: &Asked) -> Reply {
    let said = |text: String, end| Reply { text, calls: Vec::new(), end };
    let Some(text) = &asked.text else {
        return said(format!("It is {}.", asked.results.join(" and ")), End::Stop);
    };
    if !asked.images.is_empty() {
        return said(format!("I see {}.", asked.images.join(", ")), End::Stop);
    }
    if asked.json {
        return said("{\"answer\": 42}".to_owned(), End::Stop);
    }
    let called = |tool: &str| asked.tools.iter().any(|name| name == tool);
    let mut calls = Vec::new();
    let mut call = |name: &str, arguments: String| {
        let id = format!("call_{}", calls.len() + 1);
        calls.push(Call { id, name: name.to_owned(), arguments });
    };
    if called("get_weather") {
        for city in ["Paris", "Rome"].into_iter().filter(|city| text.contains(city)) {
            call("get_weather", format!("{{\"city\": \"{city}\", \"unit\": \"celsius\"}}"));
        }
    }
    if called("now") && (text.contains("time") || asked.must_call) {
        call("now", "{}".to_owned());
    }
    match text.as_str() {
        text if asked.model == "judge" => {
            said(if text.contains("bomb") { "\n\nunsafe\nS9" } else { "\n\nsafe" }.to_owned(), End::Stop)
        }
        _ if !calls.is_empty() => Reply { text: "Let me see. ".to_owned(), calls, end: End::Calls },
        "refuse" => said("I would".to_owned(), End::Refusal),
        "long" => said("a long answ".to_owned(), End::Length),
        "nothing" => said(String::new(), End::Stop),
        text => said(format!("You said: {text}"), End::Stop),
    }
}
