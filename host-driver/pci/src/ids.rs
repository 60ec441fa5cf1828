//! Names of PCI vendors and devices.

use pci_ids::FromId;

/// The vendor's and device's names in the PCI ID database; numbers where the database has no name.
#[must_use]
pub fn name_of(vendor: u16, device: u16) -> String {
    let vendor_name = pci_ids::Vendor::from_id(vendor).map(pci_ids::Vendor::name);
    let device_name = pci_ids::Device::from_vid_pid(vendor, device).map(pci_ids::Device::name);
    match (vendor_name, device_name) {
        (Some(v), Some(d)) => format!("{v} {d}"),
        (Some(v), None) => format!("{v} device {device:04x}"),
        (None, _) => format!("device {vendor:04x}:{device:04x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn known_and_unknown_devices_have_a_name() {
        assert_eq!(name_of(0x1af4, 0x1041), "Red Hat, Inc. Virtio 1.0 network device");
        assert_eq!(name_of(0x8086, 0xfffe), "Intel Corporation device fffe");
        assert_eq!(name_of(0xfff7, 1), "device fff7:0001");
    }
}
