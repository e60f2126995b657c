//! The running program under many callers at once, with a cache that is too small for them: every answer that comes to its
//! end is the one that the same request gets alone, nothing is held afterwards, and the memory does not grow.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hearth_tests::{ServerProcess, checkpoint};
use serde_json::{Value, json};

const CLIENTS: usize = 64;
const ROUNDS: usize = 10;
/// One request in so many is given up by its caller.
const GIVEN_UP: usize = 10;
const GAUGES: [&str; 3] = ["hearth_requests_running{", "hearth_requests_waiting{", "hearth_kv_blocks_used{"];

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// A completion of its own: prompts short and long, some with one beginning; greedy and drawn; one choice and several.
fn request(number: usize) -> Value {
    let mut numbers = Numbers(number as u64);
    let shared = 40 * numbers.below(3);
    let own = 1 + numbers.below(120);
    let prompt: Vec<usize> =
        (0..shared).map(|index| 3 + index % 250).chain((0..own).map(|_| 3 + numbers.below(290))).collect();
    let choices = [1, 1, 1, 2, 4][numbers.below(5)];
    let temperature = [0.0, 0.8, 1.0][numbers.below(3)];
    let (max_tokens, seed) = (1 + numbers.below(80), number);
    json!({
        "model": "talker", "prompt": prompt, "max_tokens": max_tokens, "n": choices, "temperature": temperature,
        "seed": seed, "ignore_eos": true,
    })
}

/// The texts of an answer's choices, plain or streamed.
fn texts(answer: &str, choices: usize) -> Result<Vec<String>> {
    let documents: Vec<&str> = match answer.contains("data: ") {
        true => answer.lines().filter_map(|line| line.strip_prefix("data: ")).collect(),
        false => vec![answer],
    };
    let mut texts = vec![String::new(); choices];
    for document in documents.into_iter().filter(|document| *document != "[DONE]") {
        let document: Value = serde_json::from_str(document).with_context(|| document.to_owned())?;
        for choice in document["choices"].as_array().with_context(|| document.to_string())? {
            let index = choice["index"].as_u64().context("an index")? as usize;
            texts[index].push_str(choice["text"].as_str().context("a text")?);
        }
    }
    Ok(texts)
}

fn ask(server: &ServerProcess, mut request: Value, streamed: bool) -> Result<Vec<String>> {
    request["stream"] = json!(streamed);
    let (status, answer) = server.post("/v1/completions", &request.to_string())?;
    ensure!(status == 200, "{status}: {answer}");
    ensure!(!streamed || answer.contains("data: [DONE]"), "a stream without an end: {answer}");
    texts(&answer, request["n"].as_u64().context("n")? as usize)
}

/// Begins a request, reads some of the answer, and goes away.
fn give_up(server: &ServerProcess, mut request: Value, numbers: &mut Numbers) -> Result<()> {
    request["stream"] = json!(numbers.below(2) == 0);
    let body = request.to_string();
    let mut connection = TcpStream::connect(server.address())?;
    let head = format!("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
    connection.write_all((head + &body).as_bytes())?;
    connection.set_read_timeout(Some(Duration::from_millis(1 + numbers.below(40) as u64)))?;
    // Nothing may have come in that time.
    let _ = connection.read(&mut vec![0; 1 + numbers.below(600)]);
    Ok(())
}

fn metric(server: &ServerProcess, name: &str) -> Result<f64> {
    let (_, text) = server.get("/metrics")?;
    let line = text.lines().find(|line| line.starts_with(name) && line.contains("talker"));
    Ok(line.and_then(|line| line.rsplit(' ').next()).with_context(|| name.to_owned())?.parse()?)
}

fn wait_until_idle(server: &ServerProcess) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        let busy = GAUGES.iter().map(|name| metric(server, name)).sum::<Result<f64>>()?;
        if busy == 0.0 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("still busy after a minute")
}

/// Bytes of the process that are in memory.
fn resident(server: &ServerProcess) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

#[cfg(target_os = "linux")]
#[test]
fn many_callers_get_what_each_would_get_alone() -> Result<()> {
    let model = format!("talker={}", checkpoint("llama-linear-f32").path.display());
    // 128 blocks of 16 tokens: no more than a fifth of what 64 callers ask for.
    let arguments = ["--model", model.as_str(), "--kv-memory", "1", "--threads", "2"];
    let server = ServerProcess::start(Path::new(env!("CARGO_BIN_EXE_hearth")), &arguments)?;
    let alone: Vec<Vec<String>> =
        (0..CLIENTS).map(|number| ask(&server, request(number), false)).collect::<Result<_>>()?;
    let finished = AtomicUsize::new(0);
    let mut memory = Vec::new();
    for round in 0..ROUNDS {
        std::thread::scope(|scope| {
            let client = |client: usize| {
                let (server, alone, finished) = (&server, &alone, &finished);
                scope.spawn(move || {
                    let mut numbers = Numbers((round * CLIENTS + client) as u64 ^ 0x5eed);
                    let number = numbers.below(CLIENTS);
                    if numbers.below(GIVEN_UP) == 0 {
                        return give_up(server, request(number), &mut numbers);
                    }
                    let streamed = numbers.below(2) == 0;
                    let texts = ask(server, request(number), streamed)?;
                    ensure!(texts == alone[number], "request {number}, streamed {streamed}: not what it gets alone");
                    finished.fetch_add(1, Ordering::Relaxed);
                    Ok(())
                })
            };
            let clients: Vec<_> = (0..CLIENTS).map(client).collect();
            clients
                .into_iter()
                .try_for_each(|client| client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
        })?;
        wait_until_idle(&server)?;
        memory.push(resident(&server)?);
    }
    let finished = finished.into_inner();
    assert!(metric(&server, "hearth_preemptions_total{")? > 0.0, "the cache was large enough");
    assert!(metric(&server, "hearth_prefix_cache_hits_total{")? > 0.0, "nothing was shared");
    assert!(finished > CLIENTS * ROUNDS * 3 / 4, "{finished} answers came to their end");
    // The first rounds fill the cache and the buffers of threads and connections.
    let growth = memory[ROUNDS - 1].saturating_sub(memory[2]);
    assert!(growth < 8 << 20, "the memory grew by {growth} bytes: {memory:?}");
    Ok(())
}
