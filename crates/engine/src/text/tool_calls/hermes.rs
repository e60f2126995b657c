//! The calls of Hermes and of most models that speak ChatML: a JSON object in `<tool_call>` and `</tool_call>`.

use super::parser::Syntax;
use super::{Layout, OpenerPlace, Shape, ToolFormat};

pub(super) const FORMAT: ToolFormat = ToolFormat {
    name: "hermes",
    // Others put something else than JSON into the same tags.
    recognises: |template| {
        template.contains("<tool_call>") && !["<function=", "<arg_key>"].iter().any(|other| template.contains(other))
    },
    syntax: Syntax {
        opener: "<tool_call>",
        closer: Some("</tool_call>"),
        shape: Shape::Object { arguments: "arguments" },
        tagged: false,
        bare: false,
        lists: false,
        separators: "",
        pythonic: false,
    },
    layout: Layout { opening: "\n", opener: OpenerPlace::EachCall, between: "\n", closing: "\n" },
    short_ids: false,
};
