//! From the driver's errors to ours: the one place that knows server codes.

use bson::Document;
use mongodb::Database;
use mongodb::error::{
    Error as DriverError, ErrorKind, IndexedWriteError, InsertManyError, WriteFailure,
};

use crate::error::{Error, StoreError, StoreErrorKind};

/// Names what was being done when a driver call failed.
pub(crate) trait Action<T> {
    /// Turns a driver error into [`Error::Store`].
    fn action(self, action: impl Into<String>) -> Result<T, Error>;
}

impl<T> Action<T> for Result<T, DriverError> {
    fn action(self, action: impl Into<String>) -> Result<T, Error> {
        self.map_err(|source| of(action, &source))
    }
}

/// What failed, and what for.
pub(crate) fn of(action: impl Into<String>, source: &DriverError) -> Error {
    Error::Store { action: action.into(), source: classify(source) }
}

/// Runs a command that writes. Unlike its other calls, the driver's `run_command` does not tell when the write took
/// effect on one server and may not last.
pub(crate) async fn run_write(db: &Database, command: Document) -> Result<Document, DriverError> {
    let reply = db.run_command(command).await?;
    match reply.get("writeConcernError") {
        None => Ok(reply),
        Some(concern) => {
            let concern = bson::deserialize_from_bson(concern.clone())?;
            Err(ErrorKind::Write(WriteFailure::WriteConcernError(concern)).into())
        }
    }
}

/// Codes with which a server says that it is not, or no longer, the one to ask, by their names in
/// the server's `error_codes.yml`.
const TRANSIENT_CODES: [i32; 57] = [
    6,        // HostUnreachable
    7,        // HostNotFound
    43,       // CursorNotFound: the server that had it is no longer the one that answers
    46,       // LockBusy: another change of the same collection has its lock
    50,       // MaxTimeMSExpired
    64,       // WriteConcernFailed
    83,       // RemoteResultsUnavailable
    89,       // NetworkTimeout
    90,       // CallbackCanceled: a request between servers was dropped
    91,       // ShutdownInProgress
    112,      // WriteConflict
    117,      // ConflictingOperationInProgress
    133,      // FailedToSatisfyReadPreference
    134,      // ReadConcernMajorityNotAvailableYet
    145,      // PooledConnectionsDropped
    150,      // StaleEpoch
    175,      // QueryPlanKilled
    189,      // PrimarySteppedDown
    202,      // NetworkInterfaceExceededTimeLimit
    216,      // ElectionInProgress
    234,      // RetryChangeStream
    237,      // CursorKilled
    246,      // SnapshotUnavailable
    249,      // StaleDbVersion
    262,      // ExceededTimeLimit
    272,      // MigrationConflict
    279,      // ClientDisconnect
    317,      // ConnectionPoolExpired
    332,      // 332
    343,      // ShardCannotRefreshDueToLocksHeld
    355,      // InterruptedDueToStorageChange
    358,      // InternalTransactionNotSupported: while the cluster's version is changed
    365,      // TemporarilyUnavailable
    384,      // ConnectionError
    388,   // TransactionTooLargeForCache: of a write alone, when all others have filled the cache
    402,   // ResourceExhausted
    406,   // MigrationBlockingOperationCoordinatorCleaningUp
    407,   // PooledConnectionAcquisitionExceededTimeLimit
    412,   // UpdatesStillPending
    433,   // AdmissionQueueOverflow
    449,   // RateLimitExceeded
    450,   // PooledConnectionAcquisitionRejected
    453,   // InterruptedDueToReshardingCriticalSection
    462,   // IngressRequestRateLimitExceeded
    9001,  // SocketException
    10107, // NotWritablePrimary
    11600, // InterruptedAtShutdown
    11601, // Interrupted
    11602, // InterruptedDueToReplStateChange
    12586, // BackgroundOperationInProgressForDatabase: an index build that a failover has left behind ends
    12587, // BackgroundOperationInProgressForNamespace
    13388, // StaleConfig
    13435, // NotPrimaryNoSecondaryOk
    13436, // NotPrimaryOrSecondary
    50915, // BackupCursorOpenConflictWithCheckpoint
    91331, // RetriableRemoteCommandFailure
    10045600, // InterruptedDueToFCVChange
];

