// What each customer spent: the sum of `total`.
#include "aviary.hpp"

AVIARY_MAP(doc)
{
    aviary::emit(doc["customer"].text(), doc["total"].number());
}

AVIARY_REDUCE(key, values)
{
    double sum = 0;
    for (aviary::Value value : values)
        sum += value.number();
    aviary::emit(key, sum);
}
