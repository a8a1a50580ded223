/* Aviary guests in C++17: a thin layer over aviary.h.
 *
 *     #include "aviary.hpp"
 *     AVIARY_MAP(doc)
 *     {
 *         aviary::emit(doc["customer"], doc["total"].number());
 *     }
 *     AVIARY_REDUCE(key, values)
 *     {
 *         double sum = 0;
 *         for (aviary::Value value : values)
 *             sum += value.number();
 *         aviary::emit(key, sum);
 *     }
 *
 * Documents and values are read where they lie in the input, and are good until the function returns. A map's emits are
 * added up as in C (see aviary.h); define AVIARY_NO_SUMS before the include to do without. */
#ifndef AVIARY_HPP
#define AVIARY_HPP

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* What C needs is kept out of the way: its names are as short as those of the standard library. */
namespace aviary::c {
#include "aviary.h"
}

namespace aviary {

enum class Type : uint8_t {
    None = 0, Double = 0x01, String = 0x02, Document = 0x03, Array = 0x04, Binary = 0x05, Undefined = 0x06,
    ObjectId = 0x07, Bool = 0x08, Date = 0x09, Null = 0x0A, Regex = 0x0B, DbPointer = 0x0C, Code = 0x0D, Symbol = 0x0E,
    CodeWithScope = 0x0F, Int32 = 0x10, Timestamp = 0x11, Int64 = 0x12, Decimal = 0x13, MaxKey = 0x7F, MinKey = 0xFF,
};

enum class Level { Error, Warn, Info, Debug, Trace };

/* The record is bad: does not return. */
[[noreturn]] inline void fail(std::string_view text)
{
    c::aviary_fail(text.data(), static_cast<uint32_t>(text.size()));
    __builtin_trap();
}

/* Adds to a counter of the job. */
inline void count(std::string_view name, int64_t delta = 1)
{
    c::aviary_count(name.data(), static_cast<uint32_t>(name.size()), delta);
}

/* Writes a line into the worker's log. */
inline void log(std::string_view text, Level level = Level::Info)
{
    c::aviary_log(static_cast<int32_t>(level), text.data(), static_cast<uint32_t>(text.size()));
}

class Doc;
class Values;

/* One value, or none where a field is missing. A reader like number() fails the record if the value has another type;
 * number_or(0) does not. */
class Value {
public:
    explicit Value(c::Field field) : field_(field) {}

    Type type() const { return static_cast<Type>(field_.type); }
    explicit operator bool() const { return field_.type != 0; }
    bool is_number() const { return c::is_number(field_); }
    bool is_integer() const { return c::is_integer(field_); }
    /* The name in the document; the index as text in an array. */
    std::string_view name() const { return field_.name ? field_.name : ""; }

    double number() const { return c::number(field_); }
    int64_t integer() const { return c::integer(field_); }
    bool boolean() const { return c::boolean(field_); }
    std::string_view text() const
    {
        uint32_t len;
        const char *at = c::text_of(field_, &len);
        return { at, len };
    }
    /* Milliseconds since 1970. */
    int64_t date_ms() const { return c::date_ms(field_); }
    uint64_t timestamp() const { return c::timestamp(field_); }
    /* The bytes of an ObjectId, of a decimal128, of binary data. */
    std::string_view object_id() const { return bytes(c::object_id(field_), 12); }
    std::string_view decimal() const { return bytes(c::decimal(field_), 16); }
    std::string_view binary(uint8_t *subtype = nullptr) const
    {
        uint32_t len;
        uint8_t kind;
        const uint8_t *at = c::binary(field_, &len, &kind);
        if (subtype)
            *subtype = kind;
        return bytes(at, len);
    }
    std::string_view pattern() const
    {
        const char *options;
        return c::regex(field_, &options);
    }
    std::string_view options() const
    {
        const char *options;
        c::regex(field_, &options);
        return options;
    }
    /* The source of code, or a symbol's name. */
    std::string_view code() const
    {
        uint32_t len;
        const char *at = c::code(field_, &len);
        return { at, len };
    }
    inline Doc code_scope() const;
    inline Doc doc() const;
    inline Values array() const;

