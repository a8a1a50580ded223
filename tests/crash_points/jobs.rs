//! The small jobs, and what each must leave in its target.

use std::collections::BTreeMap;

use bson::{Bson, Document, doc};

/// Documents of the input.
const INPUT: i64 = 40;
/// Keys they have.
const KEYS: i64 = 10;
/// What a key that was there before has as its value.
const OLD: i64 = 1_000;

/// The collection that results go to.
pub const TARGET: &str = "target";
/// The one that is read.
pub const SOURCE: &str = "source";

/// What the owner of a target writes once the job is over.
pub const OWNERS: i64 = -77;

/// A scenario's job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The result becomes the target.
    Replace,
    Merge,
    Reduce,
    /// Map-only, into documents that are there.
    Update,
    Inline,
    /// Map-only, and replaces.
    MapOnly,
    /// Two jobs into one target.
    TwoMerge,
    TwoReduce,
    /// Cancelled once a block is written.
    CancelMap,
    /// Cancelled once it publishes, a replace.
    CancelReplace,
    /// The same for a reduce.
    CancelReduce,
    /// Cancelled, and removed at once.
    Remove,
    /// Planned for the second time: the first coordinator has died over its plan.
    Replan,
    /// What zombies of an ended job have brought back is swept.
    Sweep,
}

impl Kind {
    pub const ALL: [Self; 14] = [
        Self::Replace,
        Self::Merge,
        Self::Reduce,
        Self::Update,
        Self::Inline,
        Self::MapOnly,
        Self::TwoMerge,
        Self::TwoReduce,
        Self::CancelMap,
        Self::CancelReplace,
        Self::CancelReduce,
        Self::Remove,
        Self::Replan,
        Self::Sweep,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Merge => "merge",
            Self::Reduce => "reduce",
            Self::Update => "update",
            Self::Inline => "inline",
            Self::MapOnly => "map-only",
            Self::TwoMerge => "two-merge",
            Self::TwoReduce => "two-reduce",
            Self::CancelMap => "cancel-map",
            Self::CancelReplace => "cancel-replace",
            Self::CancelReduce => "cancel-reduce",
            Self::Remove => "remove",
            Self::Replan => "replan",
            Self::Sweep => "sweep",
        }
    }

    /// How its results get to the target.
    pub fn mode(self) -> &'static str {
        match self {
            Self::Merge | Self::TwoMerge => "merge",
            Self::Reduce | Self::TwoReduce | Self::CancelReduce | Self::Replan => "reduce",
            Self::Update => "update",
            Self::Inline => "inline",
            _ => "replace",
        }
    }

    /// The state of the job in which it is cancelled.
    pub fn cancelled_in(self) -> Option<&'static str> {
        match self {
            Self::CancelMap | Self::Remove => Some("mapping"),
            Self::CancelReplace | Self::CancelReduce => Some("publishing"),
            _ => None,
        }
    }

    pub fn has_target(self) -> bool {
        self != Self::Inline
    }

    /// Whether each emit becomes a document.
    fn is_map_only(self) -> bool {
        matches!(self, Self::Update | Self::MapOnly)
    }

    /// The map functions of its jobs, which are one or two.
    fn maps(self) -> Vec<&'static str> {
        const SUM: &str = "function () { emit(this.k, this.v); }";
        const LATER: &str = "function () { emit(this.k + 20, this.v); }";
        match self {
            Self::Update => vec!["function () { emit(this._id, {sum: this.v}); }"],
            Self::MapOnly => vec!["function () { emit(this._id, this.v); }"],
            Self::TwoReduce => vec![SUM, SUM],
            Self::TwoMerge => vec![SUM, LATER],
            _ => vec![SUM],
        }
    }

    /// The command lines that submit its jobs.
    pub fn submissions(self) -> Vec<Vec<String>> {
        let target = match self {
            Self::Inline => "inline".to_owned(),
            _ => format!("{}:{TARGET}", self.mode()),
        };
        let lines = self.maps().into_iter().map(|map| {
            let mut line = vec!["submit", "-c", SOURCE, "--out", &target, "--detach", "-o", "name"];
            line.extend(["--map", map, "--partitions", "2"]);
            if !self.is_map_only() {
                line.extend(["--reduce", "_sum"]);
            }
            line.into_iter().map(str::to_owned).collect()
        });
        lines.collect()
    }

    /// What a job's counters must be in the end.
    pub fn counters(self) -> [(&'static str, i64); 3] {
        let output = if self.is_map_only() { INPUT } else { KEYS };
        [("input", INPUT), ("emit", INPUT), ("output", output)]
    }

    /// What is in the target before.
    pub fn before(self) -> Content {
        let old = |n: i64| (n, doc! { "_id": n, "value": OLD, "more": true });
        match self {
            Self::Inline => Content::new(),
            Self::Update => (0..INPUT + 5).map(|n| (n, doc! { "_id": n, "more": true })).collect(),
            _ => (KEYS / 2..KEYS + 5).map(old).collect(),
        }
    }

    /// What is in it, or is the result, once every job has succeeded.
    pub fn after(self) -> Content {
        let result = |n: i64, value: i64| (n, doc! { "_id": n, "value": value });
        let sum = |key: i64| input().filter(|(_, k, _)| *k == key).map(|(_, _, v)| v).sum::<i64>();
        let each = (0..KEYS).map(|key| result(key, sum(key)));
        let mut content = match self.mode() {
            "replace" | "inline" => Content::new(),
            _ => self.before(),
        };
        match self {
            Self::MapOnly => content.extend(input().map(|(id, _, v)| result(id, v))),
            Self::Update => {
                content.extend(
                    input().map(|(id, _, v)| (id, doc! { "_id": id, "more": true, "sum": v })),
                );
            }
            Self::TwoMerge => {
                content.extend(each);
                content.extend((0..KEYS).map(|key| result(key + 20, sum(key))));
            }
            _ if self.mode() == "reduce" => {
                let times = if self == Self::TwoReduce { 2 } else { 1 };
                let known = self.before();
                content.extend((0..KEYS).map(|key| {
                    let old = if known.contains_key(&key) { OLD } else { 0 };
                    result(key, old + times * sum(key))
                }));
            }
            _ => content.extend(each),
        }
        content
    }
}

