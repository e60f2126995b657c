//! Mistral's and Mixtral's calls: a JSON list behind `[TOOL_CALLS]`.

use super::parser::Syntax;
use super::{Layout, OpenerPlace, Shape, ToolFormat};

pub(super) const FORMAT: ToolFormat = ToolFormat {
    name: "mistral",
    recognises: |template| template.contains("[TOOL_CALLS]"),
    syntax: Syntax {
        opener: "[TOOL_CALLS]",
        closer: None,
        shape: Shape::Object { arguments: "arguments" },
        tagged: false,
        bare: false,
        lists: true,
        separators: ",",
        pythonic: false,
    },
    layout: Layout { opening: "[", opener: OpenerPlace::Once, between: ", ", closing: "]" },
    short_ids: true,
};
