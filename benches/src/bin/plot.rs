//! SVG pictures of the results of `switch` and `ovs_dpdk` with `--json`.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use culvert_benches::plot::{draw as draw_svg, of_ovs_dpdk, of_switch};

/// Draws results of benchmarks.
#[derive(Parser)]
struct Args {
    /// Output of `switch` or `ovs_dpdk` with `--json`.
    #[arg(long, required = true)]
    from: Vec<PathBuf>,
    /// The folder of the pictures.
    #[arg(long, default_value = "docs/plots")]
    to: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    for from in &args.from {
        if let Err(message) = draw(from, &args.to) {
            eprintln!("error: {}: {message}", from.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn draw(from: &Path, to: &Path) -> Result<(), String> {
    let text = fs::read_to_string(from).map_err(|e| e.to_string())?;
    let data: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    // Only `ovs_dpdk` names its version.
    let figures = if data["openVswitch"].is_string() { of_ovs_dpdk(&data)? } else { of_switch(&data)? };
    fs::create_dir_all(to).map_err(|e| format!("{}: {e}", to.display()))?;
    for figure in figures {
        let file = to.join(figure.name).with_extension("svg");
        fs::write(&file, draw_svg(&figure)).map_err(|e| format!("{}: {e}", file.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}
