//! What servers other than those of MongoDB 6.0 do differently, and other products that speak the protocol: each is
//! brought about here. `docs/reference/servers.md` has the table.

#![cfg(test)]

#[path = "../common/mod.rs"]
mod common;
mod instants;
mod jobs;
mod links;
mod overload;
mod placement;
mod reads;
mod setup;
mod strangers;
