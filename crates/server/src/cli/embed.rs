//! `hearth embed`: texts to vectors, one JSON array a line.

use std::io::{IsTerminal, stdin};

use anyhow::{Context, Result, bail};
use hearth_engine::serve::LoadedModel;
use hearth_engine::text::SpecialTokens;

use super::load::{LoadArguments, load};
use super::terminal::answer;

/// Texts computed together; bounds what is held in memory when a long list is piped in.
const GROUP: usize = 256;

/// Arguments of `hearth embed`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Catalogue name, folder, or hub id
    model: String,
    /// Texts [default: the lines of stdin]
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    /// Text put before each text, such as a retrieval instruction
    #[arg(long)]
    instruction: Option<String>,
    #[command(flatten)]
    load: LoadArguments,
}

/// Embeds each text and prints its vector.
pub(super) fn main(arguments: &Arguments) -> Result<()> {
    if arguments.texts.is_empty() && stdin().is_terminal() {
        bail!("no text given: name some after the model, or pipe lines in");
    }
    let model = &arguments.model;
    let encoder = match load(model, &arguments.load.options())? {
        LoadedModel::Encoder(encoder) => encoder,
        LoadedModel::Decoder(_) => bail!("{model} generates text and does not embed: use `hearth run {model}`"),
        LoadedModel::Reranker(_) => bail!("{model} ranks documents and does not embed: use `hearth serve`"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut before = 0;
    let mut lines: Box<dyn Iterator<Item = std::io::Result<String>>> = match arguments.texts.is_empty() {
        true => Box::new(stdin().lines()),
        false => Box::new(arguments.texts.iter().cloned().map(Ok)),
    };
    loop {
        let texts = lines.by_ref().take(GROUP).collect::<std::io::Result<Vec<_>>>()?;
        if texts.is_empty() {
            return Ok(());
        }
        let instruction = arguments.instruction.as_deref().unwrap_or_default();
        let encode = |text: &String| encoder.tokenizer().encode(&format!("{instruction}{text}"), SpecialTokens::Add);
        let tokens = texts.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let place = || format!("in the {} texts after the first {before}", texts.len());
        encoder.check(&tokens).with_context(place)?;
        before += texts.len();
        for embedding in runtime.block_on(encoder.submit(tokens)?)? {
            answer(&format!("{}\n", serde_json::to_string(&embedding)?))?;
        }
    }
}
