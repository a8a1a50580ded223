// Reads a value of each type and writes it again.
#include "aviary.hpp"

struct Again {
    aviary::Value value;

    aviary::Type write(std::string &out) const;
};

template <class Bytes> static Bytes copied(std::string_view from)
{
    Bytes to;
    std::memcpy(to.bytes, from.data(), sizeof(to.bytes));
    return to;
}

aviary::Type Again::write(std::string &out) const
{
    using aviary::Type, aviary::put;
    switch (value.type()) {
    case Type::Double: return put(out, value.number());
    case Type::Int32: return put(out, static_cast<int32_t>(value.integer()));
    case Type::Int64: return put(out, value.integer());
    case Type::String: return put(out, value.text());
    case Type::Document: {
        aviary::Document fields;
        for (aviary::Value field : value.doc())
            fields.set(field.name(), Again{ field });
        return put(out, fields);
    }
    case Type::Array: {
        aviary::Array items;
        for (aviary::Value item : value.array())
            items.push(Again{ item });
        return put(out, items);
    }
    case Type::Binary: {
        aviary::Binary binary;
        binary.bytes = value.binary(&binary.subtype);
        return put(out, binary);
    }
    case Type::ObjectId: return put(out, copied<aviary::ObjectId>(value.object_id()));
    case Type::Bool: return put(out, value.boolean());
    case Type::Date: return put(out, aviary::DateMs{ value.date_ms() });
    case Type::Null: return put(out, nullptr);
    case Type::Regex: return put(out, aviary::Regex{ value.pattern(), value.options() });
    case Type::Code: return put(out, aviary::Code{ value.code() });
    case Type::Symbol: return put(out, aviary::Symbol{ value.code() });
    case Type::CodeWithScope:
        if (value.code() != "f" || value.code_scope()["n"].integer() != 1)
            aviary::fail("code with a scope is read as something else");
        return put(out, value);
    case Type::Timestamp: return put(out, aviary::Timestamp{ value.timestamp() });
    case Type::Decimal: return put(out, copied<aviary::Decimal>(value.decimal()));
    case Type::MinKey: return put(out, aviary::MinKey{});
    case Type::MaxKey: return put(out, aviary::MaxKey{});
    default: return put(out, value);
    }
}

AVIARY_MAP(doc)
{
    aviary::emit(doc["_id"], aviary::Document().set("v", Again{ doc["v"] }).set("none", doc["none"]));
}
