//! The documents are true: links lead somewhere, flags and variables exist, and the tutorial runs.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::common::{AVIARY, root, run};
use crate::files;
use crate::python;

const README_LINES_MAX: usize = 130;
const ARCHITECTURE_LINES_MAX: usize = 150;

/// Every document of the repository, with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let is_others =
        |name: &str| ["target", "node_modules", "venv"].contains(&name) || name.starts_with('.');
    let files = files::below(root(), "md", &is_others).into_iter();
    let found: Vec<_> =
        files.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect();
    assert!(found.len() > 10, "{found:?}");
    found
}

/// What a heading is called in a link.
fn anchor(heading: &str) -> String {
    let kept = |c: char| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => c.to_lowercase().next(),
        _ => None,
    };
    heading.trim().chars().filter_map(kept).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}

/// The targets of the links in a text.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

#[test]
fn links_lead_to_files_and_headings() {
    let documents = documents();
    let texts: HashMap<&Path, &str> =
        documents.iter().map(|(path, text)| (path.as_path(), text.as_str())).collect();
    let mut broken = Vec::new();
    let mut followed = 0;
    for (path, text) in &documents {
        for link in links(text).filter(|link| !link.contains("://") && !link.contains(' ')) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            let Ok(target) = target.canonicalize() else {
                broken.push(format!("{}: {link}", path.display()));
                continue;
            };
            followed += 1;
            let is_there = |text: &&str| anchors(text).contains(heading);
            if !heading.is_empty() && !texts.get(target.as_path()).is_some_and(is_there) {
                broken.push(format!("{}: {link} names no heading", path.display()));
            }
        }
    }
    assert!(followed > 40, "{followed}");
    assert_eq!(broken, Vec::<String>::new());
}

/// The lines of a text that are commands: what is indented by four or stands in a block, and begins with `aviary`.
fn commands(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let (mut in_block, mut goes_on) = (false, false);
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
            continue;
        }
        let is_code = in_block || line.starts_with("    ");
        let line = line.trim();
        let (said, end) = match line.strip_suffix('\\') {
            Some(said) => (said, true),
            None => (line, false),
        };
        let said = said.split("   #").next().unwrap_or(said);
        if is_code && goes_on {
            let last: &mut String = commands.last_mut().unwrap();
            last.push_str(said);
            goes_on = end;
        } else if is_code
            && let Some(at) = said.find("aviary ").filter(|at| {
                let before = &said[..*at];
                before.is_empty() || before.ends_with("$(") || before.ends_with("&& ")
            })
        {
            commands.push(said[at..].trim_end_matches(')').to_owned());
            goes_on = end;
        }
    }
    commands
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_name_verbs_and_flags_that_there_are() {
    let nothing: [(String, String); 0] = [];
    let mut helps: HashMap<String, String> = HashMap::new();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (path, text) in documents() {
        for command in commands(&text) {
            // What is quoted may be anything.
            let plain: String = command.split('\'').step_by(2).collect();
            let words: Vec<&str> = plain.split_whitespace().skip(1).collect();
            let Some(verb) = words.first().filter(|word| word.chars().all(char::is_alphabetic))
            else {
                continue;
            };
            let verbs: &[&str] = match *verb {
                "functions" if words.len() > 1 => &words[..2],
                _ => &words[..1],
            };
            let name = verbs.join(" ");
            if !helps.contains_key(&name) {
                let args: Vec<&str> = verbs.iter().copied().chain(["--help"]).collect();
                let ran = run(&args, &nothing).await;
                helps.insert(name.clone(), if ran.code == 0 { ran.stdout } else { String::new() });
            }
            let help = &helps[&name];
            seen += 1;
            if help.is_empty() {
                wrong.push(format!("{}: {command}: there is no such verb", path.display()));
            }
            for flag in words.iter().filter(|word| word.starts_with("--") && word.len() > 2) {
                let flag = flag.split('=').next().unwrap().trim_end_matches([',', '.', ';', '`']);
                let is_known = help.split_whitespace().any(|word| word == flag);
                if !is_known && !["--help", "--version"].contains(&flag) {
                    wrong.push(format!("{}: {command}: there is no {flag}", path.display()));
                }
            }
        }
    }
    assert!(seen > 30, "{seen}");
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_readme_and_the_architecture_are_short() {
    for (name, max) in
        [("README.md", README_LINES_MAX), ("ARCHITECTURE.md", ARCHITECTURE_LINES_MAX)]
    {
        let lines = std::fs::read_to_string(root().join(name)).unwrap().lines().count();
        assert!(lines <= max, "{name}: {lines} lines");
    }
}

/// Paths of the repository that a text names between backticks.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    const BELOW: [&str; 10] = [
        ".ci/",
        "benches/",
        "clients/",
        "deploy/",
        "docs/",
        "examples/",
        "fuzz/",
        "src/",
        "testcontainers/",
        "tests/",
    ];
    let named = text.split('`').skip(1).step_by(2);
    let is_path = |named: &&str| {
        BELOW.iter().any(|below| named.starts_with(below)) && !named.contains([' ', '*', '…'])
    };
    named.filter(is_path)
}

