//! Running a case on the server and on Aviary.

use bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, doc, rawdoc};
use futures_util::TryStreamExt;
use mongodb::Collection;

use crate::cases::{Job, Out, What};
use crate::common::{Bed, Ran};

/// How the two compare.
#[derive(Debug)]
pub enum Outcome {
    Same,
    /// With Aviary's words.
    BothRefuse(String),
    /// The server refuses, or its reference has none.
    OnlyOurs,
    /// Aviary refuses, with these words.
    OnlyTheirs(String),
    Differs(String),
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Same => f.write_str("the same"),
            Self::BothRefuse(ours) => write!(f, "that both refuse, Aviary with {ours}"),
            Self::OnlyOurs => f.write_str("that only Aviary gives something"),
            Self::OnlyTheirs(ours) => write!(f, "that only Aviary refuses, with {ours}"),
            Self::Differs(how) => write!(f, "a difference: {how}"),
        }
    }
}

type Results = Result<Vec<RawDocumentBuf>, String>;

/// The collections of one case.
pub struct Place<'a> {
    pub bed: &'a Bed,
    pub name: String,
}

impl Place<'_> {
    pub async fn run(&self, what: &What) -> Outcome {
        match what {
            What::Job(job) => compare(self.by_server(job).await, self.by_aviary(job).await),
            What::Tried { job, words } => self.tried(job, words).await,
            What::Extreme { .. } | What::Printed { .. } | What::Read { .. } => {
                unreachable!("these are run together")
            }
        }
    }

    fn raw(&self, name: &str) -> Collection<RawDocumentBuf> {
        self.bed.db().collection(name)
    }

    /// A collection with these options and documents, and nothing else.
    async fn fill(&self, name: &str, options: &Document, documents: &[RawDocumentBuf]) {
        self.raw(name).drop().await.expect("dropped");
        let mut create = doc! { "create": name };
        create.extend(options.clone());
        self.bed.db().run_command(create).await.expect("created");
        if documents.is_empty() {
            return;
        }
        // The driver's own insert reads each _id, which here need not be UTF-8.
        let mut all = RawArrayBuf::new();
        documents.iter().for_each(|document| all.push(document.clone()));
        let insert = rawdoc! { "insert": name, "documents": all };
        let reply = self.bed.db().run_raw_command(insert).await.expect("an answer");
        assert!(!reply.contains_key("writeErrors"), "{name}: {reply}");
    }

    async fn prepare(&self, job: &Job, who: &str) -> (String, String) {
        let (input, target) = (self.name.clone(), format!("{}_{who}", self.name));
        self.fill(&input, &job.options, &job.documents).await;
        if !job.before.is_empty() || !job.target_options.is_empty() {
            self.fill(&target, &job.target_options, &job.before).await;
        }
        (input, target)
    }

    async fn by_server(&self, job: &Job) -> Results {
        let (input, target) = self.prepare(job, "server").await;
        if let Some((matched, others)) = job.out.merges() {
            return self.merged_by_server(job, &input, &target, matched, others).await;
        }
        let out: Bson = match job.out {
            Out::Inline => doc! { "inline": 1 }.into(),
            Out::Into(mode) => doc! { mode: &target }.into(),
            Out::Update | Out::Merge => unreachable!("merged above"),
        };
        let mut command = doc! {
            "mapReduce": &input,
            "map": Bson::JavaScriptCode(job.map.clone()),
            "reduce": Bson::JavaScriptCode(job.server_reduce.clone()),
            "out": out,
        };
        command.extend(job.query.clone().map(|query| ("query".to_owned(), Bson::Document(query))));
        command.extend(
            job.collation.clone().map(|locale| ("collation".to_owned(), Bson::Document(locale))),
        );
        let command = RawDocumentBuf::try_from(&command).expect("BSON");
        let reply = self.bed.db().run_raw_command(command).await.map_err(|e| e.to_string())?;
        match job.out {
            Out::Inline => {
                let reply = RawDocumentBuf::try_from(reply).expect("a reply");
                let rows = reply.get_array("results").map_err(|e| e.to_string())?;
                let row = |row: bson::error::Result<bson::RawBsonRef<'_>>| {
                    row.expect("a row").as_document().expect("a document").to_owned()
                };
                Ok(in_order(rows.into_iter().map(row).collect()))
            }
            _ => Ok(self.stored(&target).await),
        }
    }

    /// What `$merge` makes of documents that a pipeline made: the reference where there is no reduce.
    async fn merged_by_server(
        &self,
        job: &Job,
        input: &str,
        target: &str,
        matched: &str,
        others: &str,
    ) -> Results {
        let merge = doc! { "$merge": {
            "into": target, "on": "_id", "whenMatched": matched, "whenNotMatched": others,
        } };
        let mut pipeline = job.pipeline.clone();
        pipeline.push(merge);
        let cursor = self.raw(input).aggregate(pipeline).await.map_err(|e| e.to_string())?;
        let _: Vec<Document> = cursor.try_collect().await.map_err(|e| e.to_string())?;
        Ok(self.stored(target).await)
    }

    async fn by_aviary(&self, job: &Job) -> Results {
        let (input, target) = self.prepare(job, "aviary").await;
        let out = match job.out {
            Out::Inline => "inline".to_owned(),
            Out::Into(mode) => format!("{mode}:{target}"),
            Out::Update => format!("update:{target}"),
            Out::Merge => format!("merge:{target}"),
        };
        let mut args = self.flags(job, &input);
        args.extend(["--out".into(), out]);
        let mut submit: Vec<String> = ["submit", "-q", "-o", "name"].map(str::to_owned).to_vec();
        submit.append(&mut args);
        let ran = self.bed.aviary(&submit).await;
        if ran.code != 0 {
            // A crash, or an error of the program's own, is no refusal.
            assert!(matches!(ran.code, 2 | 3 | 5 | 8), "{ran:#?}");
            return Err(ran.stderr);
        }
        match job.out {
            Out::Inline => Ok(self.stored(&format!("aviary-out-{}", ran.stdout.trim())).await),
            _ => Ok(self.stored(&target).await),
        }
    }

    fn flags(&self, job: &Job, input: &str) -> Vec<String> {
        let mut args: Vec<String> = ["-c", input, "--map", &job.map].map(str::to_owned).to_vec();
        if job.out.merges().is_none() {
            args.extend(["--reduce".into(), job.reduce.clone()]);
        }
        if let Some(query) = &job.query {
            let text = Bson::Document(query.clone()).into_canonical_extjson().to_string();
            let file = self.bed.file(&format!("{}.json", self.name), &text);
            args.extend(["--query".into(), file.display().to_string()]);
        }
        if let Some(collation) = &job.collation {
            let text = Bson::Document(collation.clone()).into_relaxed_extjson().to_string();
            args.extend(["--collation".into(), text]);
        }
        args.extend(job.flags.iter().map(|flag| (*flag).to_owned()));
        args
    }

    async fn stored(&self, name: &str) -> Vec<RawDocumentBuf> {
        let cursor = self.raw(name).find(doc! {}).await.expect("found");
        in_order(cursor.try_collect().await.expect("read"))
    }

    /// `_min` or `_max` of each set of values, beside `$min` and `$max`. A number that JavaScript has read is a double.
    pub async fn extremes(&self, sets: &[&[Option<Bson>]], builtin: &str) -> Vec<Outcome> {
        let mut documents = Vec::new();
        for (set, values) in (0_i32..).zip(sets) {
            for value in *values {
                let mut document = doc! { "set": set };
                document.extend(value.clone().map(|value| ("v".to_owned(), value)));
                documents.push(RawDocumentBuf::try_from(&document).expect("BSON"));
            }
        }
        self.fill(&self.name, &doc! {}, &documents).await;
        let operator = format!("${}", builtin.trim_start_matches('_'));
        let group = doc! { "$group": { "_id": "$set", "value": { operator: "$v" } } };
        let order = doc! { "$sort": { "_id": 1 } };
        let theirs = self.bed.coll(&self.name).aggregate(vec![group, order]).await;
        let theirs: Vec<Document> = theirs.expect("grouped").try_collect().await.expect("read");
        let job = Job {
            reduce: builtin.into(),
            ..Job::new("function () { emit(this.set, this.v); }", "")
        };
        let mut args = vec!["submit".to_owned(), "-q".into(), "-o".into(), "name".into()];
        args.extend(self.flags(&job, &self.name));
        let id = self.bed.aviary(&args).await.ok().stdout;
        let ours = self.bed.all(&format!("aviary-out-{}", id.trim())).await;
        assert_eq!((theirs.len(), ours.len()), (sets.len(), sets.len()));
        let as_read = |row: &Document| match row.get("value") {
            Some(Bson::Int32(n)) => Bson::Double(f64::from(*n)),
            // No value is null.
            None | Some(Bson::Undefined) => Bson::Null,
            Some(other) => other.clone(),
        };
        let compare = |(theirs, ours)| {
            let (theirs, ours) = (as_read(theirs), as_read(ours));
            match format!("{theirs:?}") == format!("{ours:?}") {
                true => Outcome::Same,
                false => Outcome::Differs(format!("the server gives {theirs:?}, Aviary {ours:?}")),
            }
        };
        theirs.iter().zip(&ours).map(compare).collect()
    }

    /// Values on their way through a job, printed by `results`, read by `try --docs`, printed again.
    pub async fn printed(&self, values: &[(&RawDocumentBuf, &str)]) -> Vec<Outcome> {
        let documents: Vec<_> = values.iter().map(|(value, _)| (*value).clone()).collect();
        self.fill(&self.name, &doc! {}, &documents).await;
        let map = "function () { emit(this._id, this); }";
        let lines = self.bed.aviary(&["submit", "-q", "-c", &self.name, "--map", map]).await.ok();
        let file = self.bed.file(&format!("{}.jsonl", self.name), &lines.stdout);
        let file = file.display().to_string();
        let again = self.bed.aviary(&["try", "-q", "--docs", &file, "--map", map]).await.ok();
        let (lines, again) = (lines.stdout.lines(), again.stdout);
        let mut again = again.lines();
        let mut outcomes = Vec::new();
        for ((_, text), line) in values.iter().zip(lines) {
            let again = again.next();
            outcomes.push(match line == *text && again == Some(line) {
                true => Outcome::Same,
                false => Outcome::Differs(format!(
                    "expected {text}, printed {line}, read back as {again:?}"
                )),
            });
        }
        assert_eq!(outcomes.len(), values.len());
        outcomes
    }

    /// Lines of extended JSON, as `try --docs` reads them.
    pub async fn read(&self, lines: &[(&str, &str)]) -> Vec<Outcome> {
        let text: String = lines.iter().map(|(line, _)| format!("{line}\n")).collect();
        let file = self.bed.file(&format!("{}.jsonl", self.name), &text).display().to_string();
        let map = "function () { emit(1, this.v); }";
        let ran = self.bed.aviary(&["try", "-q", "--docs", &file, "--map", map]).await.ok();
        let mut found = ran.stdout.lines();
        let compare = |(_, text): &(&str, &str)| {
            let expected = format!(r#"{{"_id":1.0,"value":{text}}}"#);
            match found.next() {
                Some(line) if line == expected => Outcome::Same,
                other => Outcome::Differs(format!("expected {expected}, found {other:?}")),
            }
        };
        lines.iter().map(compare).collect()
    }

    /// What `try` says of a reduce; nothing where there are no words.
    async fn tried(&self, job: &Job, words: &str) -> Outcome {
        self.fill(&self.name, &job.options, &job.documents).await;
        let mut args = vec!["try".to_owned()];
        args.extend(self.flags(job, &self.name));
        let Ran { code, stderr, .. } = self.bed.aviary(&args).await;
        let is_right = match words {
            "" => !stderr.contains("warning"),
            words => stderr.contains(words),
        };
        match code == 0 && is_right {
            true => Outcome::Same,
            false => Outcome::Differs(format!("{words:?} is not what it says: {stderr}")),
        }
    }
}

fn compare(theirs: Results, ours: Results) -> Outcome {
    match (theirs, ours) {
        (Ok(theirs), Ok(ours)) if theirs == ours => Outcome::Same,
        (Ok(theirs), Ok(ours)) => Outcome::Differs(format!("server {theirs:?}\nAviary {ours:?}")),
        (Err(_), Err(ours)) => Outcome::BothRefuse(ours),
        (Err(_), Ok(_)) => Outcome::OnlyOurs,
        (Ok(_), Err(ours)) => Outcome::OnlyTheirs(ours),
    }
}

/// Neither promises an order.
fn in_order(mut results: Vec<RawDocumentBuf>) -> Vec<RawDocumentBuf> {
    results.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    results
}
