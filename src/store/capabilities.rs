//! What the deployment can do, found out by asking, never by its version.
//!
//! One thing no job can do without: reading at a cluster time. What speaks the protocol and cannot do that is no MongoDB
//! server, whatever version it gives itself, and is refused at once. The rest decides how well jobs fare; workers write it
//! into their documents.

use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use mongodb::options::{ReadPreference, SelectionCriteria};

use super::error::{Action, classify};
use super::{AVIARY, Store};
use crate::error::{Error, Result, StoreError, StoreErrorKind};

/// What is asked of a deployment at the start is soon answered, or not known.
const ASK_MAX: Duration = Duration::from_secs(5);

/// What a worker found out about its deployment.
#[derive(Debug, Clone, PartialEq)]
pub struct Capabilities {
    /// Whether snapshots can be read at a cluster time; `None` where this user may not even try.
    pub snapshots: Option<bool>,
    /// How far back they can; `None` where no member tells this user.
    pub history: Option<Duration>,
    /// Whether zones hold what is filed under a shard; `None` without shards.
    pub zones: Option<bool>,
    /// What has become of the worker's link to its own shard.
    pub link: Link,
}

/// A worker's link to its own shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// There is none: without shards none is needed, and a worker without `--shard-uri` asks the router.
    None,
    /// Tasks, blocks and input are read there.
    Used,
    /// Input is read there; Aviary's collections are not where they belong.
    Input,
    /// The shard does not let the worker in.
    Shut,
}

impl Link {
    /// As documents have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Link::None => "none",
            Link::Used => "used",
            Link::Input => "input",
            Link::Shut => "shut",
        }
    }
}

impl Capabilities {
    /// As a worker's document has it; null is what could not be found out.
    pub fn document(&self) -> Document {
        let seconds = |window: Duration| i64::try_from(window.as_secs()).unwrap_or(i64::MAX);
        doc! {
            "snapshots": self.snapshots,
            "history_s": self.history.map(seconds),
            "zones": self.zones,
            "link": self.link.as_str(),
        }
    }
}

impl Store {
    /// Finds out what the deployment can do. What cannot be found out is not known, and no error.
    pub async fn capabilities(&self) -> Capabilities {
        let zones = match self.is_sharded() {
            true => self.is_zoned(&format!("{}.{AVIARY}", self.db_name())).await.ok(),
            false => None,
        };
        let snapshots = match self.snapshots().await {
            Snapshots::Read => Some(true),
            Snapshots::NotRead(_) => Some(false),
            Snapshots::Unknown => None,
        };
        Capabilities {
            snapshots,
            history: self.told_history_window().await.ok().flatten(),
            zones,
            link: self.link(),
        }
    }

    /// Refuses what speaks the protocol and cannot read at a cluster time.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub(super) async fn refuse_strangers(&self, shown: &str) -> Result<()> {
        match self.snapshots().await {
            Snapshots::NotRead(why) => Err(stranger(shown, &why)),
            Snapshots::Read | Snapshots::Unknown => Ok(()),
        }
    }

    /// Whether a snapshot read says at which cluster time it was.
    async fn snapshots(&self) -> Snapshots {
        let find = doc! {
            "find": AVIARY,
            // On one shard, so that another that is away holds nothing up.
            "filter": { "shard": self.home(), "_id": "clock/" },
            "limit": 1,
            "singleBatch": true,
            "readConcern": { "level": "snapshot" },
            "maxTimeMS": i64::try_from(ASK_MAX.as_millis()).unwrap_or(i64::MAX),
        };
        // Any member can tell, and there may be no primary for a while.
        let any = ReadPreference::PrimaryPreferred { options: None };
        let any = SelectionCriteria::ReadPreference(any);
        match self.database().run_command(find).selection_criteria(any).await {
            Ok(reply) => {
                let cursor = reply.get_document("cursor");
                if cursor.is_ok_and(|cursor| cursor.get_timestamp("atClusterTime").is_ok()) {
                    Snapshots::Read
                } else if reply.contains_key("$clusterTime") {
                    // Of a collection that is not there a server names no time.
                    Snapshots::Unknown
                } else {
                    Snapshots::NotRead("its answers name no cluster time".into())
                }
            }
            Err(error) => match classify(&error) {
                StoreError { kind: StoreErrorKind::Fatal, message, .. } => {
                    Snapshots::NotRead(message)
                }
                // Whatever else it fails for, the server has understood the question.
                _ => Snapshots::Unknown,
            },
        }
    }

    /// How far apart the clocks of the router and of the own shard's server are at least, and who is ahead; `None`
    /// without a link to the own shard.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn clocks_apart(&self) -> Result<Option<Apart>> {
        const ACTION: &str = "ask for the time";
        let Some(beside) = self.beside_any() else { return Ok(None) };
        let asked = Instant::now();
        let ask = doc! { "hello": 1 };
        let router =
            self.client().database("admin").run_command(ask.clone()).await.action(ACTION)?;
        let shard = beside.database("admin").run_command(ask).await.action(ACTION)?;
        let took = asked.elapsed();
        Ok(apart(router.get("localTime"), shard.get("localTime"), took))
    }
}

/// Whether a deployment reads snapshots at a cluster time.
enum Snapshots {
    Read,
    NotRead(String),
    Unknown,
}

/// How far two clocks are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Apart {
    /// At least so far.
    pub by: Duration,
    /// Whether the router's is ahead.
    pub router_is_ahead: bool,
}

/// From what the router and then a shard's server said, within a time.
fn apart(router: Option<&Bson>, shard: Option<&Bson>, took: Duration) -> Option<Apart> {
    let ms = |time: Option<&Bson>| Some(time?.as_datetime()?.timestamp_millis());
    let ahead = ms(router)?.saturating_sub(ms(shard)?);
    // The answers were given at some time while both were asked.
    let by = Duration::from_millis(ahead.unsigned_abs()).saturating_sub(took);
    Some(Apart { by, router_is_ahead: ahead > 0 })
}

/// The refusal of what is no MongoDB server.
pub(super) fn stranger(shown: &str, why: &str) -> Error {
    Error::refused(
        format!(
            "{shown} is not a MongoDB server, though it speaks its protocol: it cannot read at a cluster time \
             (readConcern snapshot, atClusterTime), as jobs read their input: {why}"
        ),
        "use MongoDB 5.0 or newer, on your own servers or on Atlas; Amazon DocumentDB and Azure Cosmos DB do not do",
    )
}

#[cfg(test)]
mod tests {
    use bson::DateTime;

    use super::*;

    #[test]
    fn clocks_are_apart_by_what_asking_does_not_explain() {
        let at = |ms| Some(Bson::DateTime(DateTime::from_millis(ms)));
        let told = |router, shard, took| {
            let apart = apart(at(router).as_ref(), at(shard).as_ref(), Duration::from_millis(took));
            apart.map(|apart| (apart.by.as_millis(), apart.router_is_ahead)).unwrap()
        };
        assert_eq!(told(31_000, 1_000, 5), (29_995, true));
        assert_eq!(told(1_000, 31_000, 5), (29_995, false));
        assert_eq!(told(1_000, 1_020, 50).0, 0, "the second was asked later");
        assert_eq!(apart(None, at(1).as_ref(), Duration::ZERO), None);
    }
}
