//! The environment that functions written for MongoDB's own `mapReduce` rely on.

use bson::raw::RawDocumentBuf;
use bson::{Bson, doc};

use super::javascript::{field, one_document, run, script, start_script};
use super::*;

/// Appends a field, whether or not there is one of its name.
fn append(document: &mut RawDocumentBuf, name: &str, value: i32) {
    document.append(bson::raw::CString::try_from(name.to_owned()).unwrap(), value);
}

/// What a map emits for a document: the values, decoded.
fn emitted(map: &str, input: &[u8]) -> Vec<Bson> {
    let seen = run(map, input, InstanceOptions::default()).unwrap();
    seen.pairs.iter().map(|(_, value)| field(value)).collect()
}

/// What a map warns of.
fn warned(map: &str) -> Vec<String> {
    let seen = run(map, &one_document(), InstanceOptions::default()).unwrap();
    assert!(seen.logs.iter().all(|(level, _)| *level == Level::Warn), "{:?}", seen.logs);
    seen.logs.into_iter().map(|(_, text)| text).collect()
}

#[test]
fn this_of_a_reduce_carries_nothing_from_key_to_key() {
    let count =
        "function (k, v) { this.n = (this.n || 0) + 1; globalThis.kept = this; return this.n; }";
    for stage in [Stage::Reduce, Stage::Finalize] {
        let text = Some(count.to_owned());
        let script = if stage == Stage::Reduce {
            Script { reduce: text, ..Script::default() }
        } else {
            Script { finalize: text, ..Script::default() }
        };
        let mut instance = start_script(script, InstanceOptions::default()).unwrap();
        let group = doc! { "k": "a", "v": [1, 2] }.to_vec().unwrap();
        instance.call(stage, &group.repeat(4)).unwrap();
        let values: Vec<_> = instance.into_sink().pairs.iter().map(|(_, v)| field(v)).collect();
        assert_eq!(values, vec![Bson::Double(1.0); 4], "{stage:?}");
    }
}

#[test]
fn map_gets_the_document_as_an_argument_only_if_it_names_one() {
    let map = "function () { emit(1, arguments.length); }";
    assert_eq!(emitted(map, &one_document()), [Bson::Double(0.0)]);
    assert_eq!(emitted("function (doc) { emit(1, doc.k); }", &one_document()), ["a".into()]);
    assert_eq!(emitted("(doc) => emit(1, doc.k)", &one_document()), ["a".into()]);
}

#[test]
fn a_changed_document_keeps_its_order_and_its_types() {
    let input = doc! { "_id": 5, "b": 1, "10": 2, "z": { "y": 1, "3": 2 } }.to_vec().unwrap();
    for (change, expected) in [
        ("this.b = 2", doc! { "_id": 5, "b": 2, "10": 2, "z": { "y": 1, "3": 2 } }),
        ("this[10]++", doc! { "_id": 5, "b": 1, "10": 3, "z": { "y": 1, "3": 2 } }),
        (
            "this['2020'] = 1",
            doc! { "_id": 5, "b": 1, "10": 2, "z": { "y": 1, "3": 2 }, "2020": 1.0 },
        ),
        ("delete this.b; this.b = 7", doc! { "_id": 5, "b": 7, "10": 2, "z": { "y": 1, "3": 2 } }),
        ("this.z[1] = 0", doc! { "_id": 5, "b": 1, "10": 2, "z": { "y": 1, "3": 2, "1": 0.0 } }),
    ] {
        let map = format!("function () {{ {change}; emit(Object.keys(this).join(), this); }}");
        let seen = run(&map, &input, InstanceOptions::default()).unwrap();
        let (key, value) = &seen.pairs[0];
        // Documents are equal only if their fields have the same order and types.
        assert_eq!(field(value), Bson::Document(expected.clone()), "{change}");
        let names: Vec<_> = expected.keys().cloned().collect();
        assert_eq!(field(key), names.join(",").into(), "{change}");
    }
}

