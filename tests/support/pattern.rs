//! Content for bodies of any size that need no memory to be made or checked, and digests.

use sha2::{Digest, Sha256};

/// `length` bytes of an endless, incompressible and position-dependent pattern, from `offset`.
pub fn pattern(offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 16);
    let mut word = offset / 8;
    let skip = usize::try_from(offset % 8).unwrap_or(0);
    while bytes.len() < length + skip {
        let mut x = word.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x ^= x >> 29;
        bytes.extend_from_slice(&x.wrapping_mul(0x94d0_49bb_1331_11eb).to_le_bytes());
        word += 1;
    }
    bytes.drain(..skip);
    bytes.truncate(length);
    bytes
}

/// The SHA-256 of the first `length` bytes of [`pattern`], as hex.
pub fn pattern_sha256(length: u64) -> String {
    let mut hash = Sha256::new();
    let mut at = 0;
    while at < length {
        let size = usize::try_from(length - at).unwrap_or(usize::MAX).min(1 << 20);
        hash.update(pattern(at, size));
        at += size as u64;
    }
    hex(&hash.finalize())
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
