// Every constructor of a BSON type, of valid and invalid arguments, with `new` and without.
var one = ["", "undefined", "null", "true", "false", "0", "-0", "1", "-1", "1.5", "1.9", "-1.9", "NaN", "Infinity", "-Infinity",
    "2147483647", "2147483648", "-2147483648", "-2147483649", "4294967295", "4294967296", "9007199254740993", "9223372036854775807",
    "9223372036854775808", "-9223372036854775808", "1e19", "1e300", "5e-324", "0.1", "123456789.123456789",
    "''", "'0'", "'1'", "'-1'", "'+1'", "' 1'", "'1 '", "'1.5'", "'1.9'", "'abc'", "'1abc'", "'0x10'", "'1e3'", "'NaN'", "'Infinity'", "'-Infinity'", "'inf'",
    "'2147483648'", "'-2147483649'", "'9223372036854775807'", "'9223372036854775808'", "'-9223372036854775808'", "'-9223372036854775809'",
    "'12345678901234567890123456789012345678'", "'1234567890123456789012345678901234'", "'12345678901234567890123456789012345'",
    "'0.1'", "'.5'", "'5.'", "'1E+3'", "'1e-3'", "'1e6111'", "'1e6145'", "'1e-6176'", "'1e-6177'", "'-0'", "'0E5'", "'1.10'",
    "'5f0000000000000000000000'", "'5F00000000000000000000AB'", "'5f000000000000000000000'", "'5f00000000000000000000000'", "'zf0000000000000000000000'",
    "'00112233-4455-6677-8899-aabbccddeeff'", "'00112233445566778899aabbccddeeff'", "'00112233445566778899AABBCCDDEEFF'",
    "'0-0112233445566778899aabbccddeeff'", "'00112233445566778899aabbccddee'",
    "[]", "[1]", "{}", "{a: 1}", "/a/", "new Date(5)", "function () {}", "1n", "9223372036854775808n",
    "NumberInt(3)", "NumberInt(-3)", "NumberLong(3)", "NumberLong('9007199254740993')", "NumberLong(-3)", "NumberDecimal('1.5')", "NumberDecimal('NaN')",
    "ObjectId('5f0000000000000000000000')", "Timestamp(3, 4)", "BinData(0, 'AQID')", "UUID('00112233-4455-6677-8899-aabbccddeeff')",
    "MinKey", "MaxKey", "MinKey()", "Code('x')", "DBRef('a', 1)", "new Number(3)", "new String('3')", "new Boolean(true)"];
["NumberInt", "NumberLong", "NumberDecimal", "Timestamp", "ObjectId", "UUID", "MD5", "HexData", "BinData", "Code", "MinKey", "MaxKey", "DBRef",
    "DBPointer"].forEach(function (name) {
    // Without an argument they make new ones.
    var args = one.filter(function (arg) { return arg !== "" && arg !== "undefined" || (name !== "ObjectId" && name !== "UUID"); });
    sweep(name + " of one argument", cross([name + "(@)", "new " + name + "(@)"], args));
});

var first = ["0", "1", "-1", "1.5", "NaN", "4294967295", "4294967296", "'1'", "'a'", "null", "undefined", "true", "{}", "NumberInt(3)", "NumberLong(3)",
    "NumberDecimal('3')", "'test.people'", "''"];
var second = ["0", "1", "-1", "1.5", "NaN", "4294967295", "4294967296", "''", "'1'", "'x'", "null", "undefined", "true", "{}", "{a: 1}", "[1]", "NumberInt(3)",
    "NumberLong(3)", "NumberDecimal('3')", "ObjectId('5f0000000000000000000000')", "'5f0000000000000000000000'"];
["Timestamp", "NumberLong", "NumberInt", "NumberDecimal", "Code", "DBRef", "DBPointer", "ObjectId"].forEach(function (name) {
    var frames = first.map(function (arg) { return name + "(" + arg + ", @)"; });
    sweep(name + " of two arguments", cross(frames, second));
});
var subtypes = ["0", "1", "2", "3", "4", "5", "6", "7", "127", "128", "255", "256", "-1", "1.5", "NaN", "'0'", "'x'", "null", "undefined", "true", "NumberInt(5)",
    "NumberLong(5)", "{}"];
sweep("BinData of two arguments", cross(subtypes.map(function (arg) { return "BinData(" + arg + ", @)"; }),
    ["''", "'AQID'", "'AQI='", "'AQ=='", "'AQ'", "'A'", "'AQID='", "'!!!!'", "'AQ ID'", "'AAECAwQFBgcICQoLDA0ODw=='", "5", "null", "undefined", "{}"]));
sweep("HexData of two arguments", cross(subtypes.map(function (arg) { return "HexData(" + arg + ", @)"; }),
    ["''", "'00'", "'ff'", "'FF'", "'f'", "'fff'", "'zz'", "'000102030405060708090a0b0c0d0e0f'", "5", "null", "undefined", "{}"]));
var many = [];
["NumberInt", "NumberLong", "NumberDecimal", "Timestamp", "ObjectId", "UUID", "MD5", "HexData", "BinData", "Code", "MinKey", "MaxKey", "DBRef",
    "DBPointer"].forEach(function (name) {
    many = many.concat(cross([name + "(@)", "new " + name + "(@)"], ["1, 2, 3", "0, 'AQID', 'y'", "0, '00', 'y'", "'a', 1, 'b'", "'a', 1, 'b', 4",
        "'a', 1, {}", "'a', {}, 1", "'5f0000000000000000000000', 1", "'2020-01-01', 1", "1, 2, 3, 4"]));
});
sweep("constructors of more arguments", many);
sweep("NumberLong of three arguments", cross(cross(["NumberLong(1, @, #)", "NumberLong(5000000000, @, #)", "NumberLong(-1, @, #)"],
    ["0", "1", "-1", "4294967295", "2147483648"]).map(function (text) { return text.replace("#", "@"); }),
["0", "1", "-1", "4294967295", "2147483648", "'1'"]));
sweep("Timestamp of edges", cross(["Timestamp(@, 0)", "Timestamp(0, @)", "Timestamp(@, @)"],
    ["0", "1", "4294967295", "4294967296", "-1", "1.9", "0.5", "-0.5", "NaN", "Infinity", "'7'", "'x'", "NumberInt(7)", "NumberLong(7)", "true", "null", "[]", "[7]"]));
