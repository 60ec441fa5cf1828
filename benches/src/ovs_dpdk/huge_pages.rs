//! Huge pages for DPDK.

use std::fs;

/// The kernel's number of huge pages of 2 MiB.
const PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
/// The number of unused ones.
const FREE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";

/// Reserved huge pages of 2 MiB. The kernel's earlier number is restored when this is dropped.
#[derive(Debug)]
pub struct HugePages(Option<u64>);

impl HugePages {
    /// Reserves pages until `wanted` are free.
    ///
    /// # Errors
    /// The kernel has none, or this is not root.
    pub fn reserve(wanted: u64) -> Result<Self, String> {
        let (all, free) = (read(PAGES)?, read(FREE)?);
        if free >= wanted {
            return Ok(HugePages(None));
        }
        fs::write(PAGES, (all + wanted - free).to_string())
            .map_err(|e| format!("{PAGES}: {e}; DPDK needs {wanted} huge pages: run this as root"))?;
        let pages = HugePages(Some(all));
        if read(FREE)? < wanted {
            // Memory is fragmented. If compaction does not help, the check below fails.
            let _joined = fs::write("/proc/sys/vm/compact_memory", "1");
            let _once_more = fs::write(PAGES, (all + wanted - free).to_string());
        }
        match read(FREE)? {
            free if free >= wanted => Ok(pages),
            free => Err(format!("{wanted} huge pages of 2 MiB are needed, the kernel found {free}")),
        }
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if let Some(Err(e)) = self.0.map(|before| fs::write(PAGES, before.to_string())) {
            eprintln!("{PAGES}: {e}");
        }
    }
}

fn read(path: &str) -> Result<u64, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{path}: {e}; this kernel has no such pages"))?;
    text.trim().parse().map_err(|e| format!("{path}: {e}"))
}
