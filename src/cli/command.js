// Evaluates the text of a command as mongosh would, in the sandbox: the document that is mapped holds it. What
// mongosh would have sent to a server is emitted.
function map() {
    const text = this.text;
    let sent;
    const send = (command, db) => {
        if (sent !== undefined) throw new Error("the text holds more than one command");
        sent = { command, db };
        return sent;
    };
    const mapReduce = (collection, db) => (map, reduce, out) => {
        const options = typeof out === "string" ? { out } : out;
        return send(Object.assign({ mapReduce: collection, map, reduce }, options), db);
    };
    const collection = (name, db) => ({ mapReduce: mapReduce(name, db) });
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
