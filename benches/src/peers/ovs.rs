//! An Open vSwitch with two bridges and a tunnel between them, fed by our own library.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use culvert_packet::Encap;

use super::control::{Mode, SINK, SOURCE, Shape};
use super::daemon::{Daemon, LIMIT, number};
use super::frame;
use super::rules::Rules;
use crate::work::{self, Kind};

/// The switch, set up for one kind of work.
pub struct Ovs {
    daemon: Daemon,
    kind: Kind,
    rules: Rules,
}

/// What a window of time showed of the data path.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Cycles per frame of the data path's thread, by our own clock and count.
    pub cycles: f64,
    /// The part of the time in which the thread ran: the others, when something else had its core, are not counted.
    pub ran: f64,
    /// Cycles per packet of processing, by its own clock and count.
    pub own: f64,
    /// Its look-ups by where they ended, as a part of all packets' passes: exact-match cache, megaflows.
    pub hits: [f64; 2],
}

impl Ovs {
    /// Starts it, with everything that it writes in `dir`, its data path on core `core`, and `source` as the library
    /// that makes frames.
    ///
    /// # Errors
    /// Something is missing or fails; the message says what, and what to do.
    pub fn start(
        dir: &Path,
        source: &Path,
        core: usize,
        smc: bool,
        (kind, rules): (Kind, Rules),
    ) -> Result<Self, String> {
        let daemon = Daemon::start(dir, source, core, &format!("other_config:smc-enable={smc}"))?;
        let mut ovs = Ovs { daemon, kind, rules };
        ovs.tell(Mode::Silent, 64, 1)?;
        ovs.bridges()?;
        ovs.daemon.add_rules("inner", &ovs.rules.text(kind))?;
        ovs.daemon.find_thread()?;
        Ok(ovs)
    }

    /// Two bridges: `inner` with the guests' side and the tunnel, `outer` with the wire and the tunnel's address.
    fn bridges(&self) -> Result<(), String> {
        let (source, sink) = if self.kind.decap { ("outer", "inner") } else { ("inner", "outer") };
        let (kind, key) = match self.kind.encap {
            Encap::Vxlan => ("vxlan", work::VSID),
            // NVGRE is GRE with the VSID in the key's upper bits. To Open vSwitch the FlowID below is a part of the key.
            Encap::Nvgre => ("gre", work::VSID << 8 | u32::from(work::FLOW_ID)),
        };
        let text = format!(
            "-- add-br inner -- set bridge inner datapath_type=netdev fail_mode=secure \
             -- add-br outer -- set bridge outer datapath_type=netdev fail_mode=secure \
             other-config:hwaddr={} \
             -- add-port {source} source -- set Interface source type=dpdk options:dpdk-devargs={SOURCE} mtu_request=1600 \
             -- add-port {sink} sink -- set Interface sink type=dpdk options:dpdk-devargs={SINK},no-rx=1 mtu_request=1600 \
             -- add-port inner tunnel -- set Interface tunnel type={kind} options:remote_ip={} options:key={key}",
            mac(work::WIRE_MAC),
            ip(work::REMOTE),
        );
        self.daemon.configure(&text)?;
        address(&self.daemon)?;
        let wire =
            if self.kind.decap { "in_port=source,actions=LOCAL" } else { "in_port=LOCAL,actions=sink" };
        self.daemon.add_rules("outer", wire)
    }

    fn tell(&self, mode: Mode, bytes: u16, flows: u32) -> Result<(), String> {
        let shape = Shape { mode, kind: self.kind, bytes, flows, pair: false };
        self.daemon.frames.tell(shape).map_err(|e| format!("frame source: {e}"))
    }

    /// Gives it these flows until it knows all of them.
    ///
    /// # Errors
    /// It does not come to know them, or drops packets.
    pub fn learn(&self, bytes: u16, flows: u32) -> Result<(), String> {
        self.daemon.go_on();
        self.tell(Mode::Silent, bytes, flows)?;
        if self.rules == Rules::Connections {
            self.daemon.control(&["dpctl/flush-conntrack"])?;
        }
        self.tell(Mode::Given, bytes, flows)?;
        let end = Instant::now() + LIMIT;
        let mut state = String::new();
        while Instant::now() < end {
            self.daemon.control(&["dpif-netdev/pmd-stats-clear"])?;
            sleep(Duration::from_millis(200));
            let stats = self.daemon.stats()?;
            let missed =
                number(&stats, "miss with success upcall") + number(&stats, "miss with failed upcall");
            let connections = self.daemon.control(&["dpctl/ct-get-nconns"])?;
            let connections: f64 = connections.trim().parse().unwrap_or(0.0);
            let known = self.rules != Rules::Connections || connections >= 0.998 * f64::from(flows);
            state = format!("{connections} connections, {missed} misses in 0.2 s");
            if known && missed == 0.0 && number(&stats, "packets received") > 0.0 {
                return self.forwards(bytes, flows);
            }
        }
        Err(format!("Open vSwitch did not learn {flows} flows within {} s: {state}", LIMIT.as_secs()))
    }

