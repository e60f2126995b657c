//! Secrets with the real program: they outlive it, open with their key alone, and stand nowhere else.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hearth_tests::{Postgres, ProviderStubs, STUB_KEY, ServerProcess, checkpoint};
use serde_json::{Value, json};

const ADMIN: &str = "admin-token-2f7c1b8e";
const PLANTED: &str = "planted-secret-5d0e93aa";
const PLANTED_BYTES: &[u8] = b"planted-bytes-\xff\x00-71c4be02";
const PLANTED_CREDENTIAL: &str = "sk-planted-credential-c81f3a";

/// A server that runs no model, with the most talkative log.
fn serve(state: &Path, more: &[(&str, &str)]) -> Result<ServerProcess> {
    let model = format!("talker={}", checkpoint("llama-linear-f32").path.display());
    let variables = [&[("HEARTH_TOKEN", ADMIN), ("HEARTH_LOG", "trace")], more].concat();
    ServerProcess::with_state(
        Path::new(env!("CARGO_BIN_EXE_hearth")),
        state,
        &["--on-demand", "--model", &model],
        &variables,
    )
}

fn call(server: &ServerProcess, method: &str, path: &str, body: Value) -> Result<(u16, String)> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    server.call(ADMIN, method, path, &body)
}

fn secret(server: &ServerProcess, path: &str, body: Value) -> Result<()> {
    let (status, answer) = call(server, "POST", &format!("/api/2.0/secrets/{path}"), body)?;
    ensure!(status == 200 && answer == "{}", "{path}: {status} {answer}");
    Ok(())
}

/// Status, and the value of a secret or what is said instead.
fn value(server: &ServerProcess, key: &str) -> Result<(u16, Vec<u8>)> {
    let (status, answer) = call(server, "GET", &format!("/api/2.0/secrets/get?scope=s&key={key}"), Value::Null)?;
    if status != 200 {
        return Ok((status, answer.into_bytes()));
    }
    let answer: Value = serde_json::from_str(&answer)?;
    Ok((status, STANDARD.decode(answer["value"].as_str().context("a value")?)?))
}

fn put(server: &ServerProcess) -> Result<()> {
    secret(server, "scopes/create", json!({"scope": "s"}))?;
    secret(server, "put", json!({"scope": "s", "key": "text", "string_value": PLANTED}))?;
    secret(server, "put", json!({"scope": "s", "key": "bytes", "bytes_value": STANDARD.encode(PLANTED_BYTES)}))
}

/// Where one of the planted texts stands in `bytes`, as it is or in base64.
fn find(place: &str, bytes: &[u8], planted: &[Vec<u8>]) -> Result<()> {
    for secret in planted {
        // In base64 three letters may be the neighbours'.
        let spelled = STANDARD.encode(secret).into_bytes();
        for needle in [secret.as_slice(), &spelled[..spelled.len() - 4]] {
            let stands = bytes.windows(needle.len()).any(|window| window == needle);
            ensure!(!stands, "{:?} stands in {place}", String::from_utf8_lossy(needle));
        }
    }
    Ok(())
}

fn find_in_folder(folder: &Path, planted: &[Vec<u8>]) -> Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files += find_in_folder(&path, planted)?;
        } else if path.file_name().is_none_or(|name| name != "secrets.key") {
            find(&path.display().to_string(), &fs::read(&path)?, planted)?;
            files += 1;
        }
    }
    Ok(files)
}

/// An endpoint in front of a model that is called with the planted credential, given in that field.
fn far(name: &str, field: &str) -> Value {
    let config = json!({field: PLANTED_CREDENTIAL, "openai_api_base": "http://127.0.0.1:9"});
    let model = json!({"provider": "openai", "name": "gpt-4o", "task": "llm/v1/chat", "openai_config": config});
    json!({"name": name, "config": {"served_entities": [{"name": "far", "external_model": model}]}})
}

