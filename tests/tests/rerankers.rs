//! Rerankers: PyTorch's scores on the tiny checkpoints by each arithmetic, whatever else is in the batch; what is no reranker is
//! refused.

use anyhow::{Context, Result};
use hearth_engine::hub::LocalModel;
use hearth_engine::serve::{LoadOptions, load};
use hearth_engine::text::{SpecialTokens, TypedText};
use hearth_engine::weights::QuantScheme;
use hearth_tests::{Arithmetic, Scored, checkpoint, options, reranker, scored, with_each_arithmetic};

with_each_arithmetic! {
    rerankers_agree_with_pytorch,
    a_score_does_not_depend_on_the_other_pairs,
}

const RERANKERS: [&str; 2] = ["bert-reranker", "xlm-roberta-reranker"];

/// How far a score may lie from the reference's.
const TOLERANCE: f32 = 1e-4;

async fn rerankers_agree_with_pytorch(arithmetic: Arithmetic) -> Result<()> {
    for name in RERANKERS {
        for Scored { query, document, ours, reference } in
            scored(&reranker(&checkpoint(name), &arithmetic.options())?, name).await?
        {
            let place = format!("{name}: {query:?}, {document:?}");
            assert!((ours - reference).abs() <= TOLERANCE, "{place}: {ours} against {reference}");
        }
    }
    Ok(())
}

/// A pair alone and the same pair among others, in batches of many sizes: the same score, with the kernels to the last bit.
async fn a_score_does_not_depend_on_the_other_pairs(arithmetic: Arithmetic) -> Result<()> {
    for name in RERANKERS {
        let reranker = reranker(&checkpoint(name), &LoadOptions { token_budget: Some(48), ..arithmetic.options() })?;
        let encode = |text: &str| reranker.tokenizer().encode(text, SpecialTokens::Omit);
        let query = encode("What is the capital?")?;
        let pairs: Vec<TypedText> = (0..30)
            .map(|number| {
                let text = ["rain on the hills", "Paris", "a fox and a dog"][number % 3].repeat(1 + number / 10);
                Ok(reranker.template().join(&query, &encode(&text)?))
            })
            .collect::<Result<_>>()?;
        reranker.check(&pairs)?;
        let together = reranker.submit(pairs.clone())?.await?;
        assert_eq!(together.len(), pairs.len(), "{name}");
        for (pair, expected) in pairs.iter().zip(&together) {
            let alone = reranker.submit(vec![pair.clone()])?.await?;
            assert_eq!(alone.len(), 1, "{name}");
            assert!((alone[0] - expected).abs() <= arithmetic.spread(name), "{name}: {alone:?} and {expected}");
        }
        let long = TypedText::single(vec![5; reranker.info().context_length + 1]);
        let error = reranker.check(&[pairs[0].clone(), long]).unwrap_err();
        assert!(error.to_string().starts_with("input 1: "), "{error}");
        assert_eq!(reranker.info().dimensions, None, "{name}");
    }
    Ok(())
}

/// A classifier has several labels, none of which is a score.
#[test]
fn a_classifier_is_no_reranker() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let original = checkpoint("bert-reranker").path;
    for file in std::fs::read_dir(&original)? {
        let file = file?;
        std::fs::copy(file.path(), folder.path().join(file.file_name()))?;
    }
    let path = folder.path().join("config.json");
    let config = std::fs::read_to_string(&path)?;
    std::fs::write(&path, config.replace(r#""0": "LABEL_0""#, r#""0": "LABEL_0", "1": "LABEL_1""#))?;
    let model = LocalModel { path: folder.path().to_owned(), ..checkpoint("bert-reranker") };
    let error = load(&model, &options()).err().context("it is refused")?.to_string();
    assert!(error.contains("id2label: a reranker has 1 label, and this model has 2"), "{error}");
    Ok(())
}

/// The head is quantised with the rest: one row of weights, which the scores follow.
#[tokio::test]
async fn a_reranker_can_be_quantised_at_load() -> Result<()> {
    for name in RERANKERS {
        let options = LoadOptions { quant: Some(QuantScheme::Q8_0), ..options() };
        let scored = scored(&reranker(&checkpoint(name), &options)?, name).await?;
        let far = scored.iter().map(|pair| (pair.ours - pair.reference).abs()).fold(0.0, f32::max);
        assert!(far > 1e-6 && far < 0.1, "{name}: {far}");
    }
    Ok(())
}