#[test]
fn of_a_name_that_is_there_twice_the_first_counts() {
    let mut input = RawDocumentBuf::new();
    for (name, value) in [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5)] {
        append(&mut input, name, value);
    }
    for (expression, expected) in [
        ("(this.b, this.a)", Bson::Int32(1)),
        ("(this.c, this.b)", 2.into()),
        ("Object.keys(this).join()", "a,b,c".into()),
        ("JSON.stringify(this)", "{\"a\":1,\"b\":2,\"c\":4}".into()),
        ("JSON.stringify({...this})", "{\"a\":1,\"b\":2,\"c\":4}".into()),
        (
            "(function (d) { d.e = 1; return JSON.stringify(d); })(this)",
            "{\"a\":1,\"b\":2,\"c\":4,\"e\":1}".into(),
        ),
        (
            "(function (d) { var s = ''; for (var k in d) s += k + d[k]; return s; })(this)",
            "a1b2c4".into(),
        ),
    ] {
        let map = format!("function () {{ emit({expression}, {expression}); }}");
        let seen = run(&map, input.as_bytes(), InstanceOptions::default()).unwrap();
        let number = |value: Bson| match value {
            Bson::Double(n) if n.fract().abs() < f64::EPSILON => {
                Bson::Int32(n.to_string().parse().unwrap())
            }
            other => other,
        };
        assert_eq!(number(field(&seen.pairs[0].1)), expected, "{expression}");
        assert_eq!(number(field(&seen.pairs[0].0)), expected, "{expression} as a key");
    }
    // And what is passed on untouched keeps its bytes.
    let seen =
        run("function () { this.a; emit(1, this); }", input.as_bytes(), InstanceOptions::default());
    assert_eq!(&seen.unwrap().pairs[0].1[1..], input.as_bytes());
}

#[test]
fn many_names_are_told_apart() {
    let mut input = RawDocumentBuf::new();
    for n in 0..2_000 {
        append(&mut input, &format!("f{n}"), n);
    }
    append(&mut input, "f7", -1);
    let map = "function () {
      var wrong = 0;
      for (var n = 1999; n >= 0; n--) if (this['f' + n] !== n) wrong++;
      emit(Object.keys(this).length, wrong);
    }";
    let seen = run(map, input.as_bytes(), InstanceOptions::default()).unwrap();
    assert_eq!(field(&seen.pairs[0].0), Bson::Double(2_000.0));
    assert_eq!(field(&seen.pairs[0].1), Bson::Double(0.0));
}

/// A document with a regular expression whose options are as they are given.
fn with_regex(options: &str) -> Vec<u8> {
    let mut bytes = doc! { "text": "xA\nab" }.to_vec().unwrap();
    bytes.pop();
    bytes.extend_from_slice(format!("\u{b}re\0^a.\0{options}\0\0").as_bytes());
    let len = i32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    bytes
}

#[test]
fn options_of_regular_expressions_may_have_any_order() {
    let map = "function () { emit(1, [this.text.match(this.re)[0], this.text.replace(this.re, '-'), \
               this.text.search(this.re), this.re.test('ab'), this.text.split(this.re).length]); }";
    for options in ["im", "mi", "mis", "smi"] {
        let value = emitted(map, &with_regex(options)).remove(0);
        let expected =
            vec!["ab".into(), "xA\n-".into(), 3.0.into(), true.into(), Bson::Double(2.0)];
        assert_eq!(value, Bson::Array(expected), "{options}");
    }
    for call in [
        "this.text.match(this.re)",
        "this.text.replace(this.re, '')",
        "this.re.test('a')",
        "this.text.split(this.re)",
    ] {
        let map = format!("function () {{ emit(1, {call}); }}");
        let error =
            run(&map, &with_regex("ix"), InstanceOptions::default()).unwrap_err().to_string();
        assert!(error.contains("has the option x, which JavaScript lacks"), "{call}: {error}");
    }
    // It can still be passed on.
    let value =
        run("function () { emit(1, this.re); }", &with_regex("ix"), InstanceOptions::default());
    assert_eq!(value.unwrap().pairs[0].1, b"\x0b^a.\0ix\0");
}

#[test]
fn dates_out_of_range_have_every_method_and_keep_their_bytes() {
    for ms in [i64::MIN, i64::MAX, 8_640_000_000_000_001, -8_640_000_000_000_001] {
        let input = doc! { "d": bson::DateTime::from_millis(ms) }.to_vec().unwrap();
        let map = "function () { emit(isNaN(this.d.getTime()) && isNaN(this.d.getFullYear()) && \
                   this.d instanceof Date && String(this.d) === 'Invalid Date', [this.d]); }";
        let seen = run(map, &input, InstanceOptions::default()).unwrap();
        assert_eq!(field(&seen.pairs[0].0), true.into());
        assert_eq!(
            field(&seen.pairs[0].1),
            Bson::Array(vec![bson::DateTime::from_millis(ms).into()]),
            "{ms}"
        );
    }
}

