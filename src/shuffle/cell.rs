//! What a table keeps for one key, packed into twenty bytes beside the key.
//!
//! A table holds millions of keys, and an emit touches one of them at random. Small states
//! therefore lie in the same cache line as the key: counts, sums of integers or doubles, extremes
//! of up to sixteen bytes, a number that values were folded into, and the ends of a list of values. Whatever is larger is an
//! [`Accumulator`] elsewhere, which the cell names by number.

use super::builtin::{Accumulator, BuiltinError, State};
use super::extreme;
use super::fold::Fold;
use super::sum::{Sum, add_to_pair};
use super::table::Combine;
use super::values::{ValueArena, ValueList, Values};
use crate::value::{RawVal, RawValBuf, tag};

/// Length of a packed cell, without its kind.
pub(crate) const CELL_BYTES: usize = 20;
/// Longest value of an extreme that a cell takes, in bytes: every number does, and an ObjectId.
const INLINE_BYTES_MAX: usize = 16;

const KIND_COUNT: u8 = 0;
const KIND_INT32: u8 = 1;
const KIND_INT64: u8 = 2;
const KIND_DOUBLE: u8 = 3;
const KIND_EXTREME: u8 = 4;
const KIND_HELD: u8 = 5;
const KIND_LIST: u8 = 6;
const KIND_FOLDED_SUM: u8 = 7;
const KIND_FOLDED_MIN: u8 = 8;
const KIND_FOLDED_MAX: u8 = 9;

/// The state of one key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cell {
    /// The state of `_count`.
    Count(u64),
    /// The state of `_sum` over integers, see [`Sum::Int`].
    Int { sum: i64, long: bool },
    /// The state of `_sum` over doubles, see [`Sum::Double`].
    Double { high: f64, low: f64 },
    /// The state of `_min` and `_max`: a short value, its bytes as a little-endian number.
    Extreme { tag: u8, len: u8, bytes: u128 },
    /// The number of an accumulator in [`Cells`].
    Held(u32),
    /// All values.
    List(ValueList),
    /// All values, which are joined to one so far.
    Folded { fold: Fold, number: f64 },
}

impl Cell {
    /// The packed form and its kind.
    #[inline]
    pub(crate) fn pack(self) -> ([u8; CELL_BYTES], u8) {
        let two = |a: u64, b: u64| u128::from(a) | u128::from(b) << 64;
        let (words, last, kind) = match self {
            Self::Count(count) => (count.into(), 0, KIND_COUNT),
            Self::Int { sum, long: false } => (sum.cast_unsigned().into(), 0, KIND_INT32),
            Self::Int { sum, long: true } => (sum.cast_unsigned().into(), 0, KIND_INT64),
            Self::Double { high, low } => (two(high.to_bits(), low.to_bits()), 0, KIND_DOUBLE),
            Self::Extreme { tag, len, bytes } => {
                (bytes, u32::from_le_bytes([tag, len, 0, 0]), KIND_EXTREME)
            }
            Self::Held(number) => (number.into(), 0, KIND_HELD),
            Self::List(list) => {
                let [head, at, end, count, bytes] = list.words();
                let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
                (two(pair(head, at), pair(end, count)), bytes, KIND_LIST)
            }
            Self::Folded { fold, number } => {
                let kind = match fold {
                    Fold::Sum => KIND_FOLDED_SUM,
                    Fold::Min => KIND_FOLDED_MIN,
                    Fold::Max => KIND_FOLDED_MAX,
                };
                (number.to_bits().into(), 0, kind)
            }
        };
        let mut packed = [0; CELL_BYTES];
        if let Some((to, rest)) = packed.split_first_chunk_mut::<16>() {
            *to = words.to_le_bytes();
            rest.copy_from_slice(&last.to_le_bytes());
        }
        (packed, kind)
    }

