//! Endpoints through sudden ends: servers are killed in the middle of changes, and what comes up again is one of the
//! configurations that were asked for, whole, and no older than the last one that was acknowledged.

#![expect(clippy::print_stdout, reason = "what was drawn at random is for whoever reads a failure")]

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hearth_tests::{Postgres, ServerProcess, checkpoint};
use serde_json::{Value, json};
use uuid::Uuid;

const ROUNDS: usize = 6;
const ENDPOINT: &str = "/api/2.0/serving-endpoints/talk";

fn serve(state: &Path, database: Option<&str>) -> Result<ServerProcess> {
    let variables: Vec<(&str, &str)> = database.iter().map(|url| ("HEARTH_DATABASE", *url)).collect();
    let idle = state.join("idle.toml");
    std::fs::write(&idle, "endpoints = []\n")?;
    let idle = idle.display().to_string();
    ServerProcess::with_state(Path::new(env!("CARGO_BIN_EXE_hearth")), state, &["--config", &idle], &variables)
}

/// A configuration that tells its number in the names of its two entities.
fn config(number: usize) -> Value {
    let model = checkpoint("llama-linear-f32").path;
    let entities: Vec<Value> = ["a", "b"]
        .map(|name| json!({"name": format!("{name}-{number}"), "entity_name": model.display().to_string()}))
        .to_vec();
    let share = |name: &str, share: usize| json!({"served_entity_name": format!("{name}-{number}"), "traffic_percentage": share});
    let routes = json!([share("a", number % 101), share("b", 100 - number % 101)]);
    json!({"served_entities": entities, "traffic_config": {"routes": routes}})
}

/// The number of a whole configuration.
fn number(config: &Value) -> Result<usize> {
    let entities = config["served_entities"].as_array().context("entities")?;
    let names: Vec<&str> = entities.iter().filter_map(|entity| entity["name"].as_str()).collect();
    let [first, second] = names[..] else { anyhow::bail!("two entities, not {names:?}") };
    let number: usize = first.strip_prefix("a-").context("the first one's name")?.parse()?;
    ensure!(second == format!("b-{number}"), "of one configuration, not {names:?}");
    ensure!(config["traffic_config"]["routes"][0]["traffic_percentage"] == number % 101, "{config}");
    Ok(number)
}

fn view(server: &ServerProcess) -> Result<Value> {
    let (status, text) = server.get(ENDPOINT)?;
    ensure!(status == 200, "{status}: {text}");
    Ok(serde_json::from_str(&text)?)
}

/// The endpoint once nothing is being changed.
fn settled(server: &ServerProcess) -> Result<Value> {
    for _ in 0..3000 {
        let view = view(server)?;
        if view["state"]["config_update"] != "IN_PROGRESS" {
            return Ok(view);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    anyhow::bail!("the endpoint does not come up")
}

/// Changes the endpoint as fast as it can until the server is gone. Gives the last number that was acknowledged, and the last
/// one that was asked for.
fn change(server: &ServerProcess, mut next: usize) -> (usize, usize) {
    let mut acknowledged = next - 1;
    loop {
        match server.call("", "PUT", &format!("{ENDPOINT}/config"), &config(next).to_string()) {
            Ok((200, _)) => acknowledged = next,
            // The one before is still coming up.
            Ok((409, _)) => continue,
            Ok((status, text)) => println!("{status}: {text}"),
            Err(_) => return (acknowledged, next),
        }
        next += 1;
    }
}

fn killed_amid_changes(database: Option<&str>) -> Result<()> {
    let state = tempfile::tempdir()?;
    let mut server = serve(state.path(), database)?;
    let made = json!({"name": "talk", "config": config(0)});
    let (status, text) = server.call("", "POST", "/api/2.0/serving-endpoints", &made.to_string())?;
    ensure!(status == 200, "{text}");
    ensure!(number(&settled(&server)?["config"])? == 0, "the first configuration");
    let mut next = 1;
    for round in 0..ROUNDS {
        let wait = Duration::from_millis(20 + u64::from(Uuid::new_v4().as_bytes()[0]) * 2);
        let process = server.id();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(wait);
            let process = rustix::process::Pid::from_raw(i32::try_from(process).ok()?)?;
            rustix::process::kill_process(process, rustix::process::Signal::KILL).ok()
        });
        let (acknowledged, asked) = change(&server, next);
        ensure!(killer.join().ok().flatten().is_some(), "the server is killed");
        println!("round {round}: {acknowledged} was acknowledged and {asked} asked for after {wait:?}");
        server = serve(state.path(), database)?;
        // Ready: what was served before is served again.
        let body = json!({"prompt": "rain", "max_tokens": 1}).to_string();
        let (status, text) = server.call("", "POST", "/serving-endpoints/talk/invocations", &body)?;
        ensure!(status == 200, "{status}: {text}");
        let view = settled(&server)?;
        let served = number(&view["config"])?;
        ensure!((acknowledged..=asked).contains(&served), "{served} is served: {view}");
        ensure!(view["state"]["ready"] == "READY" && view["pending_config"].is_null(), "{view}");
        next = asked + 1;
    }
    Ok(())
}

#[test]
fn a_server_that_is_killed_amid_changes_comes_up_with_the_last_one_that_it_acknowledged() -> Result<()> {
    killed_amid_changes(None)
}

#[test]
fn so_does_one_on_postgres() -> Result<()> {
    let Some(postgres) = Postgres::start()? else { return Ok(()) };
    killed_amid_changes(Some(&postgres.url()))
}
