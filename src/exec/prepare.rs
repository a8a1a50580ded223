//! From a function's reference to something that can be instantiated.

use std::time::Duration;

use super::deadline::Deadline;
use crate::error::{Error, Result};
use crate::ids::TaskId;
use crate::job::{FunctionRef, Job};
use crate::store::Store;
use crate::wasm::limits::SCRIPT_BYTES_MAX;
use crate::wasm::{
    self, Host, HostError, InstanceOptions, Interrupt, Limits, Module, Script, Stage,
};

/// A compiled function and what its instances start with.
#[derive(Clone)]
pub struct Loaded {
    /// The compiled module.
    pub module: Module,
    /// The stage it was loaded for.
    pub stage: Stage,
    /// What each instance starts with.
    pub options: InstanceOptions,
    /// The name or file that it came under, for people.
    pub name: Option<String>,
    /// When the work that it is part of must have ended.
    pub deadline: Option<Deadline>,
    /// Whether each call is to hold one record.
    pub careful: bool,
}

impl Loaded {
    /// The same under a name for people.
    #[must_use]
    pub fn named(self, name: Option<String>) -> Self {
        Self { name, ..self }
    }
}

/// What every function of one task is told: clock, randomness, parameters, limits.
#[derive(Debug, Clone)]
pub struct ExecEnv {
    /// What the functions' clock shows, in milliseconds since 1970.
    pub now_ms: i64,
    /// Where their randomness comes from.
    pub seed: [u8; 32],
    /// The job's parameters, BSON.
    pub scope: Vec<u8>,
    /// What they may use.
    pub limits: Limits,
    /// When the work must have ended.
    pub deadline: Option<Deadline>,
    /// Whether each call is to hold one record, so that each has the whole time of one.
    pub careful: bool,
    /// Who says whether they may go on.
    pub interrupt: Interrupt,
}

impl ExecEnv {
    /// The same for every attempt of a task, so that every attempt does the same. Whatever the functions
    /// log passes: it is limited over all functions of an attempt, where lines are counted too.
    ///
    /// # Errors
    /// [`Error::Internal`] when the parameters do not serialise.
    pub fn of(job: &Job, task: &TaskId) -> Result<Self> {
        let seconds = job.snapshot.map_or(0, |time| i64::from(time.time));
        let scope = job
            .spec
            .scope
            .to_vec()
            .map_err(|e| Error::Internal(format!("the parameters do not serialise: {e}")))?;
        Ok(Self {
            now_ms: seconds * 1_000,
            seed: *blake3::hash(task.as_str().as_bytes()).as_bytes(),
            scope,
            limits: Limits { log_bytes_max: usize::MAX, ..limits(&job.spec.limits) },
            deadline: None,
            careful: false,
            interrupt: Interrupt::default(),
        })
    }
}

/// A job's limits in the host's terms.
pub fn limits(limits: &crate::job::Limits) -> Limits {
    Limits {
        memory_bytes_max: usize::try_from(limits.memory_mb.saturating_mul(1 << 20))
            .unwrap_or(usize::MAX),
        call_timeout: Duration::from_millis(limits.record_timeout_ms),
        output_bytes_max: limits.record_output_bytes,
        log_bytes_max: usize::try_from(limits.log_bytes).unwrap_or(usize::MAX),
    }
}

/// Leaves a job to other workers whose functions may use more memory than this one gives: they would be told a
/// limit that is not theirs.
///
/// # Errors
/// [`Error::Unfit`].
pub(crate) fn check_memory(job: &Job, host: &Host, worker: &str) -> Result<()> {
    let wanted = job.spec.limits.memory_mb;
    let given = (host.memory_bytes_max() >> 20) as u64;
    if wanted <= given {
        return Ok(());
    }
    Err(Error::unfit(
        format!(
            "the job asks for {wanted} MiB of memory for each function, but worker {worker} gives {given} \
             MiB at most"
        ),
        format!("start workers with --memory-mb {wanted}, or submit it with --memory-mb {given}"),
    ))
}

