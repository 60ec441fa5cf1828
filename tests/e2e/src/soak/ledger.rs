//! Accounts of frames: sent, received, dropped by reason, and lost with a program that was killed or on a link that was down.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use culvert_e2e::accounting::compare_logs;
use culvert_e2e::deployment::Deployment;

use crate::pairs::Pairs;

/// How long frames may be under way after the end of all traffic.
const UNDER_WAY: Duration = Duration::from_secs(10);
/// Frames that a program or link may hold at the moment of its end, beside those that are sent while it is away: the rings and
/// queues of four guests, both ways.
const HELD: u64 = 8 * 1024;

type Drops = BTreeMap<String, u64>;

/// The accounts.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Counters at the begin of a step; of a host that has begun again, nothing.
    before: [Drops; 2],
    /// Drops of this step that a program counted before it was ended.
    noted: Drops,
    missing: u64,
    sent: u64,
    inverted: u64,
    dropped: Drops,
    lost: u64,
}

/// What became of a step's frames.
pub(crate) struct Account {
    sent: u64,
    missing: u64,
    dropped: Drops,
    lost: u64,
    most: u64,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Account { sent, missing, dropped, lost, most } = self;
        write!(f, "{sent} frames sent, {} received", sent - missing)?;
        if *missing > 0 || !dropped.is_empty() {
            write!(f, ", drops {dropped:?}, {lost} of at most {most} lost with it")?;
        }
        Ok(())
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ledger { sent, missing, dropped, lost, .. } = self;
        write!(
            f,
            "{sent} frames sent, {} received, drops {dropped:?}, {lost} lost with what was killed or down",
            sent - missing
        )
    }
}

/// Drops of frames that a guest sent; what is answered instead of sent on is not lost.
fn drops(d: &Deployment, host: usize) -> Result<Drops, String> {
    let mut all = d.drops(host)?;
    all.retain(|reason, _| !reason.ends_with("_suppressed"));
    Ok(all)
}

fn add(to: &mut Drops, more: &Drops, less: &Drops) {
    for (reason, n) in more {
        let grown = n.saturating_sub(less.get(reason).copied().unwrap_or(0));
        if grown > 0 {
            *to.entry(reason.clone()).or_default() += grown;
        }
    }
}

impl Ledger {
    /// Begins a step.
    pub(crate) fn begin(&mut self, d: &Deployment) -> Result<(), String> {
        self.before = [drops(d, 0)?, drops(d, 1)?];
        self.noted.clear();
        Ok(())
    }

    /// Notes what a host has counted, just before its daemon ends. A NIC keeps its counters.
    pub(crate) fn note(&mut self, d: &Deployment, host: usize) -> Result<(), String> {
        if d.board(host).is_none() {
            let now = drops(d, host)?;
            add(&mut self.noted, &now, &self.before[host]);
        }
        Ok(())
    }

    /// A host's daemon has begun again. With it, the counters of a host without a NIC.
    pub(crate) fn restarted(&mut self, host: usize) {
        if host == 1 {
            self.before[host].clear();
        }
    }

    /// Accounts for all frames of a step, of which `during` were sent while the event happened; `may_lose`: it may lose frames.
    pub(crate) fn settle(
        &mut self,
        d: &Deployment,
        pairs: &mut Pairs,
        may_lose: bool,
        during: u64,
    ) -> Result<Account, String> {
        Self::until_quiet(pairs)?;
        let (sent, missing, inverted, unexpected) = Self::read(d, pairs)?;
        // Where frames are lost, a segment that is sent again looks like the first one, come late.
        let out_of_order = inverted - self.inverted;
        if unexpected > 0 || (out_of_order > 0 && missing == self.missing) {
            return Err(format!("{out_of_order} frames out of order, {unexpected} that nobody sent"));
        }
        let mut dropped = std::mem::take(&mut self.noted);
        for host in [0, 1] {
            add(&mut dropped, &drops(d, host)?, &self.before[host]);
        }
        let new = Account {
            sent: sent - self.sent,
            missing: missing - self.missing,
            lost: (missing - self.missing).saturating_sub(dropped.values().sum()),
            most: if may_lose { during + HELD } else { 0 },
            dropped,
        };
        if !may_lose && new.missing > 0 {
            return Err(format!("frames are lost although nothing was: {new}"));
        }
        if new.lost > new.most {
            return Err(format!("more is lost than can be lost with it: {new}"));
        }
        (self.sent, self.missing, self.inverted) = (sent, missing, inverted);
        self.lost += new.lost;
        add(&mut self.dropped, &new.dropped, &Drops::new());
        Ok(new)
    }

    /// Waits until the guests have sent and received nothing more for a while.
    fn until_quiet(pairs: &mut Pairs) -> Result<(), String> {
        let deadline = Instant::now() + UNDER_WAY;
        let (mut last, mut quiet) = (0, 0);
        while quiet < 3 {
            std::thread::sleep(Duration::from_millis(100));
            let now = pairs.moved()?;
            quiet = if now == last { quiet + 1 } else { 0 };
            last = now;
            if Instant::now() > deadline {
                return Err("frames are still sent long after the end of all traffic".to_owned());
            }
        }
        Ok(())
    }

    /// Sent, missing, out of order, unexpected: of all frames of both pairs so far.
    fn read(d: &Deployment, pairs: &mut Pairs) -> Result<(u64, u64, u64, u64), String> {
        let mut sum = (0, 0, 0, 0);
        for [sql, web] in &mut pairs.pairs {
            for (_, fate) in compare_logs(sql, web, d.dir())? {
                sum.0 += fate.sent;
                sum.1 += fate.missing;
                sum.2 += fate.inverted;
                sum.3 += fate.unexpected;
            }
        }
        Ok(sum)
    }
}
