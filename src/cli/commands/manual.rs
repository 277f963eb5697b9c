//! `shoal completions` and `shoal man`: what shells and manual readers are told, made from the definition of the flags.

use std::io::{self, Write};

use clap_complete::generate;
use clap_mangen::Man;

use crate::cli::args::{self, CompletionsArgs};
use crate::cli::exit::{ExitCode, Failure};
use crate::cli::output::Output;

const NAME: &str = "shoal";

/// At the foot of each page.
const SOURCE: &str = concat!("shoal ", env!("CARGO_PKG_VERSION"));

/// Prints the script that completes for a shell.
pub(super) fn completions(args: &CompletionsArgs, output: &mut Output) -> ExitCode {
    let mut script = Vec::new();
    generate(args.shell, &mut args::command(), NAME, &mut script);
    output.text(&script);
    ExitCode::Done
}

/// Prints the pages of the program and of each of its commands, one after the other.
pub(super) fn man(output: &mut Output) -> Result<ExitCode, Failure> {
    let mut command = args::command();
    // Gives each command below its full name and the flags it shares with all.
    command.build();
    let mut pages = Vec::new();
    write_pages(&command, NAME, &mut pages)
        .map_err(|error| Failure::unexpected(error.to_string()))?;
    output.text(&pages);
    Ok(ExitCode::Done)
}

fn write_pages(command: &clap::Command, name: &str, pages: &mut Vec<u8>) -> io::Result<()> {
    let page = Man::new(command.clone().display_name(name.to_owned()))
        .source(SOURCE)
        .manual("Shoal");
    page.render_title(pages)?;
    page.render_name_section(pages)?;
    page.render_synopsis_section(pages)?;
    page.render_description_section(pages)?;
    page.render_options_section(pages)?;
    if command.has_subcommands() {
        page.render_subcommands_section(pages)?;
    }
    write_examples(command, pages)?;
    let is_page = |below: &&clap::Command| below.get_name() != "help" && !below.is_hide_set();
    for below in command.get_subcommands().filter(is_page) {
        write_pages(below, &format!("{name}-{}", below.get_name()), pages)?;
    }
    Ok(())
}

/// What stands below the help, line by line as it is there.
fn write_examples(command: &clap::Command, pages: &mut Vec<u8>) -> io::Result<()> {
    let Some(text) = command.get_after_help() else {
        return Ok(());
    };
    let text = text.to_string();
    writeln!(pages, ".SH EXAMPLES\n.nf")?;
    for line in text
        .trim_start_matches("Examples:")
        .trim_start_matches('\n')
        .lines()
    {
        // A dot or a quote at the beginning would be a request; a bare dash is no ASCII dash on paper.
        writeln!(
            pages,
            "\\&{}",
            line.replace('\\', "\\e").replace('-', "\\-")
        )?;
    }
    writeln!(pages, ".fi")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_examples() {
        let mut command = args::command();
        command.build();
        let mut pages = Vec::new();
        write_pages(&command, NAME, &mut pages).expect("memory takes everything");
        let text = String::from_utf8(pages).expect("text");
        for below in args::command().get_subcommands() {
            let title = format!(".TH shoal-{} 1", below.get_name());
            assert!(text.contains(&title), "no {title}");
        }
        let (titles, examples) = (
            text.matches(".TH ").count(),
            text.matches(".SH EXAMPLES").count(),
        );
        assert_eq!(titles, examples, "a page without examples");
        assert!(text.contains("\n\\&  shoal completions bash"));
    }
}
