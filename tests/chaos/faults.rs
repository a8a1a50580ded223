//! What is done to daemons, servers and links.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aviary_testcontainers::ReplicaSet;
use bson::{Bson, doc};

use crate::World;
use crate::common::ceiling;
use crate::dice::Dice;
use crate::fleet::Member;

/// The classes that strike now and then; those of [`crate::fleet::Oddity`] are there all the time.
pub const STRIKING: [&str; 11] = [
    "kill-worker",
    "kill-coordinator",
    "term-worker",
    "term-coordinator",
    "freeze-worker",
    "freeze-coordinator",
    "step-down",
    "kill-primary",
    "cut-link",
    "slow-link",
    "fail-command",
];

/// Server errors: not primary, shutting down, lock and conflict.
const CODES: [i32; 6] = [91, 189, 10_107, 11_600, 46, 117];
/// A write that took effect, but may not last.
const NOT_SAFE_YET: i32 = 64;
const COMMANDS: [&str; 7] =
    ["find", "insert", "update", "findAndModify", "aggregate", "getMore", "delete"];

/// Faults to servers happen one at a time, so that there is a majority.
#[derive(Default)]
pub struct Servers(tokio::sync::Mutex<()>);

/// Strikes once. Nothing happens where everything of the kind is being hurt already.
pub async fn strike(world: Arc<World>, class: String, seed: u64) {
    let mut dice = Dice::new(seed, 1);
    let (what, whom) = class.split_once('-').expect("two words");
    match (what, whom) {
        ("kill" | "term" | "freeze", "worker" | "coordinator") => {
            daemon(&world, &class, what, whom == "worker", &mut dice).await;
        }
        ("step", _) => step_down(&world, &class, &mut dice).await,
        ("kill", _) => kill_primary(&world, &class, &mut dice).await,
        ("cut", _) => cut(&world, &class, &mut dice).await,
        ("slow", _) => slow(&world, &class, &mut dice).await,
        _ => fail_command(&world, &class, &mut dice).await,
    }
}

async fn daemon(world: &World, class: &str, what: &str, is_worker: bool, dice: &mut Dice) {
    let candidates: Vec<&Member> =
        world.fleet.members.iter().filter(|m| m.is_worker == is_worker).collect();
    let member = *dice.pick(&candidates);
    if !member.take() {
        return;
    }
    if let Some(process) = member.process().filter(|process| process.is_running()) {
        match what {
            "kill" => {
                process.kill().expect("killed");
                process.wait_gone(ceiling()).await.expect("gone");
                world.fired(class, 1, &member.name);
                tokio::time::sleep(dice.pause(0, 2_000)).await;
                member.start(&world.bed);
            }
            "term" => {
                member.stop(&world.history).await;
                world.fired(class, 1, &member.name);
                tokio::time::sleep(dice.pause(0, 2_000)).await;
                member.start(&world.bed);
            }
            _ => {
                process.freeze().expect("frozen");
                // Mostly longer than its lease.
                let pause = dice.pause(500, 9_000);
                tokio::time::sleep(pause).await;
                process.thaw().expect("thawed");
                world.fired(class, 1, &format!("{} for {} ms", member.name, pause.as_millis()));
            }
        }
    }
    member.give_back();
}

/// A replica set by chance, which on a sharded cluster may be the config servers'.
fn set<'a>(world: &'a World, dice: &mut Dice) -> &'a ReplicaSet {
    match world.bed.shards() {
        None => world.bed.set(),
        Some(shards) => match dice.below(shards as u64 + 1) as usize {
            n if n == shards => world.bed.cluster().config(),
            n => world.bed.cluster().shard(n).expect("a shard"),
        },
    }
}

async fn step_down(world: &World, class: &str, dice: &mut Dice) {
    let _one = world.servers.0.lock().await;
    let set = set(world, dice);
    if set.step_down().await.is_ok() {
        world.fired(class, 1, set.name());
    }
    set.wait_primary().await.expect("a primary");
    world.lead_links().await;
}

