//! The configuration file with the real program: what it declares is there, what it no longer declares is gone, and what is
//! wrong with it is told with its line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result};
use hearth_tests::{ServerProcess, checkpoint};
use serde_json::{Value, json};
use tempfile::TempDir;

const ANN: &str = "token-of-ann";
const ROBOT: &str = "token-of-the-robot";

struct Place {
    folder: TempDir,
    model: String,
}

impl Place {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("ann.token"), format!("{ANN}\n"))?;
        Ok(Self { folder, model: checkpoint("llama-linear-f32").path.display().to_string() })
    }

    fn file(&self, text: &str) -> Result<PathBuf> {
        let path = self.folder.path().join("hearth.toml");
        fs::write(&path, text.replace("MODEL", &self.model))?;
        Ok(path)
    }

    fn serve(&self, text: &str, flags: &[&str]) -> Result<ServerProcess> {
        let path = self.file(text)?.display().to_string();
        let flags = [&["--config", &path], flags].concat();
        let state = self.folder.path().join("state");
        ServerProcess::with_state(Path::new(env!("CARGO_BIN_EXE_hearth")), &state, &flags, &[("ROBOT_TOKEN", ROBOT)])
    }
}

fn check(path: &Path) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    Ok(command.arg("check-config").arg(path).env_remove("HEARTH_TOKEN").env("ROBOT_TOKEN", ROBOT).output()?)
}

fn get(server: &ServerProcess, token: &str, path: &str) -> Result<(u16, Value)> {
    let (status, text) = server.call(token, "GET", path, "")?;
    Ok((status, serde_json::from_str(&text).with_context(|| text.clone())?))
}

fn post(server: &ServerProcess, token: &str, path: &str, body: &Value) -> Result<(u16, String)> {
    server.call(token, "POST", path, &body.to_string())
}

/// The names of the endpoints that a token sees.
fn seen(server: &ServerProcess, token: &str) -> Result<Vec<String>> {
    let (_, listed) = get(server, token, "/v1/models")?;
    let models = listed["data"].as_array().with_context(|| listed.to_string())?;
    Ok(models.iter().filter_map(|model| model["id"].as_str()).map(str::to_owned).collect())
}

const WHOLE: &str = r#"
[server]
max_connections = 40

[[endpoints]]
name = "talker"
model = "MODEL"
on_demand = true
permissions = [{ group = "team", level = "CAN_QUERY" }, { service_principal = "robot", level = "CAN_VIEW" }]

[[endpoints]]
name = "hidden"
model = "MODEL"
on_demand = true

[[users]]
name = "ann"
token_file = "ann.token"

[[users]]
name = "root"
# The token `rosebud`.
token_sha256 = "8f2c2c2b5c8a9e59fc5d3e4e59cbd01e4e0d1d1f23e5f4a3e9bb4b1e6f0b7c6d"

[[service_principals]]
name = "robot"
token_variable = "ROBOT_TOKEN"

[[groups]]
name = "admins"
members = [{ user = "root" }]

[[groups]]
name = "team"
members = [{ user = "ann" }]
"#;

/// `WHOLE`, with the hash that its comment means.
fn whole() -> String {
    let hash = hearth::gate::TokenHash::of(b"rosebud").to_hex();
    WHOLE.replace("8f2c2c2b5c8a9e59fc5d3e4e59cbd01e4e0d1d1f23e5f4a3e9bb4b1e6f0b7c6d", &hash)
}

#[test]
fn what_is_declared_is_there_and_what_is_no_longer_declared_is_gone() -> Result<()> {
    let place = Place::new()?;
    let server = place.serve(&whole(), &[])?;
    assert_eq!(server.get("/v1/models")?.0, 401, "there are tokens");
    assert_eq!(seen(&server, "rosebud")?, ["hidden", "talker"]);
    assert_eq!((seen(&server, ANN)?, seen(&server, ROBOT)?), (vec!["talker".to_owned()], vec!["talker".to_owned()]));
    let chat = json!({"model": "talker", "messages": [{"role": "user", "content": "rain"}], "max_tokens": 2});
    assert_eq!(post(&server, ANN, "/v1/chat/completions", &chat)?.0, 200);
    assert_eq!(post(&server, ROBOT, "/v1/chat/completions", &chat)?.0, 403);
    let me = get(&server, "rosebud", "/api/2.0/preview/scim/v2/Me")?.1;
    let id = get(&server, ANN, "/api/2.0/preview/scim/v2/Me")?.1["id"].clone();
    assert!(me["groups"].to_string().contains("admins"), "{me}");
    // What is made over the API stands beside it.
    let made = post(&server, "rosebud", "/api/2.0/preview/scim/v2/Users", &json!({"userName": "bob"}))?;
    assert!(made.0 < 300, "{made:?}");
    let scope = post(&server, ANN, "/api/2.0/secrets/scopes/create", &json!({"scope": "anns"}))?;
    assert_eq!(scope.0, 200, "{scope:?}");
    drop(server);

    let server = place.serve(&whole(), &[])?;
    assert_eq!(get(&server, ANN, "/api/2.0/preview/scim/v2/Me")?.1["id"], id, "the same as before");
    assert!(get(&server, ANN, "/api/2.0/secrets/scopes/list")?.1.to_string().contains("anns"));
    drop(server);

    let (kept, _) = whole()
        .split_once("[[groups]]\nname = \"team\"")
        .map(|(kept, rest)| (kept.to_owned(), rest.len()))
        .context("a group")?;
    let less = kept
        .replace("{ group = \"team\", level = \"CAN_QUERY\" }, ", "")
        .replace("\"CAN_VIEW\"", "\"CAN_QUERY\"")
        .replace("[[users]]\nname = \"ann\"\ntoken_file = \"ann.token\"\n", "");
    let server = place.serve(&less, &[])?;
    assert_eq!(get(&server, ANN, "/v1/models")?.0, 401);
    assert_eq!(post(&server, ROBOT, "/v1/chat/completions", &chat)?.0, 200);
    let users = get(&server, "rosebud", "/api/2.0/preview/scim/v2/Users")?.1.to_string();
    assert!(users.contains("\"bob\"") && !users.contains("\"ann\""), "{users}");
    let groups = get(&server, "rosebud", "/api/2.0/preview/scim/v2/Groups")?.1.to_string();
    assert!(!groups.contains("\"team\""), "{groups}");
    Ok(())
}

