//! Which databases a daemon serves: those that it was told of, or every one that has Aviary's collections.
//!
//! A database that is served costs a few queries a second: a lease, a look for work. So of many, those in which nothing
//! happens rest: their daemon is stopped, and begun again when a stream of the whole deployment's changes, or a look now
//! and then, finds work there.

mod known;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::{self, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::store::Store;
use crate::store::watch::WakeFor;
use known::{Known, ask};

/// How often the deployment is asked for its databases.
const LIST_EVERY: Duration = Duration::from_secs(2);
/// So many databases are served without rest: they cost little.
const AWAKE: usize = 8;
/// One of more rests when there has been nothing to do for so long.
const QUIET: Duration = Duration::from_secs(30);
/// How often one that is awake is asked whether there is anything to do.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How often one of those that rest is asked, each in turn.
const VISIT_EVERY: Duration = Duration::from_secs(4);
/// None rests for longer: what has been kept for long enough is removed by a coordinator that is awake.
const REST_MAX: Duration = Duration::from_secs(6 * 3_600);
/// What is found by what happened there is listed by then.
const LISTED_WITHIN: Duration = Duration::from_secs(15);
/// One that could not be served is begun again after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Serves databases until `stop`, and waits until each has come to its end. Those that are named are served whether they
/// have been set up or not; without any, and if the URI names none, all that have been, as they come and go.
///
/// # Errors
/// Those of `serve` where there is one database.
pub(super) async fn serve_all<F, S>(
    store: &Store,
    named: &[String],
    wakes: Option<WakeFor>,
    serve: F,
    stop: CancellationToken,
) -> Result<()>
where
    F: Fn(Store, Option<Arc<Notify>>, CancellationToken) -> S,
    S: Future<Output = Result<()>> + Send + 'static,
{
    if named.len() < 2 && store.is_bound() {
        return serve(store.clone(), None, stop).await;
    }
    let (tell, told) = mpsc::unbounded_channel();
    if named.is_empty() {
        tracing::info!("serving every database that has Aviary's collections");
        tokio::spawn(list(store.clone(), tell.clone(), stop.child_token()));
    } else {
        say(&tell, Told::Wanted(named.iter().cloned().collect()));
    }
    // A few that are named are all found and awake, and a user may have no right to more.
    let wakes = wakes.filter(|_| named.is_empty() || named.len() > AWAKE);
    let is_watched = wakes.map(|audience| {
        let (woken, missed) = (tell.clone(), tell.clone());
        store.watch_all(
            audience,
            move |name| say(&woken, Told::Woken(name)),
            move || say(&missed, Told::Missed),
            stop.child_token(),
        )
    });
    let served = Served {
        store: store.clone(),
        are_named: !named.is_empty(),
        is_watched: is_watched.unwrap_or_default(),
        all: BTreeMap::new(),
        lives: JoinSet::new(),
        serve,
        tell,
        visited: String::new(),
        strangers: BTreeMap::new(),
    };
    served.until_stopped(told, stop).await;
    Ok(())
}

/// What is learned while databases are served.
enum Told {
    /// These are to be served, and no others.
    Wanted(BTreeSet<String>),
    /// Something happened in this one.
    Woken(String),
    /// This one has Aviary's collections.
    Found(String),
    /// Anything may have happened anywhere.
    Missed,
}

/// Hands news to [`Served`]. Once that has stopped, there is nothing left to do with them.
fn say(tell: &UnboundedSender<Told>, news: Told) {
    let _ = tell.send(news);
}

/// Tells of the databases to serve, again and again.
async fn list(store: Store, tell: UnboundedSender<Told>, stop: CancellationToken) {
    let mut known = Known::default();
    while !stop.is_cancelled() {
        if let Some(wanted) = known.look(&store).await {
            say(&tell, Told::Wanted(wanted));
        }
        tokio::select! {
            () = tokio::time::sleep(LIST_EVERY) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Databases that are served.
struct Served<F> {
    store: Store,
    are_named: bool,
    /// Whether one stream tells of changes in all of them.
    is_watched: Arc<AtomicBool>,
    all: BTreeMap<String, Database>,
    /// The daemons of those that are awake.
    lives: JoinSet<End>,
    serve: F,
    tell: UnboundedSender<Told>,
    /// The one that was asked last of those that rest.
    visited: String,
    /// Those that were looked into lately because something happened there.
    strangers: BTreeMap<String, Instant>,
}

/// One that is served.
struct Database {
    /// Ends its daemon.
    stop: CancellationToken,
    /// Its daemon; none while it rests. One that was dropped and came back may have a second one before its first has
    /// ended.
    life: Option<task::Id>,
    /// Rung when something happened there.
    bell: Arc<Notify>,
    /// When it was first heard of.
    found: Instant,
    /// When it was begun, or came to rest.
    since: Instant,
    /// When something happened there.
    woken: Option<Instant>,
}

/// How a database's daemon has come to its end.
enum End {
    /// It was quiet since this time.
    Rests(Instant),
    /// It was told to.
    Stopped,
    Failed(String),
}

impl<F, S> Served<F>
where
    F: Fn(Store, Option<Arc<Notify>>, CancellationToken) -> S,
    S: Future<Output = Result<()>> + Send + 'static,
{
    async fn until_stopped(mut self, mut told: UnboundedReceiver<Told>, stop: CancellationToken) {
        let mut visits = tokio::time::interval(VISIT_EVERY);
        loop {
            tokio::select! {
                Some(news) = told.recv() => self.learn(news, &stop),
                Some(ended) = self.lives.join_next_with_id() => match ended {
                    Ok((life, end)) => self.ended(life, end, &stop),
                    Err(error) => self.ended(error.id(), End::Failed(error.to_string()), &stop),
                },
                _ = visits.tick() => self.visit(&stop),
                () = stop.cancelled() => break,
            }
        }
        while self.lives.join_next().await.is_some() {}
    }

    fn learn(&mut self, told: Told, stop: &CancellationToken) {
        match told {
            Told::Wanted(wanted) => self.become_those(&wanted, stop),
            Told::Found(name) => self.add(&name, true, stop),
            Told::Missed => {
                self.all.values().for_each(|one| one.bell.notify_one());
                self.visit_all();
            }
            Told::Woken(name) => match self.all.get_mut(&name) {
                Some(database) => {
                    database.woken = Some(Instant::now());
                    database.bell.notify_one();
                    if database.life.is_none() {
                        self.wake(&name, stop);
                    }
                }
                None if !self.are_named => self.look_into(name),
                None => {}
            },
        }
    }

    /// Begins with those that are wanted, and ends with those that no longer are.
    fn become_those(&mut self, wanted: &BTreeSet<String>, stop: &CancellationToken) {
        let is_gone = |(name, one): &(&String, &Database)| {
            !wanted.contains(*name) && one.found.elapsed() > LISTED_WITHIN
        };
        let gone: Vec<String> =
            self.all.iter().filter(is_gone).map(|(name, _)| name.clone()).collect();
        for name in gone {
            if let Some(database) = self.all.remove(&name) {
                tracing::info!(db = name, "no longer served");
                database.stop.cancel();
            }
        }
        let are_few = wanted.len() <= AWAKE;
        let new: Vec<String> =
            wanted.iter().filter(|name| !self.all.contains_key(*name)).cloned().collect();
        for name in &new {
            self.add(name, are_few, stop);
        }
        // Of very many, those with something to do are found one after the other.
        if !are_few {
            self.visit_each(new);
        }
    }

    fn add(&mut self, name: &str, is_awake: bool, stop: &CancellationToken) {
        if self.all.contains_key(name) {
            return;
        }
        tracing::info!(db = name, "served");
        let database = Database {
            stop: CancellationToken::new(),
            life: None,
            bell: Arc::default(),
            found: Instant::now(),
            since: Instant::now(),
            woken: None,
        };
        self.all.insert(name.to_owned(), database);
        if is_awake {
            self.wake(name, stop);
        }
    }

    fn wake(&mut self, name: &str, stop: &CancellationToken) {
        let are_many = self.all.len() > AWAKE;
        let Some(database) = self.all.get_mut(name) else { return };
        let stop = stop.child_token();
        (database.stop, database.since) = (stop.clone(), Instant::now());
        let store = self.store.of_database(name);
        // A stream for each of many would look at all of the server's writes for each of them.
        let bell = self.is_watched.load(Ordering::Relaxed).then(|| database.bell.clone());
        let serving = (self.serve)(store.clone(), bell, stop.clone());
        let life = self.lives.spawn(async move {
            tokio::pin!(serving);
            let outcome = tokio::select! {
                outcome = &mut serving => outcome,
                quiet = quiet(&store), if are_many => {
                    stop.cancel();
                    return match serving.await {
                        Ok(()) => End::Rests(quiet),
                        Err(error) => End::Failed(error.to_string()),
                    };
                }
            };
            match outcome {
                Ok(()) if stop.is_cancelled() => End::Stopped,
                Ok(()) => End::Failed("it ended by itself".to_owned()),
                Err(error) => End::Failed(error.to_string()),
            }
        });
        database.life = Some(life.id());
    }

    fn ended(&mut self, life: task::Id, end: End, stop: &CancellationToken) {
        let Some((name, database)) = self.all.iter_mut().find(|(_, one)| one.life == Some(life))
        else {
            return;
        };
        let name = name.clone();
        (database.life, database.since) = (None, Instant::now());
        match end {
            End::Rests(quiet) => {
                tracing::debug!(db = name, "rests");
                // What happened since the last question may be what the daemon did not see any more.
                if database.woken.is_some_and(|at| at >= quiet) {
                    self.wake(&name, stop);
                }
            }
            End::Stopped => {}
            End::Failed(why) => {
                tracing::warn!(db = name, why, "could not be served; trying again");
                let tell = self.tell.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(AGAIN_AFTER).await;
                    say(&tell, Told::Woken(name));
                });
            }
        }
    }

    /// Asks the next of those that rest whether there is anything to do.
    fn visit(&mut self, stop: &CancellationToken) {
        let resting = |(name, one): (&String, &Database)| one.life.is_none().then(|| name.clone());
        let later = (Bound::Excluded(&self.visited), Bound::Unbounded);
        let next = self.all.range::<String, _>(later).find_map(resting);
        let Some(name) = next.or_else(|| self.all.iter().find_map(resting)) else { return };
        self.visited.clone_from(&name);
        if self.all.get(&name).is_some_and(|one| one.since.elapsed() > REST_MAX) {
            return self.wake(&name, stop);
        }
        tokio::spawn(visit(self.store.clone(), name, self.tell.clone()));
    }

    /// The same for all of them.
    fn visit_all(&self) {
        let resting = self.all.iter().filter(|(_, one)| one.life.is_none());
        self.visit_each(resting.map(|(name, _)| name.clone()).collect());
    }

    /// The same for these, one after the other.
    fn visit_each(&self, names: Vec<String>) {
        let (store, tell) = (self.store.clone(), self.tell.clone());
        tokio::spawn(async move {
            for name in names {
                visit(store.clone(), name, tell.clone()).await;
            }
        });
    }

    /// Finds out whether a database in which something happened is one to serve.
    fn look_into(&mut self, name: String) {
        /// Somebody else's collection may be called as ours is, and change all the time.
        const AGAIN_AFTER: Duration = Duration::from_secs(10);
        self.strangers.retain(|_, at| at.elapsed() < AGAIN_AFTER);
        if self.strangers.contains_key(&name) {
            return;
        }
        self.strangers.insert(name.clone(), Instant::now());
        let (store, tell) = (self.store.clone(), self.tell.clone());
        tokio::spawn(async move {
            if known::has_aviary(&store, &name).await == Some(true) {
                say(&tell, Told::Found(name));
            }
        });
    }
}

/// Wakes a database that has something to do.
async fn visit(store: Store, name: String, tell: UnboundedSender<Told>) {
    if has_work(&store.of_database(&name)).await != Some(false) {
        say(&tell, Told::Woken(name));
    }
}

/// Waits until there has been nothing to do for a while. Returns the time of the last look but one: what happened after
/// it may not have been seen.
async fn quiet(store: &Store) -> Instant {
    let mut since: Option<Instant> = None;
    let mut before = Instant::now();
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        let now = Instant::now();
        match (has_work(store).await, since) {
            (Some(false), Some(since)) if since.elapsed() >= QUIET => return before,
            (Some(false), None) => since = Some(now),
            (Some(false), _) => {}
            _ => since = None,
        }
        before = now;
    }
}

async fn has_work(store: &Store) -> Option<bool> {
    ask(store, "look for work", |store| async move { store.has_work().await }).await
}
