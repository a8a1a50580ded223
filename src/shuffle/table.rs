//! The table that combines emits before they are sorted and spilled.
//!
//! It sits in the innermost loop of a map task. Keys lie encoded in one byte arena, each beside
//! its small state, and long values in another, so nothing is allocated per key or per value, and
//! an emit touches little memory. [`Table::bytes`] is the true cost, by which the caller decides
//! when to spill.
//!
//! Values are taken as they are: the host has checked them with [`RawVal::parse`] when the guest
//! emitted them. What was not checked gives errors or nonsense, but no panic.
//!
//! To run a user's combine function, put a fresh table in its place with `std::mem::replace`, drain
//! the old one, and add what the function emits to the new one.

use super::builtin::{Builtin, BuiltinError};
use super::cell::{Cell, Cells, FoldError};
use super::fold::Fold;
use super::keys::{KeyRecord, Keys, Lookup};
use super::partition::partition_of;
use super::values::Values;
use crate::value::key::{self, KeyError, STRING_CLASS};
use crate::value::{RawVal, RawValBuf, string_payload, tag};

/// Largest key and value of one emit together, in bytes. With the fields around them they must fit a
/// document of MongoDB.
pub const EMIT_BYTES_MAX: usize = 16 * 1024 * 1024 - 64 * 1024;
/// Most bytes that a drained table keeps allocated for its next fill, for each of its parts.
pub const RETAINED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What becomes of the values of equal keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// They are folded into a state at once.
    Builtin(Builtin),
    /// They are kept, in the order of emission.
    Values,
    /// The same, but those at the beginning of a key's values are joined as its function would do.
    Folded(Fold),
}

/// Why an emit was refused.
#[derive(Debug, thiserror::Error)]
pub enum ShuffleError {
    /// Key and value together are more than MongoDB can store.
    #[error("key {key} and its value have {bytes} bytes together, more than {EMIT_BYTES_MAX}")]
    TooLarge {
        /// The key, shortened.
        key: String,
        /// Size of key and value.
        bytes: usize,
    },
    /// The key is not valid BSON.
    #[error("key cannot be ordered: {0}")]
    Key(#[from] KeyError),
    /// The built-in reduction refused the value.
    #[error("key {key}: {source}")]
    Builtin {
        /// The key, shortened.
        key: String,
        /// Why it refused.
        source: BuiltinError,
    },
    /// The table holds as much as it can address; it should have been drained long before.
    #[error("combining table is full at {bytes} bytes")]
    Full {
        /// Memory in use.
        bytes: usize,
    },
}

/// One key and what was emitted for it.
#[derive(Debug)]
pub struct Group<'a> {
    /// The partition that the key belongs to.
    pub partition: u32,
    /// The key as it was emitted first.
    pub key: RawVal<'a>,
    /// The key's encoding, by which groups are ordered.
    pub encoded: &'a [u8],
    /// The values in the order of emission, the first of them joined where they are folded; for a built-in its one partial
    /// state.
    pub values: Values<'a>,
}

/// Emits, combined by key.
#[derive(Debug)]
pub struct Table {
    keys: Keys,
    cells: Cells,
    /// The encoding of a key that is no string.
    scratch: Vec<u8>,
}

/// What sorting moves around: eight bytes of the key settle most comparisons.
#[derive(Debug, Clone, Copy)]
struct SortItem {
    prefix: u64,
    partition: u32,
    at: u32,
}

impl Table {
    /// An empty table; it allocates nothing yet.
    #[must_use]
    pub fn new(combine: Combine) -> Self {
        Self { keys: Keys::new(), cells: Cells::new(combine), scratch: Vec::new() }
    }

    /// What the table does with values.
    #[must_use]
    pub fn combine(&self) -> Combine {
        self.cells.combine()
    }

    /// Takes one emit.
    ///
    /// # Errors
    /// [`ShuffleError`]; the emit is then not in the table, all earlier ones are.
    #[inline]
    pub fn add(&mut self, key: RawVal<'_>, value: RawVal<'_>) -> Result<(), ShuffleError> {
        if key.len() + value.len() > EMIT_BYTES_MAX {
            return Err(too_large(key, value));
        }
        let lookup = lookup(&self.keys, key, &mut self.scratch)?;
        let Some(at) = self.keys.find(lookup) else {
            let first = self.cells.first(value);
            return insert(&mut self.keys, lookup, key, first)
                .map_err(|error| refused(key, error, self.bytes()));
        };
        if self.keys.fold_in_place(at, value) {
            return Ok(());
        }
        self.fold(at, key, value)
    }

    /// Takes a partial state of the table's built-in, as a drained group holds it. In a table that keeps
    /// values or folds them it is the same as [`Table::add`].
    ///
    /// # Errors
    /// As [`Table::add`].
    pub fn add_partial(
        &mut self,
        key: RawVal<'_>,
        partial: RawVal<'_>,
    ) -> Result<(), ShuffleError> {
        if key.len() + partial.len() > EMIT_BYTES_MAX {
            return Err(too_large(key, partial));
        }
        let lookup = lookup(&self.keys, key, &mut self.scratch)?;
        let taken = match self.keys.find(lookup) {
            Some(at) => self.keys.cell(at).ok_or(FoldError::Full).and_then(|cell| {
                self.keys.set_cell(at, self.cells.merge(cell, partial)?);
                Ok(())
            }),
            None => {
                let first = self.cells.first_partial(partial);
                insert(&mut self.keys, lookup, key, first)
            }
        };
        taken.map_err(|error| refused(key, error, self.bytes()))
    }

