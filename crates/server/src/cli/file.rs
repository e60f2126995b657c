//! The configuration file as the command line sees it: each setting is a flag of `hearth serve`, read as that flag is, and
//! counts where the flag is not given.

use std::any::TypeId;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, CommandFactory, FromArgMatches};
use hearth::config::{ConfigFile, FileError, Setting};
use hearth::connections::Tls;
use hearth::gate::Aides;
use hearth::policy::Policies;
use hearth::policy::limits::{Budgets, Prices};
use hearth_engine::hub::{Catalogue, ModelLocation};

use super::terminal::say;
use super::{Cli, Command};

/// Flags that no file can give: the file itself, and what it has tables for.
const NO_SETTINGS: [&str; 3] = ["config", "model", "help"];

/// Arguments of `hearth check-config`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The file
    file: PathBuf,
}

/// Says whether a server would start with the file, as far as the file tells.
pub(super) fn main(arguments: &Arguments) -> Result<()> {
    let file = ConfigFile::read(&arguments.file)?;
    let command = with_settings(Cli::command(), &file)?;
    let cli = Cli::from_arg_matches(&command.try_get_matches_from(["hearth", "serve"])?)?;
    let Command::Serve(serving) = cli.command else { unreachable!("`serve` was asked for") };
    let catalogue = Catalogue::embedded()?;
    for endpoint in file.declared.endpoints.iter().flatten() {
        ModelLocation::resolve(&endpoint.model, &catalogue)
            .map_err(|error| file.wrong(endpoint.place, error.to_string()))?;
    }
    budgets(&file)?;
    let config = serving.check().with_context(|| file.path.display().to_string())?;
    check_policies(&file, &config.access.aides)?;
    config.tls.map(Tls::load).transpose()?;
    let (endpoints, principals) = (file.declared.endpoints.iter().flatten().count(), file.declared.principals.len());
    say(format_args!("{}: {endpoints} endpoints, {principals} principals", file.path.display()));
    Ok(())
}

/// Checks the policies of a file's endpoints; `aides` are the endpoints that the server itself may ask.
///
/// # Errors
/// What cannot be kept to, and where it is typed.
pub(super) fn check_policies(file: &ConfigFile, aides: &Aides) -> Result<(), FileError> {
    for endpoint in file.declared.endpoints.iter().flatten() {
        if let Some((place, gateway)) = &endpoint.gateway {
            Policies::check(gateway, None, aides).map_err(|error| file.wrong(*place, error.to_string()))?;
        }
    }
    Ok(())
}

/// The budgets of a file, with the prices of the catalogue and of the file, which goes before.
///
/// # Errors
/// Where an endpoint has a budget in money and its model has no price.
pub(super) fn budgets(file: &ConfigFile) -> Result<Budgets> {
    let catalogue = Catalogue::embedded()?;
    let of_cards = catalogue.cards().iter().filter_map(|card| Some((card.name.clone(), card.price?)));
    let prices = Prices::new(of_cards.chain(file.declared.prices.iter().cloned()));
    let budgets = Budgets { all: file.declared.budgets.clone(), prices };
    for endpoint in file.declared.endpoints.iter().flatten() {
        // What has no such name is refused elsewhere.
        let Ok(location) = ModelLocation::resolve(&endpoint.model, &catalogue) else { continue };
        if let Some(model) = budgets.unpriced(&endpoint.name, [&*location.name()]) {
            let text = format!("the model `{model}` has no price, and endpoint `{}` a budget in money", endpoint.name);
            return Err(file.wrong(endpoint.place, text).into());
        }
    }
    Ok(budgets)
}

/// The command line, with the configuration file that it names.
///
/// # Errors
/// What is wrong with the file, and where.
pub(super) fn parsed() -> Result<Cli> {
    let mut command = Cli::command();
    let mut matches = command.clone().get_matches();
    let path = |matches: &clap::ArgMatches| -> Option<PathBuf> {
        let (name, serve) = matches.subcommand()?;
        (name == "serve").then(|| serve.get_one("config").cloned()).flatten()
    };
    let file = path(&matches).map(|path| ConfigFile::read(&path)).transpose()?;
    if let Some(file) = &file {
        command = with_settings(command, file)?;
        matches = command.get_matches();
    }
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Command::Serve(arguments) = &mut cli.command {
        arguments.file = file.map(Box::new);
    }
    Ok(cli)
}

