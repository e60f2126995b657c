//! Users, service principals and groups: how they are made, changed and removed.
//!
//! Owns what may not be: principals of the configuration file are changed there, the built-in ones stay, groups do not hold
//! themselves, and somebody can go on being the administrator.

use uuid::Uuid;

use super::{ControlPlane, already_exists, does_not_exist};
use crate::error::{ApiError, ErrorKind};
use crate::gate::Admin;
use crate::store::{ADMINS, BUILT_IN_ADMIN, Change, PrincipalKind, PrincipalRow, USERS, now};
use crate::wire::FieldError;

/// A principal with what it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The principal.
    pub row: PrincipalRow,
    /// Of a group: ids of its direct members.
    pub members: Vec<String>,
    /// Ids of the groups that it is a direct member of.
    pub groups: Vec<String>,
}

/// Most characters of a text about a principal.
const TEXT: usize = 255;

/// Refuses what is no name of a principal of that kind.
///
/// # Errors
/// The bound, and the field as SCIM has it.
pub fn check_name(kind: PrincipalKind, name: &str) -> Result<(), FieldError> {
    let field = match kind {
        PrincipalKind::User => "userName",
        PrincipalKind::Group => "displayName",
        PrincipalKind::ServicePrincipal => {
            let is_uuid = Uuid::parse_str(name).is_ok_and(|id| id.hyphenated().to_string() == name);
            let refused = || FieldError::value("applicationId", "a UUID in small letters", name);
            return if is_uuid { Ok(()) } else { Err(refused()) };
        }
    };
    check_text(field, name)?;
    if name.is_empty() || name.trim() != name {
        return Err(FieldError::value(field, "a text that is not empty and has no blanks around it", name));
    }
    Ok(())
}

/// Refuses a text that is too long to be stored, or cannot be shown on a line.
pub(crate) fn check_text(field: &str, text: &str) -> Result<(), FieldError> {
    let length = text.chars().count();
    if length > TEXT {
        return Err(FieldError::value(field, format!("at most {TEXT} characters"), length));
    }
    if text.chars().any(char::is_control) {
        return Err(FieldError::value(field, "a text without control characters", format!("{text:?}")));
    }
    Ok(())
}

/// A kind of principal in words.
pub(crate) fn word(kind: PrincipalKind) -> &'static str {
    match kind {
        PrincipalKind::User => "user",
        PrincipalKind::ServicePrincipal => "service principal",
        PrincipalKind::Group => "group",
    }
}

impl ControlPlane {
    /// Makes a principal, in the groups that it is to be in.
    ///
    /// # Errors
    /// 400 where its name is taken or a group cannot have it, 404 where a member or a group is missing.
    pub async fn create_principal(&self, _admin: &Admin, person: &Person) -> Result<(), ApiError> {
        let row = &person.row;
        let mut change = self.store().change().await?;
        if change.principal_named(row.kind, &row.name).await?.is_some() {
            return Err(already_exists(word(row.kind), &row.name));
        }
        change.put_principal(row).await?;
        if !person.members.is_empty() {
            check_members(&mut change, row, &person.members).await?;
            change.set_members(&row.id, &person.members).await?;
        }
        for id in person.groups.iter().filter(|group| *group != USERS) {
            let group = principal(&mut change, PrincipalKind::Group, id).await?;
            refuse_declared(&group)?;
            change.add_member(id, &row.id).await?;
        }
        self.commit(change).await
    }

    /// Makes of a principal what `edit` makes of it; gives back what it is then.
    ///
    /// # Errors
    /// 404 where there is none, 400 where it may not be what it is to be; those of `edit`.
    pub async fn edit_principal(
        &self,
        _admin: &Admin,
        kind: PrincipalKind,
        id: &str,
        edit: impl FnOnce(&Person) -> Result<Person, ApiError>,
    ) -> Result<Person, ApiError> {
        let mut change = self.store().change().await?;
        let row = principal(&mut change, kind, id).await?;
        let members = if kind == PrincipalKind::Group { change.members(id).await? } else { Vec::new() };
        let before = Person { row, members, groups: change.memberships(id).await? };
        let after = edit(&before)?;
        if after == before {
            return Ok(after);
        }
        check_edit(&before, &after)?;
        let administrable = self.is_administrable(&mut change).await?;
        if after.members != before.members {
            check_members(&mut change, &after.row, &after.members).await?;
            change.set_members(id, &after.members).await?;
        }
        if after.row != before.row {
            let put = change.put_principal(&after.row).await;
            put.map_err(|error| match error {
                error if error.is_duplicate() => already_exists(word(kind), &after.row.name),
                error => error.into(),
            })?;
        }
        self.stays_administrable(administrable, &mut change).await?;
        self.commit(change).await?;
        Ok(after)
    }

