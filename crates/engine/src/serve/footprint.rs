//! What a model needs in memory, as a sum that is known before anything is loaded: from the headers of its files, or from its
//! catalogue card.
//!
//! Owns the arithmetic and the refusal; must not know how much memory there is. It is told.

use std::fmt;
use std::iter::Sum;
use std::path::Path;

use hearth_kernels::Format;
use serde_json::Value;

use super::LoadOptions;
use super::loader::DEVICE_TOKENS;
use crate::checkpoint::{Checkpoint, outline};
use crate::error::Error;
use crate::hub::{Card, Source};
use crate::kv::{KvLayout, KvType};
use crate::memory::Bytes;
use crate::models::{Architecture, Blueprint, DecoderShape, EncoderShape, Shape};
use crate::run::LOGIT_ROWS;
use crate::weights::{QuantScheme, TensorOutline};

/// Token slots in a block of the cache.
pub(super) const BLOCK_SIZE: usize = 16;

/// Full contexts that a cache holds where nothing is asked and memory is plenty.
const CONTEXTS: u64 = 4;

/// A model is refused where its cache could not hold a sequence of so many tokens, or of its whole context where that is
/// shorter: models of today announce contexts that are larger in memory than their weights, and hardly any prompt is.
const LEAST_CONTEXT: usize = 8192;

/// The program itself, its threads and buffers.
const PROGRAM: u64 = 32 << 20;

/// What a tokenizer takes for each token it knows: its text, in two tables and a merge rule.
const TOKENIZER_BYTES: usize = 600;

/// Bytes of a number in f32.
const NUMBER: usize = size_of::<f32>();

/// Bytes in memory, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// The weights in the format they are used in. Those that are mapped count too: they are read again and again.
    pub weights: u64,
    /// Keys and values; none for encoders.
    pub cache: u64,
    /// What one step computes with, tables and tokenizer, and the program.
    pub work: u64,
}

impl Footprint {
    /// The sum.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.cache).saturating_add(self.work)
    }
}

impl Sum for Footprint {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            weights: sum.weights.saturating_add(one.weights),
            cache: sum.cache.saturating_add(one.cache),
            work: sum.work.saturating_add(one.work),
        })
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "weights {} + ", Bytes(self.weights))?;
        if self.cache > 0 {
            write!(formatter, "cache {} + ", Bytes(self.cache))?;
        }
        write!(formatter, "work {} = {}", Bytes(self.work), Bytes(self.total()))
    }
}

/// Whether a model can be held by some amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// As it is stored.
    Stored,
    /// Quantised so when it is loaded; the largest of those that fit.
    Quantized(QuantScheme),
    /// No way.
    No,
}

/// What a model needs, however it is loaded.
#[derive(Clone, Debug)]
pub struct Needs {
    name: String,
    /// Bytes of the weights as they are stored.
    stored: u64,
    /// Bytes of the weights as each scheme has them; none when they are in fewer bits already.
    quantized: Vec<(QuantScheme, u64)>,
    shape: Shape,
    numbers_per_token: usize,
}

impl Needs {
    /// Of a model on this disk; only headers are read.
    ///
    /// # Errors
    /// When its files are missing or broken, or it is not supported.
    pub fn of_files(name: &str, path: &Path) -> Result<Self, Error> {
        Self::of_checkpoint(name, &Checkpoint::open(path)?)
    }

    /// Of an opened checkpoint.
    ///
    /// # Errors
    /// When it is not supported.
    pub fn of_checkpoint(name: &str, checkpoint: &Checkpoint) -> Result<Self, Error> {
        let Blueprint { shape, numbers_per_token, .. } =
            (Architecture::of(&checkpoint.config)?.blueprint)(&checkpoint.config)?;
        let (weights, outline) = (&checkpoint.weights, checkpoint.outline()?);
        let bytes = |scheme| Some((scheme, weights.quantized_bytes(scheme, outline)?));
        let quantized = QuantScheme::ALL.into_iter().filter_map(bytes).collect();
        Ok(Self { name: name.to_owned(), stored: weights.total_bytes(), quantized, shape, numbers_per_token })
    }

