/* Aviary guests in C: the imports of ABI version 1, BSON read in place, and utilities to emit.
 *
 *     #include "aviary.h"
 *     AVIARY_MAP(doc)
 *     {
 *         emit_double(need(doc, "customer", BSON_STRING), number(need(doc, "total", 0)));
 *     }
 *     AVIARY_REDUCE_SUM
 *
 * Nothing is copied and nothing is allocated but the input buffer. Every length is checked, so damaged input fails the
 * record. */
#ifndef AVIARY_H
#define AVIARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AVIARY_IMPORT(name) __attribute__((import_module("aviary"), import_name(name)))
#define AVIARY_EXPORT(name) __attribute__((export_name(name), used))

/* Each value is a type byte and the value's bytes, as in a BSON element. */
AVIARY_IMPORT("emit") void aviary_emit(const uint8_t *key, uint32_t key_len, const uint8_t *value, uint32_t value_len);
AVIARY_IMPORT("count") void aviary_count(const char *name, uint32_t name_len, int64_t delta);
AVIARY_IMPORT("log") void aviary_log(int32_t level, const char *text, uint32_t len);
/* The record is bad: does not return. */
AVIARY_IMPORT("fail") __attribute__((noreturn)) void aviary_fail(const char *text, uint32_t len);
/* Copies at most `cap` bytes of the job's parameters, one BSON document, and returns its full length. */
AVIARY_IMPORT("scope") uint32_t aviary_scope(uint8_t *buffer, uint32_t cap);

