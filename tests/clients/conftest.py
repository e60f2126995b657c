"""The server under test, and the unmodified clients pointed at it.

The server must be running. It is named by HEARTH_URL (such as http://127.0.0.1:8080), its endpoints by
HEARTH_CHAT_MODEL, HEARTH_RANDOM_MODEL (another chat model; a tiny one of random weights keeps the suite quick),
HEARTH_EMBEDDING_MODEL and HEARTH_RERANK_MODEL, which is the only reranker. Nothing is skipped for want of them: without a server the run fails.
"""

import os
from dataclasses import dataclass

import openai
import pytest
import pytest_asyncio
from databricks.sdk import WorkspaceClient
from databricks.sdk.core import Config

OPENAI_DIALECT, DATABRICKS_DIALECT = "/v1", "/serving-endpoints"
TOKEN = os.environ.get("HEARTH_TOKEN", "x")


@dataclass(frozen=True)
class Server:
    url: str
    chat_model: str
    random_model: str
    embedding_model: str
    rerank_model: str


@pytest.fixture(scope="session")
def server() -> Server:
    models = ("CHAT", "RANDOM", "EMBEDDING", "RERANK")
    wanted = ("HEARTH_URL", *(f"HEARTH_{model}_MODEL" for model in models))
    missing = [name for name in wanted if not os.environ.get(name)]
    if missing:
        pytest.fail(f"set {', '.join(missing)}: these tests need a running server", pytrace=False)
    url, *models = (os.environ[name] for name in wanted)
    return Server(url.rstrip("/"), *models)


@pytest.fixture(params=[OPENAI_DIALECT, DATABRICKS_DIALECT])
def dialect(request) -> str:
    """Under which path the OpenAI client is pointed at the server."""
    return request.param


@pytest.fixture
def client(server, dialect):
    with openai.OpenAI(base_url=server.url + dialect, api_key=TOKEN, max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture
def v1_client(server):
    with openai.OpenAI(base_url=server.url + OPENAI_DIALECT, api_key=TOKEN, max_retries=0, timeout=120) as client:
        yield client


@pytest_asyncio.fixture
async def async_client(server, dialect):
    async with openai.AsyncOpenAI(base_url=server.url + dialect, api_key=TOKEN, max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture(scope="session")
def workspace(server) -> WorkspaceClient:
    """As in the product's own examples, but for a short retry time: a wrong 429 or 503 then fails within seconds."""
    config = Config(host=server.url, token=TOKEN, auth_type="pat", retry_timeout_seconds=5)
    return WorkspaceClient(config=config)
