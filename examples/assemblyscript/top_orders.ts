// The three dearest orders of each customer, as {top: [{id, total}, …]}: by total, then by id.
import { ArrayWriter, Doc, DocWriter, Value, Values, emit } from "aviary";

const KEPT = 3;

class Order {
  constructor(
    public id: Value,
    public total: f64,
  ) {}
}

export function map(doc: Doc): void {
  const order = new Order(doc.get("_id"), doc.get("total").number());
  emit(doc.get("customer").text(), tops([order]));
}

export function reduce(key: Value, values: Values): DocWriter {
  const orders = new Array<Order>();
  while (values.next()) {
    const top = values.value.doc().get("top").array();
    while (top.next()) {
      const order = top.value.doc();
      orders.push(new Order(order.get("id"), order.get("total").number()));
    }
  }
  orders.sort((a, b) => {
    if (a.total != b.total) return a.total > b.total ? -1 : 1;
    const x = a.id.int64(), y = b.id.int64();
    return i32(x > y) - i32(x < y);
  });
  return tops(orders);
}

function tops(orders: Order[]): DocWriter {
  const top = new ArrayWriter();
  for (let i = 0, n = min(orders.length, KEPT); i < n; i++) {
    top.push(new DocWriter().set("id", orders[i].id).set("total", orders[i].total));
  }
  return new DocWriter().set("top", top);
}
