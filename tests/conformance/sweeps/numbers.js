// Numbers: Math to the last bit, text of numbers and numbers of text.
var reals = ["0", "-0", "1", "-1", "0.5", "-0.5", "1.05", "2", "3", "10", "0.1", "1e-10", "1e10", "1e-300", "1e300", "5e-324", "1.7976931348623157e308", "Math.PI", "Math.E", "-Math.PI / 3", "100.7", "1e15 + 0.5", "-1e-5", "709.7", "-745.1", "0.9999999999999999", "1.0000000000000002", "NaN", "Infinity", "-Infinity", "20.25", "123456.789", "1e5", "-2.5", "2.5", "-1.5", "0.49999999999999994", "4294967295", "4294967296.5", "9007199254740993", "'5'", "null", "undefined", "NumberLong(5)", "NumberInt(4)", "NumberDecimal('2')", "[3]", "{}", "true"];
["abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "cbrt", "ceil", "clz32", "cos", "cosh", "exp", "expm1", "floor", "fround", "log", "log10", "log1p", "log2", "round", "sign", "sin", "sinh", "sqrt", "tan", "tanh", "trunc"].forEach(function (name) {
    // A whole grid beside the edges.
    var grid = [];
    for (var n = 0; n < 160; n++) grid.push(String((n - 60) * 0.37 + n * n * 0.0013));
    for (n = 0; n < 40; n++) grid.push(String(Math.pow(2, n - 20) * 1.1));
    sweep("Math." + name, cross(["Math." + name + "(@)"], reals.concat(grid)));
});
["pow", "atan2", "hypot", "imul", "max", "min"].forEach(function (name) {
    var frames = ["0", "-0", "1", "-1", "1.05", "2", "10", "0.5", "-2.5", "NaN", "Infinity", "1e300", "'3'", "undefined"].map(function (left) { return "Math." + name + "(" + left + ", @)"; });
    sweep("Math." + name, cross(frames, reals));
});
var powers = [];
for (var n = 1; n < 400; n++) powers.push("Math.pow(" + (1 + n * 0.0173) + ", " + (n % 23 - 11 + (n % 3) * 0.25) + ")", (0.9 + n * 0.01) + " ** " + (n % 40));
sweep("powers", powers);
sweep("Math of many", ["Math.hypot()", "Math.hypot(3, 4)", "Math.hypot(1, 1, 1)", "Math.hypot(1e200, 1e200)", "Math.hypot(0.1, 0.2, 0.3, 0.4)", "Math.hypot(1e-200, 1e-200)", "Math.hypot(NaN, Infinity)", "Math.max()", "Math.min()", "Math.max(1, NaN)", "Math.max(0, -0)", "Math.min(0, -0)", "Math.max('3', 2)", "Math.pow(1.05, 10)", "Math.pow(2, 0.5)", "Math.pow(-8, 1 / 3)", "1.05 ** 10", "Math.atan2(0, -0)", "typeof Math.random()", "Object.keys(Math)", "Math.LN2", "Math.LN10", "Math.LOG2E", "Math.LOG10E", "Math.SQRT2", "Math.SQRT1_2", "Math.toString()"]);
var shown = ["0", "-0", "1", "-1.5", "0.1", "1e21", "1e20", "123456789", "1e-7", "1e-6", "0.000001234", "1.005", "2.5", "1e300", "5e-324", "NaN", "Infinity", "-Infinity", "255", "4294967295", "9007199254740991", "0.1 + 0.2", "1 / 3", "100", "1e100", "-1e-7", "1.45", "8.345", "1234.5678", "2147483648", "0.5"];
var radixes = []; for (n = 2; n <= 36; n++) radixes.push(String(n));
radixes.forEach(function (radix) { sweep("numbers in base " + radix, cross(["(@).toString(" + radix + ")"], shown)); });
sweep("numbers in odd bases", cross(cross(["(@).toString(#)"], shown.slice(0, 8)).map(function (text) { return text.replace("#", "@"); }), ["", "undefined", "1", "37", "0", "'16'", "NaN", "10.9", "null"]));
["toFixed", "toPrecision", "toExponential"].forEach(function (name) {
    sweep("numbers and " + name, cross(cross(["(@)." + name + "(#)"], shown).map(function (text) { return text.replace("#", "@"); }), ["", "0", "1", "2", "5", "10", "20", "21", "50", "100", "101", "-1", "NaN", "'2'"]));
});
sweep("numbers as text", cross(["String(@)", "'' + @", "JSON.stringify(@)", "(@).toString()", "(@).toLocaleString()", "tojson(@)", "String(-(@))"], shown));
var spelled = ["''", "' '", "'5'", "' 5 '", "'5px'", "'0x1f'", "'0X1F'", "'0b11'", "'0o17'", "'017'", "'1e3'", "'1E3'", "'.5'", "'5.'", "'-5'", "'+5'", "'--5'", "'1_000'", "'1,000'", "'Infinity'", "'-Infinity'", "'infinity'", "'NaN'", "'null'", "'1e1000'", "'1e-1000'", "'9007199254740993'", "'0.1e1'", "'\\n5\\t'", "'\\u00a05'", "'５'", "'123456789012345678901234567890'", "null", "undefined", "true", "[]", "[5]", "{}", "NumberLong(7)", "NumberInt(7)", "NumberDecimal('7.5')", "new Date(5)", "5n"];
sweep("numbers of text", cross(["Number(@)", "parseInt(@)", "parseFloat(@)", "+@", "parseInt(@, 10)", "parseInt(@, 16)", "parseInt(@, 2)", "parseInt(@, 36)", "isNaN(@)", "isFinite(@)", "Number.isInteger(@)", "@ | 0", "@ >>> 0", "~~@"], spelled));
sweep("arithmetic", cross(cross(["(@) + (#)", "(@) - (#)", "(@) * (#)", "(@) / (#)", "(@) % (#)", "(@) & (#)", "(@) << (#)", "(@) >> (#)", "(@) >>> (#)", "(@) < (#)"], ["0.1", "3", "-7", "2147483647", "1e16", "NumberLong(5)", "NumberInt(5)", "'5'"]).map(function (text) { return text.replace("#", "@"); }),
    ["0.2", "0", "-0", "2", "-3", "1e16", "33", "NumberLong(3)", "NumberInt(3)", "NumberDecimal('3')", "null", "'x'"]));
sweep("big integers", ["5n + 3n", "2n ** 64n", "-7n / 2n", "-7n % 2n", "BigInt(5)", "BigInt('0x10')", "BigInt(1.5)", "BigInt('x')", "typeof 5n", "5n == 5", "5n < 6", "5n + 1", "Number(5n)", "BigInt.asIntN(8, 255n)", "(255n).toString(16)", "String(2n ** 100n)", "JSON.stringify({a: 1n})", "BigInt(NumberLong(5))", "5n & 3n", "~5n", "-(5n)", "BigInt(Number.MAX_SAFE_INTEGER) + 2n", "Object.bsonsize({a: 1n})"]);
