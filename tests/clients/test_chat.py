"""Chat completions through the `openai` client, under both paths."""

import asyncio

import pytest

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
STORY = [{"role": "user", "content": "Tell me a story about a river."}]
MAX_TOKENS = 10
"""Few, to be quick; enough for "The capital of France is Paris." and its end."""


def chat(client, server, messages=QUESTION, **fields):
    fields = {"max_tokens": MAX_TOKENS, "temperature": 0} | fields
    return client.chat.completions.create(model=server.chat_model, messages=messages, **fields)


def streamed_texts(stream) -> tuple[dict[int, str], list]:
    """The text of each choice, and the chunks as they came."""
    chunks, texts = list(stream), {}
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
    return texts, chunks


def test_plain_answer(client, server):
    answer = chat(client, server)
    assert answer.object == "chat.completion"
    assert answer.model == server.chat_model
    assert answer.id and answer.created > 1_600_000_000
    [choice] = answer.choices
    assert choice.index == 0 and choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert choice.message.tool_calls is None
    usage = answer.usage
    assert usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= MAX_TOKENS
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_trained_model_knows_paris(client, server):
    if not server.chat_model.startswith("smollm2"):
        pytest.skip("needs smollm2-135m-instruct as the chat model")
    assert chat(client, server).choices[0].message.content == "The capital of France is Paris."


def test_stream_carries_the_plain_answer(client, server):
    plain = chat(client, server, STORY)
    texts, chunks = streamed_texts(chat(client, server, STORY, stream=True))
    assert texts == {0: plain.choices[0].message.content}
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert reasons == [plain.choices[0].finish_reason]


def test_stream_is_an_event_stream(client, server):
    fields = {"max_tokens": 2, "stream": True}
    raw = client.chat.completions.with_raw_response.create(model=server.chat_model, messages=QUESTION, **fields)
    assert raw.headers["content-type"].startswith("text/event-stream")
    streamed_texts(raw.parse())


def test_usage_in_a_stream_when_asked_for(client, server):
    plain = chat(client, server)
    _, chunks = streamed_texts(chat(client, server, stream=True, stream_options={"include_usage": True}))
    *others, last = chunks
    assert last.choices == [] and last.usage.total_tokens == plain.usage.total_tokens
    assert 0 < last.usage.prompt_tokens_details.cached_tokens < last.usage.prompt_tokens
    assert all(chunk.usage is None and chunk.choices for chunk in others)


