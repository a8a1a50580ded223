(function (native, global) {
"use strict";
// The utilities of MongoDB's functions. `native` is in value.h. Evaluated when a function first needs one of them.

const INT_MAX = 2147483647, INT_MIN = -2147483648;
const BINARY = 5, OBJECT_ID = 7, DATE = 9, REGEX = 11, DB_POINTER = 12, CODE = 13, SYMBOL = 14, CODE_W_SCOPE = 15;
const INT32 = 16, TIMESTAMP = 17, INT64 = 18, DECIMAL = 19, MIN_KEY = 255, MAX_KEY = 127;
// No type of BSON: documents that are references.
const REFERENCE = 254;

function define(target, members) {
    const all = Object.getOwnPropertyDescriptors(members);
    for (const name of Object.keys(all)) all[name].enumerable = false;
    Object.defineProperties(target, all);
}

// A function that builds values of a BSON type, with or without `new`.
function type(code, constructor, members, name) {
    const proto = native.proto(code);
    define(proto, members);
    if (constructor || name)
        Object.defineProperty(proto, Symbol.toStringTag, { value: name || constructor.name, configurable: true });
    if (constructor) {
        constructor.prototype = proto;
        define(proto, { constructor });
    }
    return constructor;
}

function little(n, bytes) {
    let hex = "", rest = BigInt.asUintN(bytes * 8, BigInt(n));
    for (let i = 0; i < bytes; i++) {
        hex += Number(rest & 255n).toString(16).padStart(2, "0");
        rest >>= 8n;
    }
    return hex;
}

function fromLittle(hex) {
    let n = 0n;
    for (let i = hex.length - 2; i >= 0; i -= 2) n = (n << 8n) | BigInt(parseInt(hex.slice(i, i + 2), 16));
    return n;
}

function latinToHex(text) {
    let hex = "";
    for (let i = 0; i < text.length; i++) hex += text.charCodeAt(i).toString(16).padStart(2, "0");
    return hex;
}

function hexToLatin(hex) {
    let text = "";
    for (let i = 0; i < hex.length; i += 2) text += String.fromCharCode(parseInt(hex.slice(i, i + 2), 16));
    return text;
}

const cstring = (text) => latinToHex(native.utf8(text)) + "00";
const bsonText = (text) => { const hex = cstring(text); return little(hex.length / 2, 4) + hex; };

// Refuses a call with other numbers of arguments than these.
function counted(name, all, ...counts) {
    if (!counts.includes(all.length))
        throw new Error(name + " takes " + counts.join(" or ") + (counts.length === 1 && counts[0] === 1 ? " argument" : " arguments") +
            ", and was given " + all.length);
}

function noDatabase() { throw new Error("a function cannot read from the database: a reference is not fetched"); }

// --- ObjectId ---------------------------------------------------------------------------------------------------
let counter = -1, machine = "";
function newObjectId() {
    if (counter < 0) {
        counter = Math.floor(Math.random() * 0x1000000);
        for (let i = 0; i < 5; i++) machine += Math.floor(Math.random() * 256).toString(16).padStart(2, "0");
    }
    counter = (counter + 1) % 0x1000000;
    const seconds = Math.floor(Date.now() / 1000) >>> 0;
    return seconds.toString(16).padStart(8, "0") + machine + counter.toString(16).padStart(6, "0");
}
const ObjectId = type(OBJECT_ID, function ObjectId(id) {
    if (id === undefined && arguments.length < 2) return native.make(OBJECT_ID, newObjectId());
    if (native.type(id) === OBJECT_ID) return id;
    if (typeof id !== "string" || !/^[0-9a-fA-F]{24}$/.test(id))
        throw new Error("invalid object id: it takes a string of 24 hexadecimal digits");
    return native.make(OBJECT_ID, id);
}, {
    get str() { return native.hex(this); },
    toString() { return 'ObjectId("' + native.hex(this) + '")'; },
    toHexString() { return native.hex(this); },
    valueOf() { return native.hex(this); },
    equals(other) { return native.type(other) === OBJECT_ID && native.hex(this) === native.hex(other); },
    getTimestamp() { return new Date(parseInt(native.hex(this).slice(0, 8), 16) * 1000); },
    tojson() { return this.toString(); },
    toJSON() { return { $oid: native.hex(this) }; },
    isObjectId: true,
});
define(ObjectId, {
    fromDate(date) {
        if (!(date instanceof Date)) throw new Error("an ObjectId is made from a Date, not from " + tojson(date));
        const seconds = Math.floor(date.getTime() / 1000);
        if (!(seconds >= 0 && seconds <= 4294967295)) throw new Error("out of an ObjectId's range: " + tojson(date));
        return native.make(OBJECT_ID, seconds.toString(16).padStart(8, "0") + "0".repeat(16));
    },
});

// --- numbers ----------------------------------------------------------------------------------------------------
// What the language makes of a value as a number: NaN where it is none, but for what has no number at all.
const INTEGER = /^[-+]?[0-9]+$/;
const NumberLong = type(INT64, function NumberLong(n, top, bottom) {
    if (arguments.length === 0) return native.long(0);
    counted("NumberLong", arguments, 0, 1, 3);
    if (arguments.length === 3) {
        for (const part of [n, top, bottom])
            if (typeof part !== "number") throw new Error("the parts of a NumberLong are numbers");
        for (const part of [top, bottom])
            if (!(part >= 0 && part <= 4294967295)) throw new Error("the halves of a NumberLong are from 0 to 4294967295");
        return native.long(BigInt.asIntN(64, (BigInt(Math.trunc(top)) << 32n) | BigInt(Math.trunc(bottom))));
    }
    if (native.type(n) === INT64) return n;
    if (typeof n === "string") {
        if (!INTEGER.test(n)) throw new Error("cannot make a NumberLong of " + JSON.stringify(n) + ": it is no whole number");
        const integer = BigInt(n.replace(/^\+/, ""));
        if (BigInt.asIntN(64, integer) !== integer) throw new Error("could not convert to a 64-bit integer: " + n);
        return native.long(integer);
    }
    if (typeof n === "number") {
        if (!Number.isInteger(n) || n >= 9223372036854775807 || n < -9223372036854775808)
            throw new Error("cannot make a NumberLong of " + n + ": it is no whole number of 64 bits");
        return native.long(BigInt(n));
    }
    if (typeof n === "bigint") throw new TypeError("cannot make a NumberLong of a BigInt: a BigInt is written as a NumberLong as it is");
    const number = Math.trunc(Number(n));
    return native.long(Number.isFinite(number) ? BigInt.asIntN(64, BigInt(number)) : 0n);
}, {
    valueOf: native.number,
    toNumber: native.number,
    toBigInt() { return native.int64(this); },
    get floatApprox() { return this.toNumber(); },
    get exactValueString() { return native.int64(this).toString(); },
    get top() { return Number(native.int64(this) >> 32n); },
    get bottom() { return Number(BigInt.asUintN(32, native.int64(this))); },
    toString() {
        const n = native.int64(this);
        return n > BigInt(INT_MIN) && n <= BigInt(INT_MAX) ? "NumberLong(" + n + ")" : 'NumberLong("' + n + '")';
    },
    compare(other) {
        if (native.type(other) !== INT64) throw new Error("a NumberLong is compared with another one, not with " + show([other]));
        const a = native.int64(this), b = native.int64(other);
        return a < b ? -1 : a > b ? 1 : 0;
    },
    equals(other) { return native.type(other) === INT64 && native.int64(this) === native.int64(other); },
    tojson() { return this.toString(); },
    toJSON() { return { $numberLong: native.int64(this).toString() }; },
});

const NumberInt = type(INT32, function NumberInt(n) {
    if (arguments.length === 0) n = 0;
    else counted("NumberInt", arguments, 0, 1);
    if (native.type(n) === INT32) return n;
    return native.make(INT32, little(+n | 0, 4));
}, {
    valueOf: native.number,
    toNumber: native.number,
    toString() { return "NumberInt(" + native.number.call(this) + ")"; },
    tojson() { return this.toString(); },
    toJSON() { return native.number.call(this); },
});

const DECIMAL_DIGITS = 34, EXPONENT_BIAS = 6176, EXPONENT_MAX = 6111, EXPONENT_MIN = -6176;
function decimalToText(hex) {
    const bits = fromLittle(hex), sign = bits >> 127n ? "-" : "", combination = (bits >> 122n) & 31n;
    if (combination === 31n) return "NaN";
    if (combination === 30n) return sign + "Infinity";
    // Coefficients of the second form are beyond 34 digits: they count as 0.
    const second = combination >> 3n === 3n;
    const exponent = Number((bits >> (second ? 111n : 113n)) & 0x3FFFn) - EXPONENT_BIAS;
    let coefficient = second ? 0n : bits & ((1n << 113n) - 1n);
    if (coefficient >= 10n ** 34n) coefficient = 0n;
    const digits = coefficient.toString(), adjusted = exponent + digits.length - 1;
    if (exponent > 0 || adjusted < -6) {
        const mark = adjusted >= 0 ? "E+" : "E";
        return sign + digits[0] + (digits.length > 1 ? "." + digits.slice(1) : "") + mark + adjusted;
    }
    if (exponent === 0) return sign + digits;
    const padded = digits.padStart(1 - exponent, "0");
    return sign + padded.slice(0, exponent) + "." + padded.slice(exponent);
}
function decimalFromText(text) {
    const special = /^([-+]?)(?:(inf(?:inity)?)|nan)$/i.exec(text);
    if (special) return little(special[2] ? (special[1] === "-" ? 0xF8n : 0x78n) << 120n : 0x7Cn << 120n, 16);
    const parts = /^([-+]?)([0-9]*)\.?([0-9]*)(?:e([-+]?[0-9]+))?$/i.exec(text);
    if (!parts || parts[2] + parts[3] === "") throw new Error("cannot make a NumberDecimal of " + JSON.stringify(text));
    let digits = (parts[2] + parts[3]).replace(/^0+(?=.)/, ""), exponent = Number(parts[4] || 0) - parts[3].length;
    if (digits.length > DECIMAL_DIGITS) {
        const cut = digits.length - DECIMAL_DIGITS;
        if (/[1-9]/.test(digits.slice(DECIMAL_DIGITS)))
            throw new Error("a NumberDecimal has room for 34 digits, and this text has more: " + text);
        digits = digits.slice(0, DECIMAL_DIGITS);
        exponent += cut;
    }
    if (digits === "0") exponent = Math.max(EXPONENT_MIN, Math.min(EXPONENT_MAX, exponent));
    while (exponent > EXPONENT_MAX && digits.length < DECIMAL_DIGITS) { digits += "0"; exponent--; }
    while (exponent < EXPONENT_MIN && digits.length > 1 && digits.endsWith("0")) { digits = digits.slice(0, -1); exponent++; }
    if (exponent > EXPONENT_MAX || exponent < EXPONENT_MIN) throw new Error("out of a decimal's range: " + text);
    const sign = parts[1] === "-" ? 1n << 127n : 0n;
    return little(sign | (BigInt(exponent + EXPONENT_BIAS) << 113n) | BigInt(digits), 16);
}
const NumberDecimal = type(DECIMAL, function NumberDecimal(n) {
    if (arguments.length === 0) return native.make(DECIMAL, decimalFromText("0"));
    counted("NumberDecimal", arguments, 0, 1);
    if (native.type(n) === DECIMAL) return n;
    if (native.type(n) === INT64) n = String(native.int64(n));
    else if (native.type(n) === INT32) n = String(native.number.call(n));
    if (typeof n === "string") return native.make(DECIMAL, decimalFromText(n));
    if (typeof n !== "number") throw new Error("a NumberDecimal is made of a number or of text, not of " + show([n]));
    // The servers keep 15 digits of a double, and write them all.
    const text = Object.is(n, -0) ? "-0" : Number.isFinite(n) && n !== 0 ? n.toPrecision(15) : String(n);
    return native.make(DECIMAL, decimalFromText(text));
}, {
    toString() { return 'NumberDecimal("' + decimalToText(native.hex(this)) + '")'; },
    toNumber() { return Number(decimalToText(native.hex(this))); },
    equals(other) { return native.type(other) === DECIMAL && native.hex(this) === native.hex(other); },
    tojson() { return this.toString(); },
    toJSON() { return { $numberDecimal: decimalToText(native.hex(this)) }; },
});

// --- times ------------------------------------------------------------------------------------------------------
const Timestamp = type(TIMESTAMP, function Timestamp(t, i) {
    if (arguments.length === 0) t = i = 0;
    else counted("Timestamp", arguments, 0, 2);
    const parts = [t, i].map((part) => {
        if (typeof part !== "number") throw new Error("the parts of a Timestamp are numbers, not " + show([part]));
        const whole = Number.isFinite(part) ? Math.trunc(part) : 0;
        if (whole < 0 || whole > 4294967295) throw new Error("the parts of a Timestamp are from 0 to 4294967295, not " + part);
        return whole;
    });
    return native.make(TIMESTAMP, little(parts[1], 4) + little(parts[0], 4));
}, {
    getTime() { return this.t; },
    getInc() { return this.i; },
    toString() { return "Timestamp(" + this.t + ", " + this.i + ")"; },
    toStringIncomparable() { return this.toString(); },
    tojson() { return this.toString(); },
    toJSON() { return { $timestamp: { t: this.t, i: this.i } }; },
});

function ISODate(text) {
    // Nothing, 0 and the like are now, as on the servers.
    if (!text) return new Date();
    const parts = /^(\d{4})-?(\d\d)-?(\d\d)(?:[T ](\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.(\d+))?)?)?\s*(Z|([-+])(\d\d)(?::?(\d\d))?)?)?$/
        .exec(text);
    if (!parts) throw new Error("invalid ISO date: " + text);
    const part = (i) => parseInt(parts[i] || "0", 10);
    const date = new Date(0);
    date.setUTCFullYear(part(1), part(2) - 1, part(3));
    date.setUTCHours(part(4), part(5), part(6), Math.round(Number("0." + (parts[7] || "0")) * 1000));
    if (parts[9]) date.setTime(date.getTime() - (parts[9] === "-" ? -1 : 1) * (part(10) * 60 + part(11)) * 60000);
    if (Number.isNaN(date.getTime())) throw new Error("invalid ISO date: " + text);
    return date;
}
type(DATE, null, {
    valueOf() { return Number(native.int64(this)); },
    getTime() { return Number(native.int64(this)); },
    toString() { return "new Date(" + native.int64(this) + ")"; },
    tojson() { return this.toString(); },
    toJSON() { return { $date: { $numberLong: native.int64(this).toString() } }; },
});

