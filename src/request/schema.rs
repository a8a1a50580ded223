//! What the server refuses at the insert already: typos above all.
//!
//! The coordinator checks everything again; a collection can be without its validator.

use bson::{Bson, Document, doc};

use super::document::{NAME_BYTES_MAX, VERSION};

/// The validator of a collection of requests.
pub fn validator() -> Document {
    let name = || doc! { "bsonType": "string", "maxLength": i64::try_from(NAME_BYTES_MAX).unwrap_or(i64::MAX) };
    let mut id = name();
    id.insert("minLength", 1);
    doc! { "$jsonSchema": object(&["_id", "v"], doc! {
        "_id": id,
        "v": { "enum": [VERSION] },
        "input": object(&["collection"], doc! {
            "collection": text(),
            "db": text(),
            "query": any(),
            "sort": any(),
            "limit": number(),
            "projection": any(),
            "collation": any(),
            "read": { "enum": ["snapshot", "committed"] },
        }),
        "map": function(),
        "combine": function(),
        "reduce": { "anyOf": [
            { "enum": ["_sum", "_count", "_min", "_max", "_avg", "_stats"] },
            function(),
        ] },
        "finalize": function(),
        "out": object(&[], doc! {
            "replace": text(),
            "merge": text(),
            "reduce": text(),
            "update": text(),
            "inline": { "enum": [1] },
            "db": text(),
        }),
        "scope": any(),
        "partitions": number(),
        "limits": object(&[], doc! {
            "memoryMb": number(),
            "recordTimeoutMs": number(),
            "taskTimeoutMs": number(),
            "recordOutputBytes": number(),
            "logBytes": number(),
        }),
        "skipSingleValues": flag(),
        "noCombine": flag(),
        "keepIntermediates": flag(),
        "onError": text(),
        "priority": number(),
        "client": name(),
        "tag": name(),
        "command": any(),
        "cancel": text(),
        "resume": text(),
        // What the coordinator answers. A client that writes it has answered itself, and is not heard.
        "state": { "enum": ["accepted", "refused"] },
        "job": text(),
        "answered": { "bsonType": "date" },
        "progress": any(),
        "result": any(),
        "error": any(),
        "expires": { "bsonType": "date" },
    }) }
}

fn function() -> Document {
    let mut function = object(
        &[],
        doc! {
            "js": { "bsonType": ["string", "javascript"] },
            "wasm": { "bsonType": "binData" },
            "name": text(),
            "digest": text(),
            "file": text(),
            "built": any(),
        },
    );
    function.insert("minProperties", 1);
    function
}

fn object(required: &[&str], properties: Document) -> Document {
    let mut object = doc! {
        "bsonType": "object",
        "properties": properties,
        "additionalProperties": false,
    };
    if !required.is_empty() {
        let required: Vec<Bson> = required.iter().map(|name| (*name).into()).collect();
        object.insert("required", required);
    }
    object
}

fn any() -> Document {
    doc! { "bsonType": "object" }
}

fn text() -> Document {
    doc! { "bsonType": "string", "minLength": 1 }
}

fn number() -> Document {
    doc! { "bsonType": "number" }
}

fn flag() -> Document {
    doc! { "bsonType": "bool" }
}
