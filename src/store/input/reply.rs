//! A reply of an input's cursor, read document by document without a copy.

use mongodb::raw_batch_cursor::RawBatch;

use crate::error::{Error, Result};
use crate::store::error::Action;
use crate::value::{Elements, tag};

/// One reply of a cursor, or its first documents.
#[derive(Debug)]
pub struct InputBatch {
    reply: RawBatch,
    most: usize,
}

impl InputBatch {
    /// All documents of a reply.
    pub(in crate::store) fn whole(reply: RawBatch) -> Self {
        Self::first(reply, usize::MAX)
    }

    /// The first so many documents of a reply.
    pub(in crate::store) fn first(reply: RawBatch, most: usize) -> Self {
        Self { reply, most }
    }

    /// Calls `each` with every document's bytes, in order, until it fails.
    ///
    /// # Errors
    /// What `each` returns, or [`Error::Internal`] for a reply that is no reply.
    pub fn for_each<'a>(&'a self, mut each: impl FnMut(&'a [u8]) -> Result<()>) -> Result<()> {
        let array = self.reply.doc_slices().action("read a reply")?;
        for doc in documents(array.as_bytes()).take(self.most) {
            each(doc.ok_or_else(malformed)?)?;
        }
        Ok(())
    }
}

/// How many documents a reply has.
///
/// # Errors
/// [`Error::Internal`] for a reply that is no reply.
pub(in crate::store) fn batch_documents(reply: &RawBatch) -> Result<usize> {
    let array = reply.doc_slices().action("read a reply")?;
    documents(array.as_bytes())
        .try_fold(0, |count, doc| doc.map(|_| count + 1))
        .ok_or_else(malformed)
}

fn malformed() -> Error {
    Error::Internal("a reply is malformed".into())
}

/// The documents of an array of documents; `None` where there is something else.
fn documents(array: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut elements = Elements::new(array);
    std::iter::from_fn(move || match elements.next() {
        Ok(element) => {
            element.map(|(_, value)| (value.tag == tag::DOCUMENT).then_some(value.bytes))
        }
        Err(_) => Some(None),
    })
}

#[cfg(test)]
mod tests {
    use bson::{RawDocumentBuf, rawdoc};

    use super::documents;

    #[test]
    fn a_reply_is_read_document_by_document() {
        for count in [0, 1, 12, 1_001] {
            let docs: Vec<RawDocumentBuf> =
                (0..count).map(|n| rawdoc! { "n": n, "": {} }).collect();
            let mut array = bson::RawArrayBuf::new();
            docs.iter().for_each(|doc| array.push(doc.clone()));
            let read: Option<Vec<&[u8]>> = documents(array.as_bytes()).collect();
            let expected: Vec<&[u8]> = docs.iter().map(|doc| doc.as_bytes()).collect();
            assert_eq!(read, Some(expected));
        }
    }

    #[test]
    fn what_is_no_array_of_documents_ends_without_one() {
        let mut array = bson::RawArrayBuf::new();
        array.push(rawdoc! { "n": 1 });
        let whole = array.as_bytes();
        let cut = (0..whole.len() - 1).map(|end| whole.get(..end).unwrap_or_default().to_vec());
        let mut number = bson::RawArrayBuf::new();
        number.push(1_i32);
        let mut negative = whole.to_vec();
        if let Some(length) = negative.get_mut(7..11) {
            length.fill(0xff);
        }
        for bad in cut.chain([number.as_bytes().to_vec(), negative, b"\x05\0\0\0\x03".to_vec()]) {
            let read: Vec<Option<&[u8]>> = documents(&bad).take(3).collect();
            assert_eq!(read.last(), Some(&None), "{bad:?}");
        }
    }
}
