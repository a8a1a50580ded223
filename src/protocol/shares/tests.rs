//! Slots that are given away on paper.

use proptest::prelude::*;

use super::*;

fn job(n: usize) -> JobId {
    JobId::from_text(format!("{n:024x}"))
}

fn contender(n: usize, client: &str, tasks: usize) -> Contender {
    Contender { job: job(n), client: client.into(), priority: 0, publishes: false, tasks }
}

/// A client's job in a simulation: when it comes, and how long each of its tasks takes.
#[derive(Debug, Clone)]
struct Load {
    contender: Contender,
    comes_ms: u64,
    task_ms: Vec<u64>,
}

/// A worker with some slots does these jobs. Returns who held slots when, by place: from, to.
fn simulate(loads: &[Load], slots: usize, until_ms: u64) -> Vec<(usize, u64, u64)> {
    let mut shares = Shares::default();
    let mut done = vec![0; loads.len()];
    let mut running: Vec<(usize, u64, u64, Ticket)> = Vec::new();
    let mut log = Vec::new();
    let mut now = 0;
    while now < until_ms {
        running.retain(|(place, from, to, ticket)| {
            if *to > now {
                return true;
            }
            shares.ended(*ticket, Duration::from_millis(now));
            log.push((*place, *from, *to));
            false
        });
        let contenders: Vec<Contender> = loads
            .iter()
            .zip(&done)
            .map(|(load, done)| Contender {
                tasks: if load.comes_ms <= now { load.task_ms.len() - done } else { 0 },
                ..load.contender.clone()
            })
            .collect();
        let free = slots - running.len();
        let given = shares.assign(&contenders, free, Duration::from_millis(now));
        let waiting: usize = contenders.iter().map(|one| one.tasks).sum();
        assert_eq!(given.len(), free.min(waiting), "no slot is empty while there are tasks");
        for place in given {
            let ticket = shares.claimed(&loads[place].contender.job);
            shares.began(ticket, Duration::from_millis(now));
            running.push((place, now, now + loads[place].task_ms[done[place]], ticket));
            done[place] += 1;
        }
        let ends = running.iter().map(|(_, _, to, _)| *to);
        let comes = loads.iter().map(|load| load.comes_ms).filter(|at| *at > now);
        now = ends.chain(comes).min().unwrap_or(until_ms);
    }
    log.extend(running.into_iter().map(|(place, from, to, _)| (place, from, to.min(until_ms))));
    log
}

/// Milliseconds of slots that each place had between two times.
fn held(log: &[(usize, u64, u64)], places: usize, from_ms: u64, to_ms: u64) -> Vec<u64> {
    let mut sums = vec![0; places];
    for (place, from, to) in log {
        sums[*place] += to.min(&to_ms).saturating_sub(*from.max(&from_ms));
    }
    sums
}

/// More tasks than any simulation does.
const ALWAYS: usize = 4_000;

fn endless(n: usize, client: &str, comes_ms: u64, task_ms: Vec<u64>) -> Load {
    let task_ms = task_ms.into_iter().cycle().take(ALWAYS).collect();
    Load { contender: contender(n, client, 0), comes_ms, task_ms }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn clients_that_always_have_tasks_get_the_same(
        lengths in prop::collection::vec(prop::collection::vec(1_u64..500, 1..6), 2..6),
        slots in 1_usize..5,
    ) {
        let loads: Vec<Load> = lengths
            .iter()
            .enumerate()
            .map(|(n, lengths)| endless(n, &format!("client {n}"), 0, lengths.clone()))
            .collect();
        let longest = *lengths.iter().flatten().max().unwrap();
        let log = simulate(&loads, slots, 4_000);
        // What one client holds at once is not taken from it again, so it may be ahead by that.
        let most = 2 * longest * u64::try_from(slots).unwrap();
        for to_ms in [500, 1_000, 2_000, 4_000] {
            let sums = held(&log, loads.len(), 0, to_ms);
            let (low, high) = (sums.iter().min().unwrap(), sums.iter().max().unwrap());
            prop_assert!(high - low <= most, "{sums:?} until {to_ms}, at most {most} apart");
        }
    }

    #[test]
    fn who_comes_late_has_saved_nothing_up_and_lost_nothing(
        first in prop::collection::vec(1_u64..300, 1..6),
        second in prop::collection::vec(1_u64..300, 1..6),
        comes_ms in 1_000_u64..5_000,
        slots in 1_usize..4,
    ) {
        let longest = *first.iter().chain(&second).max().unwrap();
        let loads = [endless(0, "a", 0, first), endless(1, "b", comes_ms, second)];
        let log = simulate(&loads, slots, comes_ms + 3_000);
        let sums = held(&log, 2, comes_ms, comes_ms + 3_000);
        let most = 2 * longest * u64::try_from(slots).unwrap();
        prop_assert!(sums[0].abs_diff(sums[1]) <= most, "{sums:?}, at most {most} apart");
    }

    #[test]
    fn every_client_is_served_in_every_round(
        clients in 2_usize..20,
        rounds in 2_usize..6,
    ) {
        let loads: Vec<Load> =
            (0..clients).map(|n| endless(n, &format!("client {n}"), 0, vec![10])).collect();
        let log = simulate(&loads, 1, u64::try_from(clients * rounds * 10).unwrap());
        for round in log.chunks_exact(clients) {
            let mut served: Vec<usize> = round.iter().map(|(place, ..)| *place).collect();
            served.sort_unstable();
            prop_assert_eq!(served, (0..clients).collect::<Vec<_>>());
        }
    }

    /// However many tasks the large job has and however long, a small one of the same client waits for one of them to end.
    #[test]
    fn a_small_job_does_not_wait_for_a_large_one(
        large in prop::collection::vec(1_u64..2_000, 1..6),
        small_ms in 1_u64..50,
        comes_ms in 20_000_u64..40_000,
        slots in 1_usize..4,
    ) {
        let longest = *large.iter().max().unwrap();
        let mut loads = vec![endless(0, "a", 0, large)];
        for n in 1..=10 {
            let task_ms = vec![small_ms];
            loads.push(Load { contender: contender(n, "a", 0), comes_ms, task_ms });
        }
        let log = simulate(&loads, slots, comes_ms + 100_000);
        let ends: Vec<u64> =
            (1..=10).map(|n| log.iter().find(|one| one.0 == n).unwrap().2 - comes_ms).collect();
        // One task that runs, then at least every second slot: for each task of the large one that is begun between, the small
        // ones have as much time first.
        let all_small = small_ms * 10;
        prop_assert!(*ends.iter().max().unwrap() <= 2 * longest + 2 * all_small, "{ends:?}");
    }
}