#[test]
fn paths_that_documents_name_are_there() {
    let (mut gone, mut seen) = (Vec::new(), 0);
    for (document, text) in documents() {
        for path in paths(&text) {
            seen += 1;
            if !root().join(path).exists() {
                gone.push(format!("{}: {path}", document.display()));
            }
        }
    }
    assert!(seen > 100, "{seen}");
    assert_eq!(gone, Vec::<String>::new());
}

#[test]
fn the_index_lists_every_page() {
    let docs = root().join("docs");
    let listed = |index: &Path| -> BTreeSet<PathBuf> {
        let text = std::fs::read_to_string(index).unwrap();
        let files = links(&text).map(|link| link.split('#').next().unwrap());
        let below = |file: &str| index.parent().unwrap().join(file).canonicalize().unwrap();
        files.filter(|file| !file.contains("://")).map(below).collect()
    };
    for index in ["README.md", "decisions/README.md"].map(|name| docs.join(name)) {
        let is_decisions = |name: &str| name == "decisions";
        let pages = files::below(index.parent().unwrap(), "md", &is_decisions);
        let pages = pages.into_iter().filter(|page| *page != index);
        let pages: BTreeSet<PathBuf> = pages.map(|page| page.canonicalize().unwrap()).collect();
        let listed = listed(&index);
        let missing: Vec<_> = pages.difference(&listed).collect();
        assert!(pages.len() > 20 && missing.is_empty(), "{}: {missing:?}", index.display());
    }
}

/// A recipe is a short name for a command that the documents tell, up to what it is given.
#[test]
fn recipes_are_commands_that_documents_tell() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    let told = ["CONTRIBUTING.md", "docs/explanation/testing.md"].map(read).concat();
    let (justfile, mut recipes) = (read("justfile"), 0);
    for line in justfile.lines().filter_map(|line| line.strip_prefix("    ")) {
        if line.starts_with('@') {
            continue;
        }
        let command = line.split("{{").next().unwrap().trim();
        assert!(told.contains(command), "{command:?} is told nowhere");
        recipes += 1;
    }
    assert!(recipes > 8, "{recipes}");
}

/// The blocks of shell of the tutorial, one after the other.
fn tutorial() -> String {
    let text = std::fs::read_to_string(root().join("docs/tutorial.md")).unwrap();
    let mut script = "set -euo pipefail\n".to_owned();
    let mut rest = text.as_str();
    while let Some((_, after)) = rest.split_once("```sh\n") {
        let (block, after) = after.split_once("```").expect("the end of a block");
        script.push_str(block);
        rest = after;
    }
    script
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tutorial_runs() {
    if python::python().await.is_none() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut path = std::ffi::OsString::from(Path::new(AVIARY).parent().unwrap());
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    let ran = tokio::process::Command::new("bash")
        .args(["-c", &tutorial()])
        .current_dir(home.path())
        .env("PATH", path)
        .env_remove("AVIARY_URI")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    for dir in ["shop", "cluster"] {
        let dir = home.path().join(dir);
        if dir.exists() {
            run(&["down", "--remove", "--dir", dir.to_str().unwrap()], &[]).await;
        }
    }
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{out}\n{err}");
    // What the text says of it.
    assert_eq!(out.matches("{\"_id\":\"apple\",\"value\":").count(), 2, "{out}\n{err}");
    assert_eq!(err.matches("your reduce is not associative").count(), 1, "{out}\n{err}");
    assert!(err.contains("20000 of 20000 results had a document to update"), "{out}\n{err}");
    assert!(out.contains("'total': "), "{out}\n{err}");
    // Documents of both shards were read, by a worker each.
    let (_, cluster) = out.rsplit_once("20000 orders").unwrap();
    let workers: BTreeSet<&str> = cluster
        .lines()
        .filter(|line| line.trim_start().starts_with("map/"))
        .filter_map(|line| line.split_whitespace().nth(2))
        .collect();
    assert_eq!(workers.len(), 2, "{out}\n{err}");
}
