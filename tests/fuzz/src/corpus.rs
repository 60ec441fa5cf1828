//! The inputs that a target starts from: its seeds, and the files of `corpus/` that once found a fault.

use std::io;
use std::path::Path;

use crate::target::Target;

/// Inputs of a target, with their names.
///
/// # Errors
/// A file cannot be read, or is not what [`parse`] takes: which.
pub fn inputs(target: &Target) -> io::Result<Vec<(String, Vec<u8>)>> {
    let seeds = (target.seeds)().into_iter().enumerate();
    let mut all: Vec<(String, Vec<u8>)> = seeds.map(|(n, seed)| (format!("seed-{n:03}"), seed)).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    if !folder.is_dir() {
        return Ok(all);
    }
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        let named = |problem: String| io::Error::other(format!("{}: {problem}", path.display()));
        let text = std::fs::read_to_string(&path).map_err(|error| named(error.to_string()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        all.push((name, parse(&text).ok_or_else(|| named("not pairs of hexadecimal digits".into()))?));
    }
    all.sort();
    Ok(all)
}

/// Bytes from text: pairs of hexadecimal digits; `#` begins a comment.
pub fn parse(text: &str) -> Option<Vec<u8>> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let digits: Vec<u32> = lines
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16))
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| (high << 4 | low) as u8).collect())
}

/// The text that [`parse`] reads.
pub fn print(bytes: &[u8]) -> String {
    let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    bytes.chunks(48).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::{parse, print};

    #[test]
    fn bytes_are_printed_and_read_again() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(parse(&format!("# what it shows\n{} # here, too", print(&bytes))), Some(bytes));
        assert_eq!((parse("0"), parse("0x12")), (None, None));
    }
}
