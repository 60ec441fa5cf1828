//! The Debian package: installed into a folder, and its daemon started as its unit says, by another user than root, behind the
//! unit's filter of system calls.
#![forbid(unsafe_code)]

mod filter;
mod unit;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use culvert_e2e::netns::{self, ip, run};
use culvert_e2e::wait::poll;
use serde_json::Value;
use tempfile::TempDir;

use crate::unit::Unit;

const LIMIT: Duration = Duration::from_secs(20);
/// Ids that belong to nobody: the daemon's user, and QEMU's group.
const DAEMON: u32 = 64_123;
const KVM: u32 = 64_125;

/// The package, installed into a folder.
struct Installed {
    folder: TempDir,
    /// The group of the operators, as the package made it.
    operators: u32,
}

/// Runs dpkg for a folder. The package's scripts do nothing outside it, and there is no C library in it to depend on.
fn dpkg(folder: &Path, action: &str, package: &Path) {
    let mut dpkg = Command::new("dpkg");
    dpkg.arg(format!("--root={}", folder.display())).args(["--log=/dev/null", "--force-depends"]);
    run(dpkg.args(["--force-script-chrootless", action]).arg(package)).unwrap();
}

impl Installed {
    fn new(package: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The daemon's user passes it.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        for file in ["status", "available"] {
            let database = folder.path().join("var/lib/dpkg");
            fs::create_dir_all(database.join("updates")).unwrap();
            fs::create_dir_all(database.join("info")).unwrap();
            fs::write(database.join(file), "").unwrap();
        }
        dpkg(folder.path(), "--install", package);
        let groups = fs::read_to_string(folder.path().join("etc/group")).unwrap();
        let line = groups.lines().find_map(|line| line.strip_prefix("culvert:")).expect("the group culvert");
        let operators = line.split(':').nth(1).unwrap().parse().unwrap();
        Installed { folder, operators }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// `culvert`, as a user of a group.
    fn culvert(&self, group: u32, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new("setpriv");
        let group = group.to_string();
        command.args(["--reuid", "64124", "--regid", "64124", "--groups", &group]);
        command.arg(self.path("usr/bin/culvert")).args(arguments);
        command.env("CULVERT_SOCKET", self.path("run/culvert/culvertd.sock"));
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }
}

/// The daemon as systemd starts it.
struct Daemon {
    child: Child,
    notified: UnixDatagram,
    received: String,
    log: PathBuf,
}

