//! How long a small job takes, from its submission to its result in place.

use std::time::Instant;

use anyhow::{Context, Result};
use bson::oid::ObjectId;
use bson::{Document, doc};

use crate::bed::Bed;
use crate::programs;

const DOCS: i32 = 100;
const RUNS: usize = 40;
const ENDED_JOBS: usize = 10_000;
const MAP: &str = "function () { emit(this.n % 4, 1); }";

/// Measures in a database that is new, then in one where many jobs have ended.
pub async fn run() -> Result<()> {
    println!("a job over {DOCS} documents, {RUNS} times");
    for (name, program) in programs() {
        let bed = Bed::start().await?;
        let documents: Vec<Document> = (0..DOCS).map(|n| doc! { "_id": n, "n": n }).collect();
        bed.db().collection::<Document>("small").insert_many(documents).await?;
        let _daemons = bed.daemons(&program, "latency")?;
        let map = bed.file("small.js", MAP)?;
        let measure = async || -> Result<Vec<f64>> {
            let mut all = Vec::new();
            for _ in 0..RUNS {
                let began = Instant::now();
                bed.submit(&program, "small", &map, "_sum", "latency", &[]).await?;
                all.push(began.elapsed().as_secs_f64() * 1_000.0);
            }
            all.sort_by(f64::total_cmp);
            Ok(all)
        };
        // The first job of a fleet pays for what is done once.
        bed.submit(&program, "small", &map, "_sum", "latency", &[]).await?;
        print(&format!("{name}new database"), &measure().await?);
        many_ended(&bed).await?;
        print(&format!("{name}{ENDED_JOBS} ended jobs"), &measure().await?);
    }
    Ok(())
}

fn print(what: &str, sorted: &[f64]) {
    let at =
        |part: f64| sorted.get((sorted.len() as f64 * part) as usize).copied().unwrap_or(f64::NAN);
    println!("{what}: p50 {:.0} ms, p90 {:.0} ms, least {:.0} ms", at(0.5), at(0.9), at(0.0));
}

/// Copies a job that has ended, and its request, many times.
async fn many_ended(bed: &Bed) -> Result<()> {
    for name in ["aviary", "aviary-requests"] {
        let collection = bed.db().collection::<Document>(name);
        let which = match name {
            "aviary" => doc! { "kind": "job", "state": "succeeded", "cleaned": true },
            _ => doc! { "job": { "$exists": true } },
        };
        let one = collection.find_one(which).await?;
        let Some(one) = one else { continue };
        let copies: Vec<Document> = (0..ENDED_JOBS)
            .map(|_| {
                let mut copy = one.clone();
                copy.insert("_id", ObjectId::new().to_hex());
                copy
            })
            .collect();
        for chunk in copies.chunks(1_000) {
            collection.insert_many(chunk).await.context("copies of a job")?;
        }
    }
    Ok(())
}