    double number_or(double fallback) const { return c::number_or(field_, fallback); }
    int64_t integer_or(int64_t fallback) const { return c::integer_or(field_, fallback); }
    bool boolean_or(bool fallback) const { return c::boolean_or(field_, fallback); }
    std::string_view text_or(std::string_view fallback) const
    {
        return type() == Type::String ? text() : fallback;
    }

    Type write(std::string &out) const
    {
        if (!*this)
            return Type::Null;
        out.append(bytes(field_.value, field_.size));
        return type();
    }

private:
    static std::string_view bytes(const uint8_t *at, uint32_t len)
    {
        return { reinterpret_cast<const char *>(at), len };
    }
    c::Field field_;
};

/* The values of an array or of a key, or the fields of a document: `for (Value value : values)`. */
class Values {
public:
    explicit Values(c::Document doc) : doc_(doc) {}

    class Iterator {
    public:
        Iterator(c::Document doc, bool end) : doc_(doc), more_(!end)
        {
            if (!end)
                ++*this;
        }
        Value operator*() const { return Value(field_); }
        Iterator &operator++()
        {
            more_ = c::next(doc_, &at_, &field_);
            return *this;
        }
        bool operator!=(const Iterator &other) const { return more_ != other.more_; }

    private:
        c::Document doc_;
        const uint8_t *at_ = nullptr;
        c::Field field_ = {};
        bool more_;
    };

    Iterator begin() const { return Iterator(doc_, false); }
    Iterator end() const { return Iterator(doc_, true); }

    Type write(std::string &out) const
    {
        out.append(reinterpret_cast<const char *>(doc_.bytes), doc_.len);
        return Type::Array;
    }

protected:
    c::Document doc_;
};

/* A document. Iterating over it gives its fields. */
class Doc : public Values {
public:
    using Values::Values;
    /* The field of that name, or none. */
    Value operator[](const char *name) const { return Value(c::find(doc_, name)); }

    Type write(std::string &out) const
    {
        Values::write(out);
        return Type::Document;
    }
};

inline Doc Value::code_scope() const { return Doc(c::code_scope(field_)); }
inline Doc Value::doc() const { return Doc(c::inner(c::field_of(field_, c::BSON_DOCUMENT))); }
inline Values Value::array() const { return Values(c::inner(c::field_of(field_, c::BSON_ARRAY))); }

/* The job's parameters. */
inline Doc scope() { return Doc(c::scope()); }

/* Values of types that C++ has none for. */
struct DateMs {
    int64_t ms;
};
struct Timestamp {
    uint64_t value;
};
struct ObjectId {
    uint8_t bytes[12];
};
struct Decimal {
    uint8_t bytes[16];
};
struct Binary {
    std::string_view bytes;
    uint8_t subtype = 0;
};
struct Regex {
    std::string_view pattern, options;
};
struct Code {
    std::string_view source;
};
struct Symbol {
    std::string_view name;
};
struct MinKey {};
struct MaxKey {};

template <class T> Type put(std::string &out, const T &value);

/* Makes a document: Document().set("id", id).set("total", 2.5). */
class Document {
public:
    template <class T> Document &set(std::string_view name, const T &value)
    {
        size_t start = fields_.size();
        if (name.find('\0') != name.npos)
            fail("a field's name holds a NUL");
        fields_.push_back(0);
        fields_.append(name);
        fields_.push_back(0);
        Type type = put(fields_, value);
        fields_[start] = static_cast<char>(type);
        return *this;
    }

    Type write(std::string &out) const
    {
        uint32_t len = static_cast<uint32_t>(fields_.size()) + 5;
        out.append(reinterpret_cast<const char *>(&len), 4);
        out.append(fields_);
        out.push_back(0);
        return Type::Document;
    }

private:
    std::string fields_;
};

/* Makes an array: Array().push(1).push("two"). */
class Array {
public:
    template <class T> Array &push(const T &value)
    {
        fields_.set(std::to_string(size_++), value);
        return *this;
    }

