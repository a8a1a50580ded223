//! A look at a document before values are made of it: a document of 16 MiB can be more than a gigabyte of them.

use crate::config::NESTING_DEPTH_MAX;
use crate::job::limits::DOCUMENT_ELEMENTS_MAX;
use crate::value::{Elements, code_and_scope, tag};

/// Counts the elements of a document as far as [`DOCUMENT_ELEMENTS_MAX`], those of documents in it among them.
///
/// # Errors
/// What is wrong: too many of them, too deep, or no document at all.
pub fn check(document: &[u8]) -> Result<(), String> {
    let mut open = vec![Elements::new(document)];
    let mut count = 0_usize;
    while let Some(elements) = open.last_mut() {
        let Some((_, value)) = elements.next().map_err(|error| error.to_string())? else {
            open.pop();
            continue;
        };
        count += 1;
        if count > DOCUMENT_ELEMENTS_MAX {
            return Err(format!("it has more than {DOCUMENT_ELEMENTS_MAX} fields and elements"));
        }
        let inner = match value.tag {
            tag::DOCUMENT | tag::ARRAY => Some(value.bytes),
            tag::CODE_WITH_SCOPE => code_and_scope(value.bytes).map(|(_, scope)| scope),
            _ => None,
        };
        if let Some(inner) = inner {
            if open.len() >= NESTING_DEPTH_MAX {
                return Err(format!("it is nested deeper than {NESTING_DEPTH_MAX} levels"));
            }
            open.push(Elements::new(inner));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bson::{Bson, Document, doc};

    use super::*;

    #[test]
    fn a_shape_is_told_without_values() {
        let mut deep = doc! {};
        for _ in 0..NESTING_DEPTH_MAX - 1 {
            deep = doc! { "a": deep };
        }
        let bytes = |doc: &Document| bson::serialize_to_vec(doc).unwrap();
        assert_eq!(check(&bytes(&deep)), Ok(()));
        assert!(check(&bytes(&doc! { "a": deep })).unwrap_err().contains("deeper"));
        let many: Vec<Bson> = vec![Bson::Null; DOCUMENT_ELEMENTS_MAX - 1];
        assert_eq!(check(&bytes(&doc! { "a": &many })), Ok(()));
        let more = check(&bytes(&doc! { "a": many, "b": 1, "c": 1 }));
        assert!(more.unwrap_err().contains("more than"));
        assert!(check(b"\x09\0\0\0\x10").is_err());
    }
}
