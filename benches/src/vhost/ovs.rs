//! Open vSwitch with vhost-user ports of DPDK: the same guests, the same frames, the same wire as memory.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use culvert_packet::Encap;

use super::traffic::Traffic;
use crate::ovs_dpdk::control::{self, Mode, SINK, SOURCE, Shape};
use crate::ovs_dpdk::daemon::{Daemon, number};
use crate::ovs_dpdk::tunnel::{address, ip, mac};
use crate::work::{self, Kind};

/// What the rules match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Rules {
    /// A rule for each destination MAC.
    Destinations,
    /// Stateful: connection tracking; packets of established and of new connections pass.
    Connections,
}

impl Rules {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Rules::Destinations => "destinations",
            Rules::Connections => "connections",
        }
    }

    /// The rules of the guests' bridge; `ports` are the ports of `a` and `b`.
    fn text(self, ports: [&str; 2]) -> String {
        // For the VMs of `bench vms`; guests of this process send no ARP.
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

/// Open vSwitch, with the ports of a case.
pub struct OvsSwitch {
    /// Its processes.
    pub daemon: Daemon,
    rules: Rules,
}

impl OvsSwitch {
    /// Starts it with its datapath on core `core`, with sockets in `dir` for this host's guests, and with further settings of the
    /// database's table.
    ///
    /// # Errors
    /// Something is missing or fails; the message says what.
    pub fn start(
        dir: &Path,
        source: &Path,
        core: usize,
        (traffic, rules): (Traffic, Rules),
        settings: &str,
    ) -> Result<Self, String> {
        let daemon = Daemon::start(dir, source, core, settings)?;
        let mut ovs = OvsSwitch { daemon, rules };
        ovs.set_shape(None)?;
        ovs.bridges(traffic)?;
        ovs.daemon.find_thread()?;
        Ok(ovs)
    }

    fn bridges(&self, traffic: Traffic) -> Result<(), String> {
        let mut text = "-- add-br inner -- set bridge inner datapath_type=netdev fail_mode=secure".to_owned();
        for (name, here) in [("a", traffic.sends()), ("b", traffic.receives())] {
            if here {
                text += &format!(" -- add-port inner {name} -- set Interface {name} type=dpdkvhostuser");
            }
        }
        if traffic != Traffic::GuestToGuest {
            // A port that only sends is not polled.
            let (device, more) =
                if traffic == Traffic::WireToGuest { (SOURCE, "") } else { (SINK, ",no-rx=1") };
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
        if traffic != Traffic::GuestToGuest {
            address(&self.daemon)?;
            let wire = if traffic == Traffic::WireToGuest {
                "in_port=wire,actions=LOCAL"
            } else {
                "in_port=LOCAL,actions=wire"
            };
            self.daemon.add_rules("outer", wire)?;
        }
        let place = |here: bool, name| if here { name } else { "tunnel" };
        let ports = [place(traffic.sends(), "a"), place(traffic.receives(), "b")];
        self.daemon.add_rules("inner", &self.rules.text(ports))
    }

    /// Sets the frames that the wire sends; none: no traffic.
    ///
    /// # Errors
    /// The control file cannot be written.
    pub fn set_shape(&self, shape: Option<Shape>) -> Result<(), String> {
        let kind = Kind { decap: true, encap: Encap::Vxlan };
        let silent = Shape { mode: Mode::Silent, kind, bytes: 64, flows: 1, pair: true };
        self.daemon.frames.set_shape(shape.unwrap_or(silent)).map_err(|e| format!("frame source: {e}"))
    }

    /// Flushes the connection table and clears the statistics.
    ///
    /// # Errors
    /// It does not answer.
    pub fn flush(&self) -> Result<(), String> {
        if self.rules == Rules::Connections {
            self.daemon.control(&["dpctl/flush-conntrack"])?;
        }
        self.clear_stats()
    }

    /// Clears the statistics.
    ///
    /// # Errors
    /// It does not answer.
    pub fn clear_stats(&self) -> Result<(), String> {
        self.daemon.control(&["dpif-netdev/pmd-stats-clear"]).map(drop)
    }

    /// Its own statistics since they were cleared: cycles per packet, and lookups that missed.
    ///
    /// # Errors
    /// It does not answer.
    pub fn own_stats(&self) -> Result<(f64, f64), String> {
        let stats = self.daemon.stats()?;
        let missed = number(&stats, "miss with success upcall") + number(&stats, "miss with failed upcall");
        let received = number(&stats, "packets received");
        Ok((number(&stats, "processing cycles") / received.max(1.0), missed))
    }

    /// Cycles per frame of the wire alone: the port with our library, and freeing.
    ///
    /// # Errors
    /// It does not answer.
    pub fn wire_alone(&self, shape: Shape, time: Duration) -> Result<f64, String> {
        let memory = self.daemon.frames.map().map_err(|e| format!("frame source: {e}"))?;
        memory.store_long(control::LIMIT, 0);
        self.set_shape(Some(Shape { mode: Mode::Alone, ..shape }))?;
        sleep(Duration::from_millis(30));
        let written = || self.daemon.frames.written().map_err(|e| format!("frame source: {e}"));
        let (frames, watch) = (written()?, self.daemon.watch()?);
        sleep(time);
        let (frames, (spent, ran)) = (written()? - frames, watch.read()?);
        self.set_shape(None)?;
        if frames == 0 { Err("no frames came from the wire".into()) } else { Ok(spent * ran / frames as f64) }
    }
}
