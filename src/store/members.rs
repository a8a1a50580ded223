//! What is asked of, and set on, every data-bearing member of the deployment, one by one: parameters
//! belong to a server, and neither a replica set nor a router passes them on.
//!
//! The config servers are among them: for as long as their own window they remember which shard had a chunk,
//! which a router needs to know when it reads a snapshot.

use std::time::Duration;

use bson::doc;
use mongodb::options::{ClientOptions, ServerAddress};
use mongodb::{Client, Database};
use tokio::task::JoinSet;

use super::error::{Action, classify};
use super::{Store, links};
use crate::error::{Error, Result, StoreErrorKind};

/// How far back a server can read snapshots, in seconds.
const WINDOW: &str = "minSnapshotHistoryWindowInSeconds";
/// A server's own default of it.
const WINDOW_DEFAULT: Duration = Duration::from_secs(300);
/// How long a member may take to say what its window is: only a warning depends on it.
const ANSWER_MAX: Duration = Duration::from_secs(2);

impl Store {
    /// Lets snapshots be read `window` back, on every data-bearing member, until it restarts; one that
    /// lets them be read further back is left alone. All members are tried before the first failure is
    /// reported.
    ///
    /// # Errors
    /// [`Error::Refused`] naming the members that could not be reached or refused for want of a
    /// privilege, [`Error::Store`].
    pub async fn raise_history_window(&self, window: Duration) -> Result<()> {
        let seconds = i32::try_from(window.as_secs()).unwrap_or(i32::MAX).max(1);
        let raise = move |admin: Database| async move {
            let known = admin.run_command(doc! { "getParameter": 1, WINDOW: 1 }).await;
            if known.is_ok_and(|known| known.get_i32(WINDOW).is_ok_and(|known| known >= seconds)) {
                return Ok(());
            }
            let raised = doc! { "setParameter": 1, WINDOW: seconds };
            match admin.run_command(raised.clone()).await {
                Err(error) if classify(&error).kind == StoreErrorKind::Transient => {
                    admin.run_command(raised).await.map(|_| ())
                }
                outcome => outcome.map(|_| ()),
            }
        };
        let mut failures = Vec::new();
        let mut failed = |who: &str, error: &mongodb::error::Error| {
            let known = classify(error);
            let why = match known.kind {
                StoreErrorKind::Unauthorized => "not permitted".to_owned(),
                _ => super::unreachable::plain_reason(&known.message, None),
            };
            failures.push(format!("{who} ({why})"));
        };
        let mut members = self.members().await?;
        match self.config_members().await {
            Ok(more) => members.extend(more),
            Err(error) => failed("the config servers", &error),
        }
        for (member, outcome) in self.on_each(members, raise).await? {
            if let Err(error) = outcome {
                failed(&member.to_string(), &error);
            }
        }
        if failures.is_empty() {
            return Ok(());
        }
        Err(Error::refused(
            format!("the history window was not raised on {}", failures.join(", ")),
            format!(
                "let a user run this who has the role hostManager on each member, for setParameter, and clusterMonitor \
                 through the router, for getShardMap; or run db.adminCommand({{setParameter: 1, {WINDOW}: {seconds}}}) \
                 on each. Where nobody may, as on Atlas, let jobs end within the window, by more workers, or submit \
                 them with --read committed"
            ),
        ))
    }

    /// How far back every member that answers can read snapshots; a server's own default where none
    /// tells.
    ///
    /// # Errors
    /// [`Error::Store`] when the members cannot be listed.
    pub async fn history_window(&self) -> Result<Duration> {
        Ok(self.told_history_window().await?.unwrap_or(WINDOW_DEFAULT))
    }

    /// The same; `None` where none tells, as without the role clusterMonitor.
    pub(super) async fn told_history_window(&self) -> Result<Option<Duration>> {
        let ask = |admin: Database| async move {
            admin.run_command(doc! { "getParameter": 1, WINDOW: 1 }).await
        };
        let asking = async {
            let mut members = self.members().await?;
            // Who may not learn of these is told what the others say.
            members.extend(self.config_members().await.unwrap_or_default());
            self.on_each(members, ask).await
        };
        let asked = tokio::time::timeout(ANSWER_MAX, asking);
        let answers = match asked.await {
            Ok(answers) => answers?,
            Err(_) => Vec::new(),
        };
        let windows = answers.into_iter().filter_map(|(_, answer)| {
            let seconds = answer.ok()?.get_i32(WINDOW).ok()?;
            u64::try_from(seconds).ok().map(Duration::from_secs)
        });
        Ok(windows.min())
    }

    /// Does something with the database `admin` of each of these members at once.
    async fn on_each<T, F>(
        &self,
        members: Vec<ServerAddress>,
        act: impl Fn(Database) -> F,
    ) -> Result<Vec<(ServerAddress, mongodb::error::Result<T>)>>
    where
        T: Send + 'static,
        F: Future<Output = mongodb::error::Result<T>> + Send + 'static,
    {
        let mut acting = JoinSet::new();
        for member in members {
            let action = act(self.to_member(member.clone())?.database("admin"));
            acting.spawn(async move { (member, action.await) });
        }
        let mut outcomes = acting.join_all().await;
        outcomes.sort_by_key(|(member, _)| member.to_string());
        Ok(outcomes)
    }

    /// The data-bearing members, of every shard where there are shards.
    pub(super) async fn members(&self) -> Result<Vec<ServerAddress>> {
        if self.is_sharded() {
            let shards = self.shards().await?;
            return Ok(shards.iter().flat_map(|shard| members_of(&shard.host)).collect());
        }
        let admin = self.client().database("admin");
        let hello = admin.run_command(doc! { "hello": 1 }).await;
        let hello = hello.action("ask for the members")?;
        let names = ["hosts", "passives"].into_iter().filter_map(|kind| hello.get_array(kind).ok());
        let listed = names.flatten().filter_map(|host| host.as_str());
        Ok(listed.filter_map(|host| ServerAddress::parse(host).ok()).collect())
    }

    /// The config servers; none without shards.
    async fn config_members(&self) -> mongodb::error::Result<Vec<ServerAddress>> {
        if !self.is_sharded() {
            return Ok(Vec::new());
        }
        let admin = self.client().database("admin");
        let found = admin.run_command(doc! { "getShardMap": 1 }).await?;
        let set = found.get_document("map").and_then(|map| map.get_str("config"));
        Ok(set.map(members_of).unwrap_or_default())
    }

    /// A client of one member alone, as the same user.
    pub(super) fn to_member(&self, member: ServerAddress) -> Result<Client> {
        self.to_member_with((*self.options).clone(), member)
    }

    /// A client of one member alone that soon takes it for away.
    pub(super) fn to_member_impatient(&self, member: ServerAddress) -> Result<Client> {
        self.to_member_with(links::impatient((*self.options).clone()), member)
    }

    fn to_member_with(&self, mut options: ClientOptions, member: ServerAddress) -> Result<Client> {
        let shown = member.to_string();
        options.hosts = vec![member];
        options.repl_set_name = None;
        options.direct_connection = Some(true);
        links::client(options, &shown)
    }
}

/// The members that `set/host:port,…` names.
fn members_of(set: &str) -> Vec<ServerAddress> {
    let hosts = set.split_once('/').map_or(set, |(_, hosts)| hosts);
    hosts.split(',').filter_map(|host| ServerAddress::parse(host).ok()).collect()
}
