//! Hundreds of requests of all kinds at once, with a cache that is too small for them and callers who go away: whoever stays gets
//! what the same request gets alone, and in the end nothing is held.

use std::time::Duration;

use anyhow::Result;
use futures::StreamExt;
use futures::future::try_join_all;
use hearth_engine::serve::{EngineHandle, GenerationEvent, GenerationRequest, Health, LoadOptions};
use hearth_sampler::SamplingRequest;
use hearth_tests::{checkpoint, decoder, options, wait_until_idle};

/// A block of the cache of this checkpoint: keys and values, layers, key-value heads, elements, tokens, bytes.
const BLOCK_BYTES: u64 = 2 * 2 * 2 * 16 * 16 * 4;
const REQUESTS: u64 = 300;

/// A generator of numbers that is the same on every machine.
struct Numbers(u64);

impl Numbers {
    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A request, and after how many tokens its caller goes away.
fn request(number: u64, engine: &EngineHandle) -> Result<(GenerationRequest, Option<u64>)> {
    let mut numbers = Numbers(number);
    let shared = numbers.below(2) * 40; // half of them begin alike
    let prompt = (0..shared).map(|position| (position * 7 % 290 + 3) as u32);
    let length = 1 + numbers.below(60);
    let own: Vec<u32> = (0..length).map(|_| numbers.below(290) as u32 + 3).collect();
    let sampling = SamplingRequest {
        temperature: [0.0, 0.7, 1.3][numbers.below(3) as usize],
        top_p: [1.0, 0.9][numbers.below(2) as usize],
        top_k: [None, Some(20)][numbers.below(2) as usize],
        presence_penalty: [0.0, 0.5][numbers.below(2) as usize],
        logprobs: [None, Some(2)][numbers.below(2) as usize],
        ignore_eos: numbers.below(2) == 0,
        seed: Some(number),
        ..SamplingRequest::default()
    };
    let params = sampling.check(engine.info().vocab_size, 0)?;
    let prompt_logprobs = (numbers.below(8) == 0).then_some(1);
    let max_tokens = 1 + numbers.below(50) as usize;
    let request =
        GenerationRequest::check(prompt.chain(own).collect(), params, max_tokens, prompt_logprobs, engine.info())?;
    Ok((request, (numbers.below(5) == 0).then(|| numbers.below(20))))
}

/// All events of a request but those after its caller has gone.
async fn events(engine: &EngineHandle, number: u64, patient: bool) -> Result<Option<Vec<String>>> {
    let (request, leaves) = request(number, engine)?;
    let mut stream = engine.submit(request)?;
    let (mut events, mut tokens) = (Vec::new(), 0);
    while let Some(event) = stream.next().await {
        let event = event?;
        if let (GenerationEvent::Token(_), Some(leaves), false) = (&event, leaves, patient)
            && tokens >= leaves
        {
            return Ok(None);
        }
        tokens += u64::from(matches!(event, GenerationEvent::Token(_)));
        // How much of the prompt was found in the cache is the one thing that company may change. The rest as text: with all
        // log-probabilities, to the last bit.
        if !matches!(event, GenerationEvent::Admitted { .. }) {
            events.push(format!("{event:?}"));
        }
    }
    Ok(Some(events))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_stays_gets_what_the_request_gets_alone() -> Result<()> {
    let roomy = decoder(&checkpoint("llama-tied-f32"), &LoadOptions { prefix_cache: false, ..options() })?;
    let tight = LoadOptions {
        kv_memory: Some(BLOCK_BYTES * 40),
        max_sequences: 24,
        queue: REQUESTS as usize,
        token_budget: Some(48),
        ..options()
    };
    let tight = decoder(&checkpoint("llama-tied-f32"), &tight)?;
    let mut expected = Vec::new();
    for number in 0..REQUESTS {
        expected.push(events(&roomy, number, true).await?);
    }
    let arriving = (0..REQUESTS).map(|number| {
        let tight = tight.clone();
        async move {
            // Some come later than others, so that batches are mixed.
            tokio::time::sleep(Duration::from_millis(Numbers(number).below(200))).await;
            events(&tight, number, false).await
        }
    });
    let found = try_join_all(arriving).await?;
    let gone = found.iter().filter(|events| events.is_none()).count();
    assert!(gone > 10, "{gone} callers went away");
    for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!(found.is_none() || found == expected, "request {number}: {found:?}, alone {expected:?}");
    }
    assert!(tight.load().preemptions > 0, "the cache was not small enough to test anything");
    wait_until_idle(|| tight.load()).await?;
    assert_eq!(tight.health(), Health::Alive);
    Ok(())
}
