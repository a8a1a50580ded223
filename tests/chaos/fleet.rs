//! The daemons: some plain, some behind a link, some with something wrong about them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aviary_testcontainers::Managed;

use crate::common::Bed;
use crate::history::{History, What};
use crate::jobs::SPLIT_BYTES;
use crate::link::Link;

/// How long a daemon may take to end in good order.
const GRACE: Duration = Duration::from_secs(120);

/// The exit code of a daemon that is told to stop before it has found a server.
const CANNOT_CONNECT: i32 = 6;

/// What is wrong with a daemon all its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oddity {
    MissingTmp,
    FullTmp,
    Small,
    Tomorrow,
    Yesterday,
}

impl Oddity {
    pub fn class(self) -> &'static str {
        match self {
            Self::MissingTmp => "missing-tmp",
            Self::FullTmp => "full-tmp",
            Self::Small => "small-worker",
            Self::Tomorrow | Self::Yesterday => "clock-shift",
        }
    }
}

impl Oddity {
    /// What the system says to a daemon that meets it, where that shows.
    pub fn says(self) -> Option<&'static str> {
        match self {
            Self::MissingTmp => Some("(os error 2)"),
            Self::FullTmp => Some("(os error 28)"),
            Self::Small | Self::Tomorrow | Self::Yesterday => None,
        }
    }
}

/// A daemon that is started again whenever it is ended.
pub struct Member {
    pub name: String,
    pub is_worker: bool,
    pub oddity: Option<Oddity>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    process: Mutex<Option<Arc<Managed>>>,
    /// Whether a fault is at it.
    hurt: AtomicBool,
    /// Every process it was, by its id.
    pids: Mutex<Vec<u32>>,
}

impl Member {
    pub fn process(&self) -> Option<Arc<Managed>> {
        self.process.lock().expect("a lock").clone()
    }

    /// Takes it for one fault; `false` when another has it.
    pub fn take(&self) -> bool {
        !self.hurt.swap(true, Ordering::SeqCst)
    }

    pub fn give_back(&self) {
        self.hurt.store(false, Ordering::SeqCst);
    }

    pub fn is_free(&self) -> bool {
        !self.hurt.load(Ordering::SeqCst)
    }

    pub fn pids(&self) -> Vec<u32> {
        self.pids.lock().expect("a lock").clone()
    }

    pub fn start(&self, bed: &Bed) {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let env: Vec<(&str, &str)> =
            self.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let process = bed.spawn(&self.name, &args, &env);
        self.pids.lock().expect("a lock").push(process.pid());
        *self.process.lock().expect("a lock") = Some(Arc::new(process));
    }

    /// What each process of it has logged.
    pub fn logs(&self, bed: &Bed) -> Vec<String> {
        let of_it = format!("-{}.log", self.name);
        let files = bed.dir.path().read_dir().expect("a directory").flatten();
        let files = files.filter(|file| file.file_name().to_string_lossy().ends_with(&of_it));
        files.map(|file| std::fs::read_to_string(file.path()).unwrap_or_default()).collect()
    }

    /// Asks it to end, which it must do in good order.
    pub async fn stop(&self, history: &History) {
        let Some(process) = self.process() else { return };
        if !process.is_running() {
            return;
        }
        let _ = process.terminate();
        let what = match process.wait_gone(GRACE).await {
            Err(error) => error.to_string(),
            Ok(()) => match process.wait().await {
                Ok(status) if status.success() => return,
                // It was still waiting for a server behind a link that is cut.
                Ok(status) if status.code() == Some(CANNOT_CONNECT) => return,
                Ok(status) => format!("ended with {status}: {}", last_words(&process)),
                Err(error) => error.to_string(),
            },
        };
        history.add(What::Daemon { name: self.name.clone(), what });
        let _ = process.kill();
    }

    /// Says when it has ended though nobody ended it, and starts it again.
    pub fn look_after(&self, bed: &Bed, history: &History) {
        let Some(process) = self.process() else { return };
        if self.is_free() && !process.is_running() && self.is_free() {
            let what = format!("ended by itself: {}", last_words(&process));
            history.add(What::Daemon { name: self.name.clone(), what });
            self.start(bed);
        }
    }
}

