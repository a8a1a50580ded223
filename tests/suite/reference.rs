//! The pages of `docs/reference` name what there is, and only that: fields of documents, settings, flags, states and
//! codes. What counts is the first column of a table, in the section where the name belongs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use aviary::job::{JobState, authority::GRANTS, spec::HIDDEN_PREFIX};
use aviary::request::{REQUESTS, TENANT_PREFIX};
use aviary::settings::{ALL, Group};
use aviary::store::failed::FAILED;
use aviary::store::{AVIARY, FUNCTIONS, INTERMEDIATES};
use aviary::task::{TaskState, counters};

type Names = BTreeSet<String>;

/// Where the fields of each struct are described that serde writes into a document.
const STRUCTS: &str = "Job: Job, RequestRef: Where a job came from, JobSpec: Job specification, Input: Input, \
    FunctionRef: Function of a job, Output: Output, Limits: Limits of a job, Results: Results of a job, \
    JobError: Job error, Task: Task, Split: Split, Range: Range, TaskResult: Task result, PartManifest: Part, \
    KeptBlock: Kept block, Publish: Published, Marks: Published, Waiting: Waiting, LogBatch: Log, LogLine: Log line, \
    WorkerRow: Worker, Asked: Request, InputWish: Input of a request, FunctionWish: Function of a request, \
    Built: Build of a module, SourceWish: Build of a module, OutWish: Output of a request, \
    LimitsWish: Limits of a request, Problem: Problem, StoredFunction: Function, SourceFile: Source file, \
    Chunk: Chunk, FunctionName: Name, NameVersion: Name, Grant: Grant";
/// Fields that are written by hand: the file, where they begin there, and their section.
const BY_HAND: &str = "blocks.rs: pub(super) fn block_document: Block, leases/expressions.rs: fn closed_attempt: Attempt, \
    coordinator_role.rs: async fn try_role: Role of the coordinator, leases.rs: pub async fn confirm: Task, \
    turns.rs: async fn begin_turn: Turn of a target, jobs.rs: let tombstone: Removed job, \
    mod.rs: pub async fn cluster_time: Clock, workers.rs: pub async fn worker_alive: Worker, \
    capabilities.rs: pub fn document: Capabilities, settings.rs: async fn change_settings: Settings, \
    failed/record.rs: pub fn to_document: Failed record";
