//! What is submitted, and what each job's result is.

use std::collections::BTreeMap;

use bson::{Bson, Document, doc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::dice::Dice;
use crate::history::Content;

/// What kind of job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Replace,
    Merge,
    Reduce,
    Update,
    Inline,
    MapOnly,
    /// With 50,000 keys, so that publishing takes a while.
    BigReplace,
    BigMerge,
    BigReduce,
    /// Of so many splits that a reducer needs files for their runs.
    WideReduce,
}

/// A collection that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    Few,
    Wide,
    Big,
}

impl Input {
    pub const ALL: [Self; 3] = [Self::Few, Self::Wide, Self::Big];

    pub fn name(self) -> &'static str {
        match self {
            Self::Few => "few",
            Self::Wide => "wide",
            Self::Big => "big",
        }
    }

    /// `_id`, key and value of each document.
    pub fn rows(self) -> impl Iterator<Item = (i64, i64, i64)> {
        let (count, keys) = match self {
            Self::Few => (200, 20),
            Self::Wide => (1_600, 400),
            Self::Big => (BIG_KEYS, BIG_KEYS),
        };
        (0..count).map(move |id| (id, id * 7 % keys, id * id % 97 + 1))
    }

    pub fn documents(self) -> Vec<Document> {
        let pad = match self {
            Self::Few => 500,
            Self::Wide => 1_400,
            Self::Big => 1,
        };
        let pad = "x".repeat(pad);
        self.rows().map(|(id, k, v)| doc! { "_id": id, "k": k, "v": v, "pad": &pad }).collect()
    }
}

const BIG_KEYS: i64 = 50_000;
/// Splits of this size: a few of `few`, and of the others more than a reducer merges at once.
pub const SPLIT_BYTES: &str = "40000";
/// Keys of one merging job, which no other job has.
const OWN_KEYS: i64 = 100_000;
/// What a target holds before.
const OLD: i64 = 1_000_000;

