//! Updates of several documents in one command, each with a filter and an update of its own.
//!
//! A task costs the server two updates, its claim and its commit. What a command costs beside its updates is shared
//! by all in a batch: the reply, the wait for a majority, and the reading of what waits to be told of changes.

use bson::{Bson, Document, doc};
use mongodb::Database;
use mongodb::error::Error as DriverError;

use super::AVIARY;
use super::error::run_write;

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Updates whose filter matched.
    pub(super) matched: usize,
    /// Updates that failed, by their places, with the server's code.
    pub(super) failed: Vec<(usize, i32)>,
}

/// An update of one document, or of none.
pub(super) fn statement(filter: Document, update: Vec<Document>) -> Document {
    doc! { "q": filter, "u": update, "multi": false, "upsert": false }
}

/// Updates documents of Aviary's collection, all of them whatever becomes of one.
///
/// # Errors
/// The driver's, when it is not known which updates took effect, or not whether they last.
pub(super) async fn update_each(
    db: &Database,
    statements: Vec<Document>,
    concern: Document,
) -> Result<Applied, DriverError> {
    let command = doc! {
        "update": AVIARY,
        "updates": statements,
        "ordered": false,
        "writeConcern": concern,
    };
    Ok(applied(&run_write(db, command).await?))
}

/// An integer of either width; 0 for anything else.
pub(super) fn integer(value: Option<&Bson>) -> i64 {
    match value {
        Some(Bson::Int32(n)) => i64::from(*n),
        Some(Bson::Int64(n)) => *n,
        _ => 0,
    }
}

fn applied(reply: &Document) -> Applied {
    let failure = |one: &Bson| {
        let one = one.as_document()?;
        let place = usize::try_from(integer(one.get("index"))).ok()?;
        Some((place, i32::try_from(integer(one.get("code"))).unwrap_or_default()))
    };
    Applied {
        matched: usize::try_from(integer(reply.get("n"))).unwrap_or_default(),
        failed: reply
            .get_array("writeErrors")
            .map(|all| all.iter().filter_map(failure).collect())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_told_by_its_place() {
        let failure = doc! { "index": 2, "code": 14, "errmsg": "no number" };
        let applied = applied(&doc! { "n": 3, "nModified": 3, "writeErrors": [failure], "ok": 1 });
        assert_eq!((applied.matched, applied.failed), (3, vec![(2, 14)]));
    }
}
