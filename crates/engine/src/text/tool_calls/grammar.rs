//! The grammar of an answer that may call functions: what constrained decoding holds the model to.
//!
//! Owns how a format's calls are told in the Lark notation of the `llguidance` crate. Compiles nothing.

use super::super::Tokenizer;
use super::super::grammar::{GrammarError, GrammarSource};
use super::{Function, OpenerPlace, ToolFormat};

/// White space of JSON, as little or as much as the model likes.
const SPACE: &str = r"[ \t\n\r]{0,20}";

/// What an answer may call, and what it must.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// The functions, at least one.
    pub functions: &'a [Function],
    /// The answer is nothing but calls. Otherwise it may be anything, and what has begun as a call goes on as one.
    pub required: bool,
    /// There may be more than one call.
    pub parallel: bool,
}

impl ToolFormat {
    /// The grammar of answers in this format. The tokenizer says which marks are tokens of their own.
    ///
    /// # Errors
    /// Which function, by its place among them, has a schema that cannot be honoured, and why.
    pub fn grammar(&self, offer: Offer<'_>, tokenizer: &Tokenizer) -> Result<GrammarSource, (usize, GrammarError)> {
        let mut rules = Rules { format: self, tokenizer, text: String::new() };
        for (index, function) in offer.functions.iter().enumerate() {
            let schema = GrammarSource::embedded(&function.parameters, function.strict);
            let schema = schema.map_err(|error| (index, error))?;
            rules.rule(&format!("args_{index}"), &format!("%json {schema}"));
        }
        match (offer.required, self.layout.opener) {
            (true, _) => rules.required(offer),
            (false, OpenerPlace::Nowhere) => rules.unannounced(offer),
            (false, _) => rules.announced(offer),
        }
        Ok(GrammarSource::Lark(rules.text))
    }
}

/// The rules of one grammar.
struct Rules<'a> {
    format: &'a ToolFormat,
    tokenizer: &'a Tokenizer,
    text: String,
}

