//! System packages: which programs are needed, why, and the Debian or Ubuntu package of each.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::services;
use crate::failure::Result;
use crate::run;

/// Programs that only checks of the sources need.
pub(super) const CHECKS: &[Need] = &[
    Need { program: "codespell", packages: &["codespell"], why: "finds typing errors", services: &[] },
    SYSTEMD,
];

/// What `cargo xtask fuzz` needs.
pub(super) const FUZZING: &[Need] =
    &[Need { program: "c++", packages: &["g++"], why: "builds libFuzzer's runtime", services: &[] }];

/// A program that the demo, the tests or the checks start.
pub(super) struct Need {
    program: &'static str,
    /// Packages that may hold it, in the order of preference.
    packages: &'static [&'static str],
    why: &'static str,
    /// Services that the package would start without being asked; the first is its init script.
    services: &'static [&'static str],
}

/// Checks the unit; tests start the daemon behind the unit's filter.
const SYSTEMD: Need = Need {
    program: "systemd-analyze",
    packages: &["systemd"],
    why: "knows what the unit's settings mean, and makes the package's group in tests",
    services: &[],
};

/// What the demo and the tests need.
pub(super) const NEEDS: &[Need] = &[
    SYSTEMD,
    Need {
        program: "qemu-system-riscv64",
        // Newer releases have a package of its own for RISC-V.
        packages: &["qemu-system-riscv", "qemu-system-misc"],
        why: "runs the NIC's firmware",
        services: &[],
    },
    Need {
        program: "ip",
        packages: &["iproute2"],
        why: "builds the network namespaces of the demo",
        services: &[],
    },
    Need {
        program: "tshark",
        packages: &["tshark"],
        why: "checks the captures, independently of our own parser",
        services: &[],
    },
    Need {
        program: "ping",
        packages: &["iputils-ping"],
        why: "pings through the switch's ports in tests",
        services: &[],
    },
    Need {
        program: "xz",
        packages: &["xz-utils"],
        why: "unpacks the kernel modules of the Linux guest",
        services: &[],
    },
    Need {
        program: "promtool",
        packages: &["prometheus"],
        why: "checks the metrics",
        services: &["prometheus"],
    },
    Need {
        program: "ovs-vswitchd",
        packages: &["openvswitch-switch"],
        why: "is the other host's switch in tests, started by them with ovsdb-server, ovs-vsctl and the rest",
        services: &["openvswitch-switch", "ovs-record-hostname", "ovs-vswitchd", "ovsdb-server"],
    },
];

/// Installs what is missing (root) or says how to.
pub(super) fn ensure(needs: &[Need], no_install: bool) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| run::find_program(need.program).is_none()).collect();
    if missing.is_empty() {
        return namespaces();
    }
    let root = rustix::process::geteuid().is_root();
    if run::find_program("apt-get").is_none() {
        let programs: Vec<&str> = missing.iter().map(|need| need.program).collect();
        return Err(format!(
            "missing: {}. This is no Debian or Ubuntu: install them with its own tools",
            programs.join(", ")
        )
        .into());
    }
    if root && !no_install && !has_lists() {
        run::run(Command::new("apt-get").args(["update", "-q"]))?;
    }
    let names: Vec<&str> = missing.iter().map(|need| package(need)).collect();
    for (need, name) in missing.iter().zip(&names) {
        println!("{name} is missing: {} {}", need.program, need.why);
    }
    let install = format!("apt-get install --no-install-recommends {}", names.join(" "));
    if no_install || !root {
        let brought = missing.iter().filter_map(|need| need.services.first());
        let stop = |service| format!(" && invoke-rc.d {service} stop && update-rc.d {service} disable");
        let stop: String = brought.map(stop).collect();
        return Err(format!("missing packages; as root: apt-get update && {install}{stop}").into());
    }
    let mut command = Command::new("apt-get");
    command.args(["install", "-q", "-y", "--no-install-recommends"]).args(&names);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    let brought: Vec<&str> = missing.iter().flat_map(|need| need.services).copied().collect();
    services::held_back(&brought, || {
        if run::run(&mut command).is_ok() {
            return Ok(());
        }
        // Lists older than the mirror name versions that are gone.
        run::run(Command::new("apt-get").args(["update", "-q"]))?;
        run::run(&mut command)
    })?;
    match missing.iter().find(|need| run::find_program(need.program).is_none()) {
        Some(need) => Err(format!("{} is still missing after `{install}`", need.program).into()),
        None => namespaces(),
    }
}

fn package(need: &Need) -> &'static str {
    let offered = |name: &&&str| {
        run::output(Command::new("apt-cache").args(["policy", name]).env("LC_ALL", "C"))
            .is_ok_and(|text| text.contains("Candidate:") && !text.contains("Candidate: (none)"))
    };
    need.packages.iter().find(offered).unwrap_or(&need.packages[need.packages.len() - 1])
}

/// Whether apt has package lists at all: a fresh container image has none.
fn has_lists() -> bool {
    fs::read_dir("/var/lib/apt/lists").is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    })
}

/// The demo makes its own network namespaces; as an ordinary user that takes a user namespace.
fn namespaces() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let set =
        |path: &str, value: &str| fs::read_to_string(Path::new(path)).is_ok_and(|text| text.trim() == value);
    for (path, refused, remedy) in [
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=1000"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ] {
        if set(path, refused) {
            return Err(format!("this system refuses user namespaces to ordinary users; as root: {remedy}, or run this as root").into());
        }
    }
    Ok(())
}
