//! What settings are, without any server.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

use bson::{Bson, doc};

use super::*;

/// Two values that a setting takes, as text and as the configuration file has them.
fn samples(setting: &Setting) -> [(String, String); 2] {
    let both = |text: &str, toml: &str| (text.to_owned(), toml.to_owned());
    match setting.kind {
        Kind::Number(least, most) => [least, most].map(|n| both(&n.to_string(), &n.to_string())),
        Kind::Duration(_, most) => [most / 2, most].map(|ms| {
            let text = setting.shown(&Value::Number(ms));
            both(&text, &format!("{text:?}"))
        }),
        Kind::Switch => [both("on", "true"), both("0", "false")],
        Kind::List => [both("a,b", "[\"a\", \"b\"]"), both("c", "\"c\"")],
        Kind::Choice(words) => [words[0], words[1]].map(|w| both(w, &format!("{w:?}"))),
        Kind::Uri => ["mongodb://a/", "mongodb://b/"].map(|w| both(w, &format!("{w:?}"))),
        Kind::Text | Kind::Path | Kind::Filter => {
            ["debug", "info"].map(|w| both(w, &format!("{w:?}")))
        }
    }
}

fn in_file(setting: &Setting, toml: &str) -> Result<file::Values, String> {
    let text = format!("{} = {toml}", setting.key());
    file::read(Path::new("aviary.toml"), &text).map_err(|error| error.to_string())
}

#[test]
fn a_setting_has_one_name_in_all_places() {
    let mut seen = BTreeSet::new();
    for setting in ALL {
        let upper = setting.key().to_ascii_uppercase();
        assert_eq!(setting.variable, format!("AVIARY_{upper}"));
        assert!(seen.insert(setting.name), "{} is there twice", setting.name);
        assert!(!setting.help.is_empty() && !setting.help.ends_with('.'), "{}", setting.name);
        assert!(std::ptr::eq(named(&setting.key()).unwrap(), setting));
    }
    assert!(seen.len() > 30, "{seen:?}");
}

#[test]
fn the_file_takes_every_setting_as_flags_and_variables_do() {
    for setting in ALL.iter().filter(|setting| setting.is_in_file()) {
        for (text, toml) in samples(setting) {
            let as_text = setting.parse(OsStr::new(&text), "here").unwrap().unwrap();
            let values = in_file(setting, &toml).unwrap();
            assert_eq!(values.len(), 1);
            assert!(std::ptr::eq(values[0].0, setting));
            assert_eq!(values[0].1, as_text, "{}", setting.name);
            // What is shown can be given again.
            let again = setting.parse(OsStr::new(&setting.shown(&as_text)), "here");
            assert_eq!(again.unwrap().unwrap(), as_text, "{}", setting.name);
        }
    }
    let config = named(table::CONFIG).unwrap();
    assert!(in_file(config, "\"other.toml\"").unwrap_err().contains("unknown key config"));
}

#[test]
fn the_database_holds_every_setting_of_the_deployment_and_no_other() {
    for setting in ALL {
        let (text, _) = &samples(setting)[1];
        let value = setting.parse(OsStr::new(text), "here").unwrap().unwrap();
        let document = doc! { stored::VALUES: { setting.key(): setting.stored(&value) } };
        let stored = Stored::of(&document);
        let known: Vec<_> = stored.values.iter().map(|(s, v)| (s.name, v.clone())).collect();
        if setting.scope() == Scope::Deployment {
            assert_eq!(known, [(setting.name, value)]);
            assert_eq!(stored.problems, Vec::<String>::new());
        } else {
            assert_eq!(known, []);
            assert!(stored.problems[0].contains("unknown to this version"), "{stored:?}");
        }
    }
}

