"""Answers that must have a form: JSON of a schema, a regular expression, a choice, a grammar."""

import datetime
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from typing import Literal, Optional, Union

import jsonschema
import openai
import pytest
from conftest import TOKEN
from pydantic import BaseModel, Field

import schemas

QUESTION = [{"role": "user", "content": "Describe a river as JSON."}]
RANDOM_SCHEMAS = 1000
# As many of them as a trained model answers in two minutes on two cores that other tests keep busy;
# HEARTH_TEST_SCHEMA_COUNT=1000 asks all.
TRAINED_SCHEMAS = int(os.environ.get("HEARTH_TEST_SCHEMA_COUNT", "150"))


def ask(client, model, **fields):
    fields = {"max_tokens": 300, "seed": 1} | fields
    return client.chat.completions.create(model=model, messages=QUESTION, **fields)


def constrained(client, model, **outputs):
    return ask(client, model, extra_body={"structured_outputs": outputs}).choices[0]


def of_schema(schema, strict=True):
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": strict}}


@pytest.fixture(scope="session")
def closing(server) -> dict[str, int]:
    """A bias to the tokens that end strings, lists and objects: random weights would seldom come to an end."""
    with openai.OpenAI(base_url=server.url, api_key=TOKEN, max_retries=0) as plain:
        def token(text):
            body = {"model": server.random_model, "prompt": text, "add_special_tokens": False}
            [token] = plain.post("/tokenize", body=body, cast_to=object)["tokens"]
            return token

        return {str(token(text)): 5 for text in ['"', "]", "}"]}


def validated(schema, text, what):
    """Fails unless the text is JSON of the schema."""
    validator = jsonschema.Draft202012Validator
    validator.check_schema(schema)
    try:
        validator(schema, format_checker=validator.FORMAT_CHECKER).validate(json.loads(text))
    except jsonschema.ValidationError as error:
        pytest.fail(f"{what}: {text} is not of {json.dumps(schema)}: {error.message}")


def finished(client, model, seed, **fields):
    """Whether the answer to a random schema came to its end; it is valid if it did."""
    schema = schemas.schema(seed)
    choice = ask(client, model, seed=seed, response_format=of_schema(schema), **fields).choices[0]
    if choice.finish_reason == "length":
        return False
    assert choice.finish_reason == "stop"
    validated(schema, choice.message.content, f"seed {seed}")
    return True


def test_random_schemas_have_valid_answers(v1_client, server, closing):
    with ThreadPoolExecutor(8) as threads:
        answers = threads.map(lambda seed: finished(v1_client, server.random_model, seed, logit_bias=closing), range(RANDOM_SCHEMAS))
        ended = sum(answers)
    assert ended > 0.8 * RANDOM_SCHEMAS, f"only {ended} answers came to their end"


def test_random_schemas_have_valid_answers_of_a_trained_model(v1_client, server):
    """Without a bias: what a trained model says by itself. It is slower than the random one by so much as it is larger."""
    if not server.chat_model.startswith("smollm2"):
        pytest.skip("needs smollm2-135m-instruct as the chat model")
    patient = v1_client.with_options(timeout=600)
    with ThreadPoolExecutor(16) as threads:
        answers = threads.map(lambda seed: finished(patient, server.chat_model, seed, max_tokens=150), range(TRAINED_SCHEMAS))
        ended = sum(answers)
    print(f"{ended} of {TRAINED_SCHEMAS} answers came to their end")
    assert ended > 0.6 * TRAINED_SCHEMAS, f"only {ended} answers came to their end"


def test_schemas_of_the_official_suite_have_valid_answers(v1_client, server, closing):
    """The schemas of JSON Schema's own test suite, as far as all in them is supported: what the models answer to each is valid."""
    folder = os.environ.get("HEARTH_TEST_SCHEMAS")
    if folder is None:
        pytest.skip("HEARTH_TEST_SCHEMAS, the folder `tests/draft2020-12` of the JSON-Schema-Test-Suite")
    files = sorted(Path(folder).glob("*.json"))
    groups = [(path.stem, group) for path in files for group in json.loads(path.read_text())]
    assert len(groups) > 200

    patient = v1_client.with_options(timeout=600)

    def answers(case):
        keyword, group = case
        ended = 0
        for model, bias in [(server.random_model, closing), (server.chat_model, {})]:
            try:
                choice = ask(patient, model, max_tokens=120, logit_bias=bias, response_format=of_schema(group["schema"])).choices[0]
            except openai.BadRequestError:
                return None
            if choice.finish_reason == "stop":
                validated(group["schema"], choice.message.content, f"{keyword}, {group['description']}, {model}")
                ended += 1
        return ended

    with ThreadPoolExecutor(16) as threads:
        counts = list(threads.map(answers, groups))
    taken = [ended for ended in counts if ended is not None]
    print(f"{len(groups)} schemas, {len(taken)} supported, {sum(taken)} answers of two models came to their end")
    assert len(taken) > 100 and sum(taken) > len(taken)


def test_json_mode_gives_an_object(client, server):
    for model in (server.chat_model, server.random_model):
        choice = ask(client, model, response_format={"type": "json_object"}, max_tokens=200).choices[0]
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content), dict)
        else:
            assert choice.finish_reason == "length" and choice.message.content.startswith("{")
        assert re.search(r"\s{30}", choice.message.content) is None


class Unit(str, Enum):
    KILOMETRE = "km"
    MILE = "mi"


