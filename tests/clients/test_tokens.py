"""The SDK's calls on tokens: one's own, and everybody's for administrators."""

import time

import pytest
from conftest import TOKEN, unique, workspace_of
from databricks.sdk.common.types.fieldmask import FieldMask
from databricks.sdk.errors import BadRequest, NotFound, PermissionDenied, Unauthenticated
from databricks.sdk.service.settings import PublicTokenInfo, TokenInfo


@pytest.fixture
def token(workspace):
    """A token of the administrator's own; revoked after the test."""
    made = workspace.tokens.create(comment=unique("made by a test"), lifetime_seconds=600)
    yield made
    try:
        workspace.tokens.delete(made.token_info.token_id)
    except NotFound:
        pass


def own(workspace) -> dict:
    return {info.token_id: info for info in workspace.tokens.list()}


def test_life_of_a_token(server, workspace, token):
    info = token.token_info
    assert info.expiry_time - info.creation_time == 600_000
    assert abs(info.creation_time - time.time() * 1000) < 60_000
    assert own(workspace)[info.token_id] == info
    theirs = workspace_of(server, token.token_value)
    assert theirs.current_user.me() == workspace.current_user.me()
    workspace.tokens.delete(info.token_id)
    assert info.token_id not in own(workspace)
    with pytest.raises(Unauthenticated) as caught:
        theirs.current_user.me()
    assert caught.value.error_code == "UNAUTHENTICATED"
    with pytest.raises(NotFound):
        workspace.tokens.delete(info.token_id)


def test_a_token_without_an_end(workspace):
    made = workspace.tokens.create()
    try:
        assert made.token_info.expiry_time == -1 and made.token_value
        assert own(workspace)[made.token_info.token_id].expiry_time == -1
    finally:
        workspace.tokens.delete(made.token_info.token_id)


def test_a_token_ends_by_itself(server, workspace):
    made = workspace.tokens.create(lifetime_seconds=2)
    theirs = workspace_of(server, made.token_value)
    for _ in range(100):
        try:
            theirs.current_user.me()
        except Unauthenticated:
            break
        time.sleep(0.1)
    else:
        pytest.fail("a token of two seconds was still taken after ten")
    assert made.token_info.token_id not in own(workspace)


@pytest.mark.parametrize("lifetime", [0, -1])
def test_lifetimes_that_are_refused(workspace, lifetime):
    with pytest.raises(BadRequest, match="lifetime_seconds"):
        workspace.tokens.create(lifetime_seconds=lifetime)


def test_values_are_shown_once(workspace, token):
    """Neither the value nor its random part is in any answer after the first."""
    listed = workspace.api_client.do("GET", "/api/2.0/token/list")
    managed = workspace.api_client.do("GET", "/api/2.0/token-management/tokens")
    for answer in (listed, managed):
        assert token.token_info.token_id in str(answer)
        assert token.token_value not in str(answer) and token.token_value[-16:] not in str(answer)


def test_a_comment_is_changed(workspace, token):
    wanted = PublicTokenInfo(comment="changed")
    workspace.tokens.update(token.token_info.token_id, token=wanted, update_mask=FieldMask(["comment"]))
    assert own(workspace)[token.token_info.token_id].comment == "changed"
    with pytest.raises(NotFound):
        workspace.tokens.update("no-such-token", token=wanted, update_mask=FieldMask(["comment"]))


def test_a_token_on_behalf_of_a_service_principal(server, workspace, member):
    answer = workspace.token_management.create_obo_token(member.application_id, comment="for the robot", lifetime_seconds=600)
    info = answer.token_info
    assert info.comment == "for the robot" and info.owner_id == int(member.id)
    assert info.created_by_username == workspace.current_user.me().user_name
    theirs = workspace_of(server, answer.token_value)
    assert theirs.current_user.me().user_name == member.application_id
    assert info.token_id in own(theirs) and info.token_id not in own(workspace)
    for unknown in ("00000000-0000-0000-0000-000000000000", "nonsense"):
        with pytest.raises((NotFound, BadRequest)):
            workspace.token_management.create_obo_token(unknown)


def test_everybodys_tokens(workspace, member):
    made = member.workspace.tokens.create(comment="the robot's own", lifetime_seconds=600)
    api, identity = workspace.token_management, made.token_info.token_id
    info = api.get(identity).token_info
    assert (info.token_id, info.comment, info.owner_id) == (identity, "the robot's own", int(member.id))
    assert (info.created_by_id, info.created_by_username) == (int(member.id), member.application_id)
    assert identity in [one.token_id for one in api.list()]
    assert [one.token_id for one in api.list(created_by_username=member.application_id)] == [identity]
    assert [one.token_id for one in api.list(created_by_id=int(member.id))] == [identity]
    assert list(api.list(created_by_username="nobody@example.com")) == []

    changed = api.update_token_management(identity, token=TokenInfo(comment="looked at"), update_mask=FieldMask(["comment"]))
    assert (changed.token_id, changed.comment) == (identity, "looked at")
    api.delete(identity)
    assert identity not in own(member.workspace)
    for call in (api.get, api.delete):
        with pytest.raises(NotFound):
            call(identity)


def test_others_have_no_say(workspace, member, token):
    identity, theirs = token.token_info.token_id, member.workspace
    assert identity not in own(theirs)
    with pytest.raises(NotFound):
        theirs.tokens.delete(identity)
    for call in [
        lambda: list(theirs.token_management.list()),
        lambda: theirs.token_management.get(identity),
        lambda: theirs.token_management.delete(identity),
        lambda: theirs.token_management.create_obo_token(member.application_id),
    ]:
        with pytest.raises(PermissionDenied):
            call()
    assert identity in own(workspace)


@pytest.mark.parametrize("wrong", ["wrong", TOKEN + "x", "dapi" + "0" * 32])
def test_wrong_tokens(server, wrong):
    with pytest.raises(Unauthenticated) as caught:
        workspace_of(server, wrong).current_user.me()
    assert caught.value.error_code == "UNAUTHENTICATED"