async fn kill_primary(world: &World, class: &str, dice: &mut Dice) {
    let _one = world.servers.0.lock().await;
    if world.bed.shards().is_some() && dice.one_in(3) {
        let router = world.bed.cluster().router();
        router.kill().await.expect("killed");
        tokio::time::sleep(dice.pause(0, 2_000)).await;
        router.restart().await.expect("restarted");
        world.fired(class, 1, "the router");
        return;
    }
    let set = set(world, dice);
    let primary = set.wait_primary().await.expect("a primary");
    set.kill(primary).await.expect("killed");
    tokio::time::sleep(dice.pause(500, 4_000)).await;
    set.restart(primary).await.expect("restarted");
    set.wait_primary().await.expect("a primary");
    world.fired(class, 1, set.name());
    world.lead_links().await;
}

async fn cut(world: &World, class: &str, dice: &mut Dice) {
    let link = dice.pick(&world.fleet.links);
    link.hits();
    link.lead_to(0);
    tokio::time::sleep(dice.pause(50, 6_000)).await;
    link.lead_to(world.bed.front_port().await);
    world.fired(class, i64::from(link.hits() > 0), "");
}

async fn slow(world: &World, class: &str, dice: &mut Dice) {
    let link = dice.pick(&world.fleet.links);
    link.hits();
    link.slow(dice.pause(5, 200));
    tokio::time::sleep(dice.pause(1_000, 6_000)).await;
    link.slow(Duration::ZERO);
    world.fired(class, i64::from(link.hits() > 0), "");
}

async fn fail_command(world: &World, class: &str, dice: &mut Dice) {
    let _one = world.servers.0.lock().await;
    let set = match world.bed.shards() {
        None => world.bed.set(),
        Some(shards) => {
            world.bed.cluster().shard(dice.below(shards as u64) as usize).expect("a shard")
        }
    };
    let primary = set.wait_primary().await.expect("a primary");
    let mut commands = COMMANDS;
    dice.shuffle(&mut commands);
    let commands = &commands[..1 + dice.below(3) as usize];
    let mut data = doc! { "failCommands": commands.to_vec() };
    // Through a router, a shard does not learn whose command it is.
    if world.bed.shards().is_none() {
        data.insert("appName", *dice.pick(&["aviary-worker", "aviary-coordinator"]));
    }
    if dice.one_in(5) {
        data.insert("writeConcernError", doc! { "code": NOT_SAFE_YET, "errmsg": "made to fail" });
    } else {
        data.insert("errorCode", *dice.pick(&CODES));
    }
    let labels = if dice.one_in(2) { vec!["RetryableWriteError"] } else { Vec::new() };
    data.insert("errorLabels", labels);
    let times = 1 + dice.below(6) as i64;
    let mode = Bson::from(doc! { "times": times });
    let detail = data.to_string();
    let command = doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data };
    if set.run_on_member(primary, command).await.is_err() {
        return;
    }
    tokio::time::sleep(dice.pause(300, 2_000)).await;
    if let Ok(count @ 1..) = set.clear_fail_command(primary).await {
        world.fired(class, count, &detail);
    }
}

/// Strikes with one class after the other, each once before any again, a few at the same time, until
/// the time is over; then waits until what was hurt is whole.
pub async fn storm(world: Arc<World>, classes: Vec<String>, over: Arc<AtomicBool>) {
    const AT_ONCE: usize = 3;
    let mut dice = Dice::new(world.seed, 7);
    let mut deck = Vec::new();
    let mut striking = tokio::task::JoinSet::new();
    let wanted: Vec<String> =
        classes.into_iter().filter(|class| STRIKING.contains(&class.as_str())).collect();
    while !over.load(Ordering::SeqCst) && !wanted.is_empty() {
        if deck.is_empty() {
            deck = wanted.clone();
            dice.shuffle(&mut deck);
        }
        let class = deck.pop().expect("a class");
        striking.spawn(strike(world.clone(), class, dice.below(u64::MAX)));
        while striking.len() >= AT_ONCE {
            striking.join_next().await.expect("one").expect("it strikes");
        }
        tokio::time::sleep(dice.pause(200, 2_000)).await;
    }
    while let Some(struck) = striking.join_next().await {
        struck.expect("it strikes");
    }
}