    /// Reads what [`Cell::pack`] wrote.
    #[inline]
    pub(crate) fn unpack(packed: &[u8; CELL_BYTES], kind: u8) -> Self {
        let (words, last) = packed.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
        let words = u128::from_le_bytes(*words);
        let last = last.first_chunk::<4>().copied().unwrap_or_default();
        let [low, high] = halves(words);
        match kind {
            KIND_COUNT => Self::Count(low),
            KIND_INT32 => Self::Int { sum: low.cast_signed(), long: false },
            KIND_INT64 => Self::Int { sum: low.cast_signed(), long: true },
            KIND_DOUBLE => Self::Double { high: f64::from_bits(low), low: f64::from_bits(high) },
            KIND_EXTREME => {
                let [tag, len, _, _] = last;
                Self::Extreme { tag, len, bytes: words }
            }
            KIND_LIST => {
                let ([head, at], [end, count]) = (quarters(low), quarters(high));
                Self::List(ValueList::of_words([head, at, end, count, u32::from_le_bytes(last)]))
            }
            KIND_FOLDED_SUM | KIND_FOLDED_MIN | KIND_FOLDED_MAX => {
                Self::Folded { fold: fold_of(kind), number: f64::from_bits(low) }
            }
            _ => {
                let [number, _] = quarters(low);
                Self::Held(number)
            }
        }
    }
}

/// Folds a value into the packed form, where that takes only a few instructions; else does nothing
/// and says false. [`Cells::fold`] gives the same cell.
#[inline]
pub(crate) fn fold_in_place(
    packed: &mut [u8; CELL_BYTES],
    kind: &mut u8,
    value: RawVal<'_>,
) -> bool {
    let Some((first, rest)) = packed.split_first_chunk_mut::<8>() else { return false };
    match (*kind, value.tag) {
        (KIND_COUNT, _) => {
            *first = u64::from_le_bytes(*first).saturating_add(1).to_le_bytes();
            true
        }
        (KIND_INT32 | KIND_INT64, tag::INT32 | tag::INT64) => {
            let Some((number, is_long)) = value.as_integer() else { return false };
            let Some(sum) = i64::from_le_bytes(*first).checked_add(number) else { return false };
            *first = sum.to_le_bytes();
            if is_long {
                *kind = KIND_INT64;
            }
            true
        }
        (KIND_DOUBLE, tag::DOUBLE) => {
            let Some((second, _)) = rest.split_first_chunk_mut::<8>() else { return false };
            let Some(number) = value.as_f64() else { return false };
            let (high, low) = (f64::from_le_bytes(*first), f64::from_le_bytes(*second));
            let Some((high, low)) = add_to_pair(high, low, number) else { return false };
            (*first, *second) = (high.to_le_bytes(), low.to_le_bytes());
            true
        }
        (KIND_FOLDED_SUM | KIND_FOLDED_MIN | KIND_FOLDED_MAX, tag::DOUBLE) => {
            let before = f64::from_le_bytes(*first);
            let Some(joined) = fold_of(*kind).join(Some(before), value) else { return false };
            *first = joined.to_le_bytes();
            true
        }
        _ => false,
    }
}

