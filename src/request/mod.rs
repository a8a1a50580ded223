//! Submitting by document: any driver asks for a job by inserting one into `aviary-requests`.
//!
//! A request is a wish and no authority. The coordinator reads it, checks it completely, makes a job of it whose
//! every other field it sets itself, and answers in the same document: `state: "accepted"` and the job's id, later
//! `progress`, and in the end `result` or `error`; or `state: "refused"` and `error`. Its `_id` is the key by
//! which asking twice is asking once.
//!
//! Reading order: [`document`] (what a request says), [`schema`] (what the server refuses at the insert),
//! [`command`] (a mapReduce command as a request), [`job`] (what job that is), [`answer`] (what the coordinator says).

pub mod answer;
pub mod command;
pub mod convert;
pub mod document;
pub mod job;
pub mod schema;

pub use answer::{Answer, Problem};
pub use document::{Asked, Request, Wish};

/// Requests of whoever may insert here.
pub const REQUESTS: &str = "aviary-requests";
/// What the names of tenants' request collections begin with; the rest is the tenant's name.
pub const TENANT_PREFIX: &str = "aviary-requests-";

/// Whether requests are read from a collection of this name.
pub fn is_requests(collection: &str) -> bool {
    collection == REQUESTS || tenant(collection).is_some()
}

/// The tenant that a request collection proves: whoever may insert there is this one.
pub fn tenant(collection: &str) -> Option<&str> {
    collection.strip_prefix(TENANT_PREFIX).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_name_is_the_end_of_its_collections() {
        assert_eq!(tenant("aviary-requests-billing"), Some("billing"));
        assert_eq!(tenant(REQUESTS), None);
        assert_eq!(tenant("aviary-requests-"), None);
        assert!(is_requests(REQUESTS) && is_requests("aviary-requests-a"));
        assert!(!is_requests("aviary") && !is_requests("aviary-requests-"));
    }
}
