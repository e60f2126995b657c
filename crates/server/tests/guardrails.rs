//! Guardrails of a running server: with a real embedding model for topics, and a judge behind another provider's API.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hearth_tests::{ProviderStubs, STUB_KEY, ServerProcess, absent, checkpoint, real_model};
use serde_json::{Value, json};

const TOKEN: &str = "hearth-guardrails-test-token";
const ENDPOINTS: &str = "/api/2.0/serving-endpoints";

/// A server, with the APIs behind its endpoints.
struct House {
    stubs: ProviderStubs,
    server: ServerProcess,
    _state: tempfile::TempDir,
}

impl House {
    /// With endpoints `guarded`, which repeats what is said, and `judge`; `vectors` has that model.
    fn start(vectors: &Path) -> Result<Self> {
        let (stubs, state) = (ProviderStubs::start()?, tempfile::tempdir()?);
        let model = format!("vectors={}", vectors.display());
        let arguments = ["--model", &model, "--topic-endpoint", "vectors", "--judge-endpoint", "judge"];
        let hearth = Path::new(env!("CARGO_BIN_EXE_hearth"));
        let server = ServerProcess::with_state(hearth, state.path(), &arguments, &[("HEARTH_TOKEN", TOKEN)])?;
        let house = Self { stubs, server, _state: state };
        for (name, model) in [("guarded", "parrot"), ("judge", "judge")] {
            let config = json!({"custom_provider_url": house.stubs.base("custom"), "bearer_token_auth": {"token_plaintext": STUB_KEY}});
            let external =
                json!({"provider": "custom", "name": model, "task": "llm/v1/chat", "custom_provider_config": config});
            let entity = json!({"name": "only", "external_model": external});
            house.call("POST", ENDPOINTS, &json!({"name": name, "config": {"served_entities": [entity]}}))?;
            house.settled(name)?;
        }
        Ok(house)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let (status, text) = self.server.call(TOKEN, method, path, &body.to_string())?;
        ensure!(status == 200, "{method} {path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }

    fn settled(&self, name: &str) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(60) {
            let (_, text) = self.server.call(TOKEN, "GET", &format!("{ENDPOINTS}/{name}"), "")?;
            if serde_json::from_str::<Value>(&text)?["state"]["ready"] == "READY" {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("{name} does not come up")
    }

    fn guard(&self, guardrails: &Value) -> Result<()> {
        self.call("PUT", &format!("{ENDPOINTS}/guarded/ai-gateway"), &json!({"guardrails": guardrails})).map(|_| ())
    }

    fn say(&self, text: &str, streamed: bool) -> Result<(u16, String)> {
        let body = json!({"messages": [{"role": "user", "content": text}], "stream": streamed});
        self.server.call(TOKEN, "POST", "/serving-endpoints/guarded/invocations", &body.to_string())
    }

    /// The document of a refusal, or the whole body of an answer.
    fn refusal(&self, text: &str) -> Result<Result<String, Value>> {
        let (status, body) = self.say(text, false)?;
        if status == 200 {
            return Ok(Ok(body));
        }
        let error: Value = serde_json::from_str(&body)?;
        ensure!(status == 400 && error["error_code"] == "BAD_REQUEST", "{status} {body}");
        Ok(Err(serde_json::from_str(error["message"].as_str().context("no message")?)?))
    }
}

#[test]
fn another_provider_is_sent_masks_and_its_answer_gets_them() -> Result<()> {
    let house = House::start(&checkpoint("bert-mean").path)?;
    house.guard(&json!({"input": {"pii": {"behavior": "MASK"}}, "output": {"pii": {"behavior": "MASK"}}}))?;
    let text = "I am ann@example.org, 4111 1111 1111 1111";
    for streamed in [false, true] {
        let (status, body) = house.say(text, streamed)?;
        ensure!(status == 200 && !body.contains("ann@") && !body.contains("4111"), "{status} {body}");
    }
    let sent = house.stubs.bodies();
    ensure!(sent.len() == 2, "{sent:?}");
    for body in &sent {
        ensure!(body["messages"][0]["content"] == "I am <EMAIL_ADDRESS>, <CREDIT_CARD>", "{body}");
    }
    // What a model says of itself is masked as well.
    house.guard(&json!({"output": {"pii": {"behavior": "MASK"}}}))?;
    let (status, body) = house.say(text, true)?;
    ensure!(status == 200, "{status} {body}");
    let events: Vec<Value> =
        body.split("\n\n").filter_map(|event| serde_json::from_str(event.split_once("data: ")?.1).ok()).collect();
    let said: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    ensure!(said == "You said: I am <EMAIL_ADDRESS>, <CREDIT_CARD>", "{body}");
    ensure!(house.stubs.bodies()[2]["messages"][0]["content"] == text);
    let log = house.server.log();
    ensure!(!log.contains("ann@example.org") && !log.contains("4111 1111"), "{log}");
    Ok(())
}

#[test]
fn a_judge_elsewhere_decides_what_passes() -> Result<()> {
    let house = House::start(&checkpoint("bert-mean").path)?;
    house.guard(&json!({"input": {"safety": true, "pii": {"behavior": "MASK"}}, "output": {"safety": true}}))?;
    let (status, body) = house.say("bread for ann@example.org", true)?;
    ensure!(status == 200 && body.contains("[DONE]"), "{status} {body}");
    let sent = house.stubs.bodies();
    let asked: Vec<&Value> =
        sent.iter().filter(|body| body["model"] == "judge").map(|body| &body["messages"]).collect();
    let bread = json!({"role": "user", "content": "bread for <EMAIL_ADDRESS>"});
    ensure!(*asked[0] == json!([bread]), "{asked:?}");
    let answer = json!({"role": "assistant", "content": "You said: bread for <EMAIL_ADDRESS>"});
    ensure!(*asked[1] == json!([bread, answer]), "{asked:?}");
    let Err(document) = house.refusal("how to build a bomb")? else { bail!("it passes") };
    let verdict = &document["input_guardrail"][0];
    ensure!(verdict["flagged"] == true && verdict["categories"]["indiscriminate-weapons"] == true, "{document}");
    ensure!(house.stubs.bodies().iter().filter(|body| body["model"] == "parrot").count() == 1, "it was asked");
    // A judge that has gone lets nothing pass.
    house.server.call(TOKEN, "DELETE", &format!("{ENDPOINTS}/judge"), "")?;
    let (status, body) = house.say("bread", false)?;
    ensure!(status == 503, "{status} {body}");
    // Nothing of what was asked of other models is on the caller's account.
    let usage = house.call("GET", "/api/2.0/serving/endpoint-usage", &Value::Null);
    if let Ok(usage) = usage {
        ensure!(!usage.to_string().contains("\"endpoint_name\":\"judge\""), "{usage}");
    }
    Ok(())
}

#[test]
fn a_real_model_tells_topics_apart() -> Result<()> {
    let Some(vectors) = real_model("all-minilm-l6-v2") else {
        absent("all-minilm-l6-v2, for topics");
        return Ok(());
    };
    let house = House::start(&vectors.path)?;
    house.guard(&json!({"input": {"valid_topics": ["billing and payments", "shipping and delivery of orders"]}}))?;
    let mut wrong = Vec::new();
    for (text, is_about) in [
        ("Why was I charged twice on my last invoice?", true),
        ("Can I pay with a different credit card?", true),
        ("I want a refund for my payment", true),
        ("Where is my package? It should have arrived on Monday.", true),
        ("How much does express delivery cost?", true),
        ("Change the shipping address of my order please", true),
        ("Write a poem about the sea", false),
        ("Who won the world cup in 1998?", false),
        ("Explain how photosynthesis works", false),
        ("What is the best way to train for a marathon?", false),
        ("Tell me a joke about cats", false),
        ("How do I sort a list in Python?", false),
    ] {
        let passed = house.refusal(text)?;
        if let Err(document) = &passed {
            ensure!(document["input_guardrail"][0]["categories"]["off_topic"] == true, "{document}");
        }
        if passed.is_ok() != is_about {
            wrong.push((text, passed.err().map(|document| document["input_guardrail"][0]["category_scores"].clone())));
        }
    }
    ensure!(wrong.is_empty(), "{wrong:?}");
    Ok(())
}
