//! Users and roles, and the secrets a replica set begins with.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use mongodb::bson::{Bson, Document, doc};

use super::ReplicaSet;
use crate::error::{At, Result};
use crate::launch::CONDITION;
use crate::{fetch, wire};

/// The name of the key's file in a deployment's directory.
pub(crate) const KEY_FILE: &str = "key";
const SECRET_BYTES: usize = 24;

impl ReplicaSet {
    /// Creates a user in the database `admin`. A role is a name (of the database `admin`) or
    /// `{role: …, db: …}`.
    ///
    /// # Errors
    ///
    /// When the server refuses it.
    pub async fn create_user(&self, user: &str, password: &str, roles: Vec<Bson>) -> Result<()> {
        let command = doc! {
            "createUser": user,
            "pwd": password,
            "roles": roles,
            "writeConcern": { "w": "majority" },
        };
        self.run_admin(command).await.map(|_| ())
    }

    /// Creates a role in the database `admin`.
    ///
    /// # Errors
    ///
    /// When the server refuses it.
    pub async fn create_role(
        &self,
        role: &str,
        privileges: Vec<Document>,
        roles: Vec<Bson>,
    ) -> Result<()> {
        let command = doc! {
            "createRole": role,
            "privileges": privileges,
            "roles": roles,
            "writeConcern": { "w": "majority" },
        };
        self.run_admin(command).await.map(|_| ())
    }

    /// The first user can be created without being one, from this machine only.
    pub(super) async fn create_root(&self) -> Result<()> {
        let Some(root) = &self.root else {
            return Ok(());
        };
        let primary = self.wait_primary().await?;
        let command = doc! {
            "createUser": &root.user,
            "pwd": &root.password,
            "roles": ["root"],
            "writeConcern": { "w": i64::try_from(self.members.len()).unwrap_or(1) },
            "$db": "admin",
        };
        let reply = wire::command(self.port(primary)?, command, CONDITION).await;
        reply.map(|_| ())
    }
}

/// The secret the members know each other by; kept from an earlier run.
pub(crate) fn key_file(dir: &Path) -> Result<PathBuf> {
    let path = dir.join(KEY_FILE);
    if path.exists() {
        return Ok(path);
    }
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .at("create", &path)?;
    file.write_all(secret()?.as_bytes()).at("write", &path)?;
    Ok(path)
}

pub(super) fn secret() -> Result<String> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; SECRET_BYTES];
    let mut file = File::open(path).at("open", path)?;
    file.read_exact(&mut bytes).at("read", path)?;
    Ok(fetch::hex(&bytes))
}