// --- bytes ------------------------------------------------------------------------------------------------------
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;
const binary = (subtype, hex) => {
    // The old binary subtype 2 has its length inside once more.
    const inner = subtype === 2 ? little(hex.length / 2, 4) + hex : hex;
    return native.make(BINARY, little(inner.length / 2, 4) + little(subtype, 1) + inner);
};
const payload = (value) => native.hex(value).slice(value.subtype() === 2 ? 18 : 10);
const dashed = (hex) => hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
function subtypeOf(n) {
    if (typeof n !== "number") throw new Error("a BinData subtype is a number from 0 to 255, not " + show([n]));
    const whole = Number.isFinite(n) ? Math.trunc(n) : 0;
    if (whole < 0 || whole > 255) throw new Error("a BinData subtype is from 0 to 255, not " + n);
    return whole;
}
const BinData = type(BINARY, function BinData(subtype, text) {
    counted("BinData", arguments, 2);
    subtype = subtypeOf(subtype);
    if (typeof text !== "string" || !BASE64.test(text)) throw new Error("BinData takes a subtype and base64 text");
    return binary(subtype, latinToHex(atob(text)));
}, {
    subtype() { return parseInt(native.hex(this).slice(8, 10), 16); },
    get type() { return this.subtype(); },
    get len() { return payload(this).length / 2; },
    length() { return payload(this).length / 2; },
    hex() { return payload(this); },
    base64() { return btoa(hexToLatin(payload(this))); },
    toString() {
        const hex = payload(this);
        return this.subtype() === 4 && hex.length === 32 ? 'UUID("' + dashed(hex) + '")'
            : "BinData(" + this.subtype() + ',"' + this.base64() + '")';
    },
    equals(other) { return native.type(other) === BINARY && native.hex(this) === native.hex(other); },
    tojson() { return this.toString(); },
    toJSON() { return { $binary: this.base64(), $type: this.subtype().toString(16).padStart(2, "0") }; },
});
function HexData(subtype, hex) {
    counted("HexData", arguments, 2);
    subtype = subtypeOf(subtype);
    if (typeof hex !== "string" || !/^(?:[0-9a-fA-F]{2})*$/.test(hex)) throw new Error("HexData takes a subtype and hexadecimal text");
    return binary(subtype, hex.toLowerCase());
}
function UUID(text) {
    let hex, subtype = 4;
    if (arguments.length === 0) {
        hex = "";
        for (let i = 0; i < 16; i++) {
            let byte = Math.floor(Math.random() * 256);
            if (i === 6) byte = (byte & 0x0F) | 0x40;
            if (i === 8) byte = (byte & 0x3F) | 0x80;
            hex += byte.toString(16).padStart(2, "0");
        }
    } else {
        counted("UUID", arguments, 0, 1);
        if (typeof text === "string" && /^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$/.test(text)) hex = text.replace(/-/g, "");
        else if (typeof text === "string" && /^[0-9a-fA-F]{32}$/.test(text)) [hex, subtype] = [text, 3]; // as on the servers
        else throw new Error("UUID takes a string of 32 hexadecimal digits");
    }
    return binary(subtype, hex.toLowerCase());
}
function MD5(hex) {
    counted("MD5", arguments, 1);
    if (typeof hex !== "string" || !/^[0-9a-fA-F]{32}$/.test(hex)) throw new Error("MD5 takes a string of 32 hexadecimal digits");
    return binary(5, hex.toLowerCase());
}

