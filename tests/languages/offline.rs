//! `aviary try --docs`.

use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;

use crate::common::{AVIARY, run};

pub async fn documents_of_a_file_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let map = file("map.js", "function () { emit(this.k, this.n); }");
    let good = file(
        "good.jsonl",
        "{\"k\": {\"$date\": \"2020-01-01T00:00:00Z\"}, \"n\": {\"$numberLong\": \"5\"}}\n\n\
         {\"k\": \"a\", \"n\": 1}\n{\"k\": \"a\", \"n\": 2}\n",
    );
    let bad = file("bad.jsonl", "{\"k\": 1}\n{\"k\": 1,}\n");
    let empty = file("empty.jsonl", "\n\n");
    let trial = |docs: &str, more: &[&str]| {
        let mut args = vec!["try", "--docs", docs, "--map", &map, "--reduce", "_sum"];
        args.extend(more);
        args.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let ran = run(&trial(&good, &[]), &[]).await.ok();
    assert_eq!(
        ran.stdout,
        "{\"_id\":\"a\",\"value\":3.0}\n{\"_id\":{\"$date\":\"2020-01-01T00:00:00Z\"},\"value\":5}\n"
    );
    let ran = run(&trial(&good, &["--sample", "2"]), &[]).await.ok();
    assert!(ran.stderr.contains("documents tried: 2"), "{ran:#?}");
    let ran = run(&trial(&good, &["--limit", "1"]), &[]).await.ok();
    assert!(ran.stderr.contains("documents tried: 1"), "{ran:#?}");
    let cases = [
        (trial(&bad, &[]), 2, "line 2 of "),
        (trial(&empty, &[]), 2, "holds no documents"),
        (trial("no such file", &[]), 5, "file no such file not found"),
        (trial(&good, &["-c", "orders"]), 2, "cannot be used with"),
        (trial(&good, &["--query", "{}"]), 2, "cannot be used with"),
        (
            trial(&good, &["--finalize", "no-such-function"]),
            5,
            "function no-such-function not found",
        ),
        (["try", "--map", &map].map(str::to_owned).to_vec(), 2, "--docs"),
    ];
    for (args, code, words) in cases {
        let ran = run(&args, &[]).await;
        assert_eq!(ran.code, code, "{args:?}: {ran:#?}");
        assert!(ran.stderr.contains(words), "{args:?}: {words:?} is missing in {ran:#?}");
    }
    // Numbers of which a reduce makes none.
    let prices = file(
        "prices.jsonl",
        "{\"k\": 1, \"n\": {\"$numberDecimal\": \"1.5\"}}\n{\"k\": 1, \"n\": {\"$numberDecimal\": \"2\"}}\n",
    );
    for (docs, reduce, words) in [
        (&prices, "function (k, v) { return v[0] + v[1]; }", Some("emit value.toNumber()")),
        (&good, "function (k, v) { return v[0] + v.x; }", Some("made NaN of them")),
        (&good, "function (k, v) { return String(v); }", None),
        (&prices, "function (k, v) { return v[0].toNumber() + v.length; }", None),
    ] {
        let args = ["try", "--docs", docs, "--map", &map, "--reduce", reduce, "--no-combine"];
        let ran = run(&args.map(str::to_owned), &[]).await.ok();
        let warned = ran.stderr.contains("are numbers, and your reduce made");
        assert_eq!(warned, words.is_some(), "{reduce}: {ran:#?}");
        assert!(ran.stderr.contains(words.unwrap_or_default()), "{reduce}: {ran:#?}");
    }
    // From standard input.
    let mut child = tokio::process::Command::new(AVIARY)
        .args(trial("-", &["-q"]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"{\"k\": 1, \"n\": 1}\n{\"k\": 1, \"n\": 1}").await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "{\"_id\":1.0,\"value\":2.0}\n");
}
