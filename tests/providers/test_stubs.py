"""The providers' own clients against the stubs that stand in for their APIs.

HEARTH_STUBS_URL and HEARTH_STUBS_KEY name the running stubs, as `provider-stubs` prints them.
"""

import json
import os

import anthropic
import cohere
import openai
import pytest

URL, KEY = os.environ["HEARTH_STUBS_URL"], os.environ["HEARTH_STUBS_KEY"]
QUESTION = "The weather in Paris and in Rome, and the time?"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "unit": {"type": "string"}}}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "The weather", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now", "description": "The time", "parameters": {"type": "object"}}},
]
CALLS = [
    ("get_weather", {"city": "Paris", "unit": "celsius"}),
    ("get_weather", {"city": "Rome", "unit": "celsius"}),
    ("now", {}),
]
RESULTS = [("call_1", "21"), ("call_2", "25"), ("call_3", "noon")]
ANSWER = "It is 21 and 25 and noon."


@pytest.fixture(params=["openai", "azure", "custom"])
def openai_client(request):
    if request.param == "azure":
        return openai.AzureOpenAI(
            azure_endpoint=f"{URL}/azure", api_key=KEY, api_version="2024-10-21", azure_deployment="stub", max_retries=0
        )
    path = "/openai/v1" if request.param == "openai" else "/custom"
    return openai.OpenAI(base_url=URL + path, api_key=KEY, max_retries=0)


def asked(call):
    return call.function.name, json.loads(call.function.arguments)


def test_openai_reads_a_conversation_with_functions(openai_client):
    messages = [{"role": "user", "content": QUESTION}]
    first = openai_client.chat.completions.create(model="stub", messages=messages, tools=TOOLS)
    choice = first.choices[0]
    assert [asked(call) for call in choice.message.tool_calls] == CALLS
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me see. ")
    assert (first.usage.prompt_tokens, first.usage.prompt_tokens_details.cached_tokens) == (20, 5)
    messages.append(choice.message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"}))
    messages += [{"role": "tool", "tool_call_id": id, "content": result} for id, result in RESULTS]
    second = openai_client.chat.completions.create(model="stub", messages=messages, tools=TOOLS)
    assert (second.choices[0].message.content, second.choices[0].finish_reason) == (ANSWER, "stop")


def test_openai_reads_a_stream(openai_client):
    with openai_client.chat.completions.stream(
        model="stub",
        messages=[{"role": "user", "content": QUESTION}],
        tools=[{"type": "function", "function": {**tool["function"], "strict": True}} for tool in TOOLS],
        stream_options={"include_usage": True},
    ) as stream:
        final = stream.get_final_completion()
    assert [asked(call) for call in final.choices[0].message.tool_calls] == CALLS
    assert (final.choices[0].message.content, final.usage.completion_tokens) == ("Let me see. ", 15)


def test_openai_reads_texts_and_vectors():
    client = openai.OpenAI(base_url=f"{URL}/openai/v1", api_key=KEY, max_retries=0)
    answer = client.completions.create(model="stub", prompt=["ab", "cd"], n=2, logprobs=1, max_tokens=5)
    assert [choice.text for choice in answer.choices] == ["0!", "1!", "0!", "1!"]
    assert answer.choices[0].logprobs.tokens == ["0", "!"]
    streamed = client.completions.create(model="stub", prompt="ab", stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed if chunk.choices) == "0!"
    vectors = client.embeddings.create(model="stub", input=["a", "bb"], encoding_format="float").data
    assert sorted(item.index for item in vectors) == [0, 1]


@pytest.mark.parametrize(
    "model, error",
    [
        ("stub--busy", openai.RateLimitError),
        ("stub--down", openai.InternalServerError),
        ("stub--unknown", openai.NotFoundError),
        ("stub--error-later", openai.APIError),
    ],
)
def test_openai_reads_errors(model, error):
    client = openai.OpenAI(base_url=f"{URL}/openai/v1", api_key=KEY, max_retries=0)
    with pytest.raises(error, match="too many|out of order|no such model|on fire"):
        messages, options = [{"role": "user", "content": "something long"}], {"include_usage": True}
        for _ in client.chat.completions.create(model=model, messages=messages, stream=True, stream_options=options):
            pass


def test_openai_is_refused_what_it_does_not_know():
    client = openai.OpenAI(base_url=f"{URL}/openai/v1", api_key=KEY, max_retries=0)
    with pytest.raises(openai.BadRequestError, match="top_k"):
        client.chat.completions.create(
            model="stub", messages=[{"role": "user", "content": "hi"}], extra_body={"top_k": 1}
        )
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{URL}/openai/v1", api_key="wrong", max_retries=0).chat.completions.create(
            model="stub", messages=[{"role": "user", "content": "hi"}]
        )


ANTHROPIC_TOOLS = [
    {
        "name": tool["function"]["name"],
        "description": tool["function"]["description"],
        "input_schema": tool["function"]["parameters"],
    }
    for tool in TOOLS
]


