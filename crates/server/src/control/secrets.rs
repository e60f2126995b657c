//! Scopes of secrets: who may do what with which, and every change of them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;
use secrecy::zeroize::Zeroizing;

use super::{ControlPlane, already_exists, does_not_exist};
use crate::error::{ApiError, ErrorKind};
use crate::gate::Principal;
use crate::store::{AclRow, Change, PrincipalKind, PrincipalRow, StoreError, USERS};
use crate::wire::FieldError;
use crate::wire::external::{Plaintext, SecretReference};
use crate::wire::secrets::{AclItem, AclPermission, BackendType, CreateScope, SecretItem};

/// Most scopes of a store.
const SCOPES: i64 = 1000;
/// Most secrets of a scope.
const SECRETS: i64 = 1000;
/// Longest name of a scope or a key.
const NAME_LENGTH: usize = 128;
/// Longest value, in bytes.
const VALUE_LENGTH: usize = 128 << 10;
/// What begins the names of scopes that are the server's own: callers neither see nor name them.
const OWN: char = '.';

/// The kinds of principals, in the order in which a name is looked for.
const KINDS: [PrincipalKind; 3] = [PrincipalKind::User, PrincipalKind::ServicePrincipal, PrincipalKind::Group];

/// A scope of which the caller may at least read the secrets. Each of its calls says what more it takes.
pub struct Scope<'a> {
    control: &'a ControlPlane,
    name: String,
    /// What the caller may.
    held: AclPermission,
}

impl ControlPlane {
    /// The scopes that `principal` may read.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn scopes(&self, principal: &Principal) -> Result<Vec<String>, ApiError> {
        let (scopes, acls) = (self.store().scopes().await?, self.store().secret_acls(None).await?);
        let may = |name: &String| {
            let mut acls = acls.iter().filter(|acl| acl.scope == *name);
            principal.is_admin() || acls.any(|acl| principal.ids().any(|id| id == acl.principal_id))
        };
        Ok(scopes.into_iter().filter(|name| !name.starts_with(OWN)).filter(may).collect())
    }

    /// The scope of that name.
    ///
    /// # Errors
    /// 404 where there is none or `principal` may do nothing with it, so that names do not leak.
    pub async fn scope(&self, principal: &Principal, name: &str) -> Result<Scope<'_>, ApiError> {
        let held = match name.starts_with(OWN) {
            true => None,
            false if principal.is_admin() => self.store().has_scope(name).await?.then_some(AclPermission::Manage),
            false => {
                let acls = self.store().secret_acls(Some(name)).await?;
                let own = acls.iter().filter(|acl| principal.ids().any(|id| id == acl.principal_id));
                own.map(permission_of).collect::<Result<Vec<_>, _>>()?.into_iter().max()
            }
        };
        let held = held.ok_or_else(|| no_such_scope(name))?;
        Ok(Scope { control: self, name: name.to_owned(), held })
    }

    /// Makes a scope.
    ///
    /// # Errors
    /// The field to blame; 400 where there is one of that name, or where there are too many.
    pub async fn create_scope(&self, creator: &Principal, fields: CreateScope) -> Result<(), ApiError> {
        let CreateScope { scope, initial_manage_principal, scope_backend_type, backend_azure_keyvault } = fields;
        check_name("scope", &scope)?;
        if scope_backend_type == Some(BackendType::AzureKeyvault) {
            return Err(FieldError::unsupported_value("scope_backend_type", " of AZURE_KEYVAULT").into());
        }
        if backend_azure_keyvault.is_some() {
            return Err(FieldError::unsupported("backend_azure_keyvault").into());
        }
        let manager = match initial_manage_principal.as_deref() {
            None => creator.id(),
            Some("users") => USERS,
            Some(other) => {
                let bound = "`users`, or left out for the caller alone";
                return Err(FieldError::value("initial_manage_principal", bound, format!("`{other}`")).into());
            }
        };
        let mut change = self.store().change().await?;
        if change.count_scopes().await? >= SCOPES {
            return Err(ApiError::new(
                ErrorKind::LimitExceeded,
                format!("there are {SCOPES} scopes, and no more are allowed"),
            ));
        }
        change.add_scope(&scope).await.map_err(|error| match error.is_duplicate() {
            true => already_exists("scope", &scope).with_field("scope"),
            false => error.into(),
        })?;
        let permission = AclPermission::Manage.name().to_owned();
        change.set_secret_acl(&AclRow { scope, principal_id: manager.to_owned(), permission }).await?;
        self.commit(change).await
    }

    /// Refuses a reference to a secret that `principal` may not read, for configurations that name one: whatever uses the
    /// configuration would read it for them.
    ///
    /// # Errors
    /// 404 where there is no such secret or they may not know of it.
    pub async fn check_reference(&self, principal: &Principal, reference: &SecretReference) -> Result<(), ApiError> {
        let scope = self.scope(principal, reference.scope()).await?;
        match self.store().sealed(&scope.name, reference.key()).await? {
            Some(_) => Ok(()),
            None => Err(scope.no_such_secret(reference.key())),
        }
    }

    /// The principal of that name.
    fn named(&self, name: &str) -> Result<PrincipalRow, ApiError> {
        let directory = self.gate().directory();
        let found = KINDS.into_iter().find_map(|kind| directory.named(kind, name));
        found.cloned().ok_or_else(|| does_not_exist("principal", name).with_field("principal"))
    }
}