/// The command line whose `serve` has the settings of the file where it had its own defaults.
fn with_settings(command: clap::Command, file: &ConfigFile) -> Result<clap::Command, FileError> {
    let mut changed = command.clone();
    for setting in &file.settings {
        let (argument, values) = flag(&command, file, setting)?;
        let (id, flag) = (argument.get_id().clone(), argument.get_long().unwrap_or_default().to_owned());
        if takes_values(argument) {
            let given = values.iter().map(|value| format!("--{flag}={value}"));
            let line = ["hearth", "serve"].map(str::to_owned).into_iter().chain(given);
            let refused = command.clone().try_get_matches_from(line).err();
            // What else is missing is not this setting's fault.
            if let Some(error) = refused.filter(|error| !matches!(error.kind(), ErrorKind::MissingRequiredArgument)) {
                let text = error.to_string();
                let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
                return Err(file.wrong(setting.place, first));
            }
        }
        changed =
            changed.mut_subcommand("serve", |serve| serve.mut_arg(id, |argument| argument.default_values(values)));
    }
    Ok(changed)
}

/// The flag of a setting, and the values that it gets.
fn flag<'a>(
    command: &'a clap::Command,
    file: &ConfigFile,
    setting: &Setting,
) -> Result<(&'a Arg, Vec<String>), FileError> {
    let serve = command.find_subcommand("serve");
    let known = |name: &str| {
        let long = name.replace('_', "-");
        let is_it = |argument: &&Arg| argument.get_long() == Some(&*long) && !NO_SETTINGS.contains(&&*long);
        serve.and_then(|serve| serve.get_arguments().find(is_it)).filter(|_| !name.contains('-'))
    };
    let wrong = |problem: String| file.wrong(setting.place, problem);
    let name = &setting.name;
    if let Some(argument) = known(name) {
        return Ok((argument, values(argument, file, setting)?));
    }
    // A password need not stand in the file itself.
    let elsewhere = name.strip_suffix("_file").and_then(known).filter(|argument| takes_values(argument));
    if let (Some(argument), [path]) = (elsewhere, &*setting.values) {
        let path = file.within(path);
        let text = fs::read_to_string(&path);
        let text = text.map_err(|error| wrong(format!("{} cannot be read: {error}", path.display())))?;
        return Ok((argument, vec![text.trim_end_matches(['\r', '\n']).to_owned()]));
    }
    let names = serve.into_iter().flat_map(clap::Command::get_arguments).filter_map(Arg::get_long);
    let names = names.filter(|name| !NO_SETTINGS.contains(name)).map(|name| name.replace('-', "_"));
    let names = names.collect::<Vec<_>>().join(", ");
    Err(wrong(format!("there is no setting `{name}`; there are {names}")))
}

fn values(argument: &Arg, file: &ConfigFile, setting: &Setting) -> Result<Vec<String>, FileError> {
    let Setting { name, values, place } = setting;
    let is_list = matches!(argument.get_action(), ArgAction::Append);
    if !is_list && values.len() != 1 {
        return Err(file.wrong(*place, format!("`{name}` has one value, not a list")));
    }
    let is_flag = !takes_values(argument);
    if is_flag != matches!(&**values, [flag] if ["true", "false"].contains(&&**flag)) {
        let bound = if is_flag { "true or false" } else { "a value, not true or false" };
        return Err(file.wrong(*place, format!("`{name}` must be {bound}")));
    }
    let is_path = argument.get_value_parser().type_id() == TypeId::of::<PathBuf>();
    let value = |value: &String| match is_path {
        true => file.within(Path::new(value)).to_string_lossy().into_owned(),
        false => value.clone(),
    };
    Ok(values.iter().map(value).collect())
}

fn takes_values(argument: &Arg) -> bool {
    argument.get_action().takes_values()
}

#[cfg(test)]
mod tests {
    use super::super::serve;
    use super::*;

