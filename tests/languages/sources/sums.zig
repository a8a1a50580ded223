//! Emits each pair that a document lists.
const aviary = @import("aviary");

pub fn map(doc: aviary.Doc) void {
    var pairs = doc.get("pairs").array().each();
    while (pairs.next()) |pair| aviary.emit(pair.doc().get("k"), pair.doc().get("v"));
}
