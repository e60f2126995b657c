"""The list of models through the `openai` client, under both paths."""

import openai
import pytest


def test_list_names_both_endpoints(client, server):
    models = list(client.models.list())
    assert {server.chat_model, server.embedding_model} <= {model.id for model in models}
    assert all(model.object == "model" and model.owned_by and model.created is not None for model in models)


def test_one_model(client, server):
    model = client.models.retrieve(server.chat_model)
    assert model.id == server.chat_model and model.object == "model"


def test_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        client.models.retrieve("no-such-model")
