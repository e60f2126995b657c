//! Answers of any text in which what has begun as a call goes on as one.
//!
//! Owns where a call begins: an expression that ends there is the trigger. Before it nothing is held to anything.

use super::super::{Function, OpenerPlace, Shape};
use super::{ID, Offer, Rules, SPACE, escaped};

/// White space in front of what shows a call: text may have any amount of it.
const BLANK: &str = r"[ \t\n\r]*";
/// Any text.
const ANY: &str = r"(.|\n)*";

impl Rules<'_> {
    /// Any text, in which an object that begins like a call is one. Returns the trigger.
    pub(super) fn unannounced(&mut self, offer: Offer<'_>) -> String {
        for (index, function) in offer.functions.iter().enumerate() {
            let head = object_head(&function.name);
            self.rule(&format!("begin_{index}[lazy]"), &format!("/{ANY}{head}/"));
            // A function that takes nothing may be called without arguments.
            let nothing = if takes_nothing(function) { " | END" } else { "" };
            self.rule(&format!("call_{index}"), &format!("begin_{index} (ARGUMENTS args_{index} END{nothing})"));
        }
        self.any("call", "call", offer);
        let opener = self.special(self.format.syntax.opener);
        let tag = opener.map(|id| format!("(TEXT? <[{id}]>)?")).unwrap_or_default();
        let mut items = vec![format!("{tag} call")];
        let names = names(offer);
        let mut triggers = vec![object_head(&format!("({names})"))];
        if self.format.syntax.pythonic {
            items.extend([format!("{tag} list"), "single".to_owned()]);
            triggers.extend(self.pythonic_items(offer, &names));
        }
        let start = match offer.parallel {
            true => format!("({})* {tag} TEXT?", items.join(" | ")),
            // Behind the only call, what closes a list or a fence that stands in front of it.
            false => format!("{tag} TEXT? | ({}) CLOSE?", items.join(" | ")),
        };
        self.rule("start", &start);
        self.rule("ARGUMENTS", &format!("/{}/", before_arguments()));
        self.terminals(r"\}");
        self.rule("CLOSE", &format!("/{SPACE}(\\]{SPACE})?(```)?/"));
        format!("{ANY}({})", triggers.join("|"))
    }

    /// Any text, and calls behind what announces them. Returns the trigger, if it is a text and no token.
    pub(super) fn announced(&mut self, offer: Offer<'_>) -> Option<String> {
        for (index, function) in offer.functions.iter().enumerate() {
            let object = match self.format.syntax.shape {
                Shape::Object { .. } => {
                    let head = format!(r#"\{{{SPACE}"name"{SPACE}:{SPACE}"{}"{}"#, function.name, before_arguments());
                    self.rule(&format!("head_{index}"), &format!("/{SPACE}{head}/"));
                    format!("head_{index} args_{index} END")
                }
                Shape::Named { .. } => self.named_call(index, function),
            };
            self.rule(&format!("object_{index}"), &object);
        }
        self.any("object", "object", offer);
        let (opener, closer) = (self.format.syntax.opener, self.format.syntax.closer);
        let (announcement, trigger) = match self.special(opener) {
            Some(id) => (format!("TEXT? <[{id}]>"), None),
            None => {
                let trigger = format!("{ANY}{}", escaped(opener));
                self.rule("begin[lazy]", &format!("/{trigger}/"));
                ("begin".to_owned(), Some(trigger))
            }
        };
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
        self.terminals(&format!(r#"(,{SPACE}"id"{SPACE}:{SPACE}"{}"{SPACE})?\}}"#, ID.trim_matches('/')));
        self.rule("OPEN", &format!("/{SPACE}\\[/"));
        self.rule("COMMA", &format!("/{SPACE},/"));
        self.rule("CLOSE", &format!("/{SPACE}\\]/"));
        trigger
    }

    /// A list of calls as in Python, and one by itself behind the opener. Returns where these begin.
    fn pythonic_items(&mut self, offer: Offer<'_>, names: &str) -> Vec<String> {
        let opener = self.special(self.format.syntax.opener);
        let text = escaped(self.format.syntax.opener);
        for (index, function) in offer.functions.iter().enumerate() {
            let call = call_head(&function.name);
            self.python_arguments(index, function);
            let ends = format!("python_{index} PYTHON_END");
            self.rule(&format!("list_begin_{index}[lazy]"), &format!("/{ANY}\\[{BLANK}{call}/"));
            self.rule(&format!("list_first_{index}"), &format!("list_begin_{index} {ends}"));
            self.rule(&format!("list_call_{index}"), &format!("/{SPACE}{call}/ {ends}"));
            let before = if opener.is_some() { String::new() } else { format!("{ANY}{text}") };
            self.rule(&format!("single_begin_{index}[lazy]"), &format!("/{before}{BLANK}{call}/"));
            self.rule(&format!("single_call_{index}"), &format!("single_begin_{index} {ends}"));
        }
        for name in ["list_first", "list_call", "single_call"] {
            self.any(name, name, offer);
        }
        let more = if offer.parallel { "(PYTHON_COMMA list_call)*" } else { "" };
        self.rule("list", &format!("list_first {more} PYTHON_CLOSE"));
        let tag = opener.map(|id| format!("TEXT? <[{id}]> ")).unwrap_or_default();
        self.rule("single", &format!("{tag}single_call"));
        self.rule("PYTHON_END", &format!("/{SPACE}\\)/"));
        self.rule("PYTHON_COMMA", &format!("/{SPACE},/"));
        self.rule("PYTHON_CLOSE", &format!("/{SPACE}\\]/"));
        let call = call_head(&format!("({names})"));
        // Behind an opener that is a token, text is looked at anyway.
        let single = opener.is_none().then(|| format!("{text}{BLANK}{call}"));
        [Some(format!("\\[{BLANK}{call}")), single].into_iter().flatten().collect()
    }

    fn terminals(&mut self, end: &str) {
        self.rule("TEXT", r"/(.|\n)+/");
        self.rule("SPACE", r"/[ \t\n\r]{1,20}/");
        self.rule("END", &format!("/{SPACE}{end}/"));
    }
}

/// The beginning of a call that nothing announces, up to its name, as an expression. Names have no character that means
/// something in one.
fn object_head(name: &str) -> String {
    let text = r#""([^"\\\x00-\x1f]|\\.)*""#;
    let other = format!(r#""(type|id)"{BLANK}:{BLANK}{text}{BLANK},{BLANK}"#);
    format!(r#"\{{{BLANK}({other})*"name"{BLANK}:{BLANK}"{name}""#)
}

/// What stands between the name and the arguments, as an expression.
fn before_arguments() -> String {
    format!(r#"{SPACE},{SPACE}"(arguments|parameters)"{SPACE}:{SPACE}"#)
}

/// A call as in Python, up to its arguments.
fn call_head(name: &str) -> String {
    format!(r"{name}(\.call)?\(")
}

fn names(offer: Offer<'_>) -> String {
    offer.functions.iter().map(|function| function.name.as_str()).collect::<Vec<_>>().join("|")
}

/// Whether a function can be called without arguments, as far as is seen at once.
pub(super) fn takes_nothing(function: &Function) -> bool {
    let demands = ["$ref", "allOf", "anyOf", "oneOf", "enum", "const", "minProperties"];
    let required = function.parameters.get("required").and_then(serde_json::Value::as_array);
    required.is_none_or(Vec::is_empty) && !demands.iter().any(|word| function.parameters.get(word).is_some())
}
