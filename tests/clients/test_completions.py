"""Text completions through the `openai` client, under both paths."""

import openai
import pytest

PROMPT = "The rain had stopped, and the river"


def complete(client, server, prompt=PROMPT, **fields):
    """Without the chat template: the prompt as it is."""
    extra = {"use_raw_prompt": True} | fields.pop("extra_body", {})
    fields = {"max_tokens": 10, "temperature": 0} | fields
    return client.completions.create(model=server.chat_model, prompt=prompt, extra_body=extra, **fields)


def test_plain_completion(client, server):
    answer = complete(client, server)
    assert answer.object == "text_completion" and answer.model == server.chat_model and answer.id
    [choice] = answer.choices
    assert choice.text and choice.index == 0 and choice.finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_stream_carries_the_plain_text(client, server):
    plain = complete(client, server).choices[0]
    chunks = list(complete(client, server, stream=True))
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == plain.text
    assert {chunk.object for chunk in chunks} == {"text_completion"}
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert reasons == [plain.finish_reason]


def test_usage_in_a_stream_when_asked_for(client, server):
    plain = complete(client, server)
    *others, last = complete(client, server, stream=True, stream_options={"include_usage": True})
    assert last.choices == [] and last.usage.total_tokens == plain.usage.total_tokens
    assert 0 <= last.usage.prompt_tokens_details.cached_tokens < last.usage.prompt_tokens
    assert all(chunk.usage is None for chunk in others)


@pytest.mark.parametrize("stream", [False, True])
def test_list_of_prompts(client, server, stream):
    prompts = [PROMPT, "Once upon a time", "One, two, three,"]
    alone = [complete(client, server, prompt).choices[0].text for prompt in prompts]
    if stream:
        texts = ["", "", ""]
        for chunk in complete(client, server, prompts, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.text
    else:
        answer = complete(client, server, prompts)
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        texts = [choice.text for choice in answer.choices]
    assert texts == alone


def test_several_choices_of_several_prompts_are_numbered_prompt_by_prompt(client, server):
    answer = complete(client, server, [PROMPT, "Once upon a time"], n=2, temperature=1, seed=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]


def test_stop(client, server):
    whole = complete(client, server).choices[0].text
    stop = whole[len(whole) // 2:][:3]
    [choice] = complete(client, server, stop=[stop]).choices
    assert choice.text == whole[: whole.index(stop)] and choice.finish_reason == "stop"


def test_log_probabilities(client, server):
    answer = complete(client, server, logprobs=2)
    found = answer.choices[0].logprobs
    assert len(found.tokens) == len(found.token_logprobs) == len(found.top_logprobs) == len(found.text_offset)
    assert answer.usage.completion_tokens - len(found.tokens) in (0, 1)
    assert all(value <= 0 for value in found.token_logprobs)
    for chosen, top in zip(found.token_logprobs, found.top_logprobs):
        assert len(top) >= 2 and chosen == pytest.approx(max(top.values()), abs=1e-4)


def test_echo_is_honoured_or_refused_by_name(client, server):
    try:
        answer = complete(client, server, echo=True)
    except openai.BadRequestError as refusal:
        assert "echo" in str(refusal)
        return
    assert answer.choices[0].text == PROMPT + complete(client, server).choices[0].text


def test_scoring_a_prompt_is_honoured_or_refused_by_name(client, server):
    try:
        answer = complete(client, server, echo=True, logprobs=1, max_tokens=0)
    except openai.BadRequestError as refusal:
        assert any(name in str(refusal) for name in ("echo", "max_tokens"))
        return
    found = answer.choices[0].logprobs
    assert answer.choices[0].text == PROMPT and len(found.tokens) == answer.usage.prompt_tokens
    assert found.token_logprobs[0] is None and all(value <= 0 for value in found.token_logprobs[1:])


def test_suffix_is_appended_or_refused_by_name(client, server):
    try:
        answer = complete(client, server, suffix=" THE END")
    except openai.BadRequestError as refusal:
        assert "suffix" in str(refusal)
        return
    assert answer.choices[0].text == complete(client, server).choices[0].text + " THE END"


def test_token_prompt_is_honoured_or_refused_by_name(client, server):
    try:
        answer = complete(client, server, [10, 11, 12, 13])
    except openai.BadRequestError as refusal:
        assert "prompt" in str(refusal)
        return
    assert answer.usage.prompt_tokens == 4


def test_explicit_nulls_mean_absent(client, server):
    answer = complete(client, server, extra_body={"logprobs": None, "seed": None, "stop": None, "suffix": None})
    assert answer.choices[0].text == complete(client, server).choices[0].text