impl Rules<'_> {
    fn rule(&mut self, name: &str, body: &str) {
        self.text.extend([name, ": ", body, "\n"]);
    }

    /// `name` is one of several rules, one a function.
    fn any(&mut self, name: &str, each: &str, offer: Offer<'_>) {
        let each: Vec<String> = (0..offer.functions.len()).map(|index| format!("{each}_{index}")).collect();
        self.rule(name, &each.join(" | "));
    }

    /// An opener or closer: its token if it is a special one, which no text is, and else its text.
    fn mark(&self, text: &str) -> String {
        match self.special(text) {
            Some(id) => format!("<[{id}]>"),
            None => quoted(text),
        }
    }

    fn special(&self, text: &str) -> Option<u32> {
        self.tokenizer.id_of(text).filter(|id| self.tokenizer.is_special(*id))
    }

    /// Nothing but calls, written as the prompt shows them.
    fn required(&mut self, offer: Offer<'_>) {
        let (layout, syntax) = (self.format.layout, self.format.syntax);
        let opener = format!("{} ", self.mark(syntax.opener));
        let closer = syntax.closer.map(|closer| format!(" {}", self.mark(closer))).unwrap_or_default();
        let (opening, closing) = (quoted_or_none(layout.opening), quoted_or_none(layout.closing));
        for (index, function) in offer.functions.iter().enumerate() {
            let head = quoted(&format!(r#"{{"name": "{}", "{}": "#, function.name, layout.arguments));
            let object = format!(r#"{head} args_{index} "}}""#);
            let call = match layout.opener {
                OpenerPlace::EachCall => format!("{opener} {opening} {object} {closing} {closer}"),
                OpenerPlace::Once | OpenerPlace::Nowhere => object,
            };
            self.rule(&format!("call_{index}"), &call);
        }
        self.any("call", "call", offer);
        let more = if offer.parallel { format!("({} call)*", quoted(layout.between)) } else { String::new() };
        let start = match layout.opener {
            // Whether a space stands behind the opener is the vocabulary's to say.
            OpenerPlace::Once => format!(r#"{opener} " "? {opening} call {more} {closing}"#),
            OpenerPlace::EachCall | OpenerPlace::Nowhere => format!("call {more}"),
        };
        self.rule("start", &start);
    }

    /// Any text, in which an object that begins like a call is one.
    fn unannounced(&mut self, offer: Offer<'_>) {
        for (index, function) in offer.functions.iter().enumerate() {
            let head = format!(r"(.|\n)*{}", head(&function.name, true));
            self.rule(&format!("begin_{index}[lazy]"), &format!("/{head}/"));
            self.rule(&format!("call_{index}"), &format!("begin_{index} SPACE? args_{index} END"));
        }
        self.any("call", "call", offer);
        let opener = self.special(self.format.syntax.opener);
        let tag = opener.map(|id| format!("(TEXT? <[{id}]>)?")).unwrap_or_default();
        let start = match offer.parallel {
            true => format!("({tag} call)* {tag} TEXT?"),
            // Behind the only call, what closes a list or a fence that stands in front of it.
            false => format!("{tag} TEXT? | {tag} call CLOSE?"),
        };
        self.rule("start", &start);
        self.terminals(r"\}");
        self.rule("CLOSE", &format!("/{SPACE}(\\]{SPACE})?(```)?/"));
    }

    /// Any text, and calls behind what announces them.
    fn announced(&mut self, offer: Offer<'_>) {
        for (index, function) in offer.functions.iter().enumerate() {
            self.rule(&format!("head_{index}"), &format!("/{SPACE}{}{SPACE}/", head(&function.name, false)));
            self.rule(&format!("object_{index}"), &format!("head_{index} args_{index} END"));
        }
        self.any("object", "object", offer);
        let (opener, closer) = (self.format.syntax.opener, self.format.syntax.closer);
        let announcement = match self.special(opener) {
            Some(id) => format!("TEXT? <[{id}]>"),
            None => "begin".to_owned(),
        };
        if announcement == "begin" {
            self.rule("begin[lazy]", &format!(r"/(.|\n)*{}/", escaped(opener)));
        }
        let more = if offer.parallel { "(COMMA object)*" } else { "" };
        let call = match (self.format.layout.opener, closer) {
            (OpenerPlace::Once, _) => format!("{announcement} OPEN object {more} CLOSE"),
            (_, Some(closer)) => format!("{announcement} object SPACE? {}", self.mark(closer)),
            (_, None) => format!("{announcement} object"),
        };
        self.rule("call", &call);
        let many = offer.parallel && self.format.layout.opener == OpenerPlace::EachCall;
        self.rule("start", if many { "call* TEXT?" } else { "TEXT? | call" });
        // Some models write an id into each call.
        self.terminals(&format!(r#"(,{SPACE}"id"{SPACE}:{SPACE}"[a-zA-Z0-9]{{1,64}}"{SPACE})?\}}"#));
        self.rule("OPEN", &format!("/{SPACE}\\[/"));
        self.rule("COMMA", &format!("/{SPACE},/"));
        self.rule("CLOSE", &format!("/{SPACE}\\]/"));
    }

    fn terminals(&mut self, end: &str) {
        self.rule("TEXT", r"/(.|\n)+/");
        self.rule("SPACE", r"/[ \t\n\r]{1,20}/");
        self.rule("END", &format!("/{SPACE}{end}/"));
    }
}

/// The beginning of a call up to its arguments, as an expression. Names have no character that means something in one.
fn head(name: &str, typed: bool) -> String {
    let kind = format!(r#"("type"{SPACE}:{SPACE}"function"{SPACE},{SPACE})?"#);
    let kind = if typed { kind.as_str() } else { "" };
    format!(r#"\{{{SPACE}{kind}"name"{SPACE}:{SPACE}"{name}"{SPACE},{SPACE}"(arguments|parameters)"{SPACE}:"#)
}

fn escaped(text: &str) -> String {
    let special = |c: char| r"\.+*?()|[]{}^$/".contains(c);
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

/// A text as the Lark notation quotes it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The same; nothing for an empty one.
fn quoted_or_none(text: &str) -> String {
    if text.is_empty() { String::new() } else { quoted(text) }
}
