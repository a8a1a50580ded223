//! Documents that users made, within documents of Aviary's own, read and written as they are.
//!
//! Between serde and BSON's types the bson crate takes `{"$date": …}` and its kin for extended JSON: a query or a parameter
//! would become another one. It does not where it reads and writes bytes. So fields that hold what a user gave are read by
//! these functions (`#[serde(deserialize_with = "crate::exact::document")]`), from bytes, and what has such fields is
//! written by [`written`].

use bson::{Document, RawDocumentBuf};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// A value as a document.
///
/// # Errors
/// What does not serialize.
pub(crate) fn written<T: Serialize>(value: &T) -> bson::error::Result<Document> {
    Document::try_from(RawDocumentBuf::from_bytes(bson::serialize_to_vec(value)?)?)
}

/// A document as it is.
///
/// # Errors
/// What is no document, and text in it that is not UTF-8.
pub(crate) fn document<'de, D: Deserializer<'de>>(from: D) -> Result<Document, D::Error> {
    let raw = RawDocumentBuf::deserialize(from)?;
    Document::try_from(raw).map_err(D::Error::custom)
}

/// The same of one that may be missing or null.
///
/// # Errors
/// Those of [`document`].
pub(crate) fn maybe<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Document>, D::Error> {
    let raw = Option::<RawDocumentBuf>::deserialize(from)?;
    raw.map(Document::try_from).transpose().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    struct Held {
        #[serde(deserialize_with = "document")]
        one: Document,
        #[serde(default, deserialize_with = "maybe", skip_serializing_if = "Option::is_none")]
        other: Option<Document>,
    }

    #[test]
    fn what_looks_like_extended_json_stays_what_it_is() {
        let looks = doc! {
            "at": { "$gt": { "$date": "2026-06-01T00:00:00Z" } },
            "n": [{ "$numberLong": "100" }, { "$oid": "abc" }, { "$date": "soon" }],
            "real": bson::DateTime::from_millis(5),
        };
        let held = Held { one: looks.clone(), other: Some(looks.clone()) };
        let document = written(&held).unwrap();
        assert_eq!(document, doc! { "one": looks.clone(), "other": looks });
        assert_eq!(
            bson::deserialize_from_slice::<Held>(&document.to_vec().unwrap()).unwrap(),
            held
        );
        let read = |given: Document| bson::deserialize_from_slice::<Held>(&given.to_vec().unwrap());
        let bare = read(doc! { "one": {}, "other": null }).unwrap();
        assert_eq!(bare, Held { one: doc! {}, other: None });
        assert!(read(doc! { "one": 5 }).is_err());
    }
}
