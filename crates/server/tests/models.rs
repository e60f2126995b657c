//! Models on demand through the whole program: the first request loads, managing unloads, memory is given back.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
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

/// A server of `talker` and others like it, which are loaded on demand.
fn on_demand(names: &[&str], arguments: &[&str]) -> Result<ServerProcess> {
    let path = checkpoint("llama-linear-f32").path;
    let models: Vec<String> = names.iter().map(|name| format!("{name}={}", path.display())).collect();
    let models = models.iter().flat_map(|model| ["--model", model]);
    let arguments: Vec<&str> = ["--on-demand"].iter().chain(arguments).copied().chain(models).collect();
    ServerProcess::start(Path::new(env!("CARGO_BIN_EXE_hearth")), &arguments)
}

fn complete(server: &ServerProcess, name: &str) -> Result<(u16, Value)> {
    server.ask("/v1/completions", &json!({"model": name, "prompt": "rain", "max_tokens": 4}))
}

fn managed(server: &ServerProcess, name: &str) -> Result<Value> {
    let all: Value = serde_json::from_str(&server.get("/admin/models")?.1)?;
    let data = all["data"].as_array().context("a list")?;
    data.iter().find(|one| one["name"] == name).cloned().context("the model is listed")
}

fn wait_for(what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !holds()? {
        ensure!(begun.elapsed() < Duration::from_secs(120), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Each of these models takes more than 32 MiB and less than 45.
#[test]
fn an_idle_model_makes_room_and_one_that_can_never_fit_is_refused_with_the_sum() -> Result<()> {
    let server = on_demand(&["first", "second", "third"], &["--memory", "90", "--kv-memory", "1"])?;
    for name in ["first", "second", "first", "third"] {
        let (status, answer) = complete(&server, name)?;
        assert_eq!(status, 200, "{name}: {answer}");
    }
    let states = ["first", "second", "third"].map(|name| Ok(managed(&server, name)?["state"].clone()));
    let states: Vec<Value> = states.into_iter().collect::<Result<_>>()?;
    assert_eq!(states, ["ready", "unloaded", "ready"], "the least lately used one made room");
    let (_, metrics) = server.get("/metrics")?;
    for line in ["hearth_model_loaded{model=\"second\"} 0", "hearth_model_loads{model=\"first\"} 1"] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert!(metrics.contains(&format!("hearth_memory_total_bytes {}", 90 << 20)), "{metrics}");

    let server = on_demand(&["large"], &["--memory", "20", "--kv-memory", "1"])?;
    let (status, refused) = complete(&server, "large")?;
    let message = refused["error"]["message"].as_str().context("a message")?;
    assert_eq!((status, &refused["error"]["code"]), (507, &json!("insufficient_memory")));
    assert!(message.contains("weights") && message.contains("21.0 MB are available"), "{message}");
    Ok(())
}

#[test]
fn what_nobody_uses_goes_after_its_time_and_comes_back() -> Result<()> {
    let server = on_demand(&["talker"], &["--keep-alive", "1", "--kv-memory", "1"])?;
    for loads in 1..=2 {
        assert_eq!(complete(&server, "talker")?.0, 200);
        wait_for("the model to go", || Ok(managed(&server, "talker")?["state"] == "unloaded"))?;
        let gone = managed(&server, "talker")?;
        assert_eq!((&gone["loads"], &gone["memory"]), (&json!(loads), &json!(0)), "{gone}");
    }
    Ok(())
}

/// The server goes on, the caller learns nothing about its disk, and the next request after the repair is answered.
#[test]
fn files_that_break_while_serving_are_told_and_tried_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for file in std::fs::read_dir(checkpoint("llama-linear-f32").path)? {
        let file = file?;
        std::fs::copy(file.path(), folder.path().join(file.file_name()))?;
    }
    let healthy = format!("healthy={}", checkpoint("llama-linear-f32").path.display());
    let breaking = format!("breaking={}", folder.path().display());
    let server = on_demand(&[], &["--kv-memory", "1", "--model", &healthy, "--model", &breaking])?;
    assert_eq!(complete(&server, "breaking")?.0, 200);
    let config = folder.path().join("config.json");
    let whole = std::fs::read(&config)?;
    std::fs::write(&config, "{")?;
    assert_eq!(complete(&server, "breaking")?.0, 200, "what is loaded does not look");
    assert_eq!(server.post("/admin/models/breaking/unload", "")?.0, 200, "the body may be left out");
    let (status, told) = complete(&server, "breaking")?;
    assert_eq!(status, 503, "{told}");
    assert!(!told.to_string().contains("config.json"), "{told}");
    let failed = managed(&server, "breaking")?;
    assert_eq!(failed["state"], "failed");
    assert!(failed["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{failed}");
    assert_eq!((complete(&server, "healthy")?.0, server.get("/health/ready")?.0), (200, 200));
    std::fs::write(&config, whole)?;
    assert_eq!(complete(&server, "breaking")?.0, 200);
    assert_eq!(managed(&server, "breaking")?["reason"], Value::Null);
    Ok(())
}

/// What a process holds: KiB of address space, KiB in memory, threads, and whether it maps a model's weights.
#[cfg(target_os = "linux")]
fn held(server: &ServerProcess) -> Result<(u64, u64, u64, bool)> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id()))?;
    let number = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("the system tells")?;
        Ok(line.split_whitespace().next().context("a number")?.parse()?)
    };
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", server.id()))?;
    Ok((number("VmSize:")?, number("VmRSS:")?, number("Threads:")?, maps.contains("llama-linear-f32")))
}

/// Ten caches that were kept would take 2.5 GiB, and ten models' threads 60.
#[cfg(target_os = "linux")]
#[test]
fn a_model_that_is_unloaded_leaves_nothing_behind() -> Result<()> {
    let server = on_demand(&["talker"], &["--kv-memory", "256", "--threads", "4"])?;
    let cycle = || -> Result<()> {
        assert_eq!(complete(&server, "talker")?.0, 200);
        assert!(held(&server)?.3, "the weights are mapped while the model is loaded");
        assert_eq!(server.post("/admin/models/talker/unload", "")?.0, 200);
        assert!(!held(&server)?.3, "the weights are unmapped when the call is answered");
        Ok(())
    };
    cycle()?;
    cycle()?;
    let (space, memory, threads, _) = held(&server)?;
    (0..10).try_for_each(|_| cycle())?;
    wait_for("the threads to end", || Ok(held(&server)?.2 <= threads + 20))?;
    let (space_then, memory_then, ..) = held(&server)?;
    assert!(space_then < space + (1536 << 10), "{space} KiB of address space became {space_then}");
    assert!(memory_then < memory + (64 << 10), "{memory} KiB in memory became {memory_then}");
    Ok(())
}
