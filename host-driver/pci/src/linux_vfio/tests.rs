//! Tests that need no `/dev/vfio`: addresses, error messages with their remedies, and VFs in sysfs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::Function;
use super::sysfs::Sysfs;
use crate::Error;
use crate::address::{FunctionAddress, full_address};

const BDF: &str = "0000:03:00.0";

/// Creates the function's directory under a sysfs of the test.
fn device(root: &Path) -> std::path::PathBuf {
    let dir = root.join("bus/pci/devices").join(BDF);
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn problem(root: &Path) -> String {
    match Function::open_under(BDF, root, &root.join("dev")) {
        Ok(_) => panic!("opened a function that does not exist"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn addresses_are_completed_or_refused() {
    assert_eq!(full_address("03:00.0").as_deref(), Some(BDF));
    assert_eq!(full_address("0001:AF:1f.7").as_deref(), Some("0001:af:1f.7"));
    for wrong in ["", "03:00", "03:00.8", "3:00.0", "0000:03:00.0:1", "03:00.0/..", "../../etc", "gg:00.0"] {
        assert_eq!(full_address(wrong), None, "{wrong}");
    }
}

#[test]
fn each_missing_piece_is_named_with_its_remedy() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    assert!(problem(root).contains("no such PCI function"));
    let dir = device(root);
    assert!(problem(root).contains("intel_iommu=on"));
    symlink("../../../kernel/iommu_groups/7", dir.join("iommu_group")).unwrap();
    assert!(problem(root).contains("bound to no driver"));
    symlink("../../../bus/pci/drivers/igb", dir.join("driver")).unwrap();
    assert!(problem(root).contains("bound to igb, not to vfio-pci"));
    fs::remove_file(dir.join("driver")).unwrap();
    symlink("../../../bus/pci/drivers/vfio-pci", dir.join("driver")).unwrap();
    let text = problem(root);
    assert!(text.contains("dev/vfio/vfio") && text.contains("load the module vfio-pci"), "{text}");
}

#[test]
fn vfs_are_enabled_and_found_through_sysfs() {
    let root = tempfile::tempdir().unwrap();
    let dir = device(root.path());
    let sysfs = Sysfs::new(BDF, root.path(), root.path()).unwrap();
    assert!(matches!(sysfs.set_num_vfs(1), Err(Error::Missing { .. })), "no SR-IOV");
    fs::write(dir.join("sriov_totalvfs"), "7\n").unwrap();
    fs::write(dir.join("sriov_numvfs"), "0\n").unwrap();
    assert!(matches!(sysfs.set_num_vfs(8), Err(Error::TooManyVfs { total: 7, .. })));
    symlink("../0000:03:10.0", dir.join("virtfn0")).unwrap();
    symlink("../0000:03:10.2", dir.join("virtfn1")).unwrap();
    let vfs = sysfs.set_num_vfs(2).unwrap();
    assert_eq!(vfs[1].address, FunctionAddress::Pci("0000:03:10.2".into()));
    assert_eq!(fs::read_to_string(dir.join("sriov_numvfs")).unwrap(), "2");
    assert_eq!(sysfs.set_num_vfs(0).unwrap(), []);
    assert_eq!(fs::read_to_string(dir.join("sriov_numvfs")).unwrap(), "0");
}
