/* What each customer spent: the sum of `total`. */
#include "aviary.h"

AVIARY_MAP(doc)
{
    emit_double(need(doc, "customer", BSON_STRING), number(need(doc, "total", 0)));
}

AVIARY_REDUCE(key, values)
{
    double sum = 0;
    Field value;
    for (const uint8_t *p = NULL; next(values, &p, &value);)
        sum += number(value);
    emit_double(key, sum);
}
