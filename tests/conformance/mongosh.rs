//! Commands as they are typed into mongosh, given to `aviary submit --command` as they are.

use bson::{Bson, Document, doc};

use crate::common::{Bed, Ran};
use crate::data;

/// From the manual, with `db.runCommand(` taken away and nothing else changed.
const CUSTOMER_TOTALS: &str = "
{
  mapReduce: \"orders\",
  map: function() { emit(this.cust_id, this.price); },
  reduce: function(keyCustId, valuesPrices) { return Array.sum(valuesPrices); },
  out: \"map_reduce_example\"
}";

/// From the manual, as the script it is there.
const ORDER_STATISTICS: &str = r#"
var mapFunction2 = function() {
    for (var idx = 0; idx < this.items.length; idx++) {
       var key = this.items[idx].sku;
       var value = { count: 1, qty: this.items[idx].qty };

       emit(key, value);
    }
};

var reduceFunction2 = function(keySKU, countObjVals) {
   reducedVal = { count: 0, qty: 0 };

   for (var idx = 0; idx < countObjVals.length; idx++) {
       reducedVal.count += countObjVals[idx].count;
       reducedVal.qty += countObjVals[idx].qty;
   }

   return reducedVal;
};

var finalizeFunction2 = function (key, reducedVal) {
  reducedVal.avg = reducedVal.qty/reducedVal.count;
  return reducedVal;
};

db.orders.mapReduce(
   mapFunction2,
   reduceFunction2,
   {
     out: { merge: "map_reduce_example2" },
     query: { ord_date: { $gte: new Date("2020-03-01") } },
     finalize: finalizeFunction2
   }
 );
"#;

struct Shell {
    bed: Bed,
}

impl Shell {
    async fn submit(&self, command: &str, more: &[&str]) -> Ran {
        self.bed.aviary(&[&["submit", "--command", command], more].concat()).await
    }

    async fn totals(&self, command: &str, more: &[&str]) {
        self.bed.coll("map_reduce_example").drop().await.unwrap();
        self.submit(command, more).await.ok();
        let totals: Vec<(String, f64)> = self
            .bed
            .all("map_reduce_example")
            .await
            .iter()
            .map(|row| (row.get_str("_id").unwrap().to_owned(), row.get_f64("value").unwrap()))
            .collect();
        let expected =
            [("Ant O. Knee", 95.0), ("Busby Bee", 125.0), ("Cam Elot", 60.0), ("Don Quis", 155.0)];
        assert_eq!(totals, expected.map(|(who, total)| (who.to_owned(), total)), "{command}");
    }

