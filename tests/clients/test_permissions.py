"""Who may do what with an endpoint: the SDK's two ways to permissions, and what each level opens."""

import openai
import pytest
from conftest import DATABRICKS_DIALECT, OPENAI_DIALECT, unique
from databricks.sdk.errors import BadRequest, DatabricksError, NotFound, PermissionDenied
from databricks.sdk.service import iam
from databricks.sdk.service.serving import (
    ChatMessage,
    ChatMessageRole,
    EndpointTag,
    ServingEndpointAccessControlRequest,
    ServingEndpointPermissionLevel,
)

QUESTION = [ChatMessage(role=ChatMessageRole.USER, content="What is the capital of France?")]
Level = ServingEndpointPermissionLevel
LEVELS = [None, Level.CAN_VIEW, Level.CAN_QUERY, Level.CAN_MANAGE]


def grant(level, **principal):
    return ServingEndpointAccessControlRequest(permission_level=level, **principal)


def to(member, level):
    return grant(level, service_principal_name=member.application_id)


def direct(permissions) -> dict[str, set]:
    """What was granted on the object itself, by principal."""
    granted = {}
    for entry in permissions.access_control_list:
        levels = {one.permission_level for one in entry.all_permissions if not one.inherited}
        if levels:
            granted[entry.user_name or entry.group_name or entry.service_principal_name] = levels
    return granted


def outcome(call) -> str:
    try:
        call()
        return "done"
    except NotFound:
        return "not found"
    except PermissionDenied as error:
        assert error.error_code == "PERMISSION_DENIED"
        return "denied"


def test_levels(workspace, endpoint):
    described = workspace.serving_endpoints.get_permission_levels(endpoint.id).permission_levels
    assert {one.permission_level for one in described} == {Level.CAN_VIEW, Level.CAN_QUERY, Level.CAN_MANAGE}
    assert all(one.description for one in described)


def test_set_replaces_and_update_adds(workspace, endpoint, member):
    api, robot = workspace.serving_endpoints, member.application_id
    answer = api.set_permissions(endpoint.id, access_control_list=[to(member, Level.CAN_QUERY)])
    assert (answer.object_id, answer.object_type) == (f"/serving-endpoints/{endpoint.id}", "serving-endpoint")
    assert direct(answer) == direct(api.get_permissions(endpoint.id)) == {robot: {Level.CAN_QUERY}}

    answer = api.update_permissions(endpoint.id, access_control_list=[grant(Level.CAN_VIEW, group_name="users")])
    both = {robot: {Level.CAN_QUERY}, "users": {Level.CAN_VIEW}}
    assert direct(answer) == direct(api.get_permissions(endpoint.id)) == both

    api.update_permissions(endpoint.id, access_control_list=[to(member, Level.CAN_MANAGE)])
    assert direct(api.get_permissions(endpoint.id)) == both | {robot: {Level.CAN_MANAGE}}

    me = workspace.current_user.me().user_name
    api.set_permissions(endpoint.id, access_control_list=[grant(Level.CAN_VIEW, user_name=me)])
    assert direct(api.get_permissions(endpoint.id)) == {me: {Level.CAN_VIEW}}
    api.set_permissions(endpoint.id)
    assert direct(api.get_permissions(endpoint.id)) == {}


def test_administrators_hold_everything_without_a_grant(workspace, endpoint):
    workspace.serving_endpoints.set_permissions(endpoint.id, access_control_list=[])
    entries = workspace.serving_endpoints.get_permissions(endpoint.id).access_control_list
    [admins] = [entry for entry in entries if entry.group_name == "admins"]
    assert [(one.permission_level, one.inherited) for one in admins.all_permissions] == [(Level.CAN_MANAGE, True)]
    assert workspace.serving_endpoints.get(endpoint.name).permission_level.value == "CAN_MANAGE"


