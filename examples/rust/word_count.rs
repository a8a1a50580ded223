//! Counts words: runs of ASCII letters and digits in `text`, in lower case.

use aviary::*;

fn map(doc: Doc) {
    let text = doc.get("text").str().to_ascii_lowercase();
    for word in text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        emit(word, 1);
    }
}

fn reduce(_key: Value, values: Values) -> i64 {
    values.map(Value::i64).sum()
}
