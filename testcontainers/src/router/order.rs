//! The order the server keeps shard keys in, and hashes of them.
//!
//! Only what can stand in a shard key is ordered with care; decimals are compared as doubles.

use std::cmp::Ordering;

use md5::{Digest, Md5};
use mongodb::bson::spec::ElementType;
use mongodb::bson::{Bson, Document, RawBsonRef, RawDocument};

use super::message::{encode, invalid};

/// Types that compare with each other share a rank; ranks are those of the server.
fn rank(kind: ElementType) -> i32 {
    match kind {
        ElementType::MinKey => -1,
        ElementType::Undefined => 0,
        ElementType::Null => 5,
        ElementType::Double | ElementType::Int32 | ElementType::Int64 | ElementType::Decimal128 => {
            10
        }
        ElementType::String | ElementType::Symbol => 15,
        ElementType::EmbeddedDocument => 20,
        ElementType::Array => 25,
        ElementType::Binary => 30,
        ElementType::ObjectId => 35,
        ElementType::Boolean => 40,
        ElementType::DateTime => 45,
        ElementType::Timestamp => 47,
        ElementType::RegularExpression => 50,
        ElementType::DbPointer => 55,
        ElementType::JavaScriptCode => 60,
        ElementType::JavaScriptCodeWithScope => 65,
        ElementType::MaxKey => 127,
    }
}

/// Compares two shard keys (or bounds) field by field; names do not matter, they are the same.
pub(super) fn compare_keys(left: &Document, right: &Document) -> Ordering {
    let pairs = left.values().zip(right.values());
    let first = pairs.map(|(left, right)| compare(left, right)).find(|order| order.is_ne());
    first.unwrap_or_else(|| left.len().cmp(&right.len()))
}

fn compare(left: &Bson, right: &Bson) -> Ordering {
    let by_type = rank(left.element_type()).cmp(&rank(right.element_type()));
    by_type.then_with(|| compare_within(left, right))
}

fn compare_within(left: &Bson, right: &Bson) -> Ordering {
    match (left, right) {
        (Bson::String(left) | Bson::Symbol(left), Bson::String(right) | Bson::Symbol(right)) => {
            left.as_bytes().cmp(right.as_bytes())
        }
        (Bson::Document(left), Bson::Document(right)) => {
            let fields = left.iter().zip(right).map(|((left_name, left), (right_name, right))| {
                rank(left.element_type())
                    .cmp(&rank(right.element_type()))
                    .then_with(|| left_name.cmp(right_name))
                    .then_with(|| compare_within(left, right))
            });
            fields
                .into_iter()
                .find(|order| order.is_ne())
                .unwrap_or_else(|| left.len().cmp(&right.len()))
        }
        (Bson::Array(left), Bson::Array(right)) => {
            let items = left.iter().zip(right).map(|(left, right)| compare(left, right));
            items
                .into_iter()
                .find(|order| order.is_ne())
                .unwrap_or_else(|| left.len().cmp(&right.len()))
        }
        (Bson::Binary(left), Bson::Binary(right)) => (left.bytes.len().cmp(&right.bytes.len()))
            .then_with(|| u8::from(left.subtype).cmp(&u8::from(right.subtype)))
            .then_with(|| left.bytes.cmp(&right.bytes)),
        (Bson::ObjectId(left), Bson::ObjectId(right)) => left.bytes().cmp(&right.bytes()),
        (Bson::Boolean(left), Bson::Boolean(right)) => left.cmp(right),
        (Bson::DateTime(left), Bson::DateTime(right)) => left.cmp(right),
        (Bson::Timestamp(left), Bson::Timestamp(right)) => left.cmp(right),
        _ => compare_numbers(left, right),
    }
}

fn compare_numbers(left: &Bson, right: &Bson) -> Ordering {
    if let (Some(left), Some(right)) = (integer(left), integer(right)) {
        return left.cmp(&right);
    }
    match (float(left), float(right)) {
        // Not-a-number comes before all numbers.
        (Some(left), Some(right)) => {
            left.partial_cmp(&right).unwrap_or_else(|| right.is_nan().cmp(&left.is_nan()))
        }
        _ => Ordering::Equal,
    }
}

fn integer(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(value) => Some(i64::from(*value)),
        Bson::Int64(value) => Some(*value),
        _ => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "compared with a double, which is no more precise")]
fn float(value: &Bson) -> Option<f64> {
    match value {
        Bson::Double(value) => Some(*value),
        Bson::Decimal128(value) => value.to_string().parse().ok(),
        other => integer(other).map(|value| value as f64),
    }
}

/// The value a hashed index has for `value`, as the server computes it.
pub(super) fn hash(value: &Bson) -> std::io::Result<i64> {
    let mut holder = Document::new();
    holder.insert("", value.clone());
    let raw = encode(&holder)?;
    let mut digest = Md5::new();
    // The seed.
    digest.update(0_i32.to_le_bytes());
    for element in &raw {
        let (_, value) = element.map_err(|error| invalid(&error.to_string()))?;
        hash_value(&mut digest, value)?;
    }
    let mut first = [0; size_of::<i64>()];
    for (to, from) in first.iter_mut().zip(digest.finalize()) {
        *to = from;
    }
    Ok(i64::from_le_bytes(first))
}