/// The user may not do this.
const UNAUTHORIZED: i32 = 13;

/// Of these, those with which a server says that it has more to do than it can: the same at once makes it worse.
const OVERLOAD_CODES: [i32; 4] = [433, 449, 450, 462];

/// Labels by which a server, or the driver, says that a failure passes by itself.
const TRANSIENT_LABELS: [&str; 4] =
    ["RetryableWriteError", "TransientTransactionError", "SystemOverloadedError", "RetryableError"];

/// Whether a server has more to do than it can.
pub(crate) fn is_overload(error: &Error) -> bool {
    let code = match error {
        Error::Store { source, .. } => source.code,
        _ => None,
    };
    code.is_some_and(|code| OVERLOAD_CODES.contains(&code))
}

/// Whether a failure with this code passes by itself.
pub(crate) fn is_transient_code(code: i32) -> bool {
    TRANSIENT_CODES.contains(&code)
}

/// What an error means for the caller.
pub(crate) fn classify(error: &DriverError) -> StoreError {
    let (code, mut message) = code_and_message(error);
    if code == Some(UNAUTHORIZED) {
        message = shortened(&message);
    }
    let kind = match (code, &*error.kind) {
        (Some(13 | 18 | 8000), _) => StoreErrorKind::Unauthorized,
        (Some(11000 | 11001), _) => StoreErrorKind::DuplicateKey,
        (Some(26), _) => StoreErrorKind::NamespaceNotFound,
        (Some(48), _) => StoreErrorKind::NamespaceExists,
        (Some(239), _) => StoreErrorKind::SnapshotTooOld,
        (Some(250), _) => StoreErrorKind::OwnersForgotten,
        (Some(46 | 117), _) if crate::planted::planted("lock-fatal") => StoreErrorKind::Fatal,
        (Some(code), _) if is_transient_code(code) => StoreErrorKind::Transient,
        (_, ErrorKind::Authentication { .. }) => StoreErrorKind::Unauthorized,
        (
            _,
            ErrorKind::Io(_)
            | ErrorKind::ServerSelection { .. }
            | ErrorKind::ConnectionPoolCleared { .. }
            | ErrorKind::DnsResolve { .. },
        ) => StoreErrorKind::Transient,
        _ if TRANSIENT_LABELS.iter().any(|label| error.contains_label(label)) => {
            StoreErrorKind::Transient
        }
        _ => StoreErrorKind::Fatal,
    };
    StoreError { message, code, kind }
}

/// The server repeats the whole command that it refuses, with the session's signature; its name and the collection
/// say enough.
fn shortened(message: &str) -> String {
    const COMMAND: &str = " to execute command { ";
    let Some((who, command)) = message.split_once(COMMAND) else { return message.to_owned() };
    let first = command.split([',', '}']).next().unwrap_or_default().trim();
    format!("{who} to execute {{ {first} }}")
}

fn code_and_message(error: &DriverError) -> (Option<i32>, String) {
    match &*error.kind {
        ErrorKind::Command(command) => (Some(command.code), command.message.clone()),
        ErrorKind::Write(WriteFailure::WriteError(write)) => {
            (Some(write.code), write.message.clone())
        }
        ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => {
            (Some(concern.code), concern.message.clone())
        }
        ErrorKind::InsertMany(many) => match decisive(many) {
            Some((code, message)) => (Some(code), message.to_owned()),
            None => (None, error.to_string()),
        },
        ErrorKind::Authentication { message, .. } => {
            // The driver wraps the server's refusal of credentials without its code.
            (Some(18), message.clone())
        }
        ErrorKind::ServerSelection { message, .. } => (None, message.clone()),
        _ => (None, error.to_string()),
    }
}

/// What an insert of several documents failed for.
///
/// A second try finds the documents that the first one wrote, and may fail again, for the other documents or
/// for the write concern. What is there already says nothing about those, so it counts last.
fn decisive<'a>(many: &'a InsertManyError) -> Option<(i32, &'a str)> {
    let errors = many.write_errors.iter().flatten();
    let (existing, others): (Vec<_>, Vec<_>) = errors.partition(|e| is_existing_id(e));
    let told = |e: &&'a IndexedWriteError| (e.code, e.message.as_str());
    let concern = many.write_concern_error.as_ref().map(|e| (e.code, e.message.as_str()));
    others.first().map(told).or(concern).or(existing.first().map(told))
}

