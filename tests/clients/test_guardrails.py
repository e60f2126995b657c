"""Guardrails: set by the Databricks client, seen by OpenAI's."""

import json
import re

import openai
import pytest
from conftest import DATABRICKS_DIALECT
from databricks.sdk.errors import BadRequest
from databricks.sdk.service.serving import (
    AiGatewayGuardrailParameters,
    AiGatewayGuardrailPiiBehavior,
    AiGatewayGuardrailPiiBehaviorBehavior,
    AiGatewayGuardrails,
)


def guard(workspace, endpoint, **sides):
    guardrails = AiGatewayGuardrails(**{side: AiGatewayGuardrailParameters(**rules) for side, rules in sides.items()})
    return workspace.serving_endpoints.put_ai_gateway(endpoint.name, guardrails=guardrails).guardrails


def pii(behavior: str):
    return AiGatewayGuardrailPiiBehavior(behavior=AiGatewayGuardrailPiiBehaviorBehavior[behavior])


def ask(client, endpoint, text, **fields):
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.create(model=endpoint.name, messages=messages, max_tokens=48, temperature=0, **fields)


def document(error: openai.APIError) -> dict:
    return json.loads(error.body["message"])


def test_a_refused_request_says_why_in_a_document(client, workspace, endpoint, dialect):
    kept = guard(workspace, endpoint, input={"pii": pii("BLOCK"), "invalid_keywords": ["Falcon"]})
    assert kept.input.pii.behavior == AiGatewayGuardrailPiiBehaviorBehavior.BLOCK
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, endpoint, "I am ann@example.org", stream=stream)
        told = document(caught.value)
        assert told["finishReason"] == "input_guardrail_triggered"
        assert told["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
        verdict = told["input_guardrail"][0]
        assert (verdict["flagged"], verdict["pii_detection"]) == (False, True)
        assert verdict["anonymized_input"] == [{"role": "user", "content": "I am <EMAIL_ADDRESS>"}]
    if dialect == DATABRICKS_DIALECT:
        assert caught.value.body["error_code"] == "BAD_REQUEST"
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, endpoint, "the falcon flies")
    assert document(caught.value)["input_guardrail"][0]["categories"] == {"invalid_keywords": True}


def test_a_stream_that_may_not_go_on_ends_with_an_error(client, workspace, endpoint):
    text = ask(client, endpoint, "hello").choices[0].message.content
    first = {}
    for word in re.finditer(r"[a-z]+", text.lower()):
        first.setdefault(word.group(), word.start())
    last = max(first, key=first.get)
    guard(workspace, endpoint, output={"invalid_keywords": [last]})
    seen = ""
    with pytest.raises(openai.APIError) as caught:
        for chunk in ask(client, endpoint, "hello", stream=True):
            seen += chunk.choices[0].delta.content or ""
    assert document(caught.value)["finishReason"] == "output_guardrail_triggered"
    assert seen and text.startswith(seen) and last not in re.findall(r"[a-z]+", seen.lower())
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, endpoint, "hello")
    assert document(caught.value)["output_guardrail"][0]["flagged"] is True


def test_a_request_with_masks_is_answered(client, workspace, endpoint):
    guard(workspace, endpoint, input={"pii": pii("MASK")}, output={"pii": pii("MASK")})
    answer = ask(client, endpoint, "I am ann@example.org")
    assert "ann@example.org" not in answer.choices[0].message.content
    assert answer.usage.completion_tokens > 0


def test_what_takes_a_model_that_is_not_set_is_refused(workspace, endpoint):
    for rules in ({"safety": True}, {"valid_topics": ["billing"]}):
        with pytest.raises(BadRequest, match="-endpoint ENDPOINT"):
            guard(workspace, endpoint, input=rules)
