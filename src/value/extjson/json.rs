//! JSON as text has it: names in their order, also those that are there twice, and numbers as they are written.

use crate::config::NESTING_DEPTH_MAX;

/// A piece of JSON.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    /// The number's own text.
    Number(String),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Reads one value that fills the text.
///
/// # Errors
/// What is wrong, and at which character, counted from one.
pub(super) fn parse(text: &str) -> Result<Json, String> {
    let mut parser = Parser { rest: text.chars(), read: 0 };
    let value = parser.value(0)?;
    parser.space();
    match parser.peek() {
        None => Ok(value),
        Some(_) => Err(parser.fault("nothing more was expected")),
    }
}

/// Whether the text is JSON, whatever it may mean.
#[must_use]
pub fn is_json(text: &str) -> bool {
    parse(text).is_ok()
}

struct Parser<'a> {
    rest: std::str::Chars<'a>,
    read: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        self.read += usize::from(next.is_some());
        next
    }

    /// A fault of the character that comes next.
    fn fault(&self, what: &str) -> String {
        match self.peek() {
            Some(found) => format!("{what}, found {found:?} at character {}", self.read + 1),
            None => format!("{what}, but the text ends"),
        }
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\n' | '\r')) {
            self.next();
        }
    }

    fn take(&mut self, wanted: char, what: &str) -> Result<(), String> {
        match self.peek() {
            Some(found) if found == wanted => {
                self.next();
                Ok(())
            }
            _ => Err(self.fault(what)),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Json, String> {
        self.space();
        match self.peek() {
            Some('{') => self.object(depth + 1),
            Some('[') => self.array(depth + 1),
            Some('"') => self.string().map(Json::String),
            Some('-' | '0'..='9') => self.number(),
            Some('t') => self.word("true", Json::Bool(true)),
            Some('f') => self.word("false", Json::Bool(false)),
            Some('n') => self.word("null", Json::Null),
            _ => Err(self.fault("a value was expected")),
        }
    }

    fn word(&mut self, word: &str, value: Json) -> Result<Json, String> {
        for letter in word.chars() {
            self.take(letter, "a value was expected")?;
        }
        Ok(value)
    }

    fn deeper(&self, depth: usize) -> Result<(), String> {
        match depth > NESTING_DEPTH_MAX {
            true => Err(format!("it is nested deeper than {NESTING_DEPTH_MAX} levels")),
            false => Ok(()),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json, String> {
        self.deeper(depth)?;
        self.next();
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(']') {
            self.next();
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value(depth)?);
            self.space();
            match self.peek() {
                Some(',') => self.next(),
                Some(']') => {
                    self.next();
                    return Ok(Json::Array(items));
                }
                _ => return Err(self.fault("`,` or `]` was expected")),
            };
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, String> {
        self.deeper(depth)?;
        self.next();
        let mut fields = Vec::new();
        self.space();
        if self.peek() == Some('}') {
            self.next();
            return Ok(Json::Object(fields));
        }
        loop {
            self.space();
            if self.peek() != Some('"') {
                return Err(self.fault("a name in double quotes was expected"));
            }
            let name = self.string()?;
            self.space();
            self.take(':', "`:` was expected")?;
            fields.push((name, self.value(depth)?));
            self.space();
            match self.peek() {
                Some(',') => self.next(),
                Some('}') => {
                    self.next();
                    return Ok(Json::Object(fields));
                }
                _ => return Err(self.fault("`,` or `}` was expected")),
            };
        }
    }

    fn number(&mut self) -> Result<Json, String> {
        let mut text = String::new();
        while let Some(digit @ ('-' | '+' | '.' | 'e' | 'E' | '0'..='9')) = self.peek() {
            text.push(digit);
            self.next();
        }
        let unsigned = text.strip_prefix('-').unwrap_or(&text);
        let (whole, rest) = split_digits(unsigned);
        let mut sound = !whole.is_empty() && (whole == "0" || !whole.starts_with('0'));
        let mut rest = rest;
        if let Some(fraction) = rest.strip_prefix('.') {
            let (digits, left) = split_digits(fraction);
            (sound, rest) = (sound && !digits.is_empty(), left);
        }
        if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
            let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            let (digits, left) = split_digits(exponent);
            (sound, rest) = (sound && !digits.is_empty(), left);
        }
        if sound && rest.is_empty() {
            return Ok(Json::Number(text));
        }
        Err(format!("{text} is no number, at character {}", self.read + 1 - text.len()))
    }

    fn string(&mut self) -> Result<String, String> {
        self.next();
        let mut text = String::new();
        loop {
            match self.peek() {
                None => return Err(self.fault("the end of a string was expected")),
                Some('"') => {
                    self.next();
                    return Ok(text);
                }
                Some('\\') => {
                    self.next();
                    text.push(self.escaped()?);
                }
                Some(control) if control < ' ' => {
                    return Err(self.fault("a control character in a string is written \\u00XX"));
                }
                Some(letter) => {
                    text.push(letter);
                    self.next();
                }
            }
        }
    }

    fn escaped(&mut self) -> Result<char, String> {
        let letter = match self.peek() {
            Some(same @ ('"' | '\\' | '/')) => same,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => return self.unicode(),
            _ => return Err(self.fault("an escape like \\n or \\u0041 was expected")),
        };
        self.next();
        Ok(letter)
    }

    fn unicode(&mut self) -> Result<char, String> {
        let lone = |parser: &Self| parser.fault("\\u must not name half of a pair alone");
        let high = self.unit()?;
        if !(0xD800..0xE000).contains(&high) {
            return char::from_u32(high).ok_or_else(|| lone(self));
        }
        if high >= 0xDC00 || self.peek() != Some('\\') {
            return Err(lone(self));
        }
        self.next();
        if self.peek() != Some('u') {
            return Err(lone(self));
        }
        let low = self.unit()?;
        if !(0xDC00..0xE000).contains(&low) {
            return Err(lone(self));
        }
        char::from_u32(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)).ok_or_else(|| lone(self))
    }

    /// The four digits after `\u`, with the `u`.
    fn unit(&mut self) -> Result<u32, String> {
        self.next();
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|digit| digit.to_digit(16));
            let digit = digit
                .ok_or_else(|| self.fault("four hexadecimal digits were expected after \\u"))?;
            self.next();
            unit = unit << 4 | digit;
        }
        Ok(unit)
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}