#[test]
fn large_jobs_of_a_client_end_one_after_the_other() {
    let loads = [
        Load { contender: contender(0, "a", 0), comes_ms: 0, task_ms: vec![1_000; 40] },
        Load { contender: contender(1, "a", 0), comes_ms: 0, task_ms: vec![1_000; 40] },
    ];
    let log = simulate(&loads, 2, 100_000);
    let end = |place| log.iter().filter(|one| one.0 == place).map(|one| one.2).max().unwrap();
    assert_eq!(end(1), 40_000);
    assert!(
        end(0) <= 22_000,
        "the second is tried for some seconds, then the first is done: {}",
        end(0)
    );
}

#[test]
fn within_a_client_what_publishes_and_then_the_highest_priority_go_first() {
    let mut shares = Shares::default();
    let all = [
        contender(0, "a", 2),
        Contender { priority: 5, ..contender(1, "a", 1) },
        Contender { publishes: true, ..contender(2, "a", 1) },
    ];
    assert_eq!(shares.assign(&all, 9, Duration::ZERO), [2, 1, 0, 0]);
    assert_eq!(shares.order(&all, 2, Duration::ZERO), [2, 1]);
    let others = [Contender { priority: 9, ..contender(3, "b", 3) }, contender(4, "c", 3)];
    let given = shares.assign(&others, 4, Duration::ZERO);
    assert_eq!(given.iter().filter(|place| **place == 1).count(), 2, "a priority is one's own");
}

#[test]
fn a_task_that_never_got_a_slot_costs_nothing_and_one_that_runs_counts_already() {
    let mut shares = Shares::default();
    let both = [contender(0, "a", 5), contender(1, "b", 5)];
    assert_eq!(shares.assign(&both, 1, Duration::ZERO), [0]);
    let ticket = shares.claimed(&job(0));
    assert_eq!(shares.assign(&both, 1, Duration::ZERO), [1], "the other one holds one");
    shares.ended(ticket, Duration::from_secs(9));
    assert_eq!(shares.assign(&both, 1, Duration::from_secs(9)), [0], "and gave it back");
    let ticket = shares.claimed(&job(0));
    shares.began(ticket, Duration::from_secs(9));
    assert_eq!(shares.assign(&both, 3, Duration::from_secs(10)), [1, 1, 1], "it has had a second");
    shares.ended(ticket, Duration::from_secs(10));
    shares.ended(ticket, Duration::from_secs(99));
    assert_eq!(shares.assign(&both, 3, Duration::from_secs(99)), [1, 1, 1], "it counts once");
}

#[test]
fn after_a_rest_of_everybody_what_was_before_does_not_count() {
    let loads = [
        Load { contender: contender(0, "a", 0), comes_ms: 0, task_ms: vec![1_000; 30] },
        endless(1, "a", 60_000, vec![100]),
        endless(2, "b", 60_000, vec![100]),
    ];
    let log = simulate(&loads, 1, 70_000);
    let sums = held(&log, 3, 60_000, 70_000);
    assert!(sums[1].abs_diff(sums[2]) <= 200, "{sums:?}");
}

#[test]
fn accounts_of_those_who_have_nothing_to_do_are_forgotten() {
    let mut shares = Shares::default();
    for n in 0..3 * KEPT_MAX {
        let client = format!("client {n}");
        assert_eq!(shares.assign(&[contender(n, &client, 1)], 1, Duration::ZERO), [0]);
    }
    assert!(shares.clients.len() <= KEPT_MAX + 1 && shares.jobs.len() <= KEPT_MAX + 1);
}
