// Does all that a map may do besides emitting: parameters, counters, lines, a record that fails.
#include "aviary.hpp"

AVIARY_MAP(doc)
{
    aviary::Doc job = aviary::scope();
    int64_t id = doc["_id"].integer();
    std::string_view label = job["label"].text();
    int64_t worth = id * job["factor"].integer();
    std::string line = std::string(label) + " " + std::to_string(id);
    if (id == job["bad"].integer())
        aviary::fail(line + " is bad");
    aviary::count(label, worth);
    aviary::log(line);
    aviary::log("100%", aviary::Level::Warn);
    aviary::emit(doc["_id"], worth);
}
