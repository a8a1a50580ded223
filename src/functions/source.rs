//! A function as a person gave it: read, compiled and checked.

use std::path::{Path, PathBuf};

use bson::Document;

use super::{check_size, script, unusable};
use crate::config;
use crate::error::{Error, Result};
use crate::exec::prepare::{self, ExecEnv};
use crate::files;
use crate::job::{FunctionRef, OutputMode};
use crate::request::document::{Built, FunctionWish, SourceWish};
use crate::store::Store;
use crate::store::catalogue::{SourceFile, StoredFunction};
use crate::toolchain::{self, Language};
use crate::wasm::{Host, InstanceOptions, InvalidModule, ModuleInfo, Nowhere, Stage, wat_to_wasm};

/// A function as a person gave it, checked and ready to be stored.
#[derive(Debug, Clone)]
pub struct Source {
    /// `wasm`, `js`, or the language that the module was compiled from.
    pub language: &'static str,
    /// The compiler and its version, where the module was compiled here.
    pub toolchain: Option<String>,
    /// The files it was compiled from: name and text.
    pub sources: Vec<(String, String)>,
    /// The file's name.
    pub file: String,
    /// The stages it has; empty for a script, which is whatever stage it is given for.
    pub stages: Vec<String>,
    /// What is stored and run.
    pub content: Vec<u8>,
}

impl Source {
    /// Reads a file and checks it against the guest contract.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Refused`] with everything that is wrong with it.
    pub fn read(host: &Host, path: &Path) -> Result<Self> {
        if Language::of(path).is_some() {
            return Self::compile(host, &[path.to_path_buf()]);
        }
        let shown = path.display();
        let bytes = files::read(path, config::FUNCTION_BYTES_MAX)?;
        let file = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        match extension.as_deref() {
            Some("js" | "mjs") => Self::script(&shown.to_string(), file, bytes),
            Some("wat") => {
                let text = String::from_utf8(bytes)
                    .map_err(|_| Error::refused(format!("{shown} is not UTF-8"), ""))?;
                let wasm = wat_to_wasm(&text).map_err(|e| unusable(&shown.to_string(), &e))?;
                let mut module = Self::module(host, &shown.to_string(), file.clone(), wasm)?;
                module.sources = vec![(file, text)];
                Ok(module)
            }
            Some("wasm") => Self::module(host, &shown.to_string(), file, bytes),
            _ if bytes.starts_with(b"\0asm") => Self::module(host, &shown.to_string(), file, bytes),
            other => Err(Error::refused(
                format!("{shown} is not a function"),
                match other {
                    Some("py") => {
                        "there is no Python here: write it in JavaScript (.js), or give a .go, .rs, .c, \
                                   .cpp, .zig, .ts, .wasm or .wat file"
                    }
                    _ => "give a .js, .go, .rs, .c, .cpp, .zig, .ts, .wasm or .wat file",
                },
            )),
        }
    }

    /// Compiles files of one language to one module and checks it.
    ///
    /// # Errors
    /// As for [`toolchain::build`], and [`Error::Refused`] for a module that breaks the guest contract.
    pub fn compile(host: &Host, paths: &[PathBuf]) -> Result<Self> {
        let built = toolchain::build(paths)?;
        let names: Vec<&str> = built.sources.iter().map(|file| file.name.as_str()).collect();
        let names = names.join(", ");
        let module = Self::module(host, &names, names.clone(), built.module)?;
        Ok(Self {
            language: built.language.name(),
            toolchain: Some(built.toolchain),
            sources: built.sources.into_iter().map(|file| (file.name, file.text)).collect(),
            ..module
        })
    }

    pub(super) fn script(shown: &str, file: String, content: Vec<u8>) -> Result<Self> {
        prepare::check_script_size(shown, content.len())?;
        if std::str::from_utf8(&content).is_err() {
            return Err(Error::refused(format!("{shown} is not UTF-8"), "save it as UTF-8"));
        }
        let (toolchain, sources) = (None, Vec::new());
        Ok(Self { language: "js", file, stages: Vec::new(), content, toolchain, sources })
    }

    fn module(host: &Host, shown: &str, file: String, content: Vec<u8>) -> Result<Self> {
        Self::inspected(shown, file, content, |content| host.inspect(content))
    }

    pub(super) fn inspected(
        shown: &str,
        file: String,
        content: Vec<u8>,
        inspect: impl FnOnce(&[u8]) -> std::result::Result<ModuleInfo, InvalidModule>,
    ) -> Result<Self> {
        check_size(shown, content.len())?;
        let info = inspect(&content).map_err(|e| unusable(shown, &e))?;
        let stages = info.stages.iter().map(|stage| stage.to_string()).collect();
        let (toolchain, sources) = (None, Vec::new());
        Ok(Self { language: "wasm", file, stages, content, toolchain, sources })
    }

