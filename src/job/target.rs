//! What becomes of the options of a collection that a job writes to. Pure.
//!
//! `replace` puts a new collection in the target's place, so each option is carried over to it, or the target
//! is refused; none is dropped without a word, not even one that a newer server may have invented. The other
//! modes leave the target as it is, and need to know what it takes: the results are held against its validator
//! and its collation before the first of them is merged.

use bson::{Bson, Document, doc};

use super::spec::{Output, OutputMode};
use crate::error::{Error, Result};

/// Whether changes of documents are kept for change streams, since MongoDB 6.0.
const IMAGES: &str = "changeStreamPreAndPostImages";
/// The same before 6.0.
const IMAGES_BEFORE: &str = "recordPreImages";

/// What becomes of an option.
enum Fate {
    /// The collection of the results has it too.
    Kept,
    /// It has no effect, or the target keeps it and no result depends on it.
    Left,
    /// No results go to such a target: what it is or has, and what to do.
    Refused { what: String, hint: &'static str },
}

/// The options that the collection of the results is created with, out of those that `listCollections` tells
/// of the target.
///
/// # Errors
/// [`Error::Refused`] names the option for which the target cannot take the results.
pub fn options_for(output: &Output, options: &Document) -> Result<Document> {
    let mut kept = Document::new();
    for (name, value) in options {
        match fate(output.mode, name, value) {
            Fate::Kept => {
                kept.insert(name, value.clone());
            }
            Fate::Left => {}
            Fate::Refused { what, hint } => {
                let (db, collection) = (&output.db, &output.collection);
                return Err(Error::refused(format!("the output {db}.{collection} {what}"), hint));
            }
        }
    }
    Ok(kept)
}

/// What to change (by `collMod`) of the collection of the results, which has the options `has`, because
/// `replace` is about to put it in the place of a target that by now has the options `now`. Nothing for the
/// other modes.
///
/// # Errors
/// [`Error::Refused`] as [`options_for`], and for a change that comes too late for these results.
pub fn catch_up(output: &Output, has: &Document, now: &Document) -> Result<Document> {
    let wanted = options_for(output, now)?;
    if output.mode != OutputMode::Replace {
        return Ok(Document::new());
    }
    let has = options_for(output, has)?;
    let mut changes = Document::new();
    for name in wanted.keys().chain(has.keys().filter(|name| !wanted.contains_key(name))) {
        if wanted.get(name) == has.get(name) {
            continue;
        }
        let off = match name.as_str() {
            IMAGES => Bson::Document(doc! { "enabled": false }),
            IMAGES_BEFORE => Bson::Boolean(false),
            // Results were written without it, and could be what it does not allow.
            _ => {
                return Err(Error::refused(
                    format!(
                        "the option {name} of the output {}.{} was changed while the job ran",
                        output.db, output.collection
                    ),
                    "nothing was published; submit the job again",
                ));
            }
        };
        changes.insert(name, wanted.get(name).cloned().unwrap_or(off));
    }
    Ok(changes)
}

/// What becomes of one option.
fn fate(mode: OutputMode, name: &str, value: &Bson) -> Fate {
    const ELSEWHERE: &str = "results go to plain collections: name another";
    let refused = |what: &str, hint| Fate::Refused { what: what.to_owned(), hint };
    match name {
        "viewOn" | "pipeline" => refused("is a view", ELSEWHERE),
        "timeseries" => refused("is a time series collection", ELSEWHERE),
        "capped" if is_on(value) => refused("is a capped collection", ELSEWHERE),
        "clusteredIndex" => refused("is a clustered collection", ELSEWHERE),
        "encryptedFields" => refused(
            "has encrypted fields",
            "results are written as they are, unencrypted: name another collection",
        ),
        "temp" if is_on(value) => refused(
            "is a temporary collection, which goes when the server restarts",
            "name another collection",
        ),
        "autoIndexId" if !is_on(value) => {
            refused("has no index of _id", "results are found by their _id: name another")
        }
        "collation" if mode == OutputMode::Reduce => refused(
            "has a collation",
            "reduce cannot tell which results that makes one: name a collection without",
        ),
        // Every result is held against these, whether its collection is renamed or merged.
        "collation" => Fate::Kept,
        "validator" | "validationLevel" | "validationAction" => match mode {
            // What is set is part of a document, which the whole has to satisfy.
            OutputMode::Update => Fate::Left,
            _ => Fate::Kept,
        },
        // Without a capped collection, and for servers since 5.0, these say nothing.
        "capped" | "size" | "max" | "temp" | "autoIndexId" | "flags" => Fate::Left,
        IMAGES | IMAGES_BEFORE if !is_on(value) => Fate::Left,
        // The target keeps whatever else it has.
        _ if mode.adds() => Fate::Left,
        "storageEngine"
        | "indexOptionDefaults"
        | IMAGES
        | IMAGES_BEFORE
        | "recordIdsReplicated" => Fate::Kept,
        _ => Fate::Refused {
            what: format!("has the option {name}, which replacing it would lose"),
            hint: "use merge, which leaves the collection as it is, or name another",
        },
    }
}

/// Whether a flag, or the flag inside of an option, is set.
fn is_on(value: &Bson) -> bool {
    match value {
        Bson::Boolean(on) => *on,
        Bson::Int32(n) => *n != 0,
        Bson::Int64(n) => *n != 0,
        Bson::Double(n) => *n != 0.0,
        Bson::Document(inside) => inside.get("enabled").is_none_or(is_on),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use OutputMode::{Merge, Reduce, Replace, Update};

    use super::*;

    const MODES: [OutputMode; 4] = [Replace, Merge, Reduce, Update];

    fn output(mode: OutputMode) -> Output {
        Output { mode, db: "shop".into(), collection: "totals".into() }
    }

    /// What each mode does with one option: `Ok(true)` carries it over, `Ok(false)` leaves it.
    fn fates(name: &str, value: impl Into<Bson>) -> [std::result::Result<bool, String>; 4] {
        let options = doc! { name: value };
        MODES.map(|mode| match options_for(&output(mode), &options) {
            Ok(kept) if kept.is_empty() => Ok(false),
            Ok(kept) => {
                assert_eq!(kept, options);
                Ok(true)
            }
            Err(error) => Err(error.to_string()),
        })
    }

    #[test]
    fn every_option_is_carried_over_or_refused_by_replace() {
        let kept = [Ok(true), Ok(false), Ok(false), Ok(false)];
        let of_results = [Ok(true), Ok(true), Ok(true), Ok(false)];
        let no_effect = [Ok(false), Ok(false), Ok(false), Ok(false)];
        let on = doc! { "enabled": true };
        for (name, value, expected) in [
            ("changeStreamPreAndPostImages", Bson::from(on), &kept),
            ("recordPreImages", true.into(), &kept),
            ("storageEngine", doc! { "wiredTiger": { "configString": "x" } }.into(), &kept),
            ("indexOptionDefaults", doc! { "storageEngine": {} }.into(), &kept),
            ("recordIdsReplicated", true.into(), &kept),
            ("validator", doc! { "n": { "$gt": 1 } }.into(), &of_results),
            ("validationLevel", "moderate".into(), &of_results),
            ("validationAction", "warn".into(), &of_results),
            ("capped", false.into(), &no_effect),
            ("size", 4_096.into(), &no_effect),
            ("max", 10.into(), &no_effect),
            ("temp", false.into(), &no_effect),
            ("autoIndexId", true.into(), &no_effect),
            ("flags", 1.into(), &no_effect),
            ("changeStreamPreAndPostImages", doc! { "enabled": false }.into(), &no_effect),
            ("recordPreImages", false.into(), &no_effect),
        ] {
            assert_eq!(&fates(name, value), expected, "{name}");
        }
        let [replace, merge, reduce, update] = fates("collation", doc! { "locale": "en" });
        assert_eq!([replace, merge, update], [Ok(true), Ok(true), Ok(true)]);
        assert!(reduce.unwrap_err().contains("has a collation"));
    }

    #[test]
    fn what_cannot_take_results_is_refused_in_every_mode() {
        for (name, value, words) in [
            ("viewOn", Bson::from("orders"), "is a view"),
            ("pipeline", Bson::Array(Vec::new()), "is a view"),
            ("timeseries", doc! { "timeField": "t" }.into(), "is a time series collection"),
            ("capped", true.into(), "is a capped collection"),
            ("capped", 1.into(), "is a capped collection"),
            ("clusteredIndex", true.into(), "is a clustered collection"),
            ("encryptedFields", doc! { "fields": [] }.into(), "has encrypted fields"),
            ("temp", true.into(), "is a temporary collection"),
            ("autoIndexId", false.into(), "has no index of _id"),
        ] {
            for refusal in fates(name, value) {
                let refusal = refusal.expect_err(name);
                let begin = format!("the output shop.totals {words}");
                assert!(refusal.starts_with(&begin) && refusal.contains("; "), "{refusal}");
            }
        }
    }

    #[test]
    fn an_option_of_a_later_server_is_never_lost() {
        for name in ["expireAfterSeconds", "somethingNew"] {
            let [replace, others @ ..] = fates(name, 60);
            let refusal = replace.unwrap_err();
            assert!(refusal.contains(name) && refusal.contains("merge"), "{refusal}");
            assert_eq!(others, [Ok(false), Ok(false), Ok(false)], "the target keeps {name}");
        }
    }

    #[test]
    fn a_target_that_was_changed_meanwhile_is_caught_up_with_or_refused() {
        let (none, off) = (Document::new(), doc! { IMAGES: { "enabled": false } });
        let on = doc! { IMAGES: { "enabled": true } };
        let valid = doc! { "validator": { "n": 1 } };
        let other = doc! { "validator": { "n": 2 } };
        let replace = |has, now| catch_up(&output(Replace), has, now);
        for same in [&none, &on, &off, &valid] {
            assert_eq!(replace(same, same).unwrap(), none);
        }
        assert_eq!(replace(&none, &off).unwrap(), none);
        assert_eq!(replace(&none, &on).unwrap(), on);
        assert_eq!(replace(&on, &none).unwrap(), off);
        assert_eq!(replace(&on, &off).unwrap(), off);
        let old = doc! { IMAGES_BEFORE: true };
        assert_eq!(replace(&none, &old).unwrap(), old);
        for (has, now) in [(&none, &valid), (&valid, &none), (&valid, &other)] {
            let refusal = replace(has, now).unwrap_err().to_string();
            for word in ["validator", "shop.totals", "was changed", "submit the job again"] {
                assert!(refusal.contains(word), "{word:?} is missing: {refusal}");
            }
        }
        let capped = doc! { "capped": true, "size": 4_096 };
        for mode in MODES {
            let refusal = catch_up(&output(mode), &none, &capped).unwrap_err().to_string();
            assert!(refusal.contains("is a capped collection"), "{refusal}");
        }
        assert_eq!(catch_up(&output(Merge), &none, &other).unwrap(), none);
    }
}
