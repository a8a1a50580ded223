//! The oracle: what the history says was asked for, against what it says was found.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Value, json};

use crate::history::{Content, Event, What};
use crate::jobs::{Kind, object};

/// More jobs than this of unknown share in one target are not told apart.
const UNSURE_MAX: usize = 12;

/// The exit code of a submission that is refused.
const REFUSED: i32 = 8;

#[derive(Debug, Clone)]
struct Job {
    n: i64,
    db: String,
    kind: Kind,
    target: String,
    factor: i64,
    acknowledged: bool,
    refused: bool,
    cancel_asked: bool,
    ends: Vec<End>,
    stuck: Option<String>,
}

#[derive(Debug, Clone)]
struct End {
    id: String,
    state: String,
    began_to_publish: bool,
    counters: BTreeMap<String, i64>,
    error: Option<String>,
}

impl Job {
    fn state(&self) -> &str {
        match (&self.stuck, self.ends.first()) {
            (Some(_), _) => "stuck",
            (None, Some(end)) => &end.state,
            (None, None) if self.acknowledged => "lost",
            // Nothing is wrong with any of them.
            (None, None) if self.refused => "failed",
            (None, None) => "never there",
        }
    }

    fn succeeded(&self) -> bool {
        self.state() == "succeeded"
    }

    /// Whether a part of it may be in its target: it was given up while it was merged.
    fn is_unsure(&self) -> bool {
        let began = self.ends.iter().any(|end| end.began_to_publish);
        self.kind.merges() && !self.succeeded() && began
    }
}

/// What came of a history.
#[derive(Default)]
pub struct Summary {
    title: String,
    jobs: BTreeMap<(&'static str, String), usize>,
    faults: BTreeMap<String, i64>,
    pub wrong: Vec<String>,
    pub failed: Vec<String>,
    pub stuck: Vec<String>,
    pub leaking: Vec<String>,
    /// Faults that were to happen and never did.
    pub never: Vec<String>,
    /// How long the run was to last.
    pub seconds: u64,
    ended: usize,
}

impl Summary {
    pub fn is_good(&self) -> bool {
        [&self.wrong, &self.failed, &self.stuck, &self.leaking].into_iter().all(Vec::is_empty)
    }

