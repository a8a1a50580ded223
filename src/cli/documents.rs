//! Documents from a file of extended JSON, one a line.

use std::io::{BufRead, Read};
use std::path::Path;

use bson::RawDocumentBuf;

use crate::config;
use crate::error::{Error, Result};
use crate::files;
use crate::value::extjson::{self, Of};

/// Reads at most so many documents; `-` is standard input. Empty lines are skipped.
pub(super) fn read(file: &Path, most: usize) -> Result<Vec<RawDocumentBuf>> {
    let shown = if file == Path::new("-") {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    };
    let reader: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        let opened = std::fs::File::open(file).map_err(|e| Error::unreadable(file, e))?;
        Box::new(std::io::BufReader::new(opened))
    };
    let docs = parse(reader, &shown, most)?;
    if docs.is_empty() {
        return Err(Error::Usage(format!("{shown} holds no documents")));
    }
    Ok(docs)
}

fn parse(reader: impl BufRead, shown: &str, most: usize) -> Result<Vec<RawDocumentBuf>> {
    let mut docs = Vec::new();
    let mut reader = reader;
    let mut number = 0;
    // What comes after the documents that are wanted is not looked at.
    while docs.len() < most {
        number += 1;
        let place = format!("line {number} of {shown}");
        let Some(line) = next_line(&mut reader, &place)? else { break };
        // Some editors begin a file with a mark of its encoding.
        let line = line.trim_start_matches('\u{feff}').trim();
        if !line.is_empty() {
            let bad = |why: String| Error::Usage(format!("{place} is not a JSON document: {why}"));
            docs.push(extjson::document(line, Of::Data).map_err(bad)?);
        }
    }
    Ok(docs)
}

/// The next line with its end. None at the end of the file.
fn next_line(reader: &mut impl BufRead, place: &str) -> Result<Option<String>> {
    let limit = config::DOCUMENT_TEXT_BYTES_MAX;
    let most = u64::try_from(limit).unwrap_or(u64::MAX);
    let mut line = Vec::new();
    let read = reader.take(most).read_until(b'\n', &mut line);
    read.map_err(|e| Error::unreadable(Path::new(place), e))?;
    if line.len() >= limit {
        return Err(Error::Usage(format!("{place} is longer than {limit} bytes")));
    }
    Ok(Some(files::text(line, place)?).filter(|line| !line.is_empty()))
}

#[cfg(test)]
mod tests {
    use bson::Bson;

    use super::*;

    fn failure(text: &str) -> String {
        parse(text.as_bytes(), "docs.jsonl", 10).unwrap_err().to_string()
    }

    #[test]
    fn documents_keep_the_types_of_extended_json() {
        let text = "{\"_id\": {\"$numberLong\": \"7\"}, \"at\": {\"$date\": \"2020-01-01T00:00:00Z\"}}\r\n\n\
                    {\"n\": 1}\n{\"n\": 2}";
        let docs = parse(text.as_bytes(), "docs.jsonl", 2).unwrap();
        assert_eq!(docs.len(), 2, "no more than asked for");
        let first: bson::Document = docs[0].as_ref().try_into().unwrap();
        assert_eq!(first.get("_id"), Some(&Bson::Int64(7)));
        assert!(matches!(first.get("at"), Some(Bson::DateTime(_))));
    }

    #[test]
    fn a_bad_line_is_named() {
        assert_eq!(
            failure("{\"n\": 1}\n\n{\"n\": }\n"),
            "line 3 of docs.jsonl is not a JSON document: a value was expected, found '}' at character 7"
        );
        assert!(failure("[1]").contains("line 1") && failure("[1]").contains("must be an object"));
        assert!(failure("{}\n{\"d\": {\"$oid\": \"x\"}}").starts_with("line 2 of docs.jsonl"));
        assert!(
            parse(&b"{}\n\xff"[..], "docs.jsonl", 9)
                .unwrap_err()
                .to_string()
                .starts_with("line 2 of docs.jsonl is not text in UTF-8")
        );
        let docs = parse(&b"{}\n\xff"[..], "docs.jsonl", 1).unwrap();
        assert_eq!(docs.len(), 1, "what comes after those that are wanted is not looked at");
    }
}
