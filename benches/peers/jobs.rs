//! The three jobs, as each peer is asked for them.

use bson::{Document, doc};

/// One job in every peer's language.
pub struct Job {
    /// What it is called in the table.
    pub name: &'static str,
    /// The input collection.
    pub input: &'static str,
    /// The C guest, below `guests/c`.
    pub module: &'static str,
    /// The map function in JavaScript, for Aviary and `mapReduce` alike.
    pub map: &'static str,
    /// The aggregation that gives the same `{_id, value}`.
    pub pipeline: fn() -> Vec<Document>,
}

/// The reduce function in JavaScript, the same for all.
pub const REDUCE: &str = "function (key, values) { return Array.sum(values); }";

/// All of them.
pub const JOBS: [Job; 3] = [
    Job {
        name: "sum by customer",
        input: "orders",
        module: "sum_by_customer.wasm",
        map: "function () { emit(this.customer, this.total); }",
        pipeline: sum_by_customer,
    },
    Job {
        name: "units by sku",
        input: "orders",
        module: "units_by_sku.wasm",
        map: "function () { for (const item of this.items) emit(item.sku, item.qty); }",
        pipeline: units_by_sku,
    },
    Job {
        name: "word count",
        input: "texts",
        module: "word_count.wasm",
        map: "function () { for (const word of this.text.split(' ')) emit(word, 1); }",
        pipeline: word_count,
    },
];

fn sum_by_customer() -> Vec<Document> {
    vec![doc! { "$group": { "_id": "$customer", "value": { "$sum": "$total" } } }]
}

fn units_by_sku() -> Vec<Document> {
    vec![
        doc! { "$unwind": "$items" },
        doc! { "$group": { "_id": "$items.sku", "value": { "$sum": "$items.qty" } } },
    ]
}

fn word_count() -> Vec<Document> {
    vec![
        doc! { "$project": { "_id": 0, "word": { "$split": ["$text", " "] } } },
        doc! { "$unwind": "$word" },
        doc! { "$group": { "_id": "$word", "value": { "$sum": 1 } } },
    ]
}
