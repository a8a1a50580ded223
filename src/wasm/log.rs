//! The log of one instance: lines, bounded in length and in total.

use super::abi::Level;
use super::limits::{LOG_LINE_BYTES_MAX, STDERR_TAIL_BYTES_MAX};
use super::sink::Sink;

/// Where a guest writes by file descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

impl Stream {
    const fn level(self) -> Level {
        match self {
            Self::Out => Level::Info,
            Self::Err => Level::Warn,
        }
    }
}

/// Turns what a guest writes into lines for the sink. Text beyond the limit is dropped rather than
/// ending the call: a function that prints too much still computes the right result.
pub(crate) struct LineLog {
    bytes_left: usize,
    bytes_max: usize,
    bytes_dropped: u64,
    out: Vec<u8>,
    err: Vec<u8>,
    stderr_tail: Vec<u8>,
}

impl LineLog {
    pub(crate) const fn new(bytes_max: usize) -> Self {
        Self {
            bytes_left: bytes_max,
            bytes_max,
            bytes_dropped: 0,
            out: Vec::new(),
            err: Vec::new(),
            stderr_tail: Vec::new(),
        }
    }

    /// How much text was dropped, in bytes.
    pub(crate) const fn bytes_dropped(&self) -> u64 {
        self.bytes_dropped
    }

    /// Takes text that is complete in itself.
    pub(crate) fn entry(&mut self, sink: &mut impl Sink, level: Level, text: &[u8]) {
        let mut rest = text;
        loop {
            let (line, more) = cut(rest, LOG_LINE_BYTES_MAX);
            self.line(sink, level, line);
            if more.is_empty() {
                return;
            }
            // Without this a text of many gigabytes would be walked only to be dropped.
            if self.bytes_left == 0 {
                self.bytes_dropped += more.len() as u64;
                return;
            }
            rest = more;
        }
    }

    /// Takes text of a stream: whole lines go to the sink, the rest waits for its end.
    pub(crate) fn write(&mut self, sink: &mut impl Sink, stream: Stream, text: &[u8]) {
        if stream == Stream::Err {
            keep_tail(&mut self.stderr_tail, text);
        }
        if self.bytes_left == 0 {
            self.bytes_dropped += text.len() as u64;
            return;
        }
        let mut pending = std::mem::take(self.pending(stream));
        let mut taken = 0;
        // In pieces, so that a line without an end never fills the host's memory.
        for piece in text.chunks(LOG_LINE_BYTES_MAX) {
            if self.bytes_left == 0 {
                break;
            }
            taken += piece.len();
            self.write_piece(sink, stream.level(), &mut pending, piece);
        }
        self.bytes_dropped += (text.len() - taken) as u64;
        *self.pending(stream) = pending;
    }

    fn write_piece(
        &mut self,
        sink: &mut impl Sink,
        level: Level,
        pending: &mut Vec<u8>,
        piece: &[u8],
    ) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            match part.split_last() {
                Some((b'\n', line)) if pending.is_empty() => self.entry(sink, level, line),
                Some((b'\n', line)) => {
                    pending.extend_from_slice(line);
                    self.entry(sink, level, pending);
                    pending.clear();
                }
                _ => pending.extend_from_slice(part),
            }
        }
        while pending.len() > LOG_LINE_BYTES_MAX {
            let (line, _) = cut(pending, LOG_LINE_BYTES_MAX);
            let len = line.len();
            self.line(sink, level, line);
            pending.drain(..len);
        }
    }

    /// Passes on lines that have no end yet: a call is over, so none will come.
    pub(crate) fn flush(&mut self, sink: &mut impl Sink) {
        for stream in [Stream::Out, Stream::Err] {
            if !self.pending(stream).is_empty() {
                let line = std::mem::take(self.pending(stream));
                self.entry(sink, stream.level(), &line);
            }
        }
    }

    /// The end of what was written to standard error.
    pub(crate) fn take_stderr_tail(&mut self) -> String {
        let tail = std::mem::take(&mut self.stderr_tail);
        String::from_utf8_lossy(&tail).trim_end().to_owned()
    }

    const fn pending(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        }
    }

    fn line(&mut self, sink: &mut impl Sink, level: Level, line: &[u8]) {
        // The end of a line counts as well, so that empty lines are bounded too.
        let cost = line.len() + 1;
        if self.bytes_left >= cost {
            self.bytes_left -= cost;
            sink.log(level, &String::from_utf8_lossy(line));
            return;
        }
        if self.bytes_left > 0 {
            self.bytes_left = 0;
            let note = format!(
                "the log limit of {} bytes is reached, the rest is dropped",
                self.bytes_max
            );
            sink.log(Level::Warn, &note);
        }
        self.bytes_dropped += line.len() as u64;
    }
}

/// Splits text after at most so many bytes, not inside of a character.
fn cut(text: &[u8], bytes_max: usize) -> (&[u8], &[u8]) {
    let mut end = bytes_max.min(text.len());
    for _ in 0..3 {
        match text.get(end) {
            Some(byte) if byte & 0xc0 == 0x80 && end > 0 => end -= 1,
            _ => break,
        }
    }
    text.split_at_checked(end).unwrap_or((text, &[]))
}

fn keep_tail(tail: &mut Vec<u8>, text: &[u8]) {
    let from = text.len().saturating_sub(STDERR_TAIL_BYTES_MAX);
    tail.extend_from_slice(text.get(from..).unwrap_or_default());
    let excess = tail.len().saturating_sub(STDERR_TAIL_BYTES_MAX);
    tail.drain(..excess);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wasm::tests::Collect;

    fn lines(sink: &Collect) -> Vec<&str> {
        sink.logs.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn a_line_comes_whole_however_it_was_written() {
        let (mut log, mut sink) = (LineLog::new(1_000), Collect::default());
        log.write(&mut sink, Stream::Out, b"on");
        log.write(&mut sink, Stream::Err, b"other\n");
        assert_eq!(lines(&sink), ["other"]);
        log.write(&mut sink, Stream::Out, b"e\ntwo\n\nth");
        assert_eq!(lines(&sink), ["other", "one", "two", ""]);
        log.flush(&mut sink);
        assert_eq!(lines(&sink), ["other", "one", "two", "", "th"]);
        assert_eq!(log.take_stderr_tail(), "other");
        assert_eq!(sink.logs[0].0, Level::Warn);
        assert_eq!(sink.logs[1].0, Level::Info);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let (mut log, mut sink) = (LineLog::new(1 << 20), Collect::default());
        let text = "ä".repeat(LOG_LINE_BYTES_MAX);
        log.write(&mut sink, Stream::Out, format!("x{text}").as_bytes());
        log.flush(&mut sink);
        assert!(sink.logs.len() == 3 && lines(&sink).concat() == format!("x{text}"));
    }

    #[test]
    fn beyond_its_limit_a_log_is_dropped_with_one_note() {
        let (mut log, mut sink) = (LineLog::new(20), Collect::default());
        for _ in 0..100 {
            log.write(&mut sink, Stream::Out, b"123456789\n");
        }
        assert_eq!(lines(&sink)[..2], ["123456789", "123456789"]);
        assert_eq!(log.bytes_dropped(), 980);
        let (mut log, mut sink) = (LineLog::new(25), Collect::default());
        for _ in 0..100 {
            log.write(&mut sink, Stream::Out, b"123456789\n");
        }
        assert_eq!(sink.logs.len(), 3);
        assert!(lines(&sink)[2].contains("limit of 25 bytes"));
    }
}
