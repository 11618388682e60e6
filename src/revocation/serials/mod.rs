//! Sets of revoked serial numbers, compact and quick to ask.

use sha2::{Digest, Sha256};

use super::crl::{Entries, Entry};
use super::{CrlFault, Listed, Reason};
use crate::identity::Serial;

/// The serial numbers of one list, with the reason of each.
///
/// Serial numbers are kept as records of one of three sizes, so that none of them pays for the longest: up to 8 octets,
/// up to 16, and all others (longer or negative). A value has only one size it fits, so a look-up asks one table.
#[derive(Debug)]
pub(super) struct SerialSet {
    short: Table<9>,
    middle: Table<17>,
    long: Table<22>,
}

impl SerialSet {
    /// Reads all entries. They are read twice, so that memory is taken once and at its final size.
    pub(super) fn collect(entries: &Entries<'_>) -> Result<Self, CrlFault> {
        let (mut short, mut middle, mut long) = (0, 0, 0);
        for entry in entries.clone() {
            match Key::new(&entry?.serial) {
                Key::Short(_) => short += 1,
                Key::Middle(_) => middle += 1,
                Key::Long(_) => long += 1,
            }
        }
        let mut short = Vec::with_capacity(short);
        let mut middle = Vec::with_capacity(middle);
        let mut long = Vec::with_capacity(long);
        for entry in entries.clone() {
            let Entry { serial, listed, .. } = entry?;
            match Key::new(&serial) {
                Key::Short(key) => short.push(record(&key, listed)),
                Key::Middle(key) => middle.push(record(&key, listed)),
                Key::Long(key) => long.push(record(&key, listed)),
            }
        }
        Ok(Self { short: Table::new(short), middle: Table::new(middle), long: Table::new(long) })
    }

    /// What the list says about this serial number, if anything. Of several entries the one that revokes counts.
    pub(super) fn find(&self, serial: &Serial) -> Option<Listed> {
        let code = match Key::new(serial) {
            Key::Short(key) => self.short.find(&key),
            Key::Middle(key) => self.middle.find(&key),
            Key::Long(key) => self.long.find(&key),
        };
        code.map(|code| if code == REMOVED { Listed::Removed } else { Listed::Revoked(Reason::from_code(code)) })
    }

    /// How many different serial numbers are listed.
    pub(super) fn len(&self) -> usize {
        self.short.records + self.middle.records + self.long.records
    }

    /// Bytes on the heap.
    pub(super) fn heap_size(&self) -> usize {
        self.short.heap_size() + self.middle.heap_size() + self.long.heap_size()
    }

    /// SHA-256 over the entries: equal for equal sets, whatever the order or the form of the list.
    pub(super) fn content_hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        self.short.hash_into(&mut hash);
        self.middle.hash_into(&mut hash);
        self.long.hash_into(&mut hash);
        hash.finalize().into()
    }
}

/// A serial number at the size of its table.
enum Key {
    Short([u8; 8]),
    Middle([u8; 16]),
    Long([u8; Serial::MAX_OCTETS]),
}

impl Key {
    fn new(serial: &Serial) -> Self {
        let content = serial.as_der_content();
        // The octet that only says "not negative" would push 16-octet serial numbers into the long table.
        let magnitude = content.strip_prefix(&[0]).unwrap_or(content);
        match (serial.is_negative(), magnitude.len()) {
            (false, 0..=8) => Self::Short(extended(magnitude, 0)),
            (false, 9..=16) => Self::Middle(extended(magnitude, 0)),
            (false, _) => Self::Long(extended(magnitude, 0)),
            (true, _) => Self::Long(extended(content, 0xff)),
        }
    }
}

/// `octets` at the end of an array that is filled with the sign before them. Longer input can't occur.
fn extended<const N: usize>(octets: &[u8], sign: u8) -> [u8; N] {
    let mut key = [sign; N];
    for (to, from) in key.iter_mut().rev().zip(octets.iter().rev()) {
        *to = *from;
    }
    key
}

/// Stands for a reason in an entry that takes one back. The highest, so that it comes after an entry that revokes.
const REMOVED: u8 = u8::MAX;

