//! The calls of later models of Mistral's (tokenizers from version 11 on): `[TOOL_CALLS]name[ARGS]{...}` for each, with
//! `[CALL_ID]` and an id in front of `[ARGS]` in some.

use super::parser::Syntax;
use super::{Layout, OpenerPlace, Shape, ToolFormat};

pub(super) const FORMAT: ToolFormat = ToolFormat {
    name: "mistral-args",
    recognises: |template| template.contains("[TOOL_CALLS]") && template.contains("[ARGS]"),
    syntax: Syntax {
        opener: "[TOOL_CALLS]",
        closer: None,
        shape: Shape::Named { id: "[CALL_ID]", arguments: "[ARGS]" },
        tagged: false,
        bare: false,
        lists: false,
        separators: "",
        pythonic: false,
    },
    layout: Layout { opening: "", opener: OpenerPlace::EachCall, between: "", closing: "" },
    short_ids: true,
};
