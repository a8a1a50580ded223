// Evaluates the text of a command as mongosh would, in the sandbox: the document that is mapped holds it. What
// mongosh would have sent to a server is emitted.
function map() {
    const text = this.text;
    let sent;
    // What a command gives is not there to go on with.
    const answer = new Proxy({}, {
        get(_, field) {
            throw new Error("the text goes on after the command, with ." + String(field) + ": give the command alone, and go on with its results");
        },
    });
    const send = (command, db) => {
        if (sent !== undefined) throw new Error("the text holds more than one command");
        sent = { command, db };
        return answer;
    };
    const mapReduce = (collection, db) => (map, reduce, out) => {
        const options = typeof out === "string" ? { out } : out;
        return send(Object.assign({ mapReduce: collection, map, reduce }, options), db);
    };
    // As in mongosh, a dot may be one of the collection's name.
    const collection = (name, db) => new Proxy(function () {}, {
        get(_, field) {
            return field === "mapReduce" ? mapReduce(name, db) : collection(name + "." + String(field), db);
        },
        apply() {
            throw new Error("the text calls " + name + ", and only mapReduce can be given");
        },
    });
    const database = (name) => new Proxy({}, {
        get(_, field) {
            switch (field) {
            case "runCommand": return (command) => send(command, name);
            case "getCollection": return (of) => collection(of, name);
            case "getSiblingDB": return database;
            default: return collection(field, name);
            }
        },
    });
    globalThis.db = database(null);
    // As mongosh does, and unlike a server: no day is taken that the calendar has not.
    const { ISODate } = globalThis;
    globalThis.ISODate = function (text) {
        if (text === undefined) return ISODate();
        const date = ISODate(text);
        const [, year, month, day] = /^(\d{4})-?(\d\d)-?(\d\d)/.exec(text) ?? [];
        if (day !== undefined && (month < 1 || month > 12 || day < 1 || day > new Date(Date.UTC(year, month, 0)).getUTCDate()))
            throw new Error(JSON.stringify(text) + " is no day of the calendar");
        return date;
    };
    // What has no end, or none to begin with, if brackets do not match. Regular expressions that hold some may mislead it,
    // so it is asked only about what is wrong anyway.
    const unclosed = (text) => {
        const ends = { "{": "}", "[": "]", "(": ")" };
        const open = [];
        for (const [part] of text.matchAll(/"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[{}[\]()]/gs)) {
            if (ends[part]) open.push(part);
            else if (part.length === 1 && ends[open.pop()] !== part) return "there is a " + part + " too many, or in the wrong place";
        }
        return open.length ? "a " + open[0] + " has no " + ends[open[0]] + " that ends it" : "";
    };
    // A document by itself is an expression; whatever else there may be is a script.
    let value;
    try {
        value = (0, eval)("(" + text + "\n)");
    } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
        sent = undefined;
        try {
            value = (0, eval)(text);
        } catch (other) {
            const open = other instanceof SyntaxError && unclosed(text);
            if (open) throw new SyntaxError(open);
            // Of a document, its own mistake is what helps.
            throw /^\s*\{/.test(text) && other instanceof SyntaxError ? error : other;
        }
    }
    if (sent === undefined) sent = { command: value, db: null };
    const command = sent.command;
    if (command === null || typeof command !== "object" || Array.isArray(command))
        throw new Error("the text is not one document");
    emit(sent.db, command);
}
