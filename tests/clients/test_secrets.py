"""The SDK's calls on secrets: scopes, what is in them, and who may."""

import base64

import pytest
from conftest import unique
from databricks.sdk.errors import BadRequest, NotFound, PermissionDenied, ResourceAlreadyExists
from databricks.sdk.service.workspace import AclPermission, ScopeBackendType

VALUE = "s3cret-välue"


@pytest.fixture
def scope(workspace):
    name = unique("scope")
    workspace.secrets.create_scope(name)
    yield name
    try:
        workspace.secrets.delete_scope(name)
    except NotFound:
        pass


def names(workspace) -> list[str]:
    return [one.name for one in workspace.secrets.list_scopes()]


def acls(workspace, scope) -> dict[str, AclPermission]:
    return {item.principal: item.permission for item in workspace.secrets.list_acls(scope)}


def test_scopes(workspace, scope):
    [listed] = [one for one in workspace.secrets.list_scopes() if one.name == scope]
    assert listed.backend_type == ScopeBackendType.DATABRICKS
    with pytest.raises(ResourceAlreadyExists, match=scope):
        workspace.secrets.create_scope(scope)
    workspace.secrets.delete_scope(scope)
    assert scope not in names(workspace)
    with pytest.raises(NotFound, match=scope):
        workspace.secrets.delete_scope(scope)


def test_a_secret(workspace, scope):
    workspace.secrets.put_secret(scope, "key", string_value=VALUE)
    [listed] = workspace.secrets.list_secrets(scope)
    assert listed.key == "key" and listed.last_updated_timestamp > 1_600_000_000_000
    got = workspace.secrets.get_secret(scope, "key")
    assert (got.key, base64.b64decode(got.value).decode()) == ("key", VALUE)
    assert workspace.dbutils.secrets.get(scope, "key") == VALUE

    workspace.secrets.put_secret(scope, "key", string_value="another")
    assert workspace.dbutils.secrets.get(scope, "key") == "another"
    [again] = workspace.secrets.list_secrets(scope)
    assert again.last_updated_timestamp >= listed.last_updated_timestamp

    workspace.secrets.delete_secret(scope, "key")
    assert list(workspace.secrets.list_secrets(scope)) == []
    for call in (workspace.secrets.get_secret, workspace.secrets.delete_secret):
        with pytest.raises(NotFound, match="key"):
            call(scope, "key")


def test_a_secret_of_bytes(workspace, scope):
    value = bytes(range(256))
    workspace.secrets.put_secret(scope, "key", bytes_value=base64.b64encode(value).decode())
    assert base64.b64decode(workspace.secrets.get_secret(scope, "key").value) == value


def test_secrets_of_a_deleted_scope_are_gone(workspace, scope):
    workspace.secrets.put_secret(scope, "key", string_value=VALUE)
    workspace.secrets.delete_scope(scope)
    workspace.secrets.create_scope(scope)
    assert list(workspace.secrets.list_secrets(scope)) == []


def test_limits(workspace, scope):
    workspace.secrets.put_secret(scope, "k" * 128, string_value="x" * (128 * 1024))
    assert len(workspace.dbutils.secrets.get(scope, "k" * 128)) == 128 * 1024
    for key, fields in [
        ("k" * 129, {"string_value": VALUE}),
        ("a b", {"string_value": VALUE}),
        ("", {"string_value": VALUE}),
        ("key", {"string_value": "x" * (128 * 1024 + 1)}),
        ("key", {"bytes_value": "not base64!"}),
        ("key", {}),
        ("key", {"string_value": VALUE, "bytes_value": "AAAA"}),
    ]:
        with pytest.raises(BadRequest) as caught:
            workspace.secrets.put_secret(scope, key, **fields)
        assert VALUE not in str(caught.value)
    assert [one.key for one in workspace.secrets.list_secrets(scope)] == ["k" * 128]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "s" * 129])
def test_names_of_scopes_that_are_refused(workspace, name):
    with pytest.raises(BadRequest):
        workspace.secrets.create_scope(name)


