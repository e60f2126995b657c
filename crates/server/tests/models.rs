//! Models on demand through the whole program: the first request loads, managing unloads, memory is given back.

use std::path::Path;

use anyhow::Result;
use hearth_tests::{ServerProcess, checkpoint};
use serde_json::{Value, json};

#[test]
fn a_model_is_loaded_by_its_first_requests_once_and_unloaded_by_name() -> Result<()> {
    let model = format!("talker={}", checkpoint("llama-linear-f32").path.display());
    let arguments = ["--on-demand", "--kv-memory", "1", "--model", &model];
    let server = ServerProcess::start(Path::new(env!("CARGO_BIN_EXE_hearth")), &arguments)?;
    let managed = || -> Result<Value> { Ok(serde_json::from_str(&server.get("/admin/models")?.1)?) };
    assert_eq!(managed()?["data"][0]["state"], "unloaded");
    let listed: Value = serde_json::from_str(&server.get("/v1/models")?.1)?;
    assert_eq!(listed["data"][0]["id"], "talker");

    let body = json!({"model": "talker", "prompt": "rain", "max_tokens": 4});
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let ask = || server.ask("/v1/completions", &body).map(|(status, _)| status).unwrap_or(0);
        let calls: Vec<_> = (0..20).map(|_| scope.spawn(ask)).collect();
        calls.into_iter().map(|call| call.join().unwrap_or(0)).collect()
    });
    assert_eq!(statuses, vec![200; 20]);
    let ready = &managed()?["data"][0];
    assert_eq!((&ready["state"], &ready["loads"]), (&json!("ready"), &json!(1)), "{ready}");

    let (status, gone) = server.ask("/admin/models/talker/unload", &json!({"force": true}))?;
    assert_eq!((status, &gone["state"], &gone["memory"]), (200, &json!("unloaded"), &json!(0)), "{gone}");
    let (status, back) = server.ask("/admin/models/talker/load", &json!({}))?;
    assert_eq!((status, &back["state"], &back["loads"]), (200, &json!("ready"), &json!(2)), "{back}");
    let (status, refused) = server.ask("/admin/models/talker/unload", &json!({"forse": true}))?;
    assert_eq!((status, &refused["error"]["param"]), (400, &json!("forse")), "{refused}");
    assert_eq!(server.ask("/admin/models/nobody/load", &json!({}))?.0, 404);
    Ok(())
}
