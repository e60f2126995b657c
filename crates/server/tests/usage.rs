//! Usage that survives: servers are killed in the middle of a load, and what their clients were answered is accounted for
//! afterwards; and servers on one store see what the others do.

#![expect(clippy::print_stdout, reason = "what was drawn at random is for whoever reads a failure")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hearth_tests::{Postgres, ServerProcess, checkpoint};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use uuid::Uuid;

const CLIENTS: usize = 6;
const ROUNDS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder for the state of servers, and where their store is.
struct Place {
    state: tempfile::TempDir,
    database: Option<String>,
}

impl Place {
    fn new(postgres: Option<&Postgres>) -> Result<Self> {
        Ok(Self { state: tempfile::tempdir()?, database: postgres.map(Postgres::url) })
    }

    fn variables(&self) -> Vec<(&str, &str)> {
        self.database.iter().map(|url| ("HEARTH_DATABASE", url.as_str())).collect()
    }

    fn serve(&self) -> Result<ServerProcess> {
        let model = |name: &str, tiny: &str| format!("{name}={}", checkpoint(tiny).path.display());
        let (talker, vectors) = (model("talker", "llama-linear-f32"), model("vectors", "bert-mean"));
        let arguments = ["--model", &talker, "--model", &vectors];
        ServerProcess::with_state(
            Path::new(env!("CARGO_BIN_EXE_hearth")),
            self.state.path(),
            &arguments,
            &self.variables(),
        )
    }

    /// What a command of `hearth` writes.
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
        let command = command.args(arguments).arg("--state").arg(self.state.path()).envs(self.variables());
        let output = command.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// A request that was sent, or what its answer said of itself when it was complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    streamed: bool,
    tokens: Option<(i64, i64)>,
}

/// Asks until there is no answer any more. Gives each request by its id.
fn client(address: SocketAddr, name: &str, stop: &AtomicBool) -> HashMap<String, Seen> {
    let mut seen = HashMap::new();
    for number in 0.. {
        let id = format!("{name}-{number}");
        let streamed = number % 3 == 1;
        let (path, body) = match number % 3 {
            2 => ("/v1/embeddings", json!({"model": "vectors", "input": ["rain", "hills"]})),
            _ => {
                let tokens = 1 + number % 7;
                let body = json!({"model": "talker", "prompt": "rain", "max_tokens": tokens, "ignore_eos": true});
                ("/v1/completions", with(body, "stream", streamed.into()))
            }
        };
        let answer = ask(address, path, &id, &body);
        let tokens = answer.as_ref().ok().and_then(|answer| usage(answer, streamed));
        seen.insert(id, Seen { streamed, tokens });
        if tokens.is_none() || stop.load(Ordering::Relaxed) {
            break;
        }
    }
    seen
}

fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

/// The whole answer, as far as it came.
fn ask(address: SocketAddr, path: &str, id: &str, body: &Value) -> Result<String> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let body = body.to_string();
    let head = format!("POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\nx-request-id: {id}\r\n");
    connection.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
    let mut answer = Vec::new();
    // What came before the connection broke counts too.
    let _ = connection.read_to_end(&mut answer);
    Ok(String::from_utf8(answer)?)
}

/// The tokens of an answer, if it is complete.
fn usage(answer: &str, streamed: bool) -> Option<(i64, i64)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    let usage = match streamed {
        true => {
            let mut data: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
            if data.pop()? != "[DONE]" {
                return None;
            }
            serde_json::from_str::<Value>(data.pop()?).ok()?["usage"].clone()
        }
        false => serde_json::from_str::<Value>(body).ok()?["usage"].clone(),
    };
    Some((usage["prompt_tokens"].as_i64()?, usage["completion_tokens"].as_i64().unwrap_or(0)))
}

