"""The Databricks SDK's calls on serving endpoints: their life, configuration, tags, gateway and metrics."""

import json
import threading
import time
from datetime import timedelta

import pytest
from conftest import admitted, unique
from databricks.sdk.errors import BadRequest, NotFound, OperationFailed, PermissionDenied, ResourceAlreadyExists
from databricks.sdk.service.iam import ComplexValue
from databricks.sdk.service.serving import (
    AiGatewayConfig,
    AiGatewayInferenceTableConfig,
    AiGatewayRateLimit,
    AiGatewayRateLimitKey,
    AiGatewayRateLimitRenewalPeriod,
    AiGatewayUsageTrackingConfig,
    ChatMessage,
    ChatMessageRole,
    EmailNotifications,
    EndpointCoreConfigInput,
    EndpointStateConfigUpdate,
    EndpointStateReady,
    EndpointTag,
    PtEndpointCoreConfig,
    PtServedModel,
    RateLimit,
    RateLimitKey,
    RateLimitRenewalPeriod,
    Route,
    ServedEntityInput,
    ServedModelInput,
    ServedModelStateDeployment,
    ServingEndpointDetailedPermissionLevel,
    TrafficConfig,
)

SHORT = timedelta(minutes=1)
QUESTION = [ChatMessage(role=ChatMessageRole.USER, content="What is the capital of France?")]


def entity(hosted, name=None, **fields):
    return ServedEntityInput(entity_name=hosted, entity_version="1", name=name, **fields)


def core(*entities, name="ignored", **fields) -> EndpointCoreConfigInput:
    """The client does not do without a name in here too."""
    return EndpointCoreConfigInput(name=name, served_entities=list(entities), **fields)


def split(**percentages) -> TrafficConfig:
    return TrafficConfig(
        routes=[Route(served_entity_name=name, traffic_percentage=share) for name, share in percentages.items()]
    )


def query(workspace, name, **fields):
    return workspace.serving_endpoints.query(**({"name": name, "messages": QUESTION, "max_tokens": 4} | fields))


def now() -> int:
    return int(time.time() * 1000)


