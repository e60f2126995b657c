//! Limits and budgets of the real program: of many clients exactly as many are admitted as there is room for, also over two
//! servers on one Postgres, what is not used is given back, and budgets survive a killed server.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use hearth_tests::{Postgres, ServerProcess, checkpoint};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

const CLIENTS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(60);
const ENDPOINTS: &str = "/api/2.0/serving-endpoints";

/// An answer with its head.
struct Answered {
    status: u16,
    head: String,
    body: String,
}

impl Answered {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn left(&self, of: &str) -> Result<i64> {
        let name = format!("x-ratelimit-remaining-{of}");
        Ok(self.header(&name).with_context(|| format!("no {name}: {}\n{}", self.head, self.body))?.parse()?)
    }
}

/// Sends a request; the connection, with nothing read of it.
fn sent(address: SocketAddr, path: &str, body: &Value) -> Result<TcpStream> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let body = body.to_string();
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    connection.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
    Ok(connection)
}

fn ask(address: SocketAddr, path: &str, body: &Value) -> Result<Answered> {
    let mut answer = String::new();
    sent(address, path, body)?.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a head")?;
    let status = head.split(' ').nth(1).context("an answer has a status")?.parse()?;
    Ok(Answered { status, head: head.to_owned(), body: body.to_owned() })
}

/// A call that reads five tokens and writes `written`.
fn call(endpoint: &str, written: usize) -> Value {
    json!({"model": endpoint, "prompt": [5, 6, 7, 8, 9], "max_tokens": written, "ignore_eos": true})
}

/// Servers on one store.
struct House {
    servers: Vec<ServerProcess>,
    _states: Vec<TempDir>,
}

impl House {
    fn new(postgres: Option<&Postgres>) -> Result<Self> {
        let (mut servers, mut states) = (Vec::new(), Vec::new());
        let url = postgres.map(Postgres::url);
        for _ in 0..if postgres.is_some() { 2 } else { 1 } {
            let state = tempfile::tempdir()?;
            let model = format!("spare={}", checkpoint("llama-linear-f32").path.display());
            let variables: Vec<(&str, &str)> = url.iter().map(|url| ("HEARTH_DATABASE", url.as_str())).collect();
            servers.push(ServerProcess::with_state(hearth(), state.path(), &["--model", &model], &variables)?);
            states.push(state);
        }
        Ok(Self { servers, _states: states })
    }

    fn address(&self, client: usize) -> SocketAddr {
        self.servers[client % self.servers.len()].address()
    }

    /// Makes an endpoint, and waits until every server answers it.
    fn endpoint(&self, name: &str) -> Result<()> {
        let entity = json!({"entity_name": checkpoint("llama-linear-f32").path.display().to_string()});
        let body = json!({"name": name, "config": {"served_entities": [entity]}});
        let (status, answer) = self.servers[0].ask(ENDPOINTS, &body)?;
        ensure!(status == 200, "{answer}");
        for server in &self.servers {
            wait_for(name, || Ok(ask(server.address(), "/v1/completions", &call(name, 1))?.status == 200))?;
        }
        Ok(())
    }

    /// Sets the limits at the first server, and waits until the last one knows of them.
    fn limit(&self, endpoint: &str, limits: &Value) -> Result<()> {
        let path = format!("{ENDPOINTS}/{endpoint}/ai-gateway");
        let body = json!({"rate_limits": limits}).to_string();
        let (status, answer) = self.servers[0].call("", "PUT", &path, &body)?;
        ensure!(status == 200, "{answer}");
        let last = self.servers.last().context("a server")?;
        let shown = || {
            let (_, answer) = last.call("", "GET", &format!("{ENDPOINTS}/{endpoint}"), "")?;
            Ok(serde_json::from_str::<Value>(&answer)?["ai_gateway"]["rate_limits"] == *limits)
        };
        wait_for("the limits", shown)
    }