    /// The arguments of `hearth serve` with such a file.
    fn served(text: &str, flags: &[&str]) -> Result<serve::Arguments, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hearth.toml");
        fs::write(folder.path().join("collector"), "http://127.0.0.1:4318\n").unwrap();
        fs::write(&path, text).unwrap();
        let file = ConfigFile::read(&path).map_err(|error| error.to_string())?;
        let command = with_settings(Cli::command(), &file).map_err(|error| error.to_string())?;
        let line = ["hearth", "serve"].iter().chain(flags);
        let matches = command.try_get_matches_from(line).map_err(|error| error.to_string())?;
        match Cli::from_arg_matches(&matches).unwrap().command {
            Command::Serve(arguments) => Ok(*arguments),
            _ => panic!("`serve` was asked for"),
        }
    }

    #[test]
    fn a_setting_counts_where_its_flag_is_not_given() {
        let text = "[server]\nport = 1234\nhost = \"::1\"\non_demand = true\novercommit = false\n\
                    cors_origin = [\"https://a.org\", \"https://b.org\"]\ntls_certificate = \"c.pem\"\nstate = \"/s\"";
        let arguments = served(text, &[]).unwrap();
        assert_eq!((arguments.port, arguments.host.to_string(), arguments.on_demand), (1234, "::1".into(), true));
        assert_eq!(arguments.cors_origins.len(), 2);
        let certificate = arguments.tls_certificate.unwrap();
        assert!(certificate.is_absolute() && certificate.ends_with("c.pem"));
        let arguments = served(text, &["--port", "5", "--cors-origin", "https://c.org"]).unwrap();
        assert_eq!((arguments.port, arguments.host.to_string()), (5, "::1".into()));
        assert_eq!(arguments.cors_origins, ["https://c.org".parse().unwrap()]);
    }

    #[test]
    fn a_setting_that_its_flag_would_refuse_is_refused_where_it_stands() {
        for (text, expected) in [
            ("[server]\nport = 70000", "hearth.toml:2:8: invalid value '70000' for '--port <PORT>'"),
            ("[server]\n\nqueue = -1", "hearth.toml:3:9: invalid value '-1' for '--queue <N>'"),
            ("[server]\ndevice = \"gpu\"", "hearth.toml:2:10: invalid value 'gpu' for '--device <DEVICE>'"),
            ("[server]\ncors_origin = \"*\"", "SCHEME://HOST[:PORT] in lower case without a path, not `*`"),
            ("[server]\nprot = 1", "hearth.toml:2:8: there is no setting `prot`; there are host, port,"),
            ("[server]\nmodel = \"a\"", "there is no setting `model`"),
            ("[server]\nmax-sequences = 4", "there is no setting `max-sequences`"),
            ("[server]\non_demand = 1", "hearth.toml:2:13: `on_demand` must be true or false"),
            ("[server]\nport = true", "hearth.toml:2:8: `port` must be a value"),
            ("[server]\nport = [1, 2]", "hearth.toml:2:8: `port` has one value"),
            ("[server]\nstate_file = \"none\"", "none cannot be read"),
        ] {
            let Err(error) = served(text, &[]) else { panic!("{text}") };
            assert!(error.contains(expected), "{text}\n{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_budget_in_money_needs_a_price() {
        let text =
            "[[endpoints]]\nname = \"talk\"\nmodel = \"smollm2\"\n[[budgets]]\nendpoint = \"talk\"\nperiod = \"day\"\n";
        let declared = |more: &str| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("hearth.toml");
            fs::write(&path, format!("{text}{more}")).unwrap();
            budgets(&ConfigFile::read(&path).unwrap()).map_err(|error| error.to_string())
        };
        assert!(declared("tokens = 1").is_ok());
        let error = declared("money = 1.0").unwrap_err();
        let expected =
            "hearth.toml:3:9: the model `smollm2-135m-instruct` has no price, and endpoint `talk` a budget in money";
        assert!(error.ends_with(expected), "{error}");
        // By the model's own name, whichever the endpoint was given.
        let priced = "money = 1.0\n[[prices]]\nmodel = \"smollm2-135m-instruct\"\ninput = 1";
        assert_eq!(declared(priced).unwrap().unpriced("talk", ["smollm2-135m-instruct"]), None);
    }

    #[test]
    fn a_value_can_stand_in_a_file_of_its_own() {
        let arguments = served("[server]\notlp_endpoint_file = \"collector\"", &[]).unwrap();
        assert!(format!("{:?}", arguments.log).contains("\"http://127.0.0.1:4318\""));
    }
}
