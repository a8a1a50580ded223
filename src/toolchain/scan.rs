//! Which functions a file defines at its top level.
//!
//! The exports of a module follow from it, so that nobody has to list them. It is a scan, not a
//! parser: it knows comments, strings and brackets of the languages, which is enough to tell a
//! function from a method, a nested one and the mention of one. What is no code anyway, the
//! compiler refuses.

use super::Language;

/// A function's name and line, counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) line: usize,
}

/// The functions that `keyword` introduces outside of all brackets.
pub(super) fn functions(language: Language, text: &str, keyword: &str) -> Vec<Function> {
    let mut scan = Scan { language, rest: text, line: 1 };
    let mut found = Vec::new();
    let mut depth = 0usize;
    let mut after_keyword = false;
    while let Some(token) = scan.next() {
        match token {
            Token::Open => depth += 1,
            Token::Close => depth = depth.saturating_sub(1),
            Token::Word(word) if depth == 0 => {
                if after_keyword {
                    found.push(Function { name: word.to_owned(), line: scan.line });
                }
                after_keyword = word == keyword;
                continue;
            }
            Token::Word(_) | Token::Other => {}
        }
        after_keyword = false;
    }
    found
}

enum Token<'a> {
    Open,
    Close,
    Word(&'a str),
    Other,
}

struct Scan<'a> {
    language: Language,
    rest: &'a str,
    line: usize,
}

impl<'a> Scan<'a> {
    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let first = self.rest.chars().next()?;
            if first.is_whitespace() {
                self.take(first.len_utf8());
            } else if self.rest.starts_with("//")
                // A line of a string of several lines.
                || (self.language == Language::Zig && self.rest.starts_with("\\\\"))
            {
                let end = self.rest.find('\n').unwrap_or(self.rest.len());
                self.take(end);
            } else if self.rest.starts_with("/*") && self.language != Language::Zig {
                self.block_comment();
            } else {
                return Some(self.token(first));
            }
        }
    }

    fn token(&mut self, first: char) -> Token<'a> {
        if let Some(hashes) = self.raw_string() {
            self.until(&format!("\"{}", "#".repeat(hashes)));
            return Token::Other;
        }
        match first {
            '(' | '[' | '{' => {
                self.take(1);
                Token::Open
            }
            ')' | ']' | '}' => {
                self.take(1);
                Token::Close
            }
            '`' if self.language == Language::Go => {
                self.take(1);
                self.until("`");
                Token::Other
            }
            '`' | '"' => self.quoted(first),
            '\'' if self.language != Language::Rust || self.is_rust_char() => self.quoted('\''),
            c if c.is_alphanumeric() || c == '_' => {
                let word = |c: char| c.is_alphanumeric() || c == '_';
                let end = self.rest.find(|c| !word(c)).unwrap_or(self.rest.len());
                Token::Word(self.take(end))
            }
            other => {
                self.take(other.len_utf8());
                Token::Other
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Token<'a> {
        let mut escaped = true;
        let end = self.rest.find(|c| {
            let ends = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        self.take(end.map_or(self.rest.len(), |end| end + 1));
        Token::Other
    }

    /// Begins a raw string of Rust: takes its beginning, tells how many `#` end it.
    fn raw_string(&mut self) -> Option<usize> {
        if self.language != Language::Rust {
            return None;
        }
        let after = self.rest.strip_prefix("br").or_else(|| self.rest.strip_prefix('r'))?;
        let hashes = after.len() - after.trim_start_matches('#').len();
        after.get(hashes..)?.strip_prefix('"')?;
        let begun = self.rest.len() - after.len() + hashes + 1;
        self.take(begun);
        Some(hashes)
    }

    /// `'a'` and `'\n'`, not `'a` as in a lifetime.
    fn is_rust_char(&self) -> bool {
        let mut chars = self.rest.chars().skip(1);
        chars.next() == Some('\\') || chars.next() == Some('\'')
    }

    fn block_comment(&mut self) {
        let mut depth = 0usize;
        loop {
            let nested = depth == 0 || self.language == Language::Rust;
            if nested && self.rest.starts_with("/*") {
                depth += 1;
                self.take(2);
            } else if self.rest.starts_with("*/") {
                depth -= 1;
                self.take(2);
                if depth == 0 {
                    return;
                }
            } else {
                let Some(next) = self.rest.chars().next() else { return };
                self.take(next.len_utf8());
            }
        }
    }

    fn until(&mut self, end: &str) {
        let at = self.rest.find(end).map_or(self.rest.len(), |at| at + end.len());
        self.take(at);
    }

    /// Takes so many bytes, counting their lines.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(language: Language, keyword: &str, text: &str) -> Vec<(String, usize)> {
        functions(language, text, keyword).into_iter().map(|f| (f.name, f.line)).collect()
    }

    #[test]
    fn go_functions_are_found_and_methods_comments_and_strings_are_not() {
        let text = "package main\n/* func A() {} /* */\n// func B() {}\nvar s = `func C() {`\n\
                    var t = \"func D() \\\" {\"\nvar r = '{'\nfunc (x T) Method() {}\nfunc Map(doc D) {\n\
                    \tfunc Inner() {}\n\tf := func() {}\n}\nfunc\nReduce() {}\n";
        assert_eq!(
            names(Language::Go, "func", text),
            [("Map".to_owned(), 8), ("Reduce".to_owned(), 13)]
        );
    }

    #[test]
    fn rust_functions_are_found_between_lifetimes_raw_strings_and_nested_comments() {
        let text = "use aviary::*;\n/* /* fn a() {} */ fn b() {} */\nconst S: &str = r#\"fn c() { \" \"#;\n\
                    const C: char = '{'; const Q: char = '\\'';\npub fn map<'a>(doc: &'a Doc) { fn inner() {} }\n\
                    mod m { pub fn nested() {} }\nimpl T { fn method() {} }\nfn reduce() {}\n";
        assert_eq!(
            names(Language::Rust, "fn", text),
            [("map".to_owned(), 5), ("reduce".to_owned(), 8)]
        );
    }

    #[test]
    fn assemblyscript_functions_are_found_between_templates() {
        let text = "import { Doc } from \"aviary\";\nconst a = `function x() {`;\n\
                    export function map(doc: Doc): void { }\nclass C { reduce(): void {} }\n";
        assert_eq!(names(Language::AssemblyScript, "function", text), [("map".to_owned(), 3)]);
    }

    #[test]
    fn zig_functions_are_found_between_lines_of_strings() {
        let text = "const aviary = @import(\"aviary\");\nconst s =\n    \\\\ fn x() { ' \"\n;\nconst c = '\\'';\n\
                    const S = struct { fn inner() void {} };\npub fn map(doc: aviary.Doc) void {}\n";
        assert_eq!(names(Language::Zig, "fn", text), [("map".to_owned(), 7)]);
    }

    #[test]
    fn text_that_ends_in_the_middle_ends_the_scan() {
        for text in ["/* func", "\"func", "`", "'", "func", "r#\"", "fn a() { \"\\"] {
            for language in Language::ALL {
                assert!(names(language, "func", text).is_empty(), "{language} {text}");
            }
        }
    }
}
