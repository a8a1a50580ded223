//! Running a case on both, and comparing.

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures_util::TryStreamExt;
use mongodb::options::IndexOptions;
use mongodb::{Collection, IndexModel};

use crate::case::{Case, Expect, Ours, Out};
use crate::common::Bed;

/// Of which the results are compared.
type Results = Vec<RawDocumentBuf>;

/// How the two compare.
#[derive(Debug)]
pub enum Found {
    /// The same results, said in a few words.
    Same(String),
    BothRefuse,
    /// Both, as they are; for people.
    Different(String),
    /// Aviary differs, but not in the way that the case says.
    Otherwise(String),
}

/// The database that results go to which go elsewhere.
const ELSEWHERE: &str = "elsewhere";

/// Runs a case on the server and on Aviary.
pub async fn both(bed: &Bed, case: &Case) -> Found {
    let server = prepare(bed, case, "server").await;
    let aviary = prepare(bed, case, "aviary").await;
    let by_server = by_server(bed, case, &server).await;
    let by_aviary = by_aviary(bed, case, &aviary).await;
    if let Expect::Differs(_, expected) = &case.expect
        && let Some(otherwise) = otherwise(expected, &by_aviary)
    {
        return Found::Otherwise(otherwise);
    }
    match (by_server, by_aviary) {
        (Err(_), Err(ours)) => match &case.expect {
            Expect::Fails(words) if !ours.contains(words) => {
                Found::Different(format!("{words:?} is missing in Aviary's {ours}"))
            }
            _ => Found::BothRefuse,
        },
        (Ok(theirs), Ok(ours)) if theirs == ours => {
            let documents = if ours.len() == 1 { "document" } else { "documents" };
            Found::Same(format!("equal, {} {documents}", ours.len()))
        }
        (Ok(theirs), Ok(ours)) => {
            let (server, aviary) = (only(&theirs, &ours), only(&ours, &theirs));
            Found::Different(format!("only by the server:\n{server}only by Aviary:\n{aviary}"))
        }
        (Ok(_), Err(ours)) => Found::Different(format!("only Aviary refuses: {ours}")),
        (Err(theirs), Ok(_)) => Found::Different(format!("only the server refuses: {theirs}")),
    }
}

/// What Aviary did, if it is not what is expected of it.
fn otherwise(expected: &Ours, found: &Result<Results, String>) -> Option<String> {
    match (expected, found) {
        (Ours::Gives(expected), Ok(found)) => {
            let rows = expected.iter().map(|row| RawDocumentBuf::try_from(row).expect("BSON"));
            let expected = in_order(rows.collect());
            let (missing, more) = (only(&expected, found), only(found, &expected));
            // Rows that are there twice are in neither.
            (expected != *found).then(|| {
                format!(
                    "{} rows, {} expected; missing:\n{missing}not expected:\n{more}",
                    found.len(),
                    expected.len()
                )
            })
        }
        (Ours::Refuses(words), Err(error)) if error.contains(words) => None,
        (Ours::Refuses(words), Err(error)) => Some(format!("{words:?} is missing in {error}")),
        (Ours::Gives(_), Err(error)) => Some(format!("it refuses: {error}")),
        (Ours::Refuses(_), Ok(found)) => Some(format!("it gives:\n{}", only(found, &Vec::new()))),
    }
}

/// Some of what one has and the other has not, for people.
fn only(these: &Results, those: &Results) -> String {
    let rows = these.iter().filter(|row| !those.contains(row)).take(5);
    rows.map(|row| format!("{:?}\n", Document::try_from(row.as_ref()))).collect()
}

/// Where one of the two reads and writes.
struct Place {
    input: String,
    db: &'static str,
    target: String,
}

