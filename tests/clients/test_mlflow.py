"""`mlflow.deployments`: the client of `get_deploy_client("databricks")`."""

import time

import pytest
from conftest import admitted, delete_endpoint, unique
from mlflow.deployments import get_deploy_client
from requests import HTTPError

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
CHAT = {"messages": QUESTION, "max_tokens": 8, "temperature": 0}


@pytest.fixture
def deployments(databricks_environment):
    return get_deploy_client("databricks")


def config(entity, name="one", **fields):
    return {"served_entities": [{"name": name, "entity_name": entity, "entity_version": "1"}]} | fields


def settled(deployments, name):
    """The endpoint once no update of it is under way."""
    for _ in range(300):
        endpoint = deployments.get_endpoint(name)
        if endpoint.state["config_update"] != "IN_PROGRESS":
            return endpoint
        time.sleep(0.1)
    pytest.fail(f"{name} is still being updated: {endpoint}")


def served(deployments, name) -> list[str]:
    return [entity["name"] for entity in settled(deployments, name).config["served_entities"]]


def test_predict(deployments, server, v1_client):
    answer = deployments.predict(endpoint=server.chat_model, inputs=CHAT)
    same = v1_client.chat.completions.create(model=server.chat_model, **CHAT)
    assert answer.choices[0]["message"]["content"] == same.choices[0].message.content
    assert answer["object"] == "chat.completion" and answer.usage["total_tokens"] == same.usage.total_tokens


def test_predict_stream(deployments, server):
    """Every line of the stream must be `data:`; the client fails at any other."""
    chunks = list(deployments.predict_stream(endpoint=server.chat_model, inputs=CHAT))
    plain = deployments.predict(endpoint=server.chat_model, inputs=CHAT)
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
    assert text == plain.choices[0]["message"]["content"]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}


def test_predict_completions_and_embeddings(deployments, server):
    answer = deployments.predict(endpoint=server.chat_model, inputs={"prompt": "Once upon a time", "max_tokens": 4})
    assert answer["object"] == "text_completion" and answer.choices[0]["text"]
    answer = deployments.predict(endpoint=server.embedding_model, inputs={"input": ["a river", "a bicycle"]})
    assert [item["index"] for item in answer.data] == [0, 1]
    assert all(isinstance(value, float) for item in answer.data for value in item["embedding"])


