//! Reducing in parts, as a job may: some of a key's values first, one of them alone, and then what came of it with others
//! that nothing was done to yet.
//!
//! Whether a function bears that shows only where a key's values meet in several tasks or spills, so in a trial over
//! few documents it would not. Here it is provoked, and compared with reducing once.

use bson::RawDocumentBuf;

use super::function::{Batch, Guest};
use super::local_run::{Functions, Group, LocalReduce, reduce_group};
use super::log_buffer::{Lines, LogSink};
use super::prepare::Loaded;
use super::reducer::Pairs;
use super::rereduce::value_of;
use super::result_document::document_of_result;
use super::values_chunk::ValuesChunk;
use crate::config;
use crate::error::Result;
use crate::value::{Elements, RawVal, RawValBuf, tag};

/// How results in parts are different from those at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Differs {
    /// Results are different.
    Results {
        /// How many.
        keys: usize,
        /// Out of so many.
        of: usize,
        /// The first key whose result is.
        key: String,
        /// Its result where all values were reduced in one call.
        at_once: String,
        /// Its result where some were reduced first.
        in_parts: String,
    },
    /// A function fails on its own results.
    Fails {
        /// What it says.
        why: String,
    },
    /// Every key has too few values to tell.
    Untold,
}

/// How a key's values are reduced in parts. What one way does not show, another may: a reduce that does nothing to a single
/// value, one that counts its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The first value alone, and twice; half of the others; the rest.
    Thirds,
    /// All but the last, and twice; the last one as it was emitted.
    AllButLast,
    /// All of them, and once more.
    Twice,
}

impl Way {
    const ALL: [Self; 3] = [Self::Thirds, Self::AllButLast, Self::Twice];
}

impl Functions {
    /// What is different in parts. Nothing where no job would reduce in parts.
    pub(crate) fn in_parts(&self, groups: &[Group], at_once: &[RawDocumentBuf]) -> Option<Differs> {
        let LocalReduce::Function(reduce) = &self.reduce else { return None };
        if self.no_combine {
            return None;
        }
        let shortens = self.combine.as_ref().unwrap_or(reduce);
        for way in Way::ALL {
            let differs = match self.results_in_parts(shortens, groups, way) {
                Ok(None) => return None,
                Ok(Some(in_parts)) => compare(at_once, &in_parts),
                Err(error) => Some(Differs::Fails { why: error.to_string() }),
            };
            if differs.is_some() {
                return differs;
            }
        }
        /// With two, a mean of means is right.
        const VALUES_ENOUGH: usize = 3;
        let most = groups.iter().map(|group| group.values.len()).max();
        most.filter(|most| *most < VALUES_ENOUGH).map(|_| Differs::Untold)
    }

    /// `None` for a reduce that streams, which is given all values of a key as they were emitted.
    fn results_in_parts(
        &self,
        shortens: &Loaded,
        groups: &[Group],
        way: Way,
    ) -> Result<Option<Vec<RawDocumentBuf>>> {
        // What the functions print has been printed.
        let lines = Lines::new("try", 0);
        let tap = |stage| LogSink::kept(stage, &lines);
        let mut guest = Guest::start(shortens.clone(), Pairs::new(tap(shortens.stage)))?;
        if guest.streams() {
            return Ok(None);
        }
        let mut reducer = self.reducer(tap)?;
        let mut results = Vec::new();
        let mut out = |key: RawVal<'_>, value: RawVal<'_>| {
            results.push(document_of_result(key, value)?);
            Ok(())
        };
        for group in groups {
            let bytes: usize = group.values.iter().map(|value| value.as_raw().len()).sum();
            let values = match bytes <= config::VALUES_BYTES_MAX {
                true => self.shortened(&mut guest, group, way)?,
                false => group.values.clone(),
            };
            let (key, encoded) = (group.key.clone(), group.encoded.clone());
            reduce_group(&mut reducer, &Group { key, encoded, values }, &mut out)?;
        }
        reducer.finish(&mut out)?;
        Ok(Some(results))
    }

