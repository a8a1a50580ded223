//! Names that must not be mixed up: each is its own type, and each reads well in mongosh.
//!
//! A task's name holds its job's, its kind and its number, so that one range over `_id` finds
//! everything of a job, and so that writing a plan twice writes the same documents.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The name as it stands in the database.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for bson::Bson {
            fn from(id: $name) -> Self {
                bson::Bson::String(id.0)
            }
        }

    };
}

text_id! {
    /// A job: 24 hexadecimal digits that begin with its time of creation, so ids sort by age.
    JobId
}
text_id! {
    /// A task: `JOB/map/PLAN.NUMBER`, `JOB/reduce/PLAN.NUMBER` or `JOB/publish/PLAN`.
    TaskId
}
text_id! {
    /// A worker process or coordinator process: `HOST-PID-RANDOM`.
    WorkerId
}
text_id! {
    /// The fence of one claim: whoever holds the token of a task's current lease may write.
    ///
    /// It is random and not a counter: after a claim that a failover rolled back, two attempts can
    /// share an epoch, but never a token.
    Token
}

impl JobId {
    /// A new id, unique without coordination.
    pub fn generate() -> Self {
        Self(bson::oid::ObjectId::new().to_hex())
    }

    /// Takes an id as a person or the database gave it.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl TaskId {
    /// The name of map task number `n` of the job's plan number `plan`.
    pub fn map(job: &JobId, plan: i32, n: u32) -> Self {
        Self(format!("{job}/map/{plan}.{n:05}"))
    }

    /// The name of the reduce task of partition `partition`.
    pub fn reduce(job: &JobId, plan: i32, partition: u32) -> Self {
        Self(format!("{job}/reduce/{plan}.{partition:05}"))
    }

    /// The name of the task that publishes the results of the job's plan number `plan`.
    pub fn publish(job: &JobId, plan: i32) -> Self {
        Self(format!("{job}/publish/{plan}"))
    }

    /// Takes a name as the database gave it.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The part after the job's id: `map/1.00003`.
    pub fn short(&self) -> &str {
        self.0.split_once('/').map_or(self.0.as_str(), |(_, rest)| rest)
    }
}

impl WorkerId {
    /// A new id for this process.
    pub fn generate(host: &str) -> Self {
        Self(format!("{host}-{}-{:06x}", std::process::id(), rand::random::<u32>() & 0xff_ffff))
    }
}

impl Token {
    /// A fresh token of 96 random bits.
    pub fn generate() -> Self {
        Self(format!("{:016x}{:08x}", rand::random::<u64>(), rand::random::<u32>()))
    }

    /// Takes a token as the database gave it.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_names_sort_by_number_and_hold_their_job() {
        let job = JobId::from_text("65f0c0ffee65f0c0ffee65f0");
        let (a, b) = (TaskId::map(&job, 1, 9), TaskId::map(&job, 1, 10));
        assert!(a < b);
        assert_eq!(a.short(), "map/1.00009");
        assert!(a.as_str().starts_with(job.as_str()));
    }

    #[test]
    fn tokens_differ() {
        assert_ne!(Token::generate(), Token::generate());
    }
}
