//! Rules about files: no absolute paths, unsafe code only where it is named.

use std::fs;
use std::path::Path;

use crate::failure::{Context, Result};
use crate::workspace::Workspace;

/// Files and folders that may hold unsafe code; every other crate forbids it, every other file of these crates has none.
const UNSAFE: &[&str] = &[
    // The carry-less product of the flow hash.
    "dataplane/flow/src/clmul.rs",
    // The processor's prefetch instruction.
    "dataplane/packet/src/prefetch.rs",
    // Memory files shared with guests, and the SIGBUS handler for files that shrink.
    "dataplane/virtio/src/memory/mapped_file.rs",
    "dataplane/virtio/src/memory/sigbus.rs",
    // Linux AIO, by which eventfds are signalled without a write.
    "dataplane/virtio/src/signal/context.rs",
    // Memory shared with the firmware.
    "hdl-model/soc/src",
    // The packet ring that the kernel shares, and requests to the kernel about a TAP.
    "hdl-model/wire/src/af_packet.rs",
    "hdl-model/wire/src/tap.rs",
    // Mapped BARs, DMA memory and the calls that vfio-ioctls lacks.
    "host-driver/pci/src/linux_vfio/function.rs",
    "host-driver/pci/src/mapped.rs",
    "host-driver/pci/src/memory.rs",
    // The mapped words of the connection store.
    // The packet ring and the requests that rustix lacks; in its tests, a thread's network namespace and a socket's option.
    "host-driver/ports/src/sys",
    "host-driver/ports/tests/ports/namespace.rs",
    "host-driver/ports/tests/ports/streams.rs",
    // bpf(2), and the memory that XDP sockets share with the kernel.
    "host-driver/ports/src/xdp/bpf.rs",
    "host-driver/ports/src/xdp/umem.rs",
    "host-driver/ports/src/xdp/xsk_rings.rs",
    // Registers, traps and the SoC's RAM.
    "nic-firmware/image/src",
    // Calls between fork and exec, and namespaces.
    "tests/e2e/src/netns.rs",
    "tests/e2e/src/process.rs",
    // libFuzzer's entry points: its macro makes functions without mangled names.
    "tests/fuzz/fuzz_targets",
    // The processor's cycle counter, and an allocator that counts.
    "benches/src/allocations.rs",
    "benches/src/clock.rs",
    // The memory of the benchmark's own guests.
    "benches/src/shared_memory.rs",
    // The DPDK buffers of Open vSwitch that frames are written to.
    "benches/examples/ovs_frames.rs",
];

/// Prefixes of paths that exist on one machine only.
const PRIVATE_PATHS: &[&str] = &["home/", "root/", "Users/", "work/", "mnt/"];

pub(super) fn check(workspace: &Workspace) -> Result<()> {
    let mut problems = Vec::new();
    let mut lines = 0;
    for file in workspace.files()? {
        let path = workspace.root.join(&file);
        // Captures and other binary files are not text to be checked.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let name = file.display().to_string();
        problems
            .extend(absolute_paths(&text).map(|(line, path)| format!("{name}:{line}: absolute path {path}")));
        if file.extension().is_some_and(|extension| extension == "rs") {
            lines += text.lines().count();
            if uses_unsafe(&text) && !may_be_unsafe(&file) {
                problems
                    .push(format!("{name}: unsafe code outside the files listed in xtask/src/ci/sources.rs"));
            }
        }
    }
    let gone = UNSAFE.iter().filter(|path| !workspace.root.join(path).exists());
    problems.extend(gone.map(|path| format!("{path} is not there: take it out of xtask/src/ci/sources.rs")));
    problems.extend(crates_without_forbid(workspace)?);
    for problem in &problems {
        eprintln!("{problem}");
    }
    println!("{lines} lines of Rust checked");
    if problems.is_empty() {
        Ok(())
    } else {
        Err(format!("{} problems in the sources", problems.len()).into())
    }
}

/// Lines with a path of one machine, and the path.
pub(super) fn absolute_paths(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().flat_map(|(index, line)| {
        line.match_indices('/').filter_map(move |(at, _)| {
            let before = line[..at].chars().next_back();
            let starts = before.is_none_or(|c| c.is_whitespace() || "\"'`(=:<,[".contains(c));
            let rest = &line[at + 1..];
            // `://` is a URL's, and a doubled slash a comment's.
            if !starts || !PRIVATE_PATHS.iter().any(|prefix| rest.starts_with(prefix)) {
                return None;
            }
            let end = rest.find(|c: char| c.is_whitespace() || "\"'`)>,]".contains(c)).unwrap_or(rest.len());
            Some((index + 1, &line[at..at + 1 + end]))
        })
    })
}

/// Whether the code (not its comments) has an unsafe block, function, impl or attribute.
pub(super) fn uses_unsafe(text: &str) -> bool {
    text.lines().any(|line| {
        // String literals that hold the word are the text of a check or a test.
        let code = line.split("//").next().unwrap_or_default();
        let quoted = |at: usize| code[..at].matches('"').count() % 2 == 1;
        ["unsafe {", "unsafe fn ", "unsafe impl ", "unsafe extern ", "unsafe("].iter().any(|word| {
            code.match_indices(word).any(|(at, _)| {
                !quoted(at) && !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
            })
        })
    })
}

fn may_be_unsafe(file: &Path) -> bool {
    UNSAFE.iter().any(|allowed| file.starts_with(allowed))
}

/// Crate roots that neither forbid unsafe code nor belong to a crate with a place in the list.
fn crates_without_forbid(workspace: &Workspace) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let packages = workspace.metadata["packages"].as_array().cloned().unwrap_or_default();
    for target in
        packages.iter().flat_map(|package| package["targets"].as_array().cloned().unwrap_or_default())
    {
        let kind = target["kind"][0].as_str().unwrap_or_default();
        if !["lib", "bin"].contains(&kind) {
            continue;
        }
        let path = Path::new(target["src_path"].as_str().unwrap_or_default());
        let file = path.strip_prefix(&workspace.root).unwrap_or(path);
        let folder = file.parent().unwrap_or(file);
        let source = fs::read_to_string(path).context(|| format!("cannot read {}", path.display()))?;
        // A binary beside a library with such a file has a root of its own.
        let listed = UNSAFE.iter().any(|allowed| {
            let allowed = Path::new(allowed);
            if kind == "lib" {
                allowed.starts_with(folder)
            } else {
                allowed == file || folder.starts_with(allowed)
            }
        });
        if !listed && !source.contains("#![forbid(unsafe_code)]") {
            problems.push(format!(
                "{}: a crate without unsafe code says #![forbid(unsafe_code)]",
                file.display()
            ));
        }
    }
    Ok(problems)
}
