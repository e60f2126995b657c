//! Inference tables of the real program: what was answered is kept though the server be killed, in SQLite and in Postgres, and goes
//! when it is too old.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hearth_tests::{Postgres, ServerProcess, checkpoint};
use serde_json::{Value, json};

const TABLE: &str = "/api/2.0/serving-endpoints/talker/inference-table";

fn serve(state: &Path, variables: &[(&str, &str)], more: &[&str]) -> Result<ServerProcess> {
    let file = state.join("hearth.toml");
    let model = checkpoint("llama-linear-f32").path.display().to_string();
    let table = "ai_gateway.inference_table_config = { enabled = true }";
    std::fs::write(&file, format!("[[endpoints]]\nname = \"talker\"\nmodel = {model:?}\n{table}\n"))?;
    let file = file.display().to_string();
    let arguments = [&["--config", &*file], more].concat();
    ServerProcess::with_state(Path::new(env!("CARGO_BIN_EXE_hearth")), state, &arguments, variables)
}

/// The rows, once there are so many.
fn rows(server: &ServerProcess, expected: usize) -> Result<Vec<Value>> {
    let begun = Instant::now();
    loop {
        let (status, text) = server.get(TABLE)?;
        ensure!(status == 200, "{status}: {text}");
        let rows = serde_json::from_str::<Value>(&text)?["payloads"].as_array().context("rows")?.clone();
        if rows.len() == expected {
            return Ok(rows);
        }
        ensure!(begun.elapsed() < Duration::from_secs(30), "{} rows, not {expected}", rows.len());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn kept(postgres: Option<&Postgres>) -> Result<()> {
    let state = tempfile::tempdir()?;
    let url = postgres.map(Postgres::url);
    let variables: Vec<(&str, &str)> = url.iter().map(|url| ("HEARTH_DATABASE", url.as_str())).collect();
    let server = serve(state.path(), &variables, &[])?;
    for number in 0..5 {
        let body = json!({"prompt": format!("rain {number}"), "max_tokens": 3, "stream": number % 2 == 1});
        let (status, text) = server.post("/serving-endpoints/talker/invocations", &body.to_string())?;
        ensure!(status == 200, "{text}");
    }
    // Dropping kills it with the signal that no process hears, and before what was kept can be in the store.
    drop(server);
    let server = serve(state.path(), &variables, &[])?;
    for (number, row) in rows(&server, 5)?.iter().enumerate() {
        let request: Value = serde_json::from_str(row["request"].as_str().context("a request")?)?;
        assert_eq!(request["prompt"], format!("rain {number}"));
        let response: Value = serde_json::from_str(row["response"].as_str().context("a response")?)?;
        assert_eq!(
            (&response["object"], &response["usage"]["completion_tokens"]),
            (&json!("text_completion"), &json!(3))
        );
        assert_eq!((&row["status_code"], &row["sampling_fraction"]), (&json!(200), &json!(1.0)));
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    let command = command.args(["usage", "payloads", "talker", "--state"]).arg(state.path());
    let csv = String::from_utf8(command.envs(variables.iter().copied()).output()?.stdout)?;
    assert_eq!(csv.lines().count(), 6, "{csv}");
    assert!(csv.starts_with("databricks_request_id,request_date,client_request_id,request_time,status_code,"), "{csv}");
    Ok(())
}

#[test]
fn what_was_answered_is_kept_though_the_server_be_killed() -> Result<()> {
    kept(None)
}

#[test]
fn so_it_is_in_postgres() -> Result<()> {
    let Some(postgres) = Postgres::start()? else { return Ok(()) };
    kept(Some(&postgres))
}