#[test]
fn a_name_that_was_made_over_the_api_is_not_taken() -> Result<()> {
    let place = Place::new()?;
    let server = place.serve(&whole(), &[])?;
    assert!(post(&server, "rosebud", "/api/2.0/preview/scim/v2/Users", &json!({"userName": "bob"}))?.0 < 300);
    drop(server);
    let taken = whole() + "\n[[users]]\nname = \"bob\"\n";
    let error = place.serve(&taken, &[]).err().context("the name is taken")?.to_string();
    assert!(error.contains("declares the user `bob`, and there is one already that was made over the API"), "{error}");
    let server = place.serve(&whole(), &[])?;
    assert_eq!(seen(&server, ANN)?, ["talker"], "nothing was changed");
    Ok(())
}

#[test]
fn a_flag_goes_before_the_file() -> Result<()> {
    let place = Place::new()?;
    let text = "[server]\nport = 1\non_demand = true\ncors_origin = \"https://a.example.org\"\n\
                [[endpoints]]\nname = \"talker\"\nmodel = \"MODEL\"\n";
    let model = format!("more={}", place.model);
    // The tests' own `--port 0` is such a flag already.
    let server = place.serve(text, &["--model", &model, "--model", &format!("talker={}", place.model)])?;
    let names: Vec<Value> = get(&server, "", "/admin/models")?.1["data"].as_array().context("models")?.clone();
    let names: Vec<(&str, bool)> =
        names.iter().filter_map(|one| Some((one["name"].as_str()?, one["on_demand"].as_bool()?))).collect();
    assert_eq!(names, [("more", true), ("talker", true)]);
    drop(server);
    let server = place.serve("endpoints = []", &[])?;
    assert_eq!(seen(&server, "")?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_file_is_checked_without_a_server() -> Result<()> {
    let place = Place::new()?;
    let good = check(&place.file(&whole())?)?;
    let said = String::from_utf8(good.stderr)?;
    assert!(good.status.success() && said.contains("hearth.toml: 2 endpoints, 5 principals"), "{said}");
    for (from, to, expected) in [
        (
            "max_connections = 40",
            "max_connections = 0",
            "hearth.toml:3:19: invalid value '0' for '--max-connections <COUNT>'",
        ),
        (
            "max_connections = 40",
            "max_conections = 40",
            "hearth.toml:3:18: there is no setting `max_conections`; there are ",
        ),
        ("max_connections = 40", "tls_key = \"k\"", "TLS takes both a certificate (--tls-certificate) and its key"),
        ("model = \"MODEL\"", "model = \"no-such-model\"", "hearth.toml:7:9: "),
        ("on_demand = true", "on_demnad = true", "hearth.toml:8:1: unknown field `on_demnad`"),
        (
            "on_demand = true",
            "ai_gateway = { rate_limits = [{ calls = 1, renewal_period = \"hour\" }] }",
            "hearth.toml:8:14: `ai_gateway.rate_limits[0].renewal_period` must be `minute`, not `hour`",
        ),
        (
            "on_demand = true",
            "ai_gateway = { guardrails = { input = { safety = true } } }",
            "hearth.toml:8:14: `ai_gateway.guardrails.input.safety`",
        ),
        ("on_demand = true", "ai_gateway = { limits = 1 }", "unknown field `limits`"),
        ("ann.token", "none.token", "none.token cannot be read"),
        ("ROBOT_TOKEN", "ROBOT_TOKENS", "the environment has no token in ROBOT_TOKENS"),
        ("members = [{ user = \"ann\" }]", "members = [{ user = \"bob\" }]", "there is no user `bob` in this file"),
        ("[server]", "[server", "hearth.toml:2:"),
    ] {
        let text = whole();
        assert!(text.contains(from));
        let bad = check(&place.file(&text.replacen(from, to, 1))?)?;
        let said = String::from_utf8(bad.stderr)?;
        assert!(!bad.status.success() && said.contains(expected), "{to}: {said}");
        assert!(!said.contains(ANN) && !said.contains("panicked"), "{said}");
    }
    Ok(())
}

#[test]
fn the_example_is_good() -> Result<()> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../hearth.example.toml");
    let checked = check(&example)?;
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    // What is commented out is good too, but for the files that it names.
    let text = fs::read_to_string(&example)?;
    let settings = ["tls_certificate", "tls_key", "cors_origin", "database_file"];
    assert!(settings.iter().all(|setting| text.contains(&format!("\n# {setting} = "))));
    let place = Place::new()?;
    let open = place.file(&text.replace("# cors_origin", "cors_origin").replace(
        "# database_file = \"/run/secrets/database-url\"",
        "database = \"postgres://hearth@localhost/hearth\"",
    ))?;
    let checked = check(&open)?;
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    Ok(())
}
