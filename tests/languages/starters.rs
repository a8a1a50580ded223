//! `aviary new`.

use std::path::Path;

use aviary::toolchain::Language;

use crate::common::{Ran, run};
use crate::compilers::there;

/// Starters, and the language of those that are compiled.
const STARTERS: [(&str, Option<Language>); 7] = [
    ("javascript", None),
    ("go", Some(Language::Go)),
    ("rust", Some(Language::Rust)),
    ("c", Some(Language::C)),
    ("cpp", Some(Language::Cpp)),
    ("zig", Some(Language::Zig)),
    ("typescript", Some(Language::AssemblyScript)),
];

async fn new(language: &str, dir: &Path) -> Ran {
    run(&["new", language, &dir.display().to_string()], &[]).await
}

/// The commands of the README that need no server, run as they stand there.
pub async fn each_runs_without_a_server() {
    let dir = tempfile::tempdir().unwrap();
    for (name, language) in STARTERS {
        let dir = dir.path().join("deeper").join(name);
        let made = new(name, &dir).await.ok();
        assert!(made.stderr.contains("aviary try --docs sample.jsonl"), "{made:#?}");
        for file in made.stdout.lines() {
            assert!(Path::new(file).is_file(), "{file}");
        }
        let readme = std::fs::read_to_string(dir.join("README.md")).unwrap();
        for word in
            ["aviary try --docs", "aviary insert", "aviary submit -c orders", "--out replace:"]
        {
            assert!(readme.contains(word), "{name}: {word} is missing in {readme}");
        }
        if let Some(language) = language {
            assert!(readme.contains(&language.install()), "{name}: {readme}");
            if !there(language) {
                continue;
            }
        }
        let command = readme.lines().find_map(|line| line.strip_prefix("    aviary try --docs "));
        let script = format!("\"$0\" try --docs {}", command.expect("a command"));
        let output = tokio::process::Command::new("sh")
            .args(["-c", &script, crate::common::AVIARY])
            .current_dir(&dir)
            .env_remove("AVIARY_URI")
            .stdin(std::process::Stdio::null())
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
        let rows: Vec<serde_json::Value> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let expected = [("Ada", 115.0), ("Ben", 49.25), ("Cleo", 31.75)]
            .map(|(customer, sum)| serde_json::json!({ "_id": customer, "value": sum }));
        assert_eq!(rows, expected, "{name}");
    }
}

pub async fn a_directory_that_is_not_empty_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("kept");
    std::fs::write(&kept, "mine").unwrap();
    let refused = new("go", dir.path()).await;
    assert_eq!(refused.code, 8, "{refused:#?}");
    assert!(refused.stderr.contains("is not empty"), "{refused:#?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    // A file in the way, and a language that there is not.
    let refused = new("go", &kept).await;
    assert_eq!(refused.code, 8, "{refused:#?}");
    assert!(refused.stderr.contains("is not a directory"), "{refused:#?}");
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), "mine");
    let refused = new("cobol", &dir.path().join("new")).await;
    assert_eq!(refused.code, 2, "{refused:#?}");
    assert!(
        refused.stderr.contains("javascript") && refused.stderr.contains("zig"),
        "{refused:#?}"
    );
    // One that is there and empty will do.
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    new("javascript", &empty).await.ok();
    assert!(empty.join("map.js").is_file());
}