/// Documents by their `_id`.
pub type Content = BTreeMap<i64, Document>;

/// The input: `_id`, key and value.
fn input() -> impl Iterator<Item = (i64, i64, i64)> {
    (0..INPUT).map(|id| (id, id * 7 % KEYS, id * id % 97 + 1))
}

/// The input as documents.
pub fn source() -> Vec<Document> {
    // Long enough for two splits of a KiB or so.
    input().map(|(id, k, v)| doc! { "_id": id, "k": k, "v": v, "pad": "." }).collect()
}

/// Splits of this size cut the input in two.
pub const SPLIT_BYTES: &str = "1400";

/// Documents as they are compared: whole numbers are the same whatever their type.
pub fn content(documents: Vec<Document>) -> Content {
    let by_id = documents.into_iter().map(|document| {
        let Bson::Document(document) = plain(Bson::Document(document)) else { unreachable!() };
        (document.get_i64("_id").unwrap_or(i64::MIN), document)
    });
    by_id.collect()
}

fn plain(value: Bson) -> Bson {
    match value {
        Bson::Int32(number) => Bson::Int64(number.into()),
        Bson::Double(number) if number.fract() == 0.0 => Bson::Int64(number as i64),
        Bson::Document(fields) => {
            Bson::Document(fields.into_iter().map(|(name, value)| (name, plain(value))).collect())
        }
        other => other,
    }
}

/// What is wrong with a content, in a line.
pub fn difference(expected: &Content, found: &Content) -> Option<String> {
    if expected == found {
        return None;
    }
    let mut told = Vec::new();
    for (id, document) in expected {
        match found.get(id) {
            None => told.push(format!("{id} is missing")),
            Some(other) if other != document => told.push(format!("{other} is not {document}")),
            Some(_) => {}
        }
    }
    told.extend(
        found.keys().filter(|id| !expected.contains_key(id)).map(|id| format!("{id} is too many")),
    );
    told.truncate(4);
    Some(told.join("; "))
}
