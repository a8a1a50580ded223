//! What one call of map emits, held until the call has ended well.

use bson::RawDocumentBuf;

use super::map::MapSink;
use crate::error::{Error, Result};
use crate::exec::combiner::boxed;
use crate::exec::skipping::Undo;
use crate::shuffle::varint;
use crate::task::Counters;
use crate::wasm::{Judge, Level, Sink, SinkError, Sums};

/// Room for a usual call's emits; more is given back.
const ROOM_KEPT_BYTES: usize = 1 << 20;

/// Emits laid end to end: a kind, and its parts with their lengths.
#[derive(Default)]
struct Emits(Vec<u8>);

const PAIR: u8 = 0;
const SUM: u8 = 1;
const TOTAL: u8 = 2;
const DOCUMENT: u8 = 3;

/// An emit as it was held.
enum Emit<'a> {
    Pair(&'a [u8], &'a [u8]),
    Sum(&'a [u8], f64, u32),
    Total(&'a [u8], &'a [u8], u32),
    Document(&'a [u8]),
}

impl Emits {
    fn part(&mut self, bytes: &[u8]) {
        varint::append(bytes.len() as u64, &mut self.0);
        self.0.extend_from_slice(bytes);
    }

    #[inline]
    fn pair(&mut self, key: &[u8], value: &[u8]) {
        self.0.push(PAIR);
        self.part(key);
        self.part(value);
    }

    fn sum(&mut self, key: &[u8], sum: f64, emits: u32) {
        self.0.push(SUM);
        self.part(key);
        self.part(&sum.to_le_bytes());
        self.part(&emits.to_le_bytes());
    }

    fn total(&mut self, key: &[u8], value: &[u8], emits: u32) {
        self.0.push(TOTAL);
        self.part(key);
        self.part(value);
        self.part(&emits.to_le_bytes());
    }

    fn document(&mut self, document: &[u8]) {
        self.0.push(DOCUMENT);
        self.part(document);
    }

    /// Gives each to `take`, in order.
    fn each(&self, mut take: impl FnMut(Emit<'_>) -> Result<()>) -> Result<()> {
        let mut rest = self.0.as_slice();
        while let Some((kind, after)) = rest.split_first() {
            let mut at = after;
            let emit = read(*kind, &mut at)
                .ok_or_else(|| Error::Internal("a held emit is malformed".into()))?;
            take(emit)?;
            rest = at;
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.0.clear();
        if self.0.capacity() > ROOM_KEPT_BYTES {
            self.0.shrink_to(ROOM_KEPT_BYTES);
        }
    }
}

fn read<'a>(kind: u8, at: &mut &'a [u8]) -> Option<Emit<'a>> {
    let mut part = || {
        let (len, after) = varint::decode(at)?;
        let (part, rest) = after.split_at_checked(usize::try_from(len).ok()?)?;
        *at = rest;
        Some(part)
    };
    let count = |bytes: &[u8]| Some(u32::from_le_bytes(bytes.try_into().ok()?));
    Some(match kind {
        PAIR => Emit::Pair(part()?, part()?),
        SUM => {
            let (key, sum) = (part()?, f64::from_le_bytes(part()?.try_into().ok()?));
            Emit::Sum(key, sum, count(part()?)?)
        }
        TOTAL => {
            let (key, value) = (part()?, part()?);
            Emit::Total(key, value, count(part()?)?)
        }
        DOCUMENT => Emit::Document(part()?),
        _ => return None,
    })
}

/// A map's sink behind which a call that fails leaves nothing.
pub(super) struct Staging {
    sink: MapSink,
    emits: Emits,
    /// What the call has counted.
    counts: Counters,
    /// Which sums this instance may give.
    sums: Option<Sums>,
    /// Whether a value by itself counts already, so that sums in the order of emission are over.
    has_plain: bool,
    /// Whether the call has given a value by itself.
    gives_plain: bool,
    /// Lines that the call has logged.
    lines: u64,
    /// Lines that were heard before and come once more.
    repeated: u64,
}

impl Staging {
    pub(super) fn new(sink: MapSink) -> Self {
        Self {
            sums: sink.wants_sums(),
            sink,
            emits: Emits::default(),
            counts: Counters::default(),
            has_plain: false,
            gives_plain: false,
            lines: 0,
            repeated: 0,
        }
    }

    pub(super) fn sink_mut(&mut self) -> &mut MapSink {
        &mut self.sink
    }

    pub(super) fn into_sink(self) -> MapSink {
        self.sink
    }

    fn clear(&mut self) {
        self.emits.clear();
        self.counts.user.clear();
        self.gives_plain = false;
        self.lines = 0;
    }
}

impl Sink for Staging {
    fn emit(&mut self, key: &[u8], value: &[u8]) -> std::result::Result<(), SinkError> {
        self.gives_plain = true;
        // Refused now, while it is known whose it is.
        match self.sink.rules.judged(key, value).map_err(boxed)? {
            Some(document) if self.sink.writes_output() => {
                self.emits.document(document.as_bytes());
            }
            _ => self.emits.pair(key, value),
        }
        Ok(())
    }

    fn wants_sums(&self) -> Option<Sums> {
        self.sums
    }

    fn judge(&self) -> Judge {
        self.sink.judge()
    }

    fn emit_sum(&mut self, key: &[u8], sum: f64, emits: u32) -> std::result::Result<(), SinkError> {
        self.sink.rules.check_key(key).map_err(boxed)?;
        self.emits.sum(key, sum, emits);
        Ok(())
    }

    fn emit_total(
        &mut self,
        key: &[u8],
        value: &[u8],
        emits: u32,
    ) -> std::result::Result<(), SinkError> {
        self.sink.rules.check_key(key).map_err(boxed)?;
        self.emits.total(key, value, emits);
        Ok(())
    }

    fn count(&mut self, name: &str, delta: i64) {
        if !self.counts.count(name, delta) {
            self.sink.tap.counter_refused(name);
        }
    }

    fn log(&mut self, level: Level, text: &str) {
        self.lines += 1;
        match self.repeated.checked_sub(1) {
            Some(left) => self.repeated = left,
            None => self.sink.tap.line(level, text),
        }
    }
}

impl Undo for Staging {
    fn keep(&mut self) -> Result<()> {
        let sink = &mut self.sink;
        self.emits.each(|emit| match emit {
            Emit::Pair(key, value) => sink.take(key, value),
            Emit::Sum(key, sum, emits) => sink.take_sum(key, sum, emits),
            Emit::Total(key, value, emits) => sink.take_total(key, value, emits),
            Emit::Document(bytes) => {
                let document = RawDocumentBuf::from_bytes(bytes.to_vec());
                let document =
                    document.map_err(|e| Error::Internal(format!("a held result: {e}")))?;
                sink.take_document(document)
            }
        })?;
        for (name, delta) in std::mem::take(&mut self.counts.user) {
            sink.count(&name, delta);
        }
        self.has_plain |= self.gives_plain;
        self.clear();
        Ok(())
    }

    fn undo(&mut self, again: bool) {
        self.repeated = if again { self.repeated + self.lines } else { 0 };
        self.clear();
    }

    fn moved(&mut self) -> Self {
        let sums = match self.sink.wants_sums() {
            // A fresh instance would begin with sums again, and values that came before them would come after.
            Some(Sums::InOrder) if self.has_plain => None,
            sums => sums,
        };
        Self {
            sums,
            has_plain: self.has_plain,
            repeated: self.repeated,
            ..Self::new(self.sink.moved())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_comes_back_as_it_was() {
        let mut emits = Emits::default();
        emits.pair(b"k", b"v");
        emits.pair(&[7; 300], b"");
        emits.sum(b"k", 0.5, 3);
        emits.total(b"a", b"b", u32::MAX);
        emits.document(b"doc");
        let mut seen = Vec::new();
        emits
            .each(|emit| {
                seen.push(match emit {
                    Emit::Pair(key, value) => format!("{} {}", key.len(), value.len()),
                    Emit::Sum(key, sum, emits) => format!("{} {sum} {emits}", key.len()),
                    Emit::Total(key, value, emits) => format!("{key:?} {value:?} {emits}"),
                    Emit::Document(bytes) => format!("{bytes:?}"),
                });
                Ok(())
            })
            .unwrap();
        let expected = ["1 1", "300 0", "1 0.5 3", "[97] [98] 4294967295", "[100, 111, 99]"]
            .map(str::to_owned);
        assert_eq!(seen, expected);
        emits.0.push(PAIR);
        assert!(emits.each(|_| Ok(())).is_err(), "a part of an emit is none");
        emits.clear();
        assert!(emits.each(|_| Err(Error::Drained)).is_ok());
    }
}
