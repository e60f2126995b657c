//! What a failing, hanging or nonsensical model may touch: the requests concerned, and nothing after them. Deadlines hold
//! though the model's thread hangs; a long call does not hold up a short one.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures::StreamExt;
use futures::future::join_all;
use hearth_engine::Error;
use hearth_engine::serve::{
    EncoderHandle, EngineHandle, GenerationEvent, GenerationRequest, GenerationStream, Health, LoadOptions, SubmitError,
};
use hearth_tests::{
    Arithmetic, Fault, Faults, checkpoint, decoder, encoder, generate, greedy, options, wait_until_idle,
    with_each_arithmetic,
};

with_each_arithmetic! {
    each_failure_of_a_decoder_fails_its_requests_and_no_later_one,
    each_failure_of_an_encoder_fails_its_calls_and_no_later_one,
}

fn faulty(options: LoadOptions) -> Result<(EngineHandle, Faults)> {
    let faults = Faults::default();
    let options = LoadOptions { decorate: Some(faults.decorator()), ..options };
    Ok((decoder(&checkpoint("llama-tied-f32"), &options)?, faults))
}

fn faulty_encoder(options: LoadOptions) -> Result<(EncoderHandle, Faults)> {
    let faults = Faults::default();
    let options = LoadOptions { decorate: Some(faults.decorator()), ..options };
    Ok((encoder(&checkpoint("bert-mean"), &options)?, faults))
}

fn request(engine: &EngineHandle, max_tokens: usize, time: Duration) -> Result<GenerationRequest> {
    let request = GenerationRequest::check(vec![5, 6, 7], greedy(engine, 0)?, max_tokens, None, engine.info())?;
    Ok(request.until(Some(Instant::now() + time)))
}

/// The error that ends a stream, after any number of tokens.
async fn error_of(stream: &mut GenerationStream) -> Result<Error> {
    while let Some(event) = stream.next().await {
        match event {
            Ok(GenerationEvent::Finished(reason)) => bail!("it ended with {reason:?}"),
            Ok(_) => {}
            Err(error) => return Ok(error),
        }
    }
    bail!("it ended without an end")
}