    /// Of a model of the catalogue whose files need not be here; `None` when its card does not say.
    ///
    /// # Errors
    /// When the card's configuration is not one of a model that is supported.
    pub fn of_card(card: &Card) -> Result<Option<Self>, Error> {
        let Some(config) = &card.config else { return Ok(None) };
        let Blueprint { shape, numbers_per_token, tensors } = (Architecture::of(config)?.blueprint)(config)?;
        let format = stored_format(config)?;
        let packaged = card.sources.iter().find_map(|source| match source {
            Source::Package(package) => Some(package.files.iter().map(|file| (file.path.as_str(), file.size))),
            Source::Hub(_) => None,
        });
        let is_weights = |path: &str| path.ends_with(".safetensors") || path.ends_with(".gguf");
        let packaged = packaged.map(|files| files.filter(|(path, _)| is_weights(path)).map(|(_, size)| size).sum());
        let outline = outline(config)?;
        let tensors: Vec<TensorOutline<'_>> =
            tensors.iter().map(|one| TensorOutline { name: &one.name, shape: &one.shape, format }).collect();
        let bytes = |scheme: QuantScheme| Some((scheme, scheme.bytes(&tensors, outline)?));
        let quantized = match card.is_gguf() {
            true => Vec::new(),
            false => QuantScheme::ALL.into_iter().filter_map(bytes).collect(),
        };
        let stored = packaged.unwrap_or(card.parameters * format.block_bytes() as u64);
        Ok(Some(Self { name: card.name.clone(), stored, quantized, shape, numbers_per_token }))
    }

    /// Bytes of the weights as they are stored.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.stored
    }

    /// The least that the model runs with: what is asked for, and where nothing is, a cache for one sequence.
    #[must_use]
    pub fn footprint(&self, options: &LoadOptions) -> Footprint {
        let quantized = options.quant.and_then(|wanted| self.quantized.iter().find(|(scheme, _)| *scheme == wanted));
        let weights = quantized.map_or(self.stored, |(_, bytes)| *bytes);
        let cache = options.kv_memory.unwrap_or_else(|| self.least_cache(options.kv_type));
        let cache = if self.layout(options.kv_type).is_some() { cache } else { 0 };
        Footprint { weights, cache, work: self.work(options) }
    }

    /// What the model takes where `memory` bytes are free for it: [`Needs::footprint`], with a larger cache where there is room.
    #[must_use]
    pub fn footprint_within(&self, options: &LoadOptions, memory: u64) -> Footprint {
        Footprint { cache: self.cache_bytes(options, memory), ..self.footprint(options) }
    }

    /// Whether `memory` bytes hold the model, and how.
    #[must_use]
    pub fn fit(&self, options: &LoadOptions, memory: u64) -> Fit {
        let fits = |quant| self.footprint(&LoadOptions { quant, ..options.clone() }).total() <= memory;
        if fits(options.quant) {
            return options.quant.map_or(Fit::Stored, Fit::Quantized);
        }
        let smaller = self.quantized.iter().rev().map(|(scheme, _)| *scheme);
        smaller.into_iter().find(|scheme| fits(Some(*scheme))).map_or(Fit::No, Fit::Quantized)
    }

    /// Bytes for the cache of a model that may take `memory` bytes in all: what is asked for; otherwise enough for four
    /// contexts, at most a quarter of the memory and at most what the rest leaves, but never less than one sequence needs.
    #[must_use]
    pub(super) fn cache_bytes(&self, options: &LoadOptions, memory: u64) -> u64 {
        let Some((layout, context_length)) = self.layout(options.kv_type) else { return 0 };
        let least = self.footprint(options);
        let left = memory.saturating_sub(least.weights).saturating_sub(least.work);
        let plenty = CONTEXTS * bytes_of(&layout, context_length);
        options.kv_memory.unwrap_or_else(|| plenty.min(memory / 4).min(left).max(least.cache))
    }

    /// The shape of the cache and the tokens of a full context; none for encoders.
    pub(super) fn layout(&self, kv_type: KvType) -> Option<(KvLayout, usize)> {
        match self.shape {
            Shape::Encoder(_) => None,
            Shape::Decoder(shape) => Some((layout_of(&shape, kv_type), shape.context_length)),
        }
    }

    fn least_cache(&self, kv_type: KvType) -> u64 {
        let layout = self.layout(kv_type);
        layout.map_or(0, |(layout, context_length)| bytes_of(&layout, context_length.min(LEAST_CONTEXT)))
    }

    /// A step's numbers, its logits on both sides of the sampler, the table of angles, the tokenizer and the program.
    fn work(&self, options: &LoadOptions) -> u64 {
        // Whether it will run on a device is not known here.
        let budget = options.token_budget.unwrap_or(DEVICE_TOKENS).max(options.max_sequences);
        let numbers = match self.shape {
            Shape::Decoder(shape) => {
                let logits = 2 * options.max_sequences.max(LOGIT_ROWS) * shape.vocab_size;
                budget * self.numbers_per_token + logits + shape.context_length * shape.head_dim
            }
            // A text is never cut, so that the longest may exceed the budget.
            Shape::Encoder(shape) => budget.max(shape.context_length) * self.numbers_per_token,
        };
        let (Shape::Decoder(DecoderShape { vocab_size, .. }) | Shape::Encoder(EncoderShape { vocab_size, .. })) =
            self.shape;
        (NUMBER * numbers + TOKENIZER_BYTES * vocab_size) as u64 + PROGRAM
    }
}

