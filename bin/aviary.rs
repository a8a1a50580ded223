//! The `aviary` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    aviary::cli::main()
}
