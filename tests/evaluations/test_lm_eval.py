"""The unmodified evaluation harness against the running servers, tokenizer included, measured against its PyTorch backend.

The servers must be running, one for each checkpoint: HEARTH_URLS is a JSON object of their addresses by checkpoint.
"""

import json
import os

import pytest
import tasks

# Of the log-likelihood of a text. The PyTorch backend keeps the sum in f32, whose last place is more than that above 1,000.
TOLERANCE = {"abs": 1e-4, "rel": 2**-23}


@pytest.fixture(scope="session")
def urls() -> dict[str, str]:
    if not os.environ.get("HEARTH_URLS"):
        pytest.fail("set HEARTH_URLS: these tests need running servers", pytrace=False)
    return json.loads(os.environ["HEARTH_URLS"])


@pytest.fixture(params=tasks.CHECKPOINTS, scope="session")
def checkpoint(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def model_args(urls, checkpoint) -> dict:
    return {
        "model": checkpoint,
        "base_url": urls[checkpoint] + "/v1/completions",
        "tokenizer_backend": "remote",
        "max_length": tasks.CONTEXT_LENGTH,
        "max_retries": 1,
        "num_concurrent": 4,
    }


@pytest.fixture(scope="session")
def answers(checkpoint, model_args) -> dict[str, list]:
    return tasks.responses("local-completions", model_args)


@pytest.mark.parametrize("task", ["multiple_choice", "rolling"])
def test_log_likelihoods_are_those_of_pytorch(checkpoint, answers, task):
    expected = tasks.golden(checkpoint)[task]
    assert len(answers[task]) == len(expected)
    for document, (found, wanted) in enumerate(zip(answers[task], expected, strict=True)):
        assert log_likelihoods(found) == pytest.approx(log_likelihoods(wanted), **TOLERANCE), f"document {document}"
        assert greedy(found) == greedy(wanted), f"document {document}"


def test_generated_texts_are_those_of_pytorch(checkpoint, answers):
    assert answers["generate"] == tasks.golden(checkpoint)["generate"]


def test_the_remote_tokenizer_is_found_without_being_asked_for(model_args):
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    model = LocalCompletionsAPI(**model_args | {"tokenizer_backend": "auto"})
    assert model.tokenizer_backend == "remote"
    text = "Größe 🙂 <|im_end|> x"
    assert model.decode_batch([model.tok_encode(text)]) == [text]


def test_a_greedy_choice_is_seen_as_greedy(checkpoint, model_args):
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    prompt, chosen = tasks.greedy_choice(checkpoint)
    other = [*chosen[:-1], (chosen[-1] + 1) % 256]
    model = LocalCompletionsAPI(**model_args)
    answers = model._loglikelihood_tokens([(None, prompt, chosen), (None, prompt, other)])
    assert [is_greedy for _, is_greedy in answers] == [True, False]


def log_likelihoods(answer) -> list[float]:
    """A rolling answer is one number, one of multiple choice a pair for each choice."""
    return [one[0] if isinstance(one, list) else one for one in answer]


def greedy(answer) -> list[bool]:
    return [one[1] for one in answer if isinstance(one, list)]