impl Scope<'_> {
    /// Its keys.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn list(&self) -> Result<Vec<SecretItem>, ApiError> {
        let keys = self.control.store().secrets(&self.name).await?;
        let item = |(key, last_updated_timestamp)| SecretItem { key, last_updated_timestamp };
        Ok(keys.into_iter().map(item).collect())
    }

    /// The value of a secret.
    ///
    /// # Errors
    /// 404 where there is none; 503 where it cannot be opened.
    pub async fn get(&self, key: &str) -> Result<Zeroizing<Vec<u8>>, ApiError> {
        let value = self.control.secrets().open(&self.name, key).await?;
        value.ok_or_else(|| self.no_such_secret(key))
    }

    /// Writes a secret.
    ///
    /// # Errors
    /// The field to blame, and never the value; 403 without WRITE.
    pub async fn put(&self, key: &str, text: Option<Plaintext>, bytes: Option<Plaintext>) -> Result<(), ApiError> {
        self.takes(AclPermission::Write)?;
        check_name("key", key)?;
        let value = value(text, bytes)?;
        let mut change = self.change().await?;
        if change.count_secrets_besides(&self.name, key).await? >= SECRETS {
            let text = format!("the scope `{}` has {SECRETS} secrets, and no more are allowed", self.name);
            return Err(ApiError::new(ErrorKind::LimitExceeded, text));
        }
        self.control.secrets().put(&mut change, &self.name, key, &value).await?;
        self.control.commit(change).await
    }

    /// Deletes a secret.
    ///
    /// # Errors
    /// 404 where there is none; 403 without WRITE.
    pub async fn delete(&self, key: &str) -> Result<(), ApiError> {
        self.takes(AclPermission::Write)?;
        let mut change = self.change().await?;
        if !change.delete_secret(&self.name, key).await? {
            return Err(self.no_such_secret(key));
        }
        self.control.commit(change).await
    }

    /// Deletes the scope with all that is in it.
    ///
    /// # Errors
    /// 403 without MANAGE.
    pub async fn remove(&self) -> Result<(), ApiError> {
        self.takes(AclPermission::Manage)?;
        let mut change = self.change().await?;
        change.delete_scope(&self.name).await?;
        self.control.commit(change).await
    }

    /// Who may do what with it.
    ///
    /// # Errors
    /// 403 without MANAGE.
    pub async fn acls(&self) -> Result<Vec<AclItem>, ApiError> {
        self.takes(AclPermission::Manage)?;
        let rows = self.control.store().secret_acls(Some(&self.name)).await?;
        let directory = self.control.gate().directory();
        let known = rows.iter().filter_map(|row| Some((directory.principal(&row.principal_id)?.name.clone(), row)));
        let item = |(principal, row)| Ok(AclItem { principal, permission: permission_of(row)? });
        let mut items = known.map(item).collect::<Result<Vec<_>, ApiError>>()?;
        items.sort_by(|one, other| one.principal.cmp(&other.principal));
        Ok(items)
    }

    /// What a principal may do with it.
    ///
    /// # Errors
    /// 404 where that is nothing; 403 without MANAGE.
    pub async fn acl(&self, principal: &str) -> Result<AclItem, ApiError> {
        self.takes(AclPermission::Manage)?;
        let id = self.control.named(principal)?.id;
        let rows = self.control.store().secret_acls(Some(&self.name)).await?;
        let row = rows.iter().find(|row| row.principal_id == id).ok_or_else(|| self.no_such_acl(principal))?;
        Ok(AclItem { principal: principal.to_owned(), permission: permission_of(row)? })
    }

    /// Says what a principal may do with it, whatever they might before.
    ///
    /// # Errors
    /// 404 where there is no such principal; 403 without MANAGE.
    pub async fn put_acl(&self, principal: &str, permission: AclPermission) -> Result<(), ApiError> {
        self.takes(AclPermission::Manage)?;
        let principal_id = self.control.named(principal)?.id;
        let mut change = self.change().await?;
        let (scope, permission) = (self.name.clone(), permission.name().to_owned());
        change.set_secret_acl(&AclRow { scope, principal_id, permission }).await?;
        self.control.commit(change).await
    }

    /// Takes away what a principal may do with it.
    ///
    /// # Errors
    /// 404 where that is nothing; 403 without MANAGE.
    pub async fn delete_acl(&self, principal: &str) -> Result<(), ApiError> {
        self.takes(AclPermission::Manage)?;
        let id = self.control.named(principal)?.id;
        let mut change = self.change().await?;
        if !change.delete_secret_acl(&self.name, &id).await? {
            return Err(self.no_such_acl(principal));
        }
        self.control.commit(change).await
    }

    /// A change of the scope, which is still there.
    async fn change(&self) -> Result<Change, ApiError> {
        let mut change = self.control.store().change().await?;
        if change.has_scope(&self.name).await? { Ok(change) } else { Err(no_such_scope(&self.name)) }
    }

    fn takes(&self, needed: AclPermission) -> Result<(), ApiError> {
        if self.held >= needed {
            return Ok(());
        }
        let text = format!("{needed} on the scope `{}` is required", self.name);
        Err(ApiError::new(ErrorKind::Forbidden, text))
    }

    fn no_such_secret(&self, key: &str) -> ApiError {
        let text = format!("there is no secret `{key}` in the scope `{}`", self.name);
        ApiError::new(ErrorKind::NotFound, text).with_field("key")
    }

    fn no_such_acl(&self, principal: &str) -> ApiError {
        let text = format!("nothing says what `{principal}` may do with the scope `{}`", self.name);
        ApiError::new(ErrorKind::NotFound, text).with_field("principal")
    }
}