def test_the_general_permissions_api(workspace, endpoint, member):
    level, kind = iam.PermissionLevel.CAN_QUERY, "serving-endpoints"
    wanted = [iam.AccessControlRequest(permission_level=level, service_principal_name=member.application_id)]
    answer = workspace.permissions.set(kind, endpoint.id, access_control_list=wanted)
    assert direct(answer) == {member.application_id: {level}}
    users = [iam.AccessControlRequest(permission_level=iam.PermissionLevel.CAN_VIEW, group_name="users")]
    workspace.permissions.update(kind, endpoint.id, access_control_list=users)
    both = {member.application_id: {level}, "users": {iam.PermissionLevel.CAN_VIEW}}
    assert direct(workspace.permissions.get(kind, endpoint.id)) == both
    levels = workspace.permissions.get_permission_levels(kind, endpoint.id).permission_levels
    assert {one.permission_level.value for one in levels} == {"CAN_VIEW", "CAN_QUERY", "CAN_MANAGE"}


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.value if level else "NOTHING")
@pytest.mark.parametrize("through", ["itself", "group", "users"])
def test_what_each_level_opens(workspace, endpoint, member, level, through):
    group = None
    if through == "group":
        group = workspace.groups.create(display_name=unique("group"), members=[iam.ComplexValue(value=member.id)])
    principal = {
        "itself": {"service_principal_name": member.application_id},
        "group": {"group_name": group and group.display_name},
        "users": {"group_name": "users"},
    }[through]
    try:
        grants = [grant(level, **principal)] if level else []
        workspace.serving_endpoints.set_permissions(endpoint.id, access_control_list=grants)
        theirs, name = member.workspace.serving_endpoints, endpoint.name
        seen = {
            "get": outcome(lambda: theirs.get(name)),
            "metrics": outcome(lambda: theirs.export_metrics(name)),
            "query": outcome(lambda: theirs.query(name, messages=QUESTION, max_tokens=1)),
            "tags": outcome(lambda: theirs.patch(name, add_tags=[EndpointTag(key="a")])),
            "limits": outcome(lambda: theirs.put(name, rate_limits=[])),
            "gateway": outcome(lambda: theirs.put_ai_gateway(name)),
            "permissions": outcome(lambda: theirs.update_permissions(endpoint.id, access_control_list=grants)),
        }
        listed = [one.name for one in theirs.list()]
        if level:
            assert theirs.get(name).permission_level.value == level.value
        seen["delete"] = outcome(lambda: theirs.delete(name))
    finally:
        if group:
            workspace.groups.delete(group.id)
    rank = LEVELS.index(level)
    opened = {name: 3 for name in seen} | {"get": 1, "metrics": 1, "query": 2}
    refused = "denied" if rank else "not found"
    assert seen == {name: "done" if rank >= least else refused for name, least in opened.items()}
    assert (name in listed) == bool(rank)


@pytest.mark.parametrize("dialect", [OPENAI_DIALECT, DATABRICKS_DIALECT])
def test_a_hidden_endpoint_is_as_a_missing_one(server, workspace, endpoint, member, dialect):
    def refusal(model):
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hello"}], max_tokens=1)
        return caught.value.message.replace(model, "MODEL")

    with openai.OpenAI(base_url=server.url + dialect, api_key=member.token, max_retries=0) as client:
        assert refusal(endpoint.name) == refusal("no-such-endpoint")
        assert endpoint.name not in [model.id for model in client.models.list()]
        workspace.serving_endpoints.set_permissions(endpoint.id, access_control_list=[to(member, Level.CAN_VIEW)])
        assert endpoint.name in [model.id for model in client.models.list()]
        with pytest.raises(openai.PermissionDeniedError, match="CAN_QUERY"):
            client.chat.completions.create(model=endpoint.name, messages=[{"role": "user", "content": "hello"}])


def test_a_deleted_principal_is_in_no_list(workspace, endpoint):
    robot = workspace.service_principals.create(display_name=unique("robot"))
    grants = [grant(Level.CAN_QUERY, service_principal_name=robot.application_id)]
    workspace.serving_endpoints.set_permissions(endpoint.id, access_control_list=grants)
    workspace.service_principals.delete(robot.id)
    assert direct(workspace.serving_endpoints.get_permissions(endpoint.id)) == {}


def test_an_unknown_endpoint(workspace):
    api = workspace.serving_endpoints
    for call in (api.get_permissions, api.set_permissions, api.update_permissions, api.get_permission_levels):
        with pytest.raises(NotFound):
            call("00000000000000000000000000000000")


WRONG = {
    "unknown-user": [{"user_name": "nobody@example.com", "permission_level": "CAN_QUERY"}],
    "unknown-group": [{"group_name": "no-such-group", "permission_level": "CAN_QUERY"}],
    "unknown-level": [{"group_name": "users", "permission_level": "CAN_RUN"}],
    "no-level": [{"group_name": "users"}],
    "no-principal": [{"permission_level": "CAN_QUERY"}],
    "two-principals": [{"group_name": "users", "user_name": "admin", "permission_level": "CAN_QUERY"}],
}


@pytest.mark.parametrize("entries", WRONG.values(), ids=WRONG)
def test_wrong_lists_are_refused_whole(workspace, endpoint, member, entries):
    """With an entry before them that is right: none of a wrong list may be granted."""
    right = {"service_principal_name": member.application_id, "permission_level": "CAN_QUERY"}
    path = f"/api/2.0/permissions/serving-endpoints/{endpoint.id}"
    for method in ("PUT", "PATCH"):
        with pytest.raises((BadRequest, NotFound)):
            workspace.api_client.do(method, path, body={"access_control_list": [right, *entries]})
    assert member.application_id not in direct(workspace.serving_endpoints.get_permissions(endpoint.id))


def test_an_unknown_type_of_object(workspace):
    with pytest.raises(DatabricksError, match="no-such-type") as caught:
        workspace.permissions.get("no-such-type", "1")
    assert isinstance(caught.value, (BadRequest, NotFound))