    /// Folds a value into the cell of a key that is there.
    #[inline(never)]
    fn fold(&mut self, at: usize, key: RawVal<'_>, value: RawVal<'_>) -> Result<(), ShuffleError> {
        let folded = match self.keys.cell(at) {
            Some(cell) => self.cells.fold(cell, value),
            None => Err(FoldError::Full),
        };
        match folded {
            Ok(cell) => {
                self.keys.set_cell(at, cell);
                Ok(())
            }
            Err(error) => Err(refused(key, error, self.bytes())),
        }
    }

    /// Memory that the table holds, in bytes, with what draining it will need on top.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> usize {
        self.keys.bytes()
            + self.keys.len() * size_of::<SortItem>()
            + self.cells.bytes()
            + self.scratch.capacity()
    }

    /// Whether it folds values and no key has several, so that there is nothing for the function to do.
    #[must_use]
    pub fn is_folded(&self) -> bool {
        self.cells.is_folded()
    }

    /// How many distinct keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.len() == 0
    }

    /// Visits the groups ordered by (partition, encoded key) and leaves the table empty, also when
    /// `visit` fails. It keeps at most [`RETAINED_BYTES_MAX`] of each part for reuse.
    ///
    /// # Errors
    /// The first error of `visit`, which ends the visits.
    pub fn drain_sorted<E>(
        &mut self,
        partitions: u32,
        mut visit: impl FnMut(Group<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let result = self.visit_sorted(partitions, &mut visit);
        self.clear();
        result
    }

    /// Forgets everything, as [`Table::drain_sorted`] does at its end.
    pub fn clear(&mut self) {
        self.keys.clear(RETAINED_BYTES_MAX);
        self.cells.clear(RETAINED_BYTES_MAX);
        self.scratch.clear();
        self.scratch.shrink_to(RETAINED_BYTES_MAX);
    }

    fn visit_sorted<E>(
        &mut self,
        partitions: u32,
        visit: &mut impl FnMut(Group<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut partial = RawValBuf::new();
        for item in sorted(&self.keys, partitions) {
            let Some(record) = self.keys.record(item.at as usize) else { continue };
            visit(Group {
                partition: item.partition,
                key: record.key(&mut self.scratch),
                encoded: record.encoded,
                values: self.cells.values(record.cell, &mut partial),
            })?;
        }
        Ok(())
    }
}

/// The order in which groups are visited.
fn sorted(keys: &Keys, partitions: u32) -> Vec<SortItem> {
    // Keys often begin alike ("customer-…"); the bytes after what all share tell them apart.
    let mut records = keys.records();
    let first = records.next().map_or(&[][..], |record| record.encoded);
    let shared = records.fold(first.len(), |shared, record| {
        let pairs = first.iter().zip(record.encoded).take(shared);
        pairs.take_while(|(a, b)| a == b).count()
    });
    let item = |record: KeyRecord<'_>| SortItem {
        prefix: key_prefix(record.encoded.get(shared..).unwrap_or_default()),
        partition: partition_of(record.encoded, partitions),
        at: u32::try_from(record.at).unwrap_or(u32::MAX),
    };
    let mut order = Vec::with_capacity(keys.len());
    order.extend(keys.records().map(item));
    let encoded = |item: &SortItem| keys.record(item.at as usize).map(|record| record.encoded);
    let rank = |item: &SortItem| u128::from(item.partition) << 64 | u128::from(item.prefix);
    order.sort_unstable_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| encoded(a).cmp(&encoded(b))));
    order
}

/// Prepares to find a key. A string's encoding is its text, so the most frequent key is looked up
/// where it lies.
#[inline]
fn lookup<'a>(
    keys: &Keys,
    key: RawVal<'a>,
    scratch: &'a mut Vec<u8>,
) -> Result<Lookup<'a>, KeyError> {
    if matches!(key.tag, tag::STRING | tag::SYMBOL)
        && let Some(text) = string_payload(key.bytes)
    {
        return Ok(keys.lookup(STRING_CLASS, text));
    }
    lookup_encoded(keys, key, scratch)
}

/// Adds a key with its first cell.
#[inline(never)]
fn insert(
    keys: &mut Keys,
    lookup: Lookup<'_>,
    key: RawVal<'_>,
    first: Result<Cell, FoldError>,
) -> Result<(), FoldError> {
    keys.insert(lookup, key, first?).map_err(|_| FoldError::Full)
}

/// Encodes a key that is no string.
#[inline(never)]
fn lookup_encoded<'a>(
    keys: &Keys,
    key: RawVal<'_>,
    scratch: &'a mut Vec<u8>,
) -> Result<Lookup<'a>, KeyError> {
    scratch.clear();
    key::encode(key, scratch)?;
    let (class, payload) = scratch.split_first().unwrap_or((&0, &[]));
    Ok(keys.lookup(*class, payload))
}

#[cold]
fn too_large(key: RawVal<'_>, value: RawVal<'_>) -> ShuffleError {
    ShuffleError::TooLarge { key: key.to_string(), bytes: key.len() + value.len() }
}

#[cold]
fn refused(key: RawVal<'_>, error: FoldError, bytes: usize) -> ShuffleError {
    match error {
        FoldError::Builtin(source) => ShuffleError::Builtin { key: key.to_string(), source },
        FoldError::Full => ShuffleError::Full { bytes },
    }
}

/// The first eight bytes of an encoding, as a number of the same order.
#[inline]
pub(crate) fn key_prefix(encoded: &[u8]) -> u64 {
    if let Some(head) = encoded.first_chunk::<8>() {
        return u64::from_be_bytes(*head);
    }
    let mut head = [0_u8; 8];
    for (to, from) in head.iter_mut().zip(encoded) {
        *to = *from;
    }
    u64::from_be_bytes(head)
}
