//! The rules of an endpoint: so many calls, so many tokens a minute, for whom.
//!
//! The rules for the endpoint hold for every call. Of a caller's own, the most specific hold: those that name the caller; without
//! one, those of all groups that the caller is in; without one, those for every caller. Of several that hold the most
//! restrictive counts. A group's rule is for its members together, each of the others for one caller alone.

use super::account::{Account, Unit};
use super::window::Period;
use crate::endpoints::Endpoint;
use crate::gate::Principal;
use crate::store::PrincipalKind;
use crate::wire::FieldError;
use crate::wire::serving::RateLimit;

/// Most rules of an endpoint.
const RULES: usize = 100;
/// The highest limit, which is no limit at all.
const HIGHEST: i64 = 1_000_000_000_000;
/// Longest name of a principal, in characters.
const NAME_LENGTH: usize = 256;

/// For whom a rule is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    /// All callers together.
    Endpoint,
    /// Every caller, each alone.
    Each,
    /// The caller of that kind and name.
    Caller(PrincipalKind, String),
    /// The members of the group of that name together.
    Group(String),
}

/// A checked rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    whose: Whose,
    calls: Option<i64>,
    tokens: Option<i64>,
}

/// The rules that a configuration has, checked; `list` is its field.
///
/// # Errors
/// The field to blame.
pub(crate) fn rules(list: &str, limits: &[RateLimit]) -> Result<Vec<Rule>, FieldError> {
    if limits.len() > RULES {
        return Err(FieldError::value(list, format!("at most {RULES} limits"), limits.len()));
    }
    let mut rules: Vec<Rule> = Vec::new();
    for (index, limit) in limits.iter().enumerate() {
        let place = format!("{list}[{index}]");
        let rule = rule(limit).map_err(|error| error.within(&place))?;
        if rules.iter().any(|other| other.whose == rule.whose) {
            return Err(FieldError::conflict(place, "a limit of the same `key` and `principal` stands before it"));
        }
        rules.push(rule);
    }
    Ok(rules)
}

/// One rule, checked.
///
/// # Errors
/// The field to blame.
pub(crate) fn rule(limit: &RateLimit) -> Result<Rule, FieldError> {
    if limit.renewal_period != Period::Minute.name() {
        return Err(FieldError::value("renewal_period", "`minute`", format!("`{}`", limit.renewal_period)));
    }
    if limit.calls.is_none() && limit.tokens.is_none() {
        return Err(FieldError::Missing { field: "calls".to_owned() });
    }
    for (field, given) in [("calls", limit.calls), ("tokens", limit.tokens)] {
        if let Some(given) = given.filter(|given| !(0..=HIGHEST).contains(given)) {
            return Err(FieldError::value(
                field,
                format!("a number between 0, which refuses all, and {HIGHEST}"),
                given,
            ));
        }
    }
    let key = limit.key.as_deref().unwrap_or("endpoint");
    let whose = match (key, limit.principal.as_deref()) {
        ("endpoint", None) => Whose::Endpoint,
        ("endpoint", Some(_)) => {
            return Err(FieldError::conflict("principal", "not with the key `endpoint`, which is for all callers"));
        }
        ("user", None) => Whose::Each,
        ("user", Some(name)) => Whose::Caller(PrincipalKind::User, name.to_ascii_lowercase()),
        ("service_principal", Some(name)) => Whose::Caller(PrincipalKind::ServicePrincipal, name.to_owned()),
        ("user_group", Some(name)) => Whose::Group(name.to_owned()),
        ("service_principal" | "user_group", None) => {
            return Err(FieldError::Missing { field: "principal".to_owned() });
        }
        _ => {
            let bound = "`endpoint`, `user`, `user_group` or `service_principal`";
            return Err(FieldError::value("key", bound, format!("`{key}`")));
        }
    };
    if let Some(name) = &limit.principal {
        check_name("principal", name)?;
    }
    Ok(Rule { whose, calls: limit.calls, tokens: limit.tokens })
}

/// Checks that somebody can have that name. Whether somebody has it shows at each call: they may come later.
pub(super) fn check_name(field: &str, name: &str) -> Result<(), FieldError> {
    if (1..=NAME_LENGTH).contains(&name.chars().count()) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    let bound = format!("a name of 1 to {NAME_LENGTH} characters, none of them a control");
    Err(FieldError::value(field, bound, format!("{name:?}")))
}

/// Whether the caller has that name.
pub(super) fn is_called(caller: &Principal, kind: PrincipalKind, name: &str) -> bool {
    // Users have addresses, which are the same in any case.
    let same =
        if kind == PrincipalKind::User { caller.name().eq_ignore_ascii_case(name) } else { caller.name() == name };
    caller.kind() == kind && same
}

impl Rule {
    fn accounts(&self, endpoint: &Endpoint, caller: &Principal, accounts: &mut Vec<Account>) {
        // What somebody has used stays used, whichever rule it is held against: a rule that changes, or another one that is more
        // specific, begins with the same count.
        let (who, whose) = match &self.whose {
            Whose::Endpoint => ("endpoint".to_owned(), String::new()),
            Whose::Each | Whose::Caller(..) => {
                (format!("caller/{}", caller.id()), format!(" for {} `{}`", caller.kind().name(), caller.name()))
            }
            Whose::Group(name) => (format!("group/{name}"), format!(" for the group `{name}` together")),
        };
        for (unit, limit) in [(Unit::Calls, self.calls), (Unit::Tokens, self.tokens)] {
            accounts.extend(limit.map(|limit| Account {
                name: format!("limit/{}/{who}/{}", endpoint.id(), unit.name()),
                unit,
                period: Period::Minute,
                limit,
                whose: format!("endpoint `{}`{whose}", endpoint.name()),
            }));
        }
    }
}

/// What the rules of `endpoint` hold a call of `caller` against.
pub(super) fn accounts(endpoint: &Endpoint, caller: &Principal) -> Vec<Account> {
    let rules = &endpoint.policies().limits;
    let mut accounts = Vec::new();
    let mut add = |holds: &dyn Fn(&Whose) -> bool| {
        let holding = rules.iter().filter(|rule| holds(&rule.whose));
        holding.map(|rule| rule.accounts(endpoint, caller, &mut accounts)).count() > 0
    };
    add(&|whose| *whose == Whose::Endpoint);
    let is_named = |whose: &Whose| matches!(whose, Whose::Caller(kind, name) if is_called(caller, *kind, name));
    let has_group = |whose: &Whose| matches!(whose, Whose::Group(name) if caller.is_in(name));
    let _ = add(&is_named) || add(&has_group) || add(&|whose| *whose == Whose::Each);
    accounts
}
