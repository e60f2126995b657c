"""The server under test, and the unmodified clients pointed at it.

The server must be running. It is named by HEARTH_URL (such as http://127.0.0.1:8080), its endpoints by
HEARTH_CHAT_MODEL, HEARTH_RANDOM_MODEL (another chat model; a tiny one of random weights keeps the suite quick),
HEARTH_EMBEDDING_MODEL and HEARTH_RERANK_MODEL, which is the only reranker. HEARTH_TOKEN is an administrator's token, and
HEARTH_HOSTED_ENTITY a chat model that the server can load within a second, under the name that an endpoint gives it
(`entity_name`). Nothing is skipped for want of them: without a server the run fails.
"""

import os
import time
import uuid
from dataclasses import dataclass, field

# Before the clients are imported: they ask nobody but the server, and a wrong 429 or 503 fails within seconds.
os.environ |= {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DATABRICKS_ENDPOINT_HTTP_RETRY_TIMEOUT": "5",
    "MLFLOW_DEPLOYMENT_PREDICT_TIMEOUT": "120",
    "MLFLOW_DEPLOYMENT_PREDICT_TOTAL_TIMEOUT": "120",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "NO_PROXY": "*",
}

import openai
import pytest
import pytest_asyncio
from databricks.sdk import WorkspaceClient
from databricks.sdk.core import Config
from databricks.sdk.errors import NotFound
from databricks.sdk.service.serving import EndpointCoreConfigInput, EndpointStateConfigUpdate, ServedEntityInput

OPENAI_DIALECT, DATABRICKS_DIALECT = "/v1", "/serving-endpoints"
TOKEN = os.environ.get("HEARTH_TOKEN", "")


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
    missing = [name for name in (*wanted, "HEARTH_TOKEN") if not os.environ.get(name)]
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


def workspace_of(server, token: str) -> WorkspaceClient:
    """As in the product's own examples, but for a short retry time: a wrong 429 or 503 then fails within seconds."""
    return WorkspaceClient(config=Config(host=server.url, token=token, auth_type="pat", retry_timeout_seconds=5))


@pytest.fixture(scope="session")
def workspace(server) -> WorkspaceClient:
    """What an administrator holds."""
    return workspace_of(server, TOKEN)


@pytest.fixture
def databricks_environment(server, monkeypatch):
    """How `mlflow` and what stands on it are told about the server."""
    monkeypatch.setenv("DATABRICKS_HOST", server.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)


def unique(kind: str) -> str:
    """A name that no other test and no earlier run has given to anything."""
    return f"{kind}-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def hosted_entity() -> str:
    """The model of the catalogue that endpoints made by the tests serve."""
    name = os.environ.get("HEARTH_HOSTED_ENTITY")
    if not name:
        pytest.fail("set HEARTH_HOSTED_ENTITY: a model that the server can load within a second", pytrace=False)
    return name


def admitted(server, name: str, calls: int) -> int:
    """Of how many calls of an endpoint how many are admitted, as OpenAI's client sees it; all within one minute."""
    if time.time() % 60 > 50:
        time.sleep(60.5 - time.time() % 60)
    refused = 0
    with openai.OpenAI(base_url=server.url + OPENAI_DIALECT, api_key=TOKEN, max_retries=0, timeout=120) as client:
        for _ in range(calls):
            try:
                client.chat.completions.create(model=name, messages=[{"role": "user", "content": "hello"}], max_tokens=2)
            except openai.RateLimitError as error:
                assert error.code == "rate_limit_exceeded" and "REQUEST_LIMIT_EXCEEDED: Exceeded" in error.message
                assert 1 <= int(error.response.headers["retry-after"]) <= 60
                refused += 1
    return calls - refused


def delete_endpoint(workspace, name: str) -> None:
    try:
        workspace.serving_endpoints.delete(name)
    except NotFound:
        pass


@pytest.fixture
def endpoint_name(workspace):
    """A name for an endpoint, which is deleted after the test if it was made."""
    name = unique("endpoint")
    yield name
    delete_endpoint(workspace, name)


@pytest.fixture
def endpoint(workspace, endpoint_name, hosted_entity):
    """An endpoint of the test's own, ready."""
    served = ServedEntityInput(entity_name=hosted_entity, entity_version="1")
    config = EndpointCoreConfigInput(name=endpoint_name, served_entities=[served])
    workspace.serving_endpoints.create(name=endpoint_name, config=config)
    # The client's own way to wait looks every second or two, where this takes milliseconds.
    for _ in range(3000):
        made = workspace.serving_endpoints.get(endpoint_name)
        if made.state.config_update != EndpointStateConfigUpdate.IN_PROGRESS:
            return made
        time.sleep(0.02)
    pytest.fail(f"the endpoint has not come up: {made}")


@dataclass(frozen=True)
class Member:
    """A service principal without any rights of its own, and the client that acts as it."""

    application_id: str
    id: str
    token: str = field(repr=False)
    workspace: WorkspaceClient


@pytest.fixture
def member(server, workspace) -> Member:
    principal = workspace.service_principals.create(display_name=unique("robot"), active=True)
    try:
        answer = workspace.token_management.create_obo_token(principal.application_id, lifetime_seconds=600)
        token = answer.token_value
        yield Member(principal.application_id, principal.id, token, workspace_of(server, token))
    finally:
        workspace.service_principals.delete(principal.id)
