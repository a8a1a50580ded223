//! Ports that stay ours while a server is down.
//!
//! A member that was killed comes back on the same port, so in the meantime nobody else may take
//! it: ports lie below the range the kernel gives to outgoing connections, and a locked file keeps
//! other owners on this machine away.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

use crate::dirs;
use crate::error::{Error, Result};

const PORT_FIRST: u16 = 20_000;
const PORT_LAST: u16 = 31_999;

/// A port no other owner will choose while this value lives.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) port: u16,
    /// Locked; the system unlocks it when the owner ends. Absent for a port chosen by the caller.
    _lock: Option<File>,
}

impl Lease {
    /// The port the caller asked for; it is not looked at.
    pub(crate) fn fixed(port: u16) -> Self {
        Self { port, _lock: None }
    }
}

/// Leases a free port.
pub(crate) fn lease_one() -> Result<Lease> {
    lease(1)?.pop().ok_or(Error::NoPort { first: PORT_FIRST, last: PORT_LAST })
}

/// Leases `count` free ports.
pub(crate) fn lease(count: usize) -> Result<Vec<Lease>> {
    let dir = dirs::cache("ports")?;
    let span = u64::from(PORT_LAST - PORT_FIRST) + 1;
    let offset = RandomState::new().hash_one(std::process::id()) % span;
    let mut leases = Vec::with_capacity(count);
    for step in 0..span {
        if leases.len() == count {
            return Ok(leases);
        }
        let Ok(port) = u16::try_from(u64::from(PORT_FIRST) + (offset + step) % span) else {
            continue;
        };
        let path = dir.join(port.to_string());
        let file = dirs::in_cache(&path, File::create(&path))?;
        if file.try_lock().is_err() {
            continue;
        }
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            leases.push(Lease { port, _lock: Some(file) });
        }
    }
    Err(Error::NoPort { first: PORT_FIRST, last: PORT_LAST })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn leased_ports_differ_while_they_are_held() {
        let first = lease(20).unwrap();
        let second = lease(20).unwrap();
        let ports: HashSet<u16> = first.iter().chain(&second).map(|one| one.port).collect();
        assert_eq!(ports.len(), 40);
    }
}