/// Adds up what these models need, which are to be loaded with the same options beside each other.
///
/// # Errors
/// When that is more than `available` bytes; the message shows the sum, and the largest quantisation that would fit.
pub fn check_memory(models: &[Needs], options: &LoadOptions, available: u64) -> Result<Footprint, Error> {
    let sum = |quant| models.iter().map(|one| one.footprint(&LoadOptions { quant, ..options.clone() })).sum();
    let needed: Footprint = sum(options.quant);
    if options.overcommit || needed.total() <= available {
        return Ok(needed);
    }
    let names: Vec<&str> = models.iter().map(|one| one.name.as_str()).collect();
    let (names, verb) = (names.join(" and "), if models.len() == 1 { "does" } else { "do" });
    let all = |scheme: &QuantScheme| models.iter().all(|one| one.quantized.iter().any(|(known, _)| known == scheme));
    let schemes: Vec<(QuantScheme, u64)> =
        QuantScheme::ALL.into_iter().filter(all).map(|scheme| (scheme, sum(Some(scheme)).total())).collect();
    let advice = match schemes.iter().rev().find(|(_, total)| *total <= available).or_else(|| schemes.first()) {
        Some((scheme, total)) if *total <= available => format!("; --quant {scheme} would need {}", Bytes(*total)),
        Some((scheme, total)) => format!("; even --quant {scheme} would need {}", Bytes(*total)),
        None => String::new(),
    };
    let available = Bytes(available);
    Err(Error::Memory(format!("{names} {verb} not fit into memory: {needed}, and {available} are available{advice}")))
}

/// The shape of a decoder's cache.
pub(super) fn layout_of(shape: &DecoderShape, kv_type: KvType) -> KvLayout {
    let DecoderShape { layers, kv_heads, head_dim, .. } = *shape;
    KvLayout { layers, kv_heads, head_dim, block_size: BLOCK_SIZE, kv_type }
}

/// Bytes of the cache for so many tokens.
fn bytes_of(layout: &KvLayout, tokens: usize) -> u64 {
    tokens.div_ceil(layout.block_size) as u64 * layout.block_bytes()
}

