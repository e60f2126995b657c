//! `hearth token`: tokens, made and revoked in the store itself. A server that runs on it knows within a second.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use hearth::control::{NewToken, TOKENS_PER_PRINCIPAL, check_name};
use hearth::store::{ADMINS, Change, PrincipalKind, PrincipalRow, Store, TokenRow, now};
use jiff::Timestamp;

use super::state::StateArguments;
use super::terminal::{answer, say};

/// Arguments of `hearth token`.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a token and print it: it is shown this once
    Create(Create),
    /// Show all tokens: whose they are, and until when they count
    List(StateArguments),
    /// Revoke a token
    Revoke(Revoke),
}

#[derive(Args)]
struct Create {
    #[command(flatten)]
    owner: Owner,
    /// Put its owner into the group of administrators
    #[arg(long)]
    admin: bool,
    /// What the token is for
    #[arg(long, default_value = "", value_name = "TEXT")]
    comment: String,
    /// Seconds for which it counts [default: for ever]
    #[arg(long, value_name = "SECONDS")]
    lifetime: Option<i64>,
    #[command(flatten)]
    state: StateArguments,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Owner {
    /// User that gets it, by name; made where there is none
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Service principal that gets it, by application id; made where there is none
    #[arg(long, value_name = "APPLICATION_ID")]
    service_principal: Option<String>,
}

#[derive(Args)]
struct Revoke {
    /// Id of the token, as `hearth token list` shows it
    id: String,
    #[command(flatten)]
    state: StateArguments,
}

/// Runs one of the commands.
pub(super) fn main(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = match &arguments.command {
            Command::Create(Create { state, .. }) | Command::List(state) | Command::Revoke(Revoke { state, .. }) => {
                state.open().await?
            }
        };
        let done = match &arguments.command {
            Command::Create(arguments) => create(&store, arguments).await,
            Command::List(_) => list(&store).await,
            Command::Revoke(arguments) => revoke(&store, &arguments.id).await,
        };
        store.close().await;
        done
    })
}

async fn create(store: &Store, arguments: &Create) -> Result<()> {
    let wanted = NewToken::new(arguments.comment.clone(), arguments.lifetime)?;
    let mut change = store.change().await?;
    let owner = owner(&mut change, &arguments.owner).await?;
    if arguments.admin {
        change.add_member(ADMINS, &owner.id).await?;
    }
    change.delete_expired_tokens(&owner.id, now()).await?;
    if change.count_tokens(&owner.id).await? >= TOKENS_PER_PRINCIPAL {
        bail!("{} has {TOKENS_PER_PRINCIPAL} tokens, and cannot have more: revoke one first", owner.name);
    }
    // Whoever is at this machine is its administrator.
    let (token, row) = wanted.add(&mut change, &owner.id, "admin").await?;
    let administrable = change.has_token_in(ADMINS, now()).await?;
    change.commit().await?;
    answer(&format!("{}\n", token.text()))?;
    say(format_args!("token {} of {}", row.id, owner.name));
    if !administrable {
        say(format_args!("note: no administrator has a token: `hearth token create --user NAME --admin` makes one"));
    }
    Ok(())
}

/// Whose token it is to be; made where there is none.
async fn owner(change: &mut Change, owner: &Owner) -> Result<PrincipalRow> {
    let (kind, name) = match (&owner.user, &owner.service_principal) {
        (Some(name), _) => (PrincipalKind::User, name),
        (None, Some(id)) => (PrincipalKind::ServicePrincipal, id),
        (None, None) => bail!("--user or --service-principal is required"),
    };
    match change.principal_named(kind, name).await? {
        Some(row) if !row.active => bail!("{name} is not active, so that no token of theirs would count"),
        Some(row) => Ok(row),
        None => {
            check_name(kind, name)?;
            let row = PrincipalRow::new(kind, name, name);
            change.put_principal(&row).await?;
            Ok(row)
        }
    }
}

async fn list(store: &Store) -> Result<()> {
    let principals = store.principals().await?;
    let names: HashMap<&str, &str> = principals.iter().map(|row| (row.id.as_str(), row.name.as_str())).collect();
    let mut tokens = store.tokens().await?;
    tokens.sort_by(|one, other| (one.created, &one.id).cmp(&(other.created, &other.id)));
    answer(&format!("{:<32}  {:<36}  {:<20}  {:<20}  COMMENT\n", "ID", "OWNER", "CREATED", "EXPIRES"))?;
    for token in &tokens {
        let owner = names.get(token.principal_id.as_str()).copied().unwrap_or("?");
        answer(&line(token, owner)?)?;
    }
    Ok(())
}

fn line(token: &TokenRow, owner: &str) -> Result<String> {
    let TokenRow { id, comment, .. } = token;
    let created = time(token.created)?;
    let expires = token.expires.map_or_else(|| Ok("never".to_owned()), time)?;
    Ok(format!("{id:<32}  {owner:<36}  {created:<20}  {expires:<20}  {comment}\n"))
}

/// Milliseconds since 1970 as a time in UTC, to the second.
fn time(milliseconds: i64) -> Result<String> {
    Ok(Timestamp::from_second(milliseconds.div_euclid(1000))?.to_string())
}

async fn revoke(store: &Store, id: &str) -> Result<()> {
    let mut change = store.change().await?;
    let row = change.token(id).await?.with_context(|| format!("there is no token {id}"))?;
    if row.origin == "config" {
        bail!("the token {id} is declared in the configuration file: revoke it there");
    }
    change.delete_token(id).await?;
    let last = change.has_tokens().await? && !change.has_token_in(ADMINS, now()).await?;
    change.commit().await?;
    if last {
        say(format_args!("note: no administrator has a token any more"));
    }
    Ok(())
}
