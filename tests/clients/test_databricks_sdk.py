"""The Databricks SDK's `serving_endpoints.query` against `/serving-endpoints/{name}/invocations`."""

import warnings

import pytest
from databricks.sdk.errors import BadRequest, NotFound
from databricks.sdk.service.serving import ChatMessage, ChatMessageRole, QueryEndpointResponseObject

QUESTION = [ChatMessage(role=ChatMessageRole.USER, content="What is the capital of France?")]


def query(workspace, server, messages=QUESTION, **fields):
    fields = {"max_tokens": 10, "temperature": 0.0} | fields
    return workspace.serving_endpoints.query(name=server.chat_model, messages=messages, **fields)


def test_chat(workspace, server, v1_client):
    answer = query(workspace, server)
    assert answer.object == QueryEndpointResponseObject.CHAT_COMPLETION
    [choice] = answer.choices
    assert choice.message.role == ChatMessageRole.ASSISTANT
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.model and answer.served_model_name
    same = v1_client.chat.completions.create(
        model=server.chat_model, messages=[{"role": "user", "content": QUESTION[0].content}], max_tokens=10, temperature=0
    )
    assert choice.message.content == same.choices[0].message.content


def test_system_message(workspace, server):
    system = ChatMessage(role=ChatMessageRole.SYSTEM, content="You answer in rhymes, at length, and with care. " * 3)
    assert query(workspace, server, [system, *QUESTION]).usage.prompt_tokens > query(workspace, server).usage.prompt_tokens


def test_choices_and_stop(workspace, server):
    whole = query(workspace, server).choices[0].message.content
    stop = whole[len(whole) // 2:][:3]
    answer = query(workspace, server, n=2, stop=[stop])
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert {choice.message.content for choice in answer.choices} == {whole[: whole.index(stop)]}
    assert {choice.finish_reason for choice in answer.choices} == {"stop"}


def test_length_is_the_finish_reason(workspace, server):
    answer = query(workspace, server, max_tokens=2)
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 2


def test_completion(workspace, server):
    answer = workspace.serving_endpoints.query(
        name=server.chat_model, prompt="Once upon a time", max_tokens=8, temperature=0.0
    )
    assert answer.object == QueryEndpointResponseObject.TEXT_COMPLETION
    assert answer.choices[0].text and answer.choices[0].finish_reason in ("stop", "length")


def test_embeddings(workspace, server):
    answer = workspace.serving_endpoints.query(name=server.embedding_model, input=["a river", "a bicycle"])
    assert answer.object == QueryEndpointResponseObject.LIST
    assert [item.index for item in answer.data] == [0, 1]
    assert all(isinstance(value, float) for item in answer.data for value in item.embedding)
    one = workspace.serving_endpoints.query(name=server.embedding_model, input="a river")
    assert one.data[0].embedding == pytest.approx(answer.data[0].embedding, abs=1e-5)


def test_extra_params_are_strings_that_count(workspace, server):
    fields = {"temperature": 1.0, "extra_params": {"top_k": "1"}}
    assert query(workspace, server, **fields).choices[0].message.content == query(workspace, server).choices[0].message.content
    with pytest.raises(BadRequest, match="top_p"):
        query(workspace, server, extra_params={"top_p": "1.5"})


def test_bookkeeping_fields_are_accepted(workspace, server):
    answer = query(workspace, server, client_request_id="request-1", usage_context={"team": "docs"})
    assert answer.choices[0].message.content


def test_unknown_endpoint(workspace):
    with pytest.raises(NotFound, match="no-such-endpoint") as caught:
        workspace.serving_endpoints.query(name="no-such-endpoint", messages=QUESTION)
    assert caught.value.error_code == "ENDPOINT_NOT_FOUND"


def test_value_out_of_range_is_named(workspace, server):
    with pytest.raises(BadRequest, match="temperature") as caught:
        query(workspace, server, temperature=3.0)
    assert caught.value.error_code in ("BAD_REQUEST", "INVALID_PARAMETER_VALUE")


def test_wrong_task(workspace, server):
    with pytest.raises(BadRequest):
        workspace.serving_endpoints.query(name=server.chat_model, input="a river")
    with pytest.raises(BadRequest):
        workspace.serving_endpoints.query(name=server.embedding_model, messages=QUESTION)


def test_openai_client_made_by_the_sdk(workspace, server):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client = workspace.serving_endpoints.get_open_ai_client()
    answer = client.chat.completions.create(
        model=server.chat_model, messages=[{"role": "user", "content": "hello"}], max_tokens=4
    )
    assert answer.choices
