//! The demo: Microsoft's figure 8 on emulated SmartNICs, with one command.

#![forbid(unsafe_code)]

mod decoded;
mod frames;
mod host_report;
mod json;
mod report;
mod text;
mod topology;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use culvert_e2e::deployment::Deployment;
use culvert_e2e::netns;
use culvert_e2e::policies::figure8;
use culvert_e2e::vm::Vm;
use culvert_packet::Encap;

use crate::frames::{SQL_ADDRESS, WEB_ADDRESS};
use crate::report::{Pair, Report, Round};

/// Two tenants with the same addresses on two hosts, each with an emulated SmartNIC: pings, sends data over TCP in VXLAN
/// and in NVGRE, shows which packets were dropped and why.
#[derive(Parser)]
#[command(name = "culvert-demo", version)]
struct Args {
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
    /// MiB that each tenant sends, in each encapsulation.
    #[arg(long, default_value_t = 64)]
    mib: u64,
    /// Also run a Linux VM with its own virtio-net driver.
    #[arg(long)]
    vm: bool,
    /// Hosts without a NIC, which the software switch serves.
    #[arg(long, value_enum, default_value_t, conflicts_with = "vm")]
    software: Software,
    /// Where captures and logs are kept.
    #[arg(long, default_value = "target/demo")]
    out: PathBuf,
}

/// Which hosts the software switch serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Software {
    /// None: both hosts have an emulated NIC.
    #[default]
    None,
    /// Host 2; host 1 has an emulated NIC.
    Mixed,
    /// Both.
    All,
}

impl Software {
    fn hosts(self) -> Vec<usize> {
        match self {
            Software::None => Vec::new(),
            Software::Mixed => vec![1],
            Software::All => vec![0, 1],
        }
    }
}

/// Both tenants: names of the VMs on host 1 and host 2.
const TENANTS: [(&str, &str, &str); 2] =
    [("Contoso", "contoso-sql", "contoso-web"), ("Fabrikam", "fabrikam-sql", "fabrikam-web")];
