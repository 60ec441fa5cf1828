//! Man pages and completions, made from the definition of a command line.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::exit;

use clap::error::ErrorKind;
use clap::{Command, Parser, ValueEnum as _};
pub use clap_complete::Shell;

/// Parses a program's command line. With `--completions SHELL` or `--man-pages DIR` in its place the program writes those and
/// ends; they are for packages, and no part of the definition, whose required arguments they come without.
pub fn parse<A: Parser>(section: &str) -> A {
    let asked: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let [option, value] = asked.as_slice() {
        if option == "--man-pages" {
            write_and_exit(man_pages(A::command(), section, Path::new(value)));
        }
        let shell = value.to_str().and_then(|name| Shell::from_str(name, true).ok());
        if let Some(shell) = shell.filter(|_| option == "--completions") {
            write_and_exit(completions(A::command(), shell, &mut io::stdout()));
        }
    }
    A::parse()
}

fn write_and_exit(written: io::Result<()>) -> ! {
    match written {
        Ok(()) => exit(0),
        // A reader that closed the pipe does not want the rest.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit(0),
        Err(error) => clap::Error::raw(ErrorKind::Io, format!("{error}\n")).exit(),
    }
}

/// Writes what a shell completes a program's command line with.
///
/// # Errors
/// As `to`.
pub fn completions(mut command: Command, shell: Shell, to: &mut dyn io::Write) -> io::Result<()> {
    let name = command.get_name().to_owned();
    // The generator panics where it cannot write.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut text);
    to.write_all(&text)?;
    to.flush()
}

/// Writes a page for a program and for each of its commands into a folder, which it makes if it is not there.
///
/// # Errors
/// The folder cannot be written.
pub fn man_pages(mut command: Command, section: &str, folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    command = command.disable_help_subcommand(true);
    command.build();
    pages(&command, section, folder)
}

fn pages(command: &Command, section: &str, folder: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages(below, section, folder)?;
    }
    clap_mangen::Man::new(command.clone()).section(section).generate_to(folder).map(|_| ())
}