class Length(BaseModel):
    number: int = Field(ge=1, le=9999)
    unit: Unit


class Source(BaseModel):
    kind: Literal["source"]
    height: Optional[int] = Field(ge=0, le=8848)


class Mouth(BaseModel):
    kind: Literal["mouth"]
    sea: Literal["north", "south"]


class River(BaseModel):
    name: str = Field(max_length=8)
    length: Length
    ends: list[Union[Source, Mouth]] = Field(max_length=2)
    since: datetime.date
    tributaries: list["River"] = Field(max_length=1)


def test_parse_gives_nested_models(client, server, closing):
    for seed in range(5):
        parsed = client.chat.completions.parse(
            model=server.random_model,
            messages=QUESTION,
            response_format=River,
            logit_bias=closing,
            max_tokens=400,
            seed=seed,
        )
        message = parsed.choices[0].message
        assert isinstance(message.parsed, River), message.content
        assert isinstance(message.parsed.length.unit, Unit)


def test_a_streamed_answer_parses(v1_client, server, closing):
    fields = {"model": server.random_model, "messages": QUESTION, "logit_bias": closing, "seed": 3, "max_tokens": 400}
    with v1_client.chat.completions.stream(response_format=River, **fields) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_completion().choices[0]
    plain = v1_client.chat.completions.parse(response_format=River, **fields).choices[0]
    assert streamed.message.parsed == plain.message.parsed
    assert streamed.finish_reason == plain.finish_reason == "stop"


def test_regex_choice_and_grammar(client, server):
    for model in (server.chat_model, server.random_model):
        choice = constrained(client, model, regex=r"[A-Z][a-z]{2,5} (river|lake)")
        assert choice.finish_reason == "stop" and re.fullmatch(r"[A-Z][a-z]{2,5} (river|lake)", choice.message.content)
        choice = constrained(client, model, choice=["yes", "no", "yes and no"])
        assert choice.finish_reason == "stop" and choice.message.content in ["yes", "no", "yes and no"]
        lark = 'start: sum "."\nsum: NUMBER | "(" sum ("+" | "-") NUMBER ")"\nNUMBER: /[1-9]/\n'
        choice = constrained(client, model, grammar=lark)
        text = choice.message.content
        if choice.finish_reason == "stop":
            assert text.endswith(".") and text.count("(") == text.count(")")
        assert re.fullmatch(r"[0-9()+.-]*", text)


def test_the_older_spellings_mean_the_same(client, server):
    for older, newer, value in [
        ("guided_regex", "regex", "[ab]{5}"),
        ("guided_choice", "choice", ["one", "two"]),
        ("guided_json", "json", {"enum": [1, "b", None]}),
        ("guided_grammar", "grammar", 'start: "x" | "y" "z"'),
    ]:
        old = ask(client, server.random_model, extra_body={older: value}).choices[0].message.content
        assert old == constrained(client, server.random_model, **{newer: value}).message.content


def test_completions_have_forms_too(client, server):
    fields = {"model": server.random_model, "prompt": ["a", "b"], "max_tokens": 50, "n": 2, "logprobs": 1}
    answer = client.completions.create(extra_body={"structured_outputs": {"regex": "[0-9]{4}"}}, **fields)
    assert len(answer.choices) == 4
    for choice in answer.choices:
        assert choice.finish_reason == "stop" and re.fullmatch("[0-9]{4}", choice.text)
        assert "".join(choice.logprobs.tokens) == choice.text
        # Of the model's own output, in which everything is possible.
        assert all(logprob < 0 for logprob in choice.logprobs.token_logprobs)
    tokens = sum(len(choice.logprobs.tokens) for choice in answer.choices)
    assert answer.usage.completion_tokens == tokens
    json_mode = {"extra_body": {"response_format": {"type": "json_object"}}, "max_tokens": 1}
    choice = client.completions.create(**fields | json_mode).choices[0]
    assert choice.finish_reason == "length" and choice.text == "{"


def test_a_stop_text_ends_a_constrained_answer(client, server):
    choice = ask(client, server.random_model, stop=["5"], extra_body={"guided_regex": "1234567"}).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("1234", "stop")


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"response_format": of_schema({"properties": {"a": {"not": {}}}})}, ["#/properties/a", "`not`"]),
        ({"response_format": of_schema({"type": "array", "uniqueItems": True}, False)}, ["`uniqueItems`"]),
        ({"response_format": of_schema({"$ref": "#/$defs/absent"})}, ["absent"]),
        ({"response_format": {"type": "json_schema"}}, ["response_format.json_schema"]),
        ({"structured_outputs": {"regex": "(a"}}, ["structured_outputs.regex", "unclosed"]),
        ({"structured_outputs": {"grammar": "start: nowhere"}}, ["structured_outputs.grammar", "nowhere"]),
        ({"structured_outputs": {"choice": []}}, ["structured_outputs.choice"]),
        ({"guided_regex": "a", "guided_choice": ["b"]}, ["guided_choice", "guided_regex"]),
        ({"guided_regex": "a" * 200_000}, ["131072", "bytes"]),
        ({"guided_regex": "a", "min_tokens": 3}, ["min_tokens"]),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(client, server, fields, words):
    with pytest.raises(openai.BadRequestError) as refusal:
        ask(client, server.random_model, extra_body=fields)
    assert all(word in refusal.value.message for word in words), refusal.value.message