    pub fn succeeded(&self) -> usize {
        self.jobs
            .iter()
            .filter(|((_, state), _)| state == "succeeded")
            .map(|(_, count)| count)
            .sum()
    }
}

pub fn check(events: &[Event]) -> Summary {
    let mut summary = Summary::default();
    let mut jobs: BTreeMap<i64, Job> = BTreeMap::new();
    let mut classes = BTreeSet::new();
    for event in events {
        match event.what.clone() {
            What::Run { seed, deployment, seconds, classes: wanted } => {
                summary.title = format!("{deployment}, seed {seed}, {seconds} s");
                summary.seconds = seconds;
                classes.extend(wanted);
            }
            What::Submitted { n, db, kind, target, factor, code, .. } => {
                let job = Job {
                    n,
                    db,
                    kind,
                    target,
                    factor,
                    acknowledged: code == 0,
                    refused: code == REFUSED,
                    cancel_asked: false,
                    ends: Vec::new(),
                    stuck: None,
                };
                jobs.insert(n, job);
            }
            What::CancelAsked { n, .. } => {
                jobs.entry(n).and_modify(|job| job.cancel_asked = true);
            }
            What::Removed { .. } => {}
            What::Fault { class, times, .. } => *summary.faults.entry(class).or_default() += times,
            What::Ended { n, id, state, began_to_publish, counters, error } => {
                let end = End { id, state, began_to_publish, counters, error };
                jobs.entry(n).and_modify(|job| job.ends.push(end));
            }
            What::Stuck { n, what } => {
                jobs.entry(n).and_modify(|job| job.stuck = Some(what));
            }
            What::Left { db, what } => summary.leaking.push(format!("{db}: {what}")),
            What::Daemon { name, what } => summary.wrong.push(format!("{name} {what}")),
            What::Inline { .. } | What::Content { .. } => {}
        }
    }
    for job in jobs.values() {
        summary.job(job);
    }
    let mut removed = BTreeSet::new();
    for event in events {
        match &event.what {
            // One that was cut short may have removed the result, and not the job.
            What::Removed { n, .. } => {
                removed.insert(n);
            }
            What::Inline { n, content } if !removed.contains(n) => {
                if let Some(job) = jobs.get(n).filter(|job| job.succeeded()) {
                    summary.compare(
                        &format!("the inline result of job {n}"),
                        &result(job),
                        content,
                    );
                }
            }
            What::Content { db, target, content } => {
                let of = |job: &&Job| job.db == *db && job.target == *target;
                let of_target: Vec<&Job> = jobs.values().filter(of).collect();
                summary.target(&format!("{db}.{target}"), target, &of_target, content);
            }
            _ => {}
        }
    }
    summary.never = classes
        .into_iter()
        .filter(|class| summary.faults.get(class).copied().unwrap_or(0) == 0)
        .collect();
    summary
}

fn result(job: &Job) -> Content {
    let result = job.kind.result(job.n, job.factor).into_iter();
    result.map(|(key, value)| (key, object(&[("value", value)]))).collect()
}

impl Summary {
    fn job(&mut self, job: &Job) {
        *self.jobs.entry((job.kind.name(), job.state().to_owned())).or_default() += 1;
        self.ended += 1;
        let name = format!("job {} ({} into {}.{})", job.n, job.kind.name(), job.db, job.target);
        let ids: BTreeSet<&str> = job.ends.iter().map(|end| end.id.as_str()).collect();
        if ids.len() > 1 {
            self.wrong.push(format!("{name} is there several times: {ids:?}"));
        }
        match job.state() {
            "succeeded" => {
                let counters = job.ends.last().map(|end| end.counters.clone()).unwrap_or_default();
                for (counter, expected) in job.kind.counters() {
                    if counters.get(counter) != Some(&expected) {
                        self.wrong
                            .push(format!("{name} counts {counters:?}, {counter} is {expected}"));
                    }
                }
            }
            "cancelled" if job.cancel_asked => {}
            "never there" => {}
            "stuck" => {
                self.stuck.push(format!("{name}: {}", job.stuck.clone().unwrap_or_default()))
            }
            "failed" => {
                let error = job.ends.first().and_then(|end| end.error.clone()).unwrap_or_default();
                self.failed.push(format!("{name}: {error}"));
            }
            state => self.wrong.push(format!("{name} is {state}")),
        }
    }

    fn compare(&mut self, what: &str, expected: &Content, found: &Content) {
        let differs: Vec<&i64> = expected
            .keys()
            .chain(found.keys())
            .filter(|id| expected.get(id) != found.get(id))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        if let Some(first) = differs.first() {
            let (count, expected, found) = (differs.len(), expected.get(first), found.get(first));
            self.wrong.push(format!(
                "{what}: {count} documents differ, the first is {first}: {found:?}, not {expected:?}"
            ));
        }
    }

