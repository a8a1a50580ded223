//! Tables, runs and merges against plain models.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;

use crate::support::{number, value};
use aviary::shuffle::{
    Accumulator, Block, BlockLimits, Builtin, Combine, Merge, MergeError, MergeLimits, RunSource,
    RunWriter, SourceError, Table, TempSpace, block, partition_of,
};
use aviary::value::{RawVal, RawValBuf, key};
use bson::{Bson, bson};
use proptest::prelude::*;

struct Memory(VecDeque<Block>);

impl RunSource for Memory {
    fn next_block(&mut self) -> Result<Option<Block>, SourceError> {
        Ok(self.0.pop_front())
    }
}

fn raw(value: &Bson) -> RawValBuf {
    RawValBuf::from_bson(value).unwrap()
}

fn encode(value: RawVal<'_>) -> Vec<u8> {
    let mut encoded = Vec::new();
    key::encode(value, &mut encoded).unwrap();
    encoded
}

fn write_run(records: &[(RawValBuf, RawValBuf)], raw_bytes_target: usize) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut sink = |block| {
        blocks.push(block);
        Ok::<(), Infallible>(())
    };
    let mut writer = RunWriter::new(BlockLimits { raw_bytes_target });
    for (key, value) in records {
        writer.push(key.as_raw(), value.as_raw(), &mut sink).unwrap();
    }
    let count = writer.finish(&mut sink).unwrap();
    assert_eq!(count as usize, blocks.len());
    blocks
}

fn source(blocks: Vec<Block>) -> Box<dyn RunSource + Send> {
    Box::new(Memory(blocks.into()))
}

type Groups = Vec<(RawValBuf, Vec<RawValBuf>)>;

fn read_all(runs: Vec<Vec<Block>>, limits: &MergeLimits) -> Result<Groups, MergeError> {
    let mut merge = Merge::new(runs.into_iter().map(source).collect(), limits)?;
    let mut groups = Vec::new();
    while merge.next_group()? {
        assert_eq!(merge.encoded(), encode(merge.key()));
        let key = RawValBuf::from(merge.key());
        let mut values = Vec::new();
        while let Some(value) = merge.next_value()? {
            values.push(RawValBuf::from(value));
        }
        groups.push((key, values));
    }
    Ok(groups)
}

fn key_strategy() -> impl Strategy<Value = Bson> {
    prop_oneof![
        (0..6_i32).prop_map(Bson::Int32),
        (0..6_i32).prop_map(|n| Bson::Double(n.into())),
        "[a-d]{0,2}".prop_map(Bson::String),
        value()
    ]
}

fn emits() -> impl Strategy<Value = Vec<(Bson, Bson)>> {
    prop::collection::vec((key_strategy(), value()), 0..80)
}

/// Key, first form of the key, values in order.
type Model = BTreeMap<(u32, Vec<u8>), (RawValBuf, Vec<RawValBuf>)>;

