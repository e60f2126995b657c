"""Reranking through the `cohere` client, both of its APIs, and in the shapes that clients of Jina and
text-embeddings-inference send and read, which have no client of their own."""

import cohere
import httpx
import openai
import pytest
from conftest import TOKEN

QUERY = "What is the capital of France?"
DOCUMENTS = [
    "Rain fell on the hills all night.",
    "The capital of France is Paris.",
    "A fox jumps over a dog.",
    "She counted the coins twice.",
]


@pytest.fixture
def v1(server):
    with cohere.Client(TOKEN, base_url=server.url, timeout=120, max_retries=0) as client:
        yield client


@pytest.fixture
def v2(server):
    with cohere.ClientV2(TOKEN, base_url=server.url, timeout=120, max_retries=0) as client:
        yield client


@pytest.fixture(params=["v1", "v2"])
def client(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def post(server):
    with httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {TOKEN}"}, timeout=120) as client:
        yield lambda path, **body: client.post(path, json=body)


def ranks(answer) -> list[tuple[int, float]]:
    return [(result.index, result.relevance_score) for result in answer.results]


def test_every_document_is_ranked(client, server):
    answer = client.rerank(model=server.rerank_model, query=QUERY, documents=DOCUMENTS)
    scores = [score for _, score in ranks(answer)]
    assert sorted(index for index, _ in ranks(answer)) == [0, 1, 2, 3]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 4
    assert all(0 < score < 1 for score in scores)
    assert answer.id
    assert answer.meta.api_version.version in ("1", "2")
    assert answer.meta.tokens.input_tokens > 4 and answer.meta.tokens.output_tokens == 0


def test_both_versions_say_the_same(v1, v2, server):
    [old, new] = [client.rerank(model=server.rerank_model, query=QUERY, documents=DOCUMENTS) for client in (v1, v2)]
    assert ranks(old) == ranks(new)
    assert (old.meta.api_version.version, new.meta.api_version.version) == ("1", "2")


def test_a_batch_is_its_documents_alone(client, server):
    together = dict(ranks(client.rerank(model=server.rerank_model, query=QUERY, documents=DOCUMENTS)))
    for index, document in enumerate(DOCUMENTS):
        [(_, alone)] = ranks(client.rerank(model=server.rerank_model, query=QUERY, documents=[document]))
        assert alone == pytest.approx(together[index], abs=1e-6)


def test_the_best_of_them(client, server):
    whole = ranks(client.rerank(model=server.rerank_model, query=QUERY, documents=DOCUMENTS))
    assert ranks(client.rerank(model=server.rerank_model, query=QUERY, documents=DOCUMENTS, top_n=2)) == whole[:2]


def test_documents_come_back_if_they_are_asked_for(v1, server):
    documents = [{"text": DOCUMENTS[0], "source": "diary"}, DOCUMENTS[1]]
    answer = v1.rerank(model=server.rerank_model, query=QUERY, documents=documents, return_documents=True)
    shown = {result.index: result.document for result in answer.results}
    assert (shown[0].text, shown[0].source) == (DOCUMENTS[0], "diary")
    assert shown[1].text == DOCUMENTS[1]
    plain = v1.rerank(model=server.rerank_model, query=QUERY, documents=DOCUMENTS)
    assert all(result.document is None for result in plain.results)


def test_a_long_document_is_cut(v2, server):
    ask = {"model": server.rerank_model, "query": QUERY}
    [(_, long)] = ranks(v2.rerank(**ask, documents=["river " * 5000]))
    [(_, longer)] = ranks(v2.rerank(**ask, documents=["river " * 6000]))
    assert long == longer
    [(_, cut)] = ranks(v2.rerank(**ask, documents=["river fox dog"], max_tokens_per_doc=1))
    [(_, short)] = ranks(v2.rerank(**ask, documents=["river"]))
    assert cut == pytest.approx(short, abs=1e-6)


def test_a_long_query_is_refused_by_name(client, server):
    with pytest.raises(cohere.BadRequestError) as caught:
        client.rerank(model=server.rerank_model, query="river " * 5000, documents=DOCUMENTS)
    assert "query" in str(caught.value.body)


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("documents", {"documents": []}),
        ("top_n", {"top_n": 0}),
        ("query", {"query": ""}),
        ("no_such_field", {"request_options": {"additional_body_parameters": {"no_such_field": 1}}}),
    ],
    ids=["no-documents", "no-results", "no-query", "unknown-field"],
)
def test_wrong_field_is_named(client, server, field, fields):
    ask = {"model": server.rerank_model, "query": QUERY, "documents": DOCUMENTS} | fields
    with pytest.raises(cohere.BadRequestError) as caught:
        client.rerank(**ask)
    assert field in caught.value.body["error"]["message"]


