//! `hearth.toml`: what is typed in it, and what it declares once it was checked.
//!
//! Owns the places that messages about it name. What the settings of `[server]`
//! mean is the command line's to say, whose flags they are; what is declared is brought into the store by `control`.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::{Spanned, Value};

use super::checked_token;
use super::typed::{EndpointTable, GroupTable, MemberTable, PermissionTable, PersonTable, Typed};
use crate::endpoints::check_name;
use crate::gate::{Permission, TokenHash};
use crate::policy::limits::{Budget, Price};
use crate::store::PrincipalKind;
use crate::wire::serving::AiGateway;

/// A configuration file, checked but for its settings.
#[derive(Debug)]
pub struct ConfigFile {
    /// Where it is.
    pub path: PathBuf,
    /// What `[server]` says.
    pub settings: Vec<Setting>,
    /// What else there is to be.
    pub declared: Declared,
}

/// A setting: a flag of `hearth serve` with its values.
#[derive(Debug)]
pub struct Setting {
    /// The name of the flag, with `_` for `-`.
    pub name: String,
    /// As they would be given to the flag; of a flag without a value `true` or `false`.
    pub values: Vec<String>,
    /// Where it stands.
    pub place: Place,
}

/// Line and column, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    line: usize,
    column: usize,
}

/// The endpoints and principals that a file declares.
#[derive(Debug, Default)]
pub struct Declared {
    /// In the order of the file; `None` where it says nothing of endpoints.
    pub endpoints: Option<Vec<DeclaredEndpoint>>,
    /// Users, service principals and groups.
    pub principals: Vec<DeclaredPrincipal>,
    /// Budgets of endpoints and principals, whoever has made them.
    pub budgets: Vec<Budget>,
    /// What models cost, by name.
    pub prices: Vec<(String, Price)>,
}

/// An endpoint in front of a model that this process hosts.
#[derive(Debug)]
pub struct DeclaredEndpoint {
    /// What calls name it.
    pub name: String,
    /// As `--model` takes it.
    pub model: String,
    /// Where that is typed.
    pub place: Place,
    /// Whether its model is loaded at its first request; `None`: as the flag says.
    pub on_demand: Option<bool>,
    /// Who may do what with it.
    pub grants: Vec<(PrincipalName, Permission)>,
    /// Its policies, not checked yet, and where they are typed.
    pub gateway: Option<(Place, AiGateway)>,
}

/// A user, a service principal or a group.
#[derive(Debug)]
pub struct DeclaredPrincipal {
    /// Its kind and name.
    pub name: PrincipalName,
    /// For people to read.
    pub display_name: String,
    /// Hashes of its tokens.
    pub tokens: Vec<TokenHash>,
    /// Of a group, who is in it.
    pub members: Vec<PrincipalName>,
}

/// Kind and name of a principal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PrincipalName {
    /// What it is.
    pub kind: PrincipalKind,
    /// Its name among those of its kind.
    pub name: String,
}

/// Who is there without being declared.
const BUILT_IN: [(PrincipalKind, &str); 3] =
    [(PrincipalKind::User, "admin"), (PrincipalKind::Group, "users"), (PrincipalKind::Group, ADMINS)];

/// The one of them that can be declared, to say who is in it.
const ADMINS: &str = "admins";

/// Longest name of a principal, in characters.
const NAME_LENGTH: usize = 256;

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("the configuration file {} cannot be read: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Something in it is wrong.
    #[error("{}:{}:{}: {problem}", path.display(), place.line, place.column)]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        place: Place,
        /// What is wrong.
        problem: String,
    },
}

impl ConfigFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The first thing that is wrong, and where.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let text = fs::read_to_string(path).map_err(|error| FileError::Read { path: path.to_owned(), error })?;
        Check { path, text: &text }.file()
    }

    /// Something that is wrong with what stands at that place.
    pub fn wrong(&self, place: Place, problem: impl Into<String>) -> FileError {
        FileError::Wrong { path: self.path.clone(), place, problem: problem.into() }
    }

    /// A path as it is typed in the file: one that is relative begins where the file is.
    pub fn within(&self, path: impl AsRef<Path>) -> PathBuf {
        within(&self.path, path.as_ref())
    }
}

fn within(file: &Path, path: &Path) -> PathBuf {
    file.parent().map_or_else(|| path.to_owned(), |folder| folder.join(path))
}