// --- the rest ---------------------------------------------------------------------------------------------------
// The ends are one object each, which serves as its own constructor.
const MinKey = native.make(MIN_KEY, ""), MaxKey = native.make(MAX_KEY, "");
for (const [code, end, name, key] of [[MIN_KEY, MinKey, "MinKey", "$minKey"], [MAX_KEY, MaxKey, "MaxKey", "$maxKey"]]) {
    type(code, null, {
        constructor: { MinKey() {}, MaxKey() {} }[name],
        toString() { return "[object " + name + "]"; },
        tojson() { return '{ "' + key + '" : 1 }'; },
        toJSON() { return { [key]: 1 }; },
        [Symbol.hasInstance](x) { return typed(x) === code; },
    }, name);
}
function scopeText(scope) {
    const text = (x) => typeof x === "number" && Number.isInteger(x) ? x + ".0" : isPlain(x) && !Array.isArray(x) ? scopeText(x) : tojsononeline(x);
    const fields = Object.keys(scope || {}).map((name) => name + ": " + text(scope[name]));
    return fields.length === 0 ? "{}" : "{ " + fields.join(", ") + " }";
}
const codeFields = (x) => x.scope === undefined ? { code: x.code } : { code: x.code, scope: x.scope };
const Code = type(CODE, function Code(code, scope) {
    if (arguments.length === 0) code = "";
    else counted("Code", arguments, 0, 1, 2);
    if (typeof code !== "string") throw new Error("the code of a Code is text, not " + show([code]));
    const text = bsonText(code);
    if (arguments.length < 2) return native.make(CODE, text);
    if (typeof scope !== "object" || scope === null) throw new Error("the scope of a Code is an object of variables");
    if (Array.isArray(scope) || !isPlain(scope)) scope = { ...scope };
    const rest = text + native.bson(scope);
    return native.make(CODE_W_SCOPE, little(4 + rest.length / 2, 4) + rest);
}, {
    get code() { return native.text(this); },
    get scope() { return native.scope(this); },
    // To the letter of the servers' own.
    toString() { return 'Code({"code":"' + this.code + '","scope":' + scopeText(this.scope) + '"})'; },
    tojson(indent, nolint) { return tojson(codeFields(this), indent, nolint); },
    toJSON() { return codeFields(this); },
});
Object.setPrototypeOf(native.proto(CODE_W_SCOPE), Code.prototype);
const BSONSymbol = type(SYMBOL, function BSONSymbol(text) { return native.make(SYMBOL, bsonText(String(text))); }, {
    valueOf() { return native.text(this); },
    toString() { return native.text(this); },
    tojson() { return JSON.stringify(native.text(this)); },
    toJSON() { return native.text(this); },
});
const DBPointer = type(DB_POINTER, function DBPointer(ns, id) {
    counted("DBPointer", arguments, 2);
    if (typeof ns !== "string" || native.type(id) !== OBJECT_ID)
        throw new Error("DBPointer takes the name of a collection and an ObjectId");
    return native.make(DB_POINTER, bsonText(String(ns)) + native.hex(ObjectId(id)));
}, {
    get ns() { return native.text(this); },
    get id() { return native.make(OBJECT_ID, native.hex(this).slice(-24)); },
    getCollection() { return this.ns; },
    getId() { return this.id; },
    fetch: noDatabase,
    toString() { return "DBPointer(" + tojson(this.ns) + ", " + tojson(this.id) + ")"; },
    tojson() { return this.toString(); },
    toJSON() { return { ns: this.ns, id: this.id }; },
});
// A regular expression that JavaScript has not: what it is used for says so.
const regexParts = (x) => {
    const bytes = hexToLatin(native.hex(x)).split("\0");
    return [decodeURIComponent(escape(bytes[0])), bytes[1]];
};
function foreignRegex() {
    const [pattern, options] = regexParts(this), more = [...options].filter((o) => !"dgimsuy".includes(o));
    throw new Error("the regular expression /" + pattern + "/" + options + (more.length > 0
        ? " has the option " + more.join(" and ") + ", which JavaScript lacks" : " is not one of JavaScript's"));
}
type(REGEX, null, {
    get source() { return regexParts(this)[0]; },
    get flags() { return regexParts(this)[1]; },
    exec: foreignRegex, test: foreignRegex, compile: foreignRegex,
    [Symbol.match]: foreignRegex, [Symbol.matchAll]: foreignRegex, [Symbol.replace]: foreignRegex,
    [Symbol.search]: foreignRegex, [Symbol.split]: foreignRegex,
    toString() { return "/" + regexParts(this).join("/"); },
    tojson() { return this.toString(); },
}, "RegExp");
// A reference is an object with the fields of one. A document whose fields begin with $ref and $id is given the same
// prototype when it is read.
function DBRef(collection, id, db) {
    counted("DBRef", arguments, 2, 3);
    if (typeof collection !== "string" || (arguments.length > 2 && typeof db !== "string"))
        throw new Error("DBRef takes the name of a collection, an id, and the name of a database if it is another");
    const ref = Object.create(DBRef.prototype);
    ref.$ref = collection;
    ref.$id = id;
    if (arguments.length > 2) ref.$db = db;
    return ref;
}
DBRef.prototype = native.proto(REFERENCE);
Object.defineProperty(DBRef.prototype, Symbol.toStringTag, { value: "DBRef", configurable: true });
define(DBRef.prototype, {
    constructor: DBRef,
    getCollection() { return this.$ref; },
    getRef() { return this.$ref; },
    getId() { return this.$id; },
    getDb() { return this.$db || undefined; },
    fetch: noDatabase,
    toString() { return "DBRef(" + [this.$ref, this.$id].concat(this.$db || []).map((x) => tojson(x)).join(", ") + ")"; },
    tojson() { return this.toString(); },
});

