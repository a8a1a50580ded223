//! Whose task a free slot takes: slots go round among clients, and among small and large jobs of one client.
//!
//! Each worker decides for its own slots, by how long they have served whom. Nothing is stored, and no worker asks another:
//! where each one is fair, all of them together are.
//!
//! Between clients it is start-time fair queueing (Goyal, Vin, Cheng 1996): each has an account of the time its tasks
//! held slots, and the lowest goes first. Who comes back from doing nothing begins at the lowest account of those who
//! were there, or at the highest of all if nobody was, so that nobody saves time up. Of two clients that always have tasks, neither gets ahead of the other by more
//! than the longest tasks that run at once.
//!
//! Within a client, what publishes goes first, then the highest priority. Of equal priority, jobs that have had little
//! time yet share slots by halves with the others, each half by age: a small job does not wait for a large one, and large
//! ones end one after the other, for the snapshots that they read do not last.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use crate::ids::JobId;

/// A job counts as small until its tasks have held slots of this worker for so long.
const SMALL: Duration = Duration::from_secs(2);
/// What a task is taken to last where none of its job has ended yet.
const UNKNOWN: Duration = Duration::from_millis(100);
/// A task counts for so much of its job's mean.
const PART: f64 = 0.3;
/// Accounts of clients and of jobs that are kept while they have nothing to do.
const KEPT_MAX: usize = 4_096;

/// A job that has tasks to be done.
#[derive(Debug, Clone)]
pub struct Contender {
    /// The job. Of two, the lower id is the older.
    pub job: JobId,
    /// Whose it is; empty where nobody said.
    pub client: String,
    /// Higher ones go first, within a client.
    pub priority: i32,
    /// Whether it only has to be published.
    pub publishes: bool,
    /// Tasks that were found and can be claimed; 0 as long as nobody has looked.
    pub tasks: usize,
}

/// A task that was claimed, until it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// The accounts of one worker. All times are since its start.
#[derive(Debug, Default)]
pub struct Shares {
    clients: HashMap<String, Client>,
    jobs: HashMap<JobId, Served>,
    held: BTreeMap<Ticket, Held>,
    tickets: u64,
}

#[derive(Debug, Default, Clone)]
struct Client {
    /// Seconds of slots.
    account: f64,
    small: f64,
    large: f64,
    /// Whether it had tasks when slots were last given away.
    was_there: bool,
    had_small: bool,
    had_large: bool,
}

#[derive(Debug, Clone)]
struct Served {
    client: String,
    seconds: f64,
    /// Seconds that a task lasts, in the mean of late.
    mean: f64,
}

#[derive(Debug)]
struct Held {
    job: JobId,
    was_small: bool,
    /// When it took a slot; nothing while it waits for one.
    since: Option<Duration>,
}

impl Shares {
    /// Which jobs the next `slots` slots go to, as places in `contenders`: those that have no more tasks are
    /// passed over, so there may be fewer.
    pub fn assign(&mut self, contenders: &[Contender], slots: usize, now: Duration) -> Vec<usize> {
        self.meet(contenders);
        self.welcome(contenders, now);
        let left = contenders.iter().map(|one| one.tasks).collect();
        self.draft(contenders, now).give(left, slots)
    }

    /// The first `most` jobs to look for tasks of, where it is not known yet how many each has.
    pub fn order(&mut self, contenders: &[Contender], most: usize, now: Duration) -> Vec<usize> {
        self.meet(contenders);
        self.draft(contenders, now).give(vec![1; contenders.len()], most)
    }

    /// A contender has taken a slot, without having been claimed before.
    pub fn took(&mut self, contender: &Contender, now: Duration) -> Ticket {
        self.meet(std::slice::from_ref(contender));
        let ticket = self.claimed(&contender.job);
        self.began(ticket, now);
        ticket
    }

    /// A task of the job was claimed.
    pub fn claimed(&mut self, job: &JobId) -> Ticket {
        let was_small = self.jobs.get(job).is_none_or(|served| is_small(served.seconds));
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.held.insert(ticket, Held { job: job.clone(), was_small, since: None });
        ticket
    }

    /// It has taken a slot.
    pub fn began(&mut self, ticket: Ticket, now: Duration) {
        if let Some(held) = self.held.get_mut(&ticket) {
            held.since = Some(now);
        }
    }

