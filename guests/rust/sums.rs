//! Sums of what a map emits, made before the host gets them.
//!
//! A job whose values are only summed or counted does not care in how many emits its sums come. So while a map runs,
//! an emit of a short text, or of an ObjectId, with a number is an addition in a table of the keys that came lately,
//! and the host is given each key once: when the call ends, when a key makes room for another, and before more than
//! `BYTES_MAX` are waiting, so that the limit on what a record may emit is kept.
//!
//! Only sums that are exact are made: of integers within their type, and of doubles that are multiples of 1/256 as
//! long as the sum is below 2^44. Any other value goes to the host as it is. Where keys rarely repeat, the table costs
//! more than it saves; it then rests for a while.

use std::cell::{Cell, RefCell};

use crate::read::Type;

/// A text of up to 28 bytes, with its type, its length and its NUL.
const KEY_BYTES_MAX: usize = 34;
const SETS_BITS: u32 = 13;
const WAYS: usize = 2;
const ENTRIES: usize = WAYS << SETS_BITS;
const SCALE: f64 = 256.0;
const SUM_MAX: f64 = (1_u64 << 44) as f64;
const BYTES_MAX: u32 = 1 << 20;
/// Of so many emits, at most half may have had keys that were not in the table, or it rests for so many more.
const JUDGED: u32 = 8192;
const REST: u32 = 1 << 17;

const DOUBLE: u8 = Type::Double as u8;
const INT32: u8 = Type::Int32 as u8;
const INT64: u8 = Type::Int64 as u8;

thread_local! {
    static WANTED: Cell<bool> = const { Cell::new(false) };
    static OPEN: Cell<bool> = const { Cell::new(false) };
    static TABLE: RefCell<Table> = const { RefCell::new(Table::NEW) };
}

/// The host says whether sums are all that is wanted.
pub(crate) fn want(wanted: bool) {
    WANTED.set(wanted);
}

/// Sums from here on, where they are wanted.
pub(crate) fn begin() {
    OPEN.set(WANTED.get());
}

/// Gives the host what is waiting.
pub(crate) fn end() {
    if OPEN.replace(false) {
        TABLE.with_borrow_mut(Table::flush);
    }
}

/// Whether the pair, each with its type, was taken. Otherwise it goes to the host.
#[inline]
pub(crate) fn take(key: &[u8], value: &[u8]) -> bool {
    OPEN.get() && TABLE.with_borrow_mut(|table| table.take(key, value))
}

#[derive(Clone, Copy)]
struct Entry {
    /// An integer, or the bits of a double.
    sum: u64,
    /// 0: free.
    emits: u32,
    kind: u8,
    key_len: u8,
    key: [u8; KEY_BYTES_MAX],
}

impl Entry {
    const FREE: Self = Self { sum: 0, emits: 0, kind: 0, key_len: 0, key: [0; KEY_BYTES_MAX] };

    fn key(&self) -> &[u8] {
        &self.key[..usize::from(self.key_len).min(KEY_BYTES_MAX)]
    }

    fn is(&self, key: &[u8]) -> bool {
        self.emits > 0 && usize::from(self.key_len) == key.len() && same(&self.key, key)
    }

    /// The sum with a number of its type, if that stays exact.
    fn with(&self, number: Number) -> Option<u64> {
        if self.kind != number.kind {
            return None;
        }
        match self.kind {
            DOUBLE => {
                let sum = f64::from_bits(self.sum) + f64::from_bits(number.bits);
                (sum.abs() < SUM_MAX).then(|| sum.to_bits())
            }
            INT32 => {
                let sum = self.sum as i64 + number.bits as i64;
                i32::try_from(sum).is_ok().then_some(sum as u64)
            }
            _ => (self.sum as i64).checked_add(number.bits as i64).map(|sum| sum as u64),
        }
    }
}

/// The word of eight bytes that begins there.
#[inline]
fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

/// Whether a key is what an entry's begins with. The last word ends where the key ends, so it may share bytes with the
/// one before.
#[inline]
fn same(kept: &[u8; KEY_BYTES_MAX], key: &[u8]) -> bool {
    let Some(last) = key.len().checked_sub(8) else { return kept.starts_with(key) };
    let mut at = 0;
    while at < last {
        if word(kept, at) != word(key, at) {
            return false;
        }
        at += 8;
    }
    word(kept, last) == word(key, last)
}

#[inline]
fn hash(key: &[u8]) -> usize {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut hash = key.len() as u64;
    let last = if let Some(last) = key.len().checked_sub(8) {
        let mut at = 0;
        while at < last {
            hash = (hash ^ word(key, at)).wrapping_mul(FACTOR);
            hash ^= hash >> 32;
            at += 8;
        }
        word(key, last)
    } else {
        key.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
    };
    // The upper bits, to which every bit of the last word comes.
    ((hash ^ last).wrapping_mul(FACTOR) >> (64 - SETS_BITS)) as usize
}