fn model(emits: &[(Bson, Bson)], partitions: u32) -> Model {
    let mut model = Model::new();
    for (key, value) in emits {
        let key = raw(key);
        let encoded = encode(key.as_raw());
        let place = (partition_of(&encoded, partitions), encoded);
        model.entry(place).or_insert_with(|| (key, Vec::new())).1.push(raw(value));
    }
    model
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, ..ProptestConfig::default() })]

    #[test]
    fn a_table_of_values_is_a_sorted_map(emits in emits(), partitions in 1_u32..5) {
        let mut table = Table::new(Combine::Values);
        for _ in 0..2 {
            for (key, value) in &emits {
                table.add(raw(key).as_raw(), raw(value).as_raw()).unwrap();
            }
            let expected = model(&emits, partitions);
            prop_assert_eq!(table.len(), expected.len());
            let mut found = Model::new();
            let mut last = None;
            table.drain_sorted(partitions, |group| {
                let place = (group.partition, group.encoded.to_vec());
                assert!(last.as_ref() < Some(&place));
                last = Some(place.clone());
                let values: Vec<RawValBuf> = group.values.clone().map(RawValBuf::from).collect();
                assert_eq!(values.len(), group.values.count_all());
                assert_eq!(values.iter().map(|value| value.as_raw().len()).sum::<usize>(), group.values.bytes_all());
                found.insert(place, (group.key.into(), values));
                Ok::<(), Infallible>(())
            }).unwrap();
            prop_assert_eq!(&found, &expected);
            // A drained table is empty and can be filled again.
            prop_assert!(table.is_empty());
        }
    }

    #[test]
    fn a_table_of_sums_holds_the_partial_of_each_key(
        emits in prop::collection::vec((key_strategy(), number()), 0..80)
    ) {
        for builtin in Builtin::ALL {
            let mut table = Table::new(Combine::Builtin(builtin));
            for (key, value) in &emits {
                table.add(raw(key).as_raw(), raw(value).as_raw()).unwrap();
            }
            let mut expected = model(&emits, 3).into_iter();
            table.drain_sorted(3, |mut group| {
                let ((partition, encoded), (key, values)) = expected.next().unwrap();
                assert_eq!((group.partition, group.encoded), (partition, encoded.as_slice()));
                assert_eq!(group.key, key.as_raw());
                let mut state = Accumulator::new(builtin);
                for value in &values {
                    state.add(value.as_raw()).unwrap();
                }
                let mut partial = RawValBuf::new();
                state.partial(&mut partial);
                assert_eq!(group.values.next(), Some(partial.as_raw()));
                assert_eq!(group.values.next(), None);
                Ok::<(), Infallible>(())
            }).unwrap();
            prop_assert!(expected.next().is_none());
        }
    }

    #[test]
    fn a_merge_is_a_sorted_map(
        runs in prop::collection::vec(emits(), 0..9), raw_bytes_target in 64_usize..400, fan_in_max in 2_usize..6
    ) {
        let mut stored = Vec::new();
        let mut all = Vec::new();
        for emits in &runs {
            let records: Vec<_> = model(emits, 1).into_values()
                .flat_map(|(key, values)| values.into_iter().map(move |value| (key.clone(), value)))
                .collect();
            stored.push(write_run(&records, raw_bytes_target));
            all.extend(emits.iter().cloned());
        }
        let limits = MergeLimits { fan_in_max, block: BlockLimits { raw_bytes_target }, ..MergeLimits::default() };
        let expected: Groups = model(&all, 1).into_values().collect();
        prop_assert_eq!(read_all(stored, &limits).unwrap(), expected);
    }

    #[test]
    fn a_flipped_bit_is_always_found(
        emits in emits(), at in any::<prop::sample::Index>(), which in any::<prop::sample::Index>()
    ) {
        let records: Vec<_> = model(&emits, 1).into_values()
            .flat_map(|(key, values)| values.into_iter().map(move |value| (key.clone(), value)))
            .collect();
        let mut blocks = write_run(&records, 300);
        prop_assume!(!blocks.is_empty());
        let count = blocks.len();
        let damaged = &mut blocks[which.index(count)];
        prop_assert!(block::decode(damaged.parts()).is_ok());
        let bits = damaged.data.len() * 8;
        let bit = at.index(bits + 136);
        match bit.checked_sub(bits) {
            None => damaged.data[bit / 8] ^= 1 << (bit % 8),
            Some(field) => match field / 32 {
                0 => damaged.seq ^= 1 << (field % 32),
                1 => damaged.records ^= 1 << (field % 32),
                2 => damaged.raw_bytes ^= 1 << (field % 32),
                3 => damaged.crc32 ^= 1 << (field % 32),
                _ => damaged.codec ^= 1 << (field % 32),
            },
        }
        prop_assert!(block::decode(damaged.parts()).is_err());
        prop_assert!(read_all(vec![blocks], &MergeLimits::default()).is_err());
    }

    #[test]
    fn blocks_of_noise_with_a_good_checksum_never_panic(
        noise in prop::collection::vec(any::<u8>(), 0..80), kind in 0_u8..3, codec in 0_u8..3, records in 0_u32..4, raw_bytes in 0_u32..200
    ) {
        let mut data = vec![0xA5, 1, kind];
        data.extend(noise);
        let raw_bytes = if codec == 0 { data.len() as u32 - 3 } else { raw_bytes };
        let mut hasher = crc32fast::Hasher::new();
        for field in [0, records, raw_bytes] {
            hasher.update(&u32::to_le_bytes(field));
        }
        hasher.update(&[codec]);
        hasher.update(&data);
        let block = Block { seq: 0, records, raw_bytes, crc32: hasher.finalize(), codec, data };
        if block::decode(block.parts()).is_ok() {
            let _ = read_all(vec![vec![block]], &MergeLimits::default());
        }
    }

    #[test]
    fn a_builtin_does_not_depend_on_the_split(
        numbers in prop::collection::vec(number().prop_filter("binary", |n| !matches!(n, Bson::Decimal128(_))), 1..40),
        cuts in prop::collection::vec(0_usize..4, 40), reverse in any::<bool>()
    ) {
        for builtin in Builtin::ALL {
            let mut whole = Accumulator::new(builtin);
            let mut parts: Vec<_> = (0..4).map(|_| (0, Accumulator::new(builtin))).collect();
            for (number, part) in numbers.iter().zip(&cuts) {
                whole.add(raw(number).as_raw()).unwrap();
                parts[*part].0 += 1;
                parts[*part].1.add(raw(number).as_raw()).unwrap();
            }
            if reverse {
                parts.reverse();
            }
            let mut merged = Accumulator::new(builtin);
            let mut partial = RawValBuf::new();
            for (_, part) in parts.iter().filter(|(count, _)| *count > 0) {
                part.partial(&mut partial);
                merged.merge(partial.as_raw()).unwrap();
            }
            prop_assert_eq!(merged.finish(), whole.finish(), "{}", builtin);
            let mut other = RawValBuf::new();
            merged.partial(&mut partial);
            whole.partial(&mut other);
            prop_assert_eq!(partial, other, "{}", builtin);
        }
    }

    #[test]
    fn money_in_decimals_does_not_depend_on_the_split(cents in prop::collection::vec(any::<i32>(), 1..40), cut in 0_usize..40) {
        let values: Vec<RawValBuf> = cents.iter()
            .map(|cents| raw(&Bson::Decimal128(format!("{cents}E-2").parse().unwrap()))).collect();
        let cut = cut.min(values.len());
        let sum = |values: &[RawValBuf]| {
            let mut state = Accumulator::new(Builtin::Sum);
            for value in values {
                state.add(value.as_raw()).unwrap();
            }
            state
        };
        let mut merged = Accumulator::new(Builtin::Sum);
        let mut partial = RawValBuf::new();
        for part in [&values[cut..], &values[..cut]].into_iter().filter(|part| !part.is_empty()) {
            sum(part).partial(&mut partial);
            merged.merge(partial.as_raw()).unwrap();
        }
        prop_assert_eq!(merged.finish(), sum(&values).finish());
        let total: i64 = cents.iter().map(|cents| i64::from(*cents)).sum();
        prop_assert_eq!(encode(merged.finish().as_raw()),
            encode(raw(&Bson::Decimal128(format!("{total}E-2").parse().unwrap())).as_raw()));
    }

    #[test]
    fn partials_of_noise_are_refused_without_panic(noise in prop::collection::vec(any::<u8>(), 0..90), version in 0_u8..2, kind in 0_u8..4) {
        let mut bytes = vec![version, kind, 0];
        bytes.extend(noise);
        let value = raw(&Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::UserDefined(0x80), bytes }));
        for builtin in Builtin::ALL {
            let mut state = Accumulator::new(builtin);
            let _ = state.merge(value.as_raw());
            let _ = state.finish();
        }
    }
}