fn hash_value(digest: &mut Md5, value: RawBsonRef<'_>) -> std::io::Result<()> {
    hash_head(digest, &value, None);
    hash_content(digest, value)
}

fn hash_head(digest: &mut Md5, value: &RawBsonRef<'_>, name: Option<&str>) {
    digest.update(rank(value.element_type()).to_le_bytes());
    if let Some(name) = name {
        digest.update(name.as_bytes());
        digest.update([0]);
    }
}

fn hash_content(digest: &mut Md5, value: RawBsonRef<'_>) -> std::io::Result<()> {
    match value {
        RawBsonRef::Double(value) => digest.update(truncate(value).to_le_bytes()),
        RawBsonRef::Int32(value) => digest.update(i64::from(value).to_le_bytes()),
        RawBsonRef::Int64(value) => digest.update(value.to_le_bytes()),
        RawBsonRef::Decimal128(value) => {
            let value = value.to_string().parse().unwrap_or(0.0);
            digest.update(truncate(value).to_le_bytes());
        }
        RawBsonRef::String(text) | RawBsonRef::Symbol(text) => {
            digest.update(length_word(text.len() + 1)?);
            digest.update(text.as_bytes());
            digest.update([0]);
        }
        RawBsonRef::Document(document) => hash_fields(digest, document)?,
        RawBsonRef::Array(array) => {
            let fields = RawDocument::from_bytes(array.as_bytes());
            hash_fields(digest, fields.map_err(|error| invalid(&error.to_string()))?)?;
        }
        RawBsonRef::Binary(binary) => {
            digest.update(length_word(binary.bytes.len())?);
            digest.update([u8::from(binary.subtype)]);
            digest.update(binary.bytes);
        }
        RawBsonRef::ObjectId(id) => digest.update(id.bytes()),
        RawBsonRef::Boolean(value) => digest.update([u8::from(value)]),
        RawBsonRef::DateTime(value) => digest.update(value.timestamp_millis().to_le_bytes()),
        RawBsonRef::Timestamp(value) => {
            digest.update(value.increment.to_le_bytes());
            digest.update(value.time.to_le_bytes());
        }
        RawBsonRef::Null | RawBsonRef::Undefined | RawBsonRef::MinKey | RawBsonRef::MaxKey => {}
        other => {
            return Err(invalid(&format!("a {:?} cannot be hashed", other.element_type())));
        }
    }
    Ok(())
}

fn hash_fields(digest: &mut Md5, fields: &RawDocument) -> std::io::Result<()> {
    for element in fields {
        let (name, value) = element.map_err(|error| invalid(&error.to_string()))?;
        hash_head(digest, &value, Some(name.as_str()));
        hash_content(digest, value)?;
    }
    // The end of a document counts as an element of its own.
    digest.update(0_i32.to_le_bytes());
    Ok(())
}

fn length_word(length: usize) -> std::io::Result<[u8; 4]> {
    Ok(i32::try_from(length).map_err(|_| invalid("a value is too long"))?.to_le_bytes())
}

/// Doubles hash as the integers they are cut to; what is out of range is brought into it, and
/// not-a-number is zero.
#[expect(clippy::cast_possible_truncation, reason = "the very conversion the server makes")]
fn truncate(value: f64) -> i64 {
    value as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson::{bson, doc};

    /// What `_hashBSONElement` of a 6.0.5 server answers.
    #[test]
    fn hashes_are_those_of_the_server() {
        assert_eq!(hash(&bson!(5)).unwrap(), 4_470_791_281_878_691_347);
        assert_eq!(hash(&bson!(5.9)).unwrap(), 4_470_791_281_878_691_347);
        assert_eq!(hash(&bson!({ "a": [1, "x"] })).unwrap(), -8_515_234_045_594_899_816);
        assert_eq!(hash(&bson!("x")).unwrap(), -5_169_800_095_944_007_213);
        assert_eq!(hash(&Bson::Null).unwrap(), 2_338_878_944_348_059_895);
    }

    #[test]
    fn keys_are_ordered_by_type_then_by_value() {
        let ordered = [
            doc! { "k": Bson::MinKey },
            doc! { "k": Bson::Null },
            doc! { "k": f64::NAN },
            doc! { "k": -1 },
            doc! { "k": 0.5 },
            doc! { "k": 7_i64 },
            doc! { "k": "" },
            doc! { "k": "a" },
            doc! { "k": { "a": 1 } },
            doc! { "k": { "a": 2 } },
            doc! { "k": true },
            doc! { "k": Bson::MaxKey },
        ];
        for (left, one) in ordered.iter().enumerate() {
            for (right, other) in ordered.iter().enumerate() {
                assert_eq!(compare_keys(one, other), left.cmp(&right), "{one} {other}");
            }
        }
    }
}
