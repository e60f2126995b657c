"""The SDK's calls on users, groups and service principals."""

import pytest
from conftest import unique, workspace_of
from databricks.sdk.errors import BadRequest, DatabricksError, NotFound, PermissionDenied, ResourceConflict, Unauthenticated
from databricks.sdk.service.iam import (
    ComplexValue,
    GroupSchema,
    ListSortOrder,
    Name,
    Patch,
    PatchOp,
    PatchSchema,
    ServicePrincipalSchema,
    UserSchema,
)

SCHEMAS = [PatchSchema.URN_IETF_PARAMS_SCIM_API_MESSAGES_2_0_PATCH_OP]
BASE = "/api/2.0/preview/scim/v2"


class Kinds:
    """Makes principals, and deletes after the test those that are left."""

    def __init__(self, workspace):
        self.workspace, self.made = workspace, []

    def _keep(self, api, principal):
        self.made.append((api, principal.id))
        return principal

    def user(self, **fields):
        fields = {"user_name": f"{unique('user')}@example.com", "display_name": "Ada"} | fields
        return self._keep(self.workspace.users, self.workspace.users.create(**fields))

    def group(self, *members, **fields):
        fields = {"display_name": unique("group"), "members": [ComplexValue(value=one.id) for one in members]} | fields
        return self._keep(self.workspace.groups, self.workspace.groups.create(**fields))

    def robot(self, **fields):
        fields = {"display_name": unique("robot")} | fields
        return self._keep(self.workspace.service_principals, self.workspace.service_principals.create(**fields))


@pytest.fixture
def make(workspace):
    kinds = Kinds(workspace)
    yield kinds
    for api, identity in reversed(kinds.made):
        try:
            api.delete(identity)
        except NotFound:
            pass


def values(items) -> set[str]:
    return {item.value for item in items}


def patch(api, identity, op, path=None, value=None):
    api.patch(identity, operations=[Patch(op=op, path=path, value=value)], schemas=SCHEMAS)


def test_me(workspace):
    me = workspace.current_user.me()
    assert me.id and me.user_name and me.active
    assert {"admins", "users"} <= {group.display for group in me.groups}
    assert isinstance(workspace.get_workspace_id(), int)


def test_me_as_a_service_principal(member):
    me = member.workspace.current_user.me()
    assert (me.id, me.user_name) == (member.id, member.application_id)
    assert {group.display for group in me.groups} == {"users"}


def test_a_user(workspace, make):
    name = f"{unique('user')}@example.com"
    made = make.user(user_name=name, display_name="Ada Lovelace", name=Name(given_name="Ada", family_name="Lovelace"))
    assert made.id and int(made.id) > 0
    assert (made.user_name, made.display_name, made.active) == (name, "Ada Lovelace", True)
    assert UserSchema.URN_IETF_PARAMS_SCIM_SCHEMAS_CORE_2_0_USER in made.schemas
    assert [email.value for email in made.emails] == [name]
    got = workspace.users.get(made.id)
    assert got == made
    patch(workspace.users, made.id, PatchOp.REPLACE, "displayName", "Countess")
    assert workspace.users.get(made.id).display_name == "Countess"
    patch(workspace.users, made.id, PatchOp.REPLACE, "active", "false")
    assert workspace.users.get(made.id).active is False
    workspace.users.update(made.id, user_name=name, display_name="Ada", active=True)
    again = workspace.users.get(made.id)
    assert (again.display_name, again.active, again.user_name) == ("Ada", True, name)
    workspace.users.delete(made.id)
    for call in (workspace.users.get, workspace.users.delete):
        with pytest.raises(NotFound, match=made.id):
            call(made.id)


def test_a_service_principal(workspace, make):
    made = make.robot(external_id="elsewhere-7")
    assert made.id and made.application_id and made.active and made.external_id == "elsewhere-7"
    assert made.schemas == [ServicePrincipalSchema.URN_IETF_PARAMS_SCIM_SCHEMAS_CORE_2_0_SERVICE_PRINCIPAL]
    assert workspace.service_principals.get(made.id) == made
    patch(workspace.service_principals, made.id, PatchOp.REPLACE, "displayName", "renamed")
    assert workspace.service_principals.get(made.id).display_name == "renamed"
    workspace.service_principals.update(made.id, application_id=made.application_id, display_name="again", active=True)
    got = workspace.service_principals.get(made.id)
    assert (got.display_name, got.application_id) == ("again", made.application_id)
    found = workspace.service_principals.list(filter=f'applicationId eq "{made.application_id}"')
    assert [one.id for one in found] == [made.id]


