//! Which stages a script defines by their names, as the interpreter has it.

use bson::{Bson, Document, RawDocumentBuf, doc};

use crate::error::{Error, Result};
use crate::toolchain;
use crate::value::RawVal;
use crate::wasm::{
    self, GuestError, Host, Instance, InstanceOptions, Level, Limits, Script, Sink, SinkError,
    Stage,
};

/// Runs the script as a stage's script is run, and emits the names of the functions that it has then.
const ASK: &str = r#"function () {
    const names = ["map", "combine", "reduce", "finalize", "reduce_begin", "reduce_next", "reduce_end"];
    const asked = names.map((name) => `typeof ${name} === "function" ? "${name}" : ""`).join();
    emit(0, (0, eval)("(function(){" + this.text + "\n;return [" + asked + "]})")());
}"#;

/// Takes the names.
#[derive(Default)]
struct Names(Vec<String>);

impl Sink for Names {
    fn emit(&mut self, _key: &[u8], value: &[u8]) -> std::result::Result<(), SinkError> {
        if let Bson::Array(names) = RawVal::parse(value)?.to_bson()? {
            self.0 = names.iter().filter_map(Bson::as_str).map(str::to_owned).collect();
        }
        Ok(())
    }
    fn count(&mut self, _name: &str, _delta: i64) {}
    fn log(&mut self, _level: Level, _text: &str) {}
}

/// The stages that a script defines by their names; none for a script that is one function. Of one that does not run
/// by itself, those that it looks like it defines: what is wrong with it is told where it is checked.
///
/// # Errors
/// [`Error::Internal`].
pub async fn stages(host: &Host, text: &str, scope: &Document) -> Result<Vec<String>> {
    let (host, text, scope) = (host.clone(), text.to_owned(), scope.clone());
    let names = tokio::task::spawn_blocking(move || {
        Ok::<_, Error>(ask(&host, &text, &scope)?.unwrap_or_else(|| scanned(&text)))
    })
    .await
    .map_err(|e| Error::Internal(format!("asking for the stages panicked: {e}")))??;
    let has = |name: &str| names.iter().any(|other| other == name);
    let streams = ["reduce_begin", "reduce_next", "reduce_end"].into_iter().all(has);
    let stages = ["map", "combine", "reduce", "finalize"].into_iter();
    Ok(stages.filter(|name| has(name) || *name == "reduce" && streams).map(str::to_owned).collect())
}

/// `None` where the script does not run.
fn ask(host: &Host, text: &str, scope: &Document) -> Result<Option<Vec<String>>> {
    Ok(evaluate(host, ASK, text, scope, Names::default())?.ok().map(|Names(names)| names))
}

/// Runs a map of ours over a document `{text}` in the sandbox, and gives back the sink with what it emitted.
///
/// # Errors
/// [`Error::Internal`]; within, what the text does wrong.
pub fn evaluate<S: Sink>(
    host: &Host,
    map: &str,
    text: &str,
    scope: &Document,
    sink: S,
) -> Result<std::result::Result<S, GuestError>> {
    /// How long the text may take.
    const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
    let internal = |e: bson::error::Error| Error::Internal(e.to_string());
    let module = host
        .load(wasm::js_guest_digest(), wasm::JS_GUEST)
        .map_err(|e| Error::Internal(e.to_string()))?;
    let options = InstanceOptions {
        limits: Limits { call_timeout: TIMEOUT, ..Limits::default() },
        now_ms: bson::DateTime::now().timestamp_millis(),
        seed: rand::random(),
        scope: scope.to_vec().map_err(internal)?,
        script: Some(Script { map: Some(map.to_owned()), ..Script::default() }),
        ..InstanceOptions::default()
    };
    let input = RawDocumentBuf::try_from(&doc! { "text": text }).map_err(internal)?;
    Ok(Instance::new(&module, options, sink).and_then(|mut instance| {
        instance.call(Stage::Map, input.as_bytes())?;
        Ok(instance.into_sink())
    }))
}

/// What a script looks like it defines outside of all brackets. A scan loses its way in regular expressions.
fn scanned(text: &str) -> Vec<String> {
    const KEYWORDS: [&str; 4] = ["function", "const", "let", "var"];
    KEYWORDS.iter().flat_map(|keyword| toolchain::defined_in_script(text, keyword)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wasm::{Compiler, HostOptions};

    #[tokio::test]
    async fn a_scripts_stages_are_those_that_the_interpreter_knows() {
        let host = Host::new(HostOptions { compiler: Compiler::Here, ..HostOptions::default() });
        let host = host.unwrap();
        for (text, expected) in [
            ("function map() {} function reduce(k, v) {}", &["map", "reduce"][..]),
            ("const map = () => {};\nlet finalize = (k, v) => v; // the end", &["map", "finalize"]),
            // As bundlers and minifiers write it.
            (
                r#"var j=(()=>{var r=/[{"'`]/g;function reduce(){}return{map(){},combine(){}}})();var map=j.map,combine=j.combine;"#,
                &["map", "combine"],
            ),
            (
                "var map = 5; function reduce_begin() {} function reduce_next() {} var reduce_end = () => 1",
                &["reduce"],
            ),
            ("function inner() { function map() {} }", &[]),
            ("function (k, v) { return 1; }", &[]),
            ("(doc) => emit(1, 1)", &[]),
            ("var wide = limit * 2; function map() {}", &["map"]),
            // It does not run, and what it looks like is told.
            ("function map() {}\nnowhere();", &["map"]),
            ("function map() { return ]; }\nfunction reduce() {}", &["map", "reduce"]),
        ] {
            let found = stages(&host, text, &doc! { "limit": 2 }).await.unwrap();
            assert_eq!(found, expected, "{text}");
        }
    }
}
