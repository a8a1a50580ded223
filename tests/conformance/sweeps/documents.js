// Documents that a driver rarely writes: a name that is there twice, options of regular expressions in any order, dates
// beyond JavaScript's range. Each document says in `fields` which of its fields are read.
var it = this;
var fields = this.fields;
var looks = ["it.@", "it[\"@\"]", "typeof it.@", "[it.@, it.@]", "(it._id, it.@)", "(it.zz, it.@)", "'@' in it", "it.hasOwnProperty('@')", "Object.assign({}, {v: it.@}).v", "Object.getOwnPropertyDescriptor(it, '@').value"];
var all = cross(looks, fields.concat("nothing").filter(function (name) { return name !== "nothing" || looks; }));
all = all.filter(function (text) { return !/getOwnPropertyDescriptor.*nothing/.test(text); });
this.more.forEach(function (more) { all.push(more); });
sweep("document of " + this._id, all.concat("Object.keys(it)", "JSON.stringify(it)", "Object.keys({...it})", "JSON.stringify({...it})", "Object.assign({}, it)",
    "(function () { var k = []; for (var n in it) k.push(n); return k; })()", "tojson(it)", "Object.bsonsize(it)", "it", "Object.extend({}, it)", "Object.getOwnPropertyNames(it)"), it);