fn is_existing_id(error: &IndexedWriteError) -> bool {
    error.code == 11000 && error.message.contains("index: _id_")
}

/// Whether an unordered insert failed for nothing but `_id`s that exist already.
///
/// Any other write error, or a write concern that was not met, makes this `false`: then documents
/// may be missing.
pub(crate) fn only_existing_ids(error: &DriverError) -> bool {
    let ErrorKind::InsertMany(many) = &*error.kind else { return false };
    let Some(errors) = &many.write_errors else { return false };
    many.write_concern_error.is_none() && errors.iter().all(is_existing_id)
}

/// The database on which a server refuses a command, by its words.
pub(super) fn refused_on(error: &Error) -> Option<String> {
    let Error::Store { source, .. } = error else { return None };
    let (_, rest) = source.message.split_once("not authorized on ")?;
    rest.split_whitespace().next().map(str::to_owned)
}

/// Says what to grant where the server refuses for lack of a privilege.
pub(super) fn not_permitted(error: Error, hint: impl FnOnce() -> String) -> Error {
    match error {
        Error::Store { action, source } if source.kind == StoreErrorKind::Unauthorized => {
            Error::NotPermitted { action, why: source.message, hint: hint() }
        }
        other => other,
    }
}

/// What was written before is not to be seen by a majority yet, and may still be lost: the same again is in order.
pub(super) fn not_kept_yet(action: &str) -> Error {
    Error::Store {
        action: action.into(),
        source: StoreError {
            message: "a majority of the servers does not have it yet".into(),
            code: None,
            kind: StoreErrorKind::Transient,
        },
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    fn existing(index: i32) -> Document {
        let message =
            "E11000 duplicate key error collection: test.c index: _id_ dup key: { _id: 1 }";
        doc! { "index": index, "code": 11000, "errmsg": message }
    }

    fn kind_of(reply: Document) -> (StoreErrorKind, bool) {
        let many: InsertManyError = bson::deserialize_from_document(reply).unwrap();
        let error = DriverError::from(ErrorKind::InsertMany(many));
        (classify(&error).kind, only_existing_ids(&error))
    }

    #[test]
    fn a_refusal_names_the_command_and_not_the_session() {
        let whole = "not authorized on own to execute command { find: \"aviary\", lsid: { id: 1 }, \
                     $clusterTime: { signature: { hash: 5 } } }";
        assert_eq!(shortened(whole), "not authorized on own to execute { find: \"aviary\" }");
        assert_eq!(shortened("not authorized"), "not authorized");
    }

    #[test]
    fn overload_and_changes_of_version_pass() {
        let overload = [433, 449, 450, 462];
        let version = [358, 402, 406, 412, 453, 50_915, 91_331, 10_045_600];
        assert!(overload.into_iter().chain(version).all(is_transient_code));
        assert!(![11_000, 13, 121].into_iter().any(is_transient_code));
    }

    #[test]
    fn what_exists_already_hides_no_other_failure() {
        use StoreErrorKind::{DuplicateKey, Fatal, Transient};
        let away = doc! { "index": 1, "code": 10107, "errmsg": "not primary" };
        let invalid = doc! { "index": 1, "code": 121, "errmsg": "Document failed validation" };
        let concern = doc! { "code": 64, "codeName": "WriteConcernFailed", "errmsg": "timed out" };
        assert_eq!(kind_of(doc! { "writeErrors": [existing(0)] }), (DuplicateKey, true));
        assert_eq!(kind_of(doc! { "writeErrors": [existing(0), &away] }), (Transient, false));
        assert_eq!(kind_of(doc! { "writeErrors": [&away, existing(2)] }), (Transient, false));
        assert_eq!(kind_of(doc! { "writeErrors": [existing(0), &invalid] }), (Fatal, false));
        let unsafe_yet = doc! { "writeErrors": [existing(0)], "writeConcernError": &concern };
        assert_eq!(kind_of(unsafe_yet), (Transient, false));
        let invalid = doc! { "writeErrors": [invalid], "writeConcernError": concern };
        assert_eq!(kind_of(invalid), (Fatal, false));
    }
}
