//! Cleans up after an owner that was killed.
//!
//! A shell reads from a pipe whose other end only the owner holds. When the owner ends, however it
//! ends, the system closes that end; the shell then kills the processes listed in `DIR/pids` and
//! removes the directory. A parent-death signal would not do: it is bound to the thread that
//! started the child, and a runtime's threads come and go.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::error::{Error, Result};
use crate::program;

const SHELL: &str = "/bin/sh";

/// Arguments: the directory, then `remove` or `keep`.
///
/// A process is killed when its start time is the recorded one. A server that was started in the
/// owner's last moment and is not listed yet is known by its data path.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
dir=$1
what=$2
read -r word
[ "$word" = disarm ] && exit 0
state_and_start() {
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    set -- ${stat##*) }
    state=$1
    shift 17
    threads=$1
    start=$3
}
still_there() {
    state_and_start "$1" || return 1
    [ "$state" != Z ] || [ "$threads" -gt 1 ]
}
victims=
[ -f "$dir/pids" ] && while read -r pid recorded; do
    state_and_start "$pid" && [ "$start" = "$recorded" ] && victims="$victims $pid"
done < "$dir/pids"
for file in $(grep -lF -e "--dbpath=$dir/" /proc/[0-9]*/cmdline 2>/dev/null); do
    pid=${file#/proc/}
    pid=${pid%/cmdline}
    [ -d "/proc/$pid" ] && victims="$victims $pid"
done
for pid in $victims; do
    kill -9 "-$pid" 2>/dev/null || kill -9 "$pid" 2>/dev/null
done
for pid in $victims; do
    tries=0
    while still_there "$pid" && [ $tries -lt 200 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done
done
[ "$what" = remove ] && rm -rf "$dir"
exit 0
"#;

/// The watching child. Dropping it lets it do its work and waits for that.
#[derive(Debug)]
pub(crate) struct Watchdog {
    child: Child,
}

impl Watchdog {
    /// Watches over `dir`, which must be an absolute path.
    pub(crate) fn start(dir: &Path, remove: bool) -> Result<Self> {
        let child = program::command(Path::new(SHELL), &[])
            .args(["-c", SCRIPT, "aviary-watchdog"])
            .arg(dir)
            .arg(if remove { "remove" } else { "keep" })
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Spawn { program: SHELL.into(), source })?;
        Ok(Self { child })
    }

    /// Sends it away without having done anything.
    pub(crate) fn disarm(mut self) {
        if let Some(stdin) = &mut self.child.stdin {
            // A watchdog that cannot be written to is gone already.
            stdin.write_all(b"disarm\n").ok();
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().ok();
    }
}