/// The key and, in the last octet, the reason.
fn record<const K: usize, const N: usize>(key: &[u8; K], listed: Listed) -> [u8; N] {
    const { assert!(N == K + 1, "a record is a key and a reason") }
    let code = match listed {
        Listed::Revoked(reason) => reason.code(),
        Listed::Removed => REMOVED,
    };
    let mut record = [code; N];
    for (to, from) in record.iter_mut().zip(key) {
        *to = *from;
    }
    record
}

/// Records in the order of their keys' hashes, with gaps between them: each stands where its hash says, or as closely
/// behind as the records before it allow.
///
/// By hash and not by key, because authorities choose serial numbers as they like: random, counted, or with a prefix
/// for each of their machines. Hashes spread evenly whatever they do, so a look-up reads one place of memory: of a large
/// list hardly any is in a cache, and each place costs more than everything else.
#[derive(Debug)]
struct Table<const N: usize> {
    slots: Box<[[u8; N]]>,
    /// How many places hashes are spread over. What is pushed behind the last one stands in further slots.
    places: usize,
    /// How many records there are.
    records: usize,
}

/// Stands for a reason in a slot without a record.
const GAP: u8 = u8::MAX - 1;

/// Bytes that a record may take with its share of the gaps.
const SHARE: usize = 24;

impl<const N: usize> Table<N> {
    fn new(mut records: Vec<[u8; N]>) -> Self {
        records.sort_unstable_by(|a, b| hash(key_of(a)).cmp(&hash(key_of(b))).then_with(|| a.cmp(b)));
        records.dedup_by(|later, earlier| key_of(later) == key_of(earlier));
        // A gap for each three records, or fewer where they are long.
        let places = (records.len() * 4).div_ceil(3).min((records.len() * SHARE).div_ceil(N));
        let mut end = 0;
        for record in &records {
            end = place_of(hash(key_of(record)), places).max(end) + 1;
        }
        let mut slots = Vec::with_capacity(end);
        for record in &records {
            slots.resize(place_of(hash(key_of(record)), places).max(slots.len()), [GAP; N]);
            slots.push(*record);
        }
        Self { slots: slots.into_boxed_slice(), places, records: records.len() }
    }

    /// The reason code kept with this key.
    fn find(&self, key: &[u8]) -> Option<u8> {
        let own = hash(key);
        let cluster = self.slots.get(place_of(own, self.places)..)?.iter();
        for record in cluster.take_while(|record| code_of(record) != GAP) {
            if key_of(record) == key {
                return Some(code_of(record));
            }
            if hash(key_of(record)) > own {
                return None;
            }
        }
        None
    }

    fn records(&self) -> impl Iterator<Item = &[u8; N]> {
        self.slots.iter().filter(|record| code_of(record) != GAP)
    }

    fn hash_into(&self, hash: &mut Sha256) {
        hash.update((self.records as u64).to_be_bytes());
        self.records().for_each(|record| hash.update(record));
    }

    fn heap_size(&self) -> usize {
        size_of_val(&*self.slots)
    }
}

fn code_of<const N: usize>(record: &[u8; N]) -> u8 {
    record.last().copied().unwrap_or(GAP)
}

fn key_of<const N: usize>(record: &[u8; N]) -> &[u8] {
    record.split_last().map_or(&[], |(_, key)| key)
}

/// The place of a hash among so many: rises with the hash, as the records do.
fn place_of(hash: u64, places: usize) -> usize {
    let scaled = (u128::from(hash) * places as u128) >> u64::BITS;
    usize::try_from(scaled).unwrap_or(usize::MAX)
}

/// Spreads keys evenly. The same on every machine, since the order of records shows in the content hash. It needn't
/// withstand chosen keys: who chooses them holds an authority's key.
fn hash(key: &[u8]) -> u64 {
    let (words, tail) = key.as_chunks::<8>();
    let tail = tail.iter().fold(0, |word, octet| word << 8 | u64::from(*octet));
    words.iter().copied().map(u64::from_be_bytes).chain([tail]).fold(0, mix)
}

/// Takes one more word into a hash.
fn mix(hash: u64, word: u64) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = (hash ^ word).wrapping_mul(ODD);
    (mixed ^ (mixed >> 32)).wrapping_mul(ODD).rotate_left(29)
}

#[cfg(test)]
mod tests;
