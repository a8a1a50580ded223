//! Bringing the events of all shards into one order.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use mongodb::bson::{RawBsonRef, RawDocumentBuf, doc};
use tokio::task::JoinSet;

use super::super::data::cursor_id;
use super::super::failure::{Failure, Result};
use super::super::message::{Reply, encode, invalid};
use super::super::upstream::Upstream;
use super::position_in;
use super::token::position_of;

/// A reply must stay below what a message may hold.
const BATCH_BYTES_MAX: usize = 12 * 1024 * 1024;

/// The stream of one shard.
#[derive(Debug)]
pub(super) struct Part {
    shard: String,
    host: String,
    pub(super) namespace: String,
    /// Zero once the shard has ended it.
    cursor: i64,
    /// Absent while a batch is being fetched.
    upstream: Option<Upstream>,
    /// Fetched, not passed on yet, with their tokens.
    events: VecDeque<(String, RawDocumentBuf)>,
    /// No event before this will come.
    position: String,
}

struct Fetched {
    part: usize,
    upstream: Upstream,
    reply: io::Result<Reply>,
}

impl std::fmt::Debug for Fetched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetched").field("part", &self.part).finish_non_exhaustive()
    }
}

/// The streams of all shards.
#[derive(Debug)]
pub(super) struct Merge {
    parts: Vec<Part>,
    /// Goes on between the client's commands.
    fetching: JoinSet<Fetched>,
    /// The last event the client has seen.
    seen: Option<String>,
    invalidated: bool,
}

impl Part {
    pub(super) fn of(shard: &str, host: String, upstream: Upstream, reply: &Reply) -> Result<Self> {
        let cursor = reply.body.get_document("cursor");
        let namespace = cursor.and_then(|cursor| cursor.get_str("ns"));
        Ok(Self {
            shard: shard.to_owned(),
            host,
            namespace: namespace.map_err(|error| invalid(&error.to_string()))?.to_owned(),
            cursor: cursor_id(&reply.body).map_or(0, |(id, _)| id),
            upstream: Some(upstream),
            events: VecDeque::new(),
            position: position_in(reply)?,
        })
    }

    /// Nothing before this comes from here; `None` when nothing comes at all any more.
    fn bound(&self) -> Option<&str> {
        match self.events.front() {
            Some((token, _)) => Some(token),
            None if self.cursor == 0 => None,
            None => Some(&self.position),
        }
    }

    fn take(&mut self, reply: &Reply, seen: Option<&str>) -> Result<()> {
        self.cursor = cursor_id(&reply.body).map_or(0, |(id, _)| id);
        if let Ok(position) = position_in(reply) {
            self.position = position;
        }
        let cursor = reply.body.get_document("cursor");
        let batch = cursor.and_then(|cursor| cursor.get_array("nextBatch"));
        for event in batch.map_err(|error| invalid(&error.to_string()))? {
            let Ok(RawBsonRef::Document(event)) = event else { continue };
            let token = event.get_document("_id").map_err(|error| invalid(&error.to_string()))?;
            let token = position_of(token)?;
            if seen.is_none_or(|seen| token > seen) {
                self.events.push_back((token.to_owned(), event.to_owned()));
            }
        }
        Ok(())
    }
}

impl Merge {
    pub(super) fn new(seen: Option<String>) -> Self {
        Self { parts: Vec::new(), fetching: JoinSet::new(), seen, invalidated: false }
    }

    pub(super) fn add(&mut self, part: Part) {
        self.parts.push(part);
    }

    pub(super) fn has(&self, shard: &str) -> bool {
        self.parts.iter().any(|part| part.shard == shard)
    }

    /// Whether nothing will come any more.
    pub(super) fn is_ended(&self) -> bool {
        self.invalidated || self.parts.iter().all(|part| part.bound().is_none())
    }

    /// The servers and cursors of the parts.
    pub(super) fn cursors(&self) -> Vec<(String, i64)> {
        let open = self.parts.iter().filter(|part| part.cursor != 0);
        open.map(|part| (part.host.clone(), part.cursor)).collect()
    }

    /// The token to resume from: nothing before it will come.
    pub(super) fn position(&self) -> Option<String> {
        let least = self.parts.iter().filter_map(Part::bound).min();
        // An event that waits for others has not been passed on.
        let passed = |part: &Part| part.events.is_empty();
        let waits = self.parts.iter().any(|part| !passed(part) && part.bound() == least);
        match (least, self.seen.as_deref()) {
            (Some(least), Some(seen)) if !waits => Some(least.max(seen).to_owned()),
            (Some(least), None) if !waits => Some(least.to_owned()),
            (_, Some(seen)) => Some(seen.to_owned()),
            (_, None) => None,
        }
    }

    /// The next events, at most `count`; none when there are none until `deadline`.
    pub(super) async fn next(
        &mut self,
        count: usize,
        deadline: Instant,
    ) -> Result<Vec<RawDocumentBuf>> {
        loop {
            let events = self.ready(count);
            if !events.is_empty() || self.is_ended() {
                return Ok(events);
            }
            self.fetch(deadline)?;
            let fetched = self.fetching.join_next();
            let fetched = tokio::time::timeout_at(deadline.into(), fetched).await;
            match fetched {
                Ok(Some(Ok(fetched))) => self.accept(fetched)?,
                Ok(Some(Err(error))) => {
                    return Err(invalid(&error.to_string()).into());
                }
                Ok(None) => return Ok(Vec::new()),
                Err(_) => return Ok(Vec::new()),
            }
        }
    }

    fn ready(&mut self, count: usize) -> Vec<RawDocumentBuf> {
        let mut ready = Vec::new();
        let mut bytes = 0;
        while ready.len() < count && bytes < BATCH_BYTES_MAX && !self.invalidated {
            let least = self.parts.iter_mut().filter(|part| part.bound().is_some());
            let Some(least) = least.min_by(|left, right| left.bound().cmp(&right.bound())) else {
                break;
            };
            // Otherwise the one that may still have the next event is yet to be heard.
            let Some((token, event)) = least.events.pop_front() else { break };
            self.invalidated =
                event.get_str("operationType").is_ok_and(|kind| kind == "invalidate");
            self.seen = Some(token);
            bytes += event.as_bytes().len();
            ready.push(event);
        }
        ready
    }

    /// Asks each shard that may have the next event, unless it is being asked.
    fn fetch(&mut self, deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        let left_ms = i64::try_from(left.as_millis()).unwrap_or(i64::MAX).max(1);
        for (index, part) in self.parts.iter_mut().enumerate() {
            if part.cursor == 0 || !part.events.is_empty() {
                continue;
            }
            let Some(mut upstream) = part.upstream.take() else { continue };
            let (db, collection) = part.namespace.split_once('.').unwrap_or_default();
            let command = encode(&doc! {
                "getMore": part.cursor,
                "collection": collection,
                "maxTimeMS": left_ms,
                "$db": db,
            })?;
            self.fetching.spawn(async move {
                let reply = upstream.exchange(&command, &[]).await;
                Fetched { part: index, upstream, reply }
            });
        }
        Ok(())
    }

    fn accept(&mut self, fetched: Fetched) -> Result<()> {
        let Some(part) = self.parts.get_mut(fetched.part) else {
            return Ok(());
        };
        let reply =
            fetched.reply.map_err(|source| Failure::Lost { host: part.host.clone(), source })?;
        part.upstream = Some(fetched.upstream);
        if !reply.is_ok() {
            return Err(Failure::Refused(reply));
        }
        part.take(&reply, self.seen.as_deref())
    }
}
