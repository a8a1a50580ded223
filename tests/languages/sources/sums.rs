//! Emits each pair that a document lists.

use aviary::*;

fn map(doc: Doc) {
    for pair in doc.get("pairs").items() {
        emit(pair.doc().get("k"), pair.doc().get("v"));
    }
}
