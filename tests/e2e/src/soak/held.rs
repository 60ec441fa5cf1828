//! What the programs hold: open files and memory, which must not grow.

use culvert_e2e::deployment::Deployment;

/// Growth that is no leak: connections of the API, buffers and tables that fill once.
const DESCRIPTORS: usize = 16;
const MIB: u64 = 96;

/// A program.
struct Held {
    name: String,
    descriptors: usize,
    /// Resident memory in MiB.
    mib: u64,
}

/// Programs of a deployment.
pub(crate) struct Watched(Vec<Held>);

impl Watched {
    /// What the programs hold now.
    pub(crate) fn of(d: &Deployment) -> Self {
        let ids = (0..2).flat_map(|host| {
            let daemon = d.daemon(host).map(|s| (format!("daemon of host {}", host + 1), s.id()));
            let board = d.board(host).map(|s| (format!("board of host {}", host + 1), s.id()));
            daemon.into_iter().chain(board)
        });
        Watched(ids.map(|(name, id)| Held { name, descriptors: descriptors(id), mib: mib(id) }).collect())
    }

    /// Compares with what they held first.
    pub(crate) fn check(&self, first: &Watched) -> Result<(), String> {
        for (now, was) in self.0.iter().zip(&first.0) {
            let Held { name, descriptors, mib } = now;
            if *descriptors > was.descriptors + DESCRIPTORS {
                return Err(format!("{name} has {descriptors} files open, at first {}", was.descriptors));
            }
            if *mib > was.mib + MIB {
                return Err(format!("{name} has {mib} MiB of memory, at first {}", was.mib));
            }
        }
        Ok(())
    }
}

fn descriptors(id: u32) -> usize {
    std::fs::read_dir(format!("/proc/{id}/fd")).map_or(0, Iterator::count)
}

fn mib(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
