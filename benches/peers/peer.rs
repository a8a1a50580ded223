//! Who does the jobs.

/// One who does a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Nobody: the input is read and nothing is done with it.
    Drain,
    /// The aggregation that a person would write.
    Group,
    /// MongoDB's own command, with the same JavaScript.
    MapReduce,
    /// A script of two processes.
    Pymongo,
    /// A script that reads into columns.
    Polars,
    /// Aviary.
    Aviary(With, Binary),
}

/// Which functions Aviary runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum With {
    /// A map in C, and `_sum`.
    Wasm,
    /// A map in JavaScript, and `_sum`.
    JsSum,
    /// Map and reduce in JavaScript.
    JsReduce,
}

/// Which Aviary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    /// This one.
    This,
    /// The one that it is held against.
    Other,
}

impl With {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Wasm, Self::JsSum, Self::JsReduce];

    fn title(self) -> &'static str {
        match self {
            Self::Wasm => "C map, _sum",
            Self::JsSum => "JS map, _sum",
            Self::JsReduce => "JS map, JS reduce",
        }
    }
}

impl Peer {
    /// Those that can be measured here; without the slow ones, only Aviary, the aggregation and the drain.
    pub fn all(slow: bool, python: bool, other: bool) -> Vec<Self> {
        let mut peers = vec![Self::Drain, Self::Group];
        if slow {
            peers.push(Self::MapReduce);
        }
        if slow && python {
            peers.extend([Self::Pymongo, Self::Polars]);
        }
        peers.extend(With::ALL.map(|with| Self::Aviary(with, Binary::This)));
        if other {
            peers.extend(With::ALL.map(|with| Self::Aviary(with, Binary::Other)));
        }
        peers
    }

    /// For people.
    pub fn title(self) -> String {
        match self {
            Self::Drain => "cursor drain, no job".into(),
            Self::Group => "aggregation with $out".into(),
            Self::MapReduce => "mapReduce command".into(),
            Self::Pymongo => "pymongo, two processes".into(),
            Self::Polars => "polars with pymongoarrow".into(),
            Self::Aviary(with, Binary::This) => format!("Aviary: {}", with.title()),
            Self::Aviary(with, Binary::Other) => format!("the other Aviary: {}", with.title()),
        }
    }
}