// With spaces where the servers' own have them, to the letter.
function tojsonObject(x, indent, nolint) {
    if (typeof x !== "object" || x === null) throw new Error("tojsonObject takes an object, not " + show([x]));
    const end = nolint ? " " : "\n", inner = (indent || "") + (nolint ? "" : "\t");
    const fields = [];
    for (const name in x) fields.push(inner + JSON.stringify(name) + " : " + tojson(x[name], inner, nolint));
    return "{" + end + (fields.length > 0 ? fields.join("," + end) : inner) + end + inner.slice(1) + "}";
}
function tojsonArray(x, indent, nolint) {
    if (x.length === 0) return "[ ]";
    const end = nolint ? " " : "\n", inner = nolint ? "" : indent + "\t";
    let text = "[" + end;
    for (let i = 0; i < x.length; i++)
        text += inner + tojson(x[i], inner, nolint) + (i < x.length - 1 ? "," : "") + end;
    return text + (nolint ? "" : indent) + "]";
}
function dateText() {
    const padded = (n, width) => String(n).padStart(width, "0"), ms = this.getUTCMilliseconds();
    const day = [padded(this.getUTCFullYear(), 4), padded(this.getUTCMonth() + 1, 2), padded(this.getUTCDate(), 2)].join("-");
    const time = [this.getUTCHours(), this.getUTCMinutes(), this.getUTCSeconds()].map((n) => padded(n, 2)).join(":");
    return 'ISODate("' + day + "T" + time + (ms ? "." + padded(ms, 3) : "") + 'Z")';
}
function tojson(x, indent, nolint) {
    if (x === null) return "null";
    if (x === undefined) return "undefined";
    indent = indent || "";
    if (typed(x) >= 0) return typeof x.tojson === "function" ? x.tojson(indent, nolint) : String(x);
    switch (typeof x) {
    case "string": return JSON.stringify(x);
    case "number":
    case "boolean": return String(x);
    case "bigint": return 'NumberLong("' + x + '")';
    case "function":
    case "symbol": return x.toString();
    }
    if (x instanceof Date) return dateText.call(x);
    if (x instanceof RegExp || x instanceof Error) return x.toString();
    if (typeof x.tojson === "function" && x.tojson !== tojson) return x.tojson(indent, nolint);
    const text = Array.isArray(x) ? tojsonArray(x, indent, nolint) : tojsonObject(x, indent, nolint);
    return !nolint && indent === "" && text.length < 80 ? text.replace(/[\t\r\n]+/g, " ") : text;
}
const tojsononeline = (x) => tojson(x, " ", true);
const show = (all) => all.map((x) => (typeof x === "string" ? x : typeof x === "object" ? tojsononeline(x) : String(x))).join(" ");
const say = (level) => (...all) => { native.log(level, show(all)); };
const print = (...all) => { native.log(2, all.map((x) => String(x)).join(" ")); };

