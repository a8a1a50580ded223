//! What is printed in the end.

use std::collections::BTreeMap;
use std::fmt;

use crate::case::{Ended, Process};
use crate::common::Bed;
use crate::gate::{Fault, Point};
use crate::jobs::Kind;
use crate::outcome::Verdict;
use crate::select::{Run, by_label};

/// A run and what came of it.
pub struct Line {
    pub run: Run,
    pub ended: Ended,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label: String = self.run.point.label.chars().take(160).collect();
        writeln!(f, "{} {}", self.ended.verdict.name().to_uppercase(), self.run.name())?;
        writeln!(f, "    point {}: {label} #{}", self.run.number, self.run.point.occurrence)?;
        let found = match &self.ended.verdict {
            Verdict::Exact | Verdict::NotReached => "",
            Verdict::Wrong(found) | Verdict::Stuck(found) | Verdict::Leftovers(found) => found,
        };
        writeln!(f, "    {found} [{}; jobs: {}]", self.ended.db, self.ended.states)?;
        write!(
            f,
            "    AVIARY_CRASH_ONLY='{}' cargo test --test crash_points -- --nocapture",
            self.run.name()
        )
    }
}

#[derive(Default)]
pub struct Table {
    points: BTreeMap<(Process, Kind), usize>,
    lines: Vec<Line>,
    bad_calm: Vec<String>,
}

impl Table {
    /// An undisturbed run that went wrong: its scenario has no points.
    pub fn bad_calm(&mut self, process: Process, kind: Kind, ended: &Ended) {
        let name = format!("{}/{}", process.name(), kind.name());
        self.bad_calm.push(format!("{name} went wrong undisturbed: {:?}", ended.verdict));
    }

    pub fn points(&mut self, process: Process, kind: Kind, points: &[(usize, Point)], all: usize) {
        self.points.insert((process, kind), points.len());
        let skipped = all - points.len();
        println!(
            "{}/{}: {} points, {skipped} polls skipped",
            process.name(),
            kind.name(),
            points.len()
        );
        if std::env::var_os("AVIARY_CRASH_LIST").is_some() {
            for (number, label, count) in by_label(points) {
                println!("  {number:>3} x{count} {label}");
            }
        }
    }

    pub fn add(&mut self, line: Line) {
        self.lines.push(line);
    }

    pub fn bad_count(&self) -> usize {
        self.lines.iter().filter(|line| line.ended.verdict.is_bad()).count() + self.bad_calm.len()
    }

    pub fn is_good(&self) -> bool {
        self.bad_count() == 0
    }
}

const NAMES: [&str; 5] = ["exact", "wrong", "stuck", "leftovers", "not reached"];

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for bad in &self.bad_calm {
            writeln!(f, "{bad}")?;
        }
        for line in self.lines.iter().filter(|line| line.ended.verdict.is_bad()) {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "| process | job | points | runs | {} |", NAMES.join(" | "))?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|")?;
        for ((process, kind), points) in &self.points {
            let of = |line: &&Line| line.run.process == *process && line.run.kind == *kind;
            let counts = counts(self.lines.iter().filter(of));
            writeln!(f, "| {} | {} | {points} {counts}", process.name(), kind.name())?;
        }
        for fault in Fault::ALL {
            let of = |line: &&Line| line.run.fault == fault;
            writeln!(f, "| any | {} | {}", fault.name(), counts(self.lines.iter().filter(of)))?;
        }
        let points: usize = self.points.values().sum();
        writeln!(f, "| any | any | {points} {}", counts(self.lines.iter()))?;
        let mut ends: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for line in &self.lines {
            *ends.entry((line.run.kind.name(), &line.ended.states)).or_default() += 1;
        }
        for ((kind, states), count) in ends
            .iter()
            .filter(|((_, states), _)| !states.trim_end_matches("+succeeded").eq("succeeded"))
        {
            writeln!(f, "{kind}: {count} runs ended {states}")?;
        }
        Ok(())
    }
}

fn counts<'a>(lines: impl Iterator<Item = &'a Line> + Clone) -> String {
    let of = |name: &str| lines.clone().filter(|line| line.ended.verdict.name() == name).count();
    let counts: Vec<String> = NAMES.iter().map(|name| of(name).to_string()).collect();
    format!("| {} | {} |", lines.clone().count(), counts.join(" | "))
}

/// Keeps the daemons' logs of a bad run.
pub fn keep(bed: &Bed, line: &Line) {
    let Some(dir) = std::env::var_os("AVIARY_CRASH_KEEP") else { return };
    let dir = std::path::Path::new(&dir).join(line.run.name().replace('/', "-"));
    std::fs::create_dir_all(&dir).expect("a directory");
    let of_this = format!("-{}-", line.ended.db);
    for entry in bed.dir.path().read_dir().expect("a directory").flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().contains(&of_this) {
            std::fs::copy(entry.path(), dir.join(name)).expect("copied");
        }
    }
}