@pytest.mark.parametrize(
    ("endpoint", "inputs", "status", "named"),
    [
        ("no-such-endpoint", CHAT, 404, "no-such-endpoint"),
        (None, CHAT | {"temperature": 9}, 400, "temperature"),
        (None, {"input": "a river"}, 400, "embeddings"),
    ],
    ids=["unknown", "out-of-range", "wrong-task"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_of_predict(deployments, server, endpoint, inputs, status, named, stream):
    """The client makes the status anew of `error_code`: a code that it does not know would be a 500."""
    with pytest.raises(HTTPError, match=named) as caught:
        if stream:
            list(deployments.predict_stream(endpoint=endpoint or server.chat_model, inputs=inputs))
        else:
            deployments.predict(endpoint=endpoint or server.chat_model, inputs=inputs)
    assert caught.value.response.status_code == status
    assert caught.value.response.json()["error_code"] in ("ENDPOINT_NOT_FOUND", "BAD_REQUEST", "INVALID_PARAMETER_VALUE")


def test_life_of_an_endpoint(deployments, endpoint_name, hosted_entity):
    payload = {"name": endpoint_name, "config": config(hosted_entity), "tags": [{"key": "team", "value": "docs"}]}
    made = deployments.create_endpoint(config=payload)
    assert made.name == endpoint_name and made.id
    endpoint = settled(deployments, endpoint_name)
    assert endpoint.state == {"ready": "READY", "config_update": "NOT_UPDATING"}
    assert endpoint.tags == [{"key": "team", "value": "docs"}]
    assert endpoint_name in [listed["name"] for listed in deployments.list_endpoints()]
    assert deployments.predict(endpoint=endpoint_name, inputs=CHAT).choices[0]["message"]["role"] == "assistant"

    deployments.update_endpoint_config(endpoint=endpoint_name, config=config(hosted_entity, "two"))
    assert served(deployments, endpoint_name) == ["two"]
    deployments.delete_endpoint(endpoint=endpoint_name)
    with pytest.raises(HTTPError) as caught:
        deployments.get_endpoint(endpoint_name)
    assert caught.value.response.status_code == 404
    assert endpoint_name not in [listed["name"] for listed in deployments.list_endpoints()]


def test_the_older_way_to_create_and_update(deployments, endpoint_name, hosted_entity):
    """Name and configuration as arguments: it adds `route_optimized: false`, and takes tags out of the configuration."""
    deployments.create_endpoint(endpoint_name, config(hosted_entity, tags=[{"key": "team", "value": "docs"}]))
    assert settled(deployments, endpoint_name).tags == [{"key": "team", "value": "docs"}]
    deployments.update_endpoint(endpoint_name, config(hosted_entity, "two"))
    assert served(deployments, endpoint_name) == ["two"]


def test_tags_and_gateway(deployments, endpoint):
    answer = deployments.update_endpoint_tags(endpoint.name, {"add_tags": [{"key": "a", "value": "1"}, {"key": "b"}]})
    assert [tag["key"] for tag in answer.tags] == ["a", "b"]
    deployments.update_endpoint_tags(endpoint.name, {"delete_tags": ["a"]})
    assert [tag["key"] for tag in deployments.get_endpoint(endpoint.name).tags] == ["b"]

    gateway = {"usage_tracking_config": {"enabled": True}}
    assert deployments.update_endpoint_ai_gateway(endpoint.name, gateway) == gateway
    assert deployments.get_endpoint(endpoint.name).ai_gateway == gateway


def test_rate_limits(server, deployments, endpoint):
    wanted = [{"calls": 5000, "key": "endpoint", "renewal_period": "minute"}]
    assert deployments.update_endpoint_rate_limits(endpoint.name, {"rate_limits": wanted}).rate_limits == wanted
    assert deployments.update_endpoint(endpoint.name, {"rate_limits": wanted}).rate_limits == wanted
    assert deployments.get_endpoint(endpoint.name).ai_gateway["rate_limits"] == wanted
    few = [{"calls": 2, "renewal_period": "minute"}]
    deployments.update_endpoint_ai_gateway(endpoint.name, {"rate_limits": few})
    assert admitted(server, endpoint.name, 3) == 2


def test_errors_of_the_control_plane(deployments, endpoint, hosted_entity):
    payload = {"name": endpoint.name, "config": config(hosted_entity)}
    for call, status, code in [
        (lambda: deployments.create_endpoint(config=payload), 400, "RESOURCE_ALREADY_EXISTS"),
        (lambda: deployments.get_endpoint("no-such-endpoint"), 404, "RESOURCE_DOES_NOT_EXIST"),
        (lambda: deployments.delete_endpoint("no-such-endpoint"), 404, "RESOURCE_DOES_NOT_EXIST"),
        (lambda: deployments.update_endpoint_config("no-such-endpoint", config(hosted_entity)), 404, "RESOURCE_DOES_NOT_EXIST"),
    ]:
        with pytest.raises(HTTPError) as caught:
            call()
        assert (caught.value.response.status_code, caught.value.response.json()["error_code"]) == (status, code)


def test_a_wrong_configuration_is_refused(deployments, workspace, hosted_entity):
    name = unique("endpoint")
    routes = {"routes": [{"served_model_name": "one", "traffic_percentage": 40}]}
    for wrong, named in [
        (config("no-such-model"), "no-such-model"),
        (config(hosted_entity, traffic_config=routes), "traffic_config.*40"),
        ({"served_entities": []}, "served_entities"),
        (config(hosted_entity, no_such_field=1), "no_such_field"),
    ]:
        with pytest.raises(HTTPError, match=named) as caught:
            deployments.create_endpoint(config={"name": name, "config": wrong})
        assert caught.value.response.status_code in (400, 404)
    delete_endpoint(workspace, name)


def test_who_may_not(server, member, endpoint, hosted_entity, monkeypatch):
    monkeypatch.setenv("DATABRICKS_HOST", server.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", member.token)
    deployments = get_deploy_client("databricks")
    with pytest.raises(HTTPError) as caught:
        deployments.create_endpoint(config={"name": unique("endpoint"), "config": config(hosted_entity)})
    assert (caught.value.response.status_code, caught.value.response.json()["error_code"]) == (403, "PERMISSION_DENIED")
    assert endpoint.name not in [listed["name"] for listed in deployments.list_endpoints()]
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-wrong")
    with pytest.raises(HTTPError) as caught:
        deployments.list_endpoints()
    assert caught.value.response.status_code == 401