// The servers' order of types, and of values within one.
const typed = (x) => (typeof x === "object" || typeof x === "function") && x !== null ? native.type(x) : -1;
const isPlain = (x) => typeof x === "object" && x !== null && native.type(x) < 0 && !(x instanceof Date) && !(x instanceof RegExp);
const RANKS = { [MIN_KEY]: -1, [INT32]: 10, [INT64]: 10, [DECIMAL]: 10, [SYMBOL]: 15, [BINARY]: 30, [OBJECT_ID]: 35,
    [DATE]: 45, [TIMESTAMP]: 47, [REGEX]: 50, [DB_POINTER]: 55, [CODE]: 60, [CODE_W_SCOPE]: 65, [MAX_KEY]: 127 };
function rank(x) {
    if (typed(x) >= 0) return RANKS[native.type(x)];
    switch (typeof x) {
    case "undefined": return 0;
    case "number": case "bigint": return 10;
    case "string": return 15;
    case "boolean": return 40;
    case "function": return 65;
    }
    if (x === null) return 5;
    if (Array.isArray(x)) return 25;
    if (x instanceof Date) return 45;
    if (x instanceof RegExp) return 50;
    return 20;
}
const order = (a, b) => a < b ? -1 : a > b ? 1 : 0;
function compare(a, b) {
    const kind = rank(a);
    if (kind !== rank(b)) return kind - rank(b);
    if (isPlain(a)) {
        const [left, right] = [Object.keys(a), Object.keys(b)];
        for (let i = 0; i < left.length && i < right.length; i++) {
            const [x, y] = [a[left[i]], b[right[i]]];
            const found = rank(x) - rank(y) || (kind === 20 ? order(left[i], right[i]) : 0) || compare(x, y);
            if (found) return found;
        }
        return order(left.length, right.length);
    }
    // A BigInt and a number are compared exactly.
    const number = (x) => native.type(x) === INT64 ? native.int64(x) : native.type(x) === DECIMAL ? x.toNumber() : typeof x === "bigint" ? x : Number(x);
    if (kind === 10) return order(number(a), number(b));
    if (kind === 30 || kind === 35) return order(native.hex(a), native.hex(b));
    if (kind === 45) return order(a.getTime(), b.getTime());
    if (kind === 47) return order(a.t, b.t) || order(a.i, b.i);
    return typeof a === "boolean" ? order(Number(a), Number(b)) : order(String(a), String(b));
}
function sortDoc(x) {
    if (Array.isArray(x)) return x.map(sortDoc);
    if (!isPlain(x) || x instanceof DBRef || !/^\[object (Object|BSON)\]$/.test(Object.prototype.toString.call(x))) return x;
    const sorted = {};
    for (const name of Object.keys(x).sort()) sorted[name] = sortDoc(x[name]);
    return sorted;
}

