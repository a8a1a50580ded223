// What becomes of a document that is changed. Each document of the collection names a change: `change` in it is an expression's
// text, and the document under `it` is what it changes; or, where `whole` is set, the document itself.
var id = this._id;
var change = this.change;
var it = this.whole ? this : this.it;
var said;
try {
    said = (0, eval)("(function (it) { return " + change + "; })")(it);
} catch (e) {
    said = "throws";
}
if (typeof said === "function") said = "a function";
// Emitted before it is read as a whole, since a server turns integers of arrays into doubles when it reads them.
emit(id, [[change, said, it]]);
var keys = [];
for (var name in it) keys.push(name);
emit("keys: " + id, [[change, keys, Object.keys(it), JSON.stringify(it), tojsononeline(it)]]);