async fn wait_for(what: &str, holds: impl Fn() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > Duration::from_secs(20) {
            bail!("waited in vain for {what}");
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

async fn each_failure_of_a_decoder_fails_its_requests_and_no_later_one(arithmetic: Arithmetic) -> Result<()> {
    let (engine, faults) = faulty(arithmetic.options())?;
    let prompts: Vec<Vec<u32>> = (0..4).map(|number| vec![5 + number, 6, 7]).collect();
    let run = |prompt: &Vec<u32>| {
        let (engine, prompt) = (engine.clone(), prompt.clone());
        async move { anyhow::Ok(generate(&engine, &prompt, greedy(&engine, 2)?, 12, Some(1)).await?.ids()) }
    };
    let mut expected = Vec::new();
    for prompt in &prompts {
        expected.push(run(prompt).await?);
    }
    for fault in [
        Fault::StepError,
        Fault::StepPanic,
        Fault::NoMemory,
        Fault::LogitsPanic,
        Fault::NotANumber,
        Fault::Wide,
        Fault::Narrow,
    ] {
        let (what, alone) = (format!("{fault:?}"), matches!(fault, Fault::LogitsPanic | Fault::Wide | Fault::Narrow));
        faults.set(fault);
        let mut failed = 0;
        for (number, found) in join_all(prompts.iter().map(run)).await.into_iter().enumerate() {
            match found {
                Ok(tokens) => assert_eq!(tokens, expected[number], "{what}, request {number}"),
                Err(_) => failed += 1,
            }
        }
        assert!(failed > 0 && !faults.is_armed(), "{what} did not happen");
        assert!(failed == 1 || !alone, "{what} concerns one request, and {failed} failed");
        wait_until_idle(|| engine.load()).await?;
        assert_eq!(engine.health(), Health::Alive);
        assert_eq!(run(&prompts[1]).await?, expected[1], "after {what}");
    }
    wait_until_idle(|| engine.load()).await
}

async fn each_failure_of_an_encoder_fails_its_calls_and_no_later_one(arithmetic: Arithmetic) -> Result<()> {
    let (encoder, faults) = faulty_encoder(arithmetic.options())?;
    let texts = vec![vec![5, 6, 7], vec![8, 9]];
    let expected = encoder.submit(texts.clone())?.await?;
    for fault in [Fault::StepError, Fault::StepPanic, Fault::NoMemory, Fault::NotANumber, Fault::Wide, Fault::Narrow] {
        let what = format!("{fault:?}");
        faults.set(fault);
        assert!(encoder.submit(texts.clone())?.await.is_err(), "{what} did not happen");
        assert_eq!(encoder.submit(texts.clone())?.await?, expected, "after {what}");
    }
    wait_until_idle(|| encoder.load()).await
}

/// A step that does not end: the model says so and takes nothing new, deadlines hold all the same, and afterwards all is well.
#[tokio::test]
async fn deadlines_hold_though_a_step_does_not_end() -> Result<()> {
    let (engine, faults) = faulty(LoadOptions { step_timeout: Some(Duration::from_millis(50)), ..options() })?;
    let (params, tokens) = (greedy(&engine, 0)?, [5, 6, 7]);
    let expected = generate(&engine, &tokens, params.clone(), 5, None).await?.ids();
    let (release, hang) = channel();
    faults.set(Fault::Hang(hang));
    let mut running = engine.submit(request(&engine, 5, Duration::from_millis(400))?)?;
    wait_for("the step to begin", || !faults.is_armed()).await?;
    let mut waiting = engine.submit(request(&engine, 5, Duration::from_millis(200))?)?;
    wait_for("the stall", || matches!(engine.health(), Health::Stalled { .. })).await?;
    let refused = engine.submit(request(&engine, 5, Duration::from_secs(60))?).unwrap_err();
    assert!(matches!(refused, SubmitError::Stalled { .. }), "{refused}");
    assert!(matches!(error_of(&mut waiting).await?, Error::Deadline { begun: false }));
    assert!(matches!(error_of(&mut running).await?, Error::Deadline { begun: true }));
    drop(release);
    wait_until_idle(|| engine.load()).await?;
    wait_for("the end of the stall", || engine.health() == Health::Alive).await?;
    assert_eq!(generate(&engine, &tokens, params, 5, None).await?.ids(), expected);
    Ok(())
}

/// The engine ends what is late by itself: here nobody listens, as with a client who does not read.
#[tokio::test]
async fn what_is_late_is_freed_though_nobody_listens() -> Result<()> {
    let (engine, faults) = faulty(LoadOptions { max_sequences: 1, ..options() })?;
    faults.slow_down(Duration::from_millis(20));
    let mut running = engine.submit(request(&engine, 250, Duration::from_millis(200))?)?;
    let mut waiting = engine.submit(request(&engine, 250, Duration::from_millis(100))?)?;
    wait_until_idle(|| engine.load()).await?;
    assert!(faults.steps() < 200, "it ran to its end");
    assert!(matches!(error_of(&mut running).await?, Error::Deadline { begun: true }));
    assert!(matches!(error_of(&mut waiting).await?, Error::Deadline { begun: false }));
    faults.slow_down(Duration::ZERO);
    assert_eq!(generate(&engine, &[5], greedy(&engine, 0)?, 3, None).await?.ids().len(), 3);
    Ok(())
}

#[tokio::test]
async fn an_encoder_that_hangs_says_so_and_deadlines_hold() -> Result<()> {
    let (encoder, faults) = faulty_encoder(LoadOptions { step_timeout: Some(Duration::from_millis(50)), ..options() })?;
    let text = || vec![vec![5, 6, 7]];
    let expected = encoder.submit(text())?.await?;
    let (release, hang) = channel();
    faults.set(Fault::Hang(hang));
    let running = encoder.submit_until(text(), Some(Instant::now() + Duration::from_millis(300)))?;
    wait_for("the step to begin", || !faults.is_armed()).await?;
    assert_eq!((encoder.load().running, encoder.load().waiting), (1, 0));
    let waiting = encoder.submit_until(text(), Some(Instant::now() + Duration::from_millis(200)))?;
    wait_for("the stall", || matches!(encoder.health(), Health::Stalled { .. })).await?;
    assert!(matches!(encoder.submit(text()).err(), Some(SubmitError::Stalled { .. })));
    assert!(matches!(waiting.await, Err(Error::Deadline { begun: false })));
    assert!(matches!(running.await, Err(Error::Deadline { begun: true })));
    drop(release);
    wait_until_idle(|| encoder.load()).await?;
    assert_eq!(encoder.submit(text())?.await?, expected);
    Ok(())
}

/// A call of thousands of texts holds up one of a single text by one step, and is not computed further once it is dropped.
#[tokio::test]
async fn a_long_call_does_not_hold_up_a_short_one() -> Result<()> {
    let (encoder, faults) = faulty_encoder(LoadOptions { token_budget: Some(30), ..options() })?;
    faults.slow_down(Duration::from_millis(5));
    let long = encoder.submit(vec![vec![5, 6, 7]; 2048])?;
    wait_for("the long call to begin", || faults.steps() > 0).await?;
    let before = faults.steps();
    encoder.submit(vec![vec![8, 9]])?.await?;
    assert!(faults.steps() - before <= 3, "{} steps before a call of one text", faults.steps() - before);
    drop(long);
    wait_until_idle(|| encoder.load()).await?;
    assert!(faults.steps() < 100, "the dropped call was computed on");
    Ok(())
}