    fn target(&mut self, what: &str, target: &str, jobs: &[&Job], found: &Content) {
        let kind =
            Kind::ALL.into_iter().find(|kind| kind.targets().iter().any(|name| name == target));
        let Some(kind) = kind else { return };
        let certain = || jobs.iter().filter(|job| job.succeeded());
        let unsure: Vec<&&Job> = jobs.iter().filter(|job| job.is_unsure()).collect();
        if unsure.len() > UNSURE_MAX {
            self.wrong.push(format!("{what}: too many jobs were given up while they were merged"));
            return;
        }
        let mut expected = kind.before();
        match kind.mode() {
            "replace" => {
                let mut whole: Vec<Content> = certain().map(|job| result(job)).collect();
                if whole.is_empty() {
                    whole.push(expected);
                }
                if !whole.contains(found) {
                    self.compare(
                        &format!("{what} is no job's result"),
                        &whole[whole.len() - 1],
                        found,
                    );
                }
                return;
            }
            "update" => {
                for job in certain() {
                    for (id, value) in job.kind.result(job.n, job.factor) {
                        let fields = expected.entry(id).or_default();
                        fields.insert(format!("f{}", job.n), json!(value));
                    }
                }
                for job in unsure {
                    for (id, value) in job.kind.result(job.n, job.factor) {
                        let field = format!("f{}", job.n);
                        if found.get(&id).and_then(|fields| fields.get(&field))
                            == Some(&json!(value))
                        {
                            expected.entry(id).or_default().insert(field, json!(value));
                        }
                    }
                }
            }
            "merge" => {
                certain().for_each(|job| expected.extend(result(job)));
                for job in unsure {
                    expected
                        .extend(result(job).into_iter().filter(|(id, _)| found.contains_key(id)));
                }
            }
            _ => {
                let mut sums: BTreeMap<i64, i64> = BTreeMap::new();
                for (id, fields) in &expected {
                    sums.insert(*id, fields.get("value").and_then(Value::as_i64).unwrap_or(0));
                }
                for job in certain() {
                    for (id, value) in job.kind.result(job.n, job.factor) {
                        *sums.entry(id).or_default() += value;
                    }
                }
                let parts: Vec<_> =
                    unsure.iter().map(|job| job.kind.result(job.n, job.factor)).collect();
                for (id, fields) in found {
                    let value = fields.get("value").and_then(Value::as_i64).unwrap_or(i64::MIN);
                    let base = sums.get(id).copied();
                    let shares: Vec<i64> =
                        parts.iter().filter_map(|part| part.get(id).copied()).collect();
                    let possible = (0..1_u32 << shares.len()).any(|some| {
                        let part = shares.iter().enumerate();
                        let part = part.filter(|(n, _)| some >> n & 1 == 1).map(|(_, share)| share);
                        value == base.unwrap_or(0) + part.sum::<i64>()
                    });
                    if possible && (base.is_some() || !shares.is_empty()) {
                        sums.insert(*id, value);
                    }
                }
                expected =
                    sums.into_iter().map(|(id, sum)| (id, object(&[("value", sum)]))).collect();
            }
        }
        self.compare(what, &expected, found);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [
            ("wrong", &self.wrong),
            ("failed", &self.failed),
            ("stuck", &self.stuck),
            ("leaking", &self.leaking),
        ];
        for (name, list) in lists {
            for one in list {
                writeln!(f, "{}: {one}", name.to_uppercase())?;
            }
        }
        writeln!(f, "{}", self.title)?;
        writeln!(f, "| job | outcome | count |\n|---|---|---|")?;
        for ((kind, state), count) in &self.jobs {
            writeln!(f, "| {kind} | {state} | {count} |")?;
        }
        writeln!(f, "| any | any | {} |\n", self.ended)?;
        writeln!(f, "| fault | firings |\n|---|---|")?;
        for (class, times) in &self.faults {
            writeln!(f, "| {class} | {times} |")?;
        }
        for class in self.never.iter().filter(|class| !self.faults.contains_key(*class)) {
            writeln!(f, "| {class} | 0 |")?;
        }
        let counts: Vec<String> =
            lists.iter().map(|(name, list)| format!("{name} {}", list.len())).collect();
        writeln!(f, "\n{}", counts.join(", "))
    }
}

/// Two jobs reduced into one target, which holds `sums`.
fn of_two(sums: Content) -> Summary {
    let end = |n: i64| What::Ended {
        n,
        id: format!("id{n}"),
        state: "succeeded".into(),
        began_to_publish: true,
        counters: Kind::Reduce.counters().map(|(name, count)| (name.to_owned(), count)).into(),
        error: None,
    };
    let submitted = |n: i64| What::Submitted {
        n,
        db: "db".into(),
        kind: Kind::Reduce,
        target: "reduce0".into(),
        factor: n,
        code: 0,
        id: Some(format!("id{n}")),
        said: String::new(),
    };
    let found = What::Content { db: "db".into(), target: "reduce0".into(), content: sums };
    let history = [submitted(1), submitted(2), end(1), end(2), found];
    let events: Vec<Event> = history.into_iter().map(|what| Event { at: 0, what }).collect();
    let lines: Vec<String> =
        events.iter().map(|event| serde_json::to_string(event).expect("JSON")).collect();
    let again = lines.iter().map(|line| serde_json::from_str(line).expect("an event"));
    check(&again.collect::<Vec<Event>>())
}

#[test]
fn a_merge_that_is_lost_or_doubled_shows() {
    let sums = |times: i64| {
        let mut sums = Kind::Reduce.before();
        for (key, value) in Kind::Reduce.result(0, times) {
            let old = sums.get(&key).and_then(|fields| fields.get("value")?.as_i64()).unwrap_or(0);
            sums.insert(key, object(&[("value", old + value)]));
        }
        sums
    };
    let whole = of_two(sums(3));
    assert!(whole.is_good(), "{whole}");
    for times in [1, 2, 4, 5] {
        let summary = of_two(sums(times));
        assert_eq!(summary.wrong.len(), 1, "{summary}");
    }
}
