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

/// What emits mostly are, with something else now and then.
fn doubles(random: &mut Random) -> Vec<Bson> {
    let odd_in = [3, 30, usize::MAX][random.below(3)];
    let scale = [1.0, 0.1, 0.25, 1e15][random.below(4)];
    let count = 1 + random.below(12);
    let mut values = Vec::new();
    for _ in 0..count {
        let n = f64::from(i32::try_from(random.below(2000)).unwrap() - 700);
        values.push(if random.one_in(odd_in) { odd(random) } else { Bson::Double(n * scale) });
    }
    values
}

fn odd(random: &mut Random) -> Bson {
    match random.below(14) {
        0 => Bson::Double(-0.0),
        1 => Bson::Double(f64::NAN),
        2 => Bson::Double(f64::INFINITY),
        3 => Bson::Double(f64::NEG_INFINITY),
        4 => Bson::Double(f64::MAX),
        5 => Bson::Double(9_007_199_254_740_992.0),
        6 => Bson::Int32(7),
        7 => Bson::Int64(i64::MAX),
        8 => Bson::String("1".to_owned()),
        9 => Bson::Null,
        10 => Bson::Boolean(true),
        11 => Bson::DateTime(DateTime::from_millis(5)),
        12 => Bson::Document(doc! { "n": 1 }),
        _ => Bson::Undefined,
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
        let values: Vec<Bson> = match random.below(6) {
            0 => (0..random.below(6)).map(|_| Bson::Document(item(random))).collect(),
            1 => (0..random.below(6)).map(|_| Bson::String(text(random, 2))).collect(),
            2 => (0..random.below(12)).map(|_| number(random)).collect(),
            _ => doubles(random),
        };
        append(&mut bytes, &doc! { "k": text(random, 1), "v": values });
    }
    bytes
}