@pytest.mark.parametrize(
    ("version", "field", "value"),
    [
        ("v1", "max_chunks_per_doc", 10),
        ("v1", "rank_fields", ["title", "text"]),
        ("v2", "priority", 5),
        ("v2", "max_tokens_per_doc", 0),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(request, server, version, field, value):
    client = request.getfixturevalue(version)
    with pytest.raises(cohere.BadRequestError) as caught:
        client.rerank(model=server.rerank_model, query=QUERY, documents=DOCUMENTS, **{field: value})
    assert field in caught.value.body["error"]["message"]


def test_unknown_model(client):
    with pytest.raises(cohere.NotFoundError) as caught:
        client.rerank(model="no-such-model", query=QUERY, documents=DOCUMENTS)
    assert "no-such-model" in caught.value.body["error"]["message"]


def test_wrong_task_is_refused_both_ways(client, v1_client, server):
    for model in (server.chat_model, server.embedding_model):
        with pytest.raises(cohere.BadRequestError):
            client.rerank(model=model, query=QUERY, documents=DOCUMENTS)
    with pytest.raises(openai.BadRequestError):
        v1_client.chat.completions.create(model=server.rerank_model, messages=[{"role": "user", "content": "hello"}])
    with pytest.raises(openai.BadRequestError):
        v1_client.embeddings.create(model=server.rerank_model, input="hello")


@pytest.mark.asyncio
async def test_async_client(server):
    async with cohere.AsyncClientV2(TOKEN, base_url=server.url, timeout=120, max_retries=0) as client:
        answer = await client.rerank(model=server.rerank_model, query=QUERY, documents=DOCUMENTS, top_n=1)
        assert len(answer.results) == 1


def test_what_jina_clients_read(post, server):
    answer = post("/v1/rerank", model=server.rerank_model, query=QUERY, documents=DOCUMENTS, return_documents=True)
    answer = answer.raise_for_status().json()
    assert answer["model"] == server.rerank_model
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 4
    assert all(result["document"]["text"] == DOCUMENTS[result["index"]] for result in answer["results"])


def test_what_clients_of_text_embeddings_inference_read(post, v2, server):
    expected = ranks(v2.rerank(model=server.rerank_model, query=QUERY, documents=DOCUMENTS))
    fields = {"raw_scores": False, "return_text": True, "truncate": False, "truncation_direction": "Right"}
    answer = post("/rerank", query=QUERY, texts=DOCUMENTS, **fields).raise_for_status().json()
    assert [(rank["index"], rank["score"]) for rank in answer] == expected
    assert all(rank["text"] == DOCUMENTS[rank["index"]] for rank in answer)
    raw = post("/rerank", query=QUERY, texts=DOCUMENTS, raw_scores=True).raise_for_status().json()
    assert [rank["index"] for rank in raw] == [index for index, _ in expected]
    assert "text" not in raw[0]


def test_a_text_that_is_too_long_is_refused_with_its_index_or_cut(post):
    texts = [DOCUMENTS[0], "river " * 5000]
    refused = post("/rerank", query=QUERY, texts=texts)
    assert refused.status_code == 400 and "texts[1]" in refused.json()["error"]["message"]
    assert len(post("/rerank", query=QUERY, texts=texts, truncate=True).raise_for_status().json()) == 2


def test_invocations(post, server):
    answer = post(f"/serving-endpoints/{server.rerank_model}/invocations", query=QUERY, documents=DOCUMENTS, top_n=3)
    assert len(answer.raise_for_status().json()["results"]) == 3