/// Fetches a function, checks its digest and compiles it, each unless that is done already.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Refused`] for content that is not what its digest says or does not
/// compile, [`Error::Store`].
pub async fn load(
    store: &Store,
    host: &Host,
    function: &FunctionRef,
    stage: Stage,
    around: &ExecEnv,
) -> Result<Loaded> {
    if function.language != "js"
        && let Ok(digest) = blake3::Hash::from_hex(&function.digest)
        && let Some(module) = host.loaded(&digest)
    {
        return Ok(ready(module, None, stage, around)?.named(function.name.clone()));
    }
    let stored = store.function(&function.digest).await?.ok_or_else(|| Error::NotFound {
        what: format!("function {}", function.digest),
        hint: "somebody removed it from the catalogue; insert it again".into(),
    })?;
    if !stored.is_intact() {
        return Err(Error::refused(
            format!(
                "the stored bytes of function {} are not what its digest says",
                function.digest
            ),
            "the catalogue was tampered with or damaged: insert the function again",
        ));
    }
    let loaded = compile(host, &function.language, stored.content.bytes, stage, around).await;
    let named = |error| match error {
        Error::Refused { why, hint } => {
            let name = function.name.as_ref().unwrap_or(&function.digest);
            Error::refused(format!("{stage} of {name}: {why}"), hint)
        }
        other => other,
    };
    Ok(loaded.map_err(named)?.named(function.name.clone()))
}

/// Compiles a function on a thread that may block.
///
/// # Errors
/// [`Error::Refused`] for content that breaks the contract or does not compile.
pub async fn compile(
    host: &Host,
    language: &str,
    content: Vec<u8>,
    stage: Stage,
    around: &ExecEnv,
) -> Result<Loaded> {
    let script = match language {
        "js" => Some(script(stage, content.clone())?),
        _ => None,
    };
    let host = host.clone();
    let is_script = script.is_some();
    let module = tokio::task::spawn_blocking(move || {
        if is_script {
            host.load(wasm::js_guest_digest(), wasm::JS_GUEST)
        } else {
            host.load(&blake3::hash(&content), &content)
        }
    })
    .await
    .map_err(|e| Error::Internal(format!("compiling panicked: {e}")))?
    .map_err(|e| not_provided(&e))?;
    ready(module, script, stage, around)
}

/// Refuses a script that is too long: every instance has a copy, and reads all of it before its first record.
///
/// # Errors
/// [`Error::Refused`].
pub fn check_script_size(shown: &str, bytes: usize) -> Result<()> {
    if bytes <= SCRIPT_BYTES_MAX {
        return Ok(());
    }
    Err(Error::refused(
        format!("{shown} has {bytes} bytes"),
        format!("a script may have at most {SCRIPT_BYTES_MAX} bytes"),
    ))
}

/// A module that this machine cannot compile another may; one that no machine may compile ends its job.
fn not_provided(error: &HostError) -> Error {
    let why = format!("failed to {error}");
    match error {
        HostError::CannotCompile { .. } => {
            Error::unfit(why, "give the worker more memory or processors")
        }
        HostError::CompileLimit { .. } => Error::refused(
            why,
            "make the functions smaller, or give the job fewer of them in one module",
        ),
        _ => Error::refused(why, ""),
    }
}

fn ready(module: Module, script: Option<Script>, stage: Stage, around: &ExecEnv) -> Result<Loaded> {
    if script.is_none() && !module.info().stages.contains(stage) {
        return Err(Error::refused(
            format!("the module does not export {stage}"),
            "export it, or name the module only for the stages it has",
        ));
    }
    let options = InstanceOptions {
        limits: around.limits,
        now_ms: around.now_ms,
        seed: around.seed,
        scope: around.scope.clone(),
        script,
        interrupt: around.interrupt.clone(),
    };
    Ok(Loaded {
        module,
        stage,
        options,
        name: None,
        deadline: around.deadline,
        careful: around.careful,
    })
}

fn script(stage: Stage, content: Vec<u8>) -> Result<Script> {
    check_script_size("the script", content.len())?;
    let source = String::from_utf8(content)
        .map_err(|_| Error::refused("the script is not UTF-8", "save it as UTF-8"))?;
    let mut script = Script::default();
    match stage {
        Stage::Map => script.map = Some(source),
        Stage::Combine => script.combine = Some(source),
        Stage::Reduce => script.reduce = Some(source),
        Stage::Finalize => script.finalize = Some(source),
    }
    Ok(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_lacks_does_not_end_a_job() {
        let digest = blake3::hash(b"a module");
        let lacking = HostError::CannotCompile { digest, why: "no memory".into() };
        let error = not_provided(&lacking);
        assert!(matches!(error, Error::Unfit { .. }) && error.to_string().contains("no memory"));
        let what = "memory for compiling in bytes";
        let error = not_provided(&HostError::CompileLimit { digest, what, limit: 7 });
        let expected = "memory for compiling in bytes: it needs more than the limit of 7";
        assert!(matches!(error, Error::Refused { .. }) && error.to_string().contains(expected));
    }
}
