// The median of each customer's totals. It takes all values of a key together, so the reduce is a streaming one: it is
// given them piece by piece.
#include <algorithm>
#include <vector>

#include "aviary.hpp"

static std::vector<double> totals;

AVIARY_MAP(doc)
{
    aviary::emit(doc["customer"].text(), doc["total"].number());
}

AVIARY_REDUCE_BEGIN(key)
{
    totals.clear();
}

AVIARY_REDUCE_NEXT(values)
{
    for (aviary::Value value : values)
        totals.push_back(value.number());
}

AVIARY_REDUCE_END(key)
{
    std::sort(totals.begin(), totals.end());
    size_t half = totals.size() / 2;
    aviary::emit(key, totals.size() % 2 ? totals[half] : (totals[half - 1] + totals[half]) / 2);
}