function hex_md5(text) {
    counted("hex_md5", arguments, 1);
    if (typeof text !== "string") throw new Error("hex_md5 takes text, not " + show([text]));
    const input = native.utf8(String(text)), words = [], length = input.length;
    for (let i = 0; i < length; i++) words[i >> 2] |= input.charCodeAt(i) << ((i % 4) * 8);
    words[length >> 2] |= 0x80 << ((length % 4) * 8);
    const last = (((length + 8) >> 6) << 4) + 14;
    words[last] = length << 3;
    words[last + 1] = length >>> 29;
    const shifts = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];
    let a = 0x67452301, b = 0xefcdab89 | 0, c = 0x98badcfe | 0, d = 0x10325476;
    for (let block = 0; block < last + 2; block += 16) {
        const [a0, b0, c0, d0] = [a, b, c, d];
        for (let i = 0; i < 64; i++) {
            const round = i >> 4;
            const [f, g] = round === 0 ? [(b & c) | (~b & d), i]
                : round === 1 ? [(d & b) | (~d & c), (5 * i + 1) % 16]
                : round === 2 ? [b ^ c ^ d, (3 * i + 5) % 16]
                : [c ^ (b | ~d), (7 * i) % 16];
            const sum = (a + f + Math.floor(Math.abs(Math.sin(i + 1)) * 4294967296) + (words[block + g] | 0)) | 0;
            const turn = shifts[round][i % 4];
            [a, d, c, b] = [d, c, b, (b + ((sum << turn) | (sum >>> (32 - turn)))) | 0];
        }
        a = (a + a0) | 0; b = (b + b0) | 0; c = (c + c0) | 0; d = (d + d0) | 0;
    }
    return [a, b, c, d].map((word) => little(word, 4)).join("");
}