enum { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

enum {
    BSON_DOUBLE = 0x01, BSON_STRING = 0x02, BSON_DOCUMENT = 0x03, BSON_ARRAY = 0x04, BSON_BINARY = 0x05,
    BSON_UNDEFINED = 0x06, BSON_OBJECT_ID = 0x07, BSON_BOOL = 0x08, BSON_DATE = 0x09, BSON_NULL = 0x0A,
    BSON_REGEX = 0x0B, BSON_DB_POINTER = 0x0C, BSON_CODE = 0x0D, BSON_SYMBOL = 0x0E, BSON_CODE_W_SCOPE = 0x0F,
    BSON_INT32 = 0x10, BSON_TIMESTAMP = 0x11, BSON_INT64 = 0x12, BSON_DECIMAL = 0x13,
    BSON_MAX_KEY = 0x7F, BSON_MIN_KEY = 0xFF,
};

/* Bytes of the pieces that utilities put together on the stack. */
#define AVIARY_KEY_BYTES_MAX 4096

typedef struct Document {
    const uint8_t *bytes;
    uint32_t len;
} Document;

/* A field; type 0 where there is none. */
typedef struct Field {
    const char *name;
    const uint8_t *value;
    uint32_t size;
    uint8_t type;
} Field;

static inline uint32_t text_len(const char *text)
{
    uint32_t len = 0;
    while (text[len])
        len++;
    return len;
}

static __attribute__((noreturn, noinline, cold, unused)) void fail(const char *text)
{
    aviary_fail(text, text_len(text));
    __builtin_trap();
}

static inline void count(const char *name, int64_t delta)
{
    aviary_count(name, text_len(name), delta);
}

static inline uint32_t read_u32(const uint8_t *p)
{
    uint32_t v;
    __builtin_memcpy(&v, p, 4);
    return v;
}

static inline int64_t read_i64(const uint8_t *p)
{
    int64_t v;
    __builtin_memcpy(&v, p, 8);
    return v;
}

static inline double read_f64(const uint8_t *p)
{
    double v;
    __builtin_memcpy(&v, p, 8);
    return v;
}

#define AVIARY_CHECK(condition) do { if (!(condition)) fail("malformed BSON in the input"); } while (0)

static inline Document document_at(const uint8_t *p, uint32_t room)
{
    AVIARY_CHECK(room >= 5);
    Document doc = { p, read_u32(p) };
    AVIARY_CHECK(doc.len >= 5 && doc.len <= room && p[doc.len - 1] == 0);
    return doc;
}

static inline uint32_t aviary_text_size(const uint8_t *p, uint32_t room)
{
    AVIARY_CHECK(room >= 5);
    uint32_t len = read_u32(p);
    AVIARY_CHECK(len >= 1 && len <= room - 4 && p[3 + len] == 0);
    return 4 + len;
}

static inline uint32_t aviary_value_size(uint8_t type, const uint8_t *p, uint32_t room)
{
    uint32_t size = 0;
    switch (type) {
    case BSON_DOUBLE: case BSON_DATE: case BSON_TIMESTAMP: case BSON_INT64: size = 8; break;
    case BSON_INT32: size = 4; break;
    case BSON_BOOL: size = 1; break;
    case BSON_OBJECT_ID: size = 12; break;
    case BSON_DECIMAL: size = 16; break;
    case BSON_UNDEFINED: case BSON_NULL: case BSON_MIN_KEY: case BSON_MAX_KEY: break;
    case BSON_STRING: case BSON_CODE: case BSON_SYMBOL: return aviary_text_size(p, room);
    case BSON_DOCUMENT: case BSON_ARRAY: return document_at(p, room).len;
    case BSON_DB_POINTER: size = aviary_text_size(p, room) + 12; break;
    case BSON_BINARY:
        AVIARY_CHECK(room >= 5);
        size = read_u32(p);
        AVIARY_CHECK(size <= room - 5);
        return size + 5;
    case BSON_CODE_W_SCOPE:
        AVIARY_CHECK(room >= 14);
        size = read_u32(p);
        AVIARY_CHECK(size >= 14);
        break;
    case BSON_REGEX:
        for (int strings = 0; strings < 2; size++) {
            AVIARY_CHECK(size < room);
            strings += p[size] == 0;
        }
        break;
    default: fail("malformed BSON in the input");
    }
    AVIARY_CHECK(size <= room);
    return size;
}

/* Iterates: `for (const uint8_t *p = NULL; next(doc, &p, &f);)`. */
static inline bool next(Document doc, const uint8_t **at, Field *f)
{
    const uint8_t *end = doc.bytes + doc.len - 1, *p = *at ? *at : doc.bytes + 4;
    f->type = p < end ? *p : 0;
    if (!f->type) {
        AVIARY_CHECK(p == end);
        return false;
    }
    f->name = (const char *)++p;
    while (*p)
        p++;
    AVIARY_CHECK(++p <= end);
    f->value = p;
    f->size = aviary_value_size(f->type, p, (uint32_t)(end - p));
    *at = p + f->size;
    return true;
}

static inline bool same_name(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

/* The field of that name, of type 0 if there is none. */
static inline Field find(Document doc, const char *name)
{
    Field f;
    for (const uint8_t *p = NULL; next(doc, &p, &f);) {
        if (same_name(f.name, name))
            return f;
    }
    return f;
}

/* The field of that name and type (0 for any); the record fails without it. */
static inline Field need(Document doc, const char *name, uint8_t type)
{
    Field f = find(doc, name);
    if (!f.type)
        fail("the document lacks a field that the function needs");
    if (type && f.type != type)
        fail("a field has another type than the function needs");
    return f;
}

static inline Document inner(Field f)
{
    if (f.type != BSON_DOCUMENT && f.type != BSON_ARRAY)
        fail("a field is not a document or an array");
    return (Document){ f.value, f.size };
}

/* The characters of a string, without the NUL. */
static inline const char *text_of(Field f, uint32_t *len)
{
    if (f.type != BSON_STRING)
        fail("a field is not a string");
    *len = f.size - 5;
    return (const char *)f.value + 4;
}

static inline double number(Field f)
{
    switch (f.type) {
    case BSON_DOUBLE: return read_f64(f.value);
    case BSON_INT32: return (int32_t)read_u32(f.value);
    case BSON_INT64: return (double)read_i64(f.value);
    default: fail("a field is not a number");
    }
}

static inline int64_t integer(Field f)
{
    switch (f.type) {
    case BSON_INT32: return (int32_t)read_u32(f.value);
    case BSON_INT64: return read_i64(f.value);
    default: fail("a field is not an integer");
    }
}

/* A key of any type, as it is in the document: an element has its type before its name, so the type is moved next to
 * the value for the length of the call. The byte before a value is always the NUL of the name. */
static inline void aviary_emit_key(Field key, const uint8_t *value, uint32_t value_len)
{
    uint8_t *tagged = (uint8_t *)key.value - 1;
    *tagged = key.type;
    aviary_emit(tagged, key.size + 1, value, value_len);
    *tagged = 0;
}

static inline void emit_raw(Field key, Field value)
{
    uint8_t *tagged = (uint8_t *)value.value - 1;
    *tagged = value.type;
    aviary_emit_key(key, tagged, value.size + 1);
    *tagged = 0;
}

static inline void emit_int32(Field key, int32_t v)
{
    uint8_t value[5] = { BSON_INT32 };
    __builtin_memcpy(value + 1, &v, 4);
    aviary_emit_key(key, value, sizeof(value));
}

static inline void emit_int64(Field key, int64_t v)
{
    uint8_t value[9] = { BSON_INT64 };
    __builtin_memcpy(value + 1, &v, 8);
    aviary_emit_key(key, value, sizeof(value));
}

static inline void emit_double(Field key, double v)
{
    uint8_t value[9] = { BSON_DOUBLE };
    __builtin_memcpy(value + 1, &v, 8);
    aviary_emit_key(key, value, sizeof(value));
}

/* A key made of text; fails the record beyond AVIARY_KEY_BYTES_MAX bytes. Returns the bytes of the key. */
static inline uint32_t text_key(uint8_t *key, const char *text, uint32_t len)
{
    if (len > AVIARY_KEY_BYTES_MAX - 6)
        fail("a key is too long");
    key[0] = BSON_STRING;
    uint32_t with_nul = len + 1;
    __builtin_memcpy(key + 1, &with_nul, 4);
    for (uint32_t i = 0; i < len; i++)
        key[5 + i] = (uint8_t)text[i];
    key[5 + len] = 0;
    return len + 6;
}

static inline void emit_text_int32(const char *text, uint32_t len, int32_t v)
{
    uint8_t key[AVIARY_KEY_BYTES_MAX], value[5] = { BSON_INT32 };
    __builtin_memcpy(value + 1, &v, 4);
    aviary_emit(key, text_key(key, text, len), value, sizeof(value));
}

static inline void emit_text_double(const char *text, uint32_t len, double v)
{
    uint8_t key[AVIARY_KEY_BYTES_MAX], value[9] = { BSON_DOUBLE };
    __builtin_memcpy(value + 1, &v, 8);
    aviary_emit(key, text_key(key, text, len), value, sizeof(value));
}

/* --- exports ---------------------------------------------------------------------------------------------------- */

AVIARY_EXPORT("aviary_abi_v1") void aviary_abi_v1(void)
{
}

extern uint8_t __heap_base[];

/* The input lies behind everything else in memory, which grows as far as the host lets it. */
AVIARY_EXPORT("aviary_alloc") uint8_t *aviary_alloc(uint32_t len)
{
    uint64_t end = (uint64_t)(uintptr_t)__heap_base + len, have = (uint64_t)__builtin_wasm_memory_size(0) << 16;
    if (end > have && __builtin_wasm_memory_grow(0, (uint32_t)((end - have + 0xFFFF) >> 16)) == (size_t)-1)
        fail("out of memory: the batch does not fit into the memory limit of its task");
    return __heap_base;
}

/* Defines the export map, which runs the body for every document of the batch. */
#define AVIARY_MAP(doc)                                                                                                \
    static inline void aviary_map_one(Document doc);                                                                   \
    AVIARY_EXPORT("map") void aviary_map(const uint8_t *p, uint32_t len)                                               \
    {                                                                                                                  \
        while (len) {                                                                                                  \
            Document one = document_at(p, len);                                                                        \
            aviary_map_one(one);                                                                                       \
            p += one.len;                                                                                              \
            len -= one.len;                                                                                            \
        }                                                                                                              \
    }                                                                                                                  \
    static inline void aviary_map_one(Document doc)

/* Defines the export reduce, which runs the body for every key with its array of values. */
#define AVIARY_REDUCE(key, values)                                                                                     \
    static inline void aviary_reduce_one(Field key, Document values);                                                  \
    AVIARY_EXPORT("reduce") void aviary_reduce(const uint8_t *p, uint32_t len)                                         \
    {                                                                                                                  \
        while (len) {                                                                                                  \
            Document one = document_at(p, len);                                                                        \
            aviary_reduce_one(need(one, "k", 0), inner(need(one, "v", BSON_ARRAY)));                                   \
            p += one.len;                                                                                              \
            len -= one.len;                                                                                            \
        }                                                                                                              \
    }                                                                                                                  \
    static inline void aviary_reduce_one(Field key, Document values)

/* Sums numbers: 32-bit integers to one if it fits, integers to a 64-bit integer, anything with a double to a double. */
static inline void emit_sum(Field key, Document values)
{
    int64_t whole = 0;
    double real = 0;
    bool any_double = false, any_int64 = false;
    Field f;
    for (const uint8_t *p = NULL; next(values, &p, &f);) {
        if (f.type == BSON_DOUBLE) {
            any_double = true;
            real += read_f64(f.value);
        } else {
            any_int64 |= f.type == BSON_INT64;
            if (__builtin_add_overflow(whole, integer(f), &whole))
                fail("a sum of integers does not fit into 64 bits");
        }
    }
    if (any_double)
        emit_double(key, real + (double)whole);
    else if (any_int64 || whole != (int32_t)whole)
        emit_int64(key, whole);
    else
        emit_int32(key, (int32_t)whole);
}

#define AVIARY_REDUCE_SUM AVIARY_REDUCE(key, values) { emit_sum(key, values); }

#endif
