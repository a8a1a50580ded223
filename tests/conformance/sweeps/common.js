// What every sweep shares. A sweep is the body of a map function: it calls `sweep` for each of its cases, and emits what the
// expressions of the case give, on the server and on Aviary. Expressions are text, made in loops.

// Whether there is code in a value. The server compiles what code it reads, and the job ends if that fails.
function runs(value, depth) {
    if (typeof value === "function" && value !== MinKey && value !== MaxKey || value instanceof Code) return true;
    return depth > 0 && typeof value === "object" && value !== null &&
        Object.keys(value).some(function (name) { return runs(value[name], depth - 1); });
}

// How a value looks from every side. What cannot be written as BSON says so.
function sides(value) {
    var seen = [typeof value];
    [
        function () { return Object.prototype.toString.call(value); },
        function () { return String(value); },
        function () { return tojson(value); },
        function () { return JSON.stringify(value); },
        function () { return runs(value, 6) ? "code" : (Object.bsonsize({ value: value }), value); },
    ].forEach(function (side) {
        try { seen.push(side()); } catch (e) { seen.push("throws"); }
    });
    return seen;
}

// One expression after another. `it` is the document, where there is one.
function sweep(name, expressions, it) {
    emit(name, expressions.map(function (text) {
        var value;
        try {
            value = (0, eval)("(function (it) { return (" + text + "); })")(it);
        } catch (e) {
            return [text, "throws"];
        }
        return [text].concat(sides(value));
    }));
}

// Each of `parts` put into each of `frames`, in place of the @.
function cross(frames, parts) {
    var all = [];
    frames.forEach(function (frame) {
        parts.forEach(function (part) { all.push(frame.split("@").join(part)); });
    });
    return all;
}