def test_another_keeper_of_secrets_is_refused(workspace):
    with pytest.raises(BadRequest, match="AZURE_KEYVAULT"):
        workspace.secrets.create_scope(unique("scope"), scope_backend_type=ScopeBackendType.AZURE_KEYVAULT)


def test_unknown_scopes(workspace):
    api, scope = workspace.secrets, "no-such-scope"
    for call in [
        lambda: api.put_secret(scope, "key", string_value=VALUE),
        lambda: api.get_secret(scope, "key"),
        lambda: list(api.list_secrets(scope)),
        lambda: api.delete_secret(scope, "key"),
        lambda: list(api.list_acls(scope)),
        lambda: api.put_acl(scope, "users", AclPermission.READ),
    ]:
        with pytest.raises(NotFound, match=scope) as caught:
            call()
        assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_acls(workspace, scope, member):
    creator = workspace.current_user.me().user_name
    assert acls(workspace, scope) == {creator: AclPermission.MANAGE}
    workspace.secrets.put_acl(scope, member.application_id, AclPermission.READ)
    workspace.secrets.put_acl(scope, "users", AclPermission.WRITE)
    robot = member.application_id
    assert acls(workspace, scope) == {creator: AclPermission.MANAGE, robot: AclPermission.READ, "users": AclPermission.WRITE}
    assert workspace.secrets.get_acl(scope, "users").permission == AclPermission.WRITE
    workspace.secrets.put_acl(scope, robot, AclPermission.MANAGE)
    assert workspace.secrets.get_acl(scope, robot).permission == AclPermission.MANAGE
    workspace.secrets.delete_acl(scope, robot)
    for call in (workspace.secrets.get_acl, workspace.secrets.delete_acl):
        with pytest.raises(NotFound):
            call(scope, robot)


def test_the_principal_of_a_new_scope(workspace):
    name = unique("scope")
    workspace.secrets.create_scope(name, initial_manage_principal="users")
    try:
        assert acls(workspace, name) == {"users": AclPermission.MANAGE}
    finally:
        workspace.secrets.delete_scope(name)


def test_an_acl_for_nobody(workspace, scope):
    with pytest.raises((BadRequest, NotFound), match="nobody@example.com"):
        workspace.secrets.put_acl(scope, "nobody@example.com", AclPermission.READ)


LEVELS = [None, AclPermission.READ, AclPermission.WRITE, AclPermission.MANAGE]


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.value if level else "NOTHING")
@pytest.mark.parametrize("through", ["itself", "users"])
def test_what_each_permission_opens(workspace, scope, member, level, through):
    workspace.secrets.put_secret(scope, "key", string_value=VALUE)
    workspace.secrets.put_secret(scope, "another", string_value=VALUE)
    if level:
        workspace.secrets.put_acl(scope, member.application_id if through == "itself" else "users", level)
    theirs = member.workspace.secrets
    seen = {}
    for name, call in {
        "list": lambda: list(theirs.list_secrets(scope)),
        "get": lambda: theirs.get_secret(scope, "key"),
        "put": lambda: theirs.put_secret(scope, "key", string_value="theirs"),
        "delete": lambda: theirs.delete_secret(scope, "another"),
        "acls": lambda: list(theirs.list_acls(scope)),
        "share": lambda: theirs.put_acl(scope, "admins", AclPermission.READ),
        "drop": lambda: theirs.delete_scope(scope),
    }.items():
        try:
            call()
            seen[name] = True
        except (PermissionDenied, NotFound):
            seen[name] = False
    least = {"list": 1, "get": 1, "put": 2, "delete": 2, "acls": 3, "share": 3, "drop": 3}
    assert seen == {name: LEVELS.index(level) >= at for name, at in least.items()}


def test_scopes_of_others_are_not_listed(workspace, scope, member):
    assert scope not in names(member.workspace)
    workspace.secrets.put_acl(scope, member.application_id, AclPermission.READ)
    assert scope in names(member.workspace)
