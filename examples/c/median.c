/* The median of each customer's totals. It takes all values of a key together, so the reduce is a streaming one: it is
 * given them piece by piece. */
#include <stdlib.h>

#include "aviary.h"

static double *totals;
static uint32_t size, room;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

AVIARY_MAP(doc)
{
    emit_double(need(doc, "customer", BSON_STRING), number(need(doc, "total", 0)));
}

AVIARY_REDUCE_BEGIN(key)
{
    size = 0;
}

AVIARY_REDUCE_NEXT(values)
{
    Field value;
    for (const uint8_t *p = NULL; next(values, &p, &value);) {
        if (size == room) {
            uint32_t more = room ? room * 2 : 1024;
            totals = aviary_resize(totals, room * sizeof(double), more * sizeof(double));
            room = more;
        }
        totals[size++] = number(value);
    }
}

AVIARY_REDUCE_END(key)
{
    qsort(totals, size, sizeof(double), by_value);
    uint32_t half = size / 2;
    emit_double(key, size % 2 ? totals[half] : (totals[half - 1] + totals[half]) / 2);
}