fn last_words(process: &Managed) -> String {
    let log = process.log().unwrap_or_default();
    let lines: Vec<&str> = log.lines().rev().take(2).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

/// Every daemon of a run.
pub struct Fleet {
    pub members: Vec<Member>,
    pub links: Vec<Link>,
    /// The small file system, if there is one.
    tmpfs: Option<Tmpfs>,
}

impl Fleet {
    /// Starts them: for each database two coordinators and three workers, of which some are behind links
    /// and some odd.
    pub async fn start(bed: &Bed, dbs: &[String], classes: &[String]) -> Self {
        let has = |oddity: Oddity| classes.iter().any(|class| class == oddity.class());
        let sharded = bed.shards().is_some();
        let mut links = Vec::new();
        for _ in dbs {
            links.push(Link::to(bed.front_port().await).await);
        }
        let mut fleet = Self { members: Vec::new(), links, tmpfs: None };
        if has(Oddity::FullTmp) {
            fleet.tmpfs = Tmpfs::mount(&bed.dir.path().join("full"));
        }
        for (n, db) in dbs.iter().enumerate() {
            let linked = ("AVIARY_URI".to_owned(), fleet.links[n].uri());
            fleet.add(db, "coordinator", None, &[], vec![]);
            fleet.add(db, "coordinator-linked", None, &[], vec![linked.clone()]);
            fleet.add(db, "worker", None, &[], vec![]);
            fleet.add(db, "worker-linked", None, &[], vec![linked]);
            if sharded {
                for shard in 0..bed.shards().unwrap_or(0) {
                    let uri = bed.cluster().shard(shard).expect("a shard").uri();
                    let args = ["--shard-uri".to_owned(), uri];
                    fleet.add(db, &format!("worker-s{shard}"), None, &args, vec![]);
                }
            }
        }
        let tmp = |path: PathBuf| vec![("TMPDIR".to_owned(), path.display().to_string())];
        if has(Oddity::MissingTmp) {
            let path = bed.dir.path().join("missing");
            fleet.add(&dbs[0], "worker-missing-tmp", Some(Oddity::MissingTmp), &[], tmp(path));
        }
        if let Some(path) = fleet.tmpfs.as_ref().map(|tmpfs| tmpfs.0.clone()) {
            fleet.add(&dbs[1], "worker-full-tmp", Some(Oddity::FullTmp), &[], tmp(path));
        }
        if has(Oddity::Small) {
            let args = ["--memory-mb".to_owned(), "64".to_owned()];
            fleet.add(&dbs[1], "worker-small", Some(Oddity::Small), &args, vec![]);
        }
        if has(Oddity::Tomorrow) {
            let at = |shift: &str| {
                vec![
                    ("LD_PRELOAD".to_owned(), faketime().unwrap_or_default().to_owned()),
                    ("FAKETIME".to_owned(), shift.to_owned()),
                    ("FAKETIME_DONT_FAKE_MONOTONIC".to_owned(), "1".to_owned()),
                ]
            };
            fleet.add(&dbs[0], "worker-tomorrow", Some(Oddity::Tomorrow), &[], at("+1d"));
            fleet.add(&dbs[1], "coordinator-yesterday", Some(Oddity::Yesterday), &[], at("-1d"));
        }
        for member in &fleet.members {
            member.start(bed);
        }
        fleet
    }

    /// Whether there is what a class of faults needs.
    pub fn can(&self, class: &str) -> bool {
        class != Oddity::FullTmp.class() || self.tmpfs.is_some()
    }

    fn add(
        &mut self,
        db: &str,
        what: &str,
        oddity: Option<Oddity>,
        more: &[String],
        mut env: Vec<(String, String)>,
    ) {
        let is_worker = what.starts_with("worker");
        let mut args: Vec<String> = if is_worker {
            vec!["worker".into(), "--slots".into(), "2".into()]
        } else {
            vec!["coordinator".into()]
        };
        args.extend(more.iter().cloned());
        for (name, value) in [
            ("AVIARY_DB", db),
            ("AVIARY_SPLIT_BYTES", SPLIT_BYTES),
            ("AVIARY_LEASE_TTL_MS", "3000"),
        ] {
            env.push((name.to_owned(), value.to_owned()));
        }
        self.members.push(Member {
            name: format!("{db}-{what}"),
            is_worker,
            oddity,
            args,
            env,
            process: Mutex::default(),
            hurt: false.into(),
            pids: Mutex::default(),
        });
    }
}

/// A file system of hardly any size.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &std::path::Path) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a directory");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16k", "tmpfs"])
            .arg(at)
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            // Files can be made, and nothing written to them.
            let full = std::fs::write(at.join("full"), [0; 32 << 10]);
            assert!(full.is_err(), "it takes no more than half of that");
            return Some(Self(at.to_owned()));
        }
        println!("skipped: no small file system can be mounted here, so full-tmp is left out");
        None
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The library that shifts a process's clock, where it is installed.
pub fn faketime() -> Option<&'static str> {
    const AT: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
    std::path::Path::new(AT).is_file().then_some(AT)
}