fn finish(builtin: Builtin, values: &[Bson]) -> Bson {
    let mut state = Accumulator::new(builtin);
    for value in values {
        state.add(raw(value).as_raw()).unwrap();
    }
    state.finish().as_raw().to_bson().unwrap()
}

#[test]
fn results_have_the_types_that_the_server_gives() {
    let decimal = |text: &str| Bson::Decimal128(text.parse().unwrap());
    let sum = |values: &[Bson]| finish(Builtin::Sum, values);
    assert_eq!(sum(&[]), Bson::Int32(0));
    assert_eq!(sum(&[1.into(), 2.into()]), Bson::Int32(3));
    assert_eq!(sum(&[i32::MAX.into(), 1.into()]), Bson::Int64(1 << 31));
    assert_eq!(sum(&[1.into(), 2_i64.into()]), Bson::Int64(3));
    assert_eq!(sum(&[i64::MAX.into(), 1.into()]), Bson::Double(2_f64.powi(63)));
    assert_eq!(sum(&[i64::MAX.into(), 1.into(), (-1).into()]), Bson::Int64(i64::MAX));
    assert_eq!(sum(&[1.into(), 0.5.into()]), Bson::Double(1.5));
    assert_eq!(sum(&[0.1.into(), 0.2.into(), 0.3.into()]), Bson::Double(0.6));
    assert_eq!(sum(&[1e100.into(), 1.0.into(), (-1e100).into()]), Bson::Double(1.0));
    assert_eq!(sum(&[decimal("1.10"), decimal("2.2"), 1.into()]), decimal("4.30"));
    assert_eq!(finish(Builtin::Avg, &[1.into(), 2.into()]), Bson::Double(1.5));
    assert_eq!(finish(Builtin::Avg, &[decimal("1"), 2.into()]), decimal("1.5"));
    assert_eq!(finish(Builtin::Count, &["a".into(), Bson::Null]), Bson::Int64(2));
    assert_eq!(finish(Builtin::Min, &["a".into(), 3.into(), Bson::MaxKey]), Bson::Int32(3));
    assert_eq!(finish(Builtin::Max, &["a".into(), 3.into(), "b".into()]), Bson::String("b".into()));
    assert_eq!(
        finish(Builtin::Stats, &[1.into(), 2.into(), 3.0.into(), 4_i64.into()]),
        bson!({"sum": 10.0, "count": 4_i64, "min": 1.0, "max": 4.0, "sumsqr": 30.0, "avg": 2.5, "stdDev": 1.25_f64.sqrt()})
    );
}

