//! Why an expression of a sweep differs. Each reason is a heading of `docs/reference/javascript.md`.

use crate::sweeps::Difference;

/// What differs on purpose.
pub struct Reason {
    /// The heading.
    pub says: &'static str,
    applies: fn(&Difference<'_>) -> bool,
}

/// The first that applies is what counts.
pub const REASONS: &[Reason] = &[
    Reason {
        says: "An invalid Date is refused",
        applies: |d| {
            d.server_has("1970-01-01 0:00:00.0") || d.text.contains("bsonsize({d: new Date(")
        },
    },
    Reason {
        says: "Old binaries are valid",
        applies: |d| d.has(&["BinData(2", "HexData(2"]) && d.server_has("malformed"),
    },
    Reason {
        says: "The subtype of a binary is hexadecimal in JSON",
        applies: |d| d.server_has("$type"),
    },
    Reason {
        says: "Values that wrap others are written as what they hold",
        applies: |d| {
            d.has(&[
                "new Number(",
                "new String(",
                "new Boolean(",
                "Object('x')",
                "new Object(5)",
                "Uint8Array",
                "ArrayBuffer",
            ])
        },
    },
    Reason {
        says: "BigInt is written",
        applies: |d| d.case == "big integers" || d.has_big_integer(),
    },
    Reason {
        says: "Padding gives text",
        applies: |d| {
            d.has(&["zeroPad(", ".pad("]) && d.server[0] == "object" && d.aviary[0] == "string"
        },
    },
    Reason {
        says: "What servers added is not enumerated",
        applies: |d| {
            d.server_has("ltrim")
                || d.case.starts_with("prototype of ")
                || d.text.contains("for (var")
                || d.has(&["Object.getOwnPropertyNames(", "Object.keySet("])
        },
    },
    Reason {
        says: "Map, Set and the iterators are those of the language",
        applies: |d| d.text.contains("Map("),
    },
    Reason {
        says: "More of the language is there",
        applies: |d| {
            d.has(&[
                "isWellFormed",
                "normalize",
                "\\p{L}",
                "'v')",
                "btoa",
                "groupBy",
                "hasOwn",
                "toSorted",
                "#p",
                "startsWith(/a/)",
            ])
        },
    },
    Reason {
        says: "More of the utilities is there",
        applies: |d| {
            d.has(&[
                "equals",
                "toHexString",
                "toNumber",
                "toJSON",
                "tojson()",
                "BSONSymbol",
                "console",
                "Reflect",
                "count",
                "SharedArrayBuffer",
                "WeakRef",
                "Symbol(",
                "structuredClone",
                "assert",
                "Atomics",
                "bsonObjToArray(5)",
                "typeof Iterator",
            ])
        },
    },
    Reason {
        says: "Less of the shell is there",
        applies: |d| {
            d.has(&[
                "MongoURI",
                "__lastres__",
                "_convertException",
                "WebAssembly",
                "getJSHeapLimitMB",
            ])
        },
    },
    Reason {
        says: "Utilities have plain names",
        applies: |d| {
            d.case == "the utilities themselves" && d.has(&[".name", ".length"])
                || d.server[0] == "function" && d.aviary[0] == "function"
        },
    },
    Reason {
        says: "Copies in depth keep what they cannot copy",
        applies: |d| d.text.contains("Object.extend(") && d.text.contains("true)"),
    },
    Reason {
        says: "Sizes are of what is written",
        applies: |d| d.text.contains("Object.bsonsize("),
    },
    Reason {
        says: "Every object can be shown",
        applies: |d| {
            d.server_has("[Object]")
                || d.has(&["Object.create(", "tojsonObject("])
                || d.case == "text that is written"
        },
    },
    Reason { says: "tostrictjson writes one line", applies: |d| d.text.contains("tostrictjson(") },
    Reason {
        says: "Lists are indented like everything else",
        applies: |d| d.text.contains("Array.tojson([1, [2]], '  ')"),
    },
    Reason {
        says: "Comparing tells the order",
        applies: |d| d.has(&["bsonWoCompare(", "bsonUnorderedFieldsCompare("]) && d.same_sign(),
    },
    Reason {
        says: "An ObjectId is made of an ObjectId",
        applies: |d| d.text.contains("ObjectId(ObjectId("),
    },
    Reason {
        says: "The number in a reference keeps its type",
        applies: |d| d.text.contains("DBRef(") && d.text.contains("NumberInt(3)"),
    },
    Reason {
        says: "Code, DBPointer and DBRef are values",
        applies: |d| d.has(&["Code(", "DBPointer(", "DBRef("]),
    },
    Reason {
        says: "A Timestamp has both parts",
        applies: |d| d.case == "writing to Timestamp" && d.text.contains("delete x.t"),
    },
    Reason {
        says: "A document is an object like others",
        applies: |d| {
            d.has(&[
                "__proto__",
                "Object.freeze",
                "Object.entries(it)",
                "Object.values(it)",
                "defineProperty(it",
                "setPrototypeOf",
            ])
        },
    },
    Reason {
        says: "sin, cos and tan are rounded correctly",
        applies: |d| d.has(&["Math.sin(", "Math.cos(", "Math.tan("]) && d.is_last_digit(),
    },
    Reason {
        says: "An empty expression is written empty",
        applies: |d| d.aviary_has("pattern: \"\"") || d.server_has("pattern: \"(?:)\""),
    },
    Reason {
        says: "Helpers give what an object holds",
        applies: |d| d.has(&["bsonObjToArray(", "sortDoc("]),
    },
    Reason {
        says: "Half a character has no hash",
        applies: |d| d.text.contains("hex_md5('\\ud800')"),
    },
    Reason {
        says: "What JSON is made of",
        applies: |d| d.server.get(1).is_some_and(|tag| tag == "[object BSON]"),
    },
];

impl Reason {
    /// The reason for a difference, if anybody has given one.
    pub fn of(difference: &Difference<'_>) -> Option<&'static Self> {
        REASONS.iter().find(|reason| (reason.applies)(difference))
    }
}

impl Difference<'_> {
    fn has(&self, texts: &[&str]) -> bool {
        texts.iter().any(|text| self.text.contains(text))
    }

    fn server_has(&self, text: &str) -> bool {
        self.server.iter().any(|side| side.contains(text))
    }

    fn aviary_has(&self, text: &str) -> bool {
        self.aviary.iter().any(|side| side.contains(text))
    }

    fn has_big_integer(&self) -> bool {
        let bytes = self.text.as_bytes();
        bytes.windows(2).any(|pair| pair[0].is_ascii_digit() && pair[1] == b'n')
    }

    fn numbers(&self) -> Option<(f64, f64)> {
        Some((self.server.get(2)?.parse().ok()?, self.aviary.get(2)?.parse().ok()?))
    }

    fn same_sign(&self) -> bool {
        self.numbers().is_some_and(|(server, aviary)| {
            server * aviary > 0.0 || (server.abs() < 0.5 && aviary.abs() < 0.5)
        })
    }

    fn is_last_digit(&self) -> bool {
        self.numbers()
            .is_some_and(|(server, aviary)| (server - aviary).abs() <= server.abs() * f64::EPSILON)
    }
}
