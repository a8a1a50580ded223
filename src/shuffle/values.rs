//! The values of all keys of a table, in one arena of linked chunks.
//!
//! A key with one value takes the value's bytes and a few more; a key with many gets chunks that
//! double its room. A chunk is `room (u32 LE), room bytes of values, offset of the next chunk (u32
//! LE)`, and a value is `varint length, type byte, bytes`. What a chunk has left over is zero, which
//! no value's length is. Appending a value touches the end of the list and nothing else.

use super::varint;
use crate::value::RawVal;

/// Largest chunk that is allocated ahead of need, in bytes.
const CHUNK_BYTES_MAX: usize = 4096;
/// Length of each of the two numbers around a chunk's values.
const LINK_BYTES: usize = 4;

/// The chunks of all lists.
#[derive(Debug, Default)]
pub(crate) struct ValueArena {
    bytes: Vec<u8>,
}

/// The values of one key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ValueList {
    /// Where the first chunk begins.
    head: u32,
    /// Where the next value goes, and where the last chunk's room ends.
    at: u32,
    end: u32,
    count: u32,
    /// Length of all values with their type bytes.
    bytes: u32,
}

impl ValueList {
    pub(crate) const EMPTY: Self = Self { head: 0, at: 0, end: 0, count: 0, bytes: 0 };

    /// The list as numbers.
    #[inline]
    pub(crate) fn words(self) -> [u32; 5] {
        [self.head, self.at, self.end, self.count, self.bytes]
    }

    /// The list that [`ValueList::words`] gave.
    #[inline]
    pub(crate) fn of_words([head, at, end, count, bytes]: [u32; 5]) -> Self {
        Self { head, at, end, count, bytes }
    }
}

impl ValueArena {
    /// Appends a value to a list; false when 32-bit offsets are used up.
    #[inline]
    pub(crate) fn push(&mut self, list: &mut ValueList, value: RawVal<'_>) -> bool {
        let (header, header_len) = varint::encode(value.len() as u64);
        let needed = header_len + value.len();
        if needed > (list.end - list.at) as usize && self.grow(list, needed).is_none() {
            return false;
        }
        let at = list.at as usize;
        let Some(slot) = self.bytes.get_mut(at..at + needed) else {
            return false;
        };
        let (to_header, to_value) = slot.split_at_mut(header_len);
        for (to, from) in to_header.iter_mut().zip(header) {
            *to = from;
        }
        if let Some((to_tag, to_bytes)) = to_value.split_first_mut() {
            *to_tag = value.tag;
            copy_short(to_bytes, value.bytes);
        }
        // It fits the chunk, whose end is a u32.
        list.at += u32::try_from(needed).unwrap_or(0);
        list.count += 1;
        list.bytes = list.bytes.saturating_add(u32::try_from(value.len()).unwrap_or(u32::MAX));
        true
    }

    /// Links a new chunk to the end of a list.
    #[inline(never)]
    fn grow(&mut self, list: &mut ValueList, needed: usize) -> Option<()> {
        let room = needed.max((list.bytes as usize).min(CHUNK_BYTES_MAX));
        let offset = self.bytes.len();
        let start = offset + LINK_BYTES;
        let link = u32::try_from(offset).ok()?.to_le_bytes();
        let end = u32::try_from(start.checked_add(room)?).ok()?;
        let after = end.checked_add(LINK_BYTES as u32)?;
        if list.count == 0 {
            list.head = u32::try_from(offset).ok()?;
        } else {
            let last = list.end as usize;
            self.bytes.get_mut(last..last + LINK_BYTES)?.copy_from_slice(&link);
        }
        // A vector would double: half as much again wastes less of the caller's budget.
        let added = after as usize - offset;
        if self.bytes.capacity() - offset < added {
            self.bytes.reserve_exact(added.max(offset / 2));
        }
        self.bytes.extend_from_slice(&u32::try_from(room).ok()?.to_le_bytes());
        self.bytes.resize(after as usize, 0);
        (list.at, list.end) = (u32::try_from(start).ok()?, end);
        Some(())
    }

    /// The values of a list.
    pub(crate) fn values(&self, list: ValueList) -> Values<'_> {
        Values {
            source: Source::Chunks {
                arena: &self.bytes,
                next: list.head,
                rest: &[],
                left: list.count,
            },
            count: list.count,
            bytes: list.bytes,
        }
    }

    /// Whether there are no lists.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Memory held, in bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Forgets all lists and keeps at most `retained_bytes`.
    pub(crate) fn clear(&mut self, retained_bytes: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(retained_bytes);
    }
}

/// Copies a value of the same length; most are one number, and a call of `memcpy` costs more.
#[inline]
fn copy_short(to: &mut [u8], from: &[u8]) {
    if let (Some(to), Some(from)) = (to.as_mut_array::<4>(), from.as_array::<4>()) {
        *to = *from;
        return;
    }
    match (to.as_mut_array::<8>(), from.as_array::<8>()) {
        (Some(to), Some(from)) => *to = *from,
        _ => to.copy_from_slice(from),
    }
}

/// The values of one group, in the order of emission.
#[derive(Debug, Clone)]
pub struct Values<'a> {
    source: Source<'a>,
    count: u32,
    bytes: u32,
}

#[derive(Debug, Clone)]
enum Source<'a> {
    One(Option<RawVal<'a>>),
    Chunks { arena: &'a [u8], next: u32, rest: &'a [u8], left: u32 },
}

impl<'a> Values<'a> {
    pub(crate) fn one(value: RawVal<'a>) -> Self {
        Self {
            source: Source::One(Some(value)),
            count: 1,
            bytes: u32::try_from(value.len()).unwrap_or(u32::MAX),
        }
    }

    /// How many values the group has, whether or not they were taken already.
    #[must_use]
    pub fn count_all(&self) -> usize {
        self.count as usize
    }

    /// Bytes of all values of the group with their type bytes.
    #[must_use]
    pub fn bytes_all(&self) -> usize {
        self.bytes as usize
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = RawVal<'a>;

    #[inline]
    fn next(&mut self) -> Option<RawVal<'a>> {
        match &mut self.source {
            Source::One(value) => value.take(),
            Source::Chunks { arena, next, rest, left } => {
                *left = left.checked_sub(1)?;
                if matches!(rest, [] | [0, ..]) {
                    let (room, chunk) =
                        arena.get(*next as usize..)?.split_first_chunk::<LINK_BYTES>()?;
                    let (values, chunk) =
                        chunk.split_at_checked(u32::from_le_bytes(*room) as usize)?;
                    *rest = values;
                    *next = u32::from_le_bytes(*chunk.first_chunk::<LINK_BYTES>()?);
                }
                let (len, after) = varint::decode(rest)?;
                let (value, after) = after.split_at_checked(usize::try_from(len).ok()?)?;
                *rest = after;
                let (&tag, bytes) = value.split_first()?;
                Some(RawVal { tag, bytes })
            }
        }
    }
}
