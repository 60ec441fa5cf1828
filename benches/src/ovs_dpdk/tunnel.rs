//! Open vSwitch with two bridges and a tunnel between them, and frames of our library.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use culvert_packet::Encap;

use super::control::{Mode, SINK, SOURCE, Shape};
use super::daemon::{Daemon, LIMIT, number};
use super::frame;
use super::rules::Rules;
use crate::work::{self, Kind};

/// Open vSwitch, configured for one kind of work.
pub struct TunnelSwitch {
    daemon: Daemon,
    kind: Kind,
    rules: Rules,
}

/// A measurement of the datapath.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Cycles per frame of the datapath's thread, by our clock and our count.
    pub cycles: f64,
    /// The fraction of the time in which the thread ran. Time in which another thread had its core is not counted.
    pub ran: f64,
    /// Cycles per packet, by Open vSwitch's own statistics.
    pub own: f64,
    /// Fractions of lookups that the exact-match cache and the megaflows answered.
    pub hits: [f64; 2],
}

impl TunnelSwitch {
    /// Starts it with its files in `dir`, its datapath on core `core`, and `source` as the library that generates frames.
    ///
    /// # Errors
    /// Something is missing or fails; the message says what, and the remedy.
    pub fn start(
        dir: &Path,
        source: &Path,
        core: usize,
        smc: bool,
        (kind, rules): (Kind, Rules),
    ) -> Result<Self, String> {
        let daemon = Daemon::start(dir, source, core, &format!("other_config:smc-enable={smc}"))?;
        let mut ovs = TunnelSwitch { daemon, kind, rules };
        ovs.set_shape(Mode::Silent, 64, 1)?;
        ovs.bridges()?;
        ovs.daemon.add_rules("inner", &ovs.rules.text(kind))?;
        ovs.daemon.find_thread()?;
        Ok(ovs)
    }

    /// Adds two bridges: `inner` with the guests' side and the tunnel, `outer` with the wire and the tunnel's address.
    fn bridges(&self) -> Result<(), String> {
        let (source, sink) = if self.kind.decap { ("outer", "inner") } else { ("inner", "outer") };
        let (kind, key) = match self.kind.encap {
            Encap::Vxlan => ("vxlan", work::VSID),
            // NVGRE is GRE with the VSID in the key's upper bits. To Open vSwitch the FlowID in the lower bits is part of the key.
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

    fn set_shape(&self, mode: Mode, bytes: u16, flows: u32) -> Result<(), String> {
        let shape = Shape { mode, kind: self.kind, bytes, flows, pair: false };
        self.daemon.frames.set_shape(shape).map_err(|e| format!("frame source: {e}"))
    }

    /// Sends these flows until none misses any more.
    ///
    /// # Errors
    /// Some still miss, or packets are dropped.
    pub fn learn(&self, bytes: u16, flows: u32) -> Result<(), String> {
        self.daemon.resume();
        self.set_shape(Mode::Silent, bytes, flows)?;
        if self.rules == Rules::Connections {
            self.daemon.control(&["dpctl/flush-conntrack"])?;
        }
        self.set_shape(Mode::Given, bytes, flows)?;
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

    /// Checks that each packet leaves through the sink, by the tunnel's action, with the right bytes.
    fn forwards(&self, bytes: u16, flows: u32) -> Result<(), String> {
        self.set_shape(Mode::Silent, bytes, flows)?;
        sleep(Duration::from_millis(20));
        let before = self.daemon.sent("sink")?;
        self.daemon.control(&["dpif-netdev/pmd-stats-clear"])?;
        let failed = |e| format!("frame source: {e}");
        self.daemon.frames.request_frame().map_err(failed)?;
        self.set_shape(Mode::Given, bytes, flows)?;
        sleep(Duration::from_millis(50));
        self.set_shape(Mode::Silent, bytes, flows)?;
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

    /// Measures for `time`: the datapath, or the frame source alone.
    ///
    /// # Errors
    /// It does not answer, or a packet was lost.
    pub fn window(&self, bytes: u16, flows: u32, time: Duration, alone: bool) -> Result<Window, String> {
        self.daemon.resume();
        self.set_shape(if alone { Mode::Alone } else { Mode::Given }, bytes, flows)?;
        // Warm the caches first.
        sleep(Duration::from_millis(30));
        self.daemon.control(&["dpif-netdev/pmd-stats-clear"])?;
        let written = || self.daemon.frames.written().map_err(|e| format!("frame source: {e}"));
        let (frames, watch) = (written()?, self.daemon.watch()?);
        sleep(time);
        let (frames, (spent, ran)) = (written()? - frames, watch.read()?);
        let stats = self.daemon.stats()?;
        self.daemon.pause();
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

/// Gives the outer bridge the tunnel's address, in the switch's network namespace, and the MAC of the remote VTEP.
///
/// # Errors
/// What was refused.
pub fn address(daemon: &Daemon) -> Result<(), String> {
    daemon.ip(&format!("addr add {}/16 dev outer", ip(work::LOCAL)))?;
    daemon.ip("link set outer up")?;
    daemon.control(&["tnl/arp/set", "outer", &ip(work::REMOTE), &mac(work::REMOTE_MAC)]).map(drop)
}

/// A MAC address as text.
pub fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|b| format!("{b:02x}")).join(":")
}

/// An IPv4 address as text.
pub fn ip(bytes: [u8; 4]) -> String {
    bytes.map(|b| b.to_string()).join(".")
}