    async fn refused(&self, command: &str, words: &str) {
        let ran = self.submit(command, &[]).await;
        assert!([2, 5, 8].contains(&ran.code), "{command}: {ran:#?}");
        assert!(ran.stderr.starts_with("error: "), "{command}: {ran:#?}");
        assert!(ran.stderr.contains(words), "{command}: {words:?} is missing in {ran:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_taken_as_they_are_typed() {
    let bed = Bed::start(1).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    data::load(&bed).await;
    let shell = Shell { bed };
    manual(&shell).await;
    ways(&shell).await;
    types(&shell).await;
    single_values(&shell).await;
    bad(&shell).await;
}

async fn manual(shell: &Shell) {
    shell.totals(CUSTOMER_TOTALS, &[]).await;
    shell.totals(&format!("db.runCommand({CUSTOMER_TOTALS})"), &[]).await;
    shell.submit(ORDER_STATISTICS, &[]).await.ok();
    let rows = shell.bed.all("map_reduce_example2").await;
    let row = |sku: &str, count: f64, qty: f64| {
        doc! { "_id": sku, "value": { "count": count, "qty": qty, "avg": qty / count } }
    };
    assert_eq!(
        rows,
        [
            row("apples", 4.0, 35.0),
            row("carrots", 2.0, 15.0),
            row("chocolates", 3.0, 15.0),
            row("oranges", 7.0, 63.0),
            row("pears", 1.0, 10.0),
        ]
    );
}

/// The same command in other words.
async fn ways(shell: &Shell) {
    let map = "function () { emit(this.cust_id, this.price) }";
    let reduce = "(key, values) => Array.sum(values)";
    let file = shell.bed.file("job.js", CUSTOMER_TOTALS).display().to_string();
    shell.totals(&file, &[]).await;
    for command in [
        format!("db.orders.mapReduce({map}, {reduce}, 'map_reduce_example')"),
        format!(
            "db.getCollection('orders').mapReduce({map}, {reduce}, {{out: 'map_reduce_example'}});"
        ),
        format!(
            "db.getSiblingDB('test').orders.mapReduce({map}, {reduce}, {{out: {{replace: 'map_reduce_example'}}}})"
        ),
        format!(
            "// yearly\n/* and */ {{mapreduce: 'orders', 'map': {map}, reduce: {reduce},\n out: 'map_reduce_example', }}"
        ),
        format!(
            r#"{{"mapReduce": "orders", "map": "{map}", "reduce": {{"$code": "{reduce}"}}, "out": {{"merge": "map_reduce_example", "db": "test"}}}}"#
        ),
        format!(
            "({{mapReduce: 'orders', map: \"emit(this.cust_id, this.price)\", reduce: Code('{reduce}'), out: 'map_reduce_example'}})"
        ),
        format!("{{mapReduce: 'orders', map: {map}, reduce: '_sum', out: 'map_reduce_example'}}"),
    ] {
        shell.totals(&command, &[]).await;
    }
    // A command writes to the database that it reads.
    let away = shell.bed.client.database("away");
    shell.bed.grant("away", &["few"], &["there"]).await;
    away.collection("few").insert_one(doc! { "k": 1 }).await.unwrap();
    let map_few = "function () { emit(this.k, 1) }";
    for command in [
        format!("db.getSiblingDB('away').few.mapReduce({map_few}, {reduce}, 'there')"),
        format!(
            "{{mapReduce: 'few', map: {map_few}, reduce: {reduce}, out: 'there', $db: 'away'}}"
        ),
    ] {
        shell.submit(&command, &[]).await.ok();
        let there = away.collection::<Document>("there");
        assert_eq!(there.count_documents(doc! {}).await.unwrap(), 1, "{command}");
        there.drop().await.unwrap();
    }
    // From standard input, as a pipe gives it.
    let script = format!("\"{}\" submit -q --command - < \"{file}\"", crate::common::AVIARY);
    let piped = tokio::process::Command::new("sh")
        .args(["-c", &script])
        .envs(shell.bed.env())
        .output()
        .await
        .unwrap();
    assert!(piped.status.success(), "{}", String::from_utf8_lossy(&piped.stderr));
    // The functions alone, in flags; and a trial of a whole command.
    let flags = [
        "submit",
        "-q",
        "-c",
        "orders",
        "--map",
        map,
        "--reduce",
        reduce,
        "--out",
        "replace:flags",
    ];
    shell.bed.aviary(&flags).await.ok();
    assert_eq!(shell.bed.all("flags").await, shell.bed.all("map_reduce_example").await);
    let tried = shell.bed.aviary(&["try", "--command", CUSTOMER_TOTALS]).await.ok();
    assert_eq!(tried.json().len(), 4, "{tried:#?}");
    // What is not done as asked is said.
    let noted = format!(
        "{{mapReduce: 'orders', map: {map}, reduce: {reduce}, out: {{inline: 1}}, jsMode: true, \
         maxTimeMS: 5000, writeConcern: {{w: 1}}, bypassDocumentValidation: true, comment: 'mine'}}"
    );
    let ran = shell.submit(&noted, &["-o", "json"]).await.ok();
    for word in ["jsMode", "maxTimeMS", "writeConcern", "bypassDocumentValidation"] {
        assert!(ran.stderr.contains(&format!("note: {word}")), "{ran:#?}");
    }
    assert_eq!(ran.json()[0]["tag"], "mine");
}

/// Values keep their types on the way from the text to the functions.
async fn types(shell: &Shell) {
    let command = "{
      mapReduce: 'small', limit: 1, sort: {_id: 1},
      query: {_id: {$gte: NumberInt(0)}, oid: ObjectId('000000000000000000000000'),
              date: {$lte: ISODate('2020-09-13T12:26:40Z'), $gt: new Date('2020-01-01')}, name: /^a/i},
      map: function () { emit(this._id, [l, i, d, x, b, u, t, r, at, id, f(2), lo]); },
      reduce: function (key, values) { return values[0]; },
      scope: {l: NumberLong('9007199254740993'), i: NumberInt(5), d: NumberDecimal('1.50'), x: 2.5,
              b: BinData(0, 'AQID'), u: UUID('00112233-4455-6677-8899-aabbccddeeff'),
              t: Timestamp(1, 2), r: /x/i, at: ISODate('2020-01-02T03:04:05Z'),
              id: ObjectId('5f0000000000000000000000'), f: function (n) { return n * 2; }, lo: MinKey},
      out: 'typed',
    }";
    shell.submit(command, &[]).await.ok();
    let rows = shell.bed.all("typed").await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    let types: Vec<_> =
        rows[0].get_array("value").unwrap().iter().map(Bson::element_type).collect();
    use bson::spec::ElementType as T;
    assert_eq!(
        types,
        [
            T::Int64,
            T::Double,
            T::Decimal128,
            T::Double,
            T::Binary,
            T::Binary,
            T::Timestamp,
            T::RegularExpression,
            T::DateTime,
            T::ObjectId,
            T::Double,
            T::MinKey,
        ]
    );
    assert_eq!(rows[0].get_array("value").unwrap()[0], Bson::Int64(9_007_199_254_740_993));
}

/// Servers before 4.4 did not call reduce for a single value.
async fn single_values(shell: &Shell) {
    let functions = [
        "submit",
        "-q",
        "-c",
        "orders",
        "--map",
        "function () { emit(this._id, 'alone'); emit('all', 'x'); }",
        "--reduce",
        "function (key, values) { return 'reduced'; }",
        "--out",
        "replace:single",
    ];
    for (more, alone) in [(&[][..], "reduced"), (&["--skip-single-values"][..], "alone")] {
        shell.bed.aviary(&[&functions[..], more].concat()).await.ok();
        let rows: Vec<Document> = shell.bed.all("single").await;
        assert_eq!(rows.len(), 11);
        for row in rows {
            let many = row.get_str("_id").is_ok();
            assert_eq!(
                row.get_str("value").unwrap(),
                if many { "reduced" } else { alone },
                "{more:?} {row}"
            );
        }
    }
}

async fn bad(shell: &Shell) {
    let functions = "map: function () { emit(1, 1) }, reduce: function (k, v) { return 1 }";
    for (command, words) in [
        ("nowhere.json".to_owned(), "nowhere.json"),
        ("{mapReduce: 'orders', map: function () { }".to_owned(), "SyntaxError"),
        ("db.orders.find({})".to_owned(), "the text calls orders.find, and only mapReduce"),
        (format!("db.a.b.mapReduce({{{functions}}}, 1, 'x')"), "no function"),
        (
            "db.orders.mapReduce('m', 'r', 'x').find()".to_owned(),
            "goes on after the command, with .find",
        ),
        (format!("{{mapReduce: 'orders', {functions}, out: 'x'"), "a { has no } that ends it"),
        (format!("{{mapReduce: 'orders', {functions}, out: ['x'}}"), "a } too many"),
        (
            format!(
                "{{mapReduce: 'orders', {functions}, out: 'x', query: {{t: ISODate('2026-02-30')}}}}"
            ),
            "no day of the calendar",
        ),
        ("db.orders.mapReduce(1, 2, 'x')".to_owned(), "is no function"),
        ("{}".to_owned(), "names a collection"),
        (format!("{{{functions}, out: 'x'}}"), "names a collection"),
        (format!("{{mapReduce: '', {functions}, out: 'x'}}"), "mapReduce"),
        (format!("{{mapReduce: 'orders', {functions}}}"), "no out"),
        (format!("{{mapReduce: 'orders', {functions}, out: 5}}"), "its out"),
        (format!("{{mapReduce: 'orders', {functions}, out: 'x', sort: 1}}"), "its sort"),
        (format!("{{mapReduce: 'orders', {functions}, out: 'x', limit: 'x'}}"), "its limit"),
        (
            format!("{{mapReduce: 'orders', {functions}, out: 'x', shard: 1}}"),
            "unknown field shard",
        ),
        (format!("{{mapReduce: 'nowhere', {functions}, out: 'x'}}"), "nowhere"),
        ("while (true) {}".to_owned(), "mapReduce command"),
        ("throw new Error('mine')".to_owned(), "mine"),
        ("(function () { return 5; })()".to_owned(), "not one document"),
        (
            "{mapReduce: 'orders', map: Code('emit(a, 1)'), reduce: {$code: 'x'}, out: 'x'}"
                .to_owned(),
            "its reduce",
        ),
    ] {
        shell.refused(&command, words).await;
    }
    let both = shell.submit("{}", &["-c", "orders"]).await;
    assert_eq!(both.code, 2, "{both:#?}");
}
