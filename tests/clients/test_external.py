"""Models of other providers behind endpoints of the running program: the same conversation with functions through each of
them, whole and streamed, read by the OpenAI client and by LangChain's agents; and another entity where one fails."""

import json
import os
import time

import pytest
from conftest import TOKEN, delete_endpoint, unique
from databricks.sdk.service.serving import (
    AiGatewayConfig,
    EndpointCoreConfigInput,
    EndpointStateConfigUpdate,
    FallbackConfig,
    Route,
    ServedEntityInput,
    TrafficConfig,
)
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

PROVIDERS = ["openai", "azure", "anthropic", "cohere", "databricks-model-serving", "custom"]
QUESTION = "The weather in Paris and in Rome, and the time?"
CALLS = [
    ("get_weather", {"city": "Paris", "unit": "celsius"}),
    ("get_weather", {"city": "Rome", "unit": "celsius"}),
    ("now", {}),
]
ANSWER = "It is 21 in Paris and 21 in Rome and noon."


@tool
def get_weather(city: str, unit: str = "celsius") -> str:
    """The weather."""
    return f"21 in {city}"


@tool
def now() -> str:
    """The time."""
    return "noon"


def external(stubs, key, provider, model="stub"):
    """The external model of a provider whose API is a stub."""
    azure = {
        "openai_api_type": "azure",
        "openai_api_key_plaintext": key,
        "openai_api_base": f"{stubs}/azure",
        "openai_api_version": "2024-10-21",
        "openai_deployment_name": model,
    }
    configs = {
        "openai": {"openai_config": {"openai_api_key_plaintext": key, "openai_api_base": f"{stubs}/openai/v1"}},
        "azure": {"openai_config": azure},
        "anthropic": {"anthropic_config": {"anthropic_api_key_plaintext": key}},
        "cohere": {"cohere_config": {"cohere_api_key_plaintext": key, "cohere_api_base": f"{stubs}/cohere"}},
        "databricks-model-serving": {
            "databricks_model_serving_config": {
                "databricks_api_token_plaintext": key,
                "databricks_workspace_url": f"{stubs}/databricks",
            }
        },
        "custom": {
            "custom_provider_config": {
                "custom_provider_url": f"{stubs}/custom",
                "bearer_token_auth": {"token_plaintext": key},
            }
        },
    }
    name = "openai" if provider == "azure" else provider
    fields = {"provider": name, "name": model, "task": "llm/v1/chat"} | configs[provider]
    return ServedEntityInput.from_dict({"name": provider, "external_model": fields})


@pytest.fixture(scope="module")
def stubs():
    missing = [name for name in ("HEARTH_STUBS_URL", "HEARTH_STUBS_KEY") if not os.environ.get(name)]
    if missing:
        pytest.fail(f"set {', '.join(missing)}, as `provider-stubs` prints them", pytrace=False)
    return os.environ["HEARTH_STUBS_URL"], os.environ["HEARTH_STUBS_KEY"]


def make(workspace, entities, **fields):
    """An endpoint whose calls are the first entity's, which answers."""
    name = unique("external")
    routes = [Route(served_model_name=entity.name, traffic_percentage=0) for entity in entities]
    routes[0].traffic_percentage = 100
    config = EndpointCoreConfigInput(name=name, served_entities=entities, traffic_config=TrafficConfig(routes=routes))
    workspace.serving_endpoints.create(name=name, config=config, **fields)
    for _ in range(1500):
        if workspace.serving_endpoints.get(name).state.config_update != EndpointStateConfigUpdate.IN_PROGRESS:
            return name
        time.sleep(0.02)
    pytest.fail("the endpoint has not come up")


@pytest.fixture(params=PROVIDERS)
def through(request, workspace, stubs):
    """An endpoint in front of a provider."""
    name = make(workspace, [external(*stubs, request.param)])
    yield name
    delete_endpoint(workspace, name)


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "unit": {"type": "string"}}},
        },
    },
    {"type": "function", "function": {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {}}}},
]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_the_openai_client_reads_a_conversation_with_functions(client, through, streamed):
    def ask(messages):
        if not streamed:
            answer = client.chat.completions.create(model=through, messages=messages, tools=TOOLS)
            return answer.choices[0], answer.usage
        with client.chat.completions.stream(
            model=through, messages=messages, tools=TOOLS, stream_options={"include_usage": True}
        ) as stream:
            final = stream.get_final_completion()
        return final.choices[0], final.usage

    messages = [{"role": "user", "content": QUESTION}]
    choice, usage = ask(messages)
    calls = choice.message.tool_calls
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == CALLS
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me see. ")
    assert usage.prompt_tokens > 0 and usage.completion_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    said = [{"id": call.id, "type": "function", "function": call.function.model_dump(include={"name", "arguments"})} for call in calls]
    messages.append({"role": "assistant", "content": choice.message.content, "tool_calls": said})
    results = ["21 in Paris", "21 in Rome", "noon"]
    messages += [{"role": "tool", "tool_call_id": call.id, "content": result} for call, result in zip(calls, results)]
    choice, _ = ask(messages)
    assert (choice.message.content, choice.finish_reason) == (ANSWER, "stop")


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_an_agent_of_langchain_comes_to_its_answer(server, dialect, through, streamed):
    model = ChatOpenAI(model=through, base_url=server.url + dialect, api_key=TOKEN, max_retries=0, timeout=60)
    bound = model.bind_tools([get_weather, now])

    def ask(messages):
        if not streamed:
            return bound.invoke(messages)
        pieces = list(bound.stream(messages))
        assert len(pieces) > 1
        whole = AIMessageChunk(content="")
        for piece in pieces:
            whole += piece
        return whole

    messages = [HumanMessage(QUESTION)]
    called = ask(messages)
    assert [(call["name"], call["args"]) for call in called.tool_calls] == CALLS
    messages.append(called)
    tools = {"get_weather": get_weather, "now": now}
    for call in called.tool_calls:
        messages.append(ToolMessage(tools[call["name"]].invoke(call["args"]), tool_call_id=call["id"]))
    assert ask(messages).content == ANSWER


# A stream that is cut has begun, and what has begun is not begun anew.
@pytest.mark.parametrize(
    ("fault", "streamed"), [("down", False), ("busy", False), ("cut", False), ("down", True), ("busy", True), ("html", True)]
)
def test_another_entity_answers_where_one_fails(client, workspace, stubs, hosted_entity, fault, streamed):
    hosted = ServedEntityInput(name="hosted", entity_name=hosted_entity, entity_version="1")
    entities = [external(*stubs, "openai", f"stub--{fault}"), external(*stubs, "anthropic"), hosted]
    gateway = AiGatewayConfig(fallback_config=FallbackConfig(enabled=True))
    name = make(workspace, entities, ai_gateway=gateway)
    try:
        messages = [{"role": "user", "content": "hello"}]
        raw = client.chat.completions.with_raw_response.create(model=name, messages=messages, stream=streamed)
        status = "429" if fault == "busy" else "503"
        assert (raw.headers["served-model-name"], raw.headers["hearth-passed-over"]) == ("anthropic", f"openai={status}")
        answer = raw.parse()
        text = "".join(piece.choices[0].delta.content or "" for piece in answer) if streamed else answer.choices[0].message.content
        assert text == "You said: hello"
        assert workspace.serving_endpoints.get(name).ai_gateway.fallback_config == gateway.fallback_config
    finally:
        delete_endpoint(workspace, name)
