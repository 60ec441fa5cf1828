//! Open vSwitch with vhost-user ports of DPDK: the same guests, the same frames, the same wire as memory.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use culvert_packet::Encap;

use super::Way;
use crate::peers::control::{self, Mode, SINK, SOURCE, Shape};
use crate::peers::daemon::{Daemon, number};
use crate::peers::ovs::{address, ip, mac};
use crate::work::{self, Kind};

/// How much it looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Rules {
    /// A rule for each destination MAC.
    Destinations,
    /// Stateful: connections are tracked, and only packets of known ones or new ones pass.
    Connections,
}

impl Rules {
    /// For a table.
    pub fn name(self) -> &'static str {
        match self {
            Rules::Destinations => "destinations",
            Rules::Connections => "connections",
        }
    }

    /// The rules of the bridge with the guests; `ports` are where each one is.
    fn text(self, ports: [&str; 2]) -> String {
        // VMs ask for each other; the frames of the other guests are never ARP's.
        let mut text = "table=0,priority=40000,arp,actions=NORMAL\n".to_owned();
        let (table, state) = match self {
            Rules::Destinations => (0, ""),
            Rules::Connections => {
                text += "table=0,ip,ct_state=-trk,actions=ct(table=1)\n";
                (1, ",ip,ct_state=+trk+est")
            }
        };
        for (port, to) in ports.into_iter().zip(work::MACS.map(mac)) {
            text += &format!("table={table}{state},dl_dst={to},actions=output:{port}\n");
            if self == Rules::Connections {
                text +=
                    &format!("table=1,ip,ct_state=+trk+new,dl_dst={to},actions=ct(commit),output:{port}\n");
            }
        }
        text
    }
}

/// The switch, with the ports of a case.
pub struct Theirs {
    /// Its processes.
    pub daemon: Daemon,
    rules: Rules,
}

impl Theirs {
    /// Starts it with its data path on core `core`, with sockets in `dir` for the guests that are on this host, and with settings
    /// beside its defaults.
    ///
    /// # Errors
    /// Something is missing or fails; the message says what.
    pub fn start(
        dir: &Path,
        source: &Path,
        core: usize,
        (way, rules): (Way, Rules),
        settings: &str,
    ) -> Result<Self, String> {
        let daemon = Daemon::start(dir, source, core, settings)?;
        let mut theirs = Theirs { daemon, rules };
        theirs.tell(None)?;
        theirs.bridges(way)?;
        theirs.daemon.find_thread()?;
        Ok(theirs)
    }

    fn bridges(&self, way: Way) -> Result<(), String> {
        let mut text = "-- add-br inner -- set bridge inner datapath_type=netdev fail_mode=secure".to_owned();
        for (name, here) in [("a", way.sends()), ("b", way.receives())] {
            if here {
                text += &format!(" -- add-port inner {name} -- set Interface {name} type=dpdkvhostuser");
            }
        }
        if way != Way::Guests {
            // Only what comes in is polled for.
            let (device, more) = if way == Way::In { (SOURCE, "") } else { (SINK, ",no-rx=1") };
            text += &format!(
                " -- add-br outer -- set bridge outer datapath_type=netdev fail_mode=secure \
                 other-config:hwaddr={} \
                 -- add-port outer wire -- set Interface wire type=dpdk options:dpdk-devargs={device}{more} mtu_request=1600 \
                 -- add-port inner tunnel -- set Interface tunnel type=vxlan options:remote_ip={} options:key={}",
                mac(work::WIRE_MAC),
                ip(work::REMOTE),
                work::VSID,
            );
        }
        self.daemon.configure(&text)?;
        if way != Way::Guests {
            address(&self.daemon)?;
            let wire =
                if way == Way::In { "in_port=wire,actions=LOCAL" } else { "in_port=LOCAL,actions=wire" };
            self.daemon.add_rules("outer", wire)?;
        }
        let place = |here: bool, name| if here { name } else { "tunnel" };
        let ports = [place(way.sends(), "a"), place(way.receives(), "b")];
        self.daemon.add_rules("inner", &self.rules.text(ports))
    }

    /// Has frames come from the wire, or none.
    ///
    /// # Errors
    /// The library cannot be told.
    pub fn tell(&self, shape: Option<Shape>) -> Result<(), String> {
        let kind = Kind { decap: true, encap: Encap::Vxlan };
        let silent = Shape { mode: Mode::Silent, kind, bytes: 64, flows: 1, pair: true };
        self.daemon.frames.tell(shape.unwrap_or(silent)).map_err(|e| format!("frame source: {e}"))
    }

    /// Forgets what it knows of connections, and begins to count.
    ///
    /// # Errors
    /// It does not answer.
    pub fn forget(&self) -> Result<(), String> {
        if self.rules == Rules::Connections {
            self.daemon.control(&["dpctl/flush-conntrack"])?;
        }
        self.clear()
    }

    /// Begins to count.
    ///
    /// # Errors
    /// It does not answer.
    pub fn clear(&self) -> Result<(), String> {
        self.daemon.control(&["dpif-netdev/pmd-stats-clear"]).map(drop)
    }

    /// Cycles per packet of processing by its own clock and count since it began to count, and look-ups that missed.
    ///
    /// # Errors
    /// It does not answer.
    pub fn own(&self) -> Result<(f64, f64), String> {
        let stats = self.daemon.stats()?;
        let missed = number(&stats, "miss with success upcall") + number(&stats, "miss with failed upcall");
        let received = number(&stats, "packets received");
        Ok((number(&stats, "processing cycles") / received.max(1.0), missed))
    }

    /// Cycles that a frame from the wire costs alone: the port, our library in it, and freeing.
    ///
    /// # Errors
    /// It does not answer.
    pub fn alone(&self, shape: Shape, time: Duration) -> Result<f64, String> {
        let memory = self.daemon.frames.map().map_err(|e| format!("frame source: {e}"))?;
        memory.store_long(control::LIMIT, 0);
        self.tell(Some(Shape { mode: Mode::Alone, ..shape }))?;
        sleep(Duration::from_millis(30));
        let written = || self.daemon.frames.written().map_err(|e| format!("frame source: {e}"));
        let (frames, watch) = (written()?, self.daemon.watch()?);
        sleep(time);
        let (frames, (spent, ran)) = (written()? - frames, watch.read()?);
        self.tell(None)?;
        if frames == 0 { Err("no frames came from the wire".into()) } else { Ok(spent * ran / frames as f64) }
    }
}