    Type write(std::string &out) const
    {
        fields_.write(out);
        return Type::Array;
    }

private:
    Document fields_;
    uint32_t size_ = 0;
};

namespace detail {
template <class T> void append(std::string &out, T value)
{
    out.append(reinterpret_cast<const char *>(&value), sizeof(value));
}
template <class T, class = void> struct writes : std::false_type {};
template <class T>
struct writes<T, std::void_t<decltype(std::declval<const T &>().write(std::declval<std::string &>()))>>
    : std::true_type {};
template <class T, class = void> struct ranges : std::false_type {};
template <class T> struct ranges<T, std::void_t<decltype(std::declval<const T &>().begin())>> : std::true_type {};
} // namespace detail

/* Appends a value's bytes and returns its type. Integers of up to 32 bits become an int32, unsigned ones of 32 bits and
 * larger ones an int64. */
template <class T> Type put(std::string &out, const T &value)
{
    if constexpr (std::is_same_v<T, bool>) {
        out.push_back(value ? 1 : 0);
        return Type::Bool;
    } else if constexpr (std::is_integral_v<T>) {
        if constexpr (sizeof(T) < 4 || (sizeof(T) == 4 && std::is_signed_v<T>)) {
            detail::append<int32_t>(out, value);
            return Type::Int32;
        } else {
            if (std::is_unsigned_v<T> && static_cast<uint64_t>(value) > INT64_MAX)
                fail("an integer does not fit into BSON's 64 bits with sign");
            detail::append<int64_t>(out, static_cast<int64_t>(value));
            return Type::Int64;
        }
    } else if constexpr (std::is_floating_point_v<T>) {
        detail::append<double>(out, static_cast<double>(value));
        return Type::Double;
    } else if constexpr (std::is_same_v<T, std::nullptr_t>) {
        return Type::Null;
    } else if constexpr (std::is_convertible_v<const T &, std::string_view>) {
        std::string_view text = value;
        detail::append<uint32_t>(out, static_cast<uint32_t>(text.size()) + 1);
        out.append(text);
        out.push_back(0);
        return Type::String;
    } else if constexpr (detail::writes<T>::value) {
        return value.write(out);
    } else if constexpr (std::is_same_v<T, DateMs>) {
        detail::append<int64_t>(out, value.ms);
        return Type::Date;
    } else if constexpr (std::is_same_v<T, Timestamp>) {
        detail::append<uint64_t>(out, value.value);
        return Type::Timestamp;
    } else if constexpr (std::is_same_v<T, ObjectId>) {
        detail::append(out, value);
        return Type::ObjectId;
    } else if constexpr (std::is_same_v<T, Decimal>) {
        detail::append(out, value);
        return Type::Decimal;
    } else if constexpr (std::is_same_v<T, Binary>) {
        detail::append<uint32_t>(out, static_cast<uint32_t>(value.bytes.size()));
        out.push_back(static_cast<char>(value.subtype));
        out.append(value.bytes);
        return Type::Binary;
    } else if constexpr (std::is_same_v<T, Regex>) {
        for (std::string_view text : { value.pattern, value.options }) {
            if (text.find('\0') != text.npos)
                fail("a regular expression holds a NUL");
            out.append(text);
            out.push_back(0);
        }
        return Type::Regex;
    } else if constexpr (std::is_same_v<T, Code>) {
        put(out, value.source);
        return Type::Code;
    } else if constexpr (std::is_same_v<T, Symbol>) {
        put(out, value.name);
        return Type::Symbol;
    } else if constexpr (std::is_same_v<T, MinKey>) {
        return Type::MinKey;
    } else if constexpr (std::is_same_v<T, MaxKey>) {
        return Type::MaxKey;
    } else {
        static_assert(detail::ranges<T>::value, "this cannot be written as BSON: give a number, bool, text, nullptr, "
                                                "Value, Document, Array, or a container of these");
        Array array;
        for (const auto &element : value)
            array.push(element);
        return array.write(out);
    }
}

/* Emits a pair. */
template <class K, class V> void emit(const K &key, const V &value)
{
    static std::string key_bytes, value_bytes;
    key_bytes.assign(1, 0);
    key_bytes[0] = static_cast<char>(put(key_bytes, key));
    value_bytes.assign(1, 0);
    value_bytes[0] = static_cast<char>(put(value_bytes, value));
    c::aviary_emit(reinterpret_cast<const uint8_t *>(key_bytes.data()), static_cast<uint32_t>(key_bytes.size()),
                   reinterpret_cast<const uint8_t *>(value_bytes.data()), static_cast<uint32_t>(value_bytes.size()));
}

namespace detail {
template <class F> void each(const uint8_t *at, uint32_t len, F one)
{
    while (len) {
        c::Document doc = c::document_at(at, len);
        one(doc);
        at += doc.len;
        len -= doc.len;
    }
}
inline Value key(c::Document one) { return Value(c::need(one, "k", 0)); }
inline Values values(c::Document one) { return Values(c::inner(c::need(one, "v", c::BSON_ARRAY))); }
} // namespace detail

} // namespace aviary