// Functions of the servers' shell that have no place in a job: each says what to do instead.
const missing = (name, instead) => () => { throw new Error(name + " is not there in a job: " + instead); };

function assert(condition, message) {
    if (arguments.length > 2) counted("assert", arguments, 1, 2);
    if (!condition) throw new Error("assert failed" + (message === undefined ? "" : " : " + said(message)));
}
const said = (message) => typeof message === "function" ? String(message()) : typeof message === "string" ? message : tojson(message);
const failed = (what, message) => { throw new Error(what + (message === undefined ? "" : " : " + said(message))); };
const same = (a, b) => a === b || (a != null && b != null && a == b) || tojson(a) === tojson(b);
function comparison(name, holds) {
    return (a, b, message) => { if (!holds(a, b)) failed(tojson(a) + " is not " + name + " " + tojson(b), message); };
}
define(assert, {
    eq: (a, b, message) => { if (!same(a, b)) failed("[" + tojson(a) + "] != [" + tojson(b) + "] are not equal", message); },
    neq: (a, b, message) => { if (same(a, b)) failed("[" + tojson(a) + "] == [" + tojson(b) + "] are equal", message); },
    lt: comparison("less than", (a, b) => compare({ v: a }, { v: b }) < 0),
    lte: comparison("less than or eq to", (a, b) => compare({ v: a }, { v: b }) <= 0),
    gt: comparison("greater than", (a, b) => compare({ v: a }, { v: b }) > 0),
    gte: comparison("greater than or eq to", (a, b) => compare({ v: a }, { v: b }) >= 0),
    isnull: (x, message) => { if (x != null) failed("supposed to be null (got: " + tojson(x) + ")", message); },
    contains: (x, all, message) => { if (![...all].some((y) => same(x, y))) failed(tojson(x) + " was not in " + tojson(all), message); },
    between: (a, b, c, message) => { if (!(compare({ v: a }, { v: b }) <= 0 && compare({ v: b }, { v: c }) <= 0)) failed(tojson(b) + " is not between " + tojson(a) + " and " + tojson(c), message); },
    docEq: (a, b, message) => { if (tojson(sortDoc(a)) !== tojson(sortDoc(b))) failed("expected " + tojson(a) + " and actual " + tojson(b) + " are not equal", message); },
    close: (a, b, message, places) => { if (!(Math.abs(a - b) < Math.pow(10, -(places || 4)))) failed(a + " is not equal to " + b + " within " + (places || 4) + " places", message); },
    throws(f, params, message) { try { f(...(params || [])); } catch (e) { return e; } failed("did not throw exception", message); },
    doesNotThrow(f, params, message) { try { return f(...(params || [])); } catch (e) { failed("threw unexpected exception: " + e, message); } },
    automsg: (text) => assert((0, eval)(text), text),
    fail: (message) => failed("fail", message),
    soon: missing("assert.soon", "functions do not wait; check the condition itself"),
    time: missing("assert.time", "a job's functions have no clock that runs"),
    commandWorked: missing("assert.commandWorked", "a function cannot send commands"),
    writeOK: missing("assert.writeOK", "a function cannot write but by emit"),
});

// The older strict form of extended JSON, as the servers write it.
function strict(x) {
    if (x === null) return "null";
    if (x === undefined) return '{ "$undefined" : true }';
    const field = (name, value) => JSON.stringify(name) + " : " + value, object = (fields) => "{ " + fields.join(", ") + " }";
    const text = (name, value) => field(name, JSON.stringify(value));
    switch (native.type(x)) {
    case INT32: return String(native.number.call(x));
    case BINARY: return object([text("$binary", x.base64()), text("$type", x.subtype().toString(16).padStart(2, "0"))]);
    case CODE: return object([text("$code", x.code)]);
    case CODE_W_SCOPE: return object([text("$code", x.code), field("$scope", strict(x.scope))]);
    case DB_POINTER: return object([text("$ref", x.ns), text("$id", x.id.str)]);
    case SYMBOL: return JSON.stringify(native.text(x));
    case REGEX: return object([text("$regex", x.source), text("$options", x.flags)]);
    case DATE: return object([text("$date", String(native.int64(x)))]);
    }
    if (native.type(x) >= 0) return strict(x.toJSON());
    switch (typeof x) {
    case "string": return JSON.stringify(x);
    case "number": return Object.is(x, -0) ? "-0" : String(x);
    case "boolean": return String(x);
    case "bigint": return object([text("$numberLong", String(x))]);
    case "function": return object([text("$code", String(x))]);
    case "symbol": throw new Error("a Symbol has no JSON");
    }
    if (x instanceof RegExp) return object([text("$regex", x.source), text("$options", x.flags)]);
    if (x instanceof Date) return object([text("$date", new Date(x.getTime() || 0).toISOString().replace("Z", "+00:00"))]);
    if (Array.isArray(x)) return x.length === 0 ? "[]" : "[ " + Array.from(x, strict).join(", ") + " ]";
    const names = Object.keys(x);
    return names.length === 0 ? "{}" : object(names.map((name) => field(name, strict(x[name]))));
}
function tostrictjson(x) {
    counted("tostrictjson", arguments, 1, 2);
    if (typeof x !== "object" || x === null || native.type(x) >= 0 || x instanceof Date || x instanceof RegExp)
        throw new Error("tostrictjson takes an object, not " + show([x]));
    return strict(Array.isArray(x) ? { ...x } : x);
}