#[test]
fn a_deviation_survives_a_large_mean() {
    let Bson::Document(stats) =
        finish(Builtin::Stats, &[(1e9 + 1.0).into(), (1e9 + 2.0).into(), (1e9 + 3.0).into()])
    else {
        unreachable!("stats are a document");
    };
    assert!((stats.get_f64("stdDev").unwrap() - (2.0_f64 / 3.0).sqrt()).abs() < 1e-15);
}

#[test]
fn a_refused_value_leaves_neither_a_key_nor_a_trace() {
    for builtin in [Builtin::Sum, Builtin::Avg, Builtin::Stats] {
        let mut table = Table::new(Combine::Builtin(builtin));
        let key = raw(&"k".into());
        let text = raw(&"v".into());
        table.add(key.as_raw(), text.as_raw()).unwrap_err();
        assert!(table.is_empty(), "{builtin}");
        table.add(key.as_raw(), raw(&2.into()).as_raw()).unwrap();
        table.add(key.as_raw(), text.as_raw()).unwrap_err();
        let mut expected = Accumulator::new(builtin);
        expected.add(raw(&2.into()).as_raw()).unwrap();
        let mut partial = RawValBuf::new();
        expected.partial(&mut partial);
        table
            .drain_sorted(1, |mut group| {
                assert_eq!(group.values.next(), Some(partial.as_raw()), "{builtin}");
                Ok::<(), Infallible>(())
            })
            .unwrap();
    }
}

#[test]
fn keys_that_begin_alike_are_merged_in_order() {
    let all: Vec<RawValBuf> = (0..12_000)
        .map(|number| match number {
            0..3000 => raw(&number.into()),
            3000..9000 => raw(&format!("a long beginning {number:08}").into()),
            _ => raw(&format!("b{number:05}").into()),
        })
        .collect();
    let runs = (0..3).map(|run| {
        let own = all.iter().enumerate().filter(|(number, _)| number % 3 == run || number % 7 == 0);
        let records: Vec<_> = own.map(|(_, key)| (key.clone(), raw(&Bson::Null))).collect();
        write_run(&records, 5000)
    });
    let groups = read_all(runs.collect(), &MergeLimits::default()).unwrap();
    assert_eq!(groups.len(), all.len());
    for (number, (key, values)) in groups.iter().enumerate() {
        assert_eq!(*key, all[number]);
        assert_eq!(values.len(), if number % 7 == 0 { 3 } else { 1 });
    }
}