def test_an_inactive_principal_is_not_let_in(workspace, member):
    patch(workspace.service_principals, member.id, PatchOp.REPLACE, "active", "false")
    with pytest.raises((Unauthenticated, PermissionDenied)):
        member.workspace.current_user.me()
    patch(workspace.service_principals, member.id, PatchOp.REPLACE, "active", "true")
    assert member.workspace.current_user.me().id == member.id


def test_a_group_and_its_members(workspace, make):
    ada, robot, inner = make.user(), make.robot(), make.group()
    group, api = make.group(ada), workspace.groups
    assert GroupSchema.URN_IETF_PARAMS_SCIM_SCHEMAS_CORE_2_0_GROUP in group.schemas
    assert group.display_name and values(group.members) == {ada.id}

    def members():
        return values(api.get(group.id).members)

    patch(api, group.id, PatchOp.ADD, value={"members": [{"value": robot.id}]})
    assert members() == {ada.id, robot.id}
    patch(api, group.id, PatchOp.ADD, "members", [{"value": inner.id}, {"value": robot.id}])
    assert members() == {ada.id, robot.id, inner.id}
    patch(api, group.id, PatchOp.REMOVE, f'members[value eq "{robot.id}"]')
    assert members() == {ada.id, inner.id}
    patch(api, group.id, PatchOp.REPLACE, "members", [{"value": robot.id}])
    assert members() == {robot.id}
    patch(api, group.id, PatchOp.REMOVE, "members")
    assert members() == set()
    name = unique("renamed")
    patch(api, group.id, PatchOp.REPLACE, "displayName", name)
    assert api.get(group.id).display_name == name
    api.update(group.id, display_name=name, members=[ComplexValue(value=ada.id)])
    assert members() == {ada.id}
    assert name in {one.display for one in workspace.users.get(ada.id).groups}
    workspace.users.delete(ada.id)
    assert members() == set()


def test_several_operations_are_done_in_order_or_not_at_all(workspace, make):
    ada, group = make.user(), make.group()
    add = Patch(op=PatchOp.ADD, path="members", value=[{"value": ada.id}])
    wrong = Patch(op=PatchOp.REPLACE, path="noSuchAttribute", value="x")
    with pytest.raises(BadRequest, match="noSuchAttribute"):
        workspace.groups.patch(group.id, operations=[add, wrong], schemas=SCHEMAS)
    assert not workspace.groups.get(group.id).members
    remove = Patch(op=PatchOp.REMOVE, path=f'members[value eq "{ada.id}"]')
    workspace.groups.patch(group.id, operations=[add, remove], schemas=SCHEMAS)
    assert not workspace.groups.get(group.id).members


def test_administrators_are_the_members_of_their_group(workspace, member):
    [admins] = workspace.groups.list(filter='displayName eq "admins"')
    with pytest.raises(PermissionDenied):
        list(member.workspace.token_management.list())
    patch(workspace.groups, admins.id, PatchOp.ADD, "members", [{"value": member.id}])
    try:
        assert list(member.workspace.token_management.list())
    finally:
        patch(workspace.groups, admins.id, PatchOp.REMOVE, f'members[value eq "{member.id}"]')
    with pytest.raises(PermissionDenied):
        list(member.workspace.token_management.list())


@pytest.mark.parametrize("name", ["admins", "users"])
def test_groups_that_stay(workspace, name):
    [group] = workspace.groups.list(filter=f'displayName eq "{name}"')
    with pytest.raises(DatabricksError) as caught:
        workspace.groups.delete(group.id)
    assert isinstance(caught.value, (BadRequest, PermissionDenied))
    assert workspace.groups.get(group.id).display_name == name


def test_pages(workspace, make):
    """The client asks for page after page until one is empty, wherever it is told to begin."""
    prefix = unique("page")
    names = sorted(make.user(user_name=f"{prefix}-{number}@example.com").user_name for number in range(5))
    query = {"filter": f'userName sw "{prefix}"', "sortBy": "userName", "sortOrder": "ascending"}
    page = workspace.api_client.do("GET", f"{BASE}/Users", query=query | {"startIndex": 4, "count": 3})
    assert [one["userName"] for one in page["Resources"]] == names[3:]
    assert (page["totalResults"], page["startIndex"], page["itemsPerPage"]) == (5, 4, 2)
    assert page["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:ListResponse"]
    after = workspace.api_client.do("GET", f"{BASE}/Users", query=query | {"startIndex": 6, "count": 3})
    assert not after.get("Resources") and after["totalResults"] == 5

    def listed(**fields):
        return [one.user_name for one in workspace.users.list(filter=f'userName sw "{prefix}"', sort_by="userName", **fields)]

    assert listed(count=2) == listed(count=100) == listed() == names
    assert listed(sort_order=ListSortOrder.DESCENDING) == names[::-1]