    /// A key's values, some of them shortened.
    fn shortened(
        &self,
        guest: &mut Guest<Pairs>,
        group: &Group,
        way: Way,
    ) -> Result<Vec<RawValBuf>> {
        // Jobs that leave a single value as it is never give one to the reduce.
        let leaves_single = self.skip_single_values && self.combine.is_none();
        let mut shorten = |values: &[RawValBuf]| match values {
            [] => Ok(Vec::new()),
            [single] if leaves_single => Ok(vec![single.clone()]),
            values => call(guest, &group.key, values),
        };
        let all = group.values.as_slice();
        let (twice, once, raw): (_, [&[RawValBuf]; 2], &[RawValBuf]) = match way {
            Way::Thirds => {
                let alone = usize::from(!leaves_single);
                let (first, rest) = all.split_at_checked(alone).unwrap_or((all, &[]));
                let (middle, last) = rest.split_at_checked(rest.len() / 2).unwrap_or((rest, &[]));
                (first, [middle, last], &[])
            }
            Way::AllButLast => {
                let but_last = all.len().saturating_sub(1);
                let (most, last) = all.split_at_checked(but_last).unwrap_or((all, &[]));
                (most, [&[], &[]], last)
            }
            Way::Twice => (all, [&[], &[]], &[]),
        };
        let mut values = shorten(twice)?;
        values = shorten(&values)?;
        for part in once {
            values.extend(shorten(part)?);
        }
        values.extend_from_slice(raw);
        Ok(values)
    }
}

/// What the function makes of values of a key.
fn call(guest: &mut Guest<Pairs>, key: &RawValBuf, values: &[RawValBuf]) -> Result<Vec<RawValBuf>> {
    let mut chunk = ValuesChunk::begin(key.as_raw());
    values.iter().for_each(|value| chunk.push(value.as_raw()));
    let mut batch = Batch::default();
    chunk.end(&mut batch);
    // A combine may give several.
    guest.sink_mut().expect(values.len());
    guest.call(&batch)?;
    Ok(guest.sink_mut().take().into_iter().map(|(_, value)| value).collect())
}

fn compare(at_once: &[RawDocumentBuf], in_parts: &[RawDocumentBuf]) -> Option<Differs> {
    let parts = |document: &RawDocumentBuf| -> Result<(RawValBuf, RawValBuf)> {
        Ok((value_of(document, "_id")?.into(), value_of(document, "value")?.into()))
    };
    let read = |documents: &[RawDocumentBuf]| -> Result<Vec<(RawValBuf, RawValBuf)>> {
        documents.iter().map(parts).collect()
    };
    let (Ok(at_once), Ok(in_parts)) = (read(at_once), read(in_parts)) else { return None };
    let find = |key: &RawValBuf| in_parts.iter().find(|(other, _)| other == key);
    let is_sorted = at_once.len() == in_parts.len()
        && at_once.iter().zip(&in_parts).all(|((a, _), (b, _))| a == b);
    let mut different = at_once.iter().enumerate().filter_map(|(n, (key, value))| {
        // Both are in the order of the keys, and most have the same.
        let other = if is_sorted { in_parts.get(n) } else { find(key) };
        let other = other.map(|(_, other)| other);
        let same = other.is_some_and(|other| is_alike(value.as_raw(), other.as_raw()));
        (!same).then_some((key, value, other))
    });
    let (key, value, other) = different.next()?;
    Some(Differs::Results {
        keys: 1 + different.count(),
        of: at_once.len(),
        key: key.to_string(),
        at_once: value.to_string(),
        in_parts: other.map_or_else(|| "nothing".to_owned(), ToString::to_string),
    })
}

/// Whether values are the same, but for the rounding of doubles and for the type of a number.
fn is_alike(a: RawVal<'_>, b: RawVal<'_>) -> bool {
    /// Sums of many doubles in another order differ in their last digits, and what is computed from their differences in
    /// more than those.
    const RELATIVE: f64 = 1e-6;
    if a == b {
        return true;
    }
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return a == b
            || a.is_nan() && b.is_nan()
            || (a - b).abs() <= RELATIVE * a.abs().max(b.abs());
    }
    if a.tag != b.tag || !matches!(a.tag, tag::DOCUMENT | tag::ARRAY) {
        return false;
    }
    let (mut these, mut those) = (Elements::new(a.bytes), Elements::new(b.bytes));
    loop {
        match (these.next(), those.next()) {
            (Ok(None), Ok(None)) => return true,
            (Ok(Some((name, value))), Ok(Some((other_name, other))))
                if name == other_name && is_alike(value, other) => {}
            _ => return false,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is compared with a tolerance")]
fn number(value: RawVal<'_>) -> Option<f64> {
    match value.as_integer() {
        Some((integer, _)) => Some(integer as f64),
        None => value.as_f64(),
    }
}