/// Every set of places, offered in every order that matters, for a setting of each scope.
#[test]
fn the_strongest_place_counts_whatever_else_there_is() {
    for name in ["log", "poll-ms", "split-bytes"] {
        let setting = named(name).unwrap();
        let places = match setting.scope() {
            Scope::Deployment => &Origin::ALL[1..],
            Scope::Client | Scope::Daemon => &Origin::ALL[2..],
        };
        for chosen in 0..1_u32 << places.len() {
            let there: Vec<Origin> = places
                .iter()
                .enumerate()
                .filter(|(n, _)| chosen & 1 << n != 0)
                .map(|(_, origin)| *origin)
                .collect();
            let value = |origin: Origin| match setting.kind {
                Kind::Number(..) => Value::Number(100 + origin as u64),
                _ => Value::Text(origin.as_str().into()),
            };
            for turn in 0..there.len().max(1) {
                for is_reversed in [false, true] {
                    let mut order = there.clone();
                    order.rotate_left(turn);
                    if is_reversed {
                        order.reverse();
                    }
                    let mut all = Chosen::default();
                    for origin in order {
                        all.offer(setting, origin, value(origin));
                    }
                    let strongest = there.last().copied();
                    assert_eq!(all.get(name), strongest.map(value).as_ref(), "{there:?}");
                    assert_eq!(all.origin(name), strongest.unwrap_or(Origin::Default), "{there:?}");
                }
            }
        }
    }
}

#[test]
fn a_daemon_goes_by_what_was_chosen_and_by_the_defaults() {
    use crate::config::Settings;
    assert_eq!(Chosen::default().settings().unwrap(), Settings::default());
    let mut chosen = Chosen::default();
    for (name, text) in [
        ("lease-ttl-ms", "600"),
        ("poll-ms", "5"),
        ("watch", "off"),
        ("split-bytes", "1"),
        ("natural-split-bytes", "2"),
        ("one-task-bytes", "3"),
        ("manifest-bytes", "4"),
        ("kept-bytes", "5"),
        ("retention", "2days"),
        ("cap-query-time", "1min"),
    ] {
        chosen.offer_text(named(name).unwrap(), Origin::Flag, OsStr::new(text)).unwrap();
    }
    let settings = chosen.settings().unwrap();
    let caps = crate::config::Caps {
        query_time_ms: 60_000,
        // No more than the cap on all queries.
        script_time_ms: 60_000,
        ..crate::config::Caps::default()
    };
    let wanted = Settings {
        lease_ttl_ms: 600,
        lease_margin_ms: 100,
        poll_ms: 5,
        watch: false,
        split_bytes: 1,
        natural_split_bytes: 2,
        one_task_bytes: 3,
        manifest_bytes_max: 4,
        kept_bytes_max: 5,
        retention: std::time::Duration::from_secs(2 * 86_400),
        caps,
    };
    assert_eq!(settings, wanted);
    let script = named("cap-script-time").unwrap();
    chosen.offer_text(script, Origin::Variable, OsStr::new("2min")).unwrap();
    let refused = chosen.settings().unwrap_err().to_string();
    assert!(refused.contains("AVIARY_CAP_SCRIPT_TIME 2m is above what is allowed at all, 1m"));
}

#[test]
fn what_is_wrong_is_told_with_the_place_and_what_is_allowed() {
    let told = |name: &str, origin: Origin, text: &str| {
        let setting = named(name).unwrap();
        let place = origin.place(setting, Some(Path::new("aviary.toml")));
        setting.parse(OsStr::new(text), &place).unwrap_err().to_string()
    };
    for (name, origin, text, words) in [
        (
            "split-bytes",
            Origin::Flag,
            "many",
            "--split-bytes must be a whole number from 1 to 1125899906842624, not \"many\"",
        ),
        ("split-bytes", Origin::Variable, "", "AVIARY_SPLIT_BYTES must be a whole number"),
        (
            "split-bytes",
            Origin::Variable,
            "0",
            "AVIARY_SPLIT_BYTES 0 is below what is allowed at all, 1",
        ),
        (
            "lease-ttl-ms",
            Origin::Database,
            "599",
            "lease_ttl_ms in the database's settings 599 is below",
        ),
        (
            "retention",
            Origin::Flag,
            "7",
            "--retention must be a number with a unit, like 10s or 5m, from 1day to 365days",
        ),
        ("retention", Origin::Flag, "2h", "--retention 2h is below what is allowed at all, 1day"),
        ("watch", Origin::File, "maybe", "watch in aviary.toml must be on or off"),
        (
            "output",
            Origin::Flag,
            "jsn",
            "--output must be one of table, wide, json, name, not \"jsn\"",
        ),
    ] {
        let said = told(name, origin, text);
        assert!(said.contains(words), "{said}");
    }
    // Nobody sees a password for having put it into the wrong place.
    for name in ["uri", "split-bytes", "output"] {
        let setting = named(name).unwrap();
        let wrong = Bson::Array(vec!["mongodb://u:s3cret@h/".into()]);
        let said = setting.typed(&wrong, "here").unwrap_err().to_string();
        assert!(!said.contains("s3cret"), "{said}");
    }
    assert!(!told("split-bytes", Origin::Flag, "mongodb://u:s3cret@h/").contains("s3cret"));
}

