//! What a function does besides emitting: it reads the job's parameters, counts, logs, and fails a record.

use aviary::toolchain::Language;
use bson::{Bson, Document, doc};

use crate::common::{Bed, root};
use crate::compilers::there;

/// More than 32 bits hold, and less than nothing: counters and emits depend on it.
const FACTORS: [i64; 2] = [5_000_000_000, -7];

pub async fn reach_the_job_in_every_language(bed: &Bed) {
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    bed.load("effects", (1..=3).map(|n| doc! { "_id": n }).collect()).await;
    let compiled = Language::ALL.into_iter().filter(|language| there(*language));
    let files = compiled.map(|language| (language.name(), language.extensions()[0]));
    for (language, extension) in files.chain([("javascript", "js")]) {
        let map = root().join(format!("tests/languages/sources/effects.{extension}"));
        one(bed, language, &map.display().to_string()).await;
    }
}

async fn one(bed: &Bed, language: &str, map: &str) {
    let submit = async |target: &str, scope: Option<String>| {
        let out = format!("replace:{target}");
        // One task maps everything, in this order.
        let order = ["--sort", "{\"_id\": 1}", "--limit", "3"];
        let mut args = vec!["submit", "-q", "-o", "name", "-c", "effects", "--map", map];
        args.extend(["--reduce", "_sum", "--out", &out]);
        args.extend(order);
        if let Some(scope) = &scope {
            args.extend(["--scope", scope]);
        }
        bed.aviary(&args).await
    };
    let parameters = |factor: i64, bad: i32| {
        serde_json::json!({ "factor": factor, "bad": bad, "label": "Maß" }).to_string()
    };
    // What JavaScript has touched is a double.
    let number = |value: i64, kept: Bson| match language {
        "javascript" => Bson::Double(value as f64),
        _ => kept,
    };
    for factor in FACTORS {
        let target = format!("effects by {factor} in {language}");
        let ran = submit(&target, Some(parameters(factor, 0))).await.ok();
        let job = ran.stdout.trim();
        let expected: Vec<Document> = (1..=3_i32)
            .map(|n| {
                let worth = i64::from(n) * factor;
                doc! { "_id": number(n.into(), n.into()), "value": number(worth, worth.into()) }
            })
            .collect();
        assert_eq!(bed.all(&target).await, expected, "{language}");
        let counters = bed.aviary(&["counters", job, "-o", "json"]).await.ok().json().remove(0);
        assert_eq!(counters["Maß"], 6 * factor, "{language}: {counters}");
        let lines = bed.aviary(&["logs", job, "-o", "json"]).await.ok().json();
        let found: Vec<String> = lines
            .iter()
            .map(|line| format!("{} {} {}", line["stage"], line["level"], line["text"]))
            .map(|line| line.replace('"', ""))
            .collect();
        let expected = [
            "map info Maß 1",
            "map warn 100%",
            "map info Maß 2",
            "map warn 100%",
            "map info Maß 3",
            "map warn 100%",
        ];
        assert_eq!(found, expected, "{language}: {lines:#?}");
    }
    // The record at fault is named, with the function's own words, and nothing is put out.
    let target = format!("effects that fail in {language}");
    let ran = submit(&target, Some(parameters(1, 2))).await;
    assert_eq!(ran.code, 3, "{language}: {ran:#?}");
    let kind = if language == "javascript" { "Error: " } else { "" };
    let words = format!(" failed on the document with _id 2: {kind}Maß 2 is bad");
    assert!(ran.stderr.contains(&words), "{language}: {words:?} is missing in {ran:#?}");
    assert_eq!(bed.all(&target).await, [], "{language}");
    // A job without parameters has none of that name.
    let ran = submit(&target, None).await;
    assert_eq!(ran.code, 3, "{language}: {ran:#?}");
    let label = match language {
        "javascript" => "ReferenceError: label is not defined",
        "go" | "rust" => "the field label is missing",
        _ => "the field 'label' is missing",
    };
    let words = format!(" failed on the document with _id 1: {label}");
    assert!(ran.stderr.contains(&words), "{language}: {words:?} is missing in {ran:#?}");
}