    /// Makes sure that it can be used for a stage: that a module exports it, that a script parses
    /// and defines a function.
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::Function`] turned into one: nothing is to be stored.
    pub async fn check_stage(&self, host: &Host, stage: Stage, job: &CheckedFor<'_>) -> Result<()> {
        let around = ExecEnv {
            now_ms: 0,
            seed: [0; 32],
            scope: job
                .scope
                .to_vec()
                .map_err(|e| Error::Usage(format!("the parameters do not serialise: {e}")))?,
            limits: prepare::limits(job.limits),
            deadline: None,
            careful: true,
            interrupt: crate::wasm::Interrupt::default(),
        };
        let refused = |why: String| {
            let hint = match why.contains("SyntaxError") && self.is_es_module() {
                true => "a function's script is no ES module: remove the words export and import",
                false => "",
            };
            Error::refused(format!("{} is not a usable {stage} function: {why}", self.file), hint)
        };
        let loaded = prepare::compile(host, self.language, self.content.clone(), stage, &around)
            .await
            .map_err(|e| refused(e.to_string()))?;
        let options: InstanceOptions = loaded.options.clone();
        let started = tokio::task::spawn_blocking(move || {
            crate::wasm::Instance::new(&loaded.module, options, Nowhere)
                .map(|instance| instance.streams())
        })
        .await
        .map_err(|e| Error::Internal(format!("starting a function panicked: {e}")))?;
        let streams = started.map_err(|e| match e {
            crate::wasm::GuestError::Failed { message, .. } => refused(message),
            // What a language's runtime says before it gives up says more than the trap.
            crate::wasm::GuestError::Trap { ref stderr, .. } if !stderr.is_empty() => {
                refused(format!("{e}\n{stderr}"))
            }
            other => refused(other.to_string()),
        })?;
        if streams && stage == Stage::Reduce && job.mode == OutputMode::Reduce {
            return Err(crate::exec::rereduce::refuse_streaming());
        }
        Ok(())
    }

    /// Whether a script has lines as only ES modules have them.
    fn is_es_module(&self) -> bool {
        let text = String::from_utf8_lossy(&self.content);
        self.language == "js"
            && text.lines().any(|line| {
                let line = line.trim_start();
                line.starts_with("export ") || line.starts_with("import ")
            })
    }

    /// The stages that a script defines by their names; none for a script that is one function.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub async fn script_stages(&self, host: &Host, scope: &Document) -> Result<Vec<String>> {
        script::stages(host, &String::from_utf8_lossy(&self.content), scope).await
    }

    /// As a request has it.
    pub(super) fn wish(&self) -> FunctionWish {
        let file = Some(self.file.clone());
        if self.language == "js" {
            // It was checked when it was read.
            let text = String::from_utf8_lossy(&self.content).into_owned();
            return FunctionWish { js: Some(text), file, ..FunctionWish::default() };
        }
        let sources = self.sources.iter().cloned().map(|(name, text)| SourceWish { name, text });
        let built = Built {
            language: self.language.to_owned(),
            toolchain: self.toolchain.clone(),
            sources: sources.collect(),
        };
        let wasm = bson::Binary {
            subtype: bson::spec::BinarySubtype::Generic,
            bytes: self.content.clone(),
        };
        FunctionWish { wasm: Some(wasm), file, built: Some(built), ..FunctionWish::default() }
    }

    /// The content's digest.
    pub fn digest(&self) -> String {
        blake3::hash(&self.content).to_hex().to_string()
    }

    /// Stores it unless equal content is stored already.
    ///
    /// # Errors
    /// [`Error::Refused`] for sources that are too large, [`Error::Store`].
    pub async fn store(&self, store: &Store) -> Result<FunctionRef> {
        self.store_as(store, self.language).await
    }

    pub(super) async fn store_as(&self, store: &Store, language: &str) -> Result<FunctionRef> {
        let source_bytes: usize = self.sources.iter().map(|(_, text)| text.len()).sum();
        if source_bytes > config::SOURCE_BYTES_MAX {
            return Err(Error::refused(
                format!("the source of {} has {source_bytes} bytes", self.file),
                format!(
                    "at most {} are stored beside a function: insert the built .wasm instead",
                    config::SOURCE_BYTES_MAX
                ),
            ));
        }
        let sources = self.sources.iter().cloned().map(|(name, text)| SourceFile { name, text });
        let (stages, content) = (self.stages.clone(), self.content.clone());
        let stored = StoredFunction::new(language, &self.file, stages, content)
            .built(self.toolchain.clone(), sources.collect());
        let digest = stored.digest.clone();
        store.put_function(&stored).await?;
        Ok(FunctionRef { digest, language: language.to_owned(), name: Some(self.file.clone()) })
    }
}

/// The job that a function is checked for: whether it starts may depend on these.
#[derive(Debug, Clone, Copy)]
pub struct CheckedFor<'a> {
    /// The job's parameters.
    pub scope: &'a bson::Document,
    /// What its functions may use.
    pub limits: &'a crate::job::Limits,
    /// How its results get to their place.
    pub mode: OutputMode,
}
