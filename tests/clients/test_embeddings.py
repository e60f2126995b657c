"""Embeddings through the `openai` client, under both paths."""

import base64
import json
import math
import struct

import openai
import pytest

TEXTS = ["The river rose overnight.", "Water levels went up during the night.", "She bought a new bicycle.", "fox"]


def embed(client, server, texts, **fields) -> list[list[float]]:
    return [item.embedding for item in client.embeddings.create(model=server.embedding_model, input=texts, **fields).data]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def test_single(client, server):
    answer = client.embeddings.create(model=server.embedding_model, input=TEXTS[0])
    assert answer.object == "list" and answer.model == server.embedding_model
    [item] = answer.data
    assert item.object == "embedding" and item.index == 0
    assert all(isinstance(value, float) and math.isfinite(value) for value in item.embedding)
    assert answer.usage.prompt_tokens > 0 and answer.usage.total_tokens == answer.usage.prompt_tokens


def test_batch_is_the_singles_in_order(client, server):
    answer = client.embeddings.create(model=server.embedding_model, input=TEXTS)
    assert [item.index for item in answer.data] == list(range(len(TEXTS)))
    for text, item in zip(TEXTS, answer.data):
        [alone] = embed(client, server, [text])
        assert item.embedding == pytest.approx(alone, abs=1e-5)


def test_base64_that_the_client_asks_for_by_default_equals_float(client, server):
    [decoded], [floats] = embed(client, server, TEXTS[0]), embed(client, server, TEXTS[0], encoding_format="float")
    assert decoded == pytest.approx(floats, abs=1e-7)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_encoding_on_the_wire(client, server, encoding):
    raw = client.embeddings.with_raw_response.create(
        model=server.embedding_model, input=TEXTS[0], encoding_format=encoding
    )
    value = json.loads(raw.content)["data"][0]["embedding"]
    if encoding == "base64":
        packed = base64.b64decode(value, validate=True)
        value = list(struct.unpack(f"<{len(packed) // 4}f", packed))
    assert value == pytest.approx(embed(client, server, TEXTS[0])[0], abs=1e-6)


def test_trained_model_sees_likeness(client, server):
    if "minilm" not in server.embedding_model:
        pytest.skip("needs all-minilm-l6-v2 as the embedding model")
    rose, went_up, bicycle, _ = embed(client, server, TEXTS)
    assert math.sqrt(sum(value * value for value in rose)) == pytest.approx(1, abs=1e-5)
    assert cosine(rose, went_up) > 0.4 > 0.2 > cosine(rose, bicycle)


def test_own_dimensions_are_accepted(client, server):
    [plain] = embed(client, server, TEXTS[0])
    [asked] = embed(client, server, TEXTS[0], dimensions=len(plain))
    assert asked == pytest.approx(plain, abs=1e-6)


def test_other_dimensions_are_refused_by_name(client, server):
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        embed(client, server, TEXTS[0], dimensions=7)


def test_instruction_is_put_before_the_text(client, server):
    [told] = embed(client, server, "river", extra_body={"instruction": "Represent this sentence: "})
    [joined] = embed(client, server, "Represent this sentence: river")
    [plain] = embed(client, server, "river")
    assert told == pytest.approx(joined, abs=1e-5)
    assert told != pytest.approx(plain, abs=1e-3)


@pytest.mark.parametrize("wrong", [[], "", [""]], ids=["no-inputs", "empty-string", "empty-string-in-list"])
def test_empty_input_is_refused_by_name(client, server, wrong):
    with pytest.raises(openai.BadRequestError, match="input"):
        embed(client, server, wrong)


def test_unknown_encoding_is_refused_by_name(client, server):
    with pytest.raises(openai.BadRequestError, match="encoding_format"):
        embed(client, server, TEXTS[0], extra_body={"encoding_format": "hex"})


def test_too_long_input_is_refused(client, server):
    with pytest.raises(openai.BadRequestError):
        embed(client, server, "river " * 5000)


def test_wrong_task_is_refused_both_ways(client, server):
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model=server.chat_model, input=TEXTS[0])
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=server.embedding_model, messages=[{"role": "user", "content": "hello"}])


@pytest.mark.asyncio
async def test_async_client(async_client, server):
    answer = await async_client.embeddings.create(model=server.embedding_model, input=TEXTS[:2])
    assert len(answer.data) == 2
