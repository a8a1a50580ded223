//! Options of an input's reads.

use bson::{Bson, Document};
use mongodb::options::{Collation, FindOptions};

use super::InputSize;
use crate::config::{self};
use crate::error::{Error, Result};
use crate::job::Input;

/// Documents of one reply, for documents of an average size.
pub(super) fn batch_size(size: InputSize) -> u32 {
    const DOC_BYTES_GUESS: u64 = 1 << 10;
    const MOST: u32 = 100_000;
    let average = size.bytes.checked_div(size.documents).unwrap_or(DOC_BYTES_GUESS).max(16);
    u32::try_from(config::READ_BATCH_BYTES / average).map_or(MOST, |batch| batch.clamp(1, MOST))
}

pub(super) fn find_options(input: &Input, size: InputSize) -> Result<FindOptions> {
    let mut options = FindOptions::default();
    options.batch_size = Some(batch_size(size));
    options.no_cursor_timeout = Some(true);
    options.projection = input.projection.clone();
    options.sort = input.sort.clone();
    options.limit = input.limit;
    options.collation = input.collation.as_ref().map(collation).transpose()?;
    Ok(options)
}

/// A collation as the driver has it. Servers take numbers of any type, and the driver integers.
pub(super) fn collation(given: &Document) -> Result<Collation> {
    let whole = |value: &Bson| match value {
        #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and is checked")]
        Bson::Double(number) if f64::from(*number as i32) == *number => Bson::Int32(*number as i32),
        Bson::Int64(number) => i32::try_from(*number).map_or_else(|_| value.clone(), Bson::Int32),
        other => other.clone(),
    };
    let given: Document = given.iter().map(|(name, value)| (name.clone(), whole(value))).collect();
    // Left out, it would have text compared otherwise than asked, and nobody would notice.
    bson::deserialize_from_document(given)
        .map_err(|e| Error::Usage(format!("--collation is not understood: {e}")))
}