impl Kind {
    pub const ALL: [Self; 10] = [
        Self::Replace,
        Self::Merge,
        Self::Reduce,
        Self::Update,
        Self::Inline,
        Self::MapOnly,
        Self::BigReplace,
        Self::BigMerge,
        Self::BigReduce,
        Self::WideReduce,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Merge => "merge",
            Self::Reduce => "reduce",
            Self::Update => "update",
            Self::Inline => "inline",
            Self::MapOnly => "map-only",
            Self::BigReplace => "big-replace",
            Self::BigMerge => "big-merge",
            Self::BigReduce => "big-reduce",
            Self::WideReduce => "wide-reduce",
        }
    }

    /// A kind by chance; those that take long are rarer.
    pub fn any(dice: &mut Dice) -> Self {
        let kind = *dice.pick(&Self::ALL);
        if kind.input() == Input::Big && !dice.one_in(3) { Self::Reduce } else { kind }
    }

    pub fn input(self) -> Input {
        match self {
            Self::BigReplace | Self::BigMerge | Self::BigReduce => Input::Big,
            Self::WideReduce => Input::Wide,
            _ => Input::Few,
        }
    }

    pub fn mode(self) -> &'static str {
        match self {
            Self::Replace | Self::MapOnly | Self::BigReplace => "replace",
            Self::Merge | Self::BigMerge => "merge",
            Self::Reduce | Self::BigReduce | Self::WideReduce => "reduce",
            Self::Update => "update",
            Self::Inline => "inline",
        }
    }

    pub fn merges(self) -> bool {
        matches!(self.mode(), "merge" | "reduce" | "update")
    }

    fn is_map_only(self) -> bool {
        matches!(self, Self::Update | Self::MapOnly)
    }

    fn map(self) -> &'static str {
        match self {
            Self::Merge | Self::BigMerge => {
                "function () { emit(n * 100000 + this.k, this.v * factor); }"
            }
            Self::Update => "function () { emit(this._id, {['f' + n]: this.v * factor}); }",
            Self::MapOnly => "function () { emit(this._id, this.v * factor); }",
            _ => "function () { emit(this.k, this.v * factor); }",
        }
    }

    /// Its targets: few, so that jobs share them.
    pub fn targets(self) -> Vec<String> {
        let count = match self {
            Self::Inline => 0,
            Self::Replace | Self::Reduce => 2,
            _ => 1,
        };
        (0..count).map(|n| format!("{}{n}", self.name())).collect()
    }

    /// The database that its target is in: not always the one whose job it is.
    pub fn target_db(self, db: &str) -> String {
        if self == Self::WideReduce { format!("{db}-results") } else { db.to_owned() }
    }

    /// The command line that submits it.
    pub fn submission(self, db: &str, target: &str, n: i64, factor: i64) -> Vec<String> {
        let out = match self {
            Self::Inline => "inline".to_owned(),
            _ => format!("{}:{target}", self.mode()),
        };
        let scope = format!("{{\"n\": {n}, \"factor\": {factor}}}");
        let tag = format!("chaos-{n}");
        let mut line = vec!["submit", "-c", self.input().name(), "--out", &out, "--tag", &tag];
        line.extend(["--map", self.map(), "--scope", &scope, "--detach", "-o", "name"]);
        let target_db = self.target_db(db);
        line.extend(["--partitions", "2", "--out-db", &target_db]);
        if !self.is_map_only() {
            line.extend(["--reduce", "_sum"]);
        }
        line.into_iter().map(str::to_owned).collect()
    }

    /// What its targets hold before any job.
    pub fn before(self) -> Content {
        let value = |id: i64| (id, object(&[("value", OLD)]));
        match self {
            Self::Update => {
                self.input().rows().map(|(id, ..)| (id, object(&[("keep", 1)]))).collect()
            }
            Self::Merge | Self::BigMerge => (-5..0).map(value).collect(),
            Self::Reduce | Self::WideReduce => (10..25).map(value).collect(),
            Self::BigReduce => (40_000..60_000).map(value).collect(),
            Self::Replace | Self::MapOnly | Self::BigReplace => (0..3).map(value).collect(),
            Self::Inline => Content::new(),
        }
    }

    /// A job's result, as it is before it gets to a target.
    pub fn result(self, n: i64, factor: i64) -> BTreeMap<i64, i64> {
        let mut result = BTreeMap::new();
        for (id, k, v) in self.input().rows() {
            let key = match self {
                Self::Update | Self::MapOnly => id,
                Self::Merge | Self::BigMerge => n * OWN_KEYS + k,
                _ => k,
            };
            *result.entry(key).or_default() += v * factor;
        }
        result
    }

    /// What the counters of a job say in the end.
    pub fn counters(self) -> [(&'static str, i64); 3] {
        let input = self.input().rows().count() as i64;
        let output = self.result(0, 1).len() as i64;
        [("input", input), ("emit", input), ("output", output)]
    }
}

pub fn object(fields: &[(&str, i64)]) -> Map<String, Value> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect()
}

/// Content as documents.
pub fn documents(content: &Content) -> Vec<Document> {
    let documents = content.iter().map(|(id, fields)| {
        let mut document = doc! { "_id": id };
        document.extend(fields.iter().map(|(name, value)| {
            (name.clone(), Bson::Int64(value.as_i64().expect("a whole number")))
        }));
        document
    });
    documents.collect()
}

/// Documents as content: whole numbers are the same whatever their type.
pub fn content(documents: Vec<Document>) -> Content {
    let plain = |value: Bson| match value {
        Bson::Int32(number) => json!(number),
        Bson::Int64(number) => json!(number),
        Bson::Double(number) if number.fract() == 0.0 => json!(number as i64),
        other => other.into_relaxed_extjson(),
    };
    let by_id = documents.into_iter().map(|document| {
        let mut fields: Map<String, Value> =
            document.into_iter().map(|(name, value)| (name, plain(value))).collect();
        let id = fields.remove("_id").and_then(|id| id.as_i64()).unwrap_or(i64::MIN);
        (id, fields)
    });
    by_id.collect()
}
