//! The encoding of keys against the rules of the server's order, and values through thick and thin.

use crate::rules::compare;
use crate::support::{number, value};
use aviary::shuffle::partition_of;
use aviary::value::{RawVal, RawValBuf, key};
use bson::Bson;
use proptest::prelude::*;

fn encode(value: &Bson) -> Vec<u8> {
    let mut encoded = Vec::new();
    key::encode(RawValBuf::from_bson(value).unwrap().as_raw(), &mut encoded).unwrap();
    encoded
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn bytes_order_values_as_the_rules_do(values in prop::collection::vec(value(), 12)) {
        let encoded: Vec<Vec<u8>> = values.iter().map(encode).collect();
        for (a, a_bytes) in values.iter().zip(&encoded) {
            for (b, b_bytes) in values.iter().zip(&encoded) {
                prop_assert_eq!(a_bytes.cmp(b_bytes), compare(a, b), "{} {}", a, b);
            }
        }
    }

    #[test]
    fn bytes_order_numbers_as_the_rules_do(numbers in prop::collection::vec(number(), 16)) {
        let encoded: Vec<Vec<u8>> = numbers.iter().map(encode).collect();
        for (a, a_bytes) in numbers.iter().zip(&encoded) {
            for (b, b_bytes) in numbers.iter().zip(&encoded) {
                prop_assert_eq!(a_bytes.cmp(b_bytes), compare(a, b), "{} {}", a, b);
            }
        }
    }

    #[test]
    fn nesting_keeps_the_order(a in value(), b in value()) {
        let wrap = |value: &Bson| encode(&Bson::Array(vec![value.clone(), Bson::Int32(7)]));
        prop_assert_eq!(wrap(&a).cmp(&wrap(&b)), compare(&a, &b), "{} {}", a, b);
    }

    #[test]
    fn values_come_back(value in value()) {
        let raw = RawValBuf::from_bson(&value).unwrap();
        let again = RawValBuf::from_bson(&raw.as_raw().to_bson().unwrap()).unwrap();
        prop_assert_eq!(&raw, &again);
        let mut bytes = Vec::new();
        raw.as_raw().append_to(&mut bytes);
        prop_assert_eq!(RawVal::parse(&bytes).unwrap(), raw.as_raw());
        prop_assert!(raw.to_string().chars().count() <= 80);
    }

    #[test]
    fn cut_values_are_refused(value in value(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        RawValBuf::from_bson(&value).unwrap().as_raw().append_to(&mut bytes);
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(RawVal::parse(&bytes).is_err());
    }

    #[test]
    fn damaged_values_never_panic_and_what_passes_can_be_used(
        value in value(), at in any::<prop::sample::Index>(), byte in any::<u8>()
    ) {
        let mut bytes = Vec::new();
        RawValBuf::from_bson(&value).unwrap().as_raw().append_to(&mut bytes);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(value) = RawVal::parse(&bytes) {
            key::encode(value, &mut Vec::new()).unwrap();
            let _ = value.to_string();
        }
        // Without the check, encoding may fail but must not panic either.
        let _ = key::encode(RawVal { tag: bytes[0], bytes: &bytes[1..] }, &mut Vec::new());
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(value) = RawVal::parse(&bytes) {
            key::encode(value, &mut Vec::new()).unwrap();
        }
    }

    #[test]
    fn equal_keys_meet_in_one_partition(number in -1000_i32..1000, partitions in 1_u32..50) {
        let forms = [Bson::Int32(number), Bson::Int64(number.into()), Bson::Double(number.into())];
        let first = partition_of(&encode(&forms[0]), partitions);
        prop_assert!(first < partitions);
        for form in &forms {
            prop_assert_eq!(partition_of(&encode(form), partitions), first);
        }
    }
}

#[test]
fn nesting_deeper_than_the_limit_is_refused() {
    let nest = |depth| (0..depth).fold(Bson::Int32(1), |inner, _| Bson::Array(vec![inner]));
    assert!(RawValBuf::from_bson(&nest(200)).is_ok());
    assert!(RawValBuf::from_bson(&nest(201)).is_err());
}

#[test]
fn a_long_value_is_shown_short() {
    let shown = RawValBuf::from_bson(&Bson::String("x".repeat(1_000_000))).unwrap().to_string();
    assert!(shown.starts_with("\"xxx") && shown.ends_with('…'), "{shown}");
    assert_eq!(RawValBuf::from_bson(&Bson::Int32(3)).unwrap().to_string(), "3");
}
