//! The keys of a table: a hash index over one byte arena.
//!
//! A key costs a slot of the index and its record in the arena, which holds everything about it, so
//! that finding a key and updating its cell touch two places in memory. A record is
//!
//! ```text
//! cell            20 bytes, see cell.rs
//! encoded length  u32 LE
//! cell kind       1 byte
//! key type        1 byte
//! encoding        class byte, payload
//! [original       u32 LE length, bytes; a string is rebuilt from its encoding instead]
//! ```
//!
//! The hash is seeded at random, since keys are what users' documents hold: whoever knew the seed could choose
//! keys that all fall into one place, and each would be compared with all before it. Output is sorted, so the
//! index's order shows nowhere.

use std::hash::Hasher;
use std::sync::OnceLock;

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;
use hashbrown::HashTable;

use super::cell::{CELL_BYTES, Cell, fold_in_place};
use crate::value::{RawVal, tag};

/// Most bytes of all records, since offsets are 32 bits wide.
const ARENA_BYTES_MAX: usize = u32::MAX as usize;
const HEAD_BYTES: usize = CELL_BYTES + 6;

/// The part of the seed that all tables of the process share. Both parts must be unknown: the hash multiplies
/// two words of a key, each under one of them, and a key that made either zero would hash to zero.
fn shared_seed() -> &'static SharedSeed {
    static SEED: OnceLock<SharedSeed> = OnceLock::new();
    SEED.get_or_init(|| SharedSeed::from_u64(rand::random()))
}

/// The keys and their cells.
pub(crate) struct Keys {
    hasher: FoldHasher<'static>,
    index: HashTable<Slot>,
    arena: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u32,
    at: u32,
}

/// A key's encoding in its two parts, and its hash.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lookup<'a> {
    class: u8,
    payload: &'a [u8],
    hash: u32,
}

/// One key, as it is in the arena.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyRecord<'a> {
    /// Where its record begins.
    pub(crate) at: usize,
    pub(crate) cell: Cell,
    pub(crate) encoded: &'a [u8],
    tag: u8,
    original: &'a [u8],
}

