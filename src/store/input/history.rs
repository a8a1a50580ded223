//! What it means that a snapshot cannot be read any more.

use crate::error::{Error, StoreError, StoreErrorKind};
use crate::store::error::classify;

/// A snapshot that has aged out is the user's to solve, so the error says how.
pub(super) fn explain_history(error: Error) -> Error {
    match error {
        Error::Store { source, .. } if source.kind == StoreErrorKind::SnapshotTooOld => {
            Error::refused(
                "the job's snapshot is older than the history the servers keep",
                "raise minSnapshotHistoryWindowInSeconds on every server, which aviary init \
                 --history-window 2h does, or submit the job with --read committed; where nobody may raise it, as on \
                 Atlas, more workers end a job sooner",
            )
        }
        Error::Store { source, .. } if source.kind == StoreErrorKind::OwnersForgotten => {
            Error::refused(
                "the cluster no longer knows which shards held the input when the job began: its chunks \
                 were merged since, or moved again and again",
                "submit the job again and merge no chunks while it runs, or give workers a link to their \
                 shards (--shard-uri), which is enough for jobs without --sort and --limit; for moves, raise \
                 minSnapshotHistoryWindowInSeconds on the config servers too, which aviary init \
                 --history-window 2h does; or submit the job with --read committed",
            )
        }
        // It may pass, as after a restart; where the collection's indexes or options have changed it never
        // does before MongoDB 7.0, so the attempt counts as failed.
        Error::Store { source, .. }
            if matches!(source.code, Some(SNAPSHOT_UNAVAILABLE | MIGRATION_CONFLICT)) =>
        {
            Error::Store {
                action: "read the input as it was when the job began (was it replaced or moved to another \
                         shard, or were its indexes or options changed since? then submit the job again)"
                    .into(),
                source: StoreError { kind: StoreErrorKind::Fatal, ..source },
            }
        }
        other => other,
    }
}

/// The server's code for a snapshot that exists no longer because the collection itself changed, or the server was
/// restarted.
pub(super) const SNAPSHOT_UNAVAILABLE: i32 = 246;

/// The same of a collection whose database was moved to another shard since, from MongoDB 8.0 on. It never passes.
pub(super) const MIGRATION_CONFLICT: i32 = 272;

/// Whether a service does not take what other servers do, or no such user. Shared clusters of Atlas take no cursor that
/// is not to time out.
pub(super) fn is_service_limit(error: &mongodb::error::Error) -> bool {
    const ATLAS_ERROR: i32 = 8_000;
    classify(error).code == Some(ATLAS_ERROR)
}

pub(super) fn is_snapshot_unavailable(error: &Error) -> bool {
    matches!(error, Error::Store { source, .. } if source.code == Some(SNAPSHOT_UNAVAILABLE))
}
