"""`databricks-langchain`: `ChatDatabricks` on both of its paths, and `DatabricksEmbeddings`."""

import pytest
from databricks_langchain import ChatDatabricks, DatabricksEmbeddings
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from test_langchain import Report, get_weather

QUESTION = "What is the capital of France?"


@pytest.fixture(params=[{}, {"use_ai_gateway": True}], ids=["serving-endpoints", "gateway"])
def model(request, server, workspace):
    def make(name=server.chat_model, **fields):
        fields = {"max_tokens": 8, "temperature": 0, "max_retries": 0, "timeout": 120} | request.param | fields
        return ChatDatabricks(model=name, workspace_client=workspace, **fields)

    return make


@pytest.fixture
def random_model(model, server):
    return model(server.random_model, max_tokens=200, temperature=1, extra_params={"seed": 3})


def test_invoke(model):
    answer = model().invoke([SystemMessage("You answer in one word."), HumanMessage(QUESTION)])
    assert isinstance(answer, AIMessage) and answer.content and answer.tool_calls == []
    usage = answer.usage_metadata
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0
    assert answer.response_metadata["finish_reason"] in ("stop", "length")


def test_stop(model):
    whole = model().invoke(QUESTION).content
    stop = whole[len(whole) // 2:][:3]
    assert model(stop=[stop]).invoke(QUESTION).content == whole[: whole.index(stop)]


def test_stream(model):
    answer = model().invoke(QUESTION)
    chunks = list(model().stream(QUESTION))
    assert "".join(chunk.content for chunk in chunks) == answer.content
    ends = [chunk.response_metadata["finish_reason"] for chunk in chunks if "finish_reason" in chunk.response_metadata]
    assert ends == [answer.response_metadata["finish_reason"]]
    # The client says the usage that a chunk brought once more at the end, so the sum of its chunks is not asked for.
    usages = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    assert usages[-1]["total_tokens"] == answer.usage_metadata["total_tokens"]


@pytest.mark.asyncio
async def test_async(model):
    answer = await model().ainvoke(QUESTION)
    assert "".join([chunk.content async for chunk in model().astream(QUESTION)]) == answer.content


def test_several_at_once(model):
    questions = [QUESTION, "What is the capital of Spain?", "Tell me about rivers."]
    assert [answer.content for answer in model().batch(questions)] == [model().invoke(one).content for one in questions]


def test_several_choices(model):
    [generations] = model(n=2, temperature=1).generate([[HumanMessage(QUESTION)]]).generations
    assert len(generations) == 2


@pytest.mark.parametrize("choice", ["any", "required", "get_weather"])
def test_bound_tools(random_model, choice):
    answer = random_model.bind_tools([get_weather], tool_choice=choice, parallel_tool_calls=False).invoke("Is it warm?")
    [call] = answer.tool_calls
    assert call["name"] == "get_weather" and call["args"]["unit"] in ("celsius", "fahrenheit") and call["id"]
    assert answer.invalid_tool_calls == [] and answer.response_metadata["finish_reason"] == "tool_calls"


def test_streamed_tools(random_model):
    bound = random_model.bind_tools([get_weather], tool_choice="get_weather", parallel_tool_calls=False)
    whole = None
    for chunk in bound.stream("Is it warm?"):
        whole = chunk if whole is None else whole + chunk
    [call] = whole.tool_calls
    assert call["name"] == "get_weather" and call["args"] == bound.invoke("Is it warm?").tool_calls[0]["args"]


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_structured_output(random_model, method):
    report = random_model.with_structured_output(Report, method=method).invoke("Is it warm in Bern?")
    assert isinstance(report, Report) and len(report.place) <= 12


def test_json_mode(random_model):
    answer = random_model.with_structured_output(None, method="json_mode", include_raw=True).invoke("Answer in JSON: is it warm?")
    cut = answer["raw"].response_metadata["finish_reason"] == "length"
    assert cut or isinstance(answer["parsed"], dict)


def test_an_agents_loop(random_model):
    bound = random_model.bind_tools([get_weather], tool_choice="any", parallel_tool_calls=False)
    messages = [HumanMessage("Is it warm?")]
    for _ in range(3):
        answer = bound.invoke(messages)
        messages.append(answer)
        messages += [ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]) for call in answer.tool_calls]
    assert len(messages) == 7
    assert random_model.invoke(messages).content


def test_unknown_endpoint(model):
    with pytest.raises(Exception, match="no-such-model"):
        model("no-such-model").invoke(QUESTION)


@pytest.mark.usefixtures("databricks_environment")
def test_embeddings(server, v1_client):
    """In several requests: the client sends twenty texts at a time."""
    texts = [f"river number {number}" for number in range(45)]
    embeddings = DatabricksEmbeddings(endpoint=server.embedding_model)
    vectors = embeddings.embed_documents(texts)
    assert len(vectors) == 45 and len({len(vector) for vector in vectors}) == 1
    for place in (0, 20, 44):
        one = v1_client.embeddings.create(model=server.embedding_model, input=texts[place]).data[0].embedding
        assert vectors[place] == pytest.approx(one, abs=1e-5)
    assert embeddings.embed_query(texts[7]) == pytest.approx(vectors[7], abs=1e-5)


@pytest.mark.usefixtures("databricks_environment")
def test_parameters_of_queries_and_documents(server):
    instructed = DatabricksEmbeddings(endpoint=server.embedding_model, query_params={"instruction": "Find this: "})
    plain = DatabricksEmbeddings(endpoint=server.embedding_model)
    assert instructed.embed_query("a river") == pytest.approx(plain.embed_query("Find this: a river"), abs=1e-5)
    [document] = instructed.embed_documents(["a river"])
    assert document == pytest.approx(plain.embed_query("a river"), abs=1e-5)
