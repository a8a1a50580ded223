//! What can be done to members: ending, freezing and restarting them, and failing their commands.

use std::sync::Arc;
use std::time::Instant;

use mongodb::bson::{Bson, doc};

use super::{ReplicaSet, give_up_after};
use crate::error::Result;
use crate::launch::{self, CONDITION, STOP_GRACE};
use crate::process::POLL;
use crate::wire;

/// How long a primary that was told to step down may not be elected again.
const STEP_DOWN_S: i32 = 10;

/// Which commands a member is to fail, and how. Needs `test_commands`.
#[derive(Debug, Clone, Default)]
pub struct FailCommand {
    /// The commands, such as `find` or `update`.
    pub commands: Vec<String>,
    /// Only those of clients with this application name.
    pub app_name: Option<String>,
    /// Only those on this collection, as `database.collection`.
    pub namespace: Option<String>,
    /// How many times; until [`ReplicaSet::clear_fail_command`] otherwise.
    pub times: Option<u32>,
    /// The error code to answer with.
    pub error_code: Option<i32>,
    /// Labels to add to that answer.
    pub error_labels: Vec<String>,
    /// The code of a write concern error to add to the answer of a command that runs.
    pub write_concern_error: Option<i32>,
    /// Whether the connection is closed instead of answered.
    pub close_connection: bool,
    /// How long the command is held up before it runs or fails, in milliseconds.
    pub block_ms: Option<u32>,
}

impl ReplicaSet {
    /// Kills a member (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub async fn kill(&self, index: usize) -> Result<()> {
        let member = self.member(index)?;
        member.kill()?;
        member.wait_gone(STOP_GRACE).await
    }

    /// Ends a member in good order and waits until it is gone.
    ///
    /// # Errors
    ///
    /// When it cannot be ended.
    pub async fn stop(&self, index: usize) -> Result<()> {
        self.member(index)?.stop(STOP_GRACE).await
    }

    /// Freezes a member (SIGSTOP): its connections stay open and nobody answers.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn freeze(&self, index: usize) -> Result<()> {
        self.member(index)?.freeze()
    }

    /// Lets a frozen member go on (SIGCONT).
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn thaw(&self, index: usize) -> Result<()> {
        self.member(index)?.thaw()
    }

    /// Ends a member if it runs, starts it with the same port and data, and waits until it is
    /// primary or secondary.
    ///
    /// # Errors
    ///
    /// When it does not start or does not catch up in time.
    pub async fn restart(&self, index: usize) -> Result<()> {
        let port = self.port(index)?;
        let old = self.member(index)?;
        old.stop(STOP_GRACE).await?;
        let new = Arc::new(launch::spawn_again(&old)?);
        self.home.watch(new.record())?;
        if self.persistent {
            new.detach();
        }
        *self.member_slot(index)? = Arc::clone(&new);
        self.change_state(|state| {
            if let Some(record) = state.members.get_mut(index) {
                *record = new.record().clone();
            }
        })?;
        launch::wait_serving(&new, port).await?;
        let deadline = Instant::now() + CONDITION;
        loop {
            let seen = wire::hello(port).await;
            if let Ok(hello) = &seen
                && (hello.primary || hello.secondary)
            {
                return Ok(());
            }
            give_up_after(deadline, &format!("member {index} in service"), &seen)?;
            tokio::time::sleep(POLL).await;
        }
    }

    /// Has the primary step down; of one member alone, it becomes primary again by itself.
    ///
    /// # Errors
    ///
    /// When there is no primary, or when it refuses.
    pub async fn step_down(&self) -> Result<()> {
        let primary = self.wait_primary().await?;
        let seconds = if self.members.len() > 1 { STEP_DOWN_S } else { 1 };
        let command = doc! {
            "replSetStepDown": seconds,
            "secondaryCatchUpPeriodSecs": seconds / 2,
            "force": true,
        };
        self.run_on_member(primary, command).await.map(|_| ())
    }

    /// Makes a member fail commands.
    ///
    /// # Errors
    ///
    /// When the server refuses it, as it does without `test_commands`.
    pub async fn fail_command(&self, index: usize, fail: &FailCommand) -> Result<()> {
        let mut data = doc! { "failCommands": fail.commands.clone() };
        if let Some(app_name) = &fail.app_name {
            data.insert("appName", app_name);
        }
        if let Some(namespace) = &fail.namespace {
            data.insert("namespace", namespace);
        }
        if let Some(code) = fail.error_code {
            data.insert("errorCode", code);
        }
        if !fail.error_labels.is_empty() {
            data.insert("errorLabels", fail.error_labels.clone());
        }
        if let Some(code) = fail.write_concern_error {
            let error = doc! { "code": code, "errmsg": "the write concern is made to fail" };
            data.insert("writeConcernError", error);
        }
        if fail.close_connection {
            data.insert("closeConnection", true);
        }
        if let Some(block_ms) = fail.block_ms {
            data.insert("blockConnection", true);
            data.insert("blockTimeMS", i64::from(block_ms));
        }
        let mode = match fail.times {
            Some(times) => Bson::from(doc! { "times": i64::from(times) }),
            None => Bson::from("alwaysOn"),
        };
        let command = doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data };
        self.run_on_member(index, command).await.map(|_| ())
    }

    /// Ends what [`ReplicaSet::fail_command`] began, and says how often it had an effect.
    ///
    /// # Errors
    ///
    /// When the server refuses it.
    pub async fn clear_fail_command(&self, index: usize) -> Result<i64> {
        let command = doc! { "configureFailPoint": "failCommand", "mode": "off" };
        let reply = self.run_on_member(index, command).await?;
        Ok(match reply.get("count") {
            Some(Bson::Int32(count)) => i64::from(*count),
            Some(Bson::Int64(count)) => *count,
            _ => 0,
        })
    }
}