/// A load that is cut off by `kill -9` at some point; gives what its clients saw.
fn round(place: &Place, round: usize) -> Result<HashMap<String, Seen>> {
    let server = place.serve()?;
    let (address, stop) = (server.address(), AtomicBool::new(false));
    let moment = Duration::from_millis(u64::try_from(Uuid::new_v4().as_u128() % 700)?);
    println!("round {round}: killed after {moment:?}");
    std::thread::scope(|scope| {
        let names = (0..CLIENTS).map(|client| format!("{round}-{client}"));
        let clients: Vec<_> = names
            .map(|name| {
                scope.spawn({
                    let stop = &stop;
                    move || client(address, &name, stop)
                })
            })
            .collect();
        std::thread::sleep(moment);
        // Dropping a child's process kills it with the signal that no process hears.
        drop(server);
        stop.store(true, Ordering::Relaxed);
        let seen =
            clients.into_iter().map(|client| client.join().ok().context("a client")).collect::<Result<Vec<_>>>()?;
        Ok(seen.into_iter().flatten().collect())
    })
}

/// The rows of a CSV, by the names of its columns.
fn rows(text: &str) -> Result<Vec<BTreeMap<String, String>>> {
    csv::Reader::from_reader(text.as_bytes()).deserialize().map(|row| Ok(row?)).collect()
}

fn number(row: &BTreeMap<String, String>, column: &str) -> Result<i64> {
    Ok(row.get(column).context(column.to_owned())?.parse()?)
}

fn wait_for(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if holds()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("waited in vain for {what}")
}

fn kills_lose_nothing(postgres: Option<&Postgres>) -> Result<()> {
    let place = Place::new(postgres)?;
    let mut seen = HashMap::new();
    for number in 0..ROUNDS {
        seen.extend(round(&place, number)?);
    }
    let acknowledged: HashMap<&String, (i64, i64)> =
        seen.iter().filter_map(|(id, seen)| Some((id, seen.tokens?))).collect();
    ensure!(acknowledged.len() > CLIENTS * ROUNDS, "only {} answers in all", acknowledged.len());

    // Whoever comes next brings what was left behind into the store, and what is left of that when it ends.
    let mut server = place.serve()?;
    kill_process(Pid::from_raw(i32::try_from(server.id())?).context("a process")?, Signal::TERM)?;
    server.wait(PATIENCE)?;
    let left = std::fs::read_dir(place.state.path().join("usage"))?.count();
    assert_eq!(left, 0, "files of the journal are left");

    let written = rows(&place.run(&["usage", "export"])?)?;
    let mut unseen = HashSet::new();
    let (mut input, mut output) = (0, 0);
    let ids: HashSet<&String> = written.iter().map(|row| &row["request_id"]).collect();
    assert_eq!(ids.len(), written.len(), "requests that are written down twice");
    for row in &written {
        let (id, tokens) =
            (&row["request_id"], (number(row, "input_token_count")?, number(row, "output_token_count")?));
        let sent = seen.get(id).with_context(|| format!("nobody has sent {row:?}"))?;
        (input, output) = (input + tokens.0, output + tokens.1);
        match acknowledged.get(id) {
            Some(told) => {
                assert_eq!((*told, row["status_code"].as_str()), (tokens, "200"), "{row:?}");
                assert_eq!(row["request_streaming"], sent.streamed.to_string(), "{row:?}");
            }
            None => drop(unseen.insert(id)),
        }
    }
    let lost: Vec<_> = acknowledged.keys().filter(|id| !ids.contains(*id)).collect();
    assert!(lost.is_empty(), "answered and not accounted for: {lost:?}");
    println!("{} answers were seen, {} were in flight and are accounted for", acknowledged.len(), unseen.len());
    assert!(unseen.len() <= CLIENTS * ROUNDS, "more than were in flight: {unseen:?}");

    let sums = rows(&place.run(&["usage", "export", "--group-by", "endpoint,day"])?)?;
    let sum = |column| sums.iter().map(|row| number(row, column)).sum::<Result<i64>>();
    assert_eq!((sum("input_token_count")?, sum("output_token_count")?), (input, output));
    assert_eq!(sum("request_count")?, i64::try_from(written.len())?);
    Ok(())
}

#[test]
fn what_clients_were_answered_is_accounted_for_however_often_the_server_is_killed() -> Result<()> {
    kills_lose_nothing(None)
}

