// A value of every type, and what the language and the utilities make of it.
var values = ["undefined", "null", "true", "false", "0", "-0", "1.5", "NaN", "Infinity", "''", "'a'", "'5'", "[]", "[1, 'a']", "[[1], {a: 2}]", "{}", "{a: 1}",
    "{b: 1, a: {c: [2]}}", "new Date(5)", "new Date(NaN)", "/a/gi", "function (a) { return a; }", "NumberInt(5)", "NumberInt(-5)", "NumberLong(5)", "NumberLong('9007199254740993')",
    "NumberDecimal('1.50')", "NumberDecimal('NaN')", "ObjectId('5f0000000000000000000000')", "Timestamp(3, 4)", "BinData(0, 'AQID')", "BinData(2, 'AQID')",
    "UUID('00112233-4455-6677-8899-aabbccddeeff')", "MD5('00112233445566778899aabbccddeeff')", "HexData(128, 'ff00')", "MinKey", "MaxKey", "MinKey()", "MaxKey()", "Code('x')", "Code('x', {a: 1})", "DBRef('a', 1)",
    "DBRef('a', 1, 'b')", "DBPointer('a.b', ObjectId('5f0000000000000000000000'))", "new Number(3)", "new String('abc')", "new Boolean(false)",
    "Object.create(null)", "Object.create({a: 1})", "new Error('x')", "new TypeError('y')", "Symbol('s')", "5n", "new Uint8Array([1, 2])", "new ArrayBuffer(3)", "new Map([[1, 2]])",
    "new Set([1])", "Promise.resolve(1)", "Math", "JSON", "(function () { return arguments; })(1, 2)"];
var looks = {
    "types as they are": ["@"],
    "types in arrays and objects": ["[@]", "{v: @}", "[[@, {v: @}]]"],
    "types as numbers": ["Number(@)", "+@", "@ + 1", "@ * 2", "1 - @", "@ | 0", "Math.abs(@)", "isNaN(@)", "parseInt(@)", "parseFloat(@)"],
    "types as text": ["'' + @", "`${@}`", "[@].join()", "String([@])", "encodeURIComponent(@)", "'x'.concat(@)"],
    "types as truth": ["!@", "@ ? 1 : 2", "@ == null", "@ || 7", "Boolean(@)"],
    "types compared": ["@ == 5", "@ == '5'", "@ === @", "@ == @", "@ < 6", "@ > 4", "@ < '6'", "Object.is(@, @)"],
    "types and their keys": ["Object.keys(@)", "Object.getOwnPropertyNames(@)", "(function () { var k = []; for (var n in @) k.push(n); return k; })()",
        "Object.values(@)", "Object.entries(@)", "'a' in @", "@.hasOwnProperty('a')", "Object.assign({}, @)", "({...@})"],
    "types and their kinds": ["@ instanceof Object", "@ instanceof Array", "Array.isArray(@)", "isNumber(@)", "isString(@)", "isObject(@)", "@.constructor === Object", "@.constructor.name", "Object.getPrototypeOf(@) === Object.prototype", "Object.isFrozen(@)"],
    "types and their names": ["@.toString()", "@.valueOf()", "@.toJSON()", "@.tojson()", "@.toLocaleString()", "@.length", "@.name", "@.prototype"],
    "types of the BSON kind": ["@ instanceof NumberInt", "@ instanceof NumberLong", "@ instanceof NumberDecimal", "@ instanceof ObjectId", "@ instanceof Timestamp", "@ instanceof BinData", "@ instanceof MinKey", "@ instanceof MaxKey",
        "@ instanceof Code", "@ instanceof DBRef", "@ instanceof DBPointer", "@ instanceof Date", "@ instanceof RegExp"],
    "types in the utilities": ["tojson(@)", "tojson({v: @})", "tojson([@, @])", "tojsononeline(@)", "tojsononeline({v: [@]})", "tojson(@, '', true)", "tojson({v: @}, '\\t', false)", "tojsonObject(@)",
        "Object.bsonsize(@)", "Object.bsonsize({v: @})", "hex_md5(@)", "sortDoc(@)", "sortDoc({z: @, a: 1})", "Object.keySet(@)", "bsonObjToArray(@)", "bsonObjToArray({v: @})"],
    "types in strict JSON": ["tostrictjson(@)", "tostrictjson({v: @})", "tostrictjson([@])", "tostrictjson({v: @}, true)"],
    "types as JSON": ["JSON.stringify([@])", "JSON.stringify({v: @})", "JSON.stringify({v: @}, null, 2)", "JSON.stringify(@, function (k, v) { return v; })", "JSON.parse(JSON.stringify({v: @}))"],
    "types copied": ["Object.extend({}, {v: @})", "Object.extend({}, {v: @}, true)", "Object.merge({v: 1}, {v: @})", "Object.assign({}, {v: @})", "Array.from([@])", "[@].slice()", "[].concat(@)", "Object.create(@)"],
    "types in lists": ["[@].indexOf(@)", "[@].includes(@)", "Array.contains([@], @)", "Array.unique([@, @, 1])", "[@, 1, 'a'].sort()", "Array.sum([@, 1])", "Array.sum([@])", "Array.avg([@])", "Array.stdDev([@, 1])", "Array.tojson([@])", "Array.shuffle([@])",
        "Math.max(@, 1)", "[1, @].reduce(function (a, b) { return a + b; })"],
    "types thrown": ["(function () { try { throw @; } catch (e) { return e; } })()"],
    "types written to": ["(function () { var x = @; x.added = 1; return x; })()", "(function () { var x = @; x.length = 0; return x; })()", "(function () { var x = @; delete x.a; return x; })()", "(function () { 'use strict'; var x = @; x.added = 1; return x.added; })()"],
};
Object.keys(looks).forEach(function (name) { sweep(name, cross(looks[name], values)); });

var pairs = ["null", "undefined", "1", "2.5", "NumberInt(1)", "NumberLong(1)", "NumberLong('9007199254740993')", "9007199254740992", "NumberDecimal('1')", "NumberDecimal('2.5')", "'1'", "'a'", "true", "false", "[]", "[1]", "[1, 2]", "{}", "{a: 1}", "{a: 2}",
    "{b: 1}", "new Date(1)", "/a/", "ObjectId('5f0000000000000000000000')", "Timestamp(1, 2)", "BinData(0, 'AQID')", "MinKey", "MaxKey()", "DBRef('a', 1)"];
pairs.forEach(function (left, n) {
    if (n % 2) return;
    sweep("compared with " + left, cross(["bsonWoCompare({v: " + left + "}, {v: @})", "bsonWoCompare(" + left + ", @)", "bsonBinaryEqual({v: " + left + "}, {v: @})",
        "bsonUnorderedFieldsCompare({v: " + left + "}, {v: @})", left + " == @", left + " < @"], pairs));
});