/// The arena has no more room.
#[derive(Debug)]
pub(crate) struct NoRoom;

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The seed is nobody's business.
        f.debug_struct("Keys").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self {
            hasher: FoldHasher::with_seed(rand::random(), shared_seed()),
            index: HashTable::new(),
            arena: Vec::new(),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Prepares to find an encoding. The class is left out of the hash: only the few keys without
    /// any payload share one.
    #[inline]
    pub(crate) fn lookup<'a>(&self, class: u8, payload: &'a [u8]) -> Lookup<'a> {
        let mut hasher = self.hasher.clone();
        hasher.write(payload);
        let hash = hasher.finish();
        #[expect(clippy::cast_possible_truncation, reason = "the halves are folded together")]
        let hash = (hash ^ (hash >> 32)) as u32;
        Lookup { class, payload, hash }
    }

    /// Where the record of a key begins.
    #[inline]
    pub(crate) fn find(&self, lookup: Lookup<'_>) -> Option<usize> {
        let found = self.index.find(spread(lookup.hash), |slot| {
            slot.hash == lookup.hash && self.is_at(slot.at as usize, lookup)
        });
        found.map(|slot| slot.at as usize)
    }

    #[inline]
    fn is_at(&self, at: usize, lookup: Lookup<'_>) -> bool {
        let Some((head, rest)) =
            self.arena.get(at..).and_then(|rest| rest.split_first_chunk::<HEAD_BYTES>())
        else {
            return false;
        };
        let Some((class, rest)) = rest.split_first() else { return false };
        encoded_len(head) == lookup.payload.len() + 1
            && *class == lookup.class
            && rest.get(..lookup.payload.len()).is_some_and(|found| is_equal(found, lookup.payload))
    }

    /// Folds a value into the cell of a record, when that is simple; see [`fold_in_place`].
    #[inline]
    pub(crate) fn fold_in_place(&mut self, at: usize, value: RawVal<'_>) -> bool {
        let head = self.arena.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<HEAD_BYTES>());
        let Some((packed, fields)) = head.and_then(|head| head.split_first_chunk_mut()) else {
            return false;
        };
        let Some([kind, _]) = fields.last_chunk_mut() else { return false };
        fold_in_place(packed, kind, value)
    }

    /// The cell of a record.
    #[inline]
    pub(crate) fn cell(&self, at: usize) -> Option<Cell> {
        let head = self.arena.get(at..)?.first_chunk::<HEAD_BYTES>()?;
        Some(cell_of(head))
    }

    /// Overwrites the cell of a record.
    #[inline]
    pub(crate) fn set_cell(&mut self, at: usize, cell: Cell) {
        let head = self.arena.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<HEAD_BYTES>());
        if let Some(head) = head {
            put_cell(head, cell);
        }
    }

    /// Adds a key that is not there.
    pub(crate) fn insert(
        &mut self,
        lookup: Lookup<'_>,
        key: RawVal<'_>,
        cell: Cell,
    ) -> Result<(), NoRoom> {
        let start = self.arena.len();
        let added = HEAD_BYTES + 1 + lookup.payload.len() + 4 + key.bytes.len();
        if start + added > ARENA_BYTES_MAX {
            return Err(NoRoom);
        }
        let at = u32::try_from(start).map_err(|_| NoRoom)?;
        let len = u32::try_from(lookup.payload.len() + 1).map_err(|_| NoRoom)?;
        // A vector would double: half as much again wastes less of the caller's budget.
        if self.arena.capacity() - start < added {
            self.arena.reserve_exact(added.max(start / 2));
        }
        let mut head = [0; HEAD_BYTES];
        if let Some((_, fields)) = head.split_first_chunk_mut::<CELL_BYTES>()
            && let Some((to_len, rest)) = fields.split_first_chunk_mut::<4>()
            && let [_, to_tag] = rest
        {
            *to_len = len.to_le_bytes();
            *to_tag = key.tag;
        }
        put_cell(&mut head, cell);
        self.arena.extend_from_slice(&head);
        self.arena.push(lookup.class);
        self.arena.extend_from_slice(lookup.payload);
        if !is_rebuilt(key.tag) {
            let len = u32::try_from(key.bytes.len()).map_err(|_| NoRoom)?;
            self.arena.extend_from_slice(&len.to_le_bytes());
            self.arena.extend_from_slice(key.bytes);
        }
        let slot = Slot { hash: lookup.hash, at };
        self.index.insert_unique(spread(slot.hash), slot, |slot| spread(slot.hash));
        Ok(())
    }

    /// The record at an offset.
    pub(crate) fn record(&self, at: usize) -> Option<KeyRecord<'_>> {
        let (head, rest) = self.arena.get(at..)?.split_first_chunk::<HEAD_BYTES>()?;
        let (encoded, rest) = rest.split_at_checked(encoded_len(head))?;
        let tag = *head.last()?;
        let mut original: &[u8] = &[];
        if !is_rebuilt(tag) {
            let (len, rest) = rest.split_first_chunk::<4>()?;
            original = rest.get(..u32::from_le_bytes(*len) as usize)?;
        }
        Some(KeyRecord { at, cell: cell_of(head), encoded, tag, original })
    }

    /// All records, in the order in which they were added.
    pub(crate) fn records(&self) -> impl Iterator<Item = KeyRecord<'_>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let record = self.record(at)?;
            at += HEAD_BYTES + record.encoded.len();
            if !is_rebuilt(record.tag) {
                at += 4 + record.original.len();
            }
            Some(record)
        })
    }

    /// Memory held, in bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.index.allocation_size() + self.arena.capacity()
    }

    /// Forgets everything and keeps at most `retained_bytes` of each part.
    pub(crate) fn clear(&mut self, retained_bytes: usize) {
        if self.index.allocation_size() > retained_bytes {
            self.index = HashTable::new();
        } else {
            self.index.clear();
        }
        self.arena.clear();
        self.arena.shrink_to(retained_bytes);
    }
}

impl<'a> KeyRecord<'a> {
    /// The key as it was added; a string is put together in `rebuilt`.
    pub(crate) fn key<'b>(&self, rebuilt: &'b mut Vec<u8>) -> RawVal<'b>
    where
        'a: 'b,
    {
        if !is_rebuilt(self.tag) {
            return RawVal { tag: self.tag, bytes: self.original };
        }
        rebuilt.clear();
        let text = self.encoded.get(1..).unwrap_or_default();
        let len = u32::try_from(text.len() + 1).unwrap_or(u32::MAX);
        rebuilt.extend_from_slice(&len.to_le_bytes());
        rebuilt.extend_from_slice(text);
        rebuilt.push(0);
        RawVal { tag: self.tag, bytes: rebuilt }
    }
}

