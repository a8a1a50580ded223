//! The only way to standard output and standard error.
//!
//! Names, tags, logs, errors and results come from other people, and a terminal obeys what it prints: an escape
//! sequence can change the window's title, forge lines or fill the clipboard, and a bidirectional control can
//! show text in another order than it has. So every byte goes through [`Escaped`], which keeps printable text,
//! newlines and tabs and writes everything else as `\u001b`. That is JSON's own notation, so a line of JSON
//! stays the same JSON. Bytes that are not UTF-8 are written as `\xff`.
//!
//! Standard error also loses the credentials of every connection string in it (see [`Escaped`]). That is the
//! last resort: [`store::uri`](crate::store::uri) keeps them out of errors in the first place.
//!
//! Clippy forbids `println!` and the like in this crate; a test below looks for other ways around.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, Stderr, Stdout, Write};

/// Standard output. Call `flush` to learn whether everything was written.
pub fn out() -> Escaped<Stdout> {
    Escaped { to: io::stdout(), pending: Vec::new(), hides_credentials: false }
}

/// Standard error.
pub fn err() -> Escaped<Stderr> {
    Escaped { to: io::stderr(), pending: Vec::new(), hides_credentials: true }
}

/// Writes a line to standard error; `tell!` is the way to call it.
pub fn tell_line(text: fmt::Arguments<'_>) {
    // With nowhere to write there is nobody to tell.
    let _ = err().write_all(format!("{text}\n").as_bytes());
}

/// Writes a line to standard error, as `eprintln!` does.
macro_rules! tell {
    ($($text:tt)*) => { $crate::terminal::tell_line(::std::format_args!($($text)*)) };
}
pub(crate) use tell;

/// A writer that makes text safe for a terminal, line by line. What has no newline yet is written when it is
/// flushed or dropped.
#[derive(Debug)]
pub struct Escaped<W: Write> {
    to: W,
    pending: Vec<u8>,
    hides_credentials: bool,
}

impl<W: Write> Escaped<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            escape(&mut text, chunk.valid(), is_kept);
            for byte in chunk.invalid() {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
        let text =
            if self.hides_credentials { without_credentials(&text) } else { Cow::Borrowed(&*text) };
        self.to.write_all(text.as_bytes())
    }
}

impl<W: Write> Write for Escaped<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        if let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n') {
            let rest = self.pending.split_off(self.pending.len() - (bytes.len() - last - 1));
            let lines = std::mem::replace(&mut self.pending, rest);
            self.put(&lines)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.pending);
        self.put(&rest)?;
        self.to.flush()
    }
}

impl<W: Write> Drop for Escaped<W> {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

/// Text that stays in its line: a newline in it is shown, not obeyed, so that it cannot pass for a line of ours.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    escape(&mut line, text, |_| false);
    line
}

/// A name as a script may read it back: like [`one_line`], with backslashes doubled, so that no two names are
/// written alike.
pub fn name(text: &str) -> String {
    one_line(&text.replace('\\', "\\\\"))
}

/// Whether a terminal shows the text as it is.
pub fn is_plain(text: &str) -> bool {
    text.chars().all(|c| is_kept(c) || !obeyed(c))
        && matches!(without_credentials(text), Cow::Borrowed(_))
}

fn is_kept(c: char) -> bool {
    matches!(c, '\n' | '\t')
}

/// What a terminal does not just show: C0, DEL, C1, line separators, and controls of the writing direction.
fn obeyed(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

fn escape(into: &mut String, text: &str, kept: impl Fn(char) -> bool) {
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if !obeyed(c) || kept(c) {
            into.push(c);
            continue;
        }
        match c {
            // The end of a line in a file from elsewhere.
            '\r' if kept('\n') && chars.peek() == Some(&'\n') => {}
            '\n' => into.push_str("\\n"),
            '\t' => into.push_str("\\t"),
            c => {
                let _ = write!(into, "\\u{:04x}", u32::from(c));
            }
        }
    }
}

/// The text without users, passwords and options in connection strings.
///
/// Nobody knows where a password ends, so everything goes up to the last `@` before the line or the quoted
/// string ends.
fn without_credentials(text: &str) -> Cow<'_, str> {
    const SCHEMES: [&str; 2] = ["mongodb://", "mongodb+srv://"];
    let mut shown = String::new();
    let mut rest = text;
    while let Some((at, scheme)) =
        SCHEMES.iter().filter_map(|s| Some((rest.find(s)?, *s))).min_by_key(|(at, _)| *at)
    {
        let (before, uri) = rest.split_at(at + scheme.len());
        shown.push_str(before);
        let (uri, after) = uri.split_at(end_of_string(uri));
        let (user, address) = match uri.rsplit_once('@') {
            Some((_, address)) => ("***@", address),
            None => ("", uri),
        };
        let end = address.find(|c: char| c.is_whitespace() || matches!(c, '\'' | '`' | ')'));
        let (address, tail) = address.split_at(end.unwrap_or(address.len()));
        shown.push_str(user);
        match address.split_once('?') {
            Some((hosts, options)) if !user.is_empty() || may_hold_secrets(options) => {
                shown.push_str(hosts);
                shown.push_str("?***");
            }
            _ => shown.push_str(address),
        }
        // It may hold another one.
        shown.push_str(&without_credentials(tail));
        rest = after;
    }
    if shown.is_empty() {
        return Cow::Borrowed(text);
    }
    shown.push_str(rest);
    if shown == text { Cow::Borrowed(text) } else { Cow::Owned(shown) }
}

