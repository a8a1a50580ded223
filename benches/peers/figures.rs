//! What was measured, as a table, a file and a page.

use std::fmt::Write;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

/// What one run of one peer took, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// From the request to the result in place.
    pub wall: f64,
    /// Processor time of the server.
    pub mongod: f64,
    /// Of the worker.
    pub worker: f64,
    /// Of the coordinator.
    pub coordinator: f64,
    /// Of whoever asked: this process, a script, or `aviary submit`.
    pub client: f64,
}

impl Cost {
    fn cpu(&self) -> f64 {
        self.mongod + self.worker + self.coordinator + self.client
    }
}

/// A figure over several runs.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    fn of(costs: &[Cost], figure: impl Fn(&Cost) -> f64) -> Result<Self> {
        let mut figures: Vec<f64> = costs.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        let at = |place: usize| figures.get(place).copied().context("no run");
        Ok(Self {
            median: at(figures.len() / 2)?,
            min: at(0)?,
            max: at(figures.len().saturating_sub(1))?,
        })
    }

    fn cell(self) -> String {
        format!("{:.2} ({:.2}-{:.2})", self.median, self.min, self.max)
    }
}

/// One peer's figures for one job, in seconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// The job.
    pub job: String,
    /// The peer.
    pub peer: String,
    /// Wall time.
    pub wall: Spread,
    /// Processor time of all processes.
    pub cpu: Spread,
    /// Processor time of the server.
    pub mongod: Spread,
    /// Of the worker.
    pub worker: Spread,
    /// Of the coordinator.
    pub coordinator: Spread,
    /// Of whoever asked.
    pub client: Spread,
    /// Wall time of the cursor drain, by this one's.
    pub of_drain: f64,
    /// How many times as fast as `mapReduce`.
    pub times_map_reduce: f64,
    /// How many times as fast as the aggregation.
    pub times_aggregation: f64,
}

impl Row {
    /// The figures of some runs.
    pub fn of(job: &str, peer: String, costs: &[Cost]) -> Result<Self> {
        Ok(Self {
            job: job.to_owned(),
            peer,
            wall: Spread::of(costs, |cost| cost.wall)?,
            cpu: Spread::of(costs, Cost::cpu)?,
            mongod: Spread::of(costs, |cost| cost.mongod)?,
            worker: Spread::of(costs, |cost| cost.worker)?,
            coordinator: Spread::of(costs, |cost| cost.coordinator)?,
            client: Spread::of(costs, |cost| cost.client)?,
            of_drain: 0.0,
            times_map_reduce: 0.0,
            times_aggregation: 0.0,
        })
    }
}

/// Everything of one run of the benchmark.
#[derive(Debug, Serialize, Deserialize)]
pub struct Figures {
    /// Processors of the machine.
    pub processors: usize,
    /// Its load before.
    pub load: String,
    /// Orders that were read.
    pub orders: u32,
    /// Texts that were read.
    pub texts: u32,
    /// Runs of each peer, in turn.
    pub runs: usize,
    /// What was measured.
    pub rows: Vec<Row>,
}

impl Figures {
    /// Beside each other, for a terminal.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
            "job",
            "peer",
            "wall s",
            "CPU s",
            "mongod",
            "worker",
            "coordinator",
            "client",
            "× drain's wall",
            "times mapReduce",
            "times aggregation",
        ]);
        for row in &self.rows {
            let middle = |spread: Spread| format!("{:.2}", spread.median);
            table.add_row([
                row.job.clone(),
                row.peer.clone(),
                row.wall.cell(),
                row.cpu.cell(),
                middle(row.mongod),
                middle(row.worker),
                middle(row.coordinator),
                middle(row.client),
                format!("{:.2}", row.of_drain),
                format!("{:.2}", row.times_map_reduce),
                format!("{:.2}", row.times_aggregation),
            ]);
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// The page of the documentation that shows them.
    pub fn page(&self) -> Result<String> {
        let mut page = String::new();
        let Self { processors, load, orders, texts, runs, .. } = self;
        write!(
            page,
            "# Aviary beside its peers\n\n\
             `cargo bench --bench peers` measures this and writes `target/peers.json`; `cargo bench --bench peers -- \
             --page target/peers.json` writes this page.\n\n\
             {orders} orders and {texts} texts on a replica set of one member, {processors} processors, load average \
             {load} before. Each peer ran {runs} times, in turn with the others. Shown are the median and, in \
             parentheses, the least and the most, in seconds. CPU is that of all processes together. Every peer's \
             output was equal.\n"
        )?;
        let mut job = "";
        for row in &self.rows {
            if row.job != job {
                job = &row.job;
                write!(
                    page,
                    "\n## {job}\n\n| peer | wall | CPU | × the drain's wall | times mapReduce | times aggregation |\n\
                     |---|---|---|---|---|---|\n"
                )?;
            }
            writeln!(
                page,
                "| {} | {} | {} | {:.2} | {:.2} | {:.2} |",
                row.peer,
                row.wall.cell(),
                row.cpu.cell(),
                row.of_drain,
                row.times_map_reduce,
                row.times_aggregation
            )?;
        }
        Ok(page)
    }
}
