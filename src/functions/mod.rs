//! From a path, a name or a digest to a function in the catalogue.

pub mod script;

use std::path::{Path, PathBuf};

use bson::Document;

use crate::config;
use crate::error::{Error, Result};
use crate::exec::prepare::{self, ExecEnv};
use crate::job::{FunctionRef, OutputMode, Reducer};
use crate::request::document::{Built, FunctionWish, SourceWish};
use crate::store::Store;
use crate::store::functions::{SourceFile, StoredFunction};
use crate::toolchain::{self, Language};
use crate::wasm::{
    Host, InstanceOptions, InvalidModule, ModuleInfo, Nowhere, Stage, inspect_module, wat_to_wasm,
};

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
        let bytes = std::fs::read(path).map_err(|e| Error::unreadable(path, e))?;
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

    fn script(shown: &str, file: String, content: Vec<u8>) -> Result<Self> {
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

    fn inspected(
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
    fn wish(&self) -> FunctionWish {
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

    async fn store_as(&self, store: &Store, language: &str) -> Result<FunctionRef> {
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

/// What no name of a function has, and every text of one.
const INLINE: [char; 6] = ['(', '{', '[', ' ', '\n', ';'];

/// What an argument of `--map`, `--reduce`, … turned out to be.
#[derive(Debug, Clone)]
pub enum Given {
    /// A file, read and checked but not stored yet.
    New(Source),
    /// In the catalogue already.
    Known(FunctionRef),
    /// Perhaps in the catalogue, which this user may not read.
    Named(String),
}

impl Given {
    /// Finds a function by path, name or digest, and makes sure that it has the stage.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Refused`].
    pub async fn find(
        store: Option<&Store>,
        host: &Host,
        text: &str,
        stage: Stage,
        job: &CheckedFor<'_>,
    ) -> Result<Self> {
        let path = Path::new(text);
        if path.is_file() {
            let source = Source::read(host, path)?;
            source.check_stage(host, stage, job).await?;
            return Ok(Self::New(source));
        }
        let found = match store {
            Some(store) => match store.find_function(text).await {
                Err(Error::NotPermitted { .. }) if !text.contains(INLINE) => {
                    return Ok(Self::Named(text.to_owned()));
                }
                Err(Error::NotPermitted { .. }) => None,
                found => found?,
            },
            None => None,
        };
        let Some(found) = found else {
            if text.contains(INLINE) {
                let content = text.as_bytes().to_vec();
                let source = Source::script("the text", "inline text".to_owned(), content)?;
                source.check_stage(host, stage, job).await?;
                return Ok(Self::New(source));
            }
            return Err(not_found(text));
        };
        if found.language != "js" && !found.stages.contains(&stage.to_string()) {
            return Err(no_stage(text, stage, &found.stages));
        }
        Ok(Self::Known(FunctionRef {
            digest: found.digest,
            language: found.language,
            name: Some(text.to_owned()),
        }))
    }

    /// Stores it if it is new.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn stored(&self, store: &Store) -> Result<FunctionRef> {
        match self {
            Self::New(source) => source.store(store).await,
            Self::Known(known) => Ok(known.clone()),
            Self::Named(name) => Ok(named(name)),
        }
    }

    /// As a request names it. What has been named before, by its digest, is not sent twice.
    pub fn wish(&self, sent: &mut Vec<String>) -> FunctionWish {
        let of = |digest: String, name: Option<String>| FunctionWish {
            digest: Some(digest),
            name,
            ..FunctionWish::default()
        };
        match self {
            Self::Known(known) => of(known.digest.clone(), known.name.clone()),
            Self::Named(name) => {
                FunctionWish { name: Some(name.clone()), ..FunctionWish::default() }
            }
            Self::New(source) => {
                let digest = source.digest();
                if sent.contains(&digest) {
                    return of(digest, Some(source.file.clone()));
                }
                sent.push(digest);
                source.wish()
            }
        }
    }

    /// Its digest, if it is in the catalogue already.
    pub fn digest_if_known(&self) -> Option<&str> {
        match self {
            Self::Known(known) => Some(&known.digest),
            Self::New(_) | Self::Named(_) => None,
        }
    }

    /// Bytes that a request has for it.
    pub fn bytes(&self) -> usize {
        match self {
            Self::New(source) => {
                let sources = source.sources.iter().map(|(name, text)| name.len() + text.len());
                source.content.len() + sources.sum::<usize>()
            }
            Self::Known(_) | Self::Named(_) => 0,
        }
    }
}

/// A function that may be in the catalogue.
pub(crate) fn named(name: &str) -> FunctionRef {
    FunctionRef { digest: String::new(), language: String::new(), name: Some(name.to_owned()) }
}

/// Finds the function that a request asks for; one that comes with it is stored. Nothing of it is run: what is
/// wrong with a script shows when its first task runs.
///
/// # Errors
/// [`Error::Usage`], [`Error::NotFound`], [`Error::Refused`], [`Error::Store`].
pub async fn wished(store: &Store, wish: FunctionWish, stage: Stage) -> Result<FunctionRef> {
    let FunctionWish { js, wasm, name, digest, file, built } = wish;
    let shown = name.clone();
    let text = match (js, wasm, name, digest) {
        (Some(text), None, None, None) if built.is_none() => {
            let file = file.unwrap_or_else(|| "inline text".to_owned());
            let source = Source::script(&file, file.clone(), text.into_bytes())?;
            return source.store(store).await;
        }
        (None, Some(module), None, None) => {
            return wished_module(store, module.bytes, stage, file, built).await;
        }
        // With a digest, a name is for people.
        (None, None, Some(text), None) | (None, None, _, Some(text))
            if file.is_none() && built.is_none() =>
        {
            text
        }
        _ => {
            return Err(Error::Usage(format!(
                "{stage} has one of js, wasm, name or digest; file goes with the first two, built with wasm"
            )));
        }
    };
    let found = store.find_function(&text).await?.ok_or_else(|| Error::NotFound {
        what: format!("function {text}"),
        hint: "it is no name or digest in the catalogue".into(),
    })?;
    if found.language != "js" && !found.stages.contains(&stage.to_string()) {
        return Err(no_stage(&text, stage, &found.stages));
    }
    let name = Some(shown.unwrap_or(text));
    Ok(FunctionRef { digest: found.digest, language: found.language, name })
}

async fn wished_module(
    store: &Store,
    content: Vec<u8>,
    stage: Stage,
    file: Option<String>,
    built: Option<Built>,
) -> Result<FunctionRef> {
    const LANGUAGE_BYTES_MAX: usize = 32;
    let file = file.unwrap_or_else(|| "inline module".to_owned());
    let memory_max = usize::try_from(config::GUEST_MEMORY_MB_MAX << 20).unwrap_or(usize::MAX);
    // No tenth of a second for a module of the greatest size, but more than a runtime's thread should be kept for.
    let mut source = tokio::task::spawn_blocking(move || {
        Source::inspected(&file, file.clone(), content, |content| {
            inspect_module(content, memory_max)
        })
    })
    .await
    .map_err(|e| Error::Internal(format!("looking at a module panicked: {e}")))??;
    if !source.stages.contains(&stage.to_string()) {
        return Err(no_stage(&source.file, stage, &source.stages));
    }
    let mut language = source.language.to_owned();
    if let Some(built) = built {
        let is_word = |text: &str| {
            text.len() <= LANGUAGE_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic())
        };
        if built.language == "js" || built.language.is_empty() || !is_word(&built.language) {
            return Err(Error::Usage(
                "built.language is not the name of a compiled language".into(),
            ));
        }
        language = built.language;
        source.toolchain = built.toolchain;
        source.sources = built.sources.into_iter().map(|file| (file.name, file.text)).collect();
    }
    source.store_as(store, &language).await
}

fn no_stage(shown: &str, stage: Stage, stages: &[String]) -> Error {
    Error::refused(
        format!("function {shown} does not export {stage}"),
        format!("it has {}", stages.join(", ")),
    )
}

/// Nobody knows a function of this name.
pub(crate) fn not_found(text: &str) -> Error {
    Error::NotFound {
        what: format!("function {text}"),
        hint: "it is neither a file here nor a name or digest in the catalogue".into(),
    }
}

/// Makes sure that a function can be called so: that the name cannot be taken for a built-in, a version, a
/// digest or a path.
///
/// # Errors
/// [`Error::Usage`].
pub fn check_name(name: &str) -> Result<()> {
    const DIGEST_DIGITS: usize = 64;
    let refused = |why: &str| Err(Error::Usage(format!("{name:?} cannot be a name: {why}")));
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    if name.is_empty() || name.len() > config::NAME_BYTES_MAX {
        return refused(&format!("it must have 1 to {} bytes", config::NAME_BYTES_MAX));
    }
    if name.starts_with(['_', '-', '.']) || !name.chars().all(is_plain) {
        return refused("use letters, digits, - _ . and :, and begin with a letter or digit");
    }
    if name.len() == DIGEST_DIGITS && name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return refused("it looks like a digest");
    }
    Ok(())
}

/// Whether an argument of `--reduce` names a built-in.
///
/// # Errors
/// [`Error::Refused`] for a word that begins with an underscore and is none.
pub fn builtin(text: &str) -> Result<Option<Reducer>> {
    if !text.starts_with('_') || Path::new(text).is_file() {
        return Ok(None);
    }
    match text.parse::<crate::shuffle::builtin::Builtin>() {
        Ok(_) => Ok(Some(Reducer::Builtin(text.to_owned()))),
        Err(_) => Err(Error::refused(
            format!("{text} is no built-in reduce"),
            "use _sum, _count, _min, _max, _avg or _stats",
        )),
    }
}

/// A refusal that lists everything that is wrong with a module.
fn unusable(shown: &str, invalid: &InvalidModule) -> Error {
    let problems: Vec<String> = invalid.problems.iter().map(ToString::to_string).collect();
    let problems = problems.join("; ");
    let hint = match problems.contains("wasi_snapshot_preview1.") {
        true => {
            "a function has no files, no network, no processes and no environment, so leave out what asks for them \
                 (os.ReadFile, std::fs, fopen, sockets); give data with --scope"
        }
        false => "",
    };
    Error::refused(format!("{shown} is not a usable function: {problems}"), hint)
}

fn check_size(shown: &str, bytes: usize) -> Result<()> {
    if bytes <= config::FUNCTION_BYTES_MAX {
        return Ok(());
    }
    Err(Error::refused(
        format!("{shown} has {bytes} bytes"),
        format!("a function may have at most {} bytes", config::FUNCTION_BYTES_MAX),
    ))
}

#[cfg(test)]
mod tests {
    use super::check_name;

    #[test]
    fn a_name_is_no_path_version_digest_or_builtin() {
        let digest = "0123456789abcdef".repeat(4);
        let long = "n".repeat(129);
        for bad in ["", "_sum", "a@2", "a/b", "-x", ".hidden", "a b", "a\n", &digest, &long] {
            assert_eq!(check_name(bad).unwrap_err().exit_code(), 2, "{bad:?}");
        }
        for good in ["word-count", "wc.2", "team:wc", "zähler", "abcdef"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
    }
}
