//! The Linux guest without a NIC: it boots, obeys its console, reboots and powers off.
#![forbid(unsafe_code)]

use std::time::Duration;

use culvert_e2e::linux_guest::{Finished, LinuxGuest, LinuxGuestConfig};

/// A boot takes about four seconds on an idle machine without hardware virtualisation.
const BOOT: Duration = Duration::from_secs(90);
const COMMAND: Duration = Duration::from_secs(30);

#[test]
fn boots_runs_commands_reboots_and_powers_off() {
    let folder = LinuxGuest::folder().unwrap();
    let logs = tempfile::tempdir().unwrap();
    let config = LinuxGuestConfig { name: "vm", vfs: &[], ip: "10.1.1.11/24", gateway: None };
    let mut guest = LinuxGuest::start(&folder, &config, &logs.path().join("console.log")).unwrap();

    let up = guest.wait_up(BOOT).unwrap();
    assert!(up.kernel.ends_with("-cloud-amd64"), "{up:?}");
    assert_eq!(up.nic, None);

    let finished = guest.run("echo one; echo two >&2; exit 3", COMMAND).unwrap();
    assert_eq!(finished, Finished { status: 3, text: "one\ntwo\n".to_owned() });
    let modules = guest.run("lsmod", COMMAND).unwrap();
    assert!(modules.text.contains("virtio_net"), "{modules:?}");
    assert_eq!(guest.run("touch /tmp/mark", COMMAND).unwrap().status, 0);

    assert_eq!(guest.reboot(BOOT).unwrap(), up);
    assert_eq!(guest.run("test -e /tmp/mark", COMMAND).unwrap().status, 1, "the file outlived the reboot");
    guest.power_off(COMMAND).unwrap();
}