def test_streaming_helper_of_the_client(client, server):
    # It takes an answer cut by its length for a failure, so the answer is made to end at a stop string.
    whole = chat(client, server).choices[0].message.content
    stop = whole[len(whole) // 2:][:4]
    with client.chat.completions.stream(
        model=server.chat_model, messages=QUESTION, max_tokens=MAX_TOKENS, temperature=0, stop=stop
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.choices[0].message.content == whole[: whole.index(stop)]


def test_abandoned_stream_leaves_the_server_answering(client, server):
    with chat(client, server, STORY, max_tokens=200, stream=True) as stream:
        next(iter(stream))
    assert chat(client, server).choices[0].message.content


def test_several_choices(client, server):
    answer = chat(client, server, STORY, n=3, temperature=1, seed=7)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    assert answer.usage.completion_tokens <= 3 * MAX_TOKENS


def test_several_choices_streamed(client, server):
    plain = chat(client, server, STORY, n=2, temperature=1, seed=7)
    texts, chunks = streamed_texts(chat(client, server, STORY, n=2, temperature=1, seed=7, stream=True))
    assert texts == {choice.index: choice.message.content for choice in plain.choices}
    ended = [choice.index for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert sorted(ended) == [0, 1]


def test_seed_makes_sampling_repeatable(client, server):
    def sampled(seed):
        return chat(client, server, STORY, temperature=1, seed=seed).choices[0].message.content

    first = sampled(7)
    assert sampled(7) == first
    assert any(sampled(seed) != first for seed in (8, 9, 10))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("as_list", [False, True])
def test_stop_ends_the_text_before_the_stop_string(client, server, stream, as_list):
    whole = chat(client, server, STORY).choices[0].message.content
    stop = whole[len(whole) // 3:][:4]
    fields = {"stop": ["never said, surely", stop] if as_list else stop}
    if stream:
        texts, chunks = streamed_texts(chat(client, server, STORY, stream=True, **fields))
        reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
        text, reason = texts[0], reasons[0]
    else:
        [choice] = chat(client, server, STORY, **fields).choices
        text, reason = choice.message.content, choice.finish_reason
    assert text == whole[: whole.index(stop)]
    assert reason == "stop"


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_length_limit_under_both_names(client, server, field):
    answer = client.chat.completions.create(
        model=server.chat_model, messages=STORY, temperature=0, **{field: 3}
    )
    assert answer.usage.completion_tokens == 3
    assert answer.choices[0].finish_reason == "length"


def test_log_probabilities(client, server):
    answer = chat(client, server, logprobs=True, top_logprobs=3)
    entries = answer.choices[0].logprobs.content
    # The token that ended the answer is counted in the usage but has no text, so it may be left out of the list.
    assert answer.usage.completion_tokens - len(entries) in (0, 1)
    for entry in entries:
        assert len(entry.top_logprobs) == 3
        values = [other.logprob for other in entry.top_logprobs]
        assert values == sorted(values, reverse=True) and values[0] <= 0
        assert entry.token == entry.top_logprobs[0].token and entry.logprob == pytest.approx(values[0], abs=1e-4)
    text = b"".join(bytes(entry.bytes) for entry in entries).decode()
    assert text.startswith(answer.choices[0].message.content)


def test_log_probabilities_without_alternatives_and_streamed(client, server):
    plain = chat(client, server, logprobs=True).choices[0].logprobs.content
    assert all(entry.top_logprobs == [] for entry in plain)
    _, chunks = streamed_texts(chat(client, server, logprobs=True, stream=True))
    streamed = [entry for chunk in chunks for choice in chunk.choices if choice.logprobs for entry in choice.logprobs.content]
    assert [entry.token for entry in streamed] == [entry.token for entry in plain]


def test_no_log_probabilities_unless_asked_for(client, server):
    assert chat(client, server).choices[0].logprobs is None


def test_system_message_reaches_the_model(client, server):
    alone = chat(client, server)
    system = {"role": "system", "content": "You answer in rhymes, at length, and never mention any town. " * 3}
    told = chat(client, server, [system, *QUESTION])
    assert told.usage.prompt_tokens > alone.usage.prompt_tokens
    developer = chat(client, server, [system | {"role": "developer"}, *QUESTION])
    assert developer.usage.prompt_tokens == told.usage.prompt_tokens
    assert developer.choices[0].message.content == told.choices[0].message.content


def test_text_parts_are_the_same_as_a_string(client, server):
    parts = [{"role": "user", "content": [{"type": "text", "text": QUESTION[0]["content"]}]}]
    assert chat(client, server, parts).choices[0].message.content == chat(client, server).choices[0].message.content


def test_conversation_with_earlier_turns(client, server):
    turns = [*QUESTION, {"role": "assistant", "content": "Paris."}, {"role": "user", "content": "And of Italy?"}]
    answer = chat(client, server, turns)
    assert answer.usage.prompt_tokens > chat(client, server).usage.prompt_tokens
    assert answer.choices[0].message.content


def test_sampling_fields_are_accepted_together(client, server):
    answer = chat(
        client, server, STORY, temperature=0.7, top_p=0.9, frequency_penalty=0.5, presence_penalty=-0.5, seed=1,
        user="someone", extra_body={"top_k": 20, "min_p": 0.05, "repetition_penalty": 1.1},
    )
    assert answer.choices[0].message.content


def test_explicit_nulls_mean_absent(client, server):
    answer = chat(client, server, stop=None, seed=None, extra_body={"top_p": None, "n": None, "stream_options": None})
    assert answer.choices[0].message.content == chat(client, server).choices[0].message.content


@pytest.mark.asyncio
async def test_async_client_with_calls_side_by_side(async_client, server):
    async def ask():
        answer = await async_client.chat.completions.create(
            model=server.chat_model, messages=QUESTION, max_tokens=MAX_TOKENS, temperature=0
        )
        return answer.choices[0].message.content

    async def ask_streaming():
        stream = await async_client.chat.completions.create(
            model=server.chat_model, messages=QUESTION, max_tokens=MAX_TOKENS, temperature=0, stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    answers = await asyncio.gather(ask(), ask_streaming(), ask(), ask_streaming())
    assert len(set(answers)) == 1 and answers[0]
