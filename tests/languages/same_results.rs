//! The same jobs in every language, from source file to result collection.

use std::collections::BTreeMap;

use aviary::toolchain::Language;
use bson::{Document, doc};

use crate::common::{Bed, root};
use crate::compilers::{example, there};

const CUSTOMERS: i32 = 61;
const ORDERS: i32 = 4_000;
const TEXTS: i32 = 300;

struct Order {
    id: i32,
    customer: String,
    total: f64,
}

/// Totals are quarters, whose sums are exact in any order; many are equal.
fn orders() -> Vec<Order> {
    (0..ORDERS)
        .map(|id| Order {
            id,
            customer: format!("customer {}", id * 7_919 % CUSTOMERS),
            total: f64::from(id * 37 % 401) * 0.25,
        })
        .collect()
}

fn text(n: i32) -> String {
    let words = ["the", "Quick", "fox42", "ÉTÉ", "jumps", "x", "NAÏVE", "dog's", "über-fox", "7"];
    let parts: Vec<&str> =
        (0..n % 40).map(|i| words[usize::try_from((n * 31 + i * i) % 10).unwrap()]).collect();
    parts.join(if n % 2 == 0 { " " } else { "...\n" })
}

/// What the jobs must give, computed here.
fn expected(job: &str) -> Vec<Document> {
    match job {
        "word_count" => {
            let mut counts: BTreeMap<String, i64> = BTreeMap::new();
            for text in (0..TEXTS).map(text) {
                let words = text.split(|c: char| !c.is_ascii_alphanumeric());
                for word in words.filter(|word| !word.is_empty()) {
                    *counts.entry(word.to_ascii_lowercase()).or_default() += 1;
                }
            }
            counts.into_iter().map(|(word, n)| doc! { "_id": word, "value": n }).collect()
        }
        _ => {
            let mut of_customer: BTreeMap<String, Vec<Order>> = BTreeMap::new();
            for order in orders() {
                of_customer.entry(order.customer.clone()).or_default().push(order);
            }
            of_customer
                .into_iter()
                .map(|(customer, mut orders)| {
                    if job == "sum_by_customer" {
                        let sum: f64 = orders.iter().map(|order| order.total).sum();
                        return doc! { "_id": customer, "value": sum };
                    }
                    if job == "median" {
                        orders.sort_by(|a, b| a.total.total_cmp(&b.total));
                        let (half, odd) = (orders.len() / 2, orders.len() % 2);
                        let median = (orders[half + odd - 1].total + orders[half].total) / 2.0;
                        return doc! { "_id": customer, "value": median };
                    }
                    orders.sort_by(|a, b| b.total.total_cmp(&a.total).then(a.id.cmp(&b.id)));
                    let top: Vec<Document> = orders
                        .iter()
                        .take(3)
                        .map(|order| doc! { "id": order.id, "total": order.total })
                        .collect();
                    doc! { "_id": customer, "value": { "top": top } }
                })
                .collect()
        }
    }
}

pub async fn in_every_language(bed: &Bed) {
    let orders = orders();
    let docs = orders
        .iter()
        .map(|order| doc! { "_id": order.id, "customer": &order.customer, "total": order.total });
    bed.load("orders", docs.collect()).await;
    bed.load("texts", (0..TEXTS).map(|n| doc! { "_id": n, "text": text(n) }).collect()).await;
    // Small splits, so that the values of a key come from several tasks.
    let _coordinator =
        bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", "40000")]);
    let _worker = bed.worker();

    let languages: Vec<Language> =
        Language::ALL.into_iter().filter(|language| there(*language)).collect();
    for job in ["word_count", "sum_by_customer", "top_orders", "median"] {
        let expected = expected(job);
        let input = if job == "word_count" { "texts" } else { "orders" };
        let mut runs = Vec::new();
        for language in &languages {
            let file = example(*language, job).display().to_string();
            runs.push((language.name(), vec!["--module".to_owned(), file]));
        }
        let script = |stage| {
            root().join(format!("examples/javascript/{job}.{stage}.js")).display().to_string()
        };
        let flags = ["--map".into(), script("map"), "--reduce".into(), script("reduce")];
        runs.push(("javascript", flags.to_vec()));
        // All at once: each spends most of its time waiting.
        let runs = runs.into_iter().map(async |(language, flags)| {
            let target = format!("{job} in {language}");
            let mut args = ["submit", "-q", "-o", "json", "-c", input].map(str::to_owned).to_vec();
            args.extend(["--out".to_owned(), format!("replace:{target}")]);
            args.extend(flags);
            let ran = bed.aviary(&args).await.ok();
            let tasks = ran.json()[0]["phases"]["map"]["total"].as_u64().unwrap();
            assert!(tasks > 1, "one task only, so nothing was reduced from several: {tasks}");
            (language, bed.all(&target).await)
        });
        for (language, rows) in futures_util::future::join_all(runs).await {
            // Documents are equal by value, type and order of fields.
            assert_eq!(rows.len(), expected.len(), "{job} in {language}");
            for (row, expected) in rows.iter().zip(&expected) {
                assert_eq!(row, expected, "{job} in {language}");
            }
        }
    }
}

/// `insert` makes one function of several files, which a job then names.
pub async fn files_of_one_language_are_one_function(bed: &Bed) {
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    let map_of = "package main\n\nimport \"aviary\"\n\nfunc Map(doc aviary.Doc, emit aviary.Emit) {\n\
                  \temit(doc.Get(\"customer\"), worth(doc))\n}\n";
    let reduce_of = "package main\n\nimport \"aviary\"\n\nfunc worth(doc aviary.Doc) float64 {\n\
                     \treturn doc.Get(\"total\").Float()\n}\n\n\
                     func Reduce(key aviary.Value, values []aviary.Value) any {\n\
                     \tsum := 0.0\n\tfor _, v := range values {\n\t\tsum += v.Float()\n\t}\n\treturn sum\n}\n";
    if !there(Language::Go) {
        return;
    }
    let [map, reduce] = [("map.go", map_of), ("reduce.go", reduce_of)]
        .map(|(name, text)| bed.file(name, text).display().to_string());
    let args = ["insert", "-o", "json", "--name", "spent", &map, &reduce];
    let inserted = bed.aviary(&args).await.ok().json();
    assert_eq!(inserted.len(), 1, "{inserted:?}");
    assert_eq!(inserted[0]["stages"], serde_json::json!(["map", "reduce"]));
    assert_eq!(inserted[0]["language"], "go");
    assert_eq!(inserted[0]["file"], "map.go, reduce.go");
    assert!(inserted[0]["toolchain"].as_str().unwrap().starts_with("go1."), "{inserted:?}");
    let submit = ["submit", "-q", "-c", "orders", "--module", "spent", "--out", "replace:spent"];
    bed.aviary(&submit).await.ok();
    assert_eq!(bed.all("spent").await, expected("sum_by_customer"));
    // One file of two gives its own function only.
    let refused = bed.aviary(&["submit", "-q", "-c", "orders", "--map", &map]).await;
    assert_eq!(refused.code, 8, "{refused:#?}");
    assert!(refused.stderr.contains("map.go:6:28: undefined: worth"), "{refused:#?}");
}