#[test]
fn text_among_numbers_names_type_and_key() {
    let mut table = Table::new(Combine::Builtin(Builtin::Sum));
    let error = table.add(raw(&"k".into()).as_raw(), raw(&"v".into()).as_raw()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "key \"k\": _sum takes numbers, but a value of type string was emitted: \"v\""
    );
}

#[test]
fn a_record_larger_than_mongodb_takes_is_refused_by_name() {
    let mut table = Table::new(Combine::Values);
    let long = Bson::String("x".repeat(16 * 1024 * 1024));
    let error = table.add(raw(&"big".into()).as_raw(), raw(&long).as_raw()).unwrap_err();
    assert!(error.to_string().starts_with("key \"big\" and its value have 167772"), "{error}");
}

/// Text that does not compress.
fn noise(len: usize) -> Bson {
    let mut state = 7_u64;
    let text = (0..len).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b' ' + ((state >> 40) % 90) as u8)
    });
    Bson::String(text.collect())
}

#[test]
fn the_largest_record_straddles_blocks_that_mongodb_can_store() {
    let max = aviary::shuffle::table::EMIT_BYTES_MAX;
    let records = vec![
        (raw(&"a".into()), raw(&1.into())),
        (raw(&"b".into()), raw(&noise(max - 20))),
        (raw(&"b".into()), raw(&2.into())),
        (raw(&noise(3_000_000)), raw(&noise(3_000_000))),
    ];
    let mut records = records;
    records.sort_by_key(|(key, _)| encode(key.as_raw()));
    for target in [1 << 20, 1 << 30] {
        let blocks = write_run(&records, target);
        assert!(blocks.iter().all(|block| block.data.len() <= block::BLOCK_DATA_BYTES_MAX));
        assert_eq!(blocks.iter().map(|block| block.records).sum::<u32>(), 4);
        for fan_in_max in [2, 64] {
            let limits = MergeLimits { fan_in_max, ..MergeLimits::default() };
            let groups =
                read_all(vec![blocks.clone(), blocks.clone(), blocks.clone()], &limits).unwrap();
            let found: Vec<_> =
                groups.iter().map(|(key, values)| (key.clone(), values.len())).collect();
            assert_eq!(found.len(), 3);
            assert_eq!(found.iter().map(|(_, count)| count).sum::<usize>(), 12);
            let b = groups.iter().find(|(key, _)| *key == raw(&"b".into())).unwrap();
            assert_eq!(b.1.iter().filter(|value| **value == raw(&noise(max - 20))).count(), 3);
        }
        let mut missing = blocks;
        let lost = missing.iter().position(|block| block.records == 0).unwrap();
        missing.remove(lost + 1);
        assert!(read_all(vec![missing], &MergeLimits::default()).is_err());
    }
}

#[test]
fn groups_may_be_skipped_half_read() {
    let records: Vec<_> = (0..500).map(|n| (raw(&(n / 100).into()), raw(&n.into()))).collect();
    let mut merge = Merge::new(
        vec![source(write_run(&records, 64)), source(write_run(&records, 200))],
        &MergeLimits::default(),
    )
    .unwrap();
    let mut firsts = Vec::new();
    while merge.next_group().unwrap() {
        firsts.push(merge.next_value().unwrap().unwrap().as_i32().unwrap());
    }
    assert_eq!(firsts, [0, 100, 200, 300, 400]);
    assert!(!merge.next_group().unwrap());
    assert_eq!(merge.next_value().unwrap(), None);
}

#[test]
fn a_run_out_of_order_or_with_a_gap_is_refused() {
    let records = vec![(raw(&2.into()), raw(&1.into())), (raw(&1.into()), raw(&1.into()))];
    let error = read_all(vec![write_run(&records, 1000)], &MergeLimits::default()).unwrap_err();
    assert_eq!(error.to_string(), "run 0: block 0: key 1 is out of order");
    let records: Vec<_> = (0..100).map(|n| (raw(&n.into()), raw(&n.into()))).collect();
    let mut blocks = write_run(&records, 64);
    blocks.remove(2);
    let error = read_all(vec![blocks], &MergeLimits::default()).unwrap_err();
    assert_eq!(error.to_string(), "run 0: block 2 is missing, block 3 came instead");
}