/// Whether the encoding holds all of the key, so that it is not stored twice.
#[inline]
fn is_rebuilt(tag: u8) -> bool {
    matches!(tag, tag::STRING | tag::SYMBOL)
}

/// The index takes its position from the low bits and its tag from the high ones.
#[inline]
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

#[inline]
fn encoded_len(head: &[u8; HEAD_BYTES]) -> usize {
    let fields = head.last_chunk::<6>().and_then(|fields| fields.first_chunk::<4>());
    fields.map_or(0, |len| u32::from_le_bytes(*len) as usize)
}

#[inline]
fn cell_of(head: &[u8; HEAD_BYTES]) -> Cell {
    let packed = head.first_chunk::<CELL_BYTES>().unwrap_or(&[0; CELL_BYTES]);
    Cell::unpack(packed, head[HEAD_BYTES - 2])
}

#[inline]
fn put_cell(head: &mut [u8; HEAD_BYTES], cell: Cell) {
    let (packed, kind) = cell.pack();
    if let Some((to, fields)) = head.split_first_chunk_mut::<CELL_BYTES>()
        && let Some([to_kind, _]) = fields.last_chunk_mut()
    {
        *to = packed;
        *to_kind = kind;
    }
}

/// Compares keys; most are short, and a call of `memcmp` costs more than two words.
#[inline]
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() || a.len() > 16 {
        return a == b;
    }
    match (a.first_chunk::<8>(), b.first_chunk::<8>(), a.last_chunk::<8>(), b.last_chunk::<8>()) {
        (Some(a), Some(b), Some(a_last), Some(b_last)) => a == b && a_last == b_last,
        _ => a.iter().zip(b).all(|(a, b)| a == b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With how many records each of these ids is compared until it is found, together. Each is
    /// compared with itself at least.
    fn comparisons(ids: &[[u8; 12]]) -> usize {
        let mut keys = Keys::new();
        let cell = Cell::unpack(&[0; CELL_BYTES], 0);
        for id in ids {
            let key = RawVal { tag: tag::OBJECT_ID, bytes: id };
            keys.insert(keys.lookup(7, id), key, cell).unwrap();
        }
        let mut compared = 0;
        for id in ids {
            let lookup = keys.lookup(7, id);
            let found = keys.index.find(spread(lookup.hash), |slot| {
                compared += usize::from(slot.hash == lookup.hash);
                slot.hash == lookup.hash && keys.is_at(slot.at as usize, lookup)
            });
            assert!(found.is_some());
        }
        compared
    }

    const CHOSEN: u32 = 2_000;

    /// An id of twelve bytes is hashed as its first eight and its last eight, each under a part of the seed,
    /// multiplied. So whoever knows one part can make its factor zero, and vary the other four bytes.
    #[test]
    fn keys_that_are_chosen_for_a_known_seed_do_not_collide() {
        const PI_3: u64 = 0x082e_fa98_ec4e_6c89;
        const PI_7: u64 = 0x3f84_d5b5_b547_0917;
        let (of_table, shared) = ((0x6176_6961_7279_0001 ^ PI_3).rotate_right(12), PI_7);
        let with = |head: &[u8], tail: &[u8]| [head, tail].concat().try_into().unwrap();
        let first: Vec<[u8; 12]> =
            (0..CHOSEN).map(|n| with(&of_table.to_ne_bytes(), &n.to_ne_bytes())).collect();
        let last: Vec<[u8; 12]> =
            (0..CHOSEN).map(|n| with(&n.to_ne_bytes(), &shared.to_ne_bytes())).collect();
        // Two or three of so many have the same 32 bits by chance once in a few hundred runs, ten never.
        for (half, ids) in [("first", first), ("last", last)] {
            let compared = comparisons(&ids);
            assert!(compared < CHOSEN as usize + 10, "{half}: {compared} for {CHOSEN} keys");
        }
    }

    #[test]
    fn every_table_has_a_seed_of_its_own() {
        let hashes: Vec<u32> = (0..8).map(|_| Keys::new().lookup(7, &[1; 12]).hash).collect();
        assert!(hashes.iter().any(|hash| *hash != hashes[0]), "{hashes:x?}");
    }
}
