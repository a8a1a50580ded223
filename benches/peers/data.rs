//! Orders and texts, the same every time.

use anyhow::Result;
use bson::{DateTime, RawDocumentBuf, rawdoc};
use mongodb::{Collection, Database};

/// Distinct customers of the orders.
const CUSTOMERS: u64 = 50_000;
/// Distinct articles of the orders.
const SKUS: u64 = 2_000;
/// Distinct words of the texts, at most.
const WORDS: usize = 20_000;
/// Letters and spaces of a text, about.
const TEXT_BYTES: usize = 400;
/// Documents of one insert.
const INSERT_DOCS: u32 = 10_000;

/// A sequence of numbers that look random: SplitMix64 (Steele, Lea and Flood, 2014).
struct Numbers(u64);

impl Numbers {
    /// The sequence of one document, so that each can be made by itself.
    fn of(id: u32) -> Self {
        Self(u64::from(id) << 20)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A fraction in 0..1.
    fn fraction(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap_or(0)) / 4_294_967_296.0
    }
}

/// Loads `count` orders: `{_id, customer, items: [{sku, qty, price}; 3], total, status, created}`.
pub async fn load_orders(db: &Database, name: &str, count: u32) -> Result<()> {
    load(db, name, count, order).await
}

/// Loads `count` texts: `{_id, text}` with words as frequent as Zipf has them.
pub async fn load_texts(db: &Database, name: &str, count: u32) -> Result<()> {
    let words = vocabulary();
    load(db, name, count, move |id| text(id, &words)).await
}

/// Loads `count` small orders, `{_id, customer, total}`, of `customers` customers.
pub async fn load_small(db: &Database, name: &str, count: u32, customers: u32) -> Result<()> {
    load(db, name, count, move |id| {
        let customer = format!("c{:07}", id % customers);
        rawdoc! { "_id": i64::from(id), "customer": customer, "total": f64::from(id % 1_000) }
    })
    .await
}

/// How many texts have about this many bytes.
pub fn texts_of_bytes(bytes: f64) -> u32 {
    let words = vocabulary();
    let sample = 1_000_u32;
    let size: usize = (0..sample).map(|id| text(id, &words).as_bytes().len()).sum();
    let each = size as f64 / f64::from(sample);
    (bytes / each).ceil() as u32
}

/// Inserts documents, those of the next insert being made meanwhile.
async fn load(
    db: &Database,
    name: &str,
    count: u32,
    make: impl Fn(u32) -> RawDocumentBuf + Send + 'static,
) -> Result<()> {
    let (tx, mut rx) = tokio::sync::mpsc::channel::<Vec<RawDocumentBuf>>(2);
    let maker = tokio::task::spawn_blocking(move || {
        for start in (0..count).step_by(INSERT_DOCS as usize) {
            let docs = (start..count.min(start + INSERT_DOCS)).map(&make).collect();
            if tx.blocking_send(docs).is_err() {
                return;
            }
        }
    });
    let collection: Collection<RawDocumentBuf> = db.collection(name);
    while let Some(docs) = rx.recv().await {
        collection.insert_many(docs).ordered(false).await?;
    }
    maker.await?;
    Ok(())
}

/// One order.
pub fn order(id: u32) -> RawDocumentBuf {
    const STATES: [&str; 4] = ["new", "paid", "shipped", "returned"];
    let mut numbers = Numbers::of(id);
    let mut total = 0.0;
    let mut items = bson::RawArrayBuf::new();
    for _ in 0..3 {
        let qty = 1 + numbers.below(9) as i32;
        // Quarters, so that sums are exact in whatever order they are made.
        let price = (1 + numbers.below(4_000)) as f64 / 4.0;
        total += f64::from(qty) * price;
        items.push(
            rawdoc! { "sku": format!("s{:04}", numbers.below(SKUS)), "qty": qty, "price": price },
        );
    }
    let state = STATES.get(numbers.below(4) as usize).copied().unwrap_or("new");
    rawdoc! {
        "_id": id as i32,
        "customer": format!("c{:06}", numbers.below(CUSTOMERS)),
        "items": items,
        "total": total,
        "status": state,
        "created": DateTime::from_millis(1_700_000_000_000 + i64::from(id) * 1_000),
    }
}

/// One text of these words.
pub fn text(id: u32, words: &[String]) -> RawDocumentBuf {
    let mut numbers = Numbers::of(id);
    let mut text = String::with_capacity(TEXT_BYTES + 16);
    while text.len() < TEXT_BYTES {
        if !text.is_empty() {
            text.push(' ');
        }
        // Ranks whose logarithm is uniform are as frequent as one over the rank.
        let rank = (words.len() as f64).powf(numbers.fraction()) as usize;
        text.push_str(words.get(rank - 1).map_or("", String::as_str));
    }
    rawdoc! { "_id": id as i32, "text": text }
}

/// Words by rank; the common ones are short.
pub fn vocabulary() -> Vec<String> {
    (0..WORDS)
        .map(|rank| {
            let mut numbers = Numbers::of(rank as u32 | 1 << 31);
            let length =
                3 + (usize::BITS - rank.leading_zeros()) as usize / 3 + numbers.below(3) as usize;
            (0..length).map(|_| char::from(b'a' + numbers.below(26) as u8)).collect()
        })
        .collect()
}
