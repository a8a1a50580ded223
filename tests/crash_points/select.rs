//! Which points and faults are run.

use std::collections::HashMap;
use std::time::Duration;

use crate::case::Process;
use crate::gate::{Fault, Point, Trap};
use crate::jobs::Kind;
use crate::label::digest;

/// So many times for each job a command of one label is a point: one that comes more often is a poll.
const WRITES_MAX: u32 = 6;
/// The same for a read: what matters of it is which writes it comes between.
const READS_MAX: u32 = 2;
/// Every so-many-th point is in the sample.
const SAMPLE_EVERY: usize = 29;

/// One run to do.
#[derive(Debug, Clone)]
pub struct Run {
    pub process: Process,
    pub kind: Kind,
    pub number: usize,
    pub point: Point,
    pub fault: Fault,
}

impl Run {
    pub fn trap(&self) -> Trap {
        Trap { point: self.point.clone(), fault: self.fault }
    }

    /// By which it can be repeated alone.
    pub fn name(&self) -> String {
        format!(
            "{}/{}/{}={}/{}",
            self.process.name(),
            self.kind.name(),
            self.number,
            key(&self.point),
            self.fault.name()
        )
    }
}

/// A point in a few characters.
fn key(point: &Point) -> String {
    format!("{}.{}", digest(&point.label), point.occurrence)
}

/// The points of an undisturbed run, numbered from 1.
pub fn points(kind: Kind, trace: &[Point]) -> Vec<(usize, Point)> {
    let jobs = u32::try_from(kind.submissions().len()).expect("one or two");
    let most = |point: &Point| jobs * if point.reads() { READS_MAX } else { WRITES_MAX };
    let counted = (1..).zip(trace.iter().cloned());
    counted.filter(|(_, point)| point.occurrence <= most(point)).collect()
}

/// What the environment asks for.
pub struct Selection {
    /// Every so-many-th point, each with one fault in turn; `None` is every point with every fault.
    every: Option<usize>,
    only: Vec<Vec<String>>,
    /// No run begins later than this after the start.
    pub budget: Duration,
}

impl Selection {
    pub fn from_env() -> Self {
        let only: Vec<Vec<String>> = std::env::var("AVIARY_CRASH_ONLY")
            .unwrap_or_default()
            .split(',')
            .filter(|one| !one.is_empty())
            .map(|one| one.split('/').map(str::to_owned).collect())
            .collect();
        let every = match std::env::var("AVIARY_CRASH_POINTS").as_deref() {
            Ok("all") => None,
            Ok(number) => Some(number.parse().expect("AVIARY_CRASH_POINTS is `all` or a number")),
            Err(_) if only.is_empty() => Some(SAMPLE_EVERY),
            Err(_) => None,
        };
        let seconds = std::env::var("AVIARY_CRASH_SECONDS").ok().and_then(|n| n.parse().ok());
        Self { every, only, budget: seconds.map_or(Duration::MAX, Duration::from_secs) }
    }

    pub fn wants(&self, process: Process, kind: Kind) -> bool {
        let names = [process.name(), kind.name()];
        self.only.is_empty()
            || self.only.iter().any(|only| only.iter().zip(names).all(|(only, name)| only == name))
    }

    /// The runs of a scenario that are asked for.
    pub fn runs(&self, process: Process, kind: Kind, points: &[(usize, Point)]) -> Vec<Run> {
        let runs = points.iter().flat_map(|(number, point)| {
            Fault::ALL.map(|fault| Run {
                process,
                kind,
                number: *number,
                point: point.clone(),
                fault,
            })
        });
        runs.filter(|run| self.only.is_empty() || self.only.iter().any(|only| is_named(run, only)))
            .collect()
    }

    /// Whether a run is named with its fault.
    fn is_asked_for(&self, run: &Run) -> bool {
        self.only.iter().any(|only| only.len() > 3 && is_named(run, only))
    }

    /// The sample, in which faults take turns; all of them that can differ when nothing less is asked for.
    pub fn sample(&self, runs: Vec<Run>) -> Vec<Run> {
        let Some(every) = self.every else {
            let mut runs = runs;
            runs.retain(|run| run.point.tells(run.fault) || self.is_asked_for(run));
            // Mixed, always in the same way, so that what a budget allows for is a bit of everything.
            runs.sort_by_cached_key(|run| digest(&run.name()));
            return runs;
        };
        let step = |n: usize| n / Fault::ALL.len();
        let chosen = runs.into_iter().enumerate().filter(|(n, run)| {
            let turn = step(*n) / every % Fault::ALL.len();
            step(*n).is_multiple_of(every) && Fault::ALL[turn] == run.fault
        });
        chosen.map(|(_, run)| run).collect()
    }
}

/// Whether `process/kind/point/fault`, or the beginning of it, means this run. A point's label counts
/// more than its number, which differs a little from run to run.
fn is_named(run: &Run, only: &[String]) -> bool {
    let mut only = only.iter().map(String::as_str);
    let is = |wanted: Option<&str>, name: &str| {
        wanted.is_none_or(|wanted| wanted == name || wanted == "*")
    };
    let point = |wanted: Option<&str>| match wanted.and_then(|wanted| wanted.split_once('=')) {
        Some((_, wanted)) => wanted == key(&run.point),
        None => is(wanted, &run.number.to_string()),
    };
    is(only.next(), run.process.name())
        && is(only.next(), run.kind.name())
        && point(only.next())
        && is(only.next(), run.fault.name())
}

/// How many points of each label there are, for a listing.
pub fn by_label(points: &[(usize, Point)]) -> Vec<(usize, String, u32)> {
    let mut counts: HashMap<&str, (usize, u32)> = HashMap::new();
    for (number, point) in points {
        counts.entry(&point.label).or_insert((*number, 0)).1 += 1;
    }
    let mut listed: Vec<_> = counts
        .into_iter()
        .map(|(label, (number, count))| (number, label.to_owned(), count))
        .collect();
    listed.sort();
    listed
}