#[test]
fn what_clients_were_answered_is_accounted_for_in_postgres_too() -> Result<()> {
    let Some(postgres) = Postgres::start()? else { return Ok(()) };
    kills_lose_nothing(Some(&postgres))
}

/// Status and body of a request with a token.
fn call(server: &ServerProcess, token: &str, request: (&str, &str), body: &Value) -> Result<(u16, Value)> {
    let (method, path) = request;
    let mut connection = TcpStream::connect(server.address())?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\nauthorization: Bearer {token}");
    connection.write_all(format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a head")?;
    let status = head.split(' ').nth(1).context("a status")?.parse()?;
    Ok((status, serde_json::from_str(body).with_context(|| answer.clone())?))
}

/// Two servers on one store. Where that is a file they share the folder of their state too, and one takes over what the other
/// leaves behind.
fn see_each_other(first_place: &Place, second_place: &Place) -> Result<()> {
    let (first, second) = (first_place.serve()?, second_place.serve()?);
    let admin = first_place.run(&["token", "create", "--user", "ada@example.com", "--admin"])?;
    let admin = admin.trim();
    let status = |server: &ServerProcess, token: &str| -> Result<u16> {
        Ok(call(server, token, ("GET", "/api/2.0/preview/scim/v2/Me"), &Value::Null)?.0)
    };
    let both = [&first, &second];
    for server in both {
        wait_for("a token of the command line", || {
            Ok(status(server, admin)? == 200 && status(server, "guess")? == 401)
        })?;
    }
    let (_, made) = call(&first, admin, ("POST", "/api/2.0/token/create"), &json!({"comment": "for a while"}))?;
    let token = made["token_value"].as_str().with_context(|| made.to_string())?;
    assert_eq!(status(&first, token)?, 200, "at once where it was made");
    wait_for("a token of the other server", || Ok(status(&second, token)? == 200))?;

    let ask = json!({"model": "talker", "prompt": "rain", "max_tokens": 3, "ignore_eos": true});
    let (code, answer) = call(&first, token, ("POST", "/v1/completions"), &ask)?;
    assert_eq!(code, 200, "{answer}");

    let id = &made["token_info"]["token_id"];
    call(&second, admin, ("POST", "/api/2.0/token/delete"), &json!({"token_id": id}))?;
    assert_eq!(status(&second, token)?, 401, "at once where it was revoked");
    wait_for("a revocation by the other server", || Ok(status(&first, token)? == 401))?;

    let model = checkpoint("llama-linear-f32").path.display().to_string();
    let config = json!({"served_entities": [{"name": "only", "entity_name": model}]});
    let (code, made) =
        call(&first, admin, ("POST", "/api/2.0/serving-endpoints"), &json!({"name": "new", "config": config}))?;
    assert_eq!(code, 200, "{made}");
    let ask = with(ask, "model", "new".into());
    for server in both {
        wait_for("an endpoint", || Ok(call(server, admin, ("POST", "/v1/completions"), &ask)?.0 == 200))?;
    }
    drop(first);
    wait_for("what a server that was killed has answered", || {
        let (_, page) = call(&second, admin, ("GET", "/api/2.0/serving/endpoint-usage?status_code=200"), &Value::Null)?;
        let rows = page["usage"].as_array().context("rows")?;
        let of = |name: &str| rows.iter().filter(|row| row["endpoint_name"] == name).count();
        // Where the folder is not shared, the next server on it would bring what was written in the last moment.
        Ok(of("talker") == 1 && (of("new") == 2 || first_place.database.is_some() && of("new") == 1))
    })
}

#[test]
fn servers_on_one_file_see_what_the_others_do() -> Result<()> {
    let place = Place::new(None)?;
    see_each_other(&place, &place)
}

#[test]
fn servers_on_one_postgres_see_what_the_others_do() -> Result<()> {
    let Some(postgres) = Postgres::start()? else { return Ok(()) };
    see_each_other(&Place::new(Some(&postgres))?, &Place::new(Some(&postgres))?)
}
