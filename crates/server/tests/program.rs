//! The program as it is used: its doors, what goes to stdout, its errors, and its end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use hearth_tests::{ServerProcess, checkpoint};
use serde_json::{Value, json};

fn path(name: &str) -> String {
    checkpoint(name).path.display().to_string()
}

fn hearth(arguments: &[&str]) -> Result<Output> {
    let state = tempfile::tempdir()?;
    Ok(Command::new(env!("CARGO_BIN_EXE_hearth")).args(arguments).env("XDG_STATE_HOME", state.path()).output()?)
}

fn stdout(arguments: &[&str]) -> Result<String> {
    let output = hearth(arguments)?;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn error(arguments: &[&str]) -> Result<String> {
    let output = hearth(arguments)?;
    assert!(!output.status.success(), "{arguments:?}");
    assert!(output.stdout.is_empty(), "only answers go to stdout: {}", String::from_utf8_lossy(&output.stdout));
    Ok(String::from_utf8(output.stderr)?)
}

#[test]
fn run_prints_the_answer_and_nothing_else() -> Result<()> {
    let model = path("llama-linear-f32");
    let arguments = ["run", model.as_str(), "rain", "--temperature", "1.5", "--seed", "7", "--max-tokens", "12"];
    let answer = stdout(&arguments)?;
    assert!(answer.ends_with('\n') && answer.trim().len() > 1, "{answer:?}");
    assert_eq!(answer, stdout(&arguments)?, "the same seed gives the same answer");
    let other: Vec<&str> = arguments.iter().map(|argument| if *argument == "7" { "8" } else { *argument }).collect();
    assert_ne!(answer, stdout(&other)?);
    Ok(())
}

#[test]
fn run_answers_with_json_of_a_schema() -> Result<()> {
    let (model, file) = (path("llama-linear-f32"), tempfile::NamedTempFile::new()?);
    let schema = file.path().display().to_string();
    let arguments = ["run", model.as_str(), "rain", "--json-schema", schema.as_str()];
    std::fs::write(
        &file,
        json!({"type": "object", "properties": {"wet": {"type": "boolean"}}, "required": ["wet"]}).to_string(),
    )?;
    let answer: Value = serde_json::from_str(&stdout(&arguments)?)?;
    assert!(answer["wet"].is_boolean(), "{answer}");
    std::fs::write(&file, json!({"not": {"type": "null"}}).to_string())?;
    let refusal = error(&arguments)?;
    assert!(refusal.contains(&schema) && refusal.contains("the keyword `not` is not supported"), "{refusal}");
    Ok(())
}

#[test]
fn embed_prints_one_array_a_line() -> Result<()> {
    let lines = stdout(&["embed", &path("bert-mean"), "rain", "hills and a river", "rain"])?;
    let vectors: Vec<Vec<f32>> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(vectors.len(), 3);
    assert!(vectors.iter().all(|vector| vector.len() == 32));
    assert_eq!(vectors[0], vectors[2]);
    assert_ne!(vectors[0], vectors[1]);
    Ok(())
}

#[test]
fn bench_reports_what_was_measured() -> Result<()> {
    let model = path("llama-tied-f32");
    let report =
        stdout(&["bench", &model, "--prompt-tokens", "20", "--output-tokens", "5", "--json", "--threads", "1"])?;
    let report: Value = serde_json::from_str(&report)?;
    for key in ["prefill_tokens_per_second", "decode_tokens_per_second", "time_to_first_token_seconds"] {
        assert!(report[key].as_f64().context(key)? > 0.0, "{report}");
    }
    assert_eq!(report["threads"], 1);
    assert_eq!(report["model"], model);
    Ok(())
}

#[test]
fn list_shows_the_catalogue() -> Result<()> {
    let lines = stdout(&["list", "--json"])?;
    let cards: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert!(cards.iter().any(|card| card["name"] == "smollm2-135m-instruct"));
    let card = |name: &str| cards.iter().find(|card| card["name"] == name).context(name.to_owned());
    let (small, huge) = (card("all-minilm-l6-v2")?, card("llama-3.1-405b-instruct")?);
    let memory = &huge["memory"];
    assert_eq!(memory["weights"], 2 * 405_853_388_800_u64);
    let sum = ["weights", "cache", "work"].iter().filter_map(|part| memory[part].as_u64()).sum::<u64>();
    assert_eq!(memory["total"], sum);
    assert_eq!((&small["memory"]["fits"], &small["memory"]["needs_quant"]), (&json!(true), &Value::Null));
    let table = stdout(&["list"])?;
    assert!(table.contains("all-minilm-l6-v2"));
    assert!(table.lines().all(|line| line.len() <= 100), "{table}");
    Ok(())
}

/// A machine that can hold it has not been built yet; nothing is fetched for what cannot run.
#[test]
fn a_model_that_cannot_fit_is_refused_before_anything_is_fetched() -> Result<()> {
    let huge = tempfile::tempdir()?;
    let sizes = json!({
        "model_type": "llama", "hidden_size": 1 << 20, "intermediate_size": 1 << 22, "num_hidden_layers": 4096,
        "num_attention_heads": 8192, "num_key_value_heads": 8192, "vocab_size": 1 << 20,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
    });
    std::fs::write(huge.path().join("config.json"), sizes.to_string())?;
    std::fs::copy(checkpoint("llama-tied-f32").path.join("model.safetensors"), huge.path().join("model.safetensors"))?;
    let path = huge.path().display().to_string();
    let named = format!("huge={path}");
    for arguments in
        [vec!["run", &path, "hello"], vec!["serve", "--port", "0", "--model", &named], vec!["bench", &path]]
    {
        let said = error(&arguments)?;
        assert!(said.contains("not fit into memory: weights ") && said.contains(" are available"), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    Ok(())
}

#[test]
fn errors_say_what_is_wrong() -> Result<()> {
    let decoder = path("llama-tied-f32");
    for (arguments, expected) in [
        (vec!["run", "no-such-model", "hello"], "no-such-model"),
        (vec!["run", &decoder, "hello", "--temperature", "3"], "temperature"),
        (vec!["run", &path("bert-cls"), "hello"], "hearth embed"),
        (vec!["embed", &decoder, "hello"], "hearth run"),
        (vec!["serve", "--host", "0.0.0.0"], "HEARTH_TOKEN"),
        (vec!["serve", "--port", "0", "--model", "talker=/no/such/folder"], "/no/such/folder"),
        (vec!["bench", &decoder, "--concurrency", "0"], "--concurrency must be at least 1, not 0"),
    ] {
        let said = error(&arguments)?;
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    Ok(())
}

/// A caller who sends half a request and falls silent does not hold up the end of the program.
#[cfg(unix)]
#[test]
fn a_signal_ends_the_program_though_a_caller_is_silent() -> Result<()> {
    let model = format!("talker={}", path("llama-linear-f32"));
    let arguments = ["--model", model.as_str(), "--drain-timeout", "1"];
    let mut server = ServerProcess::start(Path::new(env!("CARGO_BIN_EXE_hearth")), &arguments)?;
    let mut silent = TcpStream::connect(server.address())?;
    silent.write_all(b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 50\r\n\r\n{")?;
    Command::new("kill").arg("-TERM").arg(server.id().to_string()).status()?;
    assert!(server.wait(Duration::from_secs(20))?.success());
    drop(silent);
    Ok(())
}

/// SIGTERM: a stream that has begun comes to its end, and the program ends by itself with success.
#[cfg(unix)]
#[test]
fn a_signal_lets_answers_come_to_their_end() -> Result<()> {
    let model = format!("talker={}", path("llama-linear-f32"));
    let mut server = ServerProcess::start(Path::new(env!("CARGO_BIN_EXE_hearth")), &["--model", &model])?;
    let body =
        json!({"model": "talker", "prompt": "rain", "max_tokens": 400, "ignore_eos": true, "n": 8, "stream": true});
    let body = body.to_string();
    let head = "host: localhost\r\nconnection: close\r\ncontent-length";
    let mut connection = TcpStream::connect(server.address())?;
    write!(connection, "POST /v1/completions HTTP/1.1\r\n{head}: {}\r\n\r\n{body}", body.len())?;
    let mut begun = [0; 512];
    connection.read_exact(&mut begun)?;
    Command::new("kill").arg("-TERM").arg(server.id().to_string()).status()?;
    let mut answer = String::from_utf8_lossy(&begun).into_owned();
    connection.read_to_string(&mut answer)?;
    assert!(answer.contains("data: [DONE]"), "{answer}");
    let usage = "\"completion_tokens\":3200";
    assert!(answer.contains(usage), "all eight answers have all their tokens");
    assert!(server.wait(Duration::from_secs(20))?.success());
    Ok(())
}

/// Every line that a request causes carries the request's id, in a form that programs read.
#[test]
fn the_log_can_be_json_with_the_ids_of_requests() -> Result<()> {
    let (mut command, state) = (Command::new(env!("CARGO_BIN_EXE_hearth")), tempfile::tempdir()?);
    let model = format!("talker={}", path("llama-tied-f32"));
    command.args(["serve", "--port", "0", "--log-format", "json", "--model", &model]).env_remove("HEARTH_LOG");
    command.arg("--state").arg(state.path());
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stderr.take().context("stderr")?).lines().map_while(Result::ok);
    let address = lines.find_map(|line| line.strip_prefix("listening on http://").map(str::to_owned));
    let mut connection = TcpStream::connect(address.context("an address")?)?;
    connection.write_all(b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\nx-request-id: number-five\r\n\r\n")?;
    let refused = lines.find_map(|line| serde_json::from_str::<Value>(&line).ok());
    child.kill()?;
    child.wait()?;
    let refused = refused.context("a line about the request")?;
    assert_eq!(
        (&refused["span"]["id"], &refused["fields"]["status"]),
        (&json!("number-five"), &json!(404)),
        "{refused}"
    );
    Ok(())
}