#[test]
fn calls_take_any_number_of_arguments() {
    let map = "function () {
      var all = [];
      for (var n = 0; n < 300000; n++) all.push(n);
      emit(1, [Math.max.apply(Math, all), Math.min(...all), Math.max.apply(null, all), [].concat.apply([], all).length,
               (function () { return arguments.length; }).apply(null, all)]);
      var more = []; more.push.apply(more, all); emit(2, more.length);
    }";
    let values = emitted(map, &one_document());
    let expected = [299_999.0, 0.0, 299_999.0, 300_000.0, 300_000.0].map(Bson::Double);
    assert_eq!(values, [Bson::Array(expected.to_vec()), Bson::Double(300_000.0)]);
}

#[test]
fn calls_nest_ten_thousand_deep() {
    let map = "function () {
      function depth(n) { return n === 0 ? 0 : 1 + depth(n - 1); }
      function walk(list) { return list === null ? 0 : 1 + walk(list.next); }
      var list = null;
      for (var n = 0; n < 10000; n++) list = { next: list };
      emit(1, [depth(10000), walk(list)]);
    }";
    let expected = [10_000.0, 10_000.0].map(Bson::Double).to_vec();
    assert_eq!(emitted(map, &one_document()), [Bson::Array(expected)]);
}

#[test]
fn a_list_grows_at_its_front() {
    let map = "function () {
      var all = [];
      for (var n = 0; n < 100000; n++) all.unshift(n);
      emit(all.length, [all[0], all[99999], all.indexOf(50000)]);
    }";
    let expected = [99_999.0, 0.0, 49_999.0].map(Bson::Double).to_vec();
    assert_eq!(emitted(map, &one_document()), [Bson::Array(expected)]);
}

#[test]
fn a_comparator_of_booleans_sorts() {
    let map = "function () {
      var all = [];
      for (var n = 0; n < 23; n++) all.push(n * 7 % 23);
      emit(1, all.sort(function (a, b) { return a > b; }));
    }";
    let expected = (0..23).map(|n| Bson::Double(f64::from(n))).collect();
    assert_eq!(emitted(map, &one_document()), [Bson::Array(expected)]);
}

#[test]
fn what_is_surely_a_mistake_is_warned_of_once() {
    for (map, words) in [
        (
            "function () { emit(1, new Map([[1, 2]])); emit(2, new Map()); }",
            "a Map was written as {}",
        ),
        ("function () { emit(1, { all: new Set([1]) }); }", "a Set was written as {}"),
        ("function () { emit(1, Promise.resolve(1)); }", "a Promise was written as {}"),
        ("function () { emit(1, new TypeError('x')); }", "an Error was written as {}"),
        ("function () { return [this.k, 1]; }", "map has returned values and emitted nothing"),
        ("(doc) => { if (this.k) emit(1, 1); }", "map is an arrow function and uses this"),
        ("function () { emit(1, new Date(0).toLocaleString('de')); }", "know only English and UTC"),
        (
            "function () { emit(1, (5).toLocaleString('en', { style: 'percent' })); }",
            "know only English and UTC",
        ),
        ("function () { emit(1, 'a'.localeCompare('b', 'sv')); }", "know only English and UTC"),
    ] {
        let warnings = warned(map);
        assert_eq!(warnings.len(), 1, "{map}: {warnings:?}");
        assert!(warnings[0].contains(words), "{map}: {warnings:?}");
    }
    for map in [
        "function () { emit(1, Object.fromEntries(new Map([['a', 1]]))); return 5; }",
        "(doc) => { emit(doc.k, new Date(0).toLocaleString()); }",
        "function () { [1].forEach(() => emit(this.k, 1)); }",
    ] {
        assert_eq!(warned(map), Vec::<String>::new(), "{map}");
    }
    for (stage, name) in [(Stage::Reduce, "reduce"), (Stage::Finalize, "finalize")] {
        let nothing = |text: &str| {
            let text = Some(text.to_owned());
            let script = match stage {
                Stage::Reduce => Script { reduce: text, ..Script::default() },
                _ => Script { finalize: text, ..Script::default() },
            };
            let mut instance = start_script(script, InstanceOptions::default()).unwrap();
            let group = doc! { "k": "a", "v": [1, 2] }.to_vec().unwrap();
            instance.call(stage, &group.repeat(2)).unwrap();
            let seen = instance.into_sink();
            assert!(seen.pairs.iter().all(|(_, v)| field(v) == Bson::Null));
            seen.logs
        };
        let told = nothing("function (k, v) { Array.sum([1]); }");
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].1.starts_with(&format!("{name} has returned nothing")), "{told:?}");
        assert_eq!(nothing("function (k, v) { return null; }"), []);
    }
    let script = script("(doc) => emit(1, this)");
    assert!(start_script(script, InstanceOptions::default()).is_ok());
}
