//! What a function costs its compiler.

use wasmtime::wasmparser::{BlockType, FuncType, FunctionBody, Operator};

use super::seen::Seen;
use crate::wasm::limits::BULK_BYTES_MAX;

impl Seen {
    /// What compiling a function takes, as far as it can be told from its operators.
    pub(super) fn work(&self, body: &FunctionBody<'_>) -> wasmtime::wasmparser::Result<Work> {
        let mut locals: u64 = 0;
        for group in body.get_locals_reader()? {
            locals = locals.saturating_add(u64::from(group?.0));
        }
        let own = u32::try_from(self.imported_functions + self.bodies).ok();
        let returned = own.and_then(|index| self.function_type(index)).map_or(0, results);
        let passed = |kind: Option<&FuncType>| kind.map_or(0, |kind| params(kind) + results(kind));
        let (mut branches, mut operators): (u64, u64) = (0, 0);
        let mut open_loops: u64 = 0;
        let mut open: Vec<Label> = Vec::new();
        let mut bulk: u64 = 0;
        // The length is what is pushed last.
        let mut last_is_short = false;
        for operator in body.get_operators_reader()? {
            let operator = operator?;
            let is_short = matches!(operator, Operator::I32Const { value } if value.unsigned_abs() <= BULK_BYTES_MAX);
            let values = match operator {
                Operator::Block { blockty } | Operator::If { blockty } => {
                    branches += 1;
                    let (given, left) = self.block_values(blockty);
                    open.push(Label { is_loop: false, values: left });
                    HEAVY + given + left
                }
                Operator::Loop { blockty } => {
                    open_loops += 1;
                    branches += open_loops;
                    let (given, left) = self.block_values(blockty);
                    open.push(Label { is_loop: true, values: given });
                    HEAVY + given + left
                }
                Operator::End => {
                    let ended = open.pop();
                    open_loops -= u64::from(ended.is_some_and(|label| label.is_loop));
                    0
                }
                Operator::Else => {
                    branches += 1;
                    0
                }
                Operator::Br { relative_depth } | Operator::BrIf { relative_depth } => {
                    branches += 1;
                    branch_values(&open, relative_depth, returned)
                }
                Operator::BrTable { targets } => {
                    let count = u64::from(targets.len()) + 1;
                    branches += count;
                    count * (1 + branch_values(&open, targets.default(), returned))
                }
                Operator::Return => returned,
                Operator::Call { function_index } | Operator::ReturnCall { function_index } => {
                    HEAVY + passed(self.function_type(function_index))
                }
                Operator::CallIndirect { type_index, .. }
                | Operator::ReturnCallIndirect { type_index, .. } => {
                    HEAVY + passed(self.type_at(type_index))
                }
                Operator::MemoryFill { .. }
                | Operator::MemoryCopy { .. }
                | Operator::MemoryInit { .. } => {
                    bulk += u64::from(!last_is_short);
                    0
                }
                _ => 0,
            };
            last_is_short = is_short;
            operators = operators.saturating_add(1 + values);
        }
        let merges = branches.saturating_mul(locals.saturating_add(1));
        Ok(Work { operators, merges, locals, bulk })
    }

    /// How many values a block is given, and how many it leaves.
    pub(super) fn block_values(&self, kind: BlockType) -> (u64, u64) {
        match kind {
            BlockType::Empty => (0, 0),
            BlockType::Type(_) => (0, 1),
            BlockType::FuncType(index) => {
                self.type_at(index).map_or((0, 0), |kind| (params(kind), results(kind)))
            }
        }
    }
}

/// A call or a block counts as so many operators more: measured, it takes the compiler as much memory or time.
pub(super) const HEAVY: u64 = 3;

/// What compiling a function takes.
pub(super) struct Work {
    /// Operators, and the values that they move.
    pub(super) operators: u64,
    /// Its branches times its locals. A loop counts once for each loop around it as well, since its locals are kept
    /// apart at every level.
    pub(super) merges: u64,
    pub(super) locals: u64,
    /// Operators that move memory of any length.
    pub(super) bulk: u64,
}

/// A block that is open, and how many values a branch to it takes along.
pub(super) struct Label {
    pub(super) is_loop: bool,
    pub(super) values: u64,
}

pub(super) fn branch_values(open: &[Label], depth: u32, returned: u64) -> u64 {
    open.iter().rev().nth(depth as usize).map_or(returned, |label| label.values)
}

pub(super) fn params(kind: &FuncType) -> u64 {
    kind.params().len() as u64
}

pub(super) fn results(kind: &FuncType) -> u64 {
    kind.results().len() as u64
}
