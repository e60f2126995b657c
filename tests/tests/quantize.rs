//! Fewer bits: quantised when they are loaded, or written to a GGUF file, weights give the same answers as each other, and
//! nearly those of the original.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail, ensure};
use hearth_engine::export::{Storage, export_gguf};
use hearth_engine::hub::LocalModel;
use hearth_engine::serve::{EngineHandle, LoadOptions, LoadedModel, load};
use hearth_engine::text::SpecialTokens;
use hearth_engine::weights::{QuantScheme, Weights};
use hearth_kernels::Format;
use hearth_tests::{checkpoint, cosine, decoder, encoder, generate, goldens, greedy, llama_cpp_program, options};
use serde_json::{Value, json};

const LLAMAS: [&str; 4] = ["llama-tied-f32", "llama-untied-bf16", "llama-linear-f32", "llama-sharded-f16"];

/// Evenly within -1..1, the same on every run.
fn noise(state: &mut u64) -> f32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// The names and shapes of a Llama of `layers` layers, width 256 and 300 tokens.
fn tensors(layers: usize) -> Vec<(String, Vec<usize>)> {
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![300, 256]),
        ("lm_head.weight".to_owned(), vec![300, 256]),
        ("model.norm.weight".to_owned(), vec![256]),
    ];
    for layer in 0..layers {
        let parts: [(&str, &[usize]); 9] = [
            ("input_layernorm", &[256]),
            ("self_attn.q_proj", &[256, 256]),
            ("self_attn.k_proj", &[128, 256]),
            ("self_attn.v_proj", &[128, 256]),
            ("self_attn.o_proj", &[256, 256]),
            ("post_attention_layernorm", &[256]),
            ("mlp.gate_proj", &[512, 256]),
            ("mlp.up_proj", &[512, 256]),
            ("mlp.down_proj", &[256, 512]),
        ];
        tensors.extend(parts.map(|(part, shape)| (format!("model.layers.{layer}.{part}.weight"), shape.to_vec())));
    }
    tensors
}

/// Writes a Llama whose rows are whole blocks of 256, with random weights; `spoil` may change them.
fn wide_llama(folder: &Path, spoil: impl Fn(&str, &mut Vec<f32>)) -> Result<LocalModel> {
    let (mut header, mut data, mut state) = (serde_json::Map::new(), Vec::new(), 17);
    for (name, shape) in tensors(8) {
        let count = shape.iter().product::<usize>();
        let (middle, spread) = if shape.len() == 1 { (1.0, 0.1) } else { (0.0, 0.1) };
        let mut values: Vec<f32> = (0..count).map(|_| middle + spread * noise(&mut state)).collect();
        spoil(&name, &mut values);
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}));
    }
    let header = Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    std::fs::write(folder.join("model.safetensors"), file)?;
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "intermediate_size": 512,
        "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 300,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "eos_token_id": 2,
    });
    std::fs::write(folder.join("config.json"), config.to_string())?;
    let source = goldens().join("checkpoints/llama-tied-f32");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(source.join(name), folder.join(name))?;
    }
    Ok(LocalModel { name: "wide".to_owned(), path: folder.to_owned(), card: None })
}

fn quantised(scheme: QuantScheme) -> LoadOptions {
    LoadOptions { quant: Some(scheme), ..options() }
}