def test_create_and_wait(workspace, endpoint_name, hosted_entity):
    begun = now()
    made = workspace.serving_endpoints.create_and_wait(
        name=endpoint_name,
        config=core(entity(hosted_entity, workload_size="Small", scale_to_zero_enabled=False)),
        tags=[EndpointTag(key="team", value="docs")],
        description="made by a test",
        timeout=SHORT,
    )
    assert made.name == endpoint_name and made.id
    assert (made.state.ready, made.state.config_update) == (EndpointStateReady.READY, EndpointStateConfigUpdate.NOT_UPDATING)
    assert made.permission_level == ServingEndpointDetailedPermissionLevel.CAN_MANAGE
    assert made.creator == workspace.current_user.me().user_name
    assert begun - 1000 <= made.creation_timestamp <= made.last_updated_timestamp <= now() + 1000
    assert made.task == "llm/v1/chat" and made.description == "made by a test"
    assert made.tags == [EndpointTag(key="team", value="docs")]
    assert made.config.config_version == 1 and made.pending_config is None
    [served] = made.config.served_entities
    assert (served.entity_name, served.entity_version, served.workload_size) == (hosted_entity, "1", "Small")
    assert served.scale_to_zero_enabled is False
    assert served.state.deployment == ServedModelStateDeployment.DEPLOYMENT_READY
    assert served.name and set(served.name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
    [route] = made.config.traffic_config.routes
    assert (route.served_entity_name, route.served_model_name, route.traffic_percentage) == (served.name, served.name, 100)
    [model] = made.config.served_models
    assert (model.name, model.model_name, model.model_version) == (served.name, hosted_entity, "1")


def test_create_answers_with_the_endpoint_at_once(workspace, endpoint_name, hosted_entity):
    wait = workspace.serving_endpoints.create(name=endpoint_name, config=core(entity(hosted_entity)))
    assert wait.response.name == endpoint_name and wait.response.id
    assert wait.response.state.config_update in (EndpointStateConfigUpdate.IN_PROGRESS, EndpointStateConfigUpdate.NOT_UPDATING)
    assert wait.result(timeout=SHORT).id == wait.response.id


def test_get_and_list(workspace, endpoint):
    got = workspace.serving_endpoints.get(endpoint.name)
    assert got == endpoint
    [listed] = [one for one in workspace.serving_endpoints.list() if one.name == endpoint.name]
    assert (listed.id, listed.creator, listed.task, listed.state) == (got.id, got.creator, got.task, got.state)
    assert (listed.creation_timestamp, listed.last_updated_timestamp) == (got.creation_timestamp, got.last_updated_timestamp)
    assert [one.name for one in listed.config.served_entities] == [one.name for one in got.config.served_entities]


def test_endpoints_of_the_servers_start_are_listed(workspace, server):
    names = {one.name for one in workspace.serving_endpoints.list()}
    assert {server.chat_model, server.random_model, server.embedding_model, server.rerank_model} <= names
    assert workspace.serving_endpoints.get(server.chat_model).task == "llm/v1/chat"
    assert workspace.serving_endpoints.get(server.embedding_model).task == "llm/v1/embeddings"


def test_query_of_a_made_endpoint(workspace, endpoint, client, v1_client):
    answer = query(workspace, endpoint.name)
    assert answer.choices[0].message.role == ChatMessageRole.ASSISTANT
    assert answer.served_model_name == endpoint.config.served_entities[0].name
    fields = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
    assert client.chat.completions.create(model=endpoint.name, **fields).model == endpoint.name
    assert endpoint.name in [model.id for model in v1_client.models.list()]


def test_update_config_and_wait(workspace, endpoint, hosted_entity):
    updated = workspace.serving_endpoints.update_config_and_wait(
        endpoint.name,
        served_entities=[entity(hosted_entity, "one"), entity(hosted_entity, "two")],
        traffic_config=split(one=30, two=70),
        timeout=SHORT,
    )
    assert updated.id == endpoint.id and updated.config.config_version == 2
    assert [one.name for one in updated.config.served_entities] == ["one", "two"]
    assert {route.served_entity_name: route.traffic_percentage for route in updated.config.traffic_config.routes} == {
        "one": 30,
        "two": 70,
    }
    assert updated.last_updated_timestamp >= endpoint.last_updated_timestamp
    assert updated.pending_config is None


def test_traffic_is_split(workspace, endpoint, hosted_entity):
    entities = [entity(hosted_entity, name) for name in ("all", "none")]
    workspace.serving_endpoints.update_config_and_wait(
        endpoint.name, served_entities=entities, traffic_config=split(all=100, none=0), timeout=SHORT
    )
    assert {query(workspace, endpoint.name, max_tokens=1).served_model_name for _ in range(10)} == {"all"}
    workspace.serving_endpoints.update_config_and_wait(
        endpoint.name, served_entities=entities, traffic_config=split(all=50, none=50), timeout=SHORT
    )
    assert {query(workspace, endpoint.name, max_tokens=1).served_model_name for _ in range(40)} == {"all", "none"}


def test_served_models_are_another_name_of_served_entities(workspace, endpoint, hosted_entity):
    served = [ServedModelInput(scale_to_zero_enabled=True, model_name=hosted_entity, model_version="1", name="one", workload_size="Small")]
    traffic = TrafficConfig(routes=[Route(served_model_name="one", traffic_percentage=100)])
    updated = workspace.serving_endpoints.update_config_and_wait(
        endpoint.name, served_models=served, traffic_config=traffic, timeout=SHORT
    )
    [one] = updated.config.served_entities
    assert (one.name, one.entity_name, one.workload_size, one.scale_to_zero_enabled) == ("one", hosted_entity, "Small", True)


def test_an_update_drops_no_request(workspace, endpoint, hosted_entity):
    answers, failures, ended = [], [], threading.Event()

    def ask():
        while not ended.is_set():
            try:
                answers.append(query(workspace, endpoint.name, max_tokens=16).served_model_name)
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for name in ("one", "two"):
            workspace.serving_endpoints.update_config_and_wait(
                endpoint.name, served_entities=[entity(hosted_entity, name)], timeout=SHORT
            )
            seen = len(answers)
            while len(answers) < seen + 3 and not failures:
                time.sleep(0.01)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert answers[-1] == "two" and set(answers) <= {endpoint.config.served_entities[0].name, "one", "two"}


def test_a_failed_update_leaves_the_endpoint_as_it_was(workspace, endpoint):
    with pytest.raises((BadRequest, NotFound, OperationFailed), match="no.such.model|UPDATE_FAILED"):
        workspace.serving_endpoints.update_config_and_wait(
            endpoint.name, served_entities=[entity("system.ai.no_such_model")], timeout=SHORT
        )
    assert workspace.serving_endpoints.get(endpoint.name).config == endpoint.config
    assert query(workspace, endpoint.name).choices


def test_a_model_of_the_catalogue_by_its_name_there(workspace, endpoint_name):
    """With `scale_to_zero_enabled` nothing is loaded before the first request."""
    served = entity("system.ai.smollm2_135m_instruct", scale_to_zero_enabled=True)
    made = workspace.serving_endpoints.create_and_wait(name=endpoint_name, config=core(served), timeout=SHORT)
    [one] = made.config.served_entities
    assert (one.entity_name, one.scale_to_zero_enabled) == ("system.ai.smollm2_135m_instruct", True)
    assert one.name == "system-ai-smollm2_135m_instruct-1"
    assert one.foundation_model.name == "system.ai.smollm2_135m_instruct"


def test_provisioned_throughput(workspace, endpoint_name, hosted_entity):
    def config(name):
        model = PtServedModel(entity_name=hosted_entity, provisioned_model_units=50, entity_version="1", name=name)
        return PtEndpointCoreConfig(served_entities=[model])

    made = workspace.serving_endpoints.create_provisioned_throughput_endpoint_and_wait(
        name=endpoint_name, config=config("one"), timeout=SHORT
    )
    assert made.config.served_entities[0].provisioned_model_units == 50
    updated = workspace.serving_endpoints.update_provisioned_throughput_endpoint_config_and_wait(
        endpoint_name, config("two"), timeout=SHORT
    )
    assert updated.config.served_entities[0].name == "two"


def test_tags(workspace, endpoint):
    tags = workspace.serving_endpoints.patch(
        endpoint.name, add_tags=[EndpointTag(key="team", value="docs"), EndpointTag(key="alone")]
    )
    assert {tag.key: tag.value or None for tag in tags.tags} == {"team": "docs", "alone": None}
    workspace.serving_endpoints.patch(endpoint.name, add_tags=[EndpointTag(key="team", value="other")], delete_tags=["alone"])
    assert workspace.serving_endpoints.get(endpoint.name).tags == [EndpointTag(key="team", value="other")]


def test_ai_gateway(workspace, endpoint):
    for enabled in (True, False):
        tracking = AiGatewayUsageTrackingConfig(enabled=enabled)
        answer = workspace.serving_endpoints.put_ai_gateway(endpoint.name, usage_tracking_config=tracking)
        assert answer.usage_tracking_config == tracking
        assert workspace.serving_endpoints.get(endpoint.name).ai_gateway.usage_tracking_config == tracking
    workspace.serving_endpoints.put_ai_gateway(endpoint.name)
    kept = workspace.serving_endpoints.get(endpoint.name).ai_gateway
    assert kept is None or kept.usage_tracking_config is None


def test_ai_gateway_at_creation(workspace, endpoint_name, hosted_entity):
    gateway = AiGatewayConfig(usage_tracking_config=AiGatewayUsageTrackingConfig(enabled=True))
    config = core(entity(hosted_entity))
    made = workspace.serving_endpoints.create_and_wait(name=endpoint_name, config=config, ai_gateway=gateway, timeout=SHORT)
    assert made.ai_gateway.usage_tracking_config.enabled


def test_an_inference_table(workspace, endpoint):
    table = AiGatewayInferenceTableConfig(enabled=True, catalog_name="main", schema_name="logs", table_name_prefix="talk")
    answer = workspace.serving_endpoints.put_ai_gateway(endpoint.name, inference_table_config=table)
    assert answer.inference_table_config == table
    asked = query(workspace, endpoint.name, client_request_id="mine")
    path = f"/api/2.0/serving-endpoints/{endpoint.name}/inference-table"
    for _ in range(500):
        if rows := workspace.api_client.do("GET", path)["payloads"]:
            break
        time.sleep(0.02)
    [row] = rows
    assert json.loads(row["response"])["id"] == asked.id
    assert json.loads(row["request"])["messages"] == [message.as_dict() for message in QUESTION]
    assert (row["client_request_id"], row["status_code"], row["requester"]) == ("mine", 200, workspace.current_user.me().user_name)
    columns = workspace.api_client.do("GET", path, query={"format": "csv"}, raw=True)["contents"].read().decode().splitlines()[0]
    assert columns.split(",") == list(row)
    moved = AiGatewayInferenceTableConfig(enabled=True, catalog_name="other", schema_name="logs", table_name_prefix="talk")
    with pytest.raises(BadRequest, match="inference_table_config.catalog_name"):
        workspace.serving_endpoints.put_ai_gateway(endpoint.name, inference_table_config=moved)


def test_rate_limits(server, workspace, endpoint):
    limit = AiGatewayRateLimit(
        renewal_period=AiGatewayRateLimitRenewalPeriod.MINUTE, calls=5000, key=AiGatewayRateLimitKey.USER
    )
    assert workspace.serving_endpoints.put_ai_gateway(endpoint.name, rate_limits=[limit]).rate_limits == [limit]
    assert workspace.serving_endpoints.get(endpoint.name).ai_gateway.rate_limits == [limit]
    older = [RateLimit(calls=5000, key=RateLimitKey.ENDPOINT, renewal_period=RateLimitRenewalPeriod.MINUTE)]
    assert workspace.serving_endpoints.put(endpoint.name, rate_limits=older).rate_limits == older
    few = AiGatewayRateLimit(
        renewal_period=AiGatewayRateLimitRenewalPeriod.MINUTE, calls=3, key=AiGatewayRateLimitKey.USER, principal="admin"
    )
    workspace.serving_endpoints.put_ai_gateway(endpoint.name, rate_limits=[few])
    assert admitted(server, endpoint.name, 5) == 3
    tokens = AiGatewayRateLimit(renewal_period=AiGatewayRateLimitRenewalPeriod.MINUTE, tokens=1)
    workspace.serving_endpoints.put_ai_gateway(endpoint.name, rate_limits=[tokens])
    assert admitted(server, endpoint.name, 1) == 0
    workspace.serving_endpoints.put_ai_gateway(endpoint.name)
    assert admitted(server, endpoint.name, 2) == 2


def test_a_limit_of_a_group(server, workspace, endpoint):
    me = workspace.current_user.me()
    group = workspace.groups.create(display_name=unique("team"), members=[ComplexValue(value=me.id)])
    try:
        key, minute = AiGatewayRateLimitKey.USER_GROUP, AiGatewayRateLimitRenewalPeriod.MINUTE
        limit = AiGatewayRateLimit(renewal_period=minute, calls=2, key=key, principal=group.display_name)
        assert workspace.serving_endpoints.put_ai_gateway(endpoint.name, rate_limits=[limit]).rate_limits == [limit]
        assert admitted(server, endpoint.name, 4) == 2
    finally:
        workspace.groups.delete(group.id)
    assert admitted(server, endpoint.name, 1) == 1


def test_what_is_wrong_with_a_limit_is_named(workspace, endpoint):
    minute = AiGatewayRateLimitRenewalPeriod.MINUTE
    for limit, field in [
        (AiGatewayRateLimit(renewal_period=minute), "calls"),
        (AiGatewayRateLimit(renewal_period=minute, calls=1, key=AiGatewayRateLimitKey.USER_GROUP), "principal"),
        (AiGatewayRateLimit(renewal_period=minute, calls=-1), "calls"),
    ]:
        with pytest.raises(BadRequest, match=rf"rate_limits\[0\]\.{field}"):
            workspace.serving_endpoints.put_ai_gateway(endpoint.name, rate_limits=[limit])


def test_limits_of_no_kind(workspace, endpoint):
    assert workspace.serving_endpoints.put(endpoint.name, rate_limits=[]).rate_limits == []


def test_mail_is_not_sent(workspace, endpoint):
    wanted = EmailNotifications(on_update_failure=["a@example.com"])
    with pytest.raises(BadRequest, match="email_notifications"):
        workspace.serving_endpoints.update_notifications(endpoint.name, email_notifications=wanted)
    answer = workspace.serving_endpoints.update_notifications(endpoint.name, email_notifications=EmailNotifications())
    assert answer.name == endpoint.name


def test_metrics(workspace, endpoint):
    for _ in range(3):
        query(workspace, endpoint.name)
    text = workspace.serving_endpoints.export_metrics(endpoint.name).contents.read().decode()
    counts = [line for line in text.splitlines() if line.startswith("request_count_total")]
    assert sum(float(line.split()[-1]) for line in counts) == 3
    assert "# TYPE" in text and "request_latency_ms" in text


def test_open_api(workspace, endpoint):
    document = json.loads(workspace.serving_endpoints.get_open_api(endpoint.name).contents.read())
    assert document["openapi"].startswith("3.")
    assert [path for path in document["paths"] if path.endswith("/invocations")]


def test_logs(workspace, endpoint):
    [served] = endpoint.config.served_entities
    for call in (workspace.serving_endpoints.logs, workspace.serving_endpoints.build_logs):
        assert isinstance(call(endpoint.name, served.name).logs, str)
        with pytest.raises((BadRequest, NotFound), match="no-such-entity"):
            call(endpoint.name, "no-such-entity")


def test_delete(workspace, endpoint):
    workspace.serving_endpoints.delete(endpoint.name)
    for call in (workspace.serving_endpoints.get, workspace.serving_endpoints.delete, lambda name: query(workspace, name)):
        with pytest.raises(NotFound, match=endpoint.name):
            call(endpoint.name)
    assert endpoint.name not in [one.name for one in workspace.serving_endpoints.list()]


def test_a_deleted_name_is_free_again(workspace, endpoint, hosted_entity):
    workspace.serving_endpoints.delete(endpoint.name)
    config = core(entity(hosted_entity))
    again = workspace.serving_endpoints.create_and_wait(name=endpoint.name, config=config, timeout=SHORT)
    assert again.id != endpoint.id and again.config.config_version == 1


def test_a_name_in_use_is_refused(workspace, endpoint, hosted_entity):
    config = core(entity(hosted_entity))
    with pytest.raises(ResourceAlreadyExists, match=endpoint.name):
        workspace.serving_endpoints.create(name=endpoint.name, config=config)


@pytest.mark.parametrize("name", ["", "with space", "a/b", "chat", "completions", "embeddings", "ä", "x" * 300])
def test_names_that_are_refused(workspace, hosted_entity, name):
    with pytest.raises(BadRequest, match="name"):
        workspace.serving_endpoints.create(name=name, config=core(entity(hosted_entity)))


WRONG = {
    "unknown-model": (lambda hosted: [entity("system.ai.no_such_model")], None, "no.such.model"),
    "nothing": (lambda hosted: [], None, "served_entities"),
    "eleven": (lambda hosted: [entity(hosted, f"e{number}") for number in range(11)], None, "10"),
    "twice": (lambda hosted: [entity(hosted, "one"), entity(hosted, "one")], None, "one"),
    "bad-name": (lambda hosted: [entity(hosted, "a b")], None, "name"),
    "no-entity": (lambda hosted: [ServedEntityInput(name="one")], None, "entity_name|external_model"),
    "sum": (lambda hosted: [entity(hosted, "one")], split(one=99), "traffic_config.*99"),
    "below": (lambda hosted: [entity(hosted, "one"), entity(hosted, "two")], split(one=150, two=-50), "traffic_percentage|traffic_config"),
    "unknown-route": (lambda hosted: [entity(hosted, "one")], split(other=100), "other"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_wrong_configurations_are_refused(workspace, endpoint_name, hosted_entity, case):
    entities, traffic, named = case
    config = core(*entities(hosted_entity), traffic_config=traffic)
    with pytest.raises((BadRequest, NotFound), match=named):
        workspace.serving_endpoints.create(name=endpoint_name, config=config)
    with pytest.raises(NotFound):
        workspace.serving_endpoints.get(endpoint_name)


def test_unknown_endpoints(workspace):
    name = "no-such-endpoint"
    calls = [
        lambda api: api.get(name),
        lambda api: api.delete(name),
        lambda api: api.patch(name, delete_tags=["a"]),
        lambda api: api.put(name, rate_limits=[]),
        lambda api: api.put_ai_gateway(name),
        lambda api: api.update_config(name, served_entities=[entity("system.ai.any")]),
        lambda api: api.export_metrics(name),
        lambda api: api.get_open_api(name),
        lambda api: api.update_notifications(name),
    ]
    for call in calls:
        with pytest.raises(NotFound) as caught:
            call(workspace.serving_endpoints)
        assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_only_administrators_create(member, hosted_entity):
    config = core(entity(hosted_entity))
    with pytest.raises(PermissionDenied):
        member.workspace.serving_endpoints.create(name=unique("endpoint"), config=config)