    /// It has given the slot back, or never got one. The second time there is nothing to do.
    pub fn ended(&mut self, ticket: Ticket, now: Duration) {
        let Some(held) = self.held.remove(&ticket) else { return };
        let Some(since) = held.since else { return };
        let seconds = now.saturating_sub(since).as_secs_f64();
        let Some(served) = self.jobs.get_mut(&held.job) else { return };
        served.mean = match served.seconds > 0.0 {
            true => served.mean * (1.0 - PART) + seconds * PART,
            false => seconds,
        };
        served.seconds += seconds;
        if let Some(client) = self.clients.get_mut(&served.client) {
            client.charge(held.was_small, seconds);
        }
    }

    fn meet(&mut self, contenders: &[Contender]) {
        for one in contenders {
            if !self.jobs.contains_key(&one.job) {
                let client = one.client.clone();
                let unknown = Served { client, seconds: 0.0, mean: UNKNOWN.as_secs_f64() };
                self.jobs.insert(one.job.clone(), unknown);
            }
            if !self.clients.contains_key(&one.client) {
                self.clients.insert(one.client.clone(), Client::default());
            }
        }
    }

    /// Raises accounts of those who come back to the lowest of those who were there, and forgets some of those who have nothing
    /// to do.
    fn welcome(&mut self, contenders: &[Contender], now: Duration) {
        let draft = self.draft(contenders, now);
        let mut here: HashMap<&str, (bool, bool)> = HashMap::new();
        let waiting = contenders.iter().zip(&draft.seconds).filter(|(one, _)| one.tasks > 0);
        let waiting = waiting.map(|(one, seconds)| (one.client.as_str(), is_small(*seconds)));
        let held = self.held.values().filter_map(|held| {
            self.jobs.get(&held.job).map(|job| (job.client.as_str(), held.was_small))
        });
        for (client, small) in waiting.chain(held) {
            let (has_small, has_large) = here.entry(client).or_default();
            *(if small { has_small } else { has_large }) = true;
        }
        let stayed = |name: &&&str| self.clients.get(**name).is_some_and(|client| client.was_there);
        let floor = here
            .keys()
            .filter(stayed)
            .filter_map(|name| draft.names.get(*name).and_then(|place| draft.clients.get(*place)))
            .map(|client| client.account)
            .reduce(f64::min);
        // Where nobody was there, all begin alike.
        let highest = || self.clients.values().map(|client| client.account).reduce(f64::max);
        let floor = floor.or_else(highest);
        let here: HashMap<String, (bool, bool)> =
            here.into_iter().map(|(name, kinds)| (name.to_owned(), kinds)).collect();
        for (name, client) in &mut self.clients {
            client.welcome(here.get(name).copied().unwrap_or_default(), floor);
        }
        if self.clients.len() > KEPT_MAX {
            self.clients.retain(|_, client| client.was_there);
        }
        if self.jobs.len() > KEPT_MAX {
            let waiting = contenders.iter().map(|one| &one.job);
            let there: HashSet<JobId> =
                waiting.chain(self.held.values().map(|held| &held.job)).cloned().collect();
            self.jobs.retain(|job, _| there.contains(job));
        }
    }

    /// The accounts with what is held: as long as it has lasted, or as its job's tasks do.
    fn draft<'a>(&'a self, contenders: &'a [Contender], now: Duration) -> Draft<'a> {
        let mut draft = Draft { contenders, ..Draft::default() };
        let mut jobs = HashMap::new();
        for (place, one) in contenders.iter().enumerate() {
            let client = draft.client(&one.client, &self.clients);
            let served = self.jobs.get(&one.job);
            draft.client_of.push(client);
            draft.seconds.push(served.map_or(0.0, |served| served.seconds));
            draft.means.push(served.map_or(UNKNOWN.as_secs_f64(), |served| served.mean));
            jobs.insert(&one.job, place);
        }
        for held in self.held.values() {
            let Some(served) = self.jobs.get(&held.job) else { continue };
            let so_far = held.since.map_or(0.0, |since| now.saturating_sub(since).as_secs_f64());
            let seconds = so_far.max(served.mean);
            let client = draft.client(&served.client, &self.clients);
            if let Some(client) = draft.clients.get_mut(client) {
                client.charge(held.was_small, seconds);
            }
            if let Some(all) = jobs.get(&held.job).and_then(|place| draft.seconds.get_mut(*place)) {
                *all += seconds;
            }
        }
        draft
    }
}

