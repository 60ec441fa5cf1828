//! `culvert-hostile`: makes one attack on the port of a running deployment.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use culvert_hostile::attacks::{ATTACKS, find};
use culvert_hostile::{Place, Target};

/// A hostile guest or VMM on a port of Culvert.
#[derive(Parser)]
struct Args {
    /// What kind of port it is.
    #[arg(long, value_enum)]
    target: Target,
    /// The port's socket.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// How long.
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    milliseconds: u64,
    /// Of the random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The attack's name; `list` names all.
    attack: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.attack == "list" {
        for attack in ATTACKS {
            println!("{:24} {:?}: {}", attack.name, attack.on, attack.what);
        }
        return ExitCode::SUCCESS;
    }
    let Some(attack) = find(&args.attack) else {
        eprintln!("culvert-hostile: there is no attack {}; `list` names all", args.attack);
        return ExitCode::FAILURE;
    };
    let time = Duration::from_millis(args.milliseconds);
    let place = Place::new(args.target, &args.socket, time, args.seed);
    match (attack.act)(&place) {
        Ok(seen) => println!("{seen}"),
        Err(e) if place.has_begun() => println!("ended by the target: {e}"),
        Err(e) => {
            eprintln!("culvert-hostile: {}: not begun: {e}", attack.name);
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
