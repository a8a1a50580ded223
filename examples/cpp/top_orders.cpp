// The three dearest orders of each customer, as {top: [{id, total}, …]}: by total, then by id.
#include <algorithm>
#include <vector>

#include "aviary.hpp"

struct Order {
    aviary::Value id;
    double total;

    bool operator<(const Order &other) const
    {
        return total != other.total ? total > other.total : id.integer() < other.id.integer();
    }
    aviary::Type write(std::string &out) const
    {
        return aviary::Document().set("id", id).set("total", total).write(out);
    }
};

AVIARY_MAP(doc)
{
    std::vector<Order> top = { { doc["_id"], doc["total"].number() } };
    aviary::emit(doc["customer"].text(), aviary::Document().set("top", top));
}

AVIARY_REDUCE(key, values)
{
    std::vector<Order> orders;
    for (aviary::Value value : values) {
        for (aviary::Value element : value.doc()["top"].array()) {
            aviary::Doc order = element.doc();
            orders.push_back({ order["id"], order["total"].number() });
        }
    }
    std::sort(orders.begin(), orders.end());
    if (orders.size() > 3)
        orders.erase(orders.begin() + 3, orders.end());
    aviary::emit(key, aviary::Document().set("top", orders));
}
