//! Checks that what a guest emits is BSON, before anything else trusts it.
//!
//! Everything after this point compares, sorts, merges and stores these bytes, so a wrong length
//! in them is stopped here, in the call of the guest that made it.

use crate::config::NESTING_DEPTH_MAX;

/// What is wrong with a value.
pub(crate) type Fault = &'static str;

const TRUNCATED: Fault = "it is cut off";
const TOO_DEEP: Fault = "it is nested deeper than 200 levels";
const _: () = assert!(NESTING_DEPTH_MAX == 200, "the words say so");

/// Checks a type byte followed by exactly one value of that type.
#[inline]
pub(crate) fn check(tagged: &[u8]) -> Result<(), Fault> {
    // The two most common results, integers, need no walk.
    if matches!((tagged.first(), tagged.len()), (Some(0x10), 5) | (Some(0x12 | 0x01), 9)) {
        return Ok(());
    }
    let (kind, value) = tagged.split_first().ok_or("it is empty")?;
    if skip(*kind, value, 0)?.is_empty() { Ok(()) } else { Err("bytes follow its end") }
}

/// Checks one value and returns what follows it.
fn skip(kind: u8, bytes: &[u8], depth: usize) -> Result<&[u8], Fault> {
    match kind {
        // Undefined, null, the least and the greatest key.
        0x06 | 0x0a | 0xff | 0x7f => Ok(bytes),
        0x08 => match bytes.split_first() {
            Some((0 | 1, rest)) => Ok(rest),
            Some(_) => Err("a boolean is neither 0 nor 1"),
            None => Err(TRUNCATED),
        },
        0x10 => after(bytes, 4),
        0x01 | 0x09 | 0x11 | 0x12 => after(bytes, 8),
        0x07 => after(bytes, 12),
        0x13 => after(bytes, 16),
        // String, code, symbol.
        0x02 | 0x0d | 0x0e => string(bytes),
        0x03 | 0x04 => document(bytes, depth),
        0x05 => binary(bytes),
        // Regular expression: pattern and options.
        0x0b => name(name(bytes)?),
        // A pointer into a collection.
        0x0c => after(string(bytes)?, 12),
        // Code with its scope, with a length in front that covers it all.
        0x0f => {
            let (len, _) = length(bytes)?;
            let (whole, rest) = bytes.split_at_checked(len).ok_or(TRUNCATED)?;
            let (_, inner) = length(whole)?;
            if document(string(inner)?, depth)?.is_empty() {
                Ok(rest)
            } else {
                Err("bytes follow the end of a code's scope")
            }
        }
        _ => Err("its type is unknown"),
    }
}

fn document(bytes: &[u8], depth: usize) -> Result<&[u8], Fault> {
    if depth >= NESTING_DEPTH_MAX {
        return Err(TOO_DEEP);
    }
    let (len, _) = length(bytes)?;
    let (whole, rest) = bytes.split_at_checked(len).ok_or(TRUNCATED)?;
    let Some((0, body)) = whole.split_last() else {
        return Err("a document does not end with a zero byte");
    };
    let mut elements = body.get(4..).ok_or(TRUNCATED)?;
    while let Some((kind, element)) = elements.split_first() {
        elements = skip(*kind, name(element)?, depth + 1)?;
    }
    Ok(rest)
}

fn string(bytes: &[u8]) -> Result<&[u8], Fault> {
    let (len, rest) = length(bytes)?;
    let (text, rest) = rest.split_at_checked(len).ok_or(TRUNCATED)?;
    let Some((0, text)) = text.split_last() else {
        return Err("a string does not end with a zero byte");
    };
    match std::str::from_utf8(text) {
        Ok(_) => Ok(rest),
        Err(_) => Err("a string is not UTF-8"),
    }
}

/// A length, a subtype, and bytes; those of the old subtype begin with their own length once more, without which
/// no driver reads them.
fn binary(bytes: &[u8]) -> Result<&[u8], Fault> {
    const OLD: u8 = 2;
    let (len, rest) = length(bytes)?;
    let (subtype, rest) = rest.split_first().ok_or(TRUNCATED)?;
    let (data, rest) = rest.split_at_checked(len).ok_or(TRUNCATED)?;
    let is_sound = || length(data).is_ok_and(|(len, data)| len == data.len());
    if *subtype == OLD && !is_sound() {
        return Err("the inner length of binary data of subtype 2 does not fit");
    }
    Ok(rest)
}

fn name(bytes: &[u8]) -> Result<&[u8], Fault> {
    let end = bytes.iter().position(|byte| *byte == 0).ok_or(TRUNCATED)?;
    let (text, rest) = bytes.split_at_checked(end).ok_or(TRUNCATED)?;
    if std::str::from_utf8(text).is_err() {
        return Err("a field's name is not UTF-8");
    }
    after(rest, 1)
}