#[test]
fn temporary_files_are_limited_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let records: Vec<_> = (0..1000).map(|n| (raw(&n.into()), raw(&noise(50)))).collect();
    let run = write_run(&records, 1000);
    let limits = MergeLimits {
        fan_in_max: 2,
        temp_dir: Some(dir.path().to_owned()),
        ..MergeLimits::default()
    };
    let groups = read_all(vec![run.clone(); 5], &limits).unwrap();
    assert_eq!(groups.len(), 1000);
    assert!(groups.iter().all(|(_, values)| values.len() == 5));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    // What several merges have is limited together, and given back.
    let small =
        |temp_space: &TempSpace| MergeLimits { temp_space: temp_space.clone(), ..limits.clone() };
    let open = |temp_space: &TempSpace| {
        let runs = vec![run.clone(); 3].into_iter().map(source).collect();
        Merge::new(runs, &small(temp_space))
    };
    let measured = TempSpace::new(u64::MAX);
    let first = open(&measured).unwrap();
    let one = measured.used();
    drop(first);
    assert!(one > 0 && measured.used() == 0);
    let space = TempSpace::new(one + one / 2);
    let first = open(&space).unwrap();
    assert!(
        matches!(open(&space), Err(MergeError::TempFull { alone: false, limit }) if limit == one + one / 2)
    );
    assert_eq!(space.used(), one);
    drop(first);
    assert_eq!(space.used(), 0);
    open(&space).unwrap();
    let space = TempSpace::new(1000);
    assert!(matches!(open(&space), Err(MergeError::TempFull { alone: true, limit: 1000 })));
    assert_eq!(space.used(), 0);
}

/// Runs itself again as a process that may have few files open, and merges there.
#[test]
fn a_merge_of_many_runs_keeps_few_files_open() {
    const NAME: &str = "runs_and_tables::a_merge_of_many_runs_keeps_few_files_open";
    const INSIDE: &str = "AVIARY_TEST_FEW_FILES";
    if std::env::var_os(INSIDE).is_none() {
        let program = std::env::current_exe().unwrap();
        let ran = std::process::Command::new("bash")
            .args(["-c", "ulimit -S -n 64 && exec \"$0\" --exact --nocapture \"$1\""])
            .args([program.as_os_str(), NAME.as_ref()])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout).into_owned()
            + &String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    // One file for each temporary run would be 250 in the first pass.
    const RUNS: i32 = 1_000;
    let run = |n: i32| {
        let of = |key: i32| (raw(&key.into()), raw(&n.into()));
        write_run(&[of(0), of(1 + n % 7), of(10 + n)], 64)
    };
    for fan_in_max in [2, 5] {
        let limits = MergeLimits { fan_in_max, ..MergeLimits::default() };
        let groups = read_all((0..RUNS).map(run).collect(), &limits).unwrap();
        let keys: Vec<i32> = groups.iter().map(|(key, _)| key.as_raw().as_i32().unwrap()).collect();
        assert!(keys.is_sorted() && keys.len() == 8 + 1_000, "{keys:?}");
        // Values come in the order of the runs, whatever files they went through.
        for ((_, values), (first, step)) in groups.iter().zip([(0, 1), (0, 7), (1, 7)]) {
            let values: Vec<i32> = values.iter().map(|v| v.as_raw().as_i32().unwrap()).collect();
            let expected: Vec<i32> = (first..RUNS).step_by(step).collect();
            assert_eq!(values, expected);
        }
    }
}

#[test]
fn a_table_says_what_memory_it_holds() {
    let mut table = Table::new(Combine::Values);
    assert_eq!(table.bytes(), 0);
    for n in 0..200_000_i32 {
        table.add(raw(&Bson::Int32(n / 10)).as_raw(), raw(&noise(100)).as_raw()).unwrap();
    }
    assert!(table.bytes() > 20_000_000 && table.bytes() < 80_000_000, "{}", table.bytes());
    table.drain_sorted(1, |_| Ok::<(), Infallible>(())).unwrap();
    assert!(table.bytes() <= 4 * aviary::shuffle::table::RETAINED_BYTES_MAX, "{}", table.bytes());
}