async fn prepare(bed: &Bed, case: &Case, who: &str) -> Place {
    let own = format!("{}-{who}", case.name.replace(' ', "-"));
    let place = match case.out {
        Out::Input(_) => Place { input: own.clone(), db: "test", target: own },
        Out::Elsewhere(_) => {
            bed.grant(ELSEWHERE, &[], &[&own]).await;
            Place { input: case.input.into(), db: ELSEWHERE, target: own }
        }
        Out::Inline | Out::Into(_) | Out::Named => {
            Place { input: case.input.into(), db: "test", target: own }
        }
    };
    if !case.before.is_empty() {
        let target = bed.client.database(place.db).collection::<Document>(&place.target);
        target.insert_many(&case.before).await.expect("written");
        let index = IndexModel::builder()
            .keys(doc! { "value": 1 })
            .options(IndexOptions::builder().name("kept".to_owned()).build());
        target.create_index(index.build()).await.expect("built");
    }
    place
}

/// The command as the server takes it.
fn command(case: &Case, place: &Place) -> Document {
    let mut command = doc! { "mapReduce": &place.input };
    command.extend(case.command.clone());
    if command.contains_key("out") {
        return command;
    }
    let out: Bson = match case.out {
        Out::Inline => doc! { "inline": 1 }.into(),
        Out::Into(mode) | Out::Input(mode) => doc! { mode: &place.target }.into(),
        Out::Elsewhere(mode) => doc! { mode: &place.target, "db": place.db }.into(),
        Out::Named => place.target.as_str().into(),
    };
    command.insert("out", out);
    command
}

/// One at a time: under several, a server of version 6.0 has been seen to crash in its own interpreter.
static SERVER: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn by_server(bed: &Bed, case: &Case, place: &Place) -> Result<Results, String> {
    let _alone = SERVER.lock().await;
    let mut reply = RawDocumentBuf::new();
    for _ in 0..case.times {
        let command = RawDocumentBuf::try_from(&command(case, place)).expect("BSON");
        reply = RawDocumentBuf::try_from(
            bed.db().run_raw_command(command).await.map_err(|error| error.to_string())?,
        )
        .expect("a reply");
    }
    if !matches!(case.out, Out::Inline) {
        return Ok(stored(bed, place.db, &place.target).await);
    }
    let results = reply.get_array("results").map_err(|error| error.to_string())?;
    let row = |row: bson::error::Result<bson::RawBsonRef<'_>>| {
        row.expect("a row").as_document().expect("a document").to_owned()
    };
    Ok(in_order(results.into_iter().map(row).collect()))
}

async fn by_aviary(bed: &Bed, case: &Case, place: &Place) -> Result<Results, String> {
    let text = Bson::Document(command(case, place)).into_canonical_extjson().to_string();
    let file = bed.file(&format!("{}.json", place.target), &text).display().to_string();
    let mut args = vec!["submit", "-q", "-o", "name", "--command", &file];
    args.extend(&case.flags);
    let mut id = String::new();
    for _ in 0..case.times {
        let ran = bed.aviary(&args).await;
        if ran.code != 0 {
            // A crash, or an error that is the program's own, is no refusal.
            assert!(matches!(ran.code, 2 | 3 | 5 | 8), "{}: {ran:#?}", case.name);
            return Err(ran.stderr);
        }
        id = ran.stdout.trim().to_owned();
    }
    match case.out {
        Out::Inline => Ok(stored(bed, "test", &format!("aviary-out-{id}")).await),
        _ => Ok(stored(bed, place.db, &place.target).await),
    }
}

/// A collection's documents, and its indexes' names if it has more than one.
async fn stored(bed: &Bed, db: &str, name: &str) -> Results {
    let collection: Collection<RawDocumentBuf> = bed.client.database(db).collection(name);
    let cursor = collection.find(doc! {}).await.expect("found");
    let mut results = in_order(cursor.try_collect().await.expect("read"));
    let indexes = collection.list_index_names().await.unwrap_or_default();
    if indexes.len() > 1 {
        results.push(RawDocumentBuf::try_from(&doc! { "indexes": indexes }).expect("BSON"));
    }
    results
}

/// Neither promises an order.
fn in_order(mut results: Results) -> Results {
    results.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    results
}
