/* Revenue of each customer: the total of every order. */
#include "aviary.h"

AVIARY_MAP(doc)
{
    emit_raw(need(doc, "customer", BSON_STRING), need(doc, "total", 0));
}

AVIARY_REDUCE_SUM
