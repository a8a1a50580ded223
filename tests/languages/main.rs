//! Functions in every language: from source file to result collection, on a real deployment, and what a
//! person is told when something is missing or wrong.
//!
//! A compiler that is not there makes its part of a test be skipped, which is said on standard error; with
//! `CI` set it is a failure instead.

#![cfg(test)]

#[path = "../common/mod.rs"]
mod common;
mod compilers;
mod effects;
mod mistakes;
mod offline;
mod same_results;
mod starters;
mod sums;
mod types;

use common::Bed;

#[tokio::test(flavor = "multi_thread")]
async fn the_same_jobs_have_the_same_results_in_every_language() {
    let bed = Bed::start(1).await;
    same_results::in_every_language(&bed).await;
    types::every_type_is_read_and_written_exactly(&bed).await;
    effects::reach_the_job_in_every_language(&bed).await;
    sums::change_neither_results_nor_counters(&bed).await;
    same_results::files_of_one_language_are_one_function(&bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_starter_runs_without_a_server() {
    starters::each_runs_without_a_server().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_not_empty_is_left_alone() {
    starters::a_directory_that_is_not_empty_is_left_alone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_a_file_are_checked() {
    offline::documents_of_a_file_are_checked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_compiler_is_named_with_the_command_that_installs_it() {
    mistakes::a_missing_compiler_is_named().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_compile_is_told_by_file_and_line() {
    mistakes::what_does_not_compile_is_told_by_file_and_line().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_function_is_told() {
    mistakes::a_missing_function_is_told().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_fails_names_its_line_and_the_document() {
    mistakes::a_failing_function_names_its_line().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_compiled_once_is_not_compiled_again() {
    compilers::what_was_compiled_once_is_not_compiled_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_sources_are_equal_modules() {
    compilers::equal_sources_are_equal_modules();
}

#[tokio::test(flavor = "multi_thread")]
async fn streaming_functions_have_their_three_exports() {
    compilers::streaming_functions_have_their_three_exports();
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_of_each_language_are_those_of_single_emits() {
    sums::are_those_of_single_emits();
}