/// What is answered where another API repeats its key, whole and streamed, at endpoints that keep what is said.
fn echoed(server: &ServerProcess, stubs: &ProviderStubs) -> Result<Vec<(u16, String)>> {
    let mut answers = Vec::new();
    for (name, stream) in [("echo", false), ("echo", true), ("echo-later", true)] {
        let endpoint = format!("{name}-{stream}");
        let config = json!({"openai_api_key_plaintext": STUB_KEY, "openai_api_base": stubs.base("openai")});
        let model = format!("stub--{name}");
        let model = json!({"provider": "openai", "name": model, "task": "llm/v1/chat", "openai_config": config});
        let made = json!({
            "name": endpoint,
            "config": {"served_entities": [{"name": "far", "external_model": model}]},
            "ai_gateway": {"inference_table_config": {"enabled": true}},
        });
        answers.push(call(server, "POST", "/api/2.0/serving-endpoints", made)?);
        let body = json!({"messages": [{"role": "user", "content": "x"}], "stream": stream});
        let path = format!("/serving-endpoints/{endpoint}/invocations");
        while answers.last().is_none_or(|(_, answer)| !answer.contains("[redacted]")) {
            answers.push(call(server, "POST", &path, body.clone())?);
            ensure!(answers.len() < 1000, "the key is repeated: {answers:?}");
        }
        let table = format!("/api/2.0/serving-endpoints/{endpoint}/inference-table");
        while answers.last().is_none_or(|(_, answer)| !answer.contains("databricks_request_id")) {
            answers.push(call(server, "GET", &table, Value::Null)?);
            ensure!(answers.len() < 10_000, "what was said is kept: {answers:?}");
        }
        ensure!(answers.last().is_some_and(|(_, table)| table.contains("[redacted]")), "{answers:?}");
    }
    Ok(answers)
}

/// What is answered to calls that hold something planted, rightly or wrongly.
fn planted(server: &ServerProcess) -> Result<Vec<(u16, String)>> {
    let (endpoints, put) = ("/api/2.0/serving-endpoints", "/api/2.0/secrets/put");
    let chat = json!({"model": "far", "messages": [{"role": "user", "content": "x"}]});
    let made = call(server, "POST", endpoints, far("far", "openai_api_key_plaintext"))?;
    assert_eq!(made.0, 200, "{}", made.1);
    Ok(vec![
        made,
        // A credential in the wrong field, a value in the wrong form, a body that is none.
        call(server, "POST", endpoints, far("wrong", "openai_api_key"))?,
        call(server, "POST", put, json!({"scope": "s", "key": "x", "bytes_value": PLANTED}))?,
        call(server, "POST", put, json!({"scope": "s", "key": "x", "string_value": [PLANTED]}))?,
        call(server, "POST", put, json!({"scope": "none", "key": "x", "string_value": PLANTED}))?,
        server.call(ADMIN, "POST", put, &format!("{{\"string_value\": \"{PLANTED}\""))?,
        server.call(PLANTED, "GET", "/v1/models", "")?,
        call(server, "POST", "/v1/chat/completions", chat)?,
    ])
}

/// What is there to be read, but for the secrets themselves.
const READ: [&str; 13] = [
    "/api/2.0/serving/endpoint-usage",
    "/api/2.0/secrets/scopes/list",
    "/api/2.0/secrets/list?scope=s",
    "/api/2.0/secrets/acls/list?scope=s",
    "/api/2.0/secrets/get?scope=.endpoints&key=x",
    "/api/2.0/serving-endpoints",
    "/api/2.0/serving-endpoints/far",
    "/api/2.0/token/list",
    "/api/2.0/preview/scim/v2/Me",
    "/api/2.0/preview/scim/v2/Users",
    "/admin/models",
    "/v1/models",
    "/metrics",
];

/// Secrets, credentials and tokens that are planted are searched for in the files of the store, the log at its most talkative,
/// the metrics, and whatever the API answers, refusals among it.
#[test]
fn what_is_planted_is_found_nowhere() -> Result<()> {
    let state = tempfile::tempdir()?;
    let server = serve(state.path(), &[])?;
    put(&server)?;
    let (_, made) = call(&server, "POST", "/api/2.0/token/create", json!({"comment": "planted"}))?;
    let token = serde_json::from_str::<Value>(&made)?["token_value"].as_str().context("a token")?.to_owned();
    assert_eq!(server.call(&token, "GET", "/v1/models", "")?.0, 200);
    assert_eq!(value(&server, "text")?, (200, PLANTED.as_bytes().to_vec()));
    assert_eq!(value(&server, "bytes")?, (200, PLANTED_BYTES.to_vec()));
    let mut answers = planted(&server)?;
    let stubs = ProviderStubs::start()?;
    answers.extend(echoed(&server, &stubs)?);
    for path in READ {
        let answer = call(&server, "GET", path, Value::Null)?;
        ensure!(answer.0 < 500, "{path}: {answer:?}");
        answers.push(answer);
    }
    let key = fs::read_to_string(state.path().join("secrets.key"))?.trim().to_owned();
    let mut planted: Vec<Vec<u8>> =
        [PLANTED, PLANTED_CREDENTIAL, STUB_KEY, ADMIN, &token, &key].map(|text| text.as_bytes().to_vec()).to_vec();
    planted.extend([PLANTED_BYTES.to_vec(), STANDARD.decode(&key)?]);
    for (_, answer) in &answers {
        find("an answer", answer.as_bytes(), &planted)?;
    }
    let log = server.log();
    assert!(log.contains("path=\"/api/2.0/secrets/put\""), "the log tells of these calls");
    find("the log", log.as_bytes(), &planted)?;
    assert!(find_in_folder(state.path(), &planted)? >= 2, "the database and what is not yet in it");
    // The search itself would find it.
    assert!(find("here", format!("x{PLANTED}y").as_bytes(), &planted).is_err());
    Ok(())
}

