/* The three dearest orders of each customer, as {top: [{id, total}, …]}: by total, then by id. */
#include "aviary.h"

enum { KEPT = 3 };

typedef struct Order {
    Field id;
    double total;
} Order;

static bool before(Order a, Order b)
{
    return a.total != b.total ? a.total > b.total : integer(a.id) < integer(b.id);
}

static void emit_top(Field key, const Order *orders, int n)
{
    static Writer w;
    write_begin(&w, BSON_DOCUMENT);
    put_array(&w, "top");
    for (int i = 0; i < n; i++) {
        put_document(&w, NULL);
        put_field(&w, "id", orders[i].id);
        put_double(&w, "total", orders[i].total);
        put_end(&w);
    }
    emit_written(key, &w);
}

AVIARY_MAP(doc)
{
    Order order = { find(doc, "_id"), number(need(doc, "total", 0)) };
    emit_top(need(doc, "customer", BSON_STRING), &order, 1);
}

AVIARY_REDUCE(key, values)
{
    Order top[KEPT + 1];
    int n = 0;
    Field value, element;
    for (const uint8_t *p = NULL; next(values, &p, &value);) {
        Document orders = inner(need(inner(value), "top", BSON_ARRAY));
        for (const uint8_t *q = NULL; next(orders, &q, &element);) {
            Order order = { need(inner(element), "id", 0), number(need(inner(element), "total", 0)) };
            int place = n;
            for (; place > 0 && before(order, top[place - 1]); place--)
                top[place] = top[place - 1];
            top[place] = order;
            n = n < KEPT ? n + 1 : KEPT;
        }
    }
    emit_top(key, top, n);
}