/// The same words whether the scope is missing or hidden.
fn no_such_scope(name: &str) -> ApiError {
    does_not_exist("scope", name).with_field("scope")
}

fn permission_of(row: &AclRow) -> Result<AclPermission, StoreError> {
    let known = AclPermission::ALL.into_iter().find(|permission| permission.name() == row.permission);
    known.ok_or_else(|| StoreError::Unknown { what: "an ACL of the permission", value: row.permission.clone() })
}

/// Checks the name of a new scope or of a secret that is written.
fn check_name(field: &str, name: &str) -> Result<(), FieldError> {
    let is_scope = field == "scope";
    let legal = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter) || (is_scope && letter == '@');
    if (1..=NAME_LENGTH).contains(&name.len()) && name.chars().all(legal) && !(is_scope && name.starts_with(OWN)) {
        return Ok(());
    }
    let bound = match is_scope {
        true => format!("1 to {NAME_LENGTH} letters, digits, `-`, `_`, `.` and `@`, and not begin with `.`"),
        false => format!("1 to {NAME_LENGTH} letters, digits, `-`, `_` and `.`"),
    };
    Err(FieldError::value(field, bound, format!("`{name}`")))
}

/// The value in one of the two fields.
fn value(text: Option<Plaintext>, bytes: Option<Plaintext>) -> Result<Zeroizing<Vec<u8>>, FieldError> {
    let (field, value) = match (text, bytes) {
        (Some(Plaintext(text)), None) => ("string_value", Zeroizing::new(text.expose_secret().as_bytes().to_vec())),
        (None, Some(Plaintext(text))) => {
            let bytes = STANDARD.decode(text.expose_secret());
            let bytes = bytes.map_err(|_| FieldError::conflict("bytes_value", "it must be base64, and is not"))?;
            ("bytes_value", Zeroizing::new(bytes))
        }
        (Some(_), Some(_)) => {
            let problem = "another form of `string_value`, which is given too";
            return Err(FieldError::conflict("bytes_value", problem));
        }
        (None, None) => {
            let problem = "it or `bytes_value` is required";
            return Err(FieldError::conflict("string_value", problem));
        }
    };
    if value.len() > VALUE_LENGTH {
        return Err(FieldError::value(field, format!("at most {VALUE_LENGTH} bytes"), value.len()));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_one_of_two_forms_and_of_a_size() {
        let typed = |text: String| Some(Plaintext(text.into()));
        let most = "x".repeat(VALUE_LENGTH);
        assert_eq!(value(typed(most.clone()), None).unwrap().len(), VALUE_LENGTH);
        assert_eq!(value(None, typed(STANDARD.encode(&most))).unwrap().as_slice(), most.as_bytes());
        for (text, bytes) in [(typed(most.clone() + "x"), None), (None, typed(STANDARD.encode(most + "x")))] {
            let error = value(text, bytes).unwrap_err().to_string();
            assert!(error.ends_with("_value` must be at most 131072 bytes, not 131073"), "{error}");
        }
    }
}
