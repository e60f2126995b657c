"""What clients see when a request is wrong: the right exception, and the name of what was wrong with it."""

import httpx
import openai
import pytest
from conftest import DATABRICKS_DIALECT, OPENAI_DIALECT, TOKEN

MESSAGES = [{"role": "user", "content": "hello"}]


def chat(client, server, **fields):
    fields = {"model": server.chat_model, "messages": MESSAGES, "max_tokens": 4} | fields
    return client.chat.completions.create(**fields)


def assert_body_names(error: openai.APIStatusError, dialect: str, name: str) -> None:
    """The error body is in the path's own dialect, and the message names the field; `/v1` names it in `param` too."""
    if dialect == OPENAI_DIALECT:
        assert error.type and error.param == name
        assert name in error.body["message"]
    else:
        assert error.body["error_code"] in ("BAD_REQUEST", "INVALID_PARAMETER_VALUE")
        assert name in error.body["message"]


def test_unknown_model(client, server, dialect):
    with pytest.raises(openai.NotFoundError, match="no-such-model") as caught:
        chat(client, server, model="no-such-model")
    if dialect == DATABRICKS_DIALECT:
        assert caught.value.body["error_code"] == "ENDPOINT_NOT_FOUND"
    else:
        assert caught.value.type and caught.value.code


OUT_OF_RANGE = {
    "temperature": 2.5,
    "top_p": 1.5,
    "frequency_penalty": 2.5,
    "presence_penalty": -2.5,
    "n": 0,
    "max_tokens": -1,
    "max_completion_tokens": 0,
}


@pytest.mark.parametrize(("field", "value"), OUT_OF_RANGE.items(), ids=OUT_OF_RANGE)
def test_value_out_of_range_is_named(client, server, dialect, field, value):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, server, **({field: value} if field != "max_completion_tokens" else {"extra_body": {field: value}}))
    assert_body_names(caught.value, dialect, field)
    assert str(value) in caught.value.body["message"]


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("top_logprobs", {"logprobs": True, "top_logprobs": 21}),
        ("top_logprobs", {"top_logprobs": 2}),
        ("temperature", {"extra_body": {"temperature": "warm"}}),
        ("stop", {"extra_body": {"stop": 5}}),
        ("messages", {"messages": []}),
        ("no_such_field", {"extra_body": {"no_such_field": 1}}),
    ],
    ids=["too-many-alternatives", "alternatives-without-logprobs", "wrong-type", "stop-type", "no-messages", "unknown-field"],
)
def test_wrong_field_is_named(client, server, dialect, field, fields):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, server, **fields)
    assert_body_names(caught.value, dialect, field)


def test_unknown_role_is_refused(client, server):
    with pytest.raises(openai.BadRequestError, match="narrator"):
        chat(client, server, messages=[{"role": "narrator", "content": "hello"}])


def test_image_parts_are_refused_for_a_text_model(client, server):
    parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    with pytest.raises(openai.BadRequestError, match="image_url"):
        chat(client, server, messages=[{"role": "user", "content": parts}])


@pytest.mark.parametrize("stream", [False, True])
def test_prompt_longer_than_the_context(client, server, dialect, stream):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, server, messages=[{"role": "user", "content": "river " * 12000}], stream=stream)
    if dialect == OPENAI_DIALECT:
        assert caught.value.code == "context_length_exceeded"
    else:
        assert caught.value.body["error_code"] in ("BAD_REQUEST", "INVALID_PARAMETER_VALUE")
    assert "context" in caught.value.body["message"]


def test_error_before_a_stream_begins_is_an_ordinary_error(client, server):
    with pytest.raises(openai.BadRequestError, match="temperature"):
        chat(client, server, temperature=9, stream=True)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"model": 5}', b"\xff\xfe"], ids=["empty", "cut", "array", "null", "wrong", "bytes"]
)
def test_malformed_body(server, dialect, body):
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    reply = httpx.post(f"{server.url}{dialect}/chat/completions", content=body, headers=headers)
    assert reply.status_code == 400
    assert reply.headers["content-type"].startswith("application/json")
    answer = reply.json()
    if dialect == OPENAI_DIALECT:
        assert answer["error"]["message"] and answer["error"]["type"] and {"param", "code"} <= answer["error"].keys()
    else:
        assert answer["error_code"] and answer["message"] and "error" not in answer


def test_unknown_route_answers_json(server, dialect):
    reply = httpx.post(f"{server.url}{dialect}/no/such/route/here", json={}, headers={"Authorization": f"Bearer {TOKEN}"})
    assert reply.status_code == 404
    assert ("error" if dialect == OPENAI_DIALECT else "error_code") in reply.json()


def test_server_still_answers_after_all_that(client, server):
    assert chat(client, server).choices
