"""Function calling through the unmodified clients, plain and streamed."""

import json
import warnings

import pytest
from databricks.sdk.errors import BadRequest
from databricks.sdk.service.serving import ChatMessage, ChatMessageRole

QUESTION = [{"role": "user", "content": "Is it warm in Bern?"}]
UNITS = ("celsius", "fahrenheit")
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"type": "string", "enum": list(UNITS)}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
NOW = {"type": "function", "function": {"name": "now", "description": "The time", "parameters": {"type": "object", "properties": {}}}}
NAMED = {"type": "function", "function": {"name": "get_weather"}}


def chat(client, server, messages=QUESTION, **fields):
    fields = {"tools": [WEATHER, NOW], "parallel_tool_calls": False, "max_tokens": 200, "seed": 5} | fields
    return client.chat.completions.create(model=server.chat_model, messages=messages, **fields)


def check(name, arguments):
    arguments = json.loads(arguments)
    if name == "get_weather":
        assert set(arguments) == {"city", "unit"} and arguments["unit"] in UNITS and len(arguments["city"]) <= 20
    else:
        assert (name, arguments) == ("now", {})


def test_required(client, server):
    [choice] = chat(client, server, tool_choice="required").choices
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    [call] = choice.message.tool_calls
    assert call.type == "function" and call.id
    check(call.function.name, call.function.arguments)


def test_named(client, server):
    [choice] = chat(client, server, tool_choice=NAMED).choices
    [call] = choice.message.tool_calls
    assert (choice.finish_reason, call.function.name) == ("tool_calls", "get_weather")
    check(call.function.name, call.function.arguments)


def test_strict(client, server):
    strict = {"type": "function", "function": WEATHER["function"] | {"strict": True}}
    [choice] = chat(client, server, tools=[strict], tool_choice="required").choices
    check(choice.message.tool_calls[0].function.name, choice.message.tool_calls[0].function.arguments)


def test_several_choices_have_calls_of_their_own(client, server):
    answer = chat(client, server, tool_choice="required", n=3)
    calls = [choice.message.tool_calls[0] for choice in answer.choices]
    assert len({call.id for call in calls}) == 3
    for call in calls:
        check(call.function.name, call.function.arguments)


@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
def test_streamed_deltas_are_the_plain_call(client, server, choice):
    plain = chat(client, server, tool_choice=choice).choices[0].message.tool_calls[0]
    chunks = list(chat(client, server, tool_choice=choice, stream=True))
    deltas = [call for chunk in chunks for call in (chunk.choices[0].delta.tool_calls or [])]
    first, *rest = deltas
    assert first.index == 0 and first.id and first.type == "function" and first.function.name == plain.function.name
    assert rest and all(call.id is None and call.function.name is None and call.index == 0 for call in rest)
    assert "".join(call.function.arguments for call in deltas) == plain.function.arguments
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "tool_calls"
    assert not any(chunk.choices[0].delta.content for chunk in chunks)


def test_the_clients_own_accumulator(client, server):
    strict = {"type": "function", "function": WEATHER["function"] | {"strict": True}}
    with client.chat.completions.stream(
        model=server.chat_model, messages=QUESTION, tools=[strict], tool_choice="required", parallel_tool_calls=False,
        max_tokens=200, seed=5,
    ) as stream:
        kinds = {event.type for event in stream}
        [choice] = stream.get_final_completion().choices
    assert {"tool_calls.function.arguments.delta", "tool_calls.function.arguments.done"} <= kinds
    [call] = choice.message.tool_calls
    assert call.function.parsed_arguments == json.loads(call.function.arguments)
    assert choice.finish_reason == "tool_calls" and choice.message.content is None


def test_auto_streams_what_it_answers_plainly(client, server):
    plain = chat(client, server, max_tokens=40).choices[0]
    chunks = list(chat(client, server, max_tokens=40, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == (plain.message.content or "")
    assert chunks[-1].choices[0].finish_reason == plain.finish_reason


def test_an_agent_takes_three_turns(client, server):
    messages = list(QUESTION)
    for turn in range(3):
        answer = chat(client, server, messages, tool_choice="required", seed=turn)
        message = answer.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls:
            check(call.function.name, call.function.arguments)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps({"degrees": 20 + turn})})
    last = chat(client, server, messages, tool_choice="none", max_tokens=20).choices[0]
    assert last.message.content and last.message.tool_calls is None


def test_refusals_name_the_field(client, server):
    import openai

    broken = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "not": {}}}}
    for fields, field in [
        ({"tools": [WEATHER] * 2}, "tools[1].function.name"),
        ({"tools": [broken]}, "tools[0].function.parameters"),
        ({"tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice.function.name"),
        ({"extra_body": {"functions": [{"name": "f"}]}}, "functions"),
    ]:
        with pytest.raises(openai.BadRequestError, match=field.replace("[", r"\[").replace("]", r"\]").replace(".", r"\.")):
            chat(client, server, **fields)


def test_databricks_query(workspace, server):
    """The SDK reads no calls out of an answer, but says why it ended; a call comes back through `api_client`."""
    body = {"messages": QUESTION, "tools": [WEATHER], "tool_choice": "required", "max_tokens": 200, "parallel_tool_calls": False}
    path = f"/serving-endpoints/{server.chat_model}/invocations"
    answer = workspace.api_client.do("POST", path, body=body)
    [choice] = answer["choices"]
    assert choice["finishReason"] == choice["finish_reason"] == "tool_calls"
    check(choice["message"]["tool_calls"][0]["function"]["name"], choice["message"]["tool_calls"][0]["function"]["arguments"])
    extra = {"tools": json.dumps([WEATHER]), "tool_choice": "required", "parallel_tool_calls": "false"}
    question = [ChatMessage(role=ChatMessageRole.USER, content=QUESTION[0]["content"])]
    read = workspace.serving_endpoints.query(name=server.chat_model, messages=question, max_tokens=200, extra_params=extra)
    assert read.choices[0].finish_reason == "tool_calls"
    with pytest.raises(BadRequest, match="tool_choice"):
        workspace.serving_endpoints.query(name=server.chat_model, messages=question, extra_params={"tool_choice": "required"})


def test_openai_client_made_by_the_sdk(workspace, server):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client = workspace.serving_endpoints.get_open_ai_client()
    [choice] = chat(client, server, tool_choice="required").choices
    check(choice.message.tool_calls[0].function.name, choice.message.tool_calls[0].function.arguments)
