//! The command line: one file a command. Answers go to stdout, everything else to stderr.

mod answer;
mod bench;
mod embed;
mod external;
mod file;
mod guardrails;
mod limits;
mod list;
mod load;
mod logs;
mod progress;
mod pull;
mod quantize;
mod run;
mod serve;
mod state;
mod terminal;
mod token;
mod usage;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use logs::LogArguments;

/// Foundation models served from your own machine.
#[derive(Parser)]
#[command(name = "hearth", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve models over HTTP
    Serve(Box<serve::Arguments>),
    /// Answer one prompt, or chat at the terminal
    Run(run::Arguments),
    /// Embed texts: one JSON array a line
    Embed(embed::Arguments),
    /// Download models, with checksums, going on where a download broke off
    Pull(pull::Arguments),
    /// Write a model in safetensors as a GGUF file in fewer bits
    Quantize(quantize::Arguments),
    /// Show the catalogue: what is on disk, and what this machine can hold
    List(list::Arguments),
    /// Measure a model's speed
    Bench(bench::Arguments),
    /// Make, show and revoke tokens
    Token(token::Arguments),
    /// Show who used what
    Usage(usage::Arguments),
    /// Check a configuration file of `serve`
    CheckConfig(file::Arguments),
}

/// Runs the command line. Errors go to stderr, one line a cause.
pub(crate) fn main() -> ExitCode {
    let cli = match file::parsed() {
        Ok(cli) => cli,
        Err(error) => return failed(&error),
    };
    let level = if matches!(cli.command, Command::Serve(_)) { "info" } else { "warn" };
    let filter = EnvFilter::try_from_env("HEARTH_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let arguments =
        if let Command::Serve(arguments) = &cli.command { arguments.log.clone() } else { LogArguments::default() };
    let log = match arguments.begin(filter) {
        Ok(log) => log,
        Err(error) => return failed(&error),
    };
    let outcome = match cli.command {
        Command::Serve(arguments) => serve::main(&arguments),
        Command::Run(arguments) => run::main(&arguments),
        Command::Embed(arguments) => embed::main(&arguments),
        Command::Pull(arguments) => pull::main(&arguments),
        Command::Quantize(arguments) => quantize::main(&arguments),
        Command::List(arguments) => list::main(&arguments),
        Command::Bench(arguments) => bench::main(&arguments),
        Command::Token(arguments) => token::main(&arguments),
        Command::Usage(arguments) => usage::main(arguments),
        Command::CheckConfig(arguments) => file::main(&arguments),
    };
    drop(log);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the answers has read enough, as `head` does.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    terminal::say(format_args!("error: {error:#}"));
    ExitCode::FAILURE
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