#[test]
fn the_file_says_what_is_wrong_in_it() {
    let read = |text: &str| file::read(Path::new("f.toml"), text).unwrap_err().to_string();
    for (text, words) in [
        ("split_byte = 5", "unknown key split_byte; did you mean split_bytes?"),
        ("split-bytes = 5", "unknown key split-bytes; did you mean split_bytes?"),
        ("lease_ttl = 5", "did you mean lease_ttl_ms?"),
        ("entirely_else = 5", "unknown key entirely_else; aviary config show"),
        ("split_bytes = \"5\"", "split_bytes in f.toml must be a whole number from 1"),
        ("split_bytes = -5", "split_bytes in f.toml must be a whole number from 1"),
        ("split_bytes = 0", "split_bytes in f.toml 0 is below"),
        ("watch = \"on\"", "watch in f.toml must be on or off"),
        ("db = 5", "db in f.toml must be names"),
        ("retention = 5", "retention in f.toml must be a number with a unit"),
        ("retention = \"400days\"", "retention in f.toml 400days is above"),
        ("trust_databases = [1]", "trust_databases in f.toml must be names"),
        ("[split_bytes]", "split_bytes in f.toml must be a whole number"),
        ("db = ", "f.toml is not a configuration"),
        ("\"mongodb://u:s3cret@h\" = 1", "unknown key; aviary config show"),
    ] {
        let said = read(text);
        assert!(said.contains(words), "{text}: {said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
}

#[test]
fn of_a_document_that_anybody_may_have_written_only_what_is_valid_counts() {
    for values in [Bson::Null, "lots".into(), 5.into(), vec![1, 2].into()] {
        let stored = Stored::of(&doc! { stored::VALUES: values });
        assert!(stored.values.is_empty());
        assert!(stored.problems[0].contains("aviary config set"), "{stored:?}");
    }
    assert!(Stored::of(&doc! {}).problems.is_empty());
    let stored = Stored::of(&doc! { stored::VALUES: {
        "split_bytes": 4096.0,
        "lease_ttl_ms": 1,
        "kept_bytes": f64::NAN,
        "retention": 5,
        "manifest_bytes": -1,
        "one_task_bytes": { "$gt": 0 },
        "other": 1,
    } });
    let known: Vec<_> = stored.values.iter().map(|(s, v)| (s.name, v.clone())).collect();
    assert_eq!(known, [("split-bytes", Value::Number(4096))]);
    assert_eq!(stored.problems.len(), 6, "{stored:?}");
    let lease = &stored.problems[0];
    assert!(lease.contains("lease_ttl_ms in the database's settings 1 is below"), "{lease}");
    assert!(lease.contains("aviary config unset lease-ttl-ms"), "{lease}");
}

#[test]
fn a_daemon_learns_from_its_database_what_it_was_not_told_itself() {
    let mut own = Chosen::default();
    own.offer(named("lease-ttl-ms").unwrap(), Origin::Variable, Value::Number(3_000));
    let live = Live::new(own).unwrap();
    let other = live.clone();
    live.learn(&Stored::of(&doc! { stored::VALUES: { "lease_ttl_ms": 5_000, "split_bytes": 9 } }));
    assert_eq!((other.now().lease_ttl_ms, other.now().split_bytes), (3_000, 9));
    // What is no longer there has its default again.
    live.learn(&Stored::default());
    assert_eq!(other.now().split_bytes, crate::config::SPLIT_BYTES_TARGET);
}
