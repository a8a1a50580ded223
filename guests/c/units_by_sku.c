/* Units sold of each article: the quantity of every item of every order. */
#include "aviary.h"

AVIARY_MAP(doc)
{
    Document items = inner(need(doc, "items", BSON_ARRAY));
    Field item;
    for (const uint8_t *p = NULL; next(items, &p, &item);) {
        Document fields = inner(item);
        emit_raw(need(fields, "sku", BSON_STRING), need(fields, "qty", 0));
    }
}

AVIARY_REDUCE_SUM
