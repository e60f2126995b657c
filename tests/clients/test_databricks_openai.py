"""`databricks-openai`: the OpenAI client that takes its server and its token from the Databricks SDK."""

import json

import openai
import pytest
import pytest_asyncio
from databricks_openai import AsyncDatabricksOpenAI, DatabricksOpenAI
from test_tools import NAMED, WEATHER

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ROUTES = {
    "serving-endpoints": {},
    "gateway": {"use_ai_gateway": True},
    "native-gateway": {"use_ai_gateway_native_api": True},
}
every_route = pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)


@pytest.fixture
def client(workspace, route):
    with DatabricksOpenAI(workspace_client=workspace, max_retries=0, timeout=120, **route) as client:
        yield client


@pytest_asyncio.fixture
async def async_client(workspace, route):
    async with AsyncDatabricksOpenAI(workspace_client=workspace, max_retries=0, timeout=120, **route) as client:
        yield client


def chat(client, model, **fields):
    return client.chat.completions.create(**({"model": model, "messages": QUESTION, "max_tokens": 8, "temperature": 0} | fields))


@every_route
def test_chat(client, server, v1_client):
    answer = chat(client, server.chat_model)
    assert answer.choices[0].message.content == chat(v1_client, server.chat_model).choices[0].message.content
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@every_route
def test_stream(client, server):
    plain = chat(client, server.chat_model).choices[0].message.content
    chunks = list(chat(client, server.chat_model, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == plain
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


@every_route
@pytest.mark.asyncio
async def test_async(async_client, client, server):
    plain = chat(client, server.chat_model).choices[0].message.content
    assert (await chat(async_client, server.chat_model)).choices[0].message.content == plain
    stream = await chat(async_client, server.chat_model, stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == plain


@every_route
def test_embeddings_and_completions(client, server):
    answer = client.embeddings.create(model=server.embedding_model, input=["a river", "a bicycle"])
    assert [item.index for item in answer.data] == [0, 1] and len(answer.data[0].embedding) == len(answer.data[1].embedding) > 1
    assert client.completions.create(model=server.chat_model, prompt="Once upon a time", max_tokens=4).choices[0].text


@every_route
@pytest.mark.parametrize("stream", [False, True])
def test_strict_tools(client, server, stream):
    """The client takes `strict` away before it sends the tools; the call is held to its schema all the same."""
    strict = {"type": "function", "function": WEATHER["function"] | {"strict": True}}
    fields = {"tools": [strict], "tool_choice": NAMED, "parallel_tool_calls": False, "max_tokens": 200, "seed": 5}
    answer = chat(client, server.random_model, stream=stream, **fields)
    if stream:
        deltas = [call for chunk in answer for call in (chunk.choices[0].delta.tool_calls or [])]
        name, arguments = deltas[0].function.name, "".join(call.function.arguments for call in deltas)
    else:
        [call] = answer.choices[0].message.tool_calls
        name, arguments = call.function.name, call.function.arguments
    assert name == "get_weather" and json.loads(arguments)["unit"] in ("celsius", "fahrenheit")


@every_route
def test_tool_turn(client, server):
    fields = {"tools": [WEATHER], "max_tokens": 200, "seed": 5}
    first = chat(client, server.random_model, tool_choice=NAMED, parallel_tool_calls=False, **fields).choices[0].message
    [call] = first.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}
    messages = [*QUESTION, first.model_dump(exclude_none=True), result]
    answer = chat(client, server.random_model, messages=messages, tool_choice="none", **(fields | {"max_tokens": 8}))
    assert answer.choices[0].message.content and answer.choices[0].message.tool_calls is None


@every_route
def test_unknown_endpoint(client):
    with pytest.raises(openai.NotFoundError, match="no-such-model") as caught:
        chat(client, "no-such-model")
    assert caught.value.body["error_code"] == "ENDPOINT_NOT_FOUND"
