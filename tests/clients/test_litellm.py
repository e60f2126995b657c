"""litellm, by its `openai/` and its `databricks/` provider."""

import json

import litellm
import pytest
from conftest import DATABRICKS_DIALECT, OPENAI_DIALECT, TOKEN
from pydantic import BaseModel
from test_tools import NAMED, WEATHER

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
PROVIDERS = {
    "openai": ("openai", OPENAI_DIALECT),
    "openai-on-serving-endpoints": ("openai", DATABRICKS_DIALECT),
    "databricks": ("databricks", DATABRICKS_DIALECT),
}


@pytest.fixture(params=PROVIDERS.values(), ids=PROVIDERS)
def to(request, server):
    """What says to litellm where a model is."""
    provider, path = request.param

    def place(model):
        return {"model": f"{provider}/{model}", "api_base": server.url + path, "api_key": TOKEN, "num_retries": 0, "timeout": 120}

    return place


def chat(place, **fields):
    return litellm.completion(**(place | {"messages": QUESTION, "max_tokens": 8, "temperature": 0} | fields))


def test_completion(to, server, v1_client):
    answer = chat(to(server.chat_model))
    same = v1_client.chat.completions.create(model=server.chat_model, messages=QUESTION, max_tokens=8, temperature=0)
    assert answer.choices[0].message.content == same.choices[0].message.content
    assert answer.choices[0].finish_reason == same.choices[0].finish_reason
    assert answer.usage.total_tokens == same.usage.total_tokens


def test_stream(to, server):
    place = to(server.chat_model)
    plain = chat(place)
    chunks = list(chat(place, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == plain.choices[0].message.content
    assert [end for chunk in chunks for choice in chunk.choices if (end := choice.finish_reason)] == [plain.choices[0].finish_reason]
    assert litellm.stream_chunk_builder(chunks).usage.total_tokens == plain.usage.total_tokens


@pytest.mark.asyncio
async def test_async(to, server):
    place = to(server.chat_model)
    plain = chat(place).choices[0].message.content
    fields = {"messages": QUESTION, "max_tokens": 8, "temperature": 0}
    assert (await litellm.acompletion(**place, **fields)).choices[0].message.content == plain
    stream = await litellm.acompletion(**place, **fields, stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == plain


def test_parameters(to, server):
    place = to(server.chat_model)
    whole = chat(place).choices[0].message.content
    stop = whole[len(whole) // 2:][:3]
    answer = chat(place, stop=[stop], top_p=0.5, n=2)
    assert [choice.message.content for choice in answer.choices] == [whole[: whole.index(stop)]] * 2


def test_embedding(to, server, v1_client):
    answer = litellm.embedding(**to(server.embedding_model), input=["a river", "a bicycle"])
    same = v1_client.embeddings.create(model=server.embedding_model, input=["a river", "a bicycle"], encoding_format="float")
    for item, other in zip(answer.data, same.data, strict=True):
        assert item["embedding"] == pytest.approx(other.embedding, abs=1e-5)
    assert answer.usage.prompt_tokens == same.usage.prompt_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_tools(to, server, stream):
    fields = {"tools": [WEATHER], "tool_choice": NAMED, "max_tokens": 200, "temperature": 1, "stream": stream}
    answer = chat(to(server.random_model), **fields)
    if stream:
        answer = litellm.stream_chunk_builder(list(answer))
    call, *_ = answer.choices[0].message.tool_calls
    assert call.id and call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["unit"] in ("celsius", "fahrenheit")
    assert answer.choices[0].finish_reason == "tool_calls"


def test_turns_of_parallel_calls(to, server):
    """The `databricks/` provider takes two calls of one turn apart, each with its own result after it."""
    calls = [
        {"id": f"call_{number}", "type": "function", "function": {"name": "get_weather", "arguments": json.dumps(arguments)}}
        for number, arguments in enumerate([{"city": "Bern", "unit": "celsius"}, {"city": "Rome", "unit": "celsius"}])
    ]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "21 degrees"} for call in calls]
    messages = [*QUESTION, {"role": "assistant", "content": None, "tool_calls": calls}, *results]
    assert chat(to(server.random_model), messages=messages, tools=[WEATHER], tool_choice="none").choices[0].message.content


class Answer(BaseModel):
    city: str
    sure: bool


@pytest.mark.parametrize("stream", [False, True])
def test_structured_output(to, server, stream):
    schema = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": Answer.model_json_schema()}}
    schema["json_schema"]["schema"] |= {"additionalProperties": False}
    schema["json_schema"]["schema"]["properties"]["city"] |= {"maxLength": 12}
    answer = chat(to(server.random_model), response_format=schema, max_tokens=200, stream=stream)
    if stream:
        answer = litellm.stream_chunk_builder(list(answer))
    assert isinstance(Answer.model_validate_json(answer.choices[0].message.content), Answer)


@pytest.mark.parametrize(
    ("fields", "error", "named"),
    [
        ({"model": "no-such-model"}, litellm.NotFoundError, "no-such-model"),
        ({"temperature": 9}, litellm.BadRequestError, "temperature"),
        ({"messages": [{"role": "user", "content": "river " * 12000}]}, litellm.BadRequestError, "context"),
    ],
    ids=["unknown", "out-of-range", "too-long"],
)
def test_errors(to, server, fields, error, named):
    fields = dict(fields)
    with pytest.raises(error, match=named):
        chat(to(fields.pop("model", server.chat_model)), **fields)


def test_a_name_of_three_parts_goes_to_the_gateway(server):
    """By its dots the `databricks/` provider takes it for a model of a catalogue, and asks the gateway's path for it."""
    place = {"model": "databricks/main.models.no-such-model", "api_base": server.url + DATABRICKS_DIALECT, "api_key": TOKEN}
    with pytest.raises(litellm.NotFoundError, match="main.models.no-such-model"):
        chat(place, num_retries=0)
