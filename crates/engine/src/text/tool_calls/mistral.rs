//! Mistral's and Mixtral's calls: a JSON list behind `[TOOL_CALLS]`.

use super::parser::Syntax;
use super::{Layout, OpenerPlace, ToolFormat};

pub(super) const FORMAT: ToolFormat = ToolFormat {
    name: "mistral",
    // Later models write `[TOOL_CALLS]name[ARGS]{...}`.
    recognises: |template| template.contains("[TOOL_CALLS]") && !template.contains("[ARGS]"),
    syntax: Syntax {
        opener: "[TOOL_CALLS]",
        closer: None,
        tagged: false,
        bare: false,
        lists: true,
        separators: ",",
        pythonic: false,
    },
    layout: Layout { opening: "[", opener: OpenerPlace::Once, between: ", ", closing: "]", arguments: "arguments" },
    short_ids: true,
};