@pytest.fixture
def claude():
    return anthropic.Anthropic(base_url=f"{URL}/anthropic", api_key=KEY, max_retries=0)


def uses(message):
    return [(block.name, block.input) for block in message.content if block.type == "tool_use"]


def test_anthropic_reads_a_conversation_with_functions(claude):
    messages = [{"role": "user", "content": QUESTION}]
    first = claude.messages.create(model="stub", max_tokens=50, messages=messages, tools=ANTHROPIC_TOOLS)
    assert (uses(first), first.stop_reason) == (CALLS, "tool_use")
    usage = first.usage
    assert usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens == 20
    content = [block.model_dump(include={"type", "text", "id", "name", "input"}, exclude_none=True) for block in first.content]
    messages.append({"role": "assistant", "content": [block for block in content if block["type"] != "thinking"]})
    results = [{"type": "tool_result", "tool_use_id": id, "content": result} for id, result in RESULTS]
    messages.append({"role": "user", "content": results})
    second = claude.messages.create(model="stub", max_tokens=50, messages=messages, tools=ANTHROPIC_TOOLS)
    assert "".join(block.text for block in second.content if block.type == "text") == ANSWER


def test_anthropic_reads_a_stream(claude):
    with claude.messages.stream(
        model="stub", max_tokens=50, messages=[{"role": "user", "content": QUESTION}], tools=ANTHROPIC_TOOLS
    ) as stream:
        assert "".join(stream.text_stream) == "Let me see. "
        final = stream.get_final_message()
    assert (uses(final), final.stop_reason, final.usage.output_tokens) == (CALLS, "tool_use", 15)


@pytest.mark.parametrize(
    "model, error",
    [
        ("stub--busy", anthropic.RateLimitError),
        ("stub--down", anthropic.InternalServerError),
        ("stub--unknown", anthropic.NotFoundError),
        ("stub--error-later", anthropic.APIStatusError),
    ],
)
def test_anthropic_reads_errors(claude, model, error):
    with pytest.raises(error, match="too many|out of order|no such model|on fire"):
        for _ in claude.messages.create(
            model=model, max_tokens=9, messages=[{"role": "user", "content": "something long"}], stream=True
        ):
            pass


def test_anthropic_is_refused_turns_that_do_not_alternate(claude):
    with pytest.raises(anthropic.BadRequestError, match="alternate"):
        claude.messages.create(
            model="stub", max_tokens=9, messages=[{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
        )


@pytest.fixture
def command():
    return cohere.ClientV2(base_url=f"{URL}/cohere", api_key=KEY)


def test_cohere_reads_a_conversation_with_functions(command):
    messages = [{"role": "user", "content": QUESTION}]
    first = command.chat(model="stub", messages=messages, tools=TOOLS)
    assert [asked(call) for call in first.message.tool_calls] == CALLS
    assert (first.finish_reason, first.message.tool_plan, first.usage.tokens.input_tokens) == ("TOOL_CALL", "Let me see. ", 20)
    messages.append({"role": "assistant", "tool_plan": first.message.tool_plan, "tool_calls": first.message.tool_calls})
    messages += [{"role": "tool", "tool_call_id": id, "content": result} for id, result in RESULTS]
    second = command.chat(model="stub", messages=messages, tools=TOOLS)
    assert [part.text for part in second.message.content if part.type == "text"] == [ANSWER]


def test_cohere_reads_a_stream(command):
    plan, calls, ends = "", [], []
    for event in command.chat_stream(model="stub", messages=[{"role": "user", "content": QUESTION}], tools=TOOLS):
        match event.type:
            case "tool-plan-delta":
                plan += event.delta.message.tool_plan
            case "tool-call-start":
                calls.append([event.delta.message.tool_calls.function.name, ""])
            case "tool-call-delta":
                calls[event.index][1] += event.delta.message.tool_calls.function.arguments
            case "message-end":
                ends.append((event.delta.finish_reason, event.delta.usage.tokens.output_tokens))
    assert [(name, json.loads(arguments or "{}")) for name, arguments in calls] == CALLS
    assert (plan, ends) == ("Let me see. ", [("TOOL_CALL", 15)])
    text = ""
    for event in command.chat_stream(model="stub", messages=[{"role": "user", "content": "hi"}]):
        if event.type == "content-delta":
            text += event.delta.message.content.text
    assert text == "You said: hi"


def test_cohere_reads_vectors_and_errors(command):
    answer = command.embed(model="stub", texts=["a", "bb"], input_type="search_query", embedding_types=["float"])
    assert answer.embeddings.float == [[1.0, 97.0, 1.0], [2.0, 98.0, 1.0]]
    with pytest.raises(cohere.errors.NotFoundError, match="no such model"):
        command.chat(model="stub--unknown", messages=[{"role": "user", "content": "hi"}])