/// Verbs that `--help` does not list.
const HIDDEN: [&str; 2] = ["assemble", "compile-module"];

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{ROOT}/{path}")).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Every source file below a directory, without tests.
fn sources(dir: &str) -> Vec<String> {
    let files = crate::files::below(&Path::new(ROOT).join(dir), "rs", &|name| name == "tests");
    let files = files.into_iter().filter(|file| !file.ends_with("tests.rs"));
    files.map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

/// What stands between backticks in the first column of tables, under headings that `heading` takes.
fn rows(page: &str, heading: impl Fn(&str) -> bool) -> Names {
    let mut inside = false;
    let mut found = Names::new();
    for line in page.lines() {
        if line.starts_with('#') {
            inside = heading(line.trim_start_matches('#').trim());
        } else if inside && line.starts_with('|') {
            let cell = line.split('|').nth(1).unwrap();
            found.extend(cell.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

fn section(page: &str, heading: &str) -> Names {
    rows(page, |here| here == heading)
}

/// Each second piece of a text that is cut at quotation marks.
fn quoted(text: &str) -> impl Iterator<Item = String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned)
}

fn has_all<T: AsRef<str>>(described: &Names, wanted: impl IntoIterator<Item = T>, of: &str) {
    let wanted: Names = wanted.into_iter().map(|name| name.as_ref().to_owned()).collect();
    assert!(!wanted.is_empty(), "{of}: nothing is looked for");
    let missing = &wanted - described;
    assert!(missing.is_empty(), "{of}: not described: {missing:?}");
}

/// `twoWords` of `two_words`.
fn camel(name: &str) -> String {
    let (first, rest) = name.split_once('_').unwrap_or((name, ""));
    rest.split('_').filter(|word| !word.is_empty()).fold(first.to_owned(), |all, word| {
        format!("{all}{}{}", word[..1].to_ascii_uppercase(), &word[1..])
    })
}

/// The structs that serde writes, with their fields as documents have them.
fn structs(source: &str) -> BTreeMap<String, Names> {
    let mut found = BTreeMap::<String, Names>::new();
    let (mut is_written, mut is_camel, mut is_flat) = (false, false, false);
    let (mut open, mut renamed): (Option<String>, Option<&str>) = (None, None);
    for line in source.lines() {
        let text = line.trim();
        let bare = ["pub ", "pub(super) "].iter().find_map(|seen| text.strip_prefix(seen));
        let bare = bare.unwrap_or(text);
        if text.starts_with("#[derive(") {
            (is_written, is_camel) = (text.contains("Serialize"), false);
        } else if let Some(name) = bare.strip_prefix("struct ").filter(|_| text.ends_with('{')) {
            open = Some(name.replace([' ', '{'], ""));
            // One is a row of a listing, and no document.
            open = open.filter(|name| is_written && name != "FunctionRow");
        } else if line == "}" {
            (open, is_written) = (None, false);
        } else if text.starts_with("#[serde(") {
            is_camel |= text.contains("rename_all = \"camelCase\"");
            is_flat |= text.contains("flatten");
            renamed = text.split("rename = \"").nth(1).and_then(|rest| rest.split('"').next());
        } else if let (Some(open), Some((name, _))) = (&open, bare.split_once(": "))
            && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            && !std::mem::take(&mut is_flat)
        {
            let as_is = if is_camel { camel(name) } else { name.to_owned() };
            let name = renamed.take().map_or(as_is, str::to_owned);
            found.entry(open.clone()).or_default().insert(name);
        }
    }
    found
}

/// Words of capitals, digits and underscores that begin with `AVIARY_`.
fn variables(text: &str) -> Names {
    let words = text.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
    // One is a constant in the source of functions.
    let ours = words.filter(|word| word.starts_with("AVIARY_") && *word != "AVIARY_SUMS");
    ours.map(str::to_owned).collect()
}

/// The cells of the rows of tables.
fn cells(page: &str) -> Vec<Vec<String>> {
    let rows = page.lines().filter(|line| line.starts_with('|'));
    rows.map(|row| row.split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

fn long(text: &str) -> Names {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '-'));
    words.filter(|word| word.starts_with("--") && word.len() > 3).map(str::to_owned).collect()
}

/// The long flags and the verbs that the help of a verb lists: descriptions are indented more.
fn help(verb: &str) -> (Names, Vec<String>) {
    let mut aviary = Command::new(env!("CARGO_BIN_EXE_aviary"));
    let ran = aviary.args(verb.split_whitespace()).arg("--help").output().unwrap();
    assert!(ran.status.success(), "aviary {verb} --help");
    let text = String::from_utf8(ran.stdout).unwrap();
    let (verbs, rest) = text.split_once("\n\nOptions:").unwrap();
    let heads = rest.lines().filter(|line| !line.starts_with("       ") && line.contains(" -"));
    let verbs = verbs.split_once("Commands:\n").map_or("", |(_, verbs)| verbs).lines();
    let verbs = verbs.filter(|line| !line.starts_with("   ") && !line.contains("  help "));
    let verbs = verbs.map(|line| format!("{verb} {}", line.split_whitespace().next().unwrap()));
    (heads.flat_map(long).collect(), verbs.collect())
}

#[test]
fn every_field_of_every_document_is_described() {
    let documents = read("docs/reference/documents.md");
    let mut described = Names::new();
    let mut check = |heading: &str, fields: Names, of: &str| {
        described.extend(section(&documents, heading));
        has_all(&section(&documents, heading), fields, of);
    };
    let mut headings: BTreeMap<&str, &str> =
        STRUCTS.split(", ").map(|row| row.split_once(": ").unwrap()).collect();
    for source in ["src/job", "src/task", "src/request", "src/store"].map(sources).concat() {
        for (name, fields) in structs(&source) {
            let heading = headings.remove(name.as_str());
            check(heading.unwrap_or_else(|| panic!("{name} has no section")), fields, &name);
        }
    }
    assert!(headings.is_empty(), "structs that are no more: {headings:?}");
    for row in BY_HAND.split(", ") {
        let row: Vec<&str> = row.split(": ").collect();
        let (source, begin) = (read(&format!("src/store/{}", row[0])), row[1]);
        let (_, body) = source.split_once(begin).unwrap_or_else(|| panic!("{begin} is no more"));
        let body = body.lines().take_while(|line| !["}", "};", "} };"].contains(&line.trim()));
        let body = String::from_iter(body);
        let words: Vec<&str> = body.split('"').collect();
        let keys = words.windows(2).skip(1).step_by(2).filter(|pair| pair[1].starts_with(':'));
        let keys = keys.map(|pair| pair[0].to_owned()).filter(|key| !key.starts_with('$'));
        check(row[2], keys.collect(), begin);
    }
    let requests = read("src/store/requests.rs");
    let (_, answer) = requests.split_once("ANSWER_FIELDS: [&str; 7] =").unwrap();
    check("Answer", quoted(answer.split(';').next().unwrap()).collect(), "an answer");
    let counted = counters::BUILT_IN.into_iter().chain(counters::AT_TIMES);
    check("Counters", counted.map(str::to_owned).collect(), "counters");
    // The other way: what is described is in the sources.
    let all = sources("src").concat();
    for field in described {
        let is_there = all.contains(&format!("\"{field}\"")) || all.contains(&format!("{field}: "));
        assert!(is_there, "{field} is in no source");
    }
    let (tenants, hidden) = (format!("{TENANT_PREFIX}TENANT"), format!("{HIDDEN_PREFIX}JOB"));
    let ours = [AVIARY, FUNCTIONS, INTERMEDIATES, FAILED, REQUESTS, GRANTS, &tenants, &hidden];
    has_all(&section(&documents, "Documents"), ours, "collections");
    let schema = read("src/store/schema.rs");
    for kind in schema.lines().filter(|line| line.contains("\"enum\": [")).flat_map(quoted) {
        let is_there = kind == "enum" || documents.contains(&format!("`{kind}`"));
        assert!(is_there, "the kind {kind} is not described");
    }
}

#[test]
fn every_setting_is_described_with_all_its_names_and_its_default() {
    let described = cells(&read("docs/reference/settings.md"));
    let helps =
        ["", " worker", " coordinator", " init", " config show"].map(help).map(|(all, _)| all);
    let [every, worker, coordinator, init, show] = &helps;
    for setting in ALL {
        let flag = format!("`--{}`", setting.name);
        let key = if setting.is_in_file() { format!("`{}`", setting.key()) } else { "–".into() };
        let row = [flag, format!("`{}`", setting.variable), key, setting.shown_default()];
        let found = described.iter().filter(|cells| cells.len() == 7 && cells[1..5] == row);
        assert_eq!(found.count(), 1, "{row:?} is described once");
        // And it is a flag of whoever uses it.
        let verbs = match setting.group {
            Group::Global | Group::Rare => vec![every, worker, coordinator, init, show],
            Group::Daemons | Group::Caps => vec![worker, coordinator, show],
            Group::Worker => vec![worker, show],
            Group::Deployment => vec![worker, coordinator, init, show],
        };
        assert!(verbs.iter().all(|flags| flags.contains(&setting.flag())), "{}", setting.name);
    }
}

#[test]
fn every_environment_variable_is_described() {
    let settings = read("docs/reference/settings.md");
    let mut described = section(&settings, "Environment variables");
    described.extend(ALL.iter().map(|setting| setting.variable.to_owned()));
    let ours = variables(&sources("src").concat());
    has_all(&described, &ours, "variables");
    let all = variables(&sources("testcontainers/src").concat());
    has_all(&(&ours | &all), variables(&settings), "variables that are in no source");
}

#[test]
fn every_flag_of_every_verb_is_described() {
    let settings = read("docs/reference/settings.md");
    let (mut there, top) = help("");
    let mut verbs: Vec<String> = top.iter().flat_map(|verb| help(verb).1).collect();
    verbs.extend(top.into_iter().chain(HIDDEN.map(|verb| format!(" {verb}"))));
    assert!(verbs.len() > 20, "{verbs:?}");
    for verb in verbs {
        let first = verb.split_whitespace().next().unwrap();
        let named = [format!("`aviary {first}`"), format!("`aviary {first} ")];
        let of_verb = |here: &str| {
            here == "Every verb"
                || here == "Settings of the deployment"
                    && ["coordinator", "worker", "init", "config"].contains(&first)
                || here == "Hidden verbs" && HIDDEN.contains(&first)
                || named.iter().any(|name| here.contains(name))
        };
        let cells = Vec::from_iter(rows(&settings, of_verb)).join(" ");
        let (found, _) = help(&verb);
        has_all(&long(&cells), &found, &format!("aviary{verb}"));
        there.extend(found);
    }
    has_all(&there, long(&settings), "flags that no verb has");
}

#[test]
fn every_state_and_every_code_is_described() {
    let documents = read("docs/reference/documents.md");
    has_all(&section(&documents, "Job states"), JobState::ALL.map(JobState::as_str), "jobs");
    has_all(&section(&documents, "Task states"), TaskState::ALL.map(TaskState::as_str), "tasks");
    let (codes, source) = (read("docs/reference/exit-codes.md"), read("src/error.rs"));
    let body = |begin: &str| {
        let (_, body) = source.split_once(begin).unwrap();
        body.split_once("\n    }\n").unwrap().0
    };
    let exits = body("pub fn exit_code").split("=> ").filter_map(|rest| rest.split(',').next());
    let exits = exits.filter(|exit| exit.parse::<u8>().is_ok()).chain(["0"]).map(str::to_owned);
    assert_eq!(section(&codes, "Exit codes"), exits.collect());
    let words = quoted(body("pub fn code")).chain(["worker_lost".to_owned()]);
    has_all(&section(&codes, "Error codes"), words, "codes");
}
