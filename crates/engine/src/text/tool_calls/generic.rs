//! The calls of models that were trained for none: JSON objects, one a line, as the prompt asks for them. Such a model may
//! put them into a list or between code fences, and is understood.

use super::parser::Syntax;
use super::{Layout, OpenerPlace, Shape, ToolFormat};

pub(super) const FORMAT: ToolFormat = ToolFormat {
    name: "generic",
    recognises: |_| true,
    syntax: Syntax {
        opener: "```",
        closer: Some("```"),
        shape: Shape::Object { arguments: "arguments" },
        tagged: true,
        bare: true,
        lists: true,
        separators: ";,",
        pythonic: false,
    },
    layout: Layout { opening: "", opener: OpenerPlace::Nowhere, between: "\n", closing: "" },
    short_ids: false,
};

/// What the prompt says about calls, in front of the functions' descriptions, one a line. `<call>` is how one is written.
pub(super) const INSTRUCTIONS: &str = "\
You can call functions to help you answer. To call one, answer with nothing but this, once for each call:
<call>
The result of each call comes back to you in the next message. If no function helps, answer in plain words.

The functions, with JSON schemas of their arguments:";
