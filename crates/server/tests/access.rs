//! Who may do what, with the real program: tokens of the command line, grants of the API, and what others learn of an endpoint.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hearth_tests::{ServerProcess, checkpoint};
use serde_json::{Value, json};
use tempfile::TempDir;

const SCIM: &str = "/api/2.0/preview/scim/v2";

fn hearth() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_hearth"))
}

/// `hearth token ...` on the store in that folder.
fn token_command(state: &TempDir, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(hearth());
    command.arg("token").args(arguments).arg("--state").arg(state.path());
    Ok(command.env_remove("HEARTH_TOKEN").env_remove("HEARTH_DATABASE").output()?)
}

/// The token that the command prints, and nothing else on stdout.
fn made(state: &TempDir, arguments: &[&str]) -> Result<String> {
    let output = token_command(state, &[&["create"], arguments].concat())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let token = String::from_utf8(output.stdout)?;
    let token = token.strip_suffix('\n').context("a line")?;
    assert!(token.starts_with("hearth-") && !token.contains(char::is_whitespace), "{token}");
    assert!(!said.contains(token));
    Ok(token.to_owned())
}

fn refused(state: &TempDir, arguments: &[&str], reason: &str) -> Result<()> {
    let output = token_command(state, arguments)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(reason), "{arguments:?}: {said}");
    Ok(())
}

/// A server of the endpoints `open` and `shut`.
fn server(state: &TempDir) -> Result<ServerProcess> {
    let tiny = checkpoint("llama-linear-f32").path;
    let model = |name: &str| format!("{name}={}", tiny.display());
    ServerProcess::with_state(hearth(), state.path(), &["--model", &model("open"), "--model", &model("shut")], &[])
}

fn ask(server: &ServerProcess, token: &str, method: &str, path: &str, body: &Value) -> Result<(u16, Value)> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (status, text) = server.call(token, method, path, &body)?;
    Ok((status, serde_json::from_str(&text).with_context(|| text.clone())?))
}

/// Waits until the server answers a token with that status: it looks at the store a few times a second.
fn until(server: &ServerProcess, token: &str, status: u16) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(30) {
        if ask(server, token, "GET", "/v1/models", &Value::Null)?.0 == status {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("the server does not answer {status}")
}

fn say(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "rain"}], "max_tokens": 2})
}

/// The names of the endpoints that a token sees.
fn seen(server: &ServerProcess, token: &str) -> Result<Vec<String>> {
    let (_, listed) = ask(server, token, "GET", "/v1/models", &Value::Null)?;
    let models = listed["data"].as_array().context("a list")?;
    Ok(models.iter().filter_map(|model| model["id"].as_str()).map(str::to_owned).collect())
}

#[test]
fn tokens_of_the_command_line_and_grants_of_the_api_decide_who_is_answered() -> Result<()> {
    let state = tempfile::tempdir()?;
    let root = made(&state, &["--user", "root@example.com", "--admin", "--comment", "of the house"])?;
    let server = server(&state)?;
    let (status, error) = ask(&server, "", "POST", "/v1/chat/completions", &say("open"))?;
    assert_eq!((status, &error["error"]["code"]), (401, &json!("invalid_api_key")));
    let (status, error) = ask(&server, "hearth-guess", "POST", "/serving-endpoints/open/invocations", &say("open"))?;
    assert_eq!((status, &error["error_code"]), (401, &json!("UNAUTHENTICATED")));
    assert_eq!(seen(&server, &root)?, ["open", "shut"]);

    // Made while the server runs.
    let ada = made(&state, &["--user", "ada@example.com"])?;
    until(&server, &ada, 200)?;
    assert_eq!(seen(&server, &ada)?, [""; 0]);
    hidden(&server, &ada)?;

    let (_, endpoint) = ask(&server, &root, "GET", "/api/2.0/serving-endpoints/open", &Value::Null)?;
    let path = format!("/api/2.0/permissions/serving-endpoints/{}", endpoint["id"].as_str().context("an id")?);
    let grant = |level: &str| {
        let list = json!([{"user_name": "ada@example.com", "permission_level": level}]);
        ask(&server, &root, "PATCH", &path, &json!({"access_control_list": list}))
    };
    assert_eq!(grant("CAN_VIEW")?.0, 200);
    assert_eq!(seen(&server, &ada)?, ["open"]);
    let (status, error) = ask(&server, &ada, "POST", "/v1/chat/completions", &say("open"))?;
    assert_eq!((status, &error["error"]["code"]), (403, &json!("permission_denied")), "{error}");
    let (status, error) = ask(&server, &ada, "POST", "/serving-endpoints/open/invocations", &say("open"))?;
    assert_eq!((status, &error["error_code"]), (403, &json!("PERMISSION_DENIED")), "{error}");
    assert_eq!(grant("CAN_QUERY")?.0, 200);
    let (status, answer) = ask(&server, &ada, "POST", "/serving-endpoints/open/invocations", &say("open"))?;
    assert_eq!((status, &answer["object"]), (200, &json!("chat.completion")), "{answer}");
    let (status, _) = ask(&server, &ada, "POST", &format!("{SCIM}/Users"), &json!({"userName": "eve"}))?;
    assert_eq!(status, 403);
    revoked(&state, &server, &ada)?;
    without_a_trace(&state, &[&root, &ada])
}