    /// Removes a principal, with its tokens, grants and memberships.
    ///
    /// # Errors
    /// 404 where there is none, 400 where it stays.
    pub async fn delete_principal(&self, _admin: &Admin, kind: PrincipalKind, id: &str) -> Result<(), ApiError> {
        let mut change = self.store().change().await?;
        let row = principal(&mut change, kind, id).await?;
        refuse_declared(&row)?;
        if is_built_in(&row) {
            return Err(refuse(format!("the {} `{}` is built in and cannot be removed", word(kind), row.name)));
        }
        let administrable = self.is_administrable(&mut change).await?;
        change.delete_principal(id).await?;
        self.stays_administrable(administrable, &mut change).await?;
        self.commit(change).await
    }

    /// Whether somebody can come in who may do everything: from this machine while nobody has a token, or with a token.
    pub(super) async fn is_administrable(&self, change: &mut Change) -> Result<bool, ApiError> {
        let access = self.gate().access();
        if access.token.is_some() {
            return Ok(true);
        }
        if !change.has_tokens().await? {
            return Ok(access.local);
        }
        Ok(change.has_token_in(ADMINS, now()).await?)
    }

    /// Refuses a change after which nobody could come in any more who may do everything.
    pub(super) async fn stays_administrable(&self, before: bool, change: &mut Change) -> Result<(), ApiError> {
        if !before || self.is_administrable(change).await? {
            return Ok(());
        }
        Err(refuse(
            "after this no administrator would have a token while others have, so that nobody could administer this \
             server: make a token for an active member of the group `admins` first, or use `hearth token` on the server's \
             machine",
        ))
    }
}

fn refuse(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorKind::BadRequest, text)
}

async fn principal(change: &mut Change, kind: PrincipalKind, id: &str) -> Result<PrincipalRow, ApiError> {
    let row = change.principal(id).await?.filter(|row| row.kind == kind);
    row.ok_or_else(|| does_not_exist(word(kind), id))
}

fn is_built_in(row: &PrincipalRow) -> bool {
    [ADMINS, USERS, BUILT_IN_ADMIN].contains(&row.id.as_str())
}

/// What the configuration file declares is changed there.
fn refuse_declared(row: &PrincipalRow) -> Result<(), ApiError> {
    if row.origin != "config" {
        return Ok(());
    }
    let (kind, name) = (word(row.kind), &row.name);
    Err(refuse(format!("the {kind} `{name}` is declared in the configuration file, and is changed there")))
}

fn check_edit(before: &Person, after: &Person) -> Result<(), ApiError> {
    let (was, is) = (&before.row, &after.row);
    refuse_declared(was)?;
    let kind = word(was.kind);
    if is_built_in(was) && is.name != was.name {
        return Err(refuse(format!("the {kind} `{}` is built in and keeps its name", was.name)));
    }
    if was.kind != PrincipalKind::Group && is.name != was.name {
        return Err(refuse(format!("the name of a {kind} stays: `{}` cannot become `{}`", was.name, is.name)));
    }
    if was.id == BUILT_IN_ADMIN && !is.active {
        return Err(refuse(format!("the {kind} `{}` is built in and stays active", was.name)));
    }
    let stays = || after.members.iter().any(|member| member == BUILT_IN_ADMIN);
    if was.id == ADMINS && before.members.iter().any(|member| member == BUILT_IN_ADMIN) && !stays() {
        return Err(refuse("the user `admin` is built in and stays in the group `admins`"));
    }
    Ok(())
}

/// Refuses members that a group cannot have.
async fn check_members(change: &mut Change, group: &PrincipalRow, members: &[String]) -> Result<(), ApiError> {
    if group.id == USERS {
        return Err(refuse("everybody is in the group `users`, so that it has no members of its own"));
    }
    if members.iter().any(|member| member == ADMINS || member == USERS) {
        return Err(refuse("the groups `admins` and `users` are in no other group"));
    }
    let above = change.groups_above(&group.id).await?;
    let circular = members.iter().find(|member| **member == group.id || above.contains(*member));
    match circular {
        Some(member) => {
            Err(refuse(format!("the group `{}` cannot have `{member}` in it: it would be in itself", group.name)))
        }
        None => Ok(()),
    }
}
