//! The calls of Llama 3.1, 3.2 and 3.3: a JSON object by itself, behind `<|python_tag|>` or not, several with `;` between
//! them; `name.call(key="value")` for the tools they were trained with; or a Python list of calls.
//!
//! Templates ask for the first, and `required` calls are written so; but these models were trained on the others too, and a
//! template cannot keep them from it. So each form is held to the schemas from where it has begun: to forbid them would forbid
//! text that only looks alike, and to let them pass would let out calls that are not valid.

use super::parser::Syntax;
use super::{Layout, OpenerPlace, Shape, ToolFormat};

pub(super) const FORMAT: ToolFormat = ToolFormat {
    name: "llama",
    recognises: |template| template.contains(r#"{"name": function name, "parameters": "#),
    syntax: Syntax {
        opener: "<|python_tag|>",
        closer: None,
        shape: Shape::Object { arguments: "parameters" },
        tagged: false,
        bare: true,
        lists: true,
        separators: ";,",
        pythonic: true,
    },
    layout: Layout { opening: "", opener: OpenerPlace::Nowhere, between: "; ", closing: "" },
    short_ids: false,
};
