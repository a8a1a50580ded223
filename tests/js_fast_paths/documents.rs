//! The documents and groups that a program is run on.

use bson::oid::ObjectId;
use bson::{Bson, DateTime, Document, doc};

use crate::random::Random;

const WORDS: &[&str] = &[
    "a",
    "b",
    "ab",
    "the",
    "lorem",
    "ipsum",
    "Dolor",
    "sit",
    "Amet",
    "déjà",
    "ÿ",
    "µ",
    "été",
    "x1",
    "42",
    "don't",
    "re-do",
    "_id",
    "__proto__",
    "constructor",
    "emit",
    "a,b",
    "length",
    "0",
    "1",
];
const WIDE: &[&str] = &["日本", "語", "πλ", "ſ", "K", "😀"];
const BETWEEN: &[&str] = &[" ", " ", " ", ", ", "  ", "\n", "-", ".", "\u{a0}"];

/// Some words of text; now and then of characters that take 16 bits.
pub fn text(random: &mut Random, words_max: usize) -> String {
    let wide = random.one_in(6);
    let mut text = String::new();
    for _ in 0..random.below(words_max + 1) {
        let from = if wide && random.one_in(3) { WIDE } else { WORDS };
        text.push_str(random.pick(from));
        text.push_str(random.pick(BETWEEN));
    }
    text
}

fn number(random: &mut Random) -> Bson {
    let n = i32::try_from(random.below(20)).unwrap() - 5;
    match random.below(6) {
        0 => Bson::Double(f64::from(n) / 4.0),
        1 => Bson::Double(0.1 * f64::from(n)),
        2 => Bson::Int64(i64::from(n) << 40),
        3 => Bson::Int32(i32::MAX - n.abs()),
        _ => Bson::Int32(n),
    }
}

fn item(random: &mut Random) -> Document {
    doc! { "sku": text(random, 1), "qty": number(random), "price": number(random) }
}

fn document(random: &mut Random, id: i32) -> Document {
    let mut made = doc! {
        "_id": if random.one_in(3) { Bson::Int32(id) } else { Bson::ObjectId(ObjectId::from_bytes([7; 12])) },
        "text": text(random, 14),
        "s": random.pick(WORDS),
        "n": number(random),
        "x": number(random),
        "tags": (0..random.below(5)).map(|_| text(random, 1)).collect::<Vec<_>>(),
        "items": (0..random.below(4)).map(|_| item(random)).collect::<Vec<_>>(),
        "when": DateTime::from_millis(1_700_000_000_000 + i64::from(id)),
        "inner": { "k": text(random, 2), "v": number(random) },
    };
    if random.one_in(5) {
        made.remove(random.pick(&["text", "tags", "n"]));
    }
    made
}

fn append(bytes: &mut Vec<u8>, document: &Document) {
    bytes.extend(bson::serialize_to_vec(document).unwrap());
}

/// A batch of documents.
pub fn documents(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for id in 0..=random.below(3) {
        append(&mut bytes, &document(random, i32::try_from(id).unwrap()));
    }
    bytes
}

/// A batch of keys with their values.
pub fn groups(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=random.below(2) {
        let values: Vec<Bson> = match random.below(3) {
            0 => (0..random.below(6)).map(|_| Bson::Document(item(random))).collect(),
            1 => (0..random.below(6)).map(|_| Bson::String(text(random, 2))).collect(),
            _ => (0..random.below(12)).map(|_| number(random)).collect(),
        };
        append(&mut bytes, &doc! { "k": text(random, 1), "v": values });
    }
    bytes
}
