//! The soak: guests on a host with an emulated NIC and on a host with the switch exchange traffic, while programs are killed,
//! policy changes, and links and MTUs go down and come back, in an order that a seed decides. Every frame is accounted for.

#![forbid(unsafe_code)]

mod event;
mod held;
mod ledger;
mod pairs;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use culvert_e2e::deployment::Deployment;
use culvert_e2e::netns;
use culvert_e2e::policies::routed;

use crate::event::{Event, Random};
use crate::held::Watched;
use crate::ledger::Ledger;
use crate::pairs::Pairs;

/// How long a program may take to end.
const END: Duration = Duration::from_secs(10);

/// Kills, changes and flaps at random under traffic, with exact accounts of all frames.
#[derive(Parser)]
#[command(name = "culvert-soak", version)]
struct Args {
    /// How long.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Decides what happens when. The same seed gives the same events in the same order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match soak(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("culvert-soak: seed {}: {e}", args.seed);
            ExitCode::FAILURE
        }
    }
}

fn soak(args: &Args) -> Result<(), String> {
    println!("seed {}, {} minutes", args.seed, args.minutes);
    netns::enter()?;
    // Host 1 has a NIC, host 2 the switch.
    let mut d = Deployment::builder(routed()?).software([1]).start()?;
    let mut pairs = Pairs::start(&d)?;
    let mut ledger = Ledger::default();
    let mut random = Random::new(args.seed);
    let end = Instant::now() + Duration::from_secs(60 * args.minutes);
    let mut first = None;
    let mut steps = 0_u64;
    while Instant::now() < end {
        // The first step is quiet: its state is what later ones are compared with.
        let event = if steps == 0 { Event::Nothing } else { Event::choose(&mut random) };
        steps += 1;
        step(&mut d, &mut pairs, &mut ledger, event, steps)
            .map_err(|e| format!("step {steps}, {event}: {e}; logs are in {}", keep(&d)))?;
        let watched = first.get_or_insert_with(|| Watched::of(&d));
        Watched::of(&d).check(watched).map_err(|e| format!("after step {steps}, {event}: {e}"))?;
    }
    drop(pairs);
    d.stop(END)?;
    println!("{steps} steps; {ledger}");
    Ok(())
}

/// Lets traffic run, lets the event happen in the middle of it, and accounts for all frames afterwards.
fn step(
    d: &mut Deployment,
    pairs: &mut Pairs,
    ledger: &mut Ledger,
    event: Event,
    number: u64,
) -> Result<(), String> {
    let begin = Instant::now();
    ledger.begin(d)?;
    pairs.send(number)?;
    // The streams run for about a second.
    std::thread::sleep(Duration::from_millis(100));
    let before = pairs.sent()?;
    event.happen(d, pairs, ledger, number)?;
    pairs.until_answered()?;
    let during = pairs.sent()? - before;
    pairs.finish(number)?;
    let account = ledger.settle(d, pairs, event.may_lose(), during)?;
    println!("{:6.1} s {number:4} {event}: {account}", begin.elapsed().as_secs_f64());
    Ok(())
}

/// Keeps the logs of a failed soak.
fn keep(d: &Deployment) -> String {
    let to = std::env::temp_dir().join(format!("culvert-soak-{}", std::process::id()));
    let _made = std::fs::create_dir_all(&to);
    for file in std::fs::read_dir(d.dir()).into_iter().flatten().flatten() {
        let _copied = std::fs::copy(file.path(), to.join(file.file_name()));
    }
    to.display().to_string()
}