const SQL: &str = "10.1.1.11/24";
const WEB: &str = "10.1.1.12/24";

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(report) => {
            let good = report.is_good();
            if args.json {
                println!("{}", report.json());
            } else {
                println!("{report}");
            }
            if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("culvert-demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<Report, String> {
    netns::enter()?;
    let start = Instant::now();
    let say = |text: &str| {
        if !args.json {
            println!("[{:5.1} s] {text}", start.elapsed().as_secs_f64());
        }
    };
    say(match args.software {
        Software::None => "starting two hosts: boards, firmware, daemons",
        Software::Mixed => "starting two hosts: one with board and firmware, one with software alone",
        Software::All => "starting two hosts with software alone: daemons",
    });
    let mut deployment =
        Deployment::builder(figure8(Encap::Vxlan)?).software(args.software.hosts()).capture().start()?;
    let outcome = play(args, &mut deployment, &say);
    let kept = deployment.end_captures().and_then(|()| keep(args, &deployment));
    match outcome {
        Ok(mut report) => {
            report.captures = kept?;
            drop(deployment);
            say("reading the captures");
            report.read_captures()?;
            report.seconds = start.elapsed().as_secs_f64();
            Ok(report)
        }
        Err(error) => Err(format!("{error}\nlogs are in {}", args.out.display())),
    }
}

fn play(args: &Args, deployment: &mut Deployment, say: &dyn Fn(&str)) -> Result<Report, String> {
    let mut pairs = Vec::new();
    for (tenant, sql, web) in TENANTS {
        let sql = deployment.guest(0, sql, SQL, 0)?;
        let web = deployment.guest(1, web, WEB, 0)?;
        pairs.push(Tenant { name: tenant, sql, web });
    }
    say("four guests are up");
    let mut report = Report::new(args.software.hosts());
    for encap in [Encap::Vxlan, Encap::Nvgre] {
        if encap == Encap::Nvgre {
            say("changing the policy from VXLAN to NVGRE, under the guests");
            deployment.change_policy(&figure8(encap)?)?;
        }
        say(&format!("{encap}: pings, then {} MiB over TCP for each tenant, at the same time", args.mib));
        report.rounds.push(round(args, encap, &mut pairs)?);
    }
    say("two packets that must not arrive");
    forbidden(&mut pairs)?;
    if args.vm {
        say("a Linux VM with its own driver");
        report.linux = Some(linux(deployment, pairs)?);
    }
    std::thread::sleep(Duration::from_millis(300));
    report.read_hosts(deployment)?;
    Ok(report)
}

struct Tenant {
    name: &'static str,
    sql: Vm,
    web: Vm,
}

fn round(args: &Args, encap: Encap, tenants: &mut [Tenant]) -> Result<Round, String> {
    let port = 5000 + encap as u16;
    let bytes = args.mib << 20;
    let mut pings = Vec::new();
    for tenant in tenants.iter_mut() {
        let there = tenant.sql.ping(WEB_ADDRESS, 5, 50)?;
        let back = tenant.web.ping(SQL_ADDRESS, 5, 50)?;
        pings.push([there, back]);
    }
    for (n, tenant) in tenants.iter_mut().enumerate() {
        tenant.web.listen(port)?;
        tenant.sql.send(WEB_ADDRESS, port, bytes, n as u64 + 1)?;
    }
    let mut pairs = Vec::new();
    for (tenant, pings) in tenants.iter_mut().zip(pings) {
        let limit = Duration::from_secs(180);
        let sent = tenant.sql.transfer(port, limit)?;
        let received = tenant.web.transfer(port, limit)?;
        let intact = sent.sha256 == received.sha256 && received.bytes == bytes;
        pairs.push(Pair { tenant: tenant.name, pings, bytes, seconds: received.seconds, intact });
    }
    Ok(Round { encap, pairs })
}

/// A frame for a MAC that only the other tenant has, and a connection that an access control list denies.
fn forbidden(tenants: &mut [Tenant]) -> Result<(), String> {
    let sql = [0x00, 0x1d, 0xd8, 0x07, 0x00, 0x11];
    let web = [0x00, 0x1d, 0xd8, 0x07, 0x00, 0x12];
    let other = [0x00, 0x1d, 0xd8, 0x08, 0x00, 0x12];
    tenants[0].sql.frame(&frames::syn(sql, other, 80))?;
    tenants[0].sql.frame(&frames::syn(sql, web, 23))
}

/// Boots Linux in place of Contoso's SQL server; it exchanges data with the web server.
fn linux(deployment: &Deployment, mut tenants: Vec<Tenant>) -> Result<report::Linux, String> {
    use culvert_e2e::linux_guest::{LinuxGuest, LinuxGuestConfig};
    let Tenant { sql, mut web, .. } = tenants.remove(0);
    drop(sql);
    let vf = deployment.vport(0, "contoso-sql")?.socket.ok_or("contoso-sql has no VF")?;
    let config = LinuxGuestConfig { name: "linux", vfs: &[&vf], vhost_user: None, ip: SQL, gateway: None };
    let limit = Duration::from_secs(120);
    let (mut guest, mut up) = LinuxGuest::boot(&config, &deployment.dir().join("linux.log"), limit)?;
    let mut boots = Vec::new();
    for n in 0..2u16 {
        if n > 0 {
            up = guest.reboot(limit)?;
        }
        let nic = up.nic.as_ref().ok_or("Linux has bound no network interface")?;
        let ping = guest.run("ping -c 5 -i 0.2 -q 10.1.1.12", Duration::from_secs(30))?;
        web.listen(7000 + n)?;
        // 8 MiB of zeros: their digest is known.
        let copy = format!("dd if=/dev/zero bs=65536 count=128 2>/dev/null | nc 10.1.1.12 {}", 7000 + n);
        let sent = guest.run(&copy, Duration::from_secs(120))?;
        let received = web.transfer(7000 + n, Duration::from_secs(120))?;
        boots.push(report::Boot {
            kernel: up.kernel.clone(),
            driver: nic.driver.clone(),
            ping: ping.status == 0,
            bytes: received.bytes,
            intact: sent.status == 0 && received.sha256 == report::ZEROS_8_MIB,
            seconds: received.seconds,
        });
    }
    guest.power_off(Duration::from_secs(30))?;
    Ok(report::Linux { boots })
}

/// Copies logs and captures to the output folder. Returns the captures.
fn keep(args: &Args, deployment: &Deployment) -> Result<Vec<PathBuf>, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", args.out.display());
    std::fs::create_dir_all(&args.out).map_err(failed)?;
    // The boards flush their captures ten times a second.
    std::thread::sleep(Duration::from_millis(250));
    let mut captures = Vec::new();
    for entry in std::fs::read_dir(deployment.dir()).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name() else { continue };
        let kind = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if kind == "log" || kind == "pcapng" {
            let to = args.out.join(name);
            std::fs::copy(&path, &to).map_err(failed)?;
            if kind == "pcapng" {
                captures.push(to);
            }
        }
    }
    captures.sort();
    Ok(captures)
}