/// Checks one file.
pub(super) struct Check<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Check<'_> {
    fn file(&self) -> Result<ConfigFile, FileError> {
        // The message itself is taken, without the line of the file that goes with it: there may be a password in it.
        let typed: Typed =
            toml::from_str(self.text).map_err(|error| self.wrong(error.span().unwrap_or_default(), error.message()))?;
        let settings = typed.server.into_iter().map(|(name, value)| self.setting(name, value));
        let settings = settings.collect::<Result<_, _>>()?;
        let mut principals = Vec::new();
        let mut places = Vec::new();
        let mut hashes = HashSet::new();
        for (kind, tables) in
            [(PrincipalKind::User, typed.users), (PrincipalKind::ServicePrincipal, typed.service_principals)]
        {
            for table in tables {
                places.push(table.name.span());
                principals.push(self.person(kind, table, &mut hashes)?);
            }
        }
        // Groups are in groups that come later, too.
        let mut members = Vec::new();
        for GroupTable { name, members: of_group } in typed.groups {
            places.push(name.span());
            members.push((principals.len(), of_group));
            principals.push(self.group(name)?);
        }
        let known = self.known(&principals, &places)?;
        for (group, tables) in members {
            for table in tables {
                let span = table.span();
                let MemberTable { user, group: inner, service_principal } = table.into_inner();
                principals[group].members.push(self.named([user, inner, service_principal], span, &known)?);
            }
        }
        let endpoints = typed.endpoints.map(|tables| self.endpoints(tables, &known)).transpose()?;
        let (budgets, prices) = (self.budgets(typed.budgets)?, self.prices(typed.prices)?);
        let declared = Declared { endpoints, principals, budgets, prices };
        Ok(ConfigFile { path: self.path.to_owned(), settings, declared })
    }

    fn setting(&self, name: String, value: Spanned<Value>) -> Result<Setting, FileError> {
        let span = value.span();
        let place = self.place(&span);
        let text = |value| match value {
            Value::String(text) => Some(text),
            Value::Integer(number) => Some(number.to_string()),
            Value::Boolean(flag) => Some(flag.to_string()),
            Value::Float(number) => Some(number.to_string()),
            Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
        };
        let values = match value.into_inner() {
            Value::Array(list) => list.into_iter().map(text).collect(),
            value => text(value).map(|text| vec![text]),
        };
        let problem = || format!("`{name}` must be a text, a number, true, false, or a list of texts");
        let values = values.ok_or_else(|| self.wrong(span, problem()))?;
        Ok(Setting { name, values, place })
    }

    fn person(
        &self,
        kind: PrincipalKind,
        table: PersonTable,
        hashes: &mut HashSet<TokenHash>,
    ) -> Result<DeclaredPrincipal, FileError> {
        let mut tokens = Vec::new();
        if let Some(file) = table.token_file {
            let (span, file) = (file.span(), within(self.path, file.get_ref()));
            let problem = |error| format!("the token in {} cannot be read: {error}", file.display());
            let text = fs::read_to_string(&file).map_err(|error| self.wrong(span.clone(), problem(error)))?;
            tokens.push((self.hash(text.trim_end_matches(['\r', '\n']), &span)?, span));
        }
        if let Some(variable) = table.token_variable {
            let (span, variable) = (variable.span(), variable.into_inner());
            let problem = format!("the environment has no token in {variable}");
            let text = std::env::var(&variable).map_err(|_| self.wrong(span.clone(), problem))?;
            tokens.push((self.hash(&text, &span)?, span));
        }
        if let Some(digits) = table.token_sha256 {
            let (span, digits) = (digits.span(), digits.into_inner());
            let problem = "`token_sha256` must be the SHA-256 of a token in 64 hexadecimal digits";
            let hash = TokenHash::from_hex(&digits).ok_or_else(|| self.wrong(span.clone(), problem))?;
            tokens.push((hash, span));
        }
        for (hash, span) in &tokens {
            if !hashes.insert(*hash) {
                return Err(self.wrong(span.clone(), "the same token is given twice"));
            }
        }
        let name = self.name(kind, table.name)?;
        let display_name = table.display_name.unwrap_or_else(|| name.name.clone());
        let tokens = tokens.into_iter().map(|(hash, _)| hash).collect();
        Ok(DeclaredPrincipal { name, display_name, tokens, members: Vec::new() })
    }

    fn group(&self, name: Spanned<String>) -> Result<DeclaredPrincipal, FileError> {
        let name = self.name(PrincipalKind::Group, name)?;
        let display_name = name.name.clone();
        Ok(DeclaredPrincipal { name, display_name, tokens: Vec::new(), members: Vec::new() })
    }

    /// The name of a principal that is declared.
    fn name(&self, kind: PrincipalKind, name: Spanned<String>) -> Result<PrincipalName, FileError> {
        let (span, name) = (name.span(), name.into_inner());
        if !(1..=NAME_LENGTH).contains(&name.chars().count()) || name.chars().any(char::is_control) {
            let problem = format!("`name` must be 1 to {NAME_LENGTH} characters, none of them a control, not {name:?}");
            return Err(self.wrong(span, problem));
        }
        if BUILT_IN.contains(&(kind, name.as_str())) && (kind, name.as_str()) != (PrincipalKind::Group, ADMINS) {
            return Err(self.wrong(span, format!("`{name}` is built in, and cannot be declared")));
        }
        Ok(PrincipalName { kind, name })
    }

    fn hash(&self, token: &str, span: &Range<usize>) -> Result<TokenHash, FileError> {
        let problem = "a token must be visible ASCII without blanks, and not empty";
        let token = checked_token(token.to_owned()).map_err(|_| self.wrong(span.clone(), problem))?;
        Ok(TokenHash::of(token.as_bytes()))
    }

    /// Everybody who can be named.
    fn known(
        &self,
        principals: &[DeclaredPrincipal],
        places: &[Range<usize>],
    ) -> Result<HashSet<PrincipalName>, FileError> {
        let mut known = HashSet::new();
        for (principal, span) in principals.iter().zip(places) {
            if !known.insert(principal.name.clone()) {
                return Err(self.wrong(span.clone(), format!("`{}` is declared twice", principal.name.name)));
            }
        }
        known.extend(BUILT_IN.map(|(kind, name)| PrincipalName { kind, name: name.to_owned() }));
        Ok(known)
    }

    /// The one of `user`, `group` and `service_principal` that is given.
    fn named(
        &self,
        given: [Option<String>; 3],
        span: Range<usize>,
        known: &HashSet<PrincipalName>,
    ) -> Result<PrincipalName, FileError> {
        let kinds = [PrincipalKind::User, PrincipalKind::Group, PrincipalKind::ServicePrincipal];
        let mut given = kinds.into_iter().zip(given).filter_map(|(kind, name)| Some((kind, name?)));
        let (Some((kind, name)), None) = (given.next(), given.next()) else {
            return Err(self.wrong(span, "one of `user`, `group` and `service_principal` must be given"));
        };
        let name = PrincipalName { kind, name };
        if !known.contains(&name) {
            let kind = kind.name();
            let problem = format!("there is no {kind} `{}` in this file, and none is built in", name.name);
            return Err(self.wrong(span, problem));
        }
        Ok(name)
    }

    fn endpoints(
        &self,
        tables: Vec<EndpointTable>,
        known: &HashSet<PrincipalName>,
    ) -> Result<Vec<DeclaredEndpoint>, FileError> {
        let mut names = HashSet::new();
        let endpoint = |table: EndpointTable| {
            let (span, name) = (table.name.span(), table.name.into_inner());
            check_name(&name).map_err(|error| self.wrong(span.clone(), error.to_string()))?;
            if !names.insert(name.clone()) {
                return Err(self.wrong(span, format!("the endpoint `{name}` is declared twice")));
            }
            let (place, model) = (self.place(&table.model.span()), table.model.into_inner());
            let grants = table.permissions.into_iter().map(|table| self.grant(table, known));
            let grants = grants.collect::<Result<Vec<_>, _>>()?;
            let gateway = table.ai_gateway.map(|table| (self.place(&table.span()), table.into_inner()));
            Ok(DeclaredEndpoint { name, model, place, on_demand: table.on_demand, grants, gateway })
        };
        tables.into_iter().map(endpoint).collect()
    }

    fn grant(
        &self,
        table: Spanned<PermissionTable>,
        known: &HashSet<PrincipalName>,
    ) -> Result<(PrincipalName, Permission), FileError> {
        let span = table.span();
        let PermissionTable { user, group, service_principal, level } = table.into_inner();
        let name = self.named([user, group, service_principal], span, known)?;
        let (span, level) = (level.span(), level.into_inner());
        let level = level.parse::<Permission>().map_err(|error| self.wrong(span, error.to_string()))?;
        Ok((name, level))
    }

    pub(super) fn wrong(&self, span: Range<usize>, problem: impl Into<String>) -> FileError {
        FileError::Wrong { path: self.path.to_owned(), place: self.place(&span), problem: problem.into() }
    }

    fn place(&self, span: &Range<usize>) -> Place {
        let before = &self.text[..self.text.floor_char_boundary(span.start)];
        let line = before.rsplit('\n').next().unwrap_or_default();
        Place { line: before.matches('\n').count() + 1, column: line.chars().count() + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::limits::Owner;

    fn checked(text: &str) -> Result<ConfigFile, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("token"), "sesame\n").unwrap();
        fs::write(folder.path().join("blank"), "two words").unwrap();
        let path = folder.path().join("hearth.toml");
        fs::write(&path, text).unwrap();
        ConfigFile::read(&path).map_err(|error| {
            let text = error.to_string();
            text.strip_prefix(&format!("{}:", path.display())).unwrap_or(&text).to_owned()
        })
    }

    const WHOLE: &str = r#"