def test_filters(workspace, make):
    ada = make.user(display_name="Ada the First")

    def found(condition):
        return [one.id for one in workspace.users.list(filter=condition)]

    for condition in [
        f'userName eq "{ada.user_name}"',
        f'USERNAME EQ "{ada.user_name}"',
        f"userName eq {ada.user_name}",
        f'userName co "{ada.user_name[5:-4]}" and displayName sw "Ada the"',
        f'id eq "{ada.id}"',
    ]:
        assert found(condition) == [ada.id], condition
    assert ada.id not in found(f'userName ne "{ada.user_name}"')
    assert found('userName eq "nobody@example.com"') == []
    for wrong in ["userName", 'userName zz "a"', 'noSuchAttribute eq "a"', 'userName eq "a" and', "("]:
        with pytest.raises(BadRequest):
            found(wrong)


def test_chosen_attributes(workspace, make):
    ada = make.user()
    [one] = workspace.users.list(filter=f'userName eq "{ada.user_name}"', attributes="userName")
    assert (one.id, one.user_name, one.display_name) == (ada.id, ada.user_name, None)
    [one] = workspace.users.list(filter=f'userName eq "{ada.user_name}"', excluded_attributes="displayName,groups")
    assert (one.id, one.user_name, one.display_name, one.groups) == (ada.id, ada.user_name, None, [])


def test_the_newer_names_of_the_same_calls(workspace, make):
    ada, robot, group = make.user(), make.robot(), make.group()
    assert workspace.users_v2.get(ada.id).user_name == ada.user_name
    assert workspace.service_principals_v2.get(robot.id).application_id == robot.application_id
    assert workspace.groups_v2.get(group.id).display_name == group.display_name


def test_names_in_use(workspace, make):
    ada, robot, group = make.user(), make.robot(), make.group()
    for call in [
        lambda: make.user(user_name=ada.user_name),
        lambda: make.user(user_name=ada.user_name.upper()),
        lambda: make.group(display_name=group.display_name),
        lambda: make.robot(application_id=robot.application_id),
    ]:
        with pytest.raises(ResourceConflict):
            call()


def test_what_is_refused(workspace, make):
    group = make.group()
    for call in [
        lambda: workspace.users.create(display_name="without a name"),
        lambda: workspace.groups.create(),
        lambda: make.group(members=[ComplexValue(value="999")]),
        lambda: patch(workspace.groups, group.id, PatchOp.ADD, "members", [{"value": group.id}]),
        lambda: patch(workspace.groups, group.id, PatchOp.ADD, "members", "nonsense"),
    ]:
        with pytest.raises((BadRequest, NotFound)):
            call()
    for kind in (workspace.users, workspace.groups, workspace.service_principals):
        with pytest.raises(NotFound):
            kind.get("999999999")


def test_one_kind_is_not_found_as_another(workspace, make):
    ada, group = make.user(), make.group()
    with pytest.raises(NotFound):
        workspace.groups.get(ada.id)
    with pytest.raises(NotFound):
        workspace.users.delete(group.id)
    assert workspace.groups.get(group.id).id == group.id


def test_only_administrators_change_anybody(member, make):
    theirs, ada = member.workspace, make.user()
    for call in [
        lambda: theirs.users.create(user_name="a@example.com"),
        lambda: theirs.groups.create(display_name="theirs"),
        lambda: theirs.service_principals.create(display_name="theirs"),
        lambda: theirs.users.delete(ada.id),
        lambda: patch(theirs.users, ada.id, PatchOp.REPLACE, "active", "false"),
        lambda: theirs.service_principals.update(member.id, display_name="theirs"),
    ]:
        with pytest.raises(PermissionDenied):
            call()


def test_a_token_dies_with_its_owner(server, workspace, make):
    robot = make.robot()
    token = workspace.token_management.create_obo_token(robot.application_id, lifetime_seconds=600).token_value
    assert workspace_of(server, token).current_user.me().id == robot.id
    workspace.service_principals.delete(robot.id)
    with pytest.raises(Unauthenticated):
        workspace_of(server, token).current_user.me()