/// What a caller may not see is answered as what does not exist, but for the name that they gave.
fn hidden(server: &ServerProcess, token: &str) -> Result<()> {
    for (method, path, body, status) in [
        ("POST", "/v1/chat/completions", say("NAME"), 404),
        ("POST", "/v1/completions", json!({"model": "NAME", "prompt": "x"}), 404),
        ("POST", "/serving-endpoints/NAME/invocations", say("NAME"), 404),
        ("GET", "/v1/models/NAME", Value::Null, 404),
        ("GET", "/api/2.0/serving-endpoints/NAME", Value::Null, 404),
        ("POST", "/admin/models/NAME/unload", json!({}), 404),
    ] {
        let ask = |name: &str| {
            let body: Value = serde_json::from_str(&body.to_string().replace("NAME", name))?;
            let (status, answer) = ask(server, token, method, &path.replace("NAME", name), &body)?;
            anyhow::Ok((status, answer.to_string().replace(name, "NAME")))
        };
        let (hidden, missing) = (ask("shut")?, ask("nothing-of-that-name")?);
        assert_eq!(hidden, missing, "{path}");
        assert_eq!(hidden.0, status, "{path}");
    }
    let (_, listed) = ask(server, token, "GET", "/api/2.0/serving-endpoints", &Value::Null)?;
    assert_eq!(listed["endpoints"], json!([]));
    let (_, text) = server.call(token, "GET", "/metrics", "")?;
    assert!(!text.contains("hearth_requests_running{model=\"shut\""), "{text}");
    Ok(())
}

/// Revokes the token of that text, which `hearth token list` does not show, and sees it refused.
fn revoked(state: &TempDir, server: &ServerProcess, ada: &str) -> Result<()> {
    let listed = String::from_utf8(token_command(state, &["list"])?.stdout)?;
    assert!(listed.contains("of the house") && !listed.contains(ada), "{listed}");
    let line = listed.lines().find(|line| line.contains("ada@example.com")).context("a line")?;
    let id = line.split(' ').next().context("an id")?;
    assert!(token_command(state, &["revoke", id])?.status.success());
    until(server, ada, 401)?;
    refused(state, &["revoke", id], "there is no token")
}

/// No file of the store holds a token.
fn without_a_trace(state: &TempDir, tokens: &[&str]) -> Result<()> {
    let mut files = 0;
    for entry in std::fs::read_dir(state.path())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            continue;
        }
        let bytes = std::fs::read(entry.path())?;
        files += 1;
        for token in tokens {
            assert!(!bytes.windows(token.len()).any(|window| window == token.as_bytes()));
        }
    }
    assert!(files > 0);
    Ok(())
}

#[test]
fn the_command_line_says_what_it_does_not_do() -> Result<()> {
    let state = tempfile::tempdir()?;
    refused(&state, &["create"], "--user <NAME>|--service-principal <APPLICATION_ID>")?;
    refused(&state, &["create", "--user", ""], "`userName` must be a text that is not empty")?;
    refused(
        &state,
        &["create", "--service-principal", "robot"],
        "`applicationId` must be a UUID in small letters, not robot",
    )?;
    refused(&state, &["create", "--user", "a", "--lifetime", "0"], "must be between 1 and 315360000, not 0")?;
    let id = "6f1c2a50-0000-4000-8000-000000000001";
    let output = token_command(&state, &["create", "--service-principal", id, "--lifetime", "60"])?;
    assert!(String::from_utf8_lossy(&output.stderr).contains("no administrator has a token"));
    let listed = String::from_utf8(token_command(&state, &["list"])?.stdout)?;
    assert!(listed.lines().nth(1).is_some_and(|line| line.contains(id) && !line.contains("never")), "{listed}");
    Ok(())
}
