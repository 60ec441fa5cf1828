//! Random secrets of flow hashes.

use culvert_flow::HashSecret;

/// Bytes of a secret.
pub(crate) const LEN: usize = 72;

/// Random bytes for a secret.
///
/// # Errors
/// The system has no random numbers.
pub(crate) fn random() -> Result<[u8; LEN], getrandom::Error> {
    let mut bytes = [0; LEN];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// The secret with these bytes, big-endian.
pub(crate) fn from_bytes(bytes: &[u8; LEN]) -> HashSecret {
    let words: &[[u8; 8]] = bytes.as_chunks().0;
    HashSecret(std::array::from_fn(|n| u64::from_be_bytes(words[n])))
}
