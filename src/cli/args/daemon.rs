//! Flags of daemons.

use clap::Args;

use super::setting::{Coordinator, Given, Worker};

#[derive(Debug, Args)]
pub(in crate::cli) struct WorkerArgs {
    #[command(flatten)]
    pub(in crate::cli) given: Given<Worker>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CoordinatorArgs {
    #[command(flatten)]
    pub(in crate::cli) given: Given<Coordinator>,
}