    /// How many clients that call all at once are admitted. The others are refused.
    fn admitted(&self, body: &Value) -> Result<usize> {
        let begin = Barrier::new(CLIENTS);
        let statuses = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    let begin = &begin;
                    scope.spawn(move || {
                        begin.wait();
                        let answer = ask(self.address(client), "/v1/completions", body)?;
                        if answer.status == 429 {
                            let wait: u32 = answer.header("retry-after").context("a time to wait")?.parse()?;
                            ensure!((1..=60).contains(&wait), "{wait}");
                            ensure!(answer.body.contains("REQUEST_LIMIT_EXCEEDED: Exceeded the "), "{}", answer.body);
                        }
                        Ok(answer.status)
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().ok().context("a client")?).collect::<Result<Vec<u16>>>()
        })?;
        let of = |status: u16| statuses.iter().filter(|one| **one == status).count();
        ensure!(of(200) + of(429) == CLIENTS, "{statuses:?}");
        Ok(of(200))
    }
}

fn hearth() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_hearth"))
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

/// Waits for the next minute where this one is half over.
fn in_one_minute() -> Result<()> {
    let milliseconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() % 60_000;
    if milliseconds > 30_000 {
        std::thread::sleep(Duration::from_millis(u64::try_from(60_050 - milliseconds)?));
    }
    Ok(())
}

fn exactly_as_many_as_there_is_room_for(postgres: Option<&Postgres>) -> Result<()> {
    let house = House::new(postgres)?;
    for name in ["calls", "tokens", "both"] {
        house.endpoint(name)?;
    }
    house.limit("calls", &json!([{"calls": 23, "renewal_period": "minute", "key": "endpoint"}]))?;
    // Calls were counted in no limit until now.
    in_one_minute()?;
    assert_eq!(house.admitted(&call("calls", 5))?, 23);
    assert_eq!(house.admitted(&call("calls", 5))?, 0);

    house.limit("tokens", &json!([{"tokens": 175, "renewal_period": "minute", "key": "endpoint"}]))?;
    in_one_minute()?;
    // Each reads five and writes five.
    assert_eq!(house.admitted(&call("tokens", 5))?, 17);
    let last = ask(house.address(0), "/v1/completions", &call("tokens", 1))?;
    assert_eq!(last.status, 429, "of 175 tokens 170 are used, and this would take six: {}", last.body);
    assert!(last.body.contains("170 tokens are used or reserved, and this call may take 6 tokens"), "{}", last.body);

    // All or nothing: whoever is refused for one of them takes nothing of the other.
    let limits = json!([
        {"calls": 1000, "tokens": 100, "renewal_period": "minute", "key": "endpoint"},
        {"calls": 7, "renewal_period": "minute", "key": "user"},
    ]);
    house.limit("both", &limits)?;
    in_one_minute()?;
    assert_eq!(house.admitted(&call("both", 5))?, 7);
    house.limit("both", &json!([limits[0]]))?;
    let answer = ask(house.address(1), "/v1/completions", &call("both", 5))?;
    assert_eq!((answer.status, answer.left("requests")?, answer.left("tokens")?), (200, 992, 20), "{}", answer.body);
    Ok(())
}

#[test]
fn many_clients_of_one_server_get_exactly_what_there_is() -> Result<()> {
    exactly_as_many_as_there_is_room_for(None)
}

#[test]
fn many_clients_of_two_servers_on_one_postgres_get_exactly_what_there_is() -> Result<()> {
    let Some(postgres) = Postgres::start()? else { return Ok(()) };
    exactly_as_many_as_there_is_room_for(Some(&postgres))
}

fn what_is_not_used_is_given_back(postgres: Option<&Postgres>) -> Result<()> {
    let house = House::new(postgres)?;
    house.endpoint("talker")?;
    in_one_minute()?;
    house.limit("talker", &json!([{"tokens": 1000, "renewal_period": "minute", "key": "endpoint"}]))?;
    // What others have left, seen from the other server; asking takes six tokens.
    let mut probes = 0;
    let mut left = || -> Result<i64> {
        probes += 1;
        let answer = ask(house.address(1), "/v1/completions", &call("talker", 1))?;
        Ok(answer.left("tokens")? + 6 * probes)
    };
    let begun = left()?;
    // One that ends early: a stop text that every text has.
    let body = json!({"model": "talker", "prompt": [5, 6, 7, 8, 9], "max_tokens": 40, "logprobs": 1});
    let answer = ask(house.address(0), "/v1/completions", &body)?;
    let document: Value = serde_json::from_str(&answer.body)?;
    let used = document["usage"]["total_tokens"].as_i64().context("usage")?;
    assert_eq!(answer.left("tokens")?, begun - 6 - 45, "reserved while it ran");
    wait_for("the settlement", || Ok(left()? == begun - used))?;

    // One that nobody reads to its end.
    let body =
        json!({"model": "talker", "prompt": "rain on the hills", "max_tokens": 40, "ignore_eos": true, "stream": true});
    let before = left()?;
    let mut connection = sent(house.address(0), "/v1/completions", &body)?;
    let mut piece = [0; 1024];
    let read = connection.read(&mut piece)?;
    ensure!(String::from_utf8_lossy(&piece[..read]).starts_with("HTTP/1.1 200 "));
    drop(connection);
    std::thread::sleep(Duration::from_millis(500));
    let taken = before - left()?;
    assert!((2..=60).contains(&taken), "{taken} tokens of a stream that broke off");
    Ok(())
}