fn length(bytes: &[u8]) -> Result<(usize, &[u8]), Fault> {
    let (len, rest) = bytes.split_first_chunk().ok_or(TRUNCATED)?;
    let len = usize::try_from(i32::from_le_bytes(*len)).map_err(|_| "a length is negative")?;
    Ok((len, rest))
}

fn after(bytes: &[u8], len: usize) -> Result<&[u8], Fault> {
    bytes.get(len..).ok_or(TRUNCATED)
}

#[cfg(test)]
mod tests {
    use bson::{Bson, doc};

    use super::*;

    /// The type byte and the value's bytes, as a guest would emit them.
    fn tagged(value: impl Into<Bson>) -> Vec<u8> {
        let document = doc! { "": value.into() }.to_vec().unwrap();
        let mut bytes = vec![document[4]];
        bytes.extend_from_slice(&document[6..document.len() - 1]);
        bytes
    }

    fn samples() -> Vec<Bson> {
        vec![
            1_i32.into(),
            2_i64.into(),
            0.5.into(),
            true.into(),
            "höhe".into(),
            Bson::Null,
            Bson::Undefined,
            Bson::MinKey,
            Bson::MaxKey,
            Bson::DateTime(bson::DateTime::from_millis(7)),
            Bson::ObjectId(bson::oid::ObjectId::new()),
            Bson::Timestamp(bson::Timestamp { time: 1, increment: 2 }),
            Bson::Binary(bson::Binary {
                subtype: bson::spec::BinarySubtype::Generic,
                bytes: vec![1, 2, 3],
            }),
            Bson::Binary(bson::Binary {
                subtype: bson::spec::BinarySubtype::BinaryOld,
                bytes: vec![1, 2, 3],
            }),
            Bson::JavaScriptCode("f()".into()),
            Bson::JavaScriptCodeWithScope(bson::JavaScriptCodeWithScope {
                code: "f()".into(),
                scope: doc! { "a": 1 },
            }),
            Bson::Symbol("s".into()),
            Bson::Decimal128(bson::Decimal128::from_bytes([7; 16])),
            doc! { "a": [1, "two", { "three": 3.0 }], "b": { "c": Bson::Null } }.into(),
            vec![Bson::Int32(1), Bson::String(String::new())].into(),
        ]
    }

    #[test]
    fn every_type_of_bson_is_accepted_whole_and_refused_cut_off_or_with_more() {
        for sample in samples() {
            let bytes = tagged(sample.clone());
            assert_eq!(check(&bytes), Ok(()), "{sample:?}");
            for cut in 0..bytes.len() {
                assert!(check(&bytes[..cut]).is_err(), "{sample:?} cut to {cut}");
            }
            let mut longer = bytes;
            longer.push(0);
            assert!(check(&longer).is_err(), "{sample:?} with one byte more");
        }
    }

    #[test]
    fn damage_inside_of_a_value_is_found() {
        let mut wrong = tagged(doc! { "a": "text" });
        *wrong.last_mut().unwrap() = 1;
        assert!(check(&wrong).is_err());
        assert_eq!(check(&[0x08, 2]), Err("a boolean is neither 0 nor 1"));
        assert_eq!(check(&[0x40]), Err("its type is unknown"));
        assert_eq!(check(&[2, 2, 0, 0, 0, 0xff, 0]), Err("a string is not UTF-8"));
        assert_eq!(check(&[5, 0xff, 0xff, 0xff, 0xff, 0]), Err("a length is negative"));
        assert!(check(&[3, 4, 0, 0, 0]).is_err());
        for inner in [&[][..], &[1], &[0, 0, 0], &[2, 0, 0, 0, 7], &[0, 0, 0, 0, 7]] {
            let old = [&[5, inner.len() as u8, 0, 0, 0, 2][..], inner].concat();
            let why = "the inner length of binary data of subtype 2 does not fit";
            assert_eq!(check(&old), Err(why), "{inner:?}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let mut value = Bson::Int32(1);
        for _ in 0..NESTING_DEPTH_MAX {
            value = doc! { "a": value }.into();
        }
        assert_eq!(check(&tagged(value.clone())), Ok(()));
        assert_eq!(check(&tagged(doc! { "a": value })), Err(TOO_DEEP));
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let mut bytes = blake3::Hasher::new().finalize_xof();
        let mut buffer = [0; 64];
        let mut refused = 0;
        for _ in 0..20_000 {
            bytes.fill(&mut buffer);
            buffer[0] %= 0x14;
            let len = usize::from(buffer[1] % 64);
            refused += usize::from(check(&buffer[..len]).is_err());
        }
        assert!(refused > 10_000);
    }
}
