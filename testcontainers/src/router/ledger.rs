//! The cursors that clients have open: where each is, and who is to ask for more.
//!
//! A mongos keeps the cursors of a client that went away for ten minutes, and with them, on the
//! shards, every range that has moved away since. Tests kill clients and move ranges all the time,
//! so cursors end sooner here: with their session, or once the connection they were last used on
//! has been closed for [`GRACE`] without another connection of their client's taking them up.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use mongodb::bson::{RawBsonRef, RawDocument};

use super::streams::Shelf;

/// Cursors remembered at most; a client that asks for an older one is told that it is gone.
const CURSORS_MAX: usize = 100_000;
/// A driver that lost a connection goes on over another at once; one that reads slowly may take
/// some seconds to ask for more.
const GRACE: Duration = Duration::from_secs(10);

/// Where a cursor is.
#[derive(Debug, Clone)]
pub(super) struct CursorHome {
    pub(super) host: String,
    pub(super) namespace: String,
    /// Whether it is one of a router command, which goes to all shards by itself.
    pub(super) cluster: bool,
    /// What its parts on the shards are known by.
    pub(super) tag: Option<String>,
}

/// What a client knows as a cursor.
#[derive(Debug, Clone)]
pub(super) enum Open {
    Cursor(CursorHome),
    Stream(Shelf),
}

/// Who uses a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    /// The number of the connection it was last used on.
    pub(super) connection: u64,
    /// The id of its session.
    pub(super) session: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Entry {
    open: Open,
    holder: Holder,
    /// When the connection was closed.
    left: Option<Instant>,
}

/// All open cursors, by the ids clients know them by.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: HashMap<i64, Entry>,
    /// Those of sessions that have ended.
    ended: Vec<(i64, Open)>,
}

impl Ledger {
    pub(super) fn add(&mut self, id: i64, open: Open, holder: Holder) {
        if self.entries.len() >= CURSORS_MAX {
            self.entries.clear();
        }
        self.entries.insert(id, Entry { open, holder, left: None });
    }

    /// A cursor that is used on a connection from now on.
    pub(super) fn take_up(&mut self, id: i64, connection: u64) -> Option<Open> {
        let entry = self.entries.get_mut(&id)?;
        entry.holder.connection = connection;
        entry.left = None;
        Some(entry.open.clone())
    }

    pub(super) fn remove(&mut self, id: i64) -> Option<Open> {
        self.entries.remove(&id).map(|entry| entry.open)
    }

    /// Takes note that a connection is closed.
    pub(super) fn leave(&mut self, connection: u64, now: Instant) {
        for entry in self.entries.values_mut() {
            if entry.holder.connection == connection {
                entry.left = Some(now);
            }
        }
    }

    /// Takes note that a session has ended: none of its cursors can be used any more.
    pub(super) fn end_session(&mut self, session: &[u8]) {
        let of_session =
            |_: &i64, entry: &mut Entry| entry.holder.session.as_deref() == Some(session);
        let taken = self.entries.extract_if(of_session);
        self.ended.extend(taken.map(|(id, entry)| (id, entry.open)));
    }

    /// Takes out the cursors nobody can or will use any more; they are to be ended.
    pub(super) fn take_abandoned(&mut self, now: Instant) -> Vec<(i64, Open)> {
        let abandoned = |_: &i64, entry: &mut Entry| {
            entry.left.is_some_and(|left| now.duration_since(left) >= GRACE)
        };
        let mut taken = std::mem::take(&mut self.ended);
        let abandoned = self.entries.extract_if(abandoned);
        taken.extend(abandoned.map(|(id, entry)| (id, entry.open)));
        taken
    }
}

/// The id in a session's document, such as a command's `lsid`.
pub(super) fn session_id(lsid: &RawDocument) -> Option<Vec<u8>> {
    match lsid.get("id") {
        Ok(Some(RawBsonRef::Binary(id))) => Some(id.bytes.to_vec()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        for (id, connection, session) in [(1, 10, b"a"), (2, 10, b"b"), (3, 20, b"a")] {
            let home = CursorHome {
                host: "h".to_owned(),
                namespace: "d.c".to_owned(),
                cluster: true,
                tag: None,
            };
            let holder = Holder { connection, session: Some(session.to_vec()) };
            ledger.add(id, Open::Cursor(home), holder);
        }
        ledger
    }

    fn ids(taken: Vec<(i64, Open)>) -> Vec<i64> {
        let mut ids: Vec<i64> = taken.into_iter().map(|(id, _)| id).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn a_cursor_that_another_connection_takes_up_is_not_abandoned() {
        let mut ledger = ledger();
        let now = Instant::now();
        ledger.leave(10, now);
        assert!(ledger.take_up(1, 30).is_some());
        assert!(ledger.take_abandoned(now + GRACE / 2).is_empty());
        assert_eq!(ids(ledger.take_abandoned(now + GRACE)), [2]);
        assert!(ledger.take_up(2, 30).is_none());
        assert!(ledger.take_up(1, 30).is_some() && ledger.take_up(3, 30).is_some());
    }

    #[test]
    fn cursors_end_with_their_session() {
        let mut ledger = ledger();
        ledger.end_session(b"a");
        assert!(ledger.remove(2).is_some() && ledger.take_up(1, 10).is_none());
        assert_eq!(ids(ledger.take_abandoned(Instant::now())), [1, 3]);
        assert!(ledger.take_abandoned(Instant::now()).is_empty());
    }
}
