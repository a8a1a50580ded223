// Emits each pair that a document lists.
#include "aviary.hpp"

AVIARY_MAP(doc)
{
    for (aviary::Value pair : doc["pairs"].array())
        aviary::emit(pair.doc()["k"], pair.doc()["v"]);
}