#[test]
fn what_is_not_used_is_given_back_by_one_server() -> Result<()> {
    what_is_not_used_is_given_back(None)
}

#[test]
fn what_is_not_used_is_given_back_by_two_servers_on_one_postgres() -> Result<()> {
    let Some(postgres) = Postgres::start()? else { return Ok(()) };
    what_is_not_used_is_given_back(Some(&postgres))
}

#[test]
fn where_nobody_can_count_calls_with_limits_are_refused_and_others_answered() -> Result<()> {
    let Some(postgres) = Postgres::start()? else { return Ok(()) };
    let house = House::new(Some(&postgres))?;
    house.endpoint("limited")?;
    house.limit("limited", &json!([{"calls": 100, "renewal_period": "minute", "key": "endpoint"}]))?;
    assert_eq!(ask(house.address(0), "/v1/completions", &call("limited", 1))?.status, 200);
    drop(postgres);
    let answer = ask(house.address(0), "/v1/completions", &call("limited", 1))?;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.body.contains("the counters of limits and budgets cannot be reached"), "{}", answer.body);
    house.servers[0].wait_for_log("limits and budgets cannot be counted")?;
    assert_eq!(ask(house.address(0), "/v1/completions", &call("spare", 1))?.status, 200);
    Ok(())
}

/// How many tokens of the budget are used.
fn used(server: &ServerProcess) -> Result<i64> {
    let answer = ask(server.address(), "/v1/completions", &call("talker", 55))?;
    ensure!(answer.status == 429, "{}", answer.body);
    let (_, rest) = answer.body.split_once("of endpoint `talker`: ").context(answer.body.clone())?;
    let (used, _) = rest.split_once(" tokens are used").context(answer.body.clone())?;
    Ok(used.parse()?)
}

fn budgets_survive(postgres: Option<&Postgres>) -> Result<()> {
    let state = tempfile::tempdir()?;
    let file = state.path().join("hearth.toml");
    let model = checkpoint("llama-linear-f32").path.display().to_string();
    let text = format!(
        "[[endpoints]]\nname = \"talker\"\nmodel = {model:?}\n\
         ai_gateway.rate_limits = [{{ calls = 1000, renewal_period = \"minute\" }}]\n\
         [[budgets]]\nendpoint = \"talker\"\nperiod = \"month\"\ntokens = 100\n\
         [[budgets]]\nendpoint = \"talker\"\nperiod = \"day\"\nmoney = 1.0\n\
         [[prices]]\nmodel = \"llama-linear-f32\"\ninput = 1.0\noutput = 2.0\n"
    );
    std::fs::write(&file, text)?;
    let file = file.display().to_string();
    let url = postgres.map(Postgres::url);
    let variables: Vec<(&str, &str)> = url.iter().map(|url| ("HEARTH_DATABASE", url.as_str())).collect();
    let serve = || ServerProcess::with_state(hearth(), state.path(), &["--config", &file], &variables);
    let ten = |server: &ServerProcess| -> Result<()> {
        let answer = ask(server.address(), "/v1/completions", &call("talker", 5))?;
        ensure!(answer.status == 200, "{}", answer.body);
        Ok(())
    };
    let server = serve()?;
    for _ in 0..5 {
        ten(&server)?;
    }
    assert_eq!(used(&server)?, 50);
    // At most a second behind.
    std::thread::sleep(Duration::from_secs(1));
    // Dropping a child's process kills it with the signal that no process hears.
    drop(server);
    let mut server = serve()?;
    assert_eq!(used(&server)?, 50);
    ten(&server)?;
    kill_process(Pid::from_raw(i32::try_from(server.id())?).context("a process")?, Signal::TERM)?;
    server.wait(PATIENCE)?;
    let server = serve()?;
    assert_eq!(used(&server)?, 60);
    for _ in 0..4 {
        ten(&server)?;
    }
    let answer =
        ask(server.address(), "/serving-endpoints/talker/invocations", &json!({"prompt": [5], "max_tokens": 1}))?;
    assert_eq!(answer.status, 429, "{}", answer.body);
    let body: Value = serde_json::from_str(&answer.body)?;
    assert_eq!(body["error_code"], "REQUEST_LIMIT_EXCEEDED");
    let wait: u32 = answer.header("retry-after").context("a time to wait")?.parse()?;
    assert!((1..=60).contains(&wait));
    let (_, view) = server.get(&format!("{ENDPOINTS}/talker"))?;
    let view: Value = serde_json::from_str(&view)?;
    let limits = json!([{"calls": 1000, "renewal_period": "minute"}]);
    assert_eq!(view["ai_gateway"]["rate_limits"], limits, "the limits of the file");
    Ok(())
}