impl Daemon {
    /// Starts it with the folders that the unit asks for.
    fn start(installed: &Installed, unit: &Unit) -> Self {
        let (state, runtime) = (installed.path("var/lib/culvert"), installed.path("run/culvert"));
        let notify = installed.path("notify");
        for folder in [&state, &runtime] {
            fs::create_dir_all(folder).unwrap();
            std::os::unix::fs::chown(folder, Some(DAEMON), Some(DAEMON)).unwrap();
        }
        let _old = fs::remove_file(&notify);
        let notified = UnixDatagram::bind(&notify).unwrap();
        fs::set_permissions(&notify, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        notified.set_read_timeout(Some(LIMIT)).unwrap();
        let arguments = fs::read_to_string(installed.path("etc/default/culvertd")).unwrap();
        let arguments = arguments.lines().find_map(|line| line.strip_prefix("CULVERTD_ARGS=")).unwrap();
        let mut words: Vec<String> = unit.command().map(str::to_owned).collect();
        for word in &mut words {
            *word = word.replace("${STATE_DIRECTORY}", state.to_str().unwrap());
            *word = word.replace("${RUNTIME_DIRECTORY}", runtime.to_str().unwrap());
        }
        // The groups of the folder's system, by number: this one does not have them.
        for (option, group) in [("--socket-group", installed.operators), ("--vm-socket-group", KVM)] {
            let at = words.iter().position(|word| word == option).expect(option);
            words[at + 1] = group.to_string();
        }
        let program = installed.path(words[0].trim_start_matches('/'));
        let last = words.pop().unwrap();
        assert_eq!(last, "$CULVERTD_ARGS");
        words.extend(arguments.trim_matches('"').split(' ').map(str::to_owned));
        let capabilities =
            unit.words("AmbientCapabilities").map(|name| name.to_lowercase().replace("cap_", "+"));
        let capabilities: Vec<String> = std::iter::once("-all".to_owned()).chain(capabilities).collect();
        let (capabilities, user) = (capabilities.join(","), DAEMON.to_string());
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user, "--regid", &user, "--no-new-privs"]);
        command.args(["--groups", &format!("{},{KVM}", installed.operators)]);
        for set in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
            command.args([set, &capabilities]);
        }
        command.arg(program).args(&words[1..]);
        command.env("NOTIFY_SOCKET", &notify).env("WATCHDOG_USEC", "4000000");
        let log = installed.path("culvertd.log");
        let file = fs::File::options().create(true).append(true).open(&log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let child = filter::spawn_behind(unit, command);
        Daemon { child, notified, received: String::new(), log }
    }

    /// Waits until it has told the service manager `word`.
    fn wait_for(&mut self, word: &str) {
        let mut buffer = [0; 4096];
        let end = Instant::now() + LIMIT;
        while !self.received.contains(word) {
            let n = self.notified.recv(&mut buffer).unwrap_or(0);
            self.received += std::str::from_utf8(&buffer[..n]).unwrap();
            assert!(Instant::now() < end, "no {word}: {}\n{}", self.received, self.tail());
        }
    }

    fn tail(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Stops it by SIGTERM; it must say that all went well.
    fn stop(mut self) {
        run(Command::new("kill").arg(self.child.id().to_string())).unwrap();
        let ended = || Ok::<_, String>(self.child.try_wait().unwrap().is_some());
        assert_eq!(poll(LIMIT, Duration::from_millis(10), ended), Ok(true), "{}", self.tail());
        assert!(self.child.wait().unwrap().success(), "{}", self.tail());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn the_package_is_installed_and_its_daemon_forwards_as_its_unit_starts_it() {
    let Some(package) = std::env::var_os("CULVERT_PACKAGE") else {
        return culvert_skip::skip("CULVERT_PACKAGE names no package: `cargo xtask package` makes one");
    };
    if !rustix::process::getuid().is_root() {
        return culvert_skip::skip("only root installs packages");
    }
    netns::enter().unwrap();
    let installed = Installed::new(Path::new(&package));
    for file in [
        "usr/share/man/man8/culvertd.8.gz",
        "usr/share/man/man1/culvert-policy-apply.1.gz",
        "usr/share/bash-completion/completions/culvert",
        "usr/share/zsh/vendor-completions/_culvert",
        "usr/share/fish/vendor_completions.d/culvertd.fish",
        "usr/share/doc/culvert/examples/pair.json",
        "usr/lib/culvert/culvert-fw.bin",
    ] {
        assert!(installed.path(file).exists(), "{file}");
    }
    ip(&["link", "add", "up0", "mtu", "1600", "type", "veth", "peer", "name", "peer0", "mtu", "1600"])
        .unwrap();
    ip(&["addr", "add", "192.168.1.10/24", "dev", "up0"]).unwrap();
    ip(&["link", "set", "up0", "up"]).unwrap();
    ip(&["link", "set", "peer0", "up"]).unwrap();
    // The other host, which is not there.
    ip(&["neigh", "add", "192.168.1.20", "lladdr", "02:00:00:00:00:20", "dev", "up0"]).unwrap();
    let policy = installed.path("usr/share/doc/culvert/examples/pair.json");
    for (drop_in, options) in [(None, ""), (Some("af-xdp.conf"), " --driver af-xdp")] {
        let mut unit = Unit::read(&installed.path("usr/lib/systemd/system/culvertd.service"));
        if let Some(name) = drop_in {
            unit.extend(&installed.path("usr/share/doc/culvert/examples").join(name));
        }
        // What the administrator writes.
        let default = format!("CULVERTD_ARGS=\"--host host1 --uplink up0 --port vhost-user{options}\"\n");
        fs::write(installed.path("etc/default/culvertd"), default).unwrap();
        let mut daemon = Daemon::start(&installed, &unit);
        daemon.wait_for("READY=1");
        let (code, text) =
            installed.culvert(installed.operators, &["policy", "apply", policy.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{text}\n{}", daemon.tail());
        daemon.wait_for("STATUS=forwarding by policy version");
        daemon.wait_for("WATCHDOG=1");
        let (code, text) = installed.culvert(installed.operators, &["health"]);
        assert_eq!(code, Some(0), "{text}\n{}", daemon.tail());
        let (code, text) = installed.culvert(64_124, &["health"]);
        assert!(code == Some(3) && text.contains("member of the socket's group"), "{code:?} {text}");
        let (_, text) = installed.culvert(installed.operators, &["vport", "list", "--json"]);
        let vports: Value = serde_json::from_str(&text).unwrap();
        let socket = vports[0]["attachment"].as_str().unwrap().strip_prefix("vhost-user:").expect("a socket");
        let there = || Ok::<_, String>(fs::metadata(socket).is_ok_and(|file| file.gid() == KVM));
        assert_eq!(poll(LIMIT, Duration::from_millis(20), there), Ok(true), "{}", daemon.tail());
        assert_eq!(fs::metadata(socket).unwrap().mode() & 0o777, 0o660, "QEMU's group may open it");
        assert!(!daemon.tail().contains("ERROR"), "{}", daemon.tail());
        daemon.stop();
    }
    assert!(installed.path("var/lib/culvert/culvertd.redb").exists());
    dpkg(installed.folder.path(), "--purge", Path::new("culvert"));
    for gone in ["var/lib/culvert", "etc/default/culvertd", "usr/bin/culvertd"] {
        assert!(!installed.path(gone).exists(), "{gone}");
    }
}
