//! Random BSON values.

use bson::{
    Binary, Bson, DateTime, Decimal128, Document, JavaScriptCodeWithScope, Regex, Timestamp,
};
use proptest::prelude::*;

fn decimal(text: &str) -> Bson {
    Bson::Decimal128(text.parse().unwrap())
}

/// Numbers that lie close together, at the edges, and in all four types.
pub fn number() -> impl Strategy<Value = Bson> {
    let edge = prop_oneof![
        Just(0_i64),
        Just(1),
        Just(-1),
        Just(i64::MAX),
        Just(i64::MIN),
        Just(1 << 53),
        Just((1 << 53) + 1),
        -3..4_i64,
        any::<i64>(),
        (0..63_u32, -1..2_i64).prop_map(|(bit, off)| (1_i64 << bit) + off),
    ];
    let double = prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        edge.clone().prop_map(|number| number as f64),
        (-40..40_i32, 0..9_u32)
            .prop_map(|(number, shift)| f64::from(number) / f64::from(1_u32 << shift)),
        (-40..40_i32).prop_map(|number| f64::from(number) / 10.0),
        Just(-0.0),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(f64::NAN),
        Just(f64::MAX),
        Just(5e-324),
        Just(1e37),
        Just(1e38),
        Just(9e37),
        Just(2.0_f64.powi(127)),
    ];
    prop_oneof![
        any::<i32>().prop_map(Bson::Int32),
        (-3..4_i32).prop_map(Bson::Int32),
        edge.clone().prop_map(Bson::Int64),
        double.clone().prop_map(Bson::Double),
        (edge, -45..45_i32).prop_map(|(digits, exponent)| decimal(&format!("{digits}E{exponent}"))),
        (-40..40_i64, -3..2_i32)
            .prop_map(|(digits, exponent)| decimal(&format!("{digits}E{exponent}"))),
        (1..10_u8, -6100..6100_i32)
            .prop_map(|(digit, exponent)| decimal(&format!("{digit}E{exponent}"))),
        // A double cut to 34 digits, which lies just beside the double.
        double
            .prop_filter("finite", |number| number.is_finite())
            .prop_map(|number| decimal(&format!("{number:.33E}"))),
        prop_oneof![
            Just("NaN"),
            Just("-NaN"),
            Just("Infinity"),
            Just("-Infinity"),
            Just("-0E-20"),
            Just("0E+100"),
            Just("9999999999999999999999999999999999E6111"),
            Just("1E-6176")
        ]
        .prop_map(decimal),
        // Bit patterns that decimal128 leaves unused stand for zero.
        Just(Bson::Decimal128(Decimal128::from_bytes([
            0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
            0x00, 0x6C
        ]))),
    ]
}

fn short_text() -> impl Strategy<Value = String> {
    prop_oneof!["[ab\u{0}\u{1}é]{0,4}", "[a-c]{0,2}", "\\PC{0,12}"]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]{0,2}", "[a-c0é]{1,3}"]
}

fn leaf() -> impl Strategy<Value = Bson> {
    let id = prop::array::uniform12(prop_oneof![Just(0_u8), any::<u8>()]);
    prop_oneof![
        6 => number(),
        3 => short_text().prop_map(Bson::String),
        1 => short_text().prop_map(Bson::Symbol),
        1 => Just(Bson::Null),
        1 => Just(Bson::Undefined),
        1 => Just(Bson::MinKey),
        1 => Just(Bson::MaxKey),
        1 => any::<bool>().prop_map(Bson::Boolean),
        1 => prop_oneof![any::<i64>(), -2..3_i64].prop_map(|millis| Bson::DateTime(DateTime::from_millis(millis))),
        1 => (any::<u32>(), 0..3_u32).prop_map(|(time, increment)| Bson::Timestamp(Timestamp { time, increment })),
        1 => id.prop_map(|id| Bson::ObjectId(id.into())),
        1 => (prop_oneof![Just(0_u8), Just(2), Just(5), Just(0x80), Just(0xFF)], prop::collection::vec(any::<u8>(), 0..6))
            .prop_map(|(subtype, bytes)| Bson::Binary(Binary { subtype: subtype.into(), bytes })),
        1 => ("[ab]{0,3}", "[im]?").prop_map(|(pattern, options)| Bson::RegularExpression(Regex {
            pattern: pattern.as_str().try_into().unwrap(), options: options.as_str().try_into().unwrap() })),
        1 => short_text().prop_map(Bson::JavaScriptCode),
    ]
}

/// Any value, nested a few levels.
pub fn value() -> impl Strategy<Value = Bson> {
    leaf().prop_recursive(3, 12, 4, |inner| {
        let document = prop::collection::vec((name(), inner.clone()), 0..4)
            .prop_map(|fields| fields.into_iter().collect::<Document>())
            .boxed();
        prop_oneof![
            document.clone().prop_map(Bson::Document),
            prop::collection::vec(inner, 0..4).prop_map(Bson::Array),
            (short_text(), document).prop_map(|(code, scope)| Bson::JavaScriptCodeWithScope(
                JavaScriptCodeWithScope { code, scope }
            )),
        ]
    })
}
