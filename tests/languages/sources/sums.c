/* Emits each pair that a document lists. */
#include "aviary.h"

AVIARY_MAP(doc)
{
    Field pair;
    for (const uint8_t *p = NULL; next(inner(need(doc, "pairs", BSON_ARRAY)), &p, &pair);)
        emit_raw(find(inner(pair), "k"), find(inner(pair), "v"));
}