/// A number that can be a part of an exact sum.
#[derive(Clone, Copy)]
struct Number {
    kind: u8,
    /// As in an entry.
    bits: u64,
}

impl Number {
    #[inline]
    fn of(value: &[u8]) -> Option<Self> {
        let (kind, bytes) = value.split_first()?;
        let bits = match *kind {
            DOUBLE => {
                let real = f64::from_le_bytes(bytes.try_into().ok()?);
                let scaled = real * SCALE;
                // A multiple of 1/256 that is not too large, and no negative zero.
                let exact = real.abs() < SUM_MAX && scaled.trunc() == scaled;
                if !exact || real.to_bits() == (-0.0_f64).to_bits() {
                    return None;
                }
                real.to_bits()
            }
            INT32 => i64::from(i32::from_le_bytes(bytes.try_into().ok()?)) as u64,
            INT64 => u64::from_le_bytes(bytes.try_into().ok()?),
            _ => return None,
        };
        Some(Self { kind: *kind, bits })
    }
}

struct Table {
    entries: [Entry; ENTRIES],
    /// The entries that are not free, or were not.
    used: [u16; ENTRIES],
    used_len: usize,
    /// Bytes that the emits waiting here would have had.
    bytes: u32,
    /// Emits taken since the last judgement, and those among them whose key was not in the table.
    taken: u32,
    missed: u32,
    rest: u32,
}

impl Table {
    const NEW: Self = Self {
        entries: [Entry::FREE; ENTRIES],
        used: [0; ENTRIES],
        used_len: 0,
        bytes: 0,
        taken: 0,
        missed: 0,
        rest: 0,
    };

    #[inline]
    fn take(&mut self, key: &[u8], value: &[u8]) -> bool {
        let kind = key.first().copied().unwrap_or_default();
        // Of equal keys, the first one stays: a symbol is equal to a text.
        if kind == Type::Symbol as u8 {
            self.flush();
        }
        if key.len() > KEY_BYTES_MAX || (kind != Type::String as u8 && kind != Type::ObjectId as u8) {
            return false;
        }
        if self.rest > 0 {
            // What is no number costs no rest.
            self.rest -= u32::from(matches!(value.first(), Some(&(DOUBLE | INT32 | INT64))));
            return false;
        }
        let Some(number) = Number::of(value) else { return false };
        let at = self.entry(key);
        let entry = &mut self.entries[at];
        if entry.emits > 0 {
            if let Some(sum) = entry.with(number) {
                entry.sum = sum;
            } else {
                self.give(at);
            }
        }
        let entry = &mut self.entries[at];
        if entry.emits == 0 {
            entry.sum = number.bits;
            entry.kind = number.kind;
        }
        entry.emits += 1;
        self.bytes += (key.len() + value.len()) as u32;
        if self.bytes > BYTES_MAX {
            self.flush();
        }
        self.taken += 1;
        if self.taken == JUDGED {
            if self.missed > JUDGED / 2 {
                self.rest = REST;
            }
            (self.taken, self.missed) = (0, 0);
        }
        true
    }

    /// The entry of a key, or one that is free for it.
    #[inline]
    fn entry(&mut self, key: &[u8]) -> usize {
        let set = hash(key) * WAYS % ENTRIES;
        match (set..set + WAYS).find(|at| self.entries[*at].is(key)) {
            Some(at) => at,
            None => self.free(set, key),
        }
    }

    /// Makes room for a key in a set.
    fn free(&mut self, set: usize, key: &[u8]) -> usize {
        let at = if self.entries[set + 1].emits < self.entries[set].emits { set + 1 } else { set };
        if self.entries[at].emits > 0 {
            self.give(at);
        } else {
            if self.used_len == ENTRIES {
                self.flush();
            }
            self.used[self.used_len] = at as u16;
            self.used_len += 1;
        }
        let entry = &mut self.entries[at];
        entry.key[..key.len()].copy_from_slice(key);
        entry.key_len = key.len() as u8;
        self.missed += 1;
        at
    }

    #[inline(never)]
    fn give(&mut self, at: usize) {
        let entry = &mut self.entries[at];
        let mut value = [entry.kind; 9];
        value[1..].copy_from_slice(&entry.sum.to_le_bytes());
        let value = &value[..if entry.kind == INT32 { 5 } else { 9 }];
        let key = entry.key();
        // SAFETY: the host reads the two slices before it returns.
        unsafe {
            crate::host_emit_total(
                key.as_ptr(),
                key.len() as u32,
                value.as_ptr(),
                value.len() as u32,
                entry.emits,
            );
        }
        self.bytes -= (key.len() + value.len()) as u32 * entry.emits;
        entry.emits = 0;
    }

    #[inline(never)]
    fn flush(&mut self) {
        for index in 0..self.used_len {
            let at = usize::from(self.used[index]);
            if self.entries[at].emits > 0 {
                self.give(at);
            }
        }
        self.used_len = 0;
    }
}
