"""LangChain's `ChatOpenAI`, as its users point it at another server: bound tools, structured output, an agent's loop."""

import json
from typing import Literal

import pytest
from conftest import TOKEN
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai import BadRequestError
from pydantic import BaseModel, Field

UNITS = ("celsius", "fahrenheit")


class Report(BaseModel):
    """The weather in a city."""

    unit: Literal["celsius", "fahrenheit"]
    warm: bool
    place: str = Field(max_length=12)


@tool
def get_weather(unit: Literal["celsius", "fahrenheit"]) -> str:
    """The weather."""
    return f"21 degrees {unit}"


@tool
def now() -> str:
    """The time."""
    return "12:00"


TOOLS = {"get_weather": get_weather, "now": now}


@pytest.fixture
def model(server, dialect):
    return ChatOpenAI(
        model=server.random_model, base_url=server.url + dialect, api_key=TOKEN, max_tokens=200, max_retries=0, seed=3, timeout=120
    )


def check(call):
    """A call as LangChain reads it is one of the tools', and its arguments are of its schema."""
    assert call["name"] in TOOLS and call["id"] and call["type"] == "tool_call"
    assert call["args"] == {} if call["name"] == "now" else call["args"]["unit"] in UNITS and len(call["args"]) == 1


@pytest.mark.parametrize("strict", [None, True, False])
def test_bound_tools(model, strict):
    bound = model.bind_tools([get_weather, now], tool_choice="any", parallel_tool_calls=False, strict=strict)
    answer = bound.invoke("Is it warm?")
    [call] = answer.tool_calls
    check(call)
    assert answer.invalid_tool_calls == [] and answer.content == ""
    assert answer.response_metadata["finish_reason"] == "tool_calls"
    assert answer.usage_metadata["output_tokens"] > 0


@pytest.mark.parametrize("choice", ["get_weather", {"type": "function", "function": {"name": "get_weather"}}], ids=["name", "dict"])
def test_a_tool_bound_by_its_name(model, choice):
    [call] = model.bind_tools([now, get_weather], tool_choice=choice).invoke("Is it warm?").tool_calls
    check(call)
    assert call["name"] == "get_weather"


def test_several_calls_in_one_answer(model):
    """Random weights go on calling until something ends them; each call that is whole is of its schema."""
    answer = model.bind_tools([get_weather, now], tool_choice="any").invoke("Is it warm?")
    assert answer.tool_calls
    for call in answer.tool_calls:
        check(call)


def test_streamed_tools(model):
    bound = model.bind_tools([get_weather], tool_choice="get_weather", parallel_tool_calls=False)
    chunks = list(bound.stream("Is it warm?"))
    deltas = [delta for chunk in chunks for delta in chunk.tool_call_chunks]
    first, *rest = deltas
    assert first["name"] == "get_weather" and first["id"] and first["index"] == 0
    assert rest and all(delta["name"] is None and delta["id"] is None and delta["index"] == 0 for delta in rest)
    whole = sum(chunks[1:], chunks[0])
    [call] = whole.tool_calls
    check(call)
    assert call["args"] == bound.invoke("Is it warm?").tool_calls[0]["args"]
    assert json.loads("".join(delta["args"] or "" for delta in deltas)) == call["args"]
    assert whole.response_metadata["finish_reason"] == "tool_calls" and whole.content == ""


@pytest.mark.asyncio
async def test_tools_streamed_asynchronously(model):
    bound = model.bind_tools([get_weather], tool_choice="any", parallel_tool_calls=False)
    whole = None
    async for chunk in bound.astream("Is it warm?"):
        whole = chunk if whole is None else whole + chunk
    assert isinstance(whole, AIMessageChunk)
    [call] = whole.tool_calls
    check(call)


