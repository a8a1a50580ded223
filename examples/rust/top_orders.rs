//! The three dearest orders of each customer, as `{top: [{id, total}, …]}`: by total, then by id.

use aviary::*;

#[derive(Clone, Copy)]
struct Order<'a> {
    id: Value<'a>,
    total: f64,
}

fn map(doc: Doc) {
    let order = Order { id: doc.get("_id"), total: doc.get("total").f64() };
    emit(doc.get("customer"), tops(vec![order]));
}

fn reduce(_key: Value, values: Values) -> Document {
    let orders = values.flat_map(|value| value.get("top").items());
    tops(orders.map(|one| Order { id: one.get("id"), total: one.get("total").f64() }).collect())
}

fn tops(mut orders: Vec<Order>) -> Document {
    orders.sort_by(|a, b| b.total.total_cmp(&a.total).then(a.id.i64().cmp(&b.id.i64())));
    orders.truncate(3);
    let top: Vec<_> =
        orders.iter().map(|order| doc! { "id": order.id, "total": order.total }).collect();
    doc! { "top": top }
}