/// The log-probabilities of the tokens of a prompt.
async fn logprobs(engine: &EngineHandle) -> Result<Vec<f32>> {
    let prompt: Vec<u32> = (0..70).map(|position| (position * 37 + 11) % 297 + 3).collect();
    let generated = generate(engine, &prompt, greedy(engine, 3)?, 1, Some(0)).await?;
    Ok(generated.prompt.iter().flatten().map(|one| one.logprob).collect())
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    assert!(a.len() > 60, "there is something to compare");
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

async fn assert_file_agrees(model: &LocalModel, scheme: QuantScheme, folder: &Path) -> Result<EngineHandle> {
    let path: PathBuf = folder.join(format!("{}-{scheme}.gguf", model.name));
    export_gguf(&model.path, &path, scheme, Some(2))?;
    let at_load = decoder(model, &quantised(scheme))?;
    let file = decoder(&LocalModel { path, ..model.clone() }, &options())?;
    // The rows of a head stand in another order, therefore its sums are rounded differently.
    let difference = largest_difference(&logprobs(&at_load).await?, &logprobs(&file).await?);
    assert!(difference <= 1e-4, "{} {scheme}: {difference}", model.name);
    // A file's own reader adds what only looks like an end.
    let (ends, of_file) = (&at_load.text().end_tokens, &file.text().end_tokens);
    assert!(!ends.is_empty() && ends.iter().all(|id| of_file.contains(id)), "{}: {ends:?} {of_file:?}", model.name);
    assert_eq!(at_load.info().context_length, file.info().context_length);
    Ok(file)
}

#[tokio::test]
async fn a_written_file_answers_as_the_folder_quantised_at_load() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for name in LLAMAS {
        for scheme in [QuantScheme::Q4KM, QuantScheme::Q8_0] {
            assert_file_agrees(&checkpoint(name), scheme, folder.path()).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_scheme_stays_near_the_original() -> Result<()> {
    let (folder, files) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let model = wide_llama(folder.path(), |_, _| {})?;
    let original = decoder(&model, &options())?;
    let expected = logprobs(&original).await?;
    let mut bytes = original.info().weight_bytes;
    // A scheme that changed nothing would be found out, too.
    for (scheme, bound) in
        [(QuantScheme::Q8_0, 0.1), (QuantScheme::Q6K, 0.3), (QuantScheme::Q5KM, 0.6), (QuantScheme::Q4KM, 1.2)]
    {
        let file = assert_file_agrees(&model, scheme, files.path()).await?;
        let engine = decoder(&model, &quantised(scheme))?;
        let difference = largest_difference(&expected, &logprobs(&engine).await?);
        assert!(difference <= bound && difference > 1e-4, "{scheme}: {difference}");
        let smaller = engine.info().weight_bytes;
        assert!(smaller < bytes, "{scheme} takes {smaller} bytes, the one before {bytes}");
        assert_eq!(file.info().weight_bytes, smaller, "{scheme}");
        bytes = smaller;
    }
    Ok(())
}

/// Every format of the experts in safetensors: one by one, merged, and DBRX's, whose last matrix lies the other way around.
#[tokio::test]
async fn experts_are_quantised_at_load() -> Result<()> {
    for name in ["mixtral-f32", "mixtral-merged-f16", "dbrx-f32"] {
        let model = checkpoint(name);
        let original = decoder(&model, &options())?;
        let expected = logprobs(&original).await?;
        let engine = decoder(&model, &quantised(QuantScheme::Q8_0))?;
        let found = logprobs(&engine).await?;
        // The worst are tokens that are sent to another expert; these logits are some 20 apart.
        let mean = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).sum::<f32>() / expected.len() as f32;
        assert!(mean <= 0.2, "{name}: {mean}");
        assert!(found != expected, "{name} is not quantised");
        let weights = Weights::open_folder(&model.path)?;
        let outline = hearth_engine::checkpoint::Checkpoint::open(&model.path)?.outline()?;
        for planned in weights.plan(QuantScheme::Q4KM, outline)? {
            let (name, format) = (planned.name(), planned.format().name());
            let is_exact = planned.shape().len() == 1 || name.contains("gate.weight") || name.contains("router");
            // The width is 32, no whole block of the k-quants.
            let expected: &[&str] = if is_exact { &["F32"] } else { &["Q5_0", "Q8_0", "F16"] };
            assert!(expected.contains(&format), "{name}: {format}");
            assert!(format != "F16" || planned.shape().last().is_some_and(|cols| cols % 32 != 0), "{name}");
        }
    }
    Ok(())
}

/// The golden file is the same checkpoint through llama.cpp's converter.
#[tokio::test]
async fn experts_quantised_at_load_answer_as_llama_cpps_file() -> Result<()> {
    let at_load = decoder(&checkpoint("mixtral-f32"), &quantised(QuantScheme::Q8_0))?;
    let file = decoder(&checkpoint("mixtral-q8_0.gguf"), &options())?;
    let difference = largest_difference(&logprobs(&at_load).await?, &logprobs(&file).await?);
    assert!(difference <= 1e-3, "{difference}");
    Ok(())
}

#[tokio::test]
async fn the_tokenizer_in_the_file_is_that_of_the_folder() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for name in LLAMAS {
        let model = checkpoint(name);
        let file = assert_file_agrees(&model, QuantScheme::Q8_0, folder.path()).await?;
        let original = decoder(&model, &options())?;
        for text in ["", "Hello the an", " a\n\nb\t 12345", "<|im_start|>user\nhé🦀<|im_end|>", "它们  x\u{0}"] {
            for special in [SpecialTokens::Add, SpecialTokens::Omit] {
                let (found, expected) = (&file.text().tokenizer, &original.text().tokenizer);
                assert_eq!(found.encode(text, special)?, expected.encode(text, special)?, "{name} {text:?}");
            }
        }
        assert_eq!(file.text().template.is_some(), original.text().template.is_some(), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn an_encoder_can_be_quantised_at_load() -> Result<()> {
    let model = checkpoint("bert-cls");
    let texts = vec![vec![2, 30, 40, 50, 60, 3]];
    let original = encoder(&model, &options())?.submit(texts.clone())?.await?;
    for (scheme, least) in [(QuantScheme::Q8_0, 0.999), (QuantScheme::Q4KM, 0.95)] {
        let found = encoder(&model, &quantised(scheme))?.submit(texts.clone())?.await?;
        let cosine = cosine(&original[0], &found[0]);
        assert!(cosine >= least && cosine < 0.999_999_9, "{scheme}: {cosine}");
    }
    Ok(())
}

const MIXTURES: [&str; 4] = ["mixtral-f32", "mixtral-bf16", "mixtral-merged-f16", "dbrx-f32"];

/// Writes the model as it is and loads what was written.
fn written(name: &str, storage: impl Into<Storage>, folder: &Path) -> Result<LocalModel> {
    let path = folder.join(format!("{name}.gguf"));
    export_gguf(&checkpoint(name).path, &path, storage, Some(2))?;
    Ok(LocalModel { name: name.to_owned(), path, card: None })
}

/// Merged experts, DBRX's turned matrices, rows in another order: the file says the same as the folder.
#[tokio::test]
async fn a_written_mixture_answers_as_its_folder() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for name in MIXTURES {
        let original = decoder(&checkpoint(name), &options())?;
        let file = decoder(&written(name, Storage::Plain(Format::F32), folder.path())?, &options())?;
        let difference = largest_difference(&logprobs(&original).await?, &logprobs(&file).await?);
        assert!(difference <= 1e-4, "{name}: {difference}");
        assert_eq!(original.info().context_length, file.info().context_length, "{name}");
        let (ends, of_file) = (&original.text().end_tokens, &file.text().end_tokens);
        assert!(!ends.is_empty() && ends.iter().all(|id| of_file.contains(id)), "{name}: {ends:?} {of_file:?}");
        assert_eq!(file.text().template.is_some(), original.text().template.is_some(), "{name}");
        for text in ["Hello the an", " a\n\nb\t 12345", "<|im_start|>user\nhé🦀<|im_end|>"] {
            let tokens = |engine: &EngineHandle| engine.text().tokenizer.encode(text, SpecialTokens::Add);
            assert_eq!(tokens(&file)?, tokens(&original)?, "{name} {text:?}");
        }
    }
    Ok(())
}

/// Mixtral's experts are quantised along the same rows at load. DBRX's second matrices are not, and stay near.
#[tokio::test]
async fn a_quantised_mixture_answers_as_quantised_at_load() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (name, bound) in [("mixtral-f32", 1e-4), ("dbrx-f32", 0.5)] {
        let at_load = decoder(&checkpoint(name), &quantised(QuantScheme::Q8_0))?;
        let file = decoder(&written(name, QuantScheme::Q8_0, folder.path())?, &options())?;
        let (expected, found) = (logprobs(&at_load).await?, logprobs(&file).await?);
        let mean = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).sum::<f32>() / expected.len() as f32;
        assert!(mean <= bound, "{name}: {mean}");
        assert_eq!(file.info().weight_bytes, at_load.info().weight_bytes, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_written_encoder_embeds_as_its_folder() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for name in ["bert-cls", "bert-mean", "bert-old-names"] {
        let original = encoder(&checkpoint(name), &options())?;
        for (storage, least) in [(Storage::Plain(Format::F32), 0.999_999), (QuantScheme::Q8_0.into(), 0.999)] {
            let file = encoder(&written(name, storage, folder.path())?, &options())?;
            for text in ["rain over the hills", "A second, longer text: 12 birds!", "它们"] {
                let tokens = original.tokenizer().encode(text, SpecialTokens::Add)?;
                assert_eq!(file.tokenizer().encode(text, SpecialTokens::Add)?, tokens, "{name} {text:?}");
                let expected = original.submit(vec![tokens.clone()])?.await?;
                let cosine = cosine(&expected[0], &file.submit(vec![tokens])?.await?[0]);
                assert!(cosine >= least, "{name} {storage}: {cosine}");
            }
        }
    }
    Ok(())
}

/// What llama.cpp makes of a file: the perplexity of the second halves of windows of so many tokens.
fn perplexity_by_llama_cpp(program: &Path, model: &Path, text: &Path, window: usize) -> Result<f64> {
    let window = window.to_string();
    let mut said = String::new();
    // Its log is written by a thread of its own, which a short run does not always wait for.
    for _ in 0..20 {
        let mut command = Command::new(program);
        let output = command.arg("-m").arg(model).arg("-f").arg(text).args(["-c", &window, "-b", &window, "-t", "2"]);
        let output = output.output()?;
        said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{}: {said}", model.display());
        let found = said.split("Final estimate: PPL =").nth(1).and_then(|rest| rest.split_whitespace().next());
        if let Some(found) = found {
            return Ok(found.parse()?);
        }
    }
    bail!("{}: no estimate: {said}", model.display())
}

async fn perplexity(engine: &EngineHandle, text: &str, window: usize) -> Result<f64> {
    let tokens = engine.text().tokenizer.encode(text, SpecialTokens::Add)?;
    let (mut sum, mut count) = (0.0, 0);
    for window_tokens in tokens.chunks_exact(window) {
        let generated = generate(engine, window_tokens, greedy(engine, 0)?, 1, Some(0)).await?;
        // As llama.cpp counts: the predictions made from the middle on.
        for one in generated.prompt[window / 2 + 1..].iter().flatten() {
            sum -= f64::from(one.logprob);
            count += 1;
        }
    }
    Ok((sum / f64::from(count)).exp())
}

/// The written files in llama.cpp itself. It rounds activations where weights are quantised, and sums in another order.
#[tokio::test]
async fn llama_cpp_reads_what_is_written() -> Result<()> {
    const WINDOW: usize = 128;
    let Some(program) = llama_cpp_program("llama-perplexity") else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let text = "The rain came over the hills at night, and 12 birds sat in the trees by the river. ".repeat(12);
    let path = folder.path().join("text.txt");
    std::fs::write(&path, &text)?;
    for name in ["llama-tied-f32", "llama-untied-bf16", "mixtral-f32", "mixtral-merged-f16", "dbrx-f32"] {
        for (storage, bound) in [(Storage::Plain(Format::F32), 1e-3), (QuantScheme::Q8_0.into(), 5e-2)] {
            let file = written(name, storage, folder.path())?;
            let expected = perplexity_by_llama_cpp(&program, &file.path, &path, WINDOW)?;
            let found = perplexity(&decoder(&file, &options())?, &text, WINDOW).await?;
            assert!((found / expected - 1.0).abs() <= bound, "{name} {storage}: {found}, llama.cpp has {expected}");
        }
    }
    Ok(())
}

fn reason(result: Result<LoadedModel, hearth_engine::Error>) -> String {
    result.err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn what_cannot_be_quantised_is_named() -> Result<()> {
    let (folder, files) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let out = files.path().join("out.gguf");
    let model = wide_llama(folder.path(), |name, values| {
        if name == "model.layers.3.mlp.up_proj.weight" {
            values[70_000] = f32::NAN;
        }
    })?;
    let expected = "tensor `model.layers.3.mlp.up_proj.weight`: cannot be stored as Q4_K: values: number 70000 is NaN";
    let at_load = reason(load(&model, &quantised(QuantScheme::Q4KM)));
    assert!(at_load.contains(expected), "{at_load}");
    let error = export_gguf(&model.path, &out, QuantScheme::Q4KM, Some(2)).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
    assert_eq!(std::fs::read_dir(files.path())?.count(), 0, "nothing is left behind");

    let xlm = checkpoint("xlm-roberta-cls").path;
    let error = export_gguf(&xlm, &out, QuantScheme::Q8_0, Some(1)).unwrap_err().to_string();
    assert!(error.contains("\"xlm-roberta\" is not supported") && error.contains("llama"), "{error}");

    // Its experts' weights are normalised in a way that no key tells.
    let dbrx = checkpoint("dbrx-bf16").path;
    let error = export_gguf(&dbrx, &out, QuantScheme::Q8_0, Some(1)).unwrap_err().to_string();
    assert!(error.contains("moe_normalize_expert_weights: 2.0 cannot be told"), "{error}");

    export_gguf(&checkpoint("llama-tied-f32").path, &out, QuantScheme::Q8_0, Some(1))?;
    let file = LocalModel { path: out.clone(), ..model };
    let again = reason(load(&file, &quantised(QuantScheme::Q4KM)));
    assert!(again.contains("is stored as Q8_0 already"), "{again}");
    let error =
        export_gguf(&out, &files.path().join("again.gguf"), QuantScheme::Q8_0, Some(1)).unwrap_err().to_string();
    assert!(error.contains("is a GGUF file already"), "{error}");
    Ok(())
}

#[test]
fn vectors_stay_as_they_are() -> Result<()> {
    let files = tempfile::tempdir()?;
    let out = files.path().join("out.gguf");
    let source = checkpoint("llama-untied-bf16").path;
    export_gguf(&source, &out, QuantScheme::Q4KM, Some(2))?;
    let written = hearth_engine::weights::Gguf::open(&out)?;
    let (written, source) = (Weights::open_gguf(&written)?, Weights::open_folder(&source)?);
    for name in ["model.norm.weight", "model.layers.0.input_layernorm.weight"] {
        let length = source.get(name).map_or(0, |tensor| tensor.cols());
        assert_eq!(written.vector(name, length)?, source.vector(name, length)?, "{name}");
    }
    Ok(())
}