def test_auto_streams_what_it_answers(model):
    bound = model.bind_tools([get_weather, now], max_tokens=40)
    plain = bound.invoke("Is it warm?")
    chunks = list(bound.stream("Is it warm?"))
    whole = sum(chunks[1:], chunks[0])
    assert whole.content == plain.content
    assert [(call["name"], call["args"]) for call in whole.tool_calls] == [(call["name"], call["args"]) for call in plain.tool_calls]


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
@pytest.mark.parametrize("strict", [None, True])
def test_structured_output(model, method, strict):
    report = model.with_structured_output(Report, method=method, strict=strict).invoke("Is it warm in Bern?")
    assert isinstance(report, Report) and len(report.place) <= 12


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_structured_output_of_a_plain_schema(model, method):
    schema = Report.model_json_schema()
    answer = model.with_structured_output(schema, method=method, include_raw=True).invoke("Is it warm in Bern?")
    assert answer["parsing_error"] is None
    assert Report.model_validate(answer["parsed"])
    raw = answer["raw"]
    assert raw.response_metadata["finish_reason"] == ("tool_calls" if method == "function_calling" else "stop")
    assert bool(raw.tool_calls) == (method == "function_calling")


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_structured_output_streamed(model, method):
    pieces = list(model.with_structured_output(Report, method=method).stream("Is it warm in Bern?"))
    assert isinstance(pieces[-1], Report)
    assert pieces[-1] == model.with_structured_output(Report, method=method).invoke("Is it warm in Bern?")


def test_json_mode(model):
    answer = model.with_structured_output(None, method="json_mode", include_raw=True).invoke("Answer in JSON: is it warm?")
    cut = answer["raw"].response_metadata["finish_reason"] == "length"
    assert cut or isinstance(answer["parsed"], dict)


def test_json_mode_read_as_a_model(model):
    """Any object is valid in this mode, also one of other fields: what is not a `Report` is LangChain's error, never broken JSON."""
    answer = model.with_structured_output(Report, method="json_mode", include_raw=True).invoke("Answer in JSON: is it warm?")
    raw = answer["raw"]
    if raw.response_metadata["finish_reason"] == "stop":
        assert isinstance(json.loads(raw.content), dict)
        assert isinstance(answer["parsed"], Report) or answer["parsing_error"] is not None


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_tools_beside_a_form(model, streamed):
    """`bind_tools(response_format=...)`, as `create_agent` does it: calls of the tools, or an answer of the form."""
    for seed in range(4):
        bound = model.bind_tools([get_weather, now], response_format=Report, strict=True, parallel_tool_calls=False, seed=seed)
        if streamed:
            chunks = list(bound.stream("Is it warm in Bern?"))
            answer = sum(chunks[1:], chunks[0])
        else:
            answer = bound.invoke("Is it warm in Bern?")
        for call in answer.tool_calls:
            check(call)
        if not answer.tool_calls:
            Report.model_validate_json(answer.content)
    report = model.with_structured_output(Report, method="json_schema", tools=[get_weather], strict=True, include_raw=True).invoke("Bern?")
    assert isinstance(report["parsed"], Report) or report["raw"].tool_calls


def test_an_agents_loop(model):
    bound = model.bind_tools([get_weather], tool_choice="any", parallel_tool_calls=False)
    messages = [HumanMessage("Is it warm?")]
    for _ in range(3):
        answer = bound.invoke(messages)
        messages.append(answer)
        messages += [ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]) for call in answer.tool_calls]
    assert len(messages) == 7
    assert model.invoke(messages).content


def test_an_agents_loop_that_streams(model):
    """Three turns of streamed calls, whose results go back as LangChain makes messages of them; then an answer of a form."""
    bound = model.bind_tools([get_weather, now], tool_choice="any", parallel_tool_calls=False)
    messages = [HumanMessage("Is it warm?")]
    for _ in range(3):
        chunks = list(bound.stream(messages))
        whole = sum(chunks[1:], chunks[0])
        messages.append(AIMessage(content=whole.content, tool_calls=whole.tool_calls))
        messages += [TOOLS[call["name"]].invoke(call) for call in whole.tool_calls]
    assert [message.type for message in messages] == ["human"] + ["ai", "tool"] * 3
    report = model.with_structured_output(Report, method="json_schema").invoke(messages)
    assert isinstance(report, Report)


def test_a_schema_that_cannot_be_honoured_is_refused_by_name(model):
    broken = {"title": "Broken", "type": "object", "properties": {"a": {"not": {}}}}
    for method, place in [("function_calling", "tools"), ("json_schema", "response_format")]:
        with pytest.raises(BadRequestError, match=place) as refusal:
            model.with_structured_output(broken, method=method).invoke("x")
        assert "`not`" in str(refusal.value)