    /// Whether each packet leaves through the sink, by the tunnel's action, and as it should.
    fn forwards(&self, bytes: u16, flows: u32) -> Result<(), String> {
        self.tell(Mode::Silent, bytes, flows)?;
        sleep(Duration::from_millis(20));
        let before = self.daemon.sent("sink")?;
        self.daemon.control(&["dpif-netdev/pmd-stats-clear"])?;
        let failed = |e| format!("frame source: {e}");
        self.daemon.frames.ask().map_err(failed)?;
        self.tell(Mode::Given, bytes, flows)?;
        sleep(Duration::from_millis(50));
        self.tell(Mode::Silent, bytes, flows)?;
        sleep(Duration::from_millis(20));
        let (sent, received) =
            (self.daemon.sent("sink")? - before, number(&self.daemon.stats()?, "packets received"));
        let dump = self.daemon.control(&["dpctl/dump-flows"])?;
        let acts = dump.contains(if self.kind.decap { "tnl_pop" } else { "tnl_push" });
        if acts && received > 0.0 && sent >= 0.999 * received {
            return frame::check(self.kind, bytes.into(), &self.daemon.frames.taken().map_err(failed)?);
        }
        let dump: Vec<_> = dump.lines().take(10).collect();
        let dump = dump.join("\n");
        Err(format!("Open vSwitch forwards {sent} packets of {received}; its first flows:\n{dump}"))
    }

    /// Measures for `time`, with the path or the frames alone.
    ///
    /// # Errors
    /// It does not answer, or a packet was lost.
    pub fn window(&self, bytes: u16, flows: u32, time: Duration, alone: bool) -> Result<Window, String> {
        self.daemon.go_on();
        self.tell(if alone { Mode::Alone } else { Mode::Given }, bytes, flows)?;
        // What was in the caches of the core before, ours or the other mode's, is not counted.
        sleep(Duration::from_millis(30));
        self.daemon.control(&["dpif-netdev/pmd-stats-clear"])?;
        let written = || self.daemon.frames.written().map_err(|e| format!("frame source: {e}"));
        let (frames, watch) = (written()?, self.daemon.watch()?);
        sleep(time);
        let (frames, (spent, ran)) = (written()? - frames, watch.read()?);
        let stats = self.daemon.stats()?;
        self.daemon.hold();
        let received = number(&stats, "packets received");
        if frames == 0 || (received == 0.0) != alone {
            return Err(format!("{frames} frames were written, Open vSwitch received {received}"));
        }
        let lost = number(&stats, "miss with failed upcall");
        if lost > 0.0 {
            return Err(format!("Open vSwitch lost {lost} packets: too many flows for its table"));
        }
        let passes = received + number(&stats, "packet recirculations");
        let hits = ["emc hits", "megaflow hits"].map(|name| number(&stats, name) / passes.max(1.0));
        let own = number(&stats, "processing cycles") / received.max(1.0);
        Ok(Window { cycles: ran * spent / frames as f64, ran, own, hits })
    }
}

/// Gives the outer bridge the tunnel's address, which lies in the switch's own network namespace, and the way to the peer.
///
/// # Errors
/// What was refused.
pub fn address(daemon: &Daemon) -> Result<(), String> {
    daemon.ip(&format!("addr add {}/16 dev outer", ip(work::LOCAL)))?;
    daemon.ip("link set outer up")?;
    daemon.control(&["tnl/arp/set", "outer", &ip(work::REMOTE), &mac(work::REMOTE_MAC)]).map(drop)
}

/// As it is written.
pub fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|b| format!("{b:02x}")).join(":")
}

/// As it is written.
pub fn ip(bytes: [u8; 4]) -> String {
    bytes.map(|b| b.to_string()).join(".")
}