[server]
port = 0
cors_origin = ["https://a.example.org", "https://b.example.org"]
overcommit = true

[[endpoints]]
name = "talk"
model = "smollm2-135m-instruct"
on_demand = true
permissions = [{ group = "users", level = "CAN_VIEW" }, { user = "ann@example.org", level = "CAN_MANAGE" }]
ai_gateway = { usage_tracking_config = { enabled = false }, guardrails = { input = { pii = { behavior = "MASK" } } } }

[[endpoints]]
name = "vectors"
model = "all-minilm-l6-v2"

[[users]]
name = "ann@example.org"
display_name = "Ann"
token_file = "token"

[[service_principals]]
name = "robot"
token_sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

[[groups]]
name = "admins"
members = [{ group = "team" }]

[[groups]]
name = "team"
members = [{ user = "ann@example.org" }, { service_principal = "robot" }]

[[budgets]]
endpoint = "talk"
period = "day"
tokens = 1_000

[[budgets]]
group = "team"
period = "month"
money = 12.5

[[prices]]
model = "gpt-4o"
input = 2.5
output = 10
"#;

    #[test]
    fn what_is_typed_is_what_is_declared() {
        let file = checked(WHOLE).unwrap();
        let settings: Vec<(&str, &[String])> =
            file.settings.iter().map(|setting| (setting.name.as_str(), setting.values.as_slice())).collect();
        let origins = ["https://a.example.org".to_owned(), "https://b.example.org".to_owned()];
        let expected =
            [("cors_origin", &origins[..]), ("overcommit", &["true".to_owned()]), ("port", &["0".to_owned()])];
        assert_eq!(settings, expected);
        let endpoints = file.declared.endpoints.unwrap();
        let gateway = |endpoint: &DeclaredEndpoint| endpoint.gateway.clone().map(|(_, gateway)| gateway);
        let tracks = |endpoint: &DeclaredEndpoint| gateway(endpoint).is_none_or(|gateway| gateway.tracks_usage());
        assert_eq!((endpoints[0].on_demand, tracks(&endpoints[0])), (Some(true), false));
        assert_eq!((endpoints[1].on_demand, tracks(&endpoints[1])), (None, true));
        assert!(gateway(&endpoints[0]).unwrap().guardrails.is_some());
        let name = |kind, name: &str| PrincipalName { kind, name: name.into() };
        let ann = name(PrincipalKind::User, "ann@example.org");
        let users = name(PrincipalKind::Group, "users");
        assert_eq!(endpoints[0].grants, [(users, Permission::CanView), (ann.clone(), Permission::CanManage)]);
        let [person, robot, admins, team] = file.declared.principals.as_slice() else { panic!("four") };
        assert_eq!((&person.name, person.display_name.as_str()), (&ann, "Ann"));
        assert_eq!(person.tokens, [TokenHash::of(b"sesame")]);
        assert_eq!(robot.tokens, [TokenHash::of(b"abc")]);
        assert_eq!(admins.members, [name(PrincipalKind::Group, "team")]);
        assert_eq!(team.members, [ann, name(PrincipalKind::ServicePrincipal, "robot")]);
        let budget = |owner, period: &str, tokens, money| Budget::new(owner, period, tokens, money).unwrap();
        let group = Owner::Principal(PrincipalKind::Group, "team".into());
        let talk = budget(Owner::Endpoint("talk".into()), "day", Some(1000), None);
        assert_eq!(file.declared.budgets, [talk, budget(group, "month", None, Some(12.5))]);
        assert_eq!(file.declared.prices, [("gpt-4o".into(), Price { input: 2_500_000, output: 10_000_000 })]);
        assert!(checked("").unwrap().declared.endpoints.is_none());
        assert_eq!(checked("endpoints = []").unwrap().declared.endpoints.map(|none| none.len()), Some(0));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_column() {
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for (text, expected) in [
            ("[server\nport = 1", "1:8: "),
            ("[server]\nport = 1\nport = 2", "3:1: duplicate key"),
            ("[server]\nport = 2026-01-01", "2:8: `port` must be a text, a number"),
            ("[server]\ncors_origin = [[\"a\"]]", "2:15: `cors_origin` must be"),
            ("[sever]\nport = 1", "1:2: unknown field `sever`, expected one of"),
            ("[[endpoints]]\nname = \"a\"", "1:1: missing field `model`"),
            ("[[endpoints]]\nname = \"ä\"\nmodel = \"x\"", "2:8: the endpoint name must be"),
            ("[[endpoints]]\nname = \"models\"\nmodel = \"x\"", "2:8: the endpoint name `models` is reserved"),
            ("[[endpoints]]\nname = \"a\"\nmodel = 7", "3:9: invalid type: integer `7`, expected a string"),
            ("[[endpoints]]\nname = \"a\"\nmodel = \"x\"\nmodle = \"y\"", "4:1: unknown field `modle`"),
            (
                "[[endpoints]]\nname = \"a\"\nmodel = \"x\"\n[[endpoints]]\nname = \"a\"\nmodel = \"y\"",
                "5:8: the endpoint `a` is declared twice",
            ),
            (
                "[[endpoints]]\nname = \"a\"\nmodel = \"x\"\npermissions = [{ group = \"users\", level = \"CAN_EDIT\" }]",
                "4:43: a permission level is CAN_VIEW, CAN_QUERY or CAN_MANAGE, not `CAN_EDIT`",
            ),
            (
                "[[endpoints]]\nname = \"a\"\nmodel = \"x\"\npermissions = [{ user = \"bob\", level = \"CAN_VIEW\" }]",
                "4:16: there is no user `bob` in this file",
            ),
            (
                "[[endpoints]]\nname = \"a\"\nmodel = \"x\"\npermissions = [{ level = \"CAN_VIEW\" }]",
                "4:16: one of `user`, `group` and `service_principal`",
            ),
            ("[[users]]\nname = \"\"", "2:8: `name` must be 1 to 256 characters"),
            ("[[users]]\nname = \"admin\"", "2:8: `admin` is built in"),
            ("[[groups]]\nname = \"users\"", "2:8: `users` is built in"),
            ("[[users]]\nname = \"a\"\n[[users]]\nname = \"a\"", "4:8: `a` is declared twice"),
            ("[[users]]\nname = \"a\"\ntoken_file = \"none\"", "3:14: the token in "),
            ("[[users]]\nname = \"a\"\ntoken_file = \"blank\"", "3:14: a token must be visible ASCII"),
            ("[[users]]\nname = \"a\"\ntoken_variable = \"HEARTH_NO_SUCH\"", "3:18: the environment has no token in"),
            ("[[users]]\nname = \"a\"\ntoken_sha256 = \"abc\"", "3:16: `token_sha256` must be"),
            ("[[users]]\nname = \"a\"\ntoken = \"abc\"", "3:1: unknown field `token`"),
            ("# ü\n[[groups]]\nname = \"g\"\nmembers = [ { user = \"x\" } ]", "4:13: there is no user `x`"),
        ] {
            let error = checked(text).unwrap_err();
            assert!(error.starts_with(expected), "{text}\n{error}");
            assert!(!error.contains('\n') && !error.contains("two words"), "{error}");
        }
        let twice =
            format!("[[users]]\nname = \"a\"\ntoken_sha256 = \"{hash}\"\n[[service_principals]]\nname = \"b\"\n");
        let error = checked(&format!("{twice}token_sha256 = \"{}\"", hash.to_uppercase())).unwrap_err();
        assert_eq!(error, "6:16: the same token is given twice");
    }
}