function install(target, members) {
    for (const [name, value] of Object.entries(members))
        Object.defineProperty(target, name, { value, writable: true, configurable: true, enumerable: false });
}

install(global, {
    ObjectId, ISODate, NumberInt, NumberLong, NumberDecimal, Timestamp, BinData, HexData, UUID, MD5, MinKey, MaxKey, Code,
    DBRef, DBPointer, BSONSymbol, print, tojson, tojsononeline, hex_md5, assert,
    printjson: (x) => print(tojson(x)),
    printjsononeline: (x) => print(tojsononeline(x)),
    isNumber: (x) => typeof x === "number",
    isString: (x) => typeof x === "string",
    isObject: (x) => typeof x === "object",
    bsonWoCompare(a, b) { counted("bsonWoCompare", arguments, 2); return compare(a, b); }, tojsonObject, sortDoc, tostrictjson,
    // A pause would hold up the whole task, and memory is given back by itself.
    sleep() {},
    gc() {},
    version: () => "6.0.0",
    buildInfo: () => ({ version: "6.0.0", versionArray: [6, 0, 0, 0], javascriptEngine: "quickjs-ng", bits: 32 }),
    getJSHeapLimitMB: missing("getJSHeapLimitMB", "the limit of memory is that of the job: --memory-mb"),
    doassert: (message) => { throw new Error(String(message)); },
    bsonUnorderedFieldsCompare(a, b) { counted("bsonUnorderedFieldsCompare", arguments, 2); return compare(sortDoc(a), sortDoc(b)); },
    bsonBinaryEqual: (a, b) => typed(a) === typed(b) && native.bson(a) === native.bson(b),
    bsonObjToArray(x) {
        if (typeof x !== "object" || x === null) throw new Error("bsonObjToArray takes an object, not " + show([x]));
        return Object.values(x);
    },
    console: { error: say(0), warn: say(1), log: say(2), info: say(2), debug: say(3) },
});

// The servers' own refuse what is no array.
const ofArray = (name, method) => function (all, ...rest) {
    if (!Array.isArray(all)) throw new Error("The first argument to Array." + name + " must be an array");
    return method(all, ...rest);
};
const arrays = {
    sum(all) {
        if (all.length === 0) return null;
        let sum = all[0];
        for (let i = 1; i < all.length; i++) sum += all[i];
        return sum;
    },
    avg(all) { return all.length === 0 ? null : Array.sum(all) / all.length; },
    stdDev(all) {
        const mean = Array.avg(all);
        let sum = 0;
        for (let i = 0; i < all.length; i++) sum += Math.pow(all[i] - mean, 2);
        return Math.sqrt(sum / all.length);
    },
    contains(all, x) {
        for (let i = 0; i < all.length; i++) if (all[i] == x) return true;
        return false;
    },
    unique(all) {
        const kept = [];
        for (const x of all) if (!Array.contains(kept, x)) kept.push(x);
        return kept;
    },
    shuffle(all) {
        for (let i = 0; i < all.length - 1; i++) {
            const j = i + Math.floor(Math.random() * (all.length - i));
            [all[i], all[j]] = [all[j], all[i]];
        }
        return all;
    },
    tojson: (all, indent, nolint) => tojsonArray(all, indent || "", nolint),
    fetchRefs: (all) => all.length === 0 ? [] : noDatabase(),
};
for (const [name, method] of Object.entries(arrays)) arrays[name] = ofArray(name, method);
install(native.Array, arrays);

install(native.Object, {
    keySet: (x) => x == null ? [] : Object.keys(x),
    extend(target, source, deep) {
        for (const name in source) {
            const value = source[name];
            target[name] = deep && value !== null && typeof value === "object" && native.type(value) < 0 &&
                (Array.isArray(value) || /^\[object (Object|BSON)\]$/.test(Object.prototype.toString.call(value)))
                ? Object.extend(Array.isArray(value) ? [] : {}, value, true) : value;
        }
        return target;
    },
    merge: (a, b, deep) => Object.extend(Object.extend({}, a, deep), b, deep),
    bsonsize(x) {
        counted("Object.bsonsize", arguments, 1);
        if (x === null) return 0;
        if (typeof x !== "object") throw new Error("Object.bsonsize takes an object, not " + show([x]));
        return native.size(x);
    },
});

install(native.String.prototype, {
    ltrim: String.prototype.trimStart,
    rtrim: String.prototype.trimEnd,
    // Every step adds all of `chr`, also when it has several characters.
    pad(length, right, chr = " ") {
        const fill = String(chr).repeat(Math.max(0, length - this.length));
        return right ? this + fill : fill + this;
    },
});
install(native.Number.prototype, {
    zeroPad(width) { return String(this).padStart(width, "0"); },
    toPercentStr() { return (this * 100).toFixed(2) + "%"; },
});
install(native.Date.prototype, { tojson: dateText });
install(native.RegExp, { escape: (text) => text.replace(/[-[\]{}()*+?.,\\^$|#\s]/g, "\\$&") });
install(native.RegExp.prototype, {
    tojson: RegExp.prototype.toString,
    toJSON() { return { $regex: this.source, $options: this.flags }; },
});
return arrays.sum;
})
