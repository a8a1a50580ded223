//! The roles of people and clients: nothing can be taken from them either. What they may do is in the table of
//! [`verbs`](crate::verbs).

use bson::Document;

use crate::common::mongosh;
use crate::{DATABASES, OWN, Privilege, aviary, but, functions, make_roles, privileges};
use crate::{refusal, user};

/// What each role is for, as commands; a word in capitals stands for a file or a job.
const USES: [(&str, &[&str]); 2] = [
    (
        "aviary-author",
        &["insert MAP --name flags", "insert EMIT --name flags", "functions rm flags"],
    ),
    ("aviary-view", &["status JOB", "functions list", "REQUESTS"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_privilege_of_an_author_and_of_a_viewer_is_missed() {
    let Some(mongosh) = mongosh().await else { return };
    let bed = crate::bed().await;
    make_roles(&mongosh, bed.set(), &DATABASES).await;
    let fleet = user(bed.set(), "fleet", &[("aviary-fleet", "admin")]).await;
    let [map, emit] = functions(&bed);
    let (map, emit) = (map.to_str().unwrap(), emit.to_str().unwrap());
    let submit = ["submit", "-c", "orders", "--input-db", "shop", "--map", map, "--reduce", "_sum"];
    let job = aviary(&fleet, OWN, &[&submit[..], &["--detach", "-o", "name"]].concat()).await.ok();
    let words = |line: &str| -> Vec<String> {
        let word = |word: &str| match word {
            "MAP" => map.to_owned(),
            "EMIT" => emit.to_owned(),
            "JOB" => job.stdout.trim().to_owned(),
            other => other.to_owned(),
        };
        line.split_whitespace().map(word).collect()
    };
    for (role, uses) in USES {
        let held = privileges(bed.set(), role, OWN).await;
        for left_out in (0..held.len()).rev().chain([usize::MAX]) {
            let name = format!("{role}-{left_out}");
            bed.set().create_role(&name, but(&held, left_out), Vec::new()).await.unwrap();
            // Who removes a function has to be able to see the jobs.
            let jobs = if role == "aviary-author" { "aviary-view-jobs" } else { &name };
            if role == "aviary-author" && left_out == held.len() - 1 {
                let find = Privilege {
                    db: OWN.into(),
                    collection: "aviary".into(),
                    action: "find".into(),
                };
                bed.set().create_role(jobs, vec![find.document()], Vec::new()).await.unwrap();
            }
            let uri = user(bed.set(), &name, &[(&name, "admin"), (jobs, "admin")]).await;
            let mut refused = None;
            for line in uses {
                if refused.is_none() {
                    refused = tried(&uri, &words(line)).await;
                }
            }
            match held.get(left_out) {
                Some(privilege) => {
                    let refused =
                        refused.unwrap_or_else(|| panic!("{role}: {privilege} is not missed"));
                    println!("{role} without {privilege:<48} {refused}");
                }
                None => assert_eq!(refused, None, "{role} as it is made"),
            }
        }
    }
}

/// Runs a verb, or reads the requests; the words that refused it.
async fn tried(uri: &str, words: &[String]) -> Option<String> {
    if words[0] == "REQUESTS" {
        let client = mongodb::Client::with_uri_str(uri).await.unwrap();
        let requests = client.database(OWN).collection::<Document>("aviary-requests");
        return requests.find_one(bson::doc! {}).await.err().map(|error| error.to_string());
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ran = aviary(uri, OWN, &words).await;
    let refused = refusal(&ran.stderr).map(crate::shortened);
    assert_eq!(ran.code == 0, refused.is_none(), "{words:?}: {ran:#?}");
    refused.map(|refused| format!("{}: {refused}", words[0]))
}
