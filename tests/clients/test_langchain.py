"""LangChain's `ChatOpenAI`, as its users point it at another server: bound tools, structured output, an agent's loop."""

from typing import Literal

import pytest
from conftest import TOKEN
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field


class Report(BaseModel):
    """The weather in a city."""

    unit: Literal["celsius", "fahrenheit"]
    warm: bool
    place: str = Field(max_length=12)


@tool
def get_weather(unit: Literal["celsius", "fahrenheit"]) -> str:
    """The weather."""
    return f"21 degrees {unit}"


@pytest.fixture
def model(server, dialect):
    return ChatOpenAI(
        model=server.chat_model, base_url=server.url + dialect, api_key=TOKEN, max_tokens=200, max_retries=0, seed=3, timeout=120
    )


def test_bound_tools(model):
    answer = model.bind_tools([get_weather], tool_choice="any", parallel_tool_calls=False).invoke("Is it warm?")
    [call] = answer.tool_calls
    assert call["name"] == "get_weather" and call["args"]["unit"] in ("celsius", "fahrenheit") and call["id"]
    assert answer.invalid_tool_calls == [] and answer.response_metadata["finish_reason"] == "tool_calls"


def test_streamed_tools(model):
    bound = model.bind_tools([get_weather], tool_choice="get_weather", parallel_tool_calls=False)
    whole = None
    for chunk in bound.stream("Is it warm?"):
        whole = chunk if whole is None else whole + chunk
    [call] = whole.tool_calls
    assert call["name"] == "get_weather" and call["args"] == bound.invoke("Is it warm?").tool_calls[0]["args"]


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_structured_output(model, method):
    report = model.with_structured_output(Report, method=method).invoke("Is it warm in Bern?")
    assert isinstance(report, Report) and len(report.place) <= 12


def test_json_mode(model):
    answer = model.with_structured_output(None, method="json_mode", include_raw=True).invoke("Answer in JSON: is it warm?")
    cut = answer["raw"].response_metadata["finish_reason"] == "length"
    assert cut or isinstance(answer["parsed"], dict)


def test_an_agents_loop(model):
    bound = model.bind_tools([get_weather], tool_choice="any", parallel_tool_calls=False)
    messages = [HumanMessage("Is it warm?")]
    for _ in range(3):
        answer = bound.invoke(messages)
        messages.append(answer)
        messages += [ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]) for call in answer.tool_calls]
    assert len(messages) == 7
    assert model.invoke(messages).content
