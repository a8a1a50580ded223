function (key, values) {
  const orders = values.flatMap(({ top }) => top);
  orders.sort((a, b) => b.total - a.total || a.id - b.id);
  const top = orders.slice(0, 3).map(({ id, total }) => ({ id: NumberInt(id), total }));
  return { top };
}