/// Whether a URI's options are such that a secret can be among them.
fn may_hold_secrets(options: &str) -> bool {
    let options = options.to_ascii_lowercase();
    ["password", "properties", "token", "secret", "key"].iter().any(|word| options.contains(word))
}

/// Where the line ends, or the string of a JSON document.
fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '\n' => return at,
            '"' if !escaped => return at,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(bytes: &[u8], hides_credentials: bool, size: usize) -> String {
        let mut to = Vec::new();
        let mut writer = Escaped { to: &mut to, pending: Vec::new(), hides_credentials };
        for piece in bytes.chunks(size) {
            writer.write_all(piece).unwrap();
        }
        drop(writer);
        String::from_utf8(to).unwrap()
    }

    #[test]
    fn no_control_passes_whatever_it_is_written_in() {
        let all: String = (0..=0x2_ffff).filter_map(char::from_u32).collect();
        for size in [1, 2, 3, 7, all.len()] {
            let shown = through(all.as_bytes(), false, size);
            assert!(shown.chars().all(|c| is_kept(c) || !c.is_control()));
            let bidi = ['\u{202e}', '\u{2066}', '\u{2069}', '\u{200f}', '\u{61c}', '\u{2028}'];
            assert!(!shown.contains(bidi));
            assert!(shown.contains("äß漢👍\u{200d}") || shown.contains('漢'));
        }
        assert_eq!(
            through(b"a\x1b[31m\r\n\tb\rc\xff\xc2", false, 1),
            "a\\u001b[31m\n\tb\\u000dc\\xff\\xc2"
        );
    }

    #[test]
    fn json_stays_the_same_json() {
        let value = serde_json::json!({ "k\u{7f}\u{85}": "\u{1b}\n\u{202e}\u{2028}\\u001b ä" });
        let shown = through(value.to_string().as_bytes(), true, 5);
        assert!(shown.is_ascii() || !shown.contains('\u{202e}'));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn lines_and_names_stay_in_their_line_and_names_are_told_apart() {
        assert_eq!(one_line("a\n\tb\r\u{9b}"), "a\\n\\tb\\u000d\\u009b");
        assert_ne!(name("a\nb"), name("a\\nb"));
        assert_ne!(name("\u{1b}"), name("\\u001b"));
    }

    #[test]
    fn credentials_go_and_the_rest_stays() {
        for (text, expected) in [
            ("see mongodb://u:p@h:1/db?x=y, then", "see mongodb://***@h:1/db?*** then"),
            ("mongodb+srv://u:p q@r@h'", "mongodb+srv://***@h'"),
            ("mongodb://h/db and mongodb://u:p@g", "mongodb://***@g"),
            (
                "{\"a\":\"mongodb://u:p\\\"q@h\",\"b\":\"c@d\"}",
                "{\"a\":\"mongodb://***@h\",\"b\":\"c@d\"}",
            ),
            ("mongodb://h:1/db at a", "mongodb://h:1/db at a"),
            ("at mongodb://h:1/db?replicaSet=rs0; use", "at mongodb://h:1/db?replicaSet=rs0; use"),
            ("mongodb://h/?authMechanismProperties=T:s x", "mongodb://h/?*** x"),
            ("mongodb://h/\nmongodb://u:p@g/\n", "mongodb://h/\nmongodb://***@g/\n"),
        ] {
            assert_eq!(through(text.as_bytes(), true, 4), expected);
        }
    }

    #[test]
    fn nothing_in_this_crate_writes_to_the_terminal_by_itself() {
        let mut dirs = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
        let mut files = 0;
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    dirs.push(entry);
                    continue;
                }
                let text = std::fs::read_to_string(&entry).unwrap_or_default();
                if entry.ends_with("src/terminal.rs") {
                    continue;
                }
                files += 1;
                for way in
                    ["io::stdout", "io::stderr", "println!(", "eprint!(", " print!(", "/dev/tty"]
                {
                    let text = text.replace("io::stderr().is_terminal()", "");
                    // A child's standard output is its parent's pipe.
                    if way == "io::stdout" && entry.ends_with("src/wasm/compile_child.rs") {
                        continue;
                    }
                    assert!(!text.contains(way), "{} uses {way}", entry.display());
                }
            }
        }
        assert!(files > 50, "{files}");
    }
}