/// How a published checkpoint stores its weights.
fn stored_format(config: &Value) -> Result<Format, Error> {
    let found = config.get("dtype").or_else(|| config.get("torch_dtype")).and_then(Value::as_str);
    match found {
        Some("float32") => Ok(Format::F32),
        Some("float16") => Ok(Format::F16),
        Some("bfloat16") => Ok(Format::BF16),
        found => {
            let reason = format!("must be float32, float16 or bfloat16, not {}", found.unwrap_or("absent"));
            Err(Error::config("torch_dtype", reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Catalogue;

    const GB: u64 = 1_000_000_000;

    fn needs(name: &str) -> Needs {
        Needs::of_card(Catalogue::embedded().unwrap().find(name).unwrap()).unwrap().unwrap()
    }

    fn options() -> LoadOptions {
        LoadOptions::default()
    }

    /// The tensors of the stated shapes add up to the number of parameters that the model was published with.
    #[test]
    fn every_card_adds_up() {
        let catalogue = Catalogue::embedded().unwrap();
        for card in catalogue.cards() {
            let config = card.config.as_ref().unwrap_or_else(|| panic!("{} says no sizes", card.name));
            let architecture = Architecture::of(config).unwrap();
            let blueprint = (architecture.blueprint)(config).unwrap();
            assert_eq!(blueprint.parameters(), card.parameters, "{}", card.name);
            assert_eq!(architecture.name, card.architecture, "{}", card.name);
            let (Shape::Decoder(DecoderShape { context_length, .. })
            | Shape::Encoder(EncoderShape { context_length, .. })) = blueprint.shape;
            assert!(context_length >= card.context_length as usize, "{}: {context_length}", card.name);
            assert!(Needs::of_card(card).unwrap().is_some());
        }
    }

    /// Against sizes of files that others publish: safetensors of the hub, and GGUF files of llama.cpp's mixtures.
    #[test]
    fn known_sizes_come_out() {
        let eight = needs("llama-3-8b-instruct");
        assert_eq!(eight.stored, 16_060_522_496);
        let near = |found: u64, published: f64| {
            assert!((found as f64 / published - 1.0).abs() < 0.005, "{found}, published {published}");
        };
        for (scheme, published) in [
            (QuantScheme::Q4KM, 4.92e9),
            (QuantScheme::Q5KM, 5.73e9),
            (QuantScheme::Q6K, 6.60e9),
            (QuantScheme::Q8_0, 8.54e9),
        ] {
            near(eight.footprint(&LoadOptions { quant: Some(scheme), ..options() }).weights, published);
        }
        let q4 = LoadOptions { quant: Some(QuantScheme::Q4KM), ..options() };
        near(needs("llama-3-70b-instruct").footprint(&q4).weights, 42.5e9);
        // The file has 808 MB, of which 8 are the vocabulary.
        near(needs("llama-3.2-1b-instruct").footprint(&q4).weights, 0.800e9);
        assert_eq!(needs("dbrx-instruct").stored, 263_193_047_040);
        assert_eq!(needs("smollm2").stored, 98_362_432);
        // 8,192 tokens, 32 layers, 8 heads of 128 numbers, keys and values, in f32.
        assert_eq!(eight.footprint(&options()).cache, 8192 * 32 * 8 * 128 * 2 * 4);
        assert_eq!(needs("bge-large-en-v1.5").footprint(&options()).cache, 0);
    }

    #[test]
    fn the_largest_quantisation_that_fits_is_named() {
        let (eight, q8) = (needs("llama-3-8b-instruct"), LoadOptions { quant: Some(QuantScheme::Q8_0), ..options() });
        let stored = eight.footprint(&options()).total();
        assert_eq!(eight.fit(&options(), stored), Fit::Stored);
        assert_eq!(eight.fit(&options(), stored - 1), Fit::Quantized(QuantScheme::Q8_0));
        assert_eq!(eight.fit(&options(), eight.footprint(&q8).total() - 1), Fit::Quantized(QuantScheme::Q6K));
        assert_eq!(eight.fit(&options(), 4 * GB), Fit::No);
        let one = std::slice::from_ref(&eight);
        assert_eq!(check_memory(one, &options(), stored).unwrap().total(), stored);
        let message = check_memory(one, &options(), 15 * GB).unwrap_err().to_string();
        let parts = [
            "llama-3-8b-instruct does not fit",
            "weights 16.1 GB + cache 2.15 GB + work ",
            ", and 15.0 GB are available",
        ];
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        assert!(message.contains("; --quant q8_0 would need 11."), "{message}");
        let message = check_memory(one, &options(), GB).unwrap_err().to_string();
        assert!(message.contains("even --quant q4_k_m would need 7."), "{message}");
        let overcommit = LoadOptions { overcommit: true, ..options() };
        assert_eq!(check_memory(one, &overcommit, GB).unwrap().total(), stored);
        assert!(check_memory(one, &q8, 15 * GB).is_ok());
    }

    #[test]
    fn models_beside_each_other_are_added_up() {
        let pair = [needs("smollm2"), needs("minilm")];
        let sum: Footprint = pair.iter().map(|one| one.footprint(&options())).sum();
        assert_eq!(sum.total(), pair.iter().map(|one| one.footprint(&options()).total()).sum::<u64>());
        assert_eq!(check_memory(&pair, &options(), sum.total()).unwrap(), sum);
        let message = check_memory(&pair, &options(), sum.total() - 1).unwrap_err().to_string();
        assert!(message.starts_with("smollm2-135m-instruct and all-minilm-l6-v2 do not fit"), "{message}");
        assert!(message.ends_with("available"), "one of them is quantised already: {message}");
    }

    #[test]
    fn the_cache_takes_what_is_asked_or_what_is_left() {
        let eight = needs("llama-3-8b-instruct");
        let least = eight.footprint(&options());
        let context = 8192 * 32 * 8 * 128 * 2 * 4;
        assert_eq!(eight.cache_bytes(&options(), 1000 * GB), 4 * context);
        assert_eq!(eight.cache_bytes(&options(), 24 * GB), 6 * GB, "a quarter");
        assert_eq!(eight.cache_bytes(&options(), least.total() + 5), context + 5, "what is left");
        assert_eq!(eight.cache_bytes(&options(), 1), context, "never less than one sequence needs");
        let asked = LoadOptions { kv_memory: Some(GB), ..options() };
        assert_eq!((eight.cache_bytes(&asked, 1), eight.footprint(&asked).cache), (GB, GB));
        let long = needs("llama-3.1-8b-instruct");
        assert_eq!(long.footprint(&options()).cache, context, "a context of 131,072 tokens is not asked for in full");
        assert_eq!(needs("bge-small-en-v1.5").cache_bytes(&asked, GB), 0);
    }
}
