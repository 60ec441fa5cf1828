//! The flow hash: Toeplitz with a secret key, computed as carry-less products.
//!
//! Toeplitz because hardware computes it as an XOR tree and because, with a secret key, a tenant cannot build
//! collisions. For input bit `p` of word `i` and output bit `t`, the matrix entry is key bit `64 * (i + 1) + t - p'`
//! (`p'` the bit's place within its word): constant along diagonals, so that each input word costs two carry-less
//! multiplications, by the two key words that its window covers.

use crate::clmul::clmul;

/// The secret of the flow hash: nine words for eight words of key. Never shown outside the host.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashSecret(pub [u64; 9]);

impl core::fmt::Debug for HashSecret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("HashSecret(..)")
    }
}

impl HashSecret {
    /// Hash of eight words (a [`FlowKey`](crate::FlowKey)).
    #[inline(always)]
    pub fn hash(&self, words: &[u64; 8]) -> u64 {
        let mut h = 0;
        for (i, &w) in words.iter().enumerate() {
            h ^= clmul(w, self.0[i]).1 ^ clmul(w, self.0[i + 1]).0;
        }
        h
    }

    /// The same for a key of IPv4, whose words 4 and 6 are 0.
    #[inline(always)]
    pub fn hash_ipv4(&self, words: &[u64; 8]) -> u64 {
        let mut h = 0;
        for i in [0, 1, 2, 3, 5, 7] {
            h ^= clmul(words[i], self.0[i]).1 ^ clmul(words[i], self.0[i + 1]).0;
        }
        h
    }

    /// The same by the definition, bit by bit: the reference that the fast form and RTL are tested with.
    pub fn hash_by_definition(&self, words: &[u64; 8]) -> u64 {
        let key_bit = |n: usize| self.0[n / 64] >> (n % 64) & 1;
        let mut h = 0u64;
        for t in 0..64 {
            let mut bit = 0;
            for (i, w) in words.iter().enumerate() {
                for p in 0..64 {
                    bit ^= (w >> p & 1) & key_bit(64 * (i + 1) + t - p);
                }
            }
            h |= bit << t;
        }
        h
    }
}

/// Entropy of a flow's outer header: 14 bits from a hash of the inner flow with a secret of its own, since a linear hash
/// that is visible on the wire reveals its key. The result is a UDP source port, 49152 ..= 65535
/// (RFC 7348 section 5, RFC 6335); its low byte serves as NVGRE FlowID (RFC 7637 section 3.2).
pub fn entropy(secret: &HashSecret, words: &[u64; 8]) -> u16 {
    let h = secret.hash(words);
    0xc000 | ((h ^ (h >> 16) ^ (h >> 32) ^ (h >> 48)) as u16 & 0x3fff)
}