impl Client {
    /// Takes note of whether it has small and large jobs now. `floor` is the lowest account of those who were there.
    fn welcome(&mut self, (small, large): (bool, bool), floor: Option<f64>) {
        if let (true, false, Some(floor)) = (small || large, self.was_there, floor) {
            self.account = self.account.max(floor);
        }
        // Neither half saves up what the other one used alone.
        if small && !self.had_small {
            self.small = self.small.max(self.large);
        }
        if large && !self.had_large {
            self.large = self.large.max(self.small);
        }
        (self.had_small, self.had_large) = (small, large);
        self.was_there = small || large;
    }

    fn charge(&mut self, is_small: bool, seconds: f64) {
        self.account += seconds;
        if is_small {
            self.small += seconds;
        } else {
            self.large += seconds;
        }
    }
}

/// Accounts with what runs now counted in, to which more can be given for a try.
#[derive(Default)]
struct Draft<'a> {
    contenders: &'a [Contender],
    names: HashMap<&'a str, usize>,
    clients: Vec<Client>,
    /// Of each contender: the place of its client, the seconds it has had, and what a task of it takes.
    client_of: Vec<usize>,
    seconds: Vec<f64>,
    means: Vec<f64>,
}

impl<'a> Draft<'a> {
    fn client(&mut self, name: &'a str, known: &HashMap<String, Client>) -> usize {
        *self.names.entry(name).or_insert_with(|| {
            self.clients.push(known.get(name).cloned().unwrap_or_default());
            self.clients.len() - 1
        })
    }

    /// Gives away slots, one after the other, to contenders with so many tasks left.
    fn give(mut self, mut left: Vec<usize>, slots: usize) -> Vec<usize> {
        let mut given = Vec::new();
        while given.len() < slots
            && let Some(place) = self.next(&left)
            && let Some(left) = left.get_mut(place)
        {
            *left -= 1;
            given.push(place);
            self.charge(place);
        }
        given
    }

    /// The place of the contender that the next slot goes to.
    fn next(&self, left: &[usize]) -> Option<usize> {
        let waiting = || {
            let all = self.contenders.iter().zip(&self.client_of).zip(&self.seconds).zip(left);
            let all = all.enumerate().filter(|(_, (_, left))| **left > 0);
            all.map(|(place, (((one, client), seconds), _))| (place, one, *client, *seconds))
        };
        let account = |client: usize| self.clients.get(client).map_or(0.0, |one| one.account);
        let (_, _, client, _) = waiting().min_by(|(_, a, of_a, _), (_, b, of_b, _)| {
            account(*of_a).total_cmp(&account(*of_b)).then_with(|| a.job.cmp(&b.job))
        })?;
        let waiting = || waiting().filter(|(_, _, of, _)| *of == client);
        let oldest = |is_wanted: &dyn Fn(&Contender, f64) -> bool| {
            waiting()
                .filter(|(_, one, _, seconds)| is_wanted(one, *seconds))
                .min_by(|(_, a, ..), (_, b, ..)| a.job.cmp(&b.job))
                .map(|(place, ..)| place)
        };
        if let Some(publishing) = oldest(&|one, _| one.publishes) {
            return Some(publishing);
        }
        let highest = waiting().map(|(_, one, ..)| one.priority).max()?;
        let of_size =
            |small| oldest(&|one, seconds| one.priority == highest && is_small(seconds) == small);
        let small_is_next =
            self.clients.get(client).is_none_or(|client| client.small <= client.large);
        of_size(small_is_next).or_else(|| of_size(!small_is_next))
    }

    fn charge(&mut self, place: usize) {
        let (Some(client), Some(seconds), Some(mean)) = (
            self.client_of.get(place).and_then(|client| self.clients.get_mut(*client)),
            self.seconds.get_mut(place),
            self.means.get(place),
        ) else {
            return;
        };
        client.charge(is_small(*seconds), *mean);
        *seconds += mean;
    }
}

fn is_small(seconds: f64) -> bool {
    seconds < SMALL.as_secs_f64()
}

#[cfg(test)]
mod tests;