#[test]
fn secrets_outlive_the_program_and_open_with_their_key_alone() -> Result<()> {
    let state = tempfile::tempdir()?;
    put(&serve(state.path(), &[])?)?;
    let server = serve(state.path(), &[])?;
    assert_eq!(value(&server, "text")?, (200, PLANTED.as_bytes().to_vec()));
    drop(server);
    let file = state.path().join("secrets.key");
    let key = fs::read_to_string(&file)?;

    let refused = |server: &ServerProcess, reason: &str| -> Result<()> {
        server.wait_for_log(reason)?;
        let (status, said) = value(server, "text")?;
        let said = String::from_utf8(said)?;
        ensure!(status == 503 && said.contains("secrets cannot be used now"), "{status} {said}");
        let (status, said) =
            call(server, "POST", "/api/2.0/secrets/put", json!({"scope": "s", "key": "k", "string_value": "x"}))?;
        ensure!(status == 503 && !said.contains("secrets.key"), "{status} {said}");
        ensure!(call(server, "GET", "/v1/models", Value::Null)?.0 == 200, "all else is served");
        Ok(())
    };
    let other = STANDARD.encode([7; 32]);
    refused(
        &serve(state.path(), &[("HEARTH_SECRETS_KEY", &other)])?,
        "is not the one that the store's secrets were sealed with",
    )?;
    fs::set_permissions(&file, Permissions::from_mode(0o644))?;
    refused(&serve(state.path(), &[])?, "has mode 0644: nobody but its owner may read it")?;
    fs::remove_file(&file)?;
    let server = serve(state.path(), &[])?;
    refused(&server, "and no key to open them")?;
    // Whoever puts it right need not start the server again.
    fs::write(&file, &key)?;
    fs::set_permissions(&file, Permissions::from_mode(0o600))?;
    assert_eq!(value(&server, "text")?, (200, PLANTED.as_bytes().to_vec()));
    drop(server);
    fs::remove_file(&file)?;
    let server = serve(state.path(), &[("HEARTH_SECRETS_KEY", key.trim())])?;
    assert_eq!(value(&server, "bytes")?, (200, PLANTED_BYTES.to_vec()));
    Ok(())
}

#[test]
fn servers_on_one_postgres_share_secrets_if_they_share_the_key() -> Result<()> {
    let Some(postgres) = Postgres::start()? else { return Ok(()) };
    let (url, key, other) = (postgres.url(), STANDARD.encode([1; 32]), STANDARD.encode([2; 32]));
    let states = [tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?];
    let serve = |state: usize, key: &str| {
        serve(states[state].path(), &[("HEARTH_DATABASE", &url), ("HEARTH_SECRETS_KEY", key)])
    };
    let (one, two) = (serve(0, &key)?, serve(1, &key)?);
    put(&one)?;
    assert_eq!(value(&two, "text")?, (200, PLANTED.as_bytes().to_vec()));
    secret(&two, "put", json!({"scope": "s", "key": "text", "string_value": "another"}))?;
    assert_eq!(value(&one, "text")?.1, b"another");
    let stranger = serve(2, &other)?;
    stranger.wait_for_log("Servers with one store need the same key")?;
    assert_eq!(value(&stranger, "text")?.0, 503);
    secret(&one, "scopes/delete", json!({"scope": "s"}))?;
    assert_eq!(value(&two, "text")?.0, 404);
    Ok(())
}
