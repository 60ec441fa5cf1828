//! The guests: two pairs whose frames are accounted for, and a third guest that may be killed.

use std::net::IpAddr;
use std::time::Duration;

use culvert_e2e::deployment::Deployment;
use culvert_e2e::vm::Vm;
use culvert_e2e::wait::poll;

/// Frames of a guest's log; more than one sends in a day.
const LOG: usize = 1 << 26;
/// Bytes of a step's stream each way, and length of its probe.
const BULK: u64 = 4 << 20;
const PROBE: Duration = Duration::from_secs(4);
const LIMIT: Duration = Duration::from_secs(90);
/// How long an outage may be, with the restart of a daemon in it, on a busy machine.
const OUTAGE: Duration = Duration::from_secs(30);
const THIRD: (&str, &str) = ("contoso-app", "10.1.1.13/24");

/// The guests.
pub(crate) struct Pairs {
    /// Of each tenant: the guest on a VF of host 1, and the one on a TAP of host 2.
    pub(crate) pairs: [[Vm; 2]; 2],
    third: Option<Vm>,
}

impl Pairs {
    pub(crate) fn start(d: &Deployment) -> Result<Self, String> {
        let pair = |tenant: &str| -> Result<[Vm; 2], String> {
            let sql = d.guest(0, &format!("{tenant}-sql"), "10.1.1.11/24", LOG)?;
            let mut web = d.guest(1, &format!("{tenant}-web"), "10.1.1.12/24", LOG)?;
            web.echo()?;
            Ok([sql, web])
        };
        let pairs = [pair("contoso")?, pair("fabrikam")?];
        Ok(Pairs { pairs, third: Some(d.guest(0, THIRD.0, THIRD.1, 0)?) })
    }

    fn ports(number: u64) -> [u16; 2] {
        // Not one that is still in use.
        let port = 6000 + (number % 10_000) as u16 * 2;
        [port, port + 1]
    }

    /// Starts a step's traffic: a stream each way, and a probe.
    pub(crate) fn send(&mut self, number: u64) -> Result<(), String> {
        let [there, back] = Self::ports(number);
        for [sql, web] in &mut self.pairs {
            let (to_web, to_sql) = (web.address(), sql.address());
            web.listen(there)?;
            sql.listen(back)?;
            sql.start_probe(to_web, PROBE)?;
            sql.send(to_web, there, BULK, number)?;
            web.send(to_sql, back, BULK, number + 1)?;
        }
        Ok(())
    }

    /// Frames that the pairs' guests have sent so far.
    pub(crate) fn sent(&mut self) -> Result<u64, String> {
        let all = self.pairs.iter_mut().flatten();
        all.map(|vm| vm.counters().map(|counters| counters.tx_frames)).sum()
    }

    /// Frames that they have sent and received so far.
    pub(crate) fn moved(&mut self) -> Result<u64, String> {
        let all = self.pairs.iter_mut().flatten();
        all.map(|vm| vm.counters().map(|counters| counters.tx_frames + counters.rx_frames)).sum()
    }

    /// Waits until all pairs ping each other again.
    pub(crate) fn until_answered(&mut self) -> Result<(), String> {
        for [sql, web] in &mut self.pairs {
            let to: IpAddr = web.address();
            let answered = poll(OUTAGE, Duration::from_millis(50), || {
                Ok::<_, String>(sql.ping(to, 1, 10)?.received == 1)
            })?;
            if !answered {
                return Err(format!("{} gets no answer within {} s", sql.name(), OUTAGE.as_secs()));
            }
        }
        Ok(())
    }

    /// Waits for the end of a step's traffic; streams arrive whole.
    pub(crate) fn finish(&mut self, number: u64) -> Result<(), String> {
        let [there, back] = Self::ports(number);
        for [sql, web] in &mut self.pairs {
            for port in [there, back] {
                let (one, other) = (sql.transfer(port, LIMIT)?, web.transfer(port, LIMIT)?);
                if (one.bytes, &one.sha256) != (BULK, &other.sha256) {
                    return Err(format!("{}: a stream did not arrive whole: {one:?} {other:?}", sql.name()));
                }
            }
            let probe = sql.probe(LIMIT)?;
            if probe.reordered > 0 {
                return Err(format!("{}: reordered: {probe:?}", sql.name()));
            }
        }
        Ok(())
    }

    /// Kills the third guest while it sends, and starts another in its place.
    pub(crate) fn replace_third(&mut self, d: &Deployment) -> Result<(), String> {
        if let Some(mut third) = self.third.take() {
            let to = self.pairs[0][1].address();
            third.start_probe(to, PROBE)?;
            // Nobody listens there; the stream's first segments are answered by resets.
            third.send(to, 5999, BULK, 1)?;
            std::thread::sleep(Duration::from_millis(100));
            third.kill();
        }
        let mut third = d.guest(0, THIRD.0, THIRD.1, 0)?;
        let ping = third.ping(self.pairs[0][1].address(), 3, 20)?;
        self.third = Some(third);
        if ping.received == 3 { Ok(()) } else { Err(format!("the new guest: {ping:?}")) }
    }
}
