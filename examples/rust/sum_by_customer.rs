//! What each customer spent: the sum of `total`.

use aviary::*;

fn map(doc: Doc) {
    emit(doc.get("customer"), doc.get("total"));
}

fn reduce(_key: Value, values: Values) -> f64 {
    values.fold(0.0, |sum, total| sum + total.f64())
}
