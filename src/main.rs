//! The program: starts the log, runs the command line, exits with its code. Nothing else, and nobody else exits.

use std::env::{VarError, args_os, var};
use std::process::exit;

use shoal::cli::{self, Invocation};
use tracing_subscriber::EnvFilter;

fn main() {
    let code = match cli::parse(args_os()) {
        Ok(invocation) => {
            start_log(&invocation);
            cli::run(invocation)
        }
        Err(code) => code,
    };
    exit(code.into());
}

/// Logs to stderr what `SHOAL_LOG` or `RUST_LOG` says, else what the flags say.
fn start_log(invocation: &Invocation) {
    let asked = |name| match var(name) {
        Ok(text) if !text.is_empty() => Some(text),
        Ok(_) | Err(VarError::NotPresent | VarError::NotUnicode(_)) => None,
    };
    let filter = asked("SHOAL_LOG")
        .or_else(|| asked("RUST_LOG"))
        .unwrap_or_else(|| invocation.log_filter().to_owned());
    tracing_subscriber::fmt()
        // Directives that make no sense are reported on stderr and left out.
        .with_env_filter(EnvFilter::builder().parse_lossy(filter))
        .with_ansi(invocation.is_log_coloured())
        .with_writer(cli::log_writer)
        .init();
}