/* --- exports: as in aviary.h, with the types of this file --- */

#undef AVIARY_MAP
#undef AVIARY_GROUP
#undef AVIARY_FINALIZE
#undef AVIARY_REDUCE_BEGIN
#undef AVIARY_REDUCE_NEXT
#undef AVIARY_REDUCE_END
#undef AVIARY_REDUCE_SUM

#define AVIARY_STAGE(name) extern "C" AVIARY_EXPORT(#name) void aviary_cpp_##name(const uint8_t *at, uint32_t len)

#define AVIARY_MAP(doc)                                                                                                \
    static void aviary_map_body(aviary::Doc doc);                                                                      \
    AVIARY_STAGE(map)                                                                                                  \
    {                                                                                                                  \
        aviary::c::aviary_sums_begin();                                                                                \
        aviary::detail::each(at, len, [](aviary::c::Document one) { aviary_map_body(aviary::Doc(one)); });             \
        aviary::c::aviary_sums_end();                                                                                  \
    }                                                                                                                  \
    static void aviary_map_body(aviary::Doc doc)

#define AVIARY_GROUP(stage, key, values)                                                                               \
    static void aviary_##stage##_body(aviary::Value key, aviary::Values values);                                       \
    AVIARY_STAGE(stage)                                                                                                \
    {                                                                                                                  \
        aviary::detail::each(at, len, [](aviary::c::Document one) {                                                    \
            aviary_##stage##_body(aviary::detail::key(one), aviary::detail::values(one));                              \
        });                                                                                                            \
    }                                                                                                                  \
    static void aviary_##stage##_body(aviary::Value key, aviary::Values values)

#define AVIARY_FINALIZE(key, value)                                                                                    \
    static void aviary_finalize_body(aviary::Value key, aviary::Value value);                                          \
    AVIARY_STAGE(finalize)                                                                                             \
    {                                                                                                                  \
        aviary::detail::each(at, len, [](aviary::c::Document one) {                                                    \
            aviary_finalize_body(aviary::detail::key(one), aviary::Value(aviary::c::need(one, "v", 0)));               \
        });                                                                                                            \
    }                                                                                                                  \
    static void aviary_finalize_body(aviary::Value key, aviary::Value value)

#define AVIARY_REDUCE_BEGIN(key)                                                                                       \
    static void aviary_reduce_begin_body(aviary::Value key);                                                           \
    AVIARY_STAGE(reduce_begin)                                                                                         \
    {                                                                                                                  \
        aviary::c::Field given = aviary::c::need(aviary::c::document_at(at, len), "k", 0);                             \
        aviary_reduce_begin_body(aviary::Value(*aviary::c::aviary_keep_key(given)));                                   \
    }                                                                                                                  \
    static void aviary_reduce_begin_body(aviary::Value key)

#define AVIARY_REDUCE_NEXT(values)                                                                                     \
    static void aviary_reduce_next_body(aviary::Values values);                                                        \
    AVIARY_STAGE(reduce_next)                                                                                          \
    {                                                                                                                  \
        aviary_reduce_next_body(aviary::detail::values(aviary::c::document_at(at, len)));                              \
    }                                                                                                                  \
    static void aviary_reduce_next_body(aviary::Values values)

#define AVIARY_REDUCE_END(key)                                                                                         \
    static void aviary_reduce_end_body(aviary::Value key);                                                             \
    extern "C" AVIARY_EXPORT("reduce_end") void aviary_cpp_reduce_end()                                                \
    {                                                                                                                  \
        aviary_reduce_end_body(aviary::Value(*aviary::c::aviary_keep_key(aviary::c::Field{})));                        \
    }                                                                                                                  \
    static void aviary_reduce_end_body(aviary::Value key)

#endif