#[inline]
fn fold_of(kind: u8) -> Fold {
    match kind {
        KIND_FOLDED_MIN => Fold::Min,
        KIND_FOLDED_MAX => Fold::Max,
        _ => Fold::Sum,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
#[inline]
fn halves(words: u128) -> [u64; 2] {
    [words as u64, (words >> 64) as u64]
}

#[expect(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
#[inline]
fn quarters(words: u64) -> [u32; 2] {
    [words as u32, (words >> 32) as u32]
}

/// Why a value was not folded into a cell.
#[derive(Debug)]
pub(crate) enum FoldError {
    /// The built-in refused it.
    Builtin(BuiltinError),
    /// There are no numbers or offsets left.
    Full,
}

/// Folds values into cells, and keeps what is too large for them.
#[derive(Debug)]
pub(crate) struct Cells {
    combine: Combine,
    held: Vec<Accumulator>,
    /// Heap bytes of all of `held`.
    heap_bytes: usize,
    values: ValueArena,
    scratch: Vec<u8>,
}

impl Cells {
    pub(crate) fn new(combine: Combine) -> Self {
        Self {
            combine,
            held: Vec::new(),
            heap_bytes: 0,
            values: ValueArena::default(),
            scratch: Vec::new(),
        }
    }

    pub(crate) fn combine(&self) -> Combine {
        self.combine
    }

    /// The cell of a key whose first value this is.
    pub(crate) fn first(&mut self, value: RawVal<'_>) -> Result<Cell, FoldError> {
        match self.combine {
            Combine::Values => self.fold(Cell::List(ValueList::EMPTY), value),
            Combine::Folded(fold) => match fold.join(None, value) {
                Some(number) => Ok(Cell::Folded { fold, number }),
                None => self.fold(Cell::List(ValueList::EMPTY), value),
            },
            Combine::Builtin(builtin) => {
                let mut state = Accumulator::new(builtin);
                state.add_with(value, &mut self.scratch).map_err(FoldError::Builtin)?;
                self.cell_of(state)
            }
        }
    }

    /// The cell of a key whose first partial this is.
    pub(crate) fn first_partial(&mut self, partial: RawVal<'_>) -> Result<Cell, FoldError> {
        let Combine::Builtin(builtin) = self.combine else {
            return self.first(partial);
        };
        let mut state = Accumulator::new(builtin);
        state.merge_with(partial, &mut self.scratch).map_err(FoldError::Builtin)?;
        self.cell_of(state)
    }

    /// The cell after one more value.
    #[inline]
    pub(crate) fn fold(&mut self, cell: Cell, value: RawVal<'_>) -> Result<Cell, FoldError> {
        match cell {
            Cell::Extreme { tag, len, bytes } => {
                return self.fold_extreme((tag, len, bytes), value);
            }
            Cell::List(mut list) => {
                if self.values.push(&mut list, value) {
                    return Ok(Cell::List(list));
                }
                return Err(FoldError::Full);
            }
            Cell::Folded { fold, number } => {
                if let Some(number) = fold.join(Some(number), value) {
                    return Ok(Cell::Folded { fold, number });
                }
                let mut list = ValueList::EMPTY;
                let first = number.to_le_bytes();
                if self.values.push(&mut list, RawVal { tag: tag::DOUBLE, bytes: &first }) {
                    return self.fold(Cell::List(list), value);
                }
                return Err(FoldError::Full);
            }
            Cell::Count(_) | Cell::Int { .. } | Cell::Double { .. } | Cell::Held(_) => {}
        }
        self.fold_slowly(cell, |state, scratch| state.add_with(value, scratch))
    }

    /// The cell after one more partial.
    pub(crate) fn merge(&mut self, cell: Cell, partial: RawVal<'_>) -> Result<Cell, FoldError> {
        match cell {
            Cell::List(_) | Cell::Folded { .. } | Cell::Extreme { .. } => self.fold(cell, partial),
            _ => self.fold_slowly(cell, |state, scratch| state.merge_with(partial, scratch)),
        }
    }

    fn fold_extreme(
        &mut self,
        (tag, len, bytes): (u8, u8, u128),
        value: RawVal<'_>,
    ) -> Result<Cell, FoldError> {
        let Combine::Builtin(builtin) = self.combine else {
            return Err(FoldError::Full);
        };
        if value.is_nullish() {
            return Ok(Cell::Extreme { tag, len, bytes });
        }
        let inline = bytes.to_le_bytes();
        let best = RawVal { tag, bytes: inline.get(..usize::from(len)).unwrap_or_default() };
        let is_better = extreme::is_better(builtin, best, value, &mut self.scratch)
            .map_err(|source| FoldError::Builtin(BuiltinError::Incomparable { builtin, source }))?;
        if !is_better {
            return Ok(Cell::Extreme { tag, len, bytes });
        }
        match inline_extreme(value) {
            Some(cell) => Ok(cell),
            None => self.cell_of(Accumulator::of_extreme(builtin, value.into())),
        }
    }

    /// Folds with the accumulator that the cell stands for.
    #[inline(never)]
    fn fold_slowly(
        &mut self,
        cell: Cell,
        fold: impl FnOnce(&mut Accumulator, &mut Vec<u8>) -> Result<(), BuiltinError>,
    ) -> Result<Cell, FoldError> {
        if let Cell::Held(number) = cell {
            let state = self.held.get_mut(number as usize).ok_or(FoldError::Full)?;
            let before = state.heap_bytes();
            let folded = fold(state, &mut self.scratch);
            let after = state.heap_bytes();
            self.heap_bytes = self.heap_bytes.saturating_add(after).saturating_sub(before);
            return folded.map(|()| cell).map_err(FoldError::Builtin);
        }
        let mut state = match cell {
            Cell::Int { sum, long } => Accumulator::of_sum(Sum::Int { sum, long }),
            Cell::Double { high, low } => Accumulator::of_sum(Sum::Double { high, low }),
            Cell::Count(count) => Accumulator::of_count(count),
            Cell::Extreme { .. } | Cell::List(_) | Cell::Folded { .. } | Cell::Held(_) => {
                return Err(FoldError::Full);
            }
        };
        fold(&mut state, &mut self.scratch).map_err(FoldError::Builtin)?;
        self.cell_of(state)
    }

    /// Packs a state, or keeps it here when it is too large.
    fn cell_of(&mut self, state: Accumulator) -> Result<Cell, FoldError> {
        match state.state() {
            State::Count(count) => return Ok(Cell::Count(*count)),
            State::Sum(Sum::Int { sum, long }) => return Ok(Cell::Int { sum: *sum, long: *long }),
            State::Sum(Sum::Double { high, low }) => {
                return Ok(Cell::Double { high: *high, low: *low });
            }
            State::Extreme(_, Some(value)) => {
                if let Some(cell) = inline_extreme(value.as_raw()) {
                    return Ok(cell);
                }
            }
            _ => {}
        }
        let number = u32::try_from(self.held.len()).map_err(|_| FoldError::Full)?;
        self.heap_bytes += state.heap_bytes();
        self.held.push(state);
        Ok(Cell::Held(number))
    }

    /// What a group hands out: the values of a list, or the partial state, written to `partial`.
    pub(crate) fn values<'a>(&'a self, cell: Cell, partial: &'a mut RawValBuf) -> Values<'a> {
        match cell {
            Cell::List(list) => return self.values.values(list),
            Cell::Folded { number, .. } => partial.set_f64(number),
            Cell::Count(count) => Accumulator::of_count(count).partial(partial),
            Cell::Int { sum, long } => Sum::Int { sum, long }.partial(partial),
            Cell::Double { high, low } => Sum::Double { high, low }.partial(partial),
            Cell::Extreme { tag, len, bytes } => {
                let inline = bytes.to_le_bytes();
                let bytes = inline.get(..usize::from(len)).unwrap_or_default();
                partial.set(RawVal { tag, bytes });
            }
            Cell::Held(number) => {
                if let Some(state) = self.held.get(number as usize) {
                    state.partial(partial);
                }
            }
        }
        Values::one(partial.as_raw())
    }

    /// Whether no cell has several values.
    pub(crate) fn is_folded(&self) -> bool {
        matches!(self.combine, Combine::Folded(_)) && self.values.is_empty()
    }

    /// Memory held, in bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.held.capacity() * size_of::<Accumulator>()
            + self.heap_bytes
            + self.values.bytes()
            + self.scratch.capacity()
    }

    /// Forgets everything and keeps at most `retained_bytes` of each part.
    pub(crate) fn clear(&mut self, retained_bytes: usize) {
        self.held.clear();
        self.held.shrink_to(retained_bytes / size_of::<Accumulator>());
        self.heap_bytes = 0;
        self.values.clear(retained_bytes);
        self.scratch.clear();
        self.scratch.shrink_to(retained_bytes);
    }
}

/// The cell of an extreme, when it is short enough.
#[inline]
fn inline_extreme(value: RawVal<'_>) -> Option<Cell> {
    let mut inline = [0; INLINE_BYTES_MAX];
    inline.get_mut(..value.bytes.len())?.copy_from_slice(value.bytes);
    let len = u8::try_from(value.bytes.len()).ok()?;
    Some(Cell::Extreme { tag: value.tag, len, bytes: u128::from_le_bytes(inline) })
}
