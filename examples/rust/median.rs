//! The median of `total` for each customer. It takes all values of a key together, so it is streamed.

use std::cell::RefCell;

use aviary::*;

thread_local! {
    static TOTALS: RefCell<Vec<f64>> = const { RefCell::new(Vec::new()) };
}

fn map(doc: Doc) {
    emit(doc.get("customer"), doc.get("total"));
}

fn reduce_begin(_key: Value) {
    TOTALS.with_borrow_mut(Vec::clear);
}

fn reduce_next(value: Value) {
    TOTALS.with_borrow_mut(|totals| totals.push(value.f64()));
}

fn reduce_end() -> f64 {
    TOTALS.with_borrow_mut(|totals| {
        totals.sort_by(f64::total_cmp);
        let middle = totals.len() / 2;
        match totals.len() % 2 {
            1 => totals[middle],
            _ => (totals[middle - 1] + totals[middle]) / 2.0,
        }
    })
}