#[test]
fn budgets_in_sqlite_survive_a_kill_and_a_restart() -> Result<()> {
    budgets_survive(None)
}

#[test]
fn budgets_in_postgres_survive_a_kill_and_a_restart() -> Result<()> {
    let Some(postgres) = Postgres::start()? else { return Ok(()) };
    budgets_survive(Some(&postgres))
}

/// The model's own tokenizer counts, so that what is reserved is what is used where an answer is as long as it may be.
#[test]
fn prompts_are_counted_as_their_models_count_them() -> Result<()> {
    const LIMIT: i64 = 1_000_000;
    let state = tempfile::tempdir()?;
    let mut text = String::new();
    for (name, model) in [("talker", "llama-linear-f32"), ("vectors", "bert-mean"), ("ranks", "bert-reranker")] {
        let model = checkpoint(model).path.display().to_string();
        text += &format!("[[endpoints]]\nname = \"{name}\"\nmodel = {model:?}\n");
        text += &format!("ai_gateway.rate_limits = [{{ tokens = {LIMIT}, renewal_period = \"minute\" }}]\n");
    }
    let file = state.path().join("hearth.toml");
    std::fs::write(&file, text)?;
    let file = file.display().to_string();
    let server = ServerProcess::with_state(hearth(), state.path(), &["--config", &file], &[])?;
    in_one_minute()?;
    let mut used: HashMap<String, i64> = HashMap::new();
    let messages =
        json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "rain on the hills"}]);
    for (path, body, answers, over) in [
        ("chat/completions", json!({"model": "talker", "messages": messages, "max_tokens": 7, "n": 3}), 21, 0),
        ("completions", json!({"model": "talker", "prompt": ["rain", "on the hills"], "max_tokens": 4}), 8, 0),
        ("completions", json!({"model": "talker", "prompt": [1, 2, 3], "max_tokens": 4}), 4, 0),
        ("completions", json!({"model": "talker", "prompt": "rain", "use_raw_prompt": false, "max_tokens": 4}), 4, 0),
        ("embeddings", json!({"model": "vectors", "input": ["rain on", "the hills"]}), 0, 0),
        ("embeddings", json!({"model": "vectors", "input": "rain on the hills", "truncate_prompt_tokens": 4}), 0, 0),
        // Two texts that are read together have fewer tokens around them than each by itself.
        ("rerank", json!({"model": "ranks", "query": "rain", "documents": ["on the hills", "sun"]}), 0, 4),
    ] {
        let answer = ask(server.address(), &format!("/v1/{path}"), &body)?;
        ensure!(answer.status == 200, "{}", answer.body);
        let usage = serde_json::from_str::<Value>(&answer.body)?["usage"].clone();
        let total = usage["total_tokens"].as_i64().context("usage")?;
        let prompt = usage["prompt_tokens"].as_i64().unwrap_or(total);
        // All calls before were settled by what they have used.
        let used = used.entry(body["model"].to_string()).or_insert(0);
        let reserved = LIMIT - *used - answer.left("tokens")?;
        *used += total;
        let excess = reserved - prompt - answers;
        assert!((0..=over).contains(&excess), "{path} {body}: {reserved} reserved for {usage}");
    }
    Ok(())
}
