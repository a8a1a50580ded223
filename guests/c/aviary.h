/* Aviary guests in C: the imports of ABI version 1, BSON read in place, and utilities to emit.
 *
 *     #include "aviary.h"
 *     AVIARY_MAP(doc)
 *     {
 *         emit_double(need(doc, "customer", BSON_STRING), number(need(doc, "total", 0)));
 *     }
 *     AVIARY_REDUCE_SUM
 *
 * Reading copies nothing and allocates nothing but the input buffer. Every length is checked, so damaged input fails
 * the record. What is read lies in the input, and is good until the function returns.
 *
 * It serves with a C library (wasm32-wasi) and without one (wasm32-freestanding). aviary.hpp is the same in C++. */
#ifndef AVIARY_H
#define AVIARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#ifdef __wasi__
#include <stdlib.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define AVIARY_IMPORT(name) __attribute__((import_module("aviary"), import_name(name)))
#define AVIARY_EXPORT(name) __attribute__((export_name(name), used))

/* What the files of a module have in common. */
#define AVIARY_SHARED __attribute__((weak))

/* Each value is a type byte and the value's bytes, as in a BSON element. */
AVIARY_IMPORT("emit") void aviary_emit_one(const uint8_t *key, uint32_t key_len, const uint8_t *value,
                                           uint32_t value_len);
/* So many emits of one key at once, whose values add up to that one. */
AVIARY_IMPORT("emit_total") void aviary_emit_total(const uint8_t *key, uint32_t key_len, const uint8_t *value,
                                                   uint32_t value_len, uint32_t emits);
AVIARY_IMPORT("count") void aviary_count(const char *name, uint32_t name_len, int64_t delta);
AVIARY_IMPORT("log") void aviary_log(int32_t level, const char *text, uint32_t len);
/* The record is bad: does not return. */
AVIARY_IMPORT("fail") __attribute__((noreturn)) void aviary_fail(const char *text, uint32_t len);
/* Copies at most `cap` bytes of the job's parameters, one BSON document, and returns its full length. */
AVIARY_IMPORT("scope") uint32_t aviary_scope(uint8_t *buffer, uint32_t cap);

enum { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_TRACE };

enum {
    BSON_DOUBLE = 0x01, BSON_STRING = 0x02, BSON_DOCUMENT = 0x03, BSON_ARRAY = 0x04, BSON_BINARY = 0x05,
    BSON_UNDEFINED = 0x06, BSON_OBJECT_ID = 0x07, BSON_BOOL = 0x08, BSON_DATE = 0x09, BSON_NULL = 0x0A,
    BSON_REGEX = 0x0B, BSON_DB_POINTER = 0x0C, BSON_CODE = 0x0D, BSON_SYMBOL = 0x0E, BSON_CODE_W_SCOPE = 0x0F,
    BSON_INT32 = 0x10, BSON_TIMESTAMP = 0x11, BSON_INT64 = 0x12, BSON_DECIMAL = 0x13,
    BSON_MAX_KEY = 0x7F, BSON_MIN_KEY = 0xFF,
};

/* Bytes of a key that a function puts together on the stack. */
#define AVIARY_KEY_BYTES_MAX 4096

typedef struct Document {
    const uint8_t *bytes;
    uint32_t len;
} Document;

/* A field; type 0 where there is none, with the name that was asked for. */
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

/* Fails the record with several texts in one; NULL is none. */
static __attribute__((noreturn, noinline, cold, unused)) void fail_with(const char *a, const char *b, const char *c,
                                                                        const char *d)
{
    char text[512];
    const char *parts[] = { a, b, c, d };
    uint32_t len = 0;
    for (int i = 0; i < 4; i++) {
        for (const char *p = parts[i]; p && *p && len < sizeof(text); p++)
            text[len++] = *p;
    }
    aviary_fail(text, len);
    __builtin_trap();
}

/* A line in the worker's log. */
static inline void log_text(int32_t level, const char *text)
{
    aviary_log(level, text, text_len(text));
}

/* Adds to a counter of the job. */
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
    return (Field){ name, NULL, 0, 0 };
}

static inline const char *type_name(uint8_t type)
{
    switch (type) {
    case 0: return "missing";
    case BSON_DOUBLE: return "a double";
    case BSON_STRING: return "a string";
    case BSON_DOCUMENT: return "a document";
    case BSON_ARRAY: return "an array";
    case BSON_BINARY: return "binary data";
    case BSON_UNDEFINED: return "undefined";
    case BSON_OBJECT_ID: return "an ObjectId";
    case BSON_BOOL: return "a boolean";
    case BSON_DATE: return "a date";
    case BSON_NULL: return "null";
    case BSON_REGEX: return "a regular expression";
    case BSON_DB_POINTER: return "a DBPointer";
    case BSON_CODE: return "code";
    case BSON_SYMBOL: return "a symbol";
    case BSON_CODE_W_SCOPE: return "code with a scope";
    case BSON_INT32: return "an int32";
    case BSON_TIMESTAMP: return "a timestamp";
    case BSON_INT64: return "an int64";
    case BSON_DECIMAL: return "a decimal128";
    case BSON_MAX_KEY: return "MaxKey";
    case BSON_MIN_KEY: return "MinKey";
    default: return "of an unknown type";
    }
}

/* Fails the record: "the field 'total' is a string, not a number". */
static __attribute__((noreturn, noinline, cold, unused)) void fail_type(Field f, const char *wanted)
{
    char text[256];
    const char *parts[] = { "the field '", f.name ? f.name : "", "' is ", type_name(f.type) };
    uint32_t len = 0;
    for (int i = 0; i < 4; i++) {
        for (const char *p = parts[i]; *p && len < sizeof(text) - 1; p++)
            text[len++] = *p;
    }
    text[len] = 0;
    fail_with(text, f.type ? ", not " : "; the function needs ", wanted, NULL);
}

/* The field, which must have that type. */
static inline Field field_of(Field f, uint8_t type)
{
    if (f.type != type)
        fail_type(f, type_name(type));
    return f;
}

/* The field of that name and type (0 for any); the record fails without it. */
static inline Field need(Document doc, const char *name, uint8_t type)
{
    Field f = find(doc, name);
    if (!f.type)
        fail_with("the field '", name, "' is missing", NULL);
    return type ? field_of(f, type) : f;
}

static inline Document inner(Field f)
{
    if (f.type != BSON_DOCUMENT && f.type != BSON_ARRAY)
        fail_type(f, "a document or an array");
    return (Document){ f.value, f.size };
}

/* The characters of a string, without the NUL. */
static inline const char *text_of(Field f, uint32_t *len)
{
    if (f.type != BSON_STRING)
        fail_type(f, "a string");
    *len = f.size - 5;
    return (const char *)f.value + 4;
}

static inline double number(Field f)
{
    switch (f.type) {
    case BSON_DOUBLE: return read_f64(f.value);
    case BSON_INT32: return (int32_t)read_u32(f.value);
    case BSON_INT64: return (double)read_i64(f.value);
    default: fail_type(f, "a number");
    }
}

static inline int64_t integer(Field f)
{
    switch (f.type) {
    case BSON_INT32: return (int32_t)read_u32(f.value);
    case BSON_INT64: return read_i64(f.value);
    default: fail_type(f, "an integer");
    }
}

static inline bool is_integer(Field f)
{
    return f.type == BSON_INT32 || f.type == BSON_INT64;
}

static inline bool is_number(Field f)
{
    return f.type == BSON_DOUBLE || is_integer(f);
}

/* The same for a field that may be missing or of another type. */
static inline double number_or(Field f, double fallback)
{
    return is_number(f) ? number(f) : fallback;
}

static inline int64_t integer_or(Field f, int64_t fallback)
{
    return is_integer(f) ? integer(f) : fallback;
}

static inline bool boolean_or(Field f, bool fallback)
{
    return f.type == BSON_BOOL ? *f.value != 0 : fallback;
}

static inline bool boolean(Field f)
{
    if (f.type != BSON_BOOL)
        fail_type(f, "a boolean");
    return *f.value != 0;
}

/* Milliseconds since 1970. */
static inline int64_t date_ms(Field f)
{
    if (f.type != BSON_DATE)
        fail_type(f, "a date");
    return read_i64(f.value);
}

/* Seconds in the upper half, the increment in the lower one. */
static inline uint64_t timestamp(Field f)
{
    if (f.type != BSON_TIMESTAMP)
        fail_type(f, "a timestamp");
    return (uint64_t)read_i64(f.value);
}

/* Twelve bytes. */
static inline const uint8_t *object_id(Field f)
{
    if (f.type != BSON_OBJECT_ID)
        fail_type(f, "an ObjectId");
    return f.value;
}

/* Sixteen bytes: the lower half of IEEE 754's packing, then the upper one. */
static inline const uint8_t *decimal(Field f)
{
    if (f.type != BSON_DECIMAL)
        fail_type(f, "a decimal128");
    return f.value;
}

static inline const uint8_t *binary(Field f, uint32_t *len, uint8_t *subtype)
{
    if (f.type != BSON_BINARY)
        fail_type(f, "binary data");
    *len = read_u32(f.value);
    *subtype = f.value[4];
    return f.value + 5;
}

/* The pattern of a regular expression; its options follow it. Both end with a NUL. */
static inline const char *regex(Field f, const char **options)
{
    if (f.type != BSON_REGEX)
        fail_type(f, "a regular expression");
    const char *pattern = (const char *)f.value;
    *options = pattern + text_len(pattern) + 1;
    return pattern;
}

/* The source of code, with a scope or without, or a symbol's name. */
static inline const char *code(Field f, uint32_t *len)
{
    const uint8_t *at = f.value;
    if (f.type == BSON_CODE_W_SCOPE)
        at += 4;
    else if (f.type != BSON_CODE && f.type != BSON_SYMBOL)
        fail_type(f, "code");
    *len = read_u32(at) - 1;
    return (const char *)at + 4;
}

/* The scope of code with a scope. */
static inline Document code_scope(Field f)
{
    if (f.type != BSON_CODE_W_SCOPE)
        fail_type(f, "code with a scope");
    uint32_t code = aviary_text_size(f.value + 4, f.size - 4) + 4;
    return document_at(f.value + code, f.size - code);
}

/* --- sums --------------------------------------------------------------------------------------------------------
 *
 * A job whose values are only summed or counted does not care in how many emits its sums come. So while AVIARY_MAP runs,
 * an emit of a short text, or of an ObjectId, with a number is an addition in a table of the keys that came lately, and
 * the host is given each key once: when the call ends, when a key makes room for another, and before more than
 * AVIARY_SUMS_BYTES_MAX are waiting, so that the limit on what a record may emit is kept.
 *
 * Only sums that are exact are made: of integers within their type, and of doubles that are multiples of 1/256 as long
 * as the sum is below 2^44. Any other value goes to the host as it is. Where keys rarely repeat, the table costs more
 * than it saves; it then rests for a while. Define AVIARY_NO_SUMS before the include to do without it. */

#ifdef AVIARY_NO_SUMS
static inline void aviary_emit(const uint8_t *key, uint32_t key_len, const uint8_t *value, uint32_t value_len)
{
    aviary_emit_one(key, key_len, value, value_len);
}
static inline void aviary_sums_begin(void)
{
}
static inline void aviary_sums_end(void)
{
}
#else
/* A text of up to 28 bytes, with its type, its length and its NUL. */
#define AVIARY_SUM_KEY_BYTES_MAX 34
#define AVIARY_SUM_SETS_BITS 13
#define AVIARY_SUM_WAYS 2
#define AVIARY_SUM_ENTRIES (AVIARY_SUM_WAYS << AVIARY_SUM_SETS_BITS)
#define AVIARY_SUM_SCALE 256.0
#define AVIARY_SUM_MAX 17592186044416.0 /* 2^44 */
#define AVIARY_SUMS_BYTES_MAX (1u << 20)
/* Of so many emits, at most half may have had keys that were not in the table, or it rests for so many more. */
#define AVIARY_SUMS_JUDGED 8192
#define AVIARY_SUMS_REST (1u << 17)

typedef struct AviarySum {
    union {
        int64_t integer;
        double real;
    } sum;
    uint32_t emits; /* 0: free */
    uint8_t type, key_len;
    uint8_t key[AVIARY_SUM_KEY_BYTES_MAX];
} AviarySum;

typedef struct AviarySums {
    AviarySum entries[AVIARY_SUM_ENTRIES];
    /* The entries that are not free, or were not. */
    uint16_t used[AVIARY_SUM_ENTRIES];
    uint32_t used_len;
    /* Bytes that the emits waiting here would have had. */
    uint32_t bytes;
    /* Emits taken since the last judgement, and those among them whose key was not in the table. */
    uint32_t taken, missed, rest;
    bool wanted, open;
} AviarySums;

AVIARY_SHARED AviarySums aviary_sums_table;

/* The host says that sums are all that is wanted. */
AVIARY_SHARED AVIARY_EXPORT("aviary_sums") void aviary_sums(int32_t wanted)
{
    aviary_sums_table.wanted = wanted == 1;
}

static inline uint32_t aviary_sum_size(uint8_t type)
{
    return type == BSON_INT32 ? 5 : 9;
}

static __attribute__((noinline, unused)) void aviary_sum_give(AviarySum *entry)
{
    uint8_t value[9] = { entry->type };
    uint32_t size = aviary_sum_size(entry->type);
    if (entry->type == BSON_INT32) {
        int32_t narrow = (int32_t)entry->sum.integer;
        __builtin_memcpy(value + 1, &narrow, 4);
    } else {
        __builtin_memcpy(value + 1, &entry->sum, 8);
    }
    aviary_emit_total(entry->key, entry->key_len, value, size, entry->emits);
    aviary_sums_table.bytes -= (entry->key_len + size) * entry->emits;
    entry->emits = 0;
}

static __attribute__((noinline, unused)) void aviary_sums_flush(void)
{
    AviarySums *all = &aviary_sums_table;
    for (uint32_t i = 0; i < all->used_len; i++) {
        if (all->entries[all->used[i]].emits)
            aviary_sum_give(&all->entries[all->used[i]]);
    }
    all->used_len = 0;
}

static inline void aviary_sums_begin(void)
{
    aviary_sums_table.open = aviary_sums_table.wanted;
}

static inline void aviary_sums_end(void)
{
    if (aviary_sums_table.open)
        aviary_sums_flush();
    aviary_sums_table.open = false;
}

static inline uint32_t aviary_sum_hash(const uint8_t *p, uint32_t len)
{
    uint64_t hash = len, word;
    uint32_t i;
    for (i = 0; i + 8 <= len; i += 8) {
        __builtin_memcpy(&word, p + i, 8);
        hash = (hash ^ word) * 0x9E3779B97F4A7C15ull;
        hash ^= hash >> 32;
    }
    for (word = 0; i < len; i++)
        word = word << 8 | p[i];
    hash = (hash ^ word) * 0x9E3779B97F4A7C15ull;
    return (uint32_t)(hash >> (64 - AVIARY_SUM_SETS_BITS));
}

static inline bool aviary_same_bytes(const uint8_t *a, const uint8_t *b, uint32_t len)
{
    uint64_t x, y;
    uint32_t i;
    for (i = 0; i + 8 <= len; i += 8) {
        __builtin_memcpy(&x, a + i, 8);
        __builtin_memcpy(&y, b + i, 8);
        if (x != y)
            return false;
    }
    for (; i < len; i++) {
        if (a[i] != b[i])
            return false;
    }
    return true;
}

/* The entry of a key, or one that is free for it. */
static inline AviarySum *aviary_sum_entry(const uint8_t *key, uint32_t len)
{
    AviarySums *all = &aviary_sums_table;
    AviarySum *set = &all->entries[aviary_sum_hash(key, len) * AVIARY_SUM_WAYS], *entry = set;
    for (int way = 0; way < AVIARY_SUM_WAYS; way++) {
        if (set[way].emits && set[way].key_len == len && aviary_same_bytes(set[way].key, key, len))
            return &set[way];
    }
    for (int way = 1; way < AVIARY_SUM_WAYS; way++) {
        if (set[way].emits < entry->emits)
            entry = &set[way];
    }
    if (entry->emits) {
        aviary_sum_give(entry);
    } else {
        if (all->used_len == AVIARY_SUM_ENTRIES)
            aviary_sums_flush();
        all->used[all->used_len++] = (uint16_t)(entry - all->entries);
    }
    for (uint32_t i = 0; i < len; i++)
        entry->key[i] = key[i];
    entry->key_len = (uint8_t)len;
    all->missed++;
    return entry;
}

/* Adds a value to the sum of its entry, if that stays exact. */
static inline bool aviary_sum_add(AviarySum *entry, uint8_t type, const uint8_t *value)
{
    int64_t integer;
    double real;
    if (type == BSON_DOUBLE) {
        real = read_f64(value) + (entry->emits ? entry->sum.real : 0);
        if (!(real < AVIARY_SUM_MAX && real > -AVIARY_SUM_MAX))
            return false;
        entry->sum.real = real;
        return true;
    }
    integer = entry->emits ? entry->sum.integer : 0;
    if (__builtin_add_overflow(integer, type == BSON_INT32 ? (int32_t)read_u32(value) : read_i64(value), &integer)
        || (type == BSON_INT32 && integer != (int32_t)integer))
        return false;
    entry->sum.integer = integer;
    return true;
}

/* Whether a double can be a part of an exact sum: a multiple of 1/256 that is not too large, and no negative zero. */
static inline bool aviary_sum_is_exact(double v)
{
    uint64_t bits;
    if (!(v < AVIARY_SUM_MAX && v > -AVIARY_SUM_MAX))
        return false;
    __builtin_memcpy(&bits, &v, 8);
    return (double)(int64_t)(v * AVIARY_SUM_SCALE) == v * AVIARY_SUM_SCALE && bits != 1ull << 63;
}

static inline bool aviary_sums_take(const uint8_t *key, uint32_t key_len, const uint8_t *value, uint32_t value_len)
{
    AviarySums *all = &aviary_sums_table;
    AviarySum *entry;
    /* Of equal keys, the first one stays: a symbol is equal to a text. */
    if (key_len && *key == BSON_SYMBOL)
        aviary_sums_flush();
    if (key_len > AVIARY_SUM_KEY_BYTES_MAX || !key_len || (*key != BSON_STRING && *key != BSON_OBJECT_ID) || !value_len)
        return false;
    if ((*value != BSON_DOUBLE && *value != BSON_INT32 && *value != BSON_INT64) || value_len != aviary_sum_size(*value))
        return false;
    if (all->rest) {
        all->rest--;
        return false;
    }
    if (*value == BSON_DOUBLE && !aviary_sum_is_exact(read_f64(value + 1)))
        return false;
    entry = aviary_sum_entry(key, key_len);
    if (entry->emits && (entry->type != *value || !aviary_sum_add(entry, *value, value + 1))) {
        aviary_sum_give(entry);
        aviary_sum_add(entry, *value, value + 1);
    } else if (!entry->emits) {
        aviary_sum_add(entry, *value, value + 1);
    }
    entry->type = *value;
    entry->emits++;
    all->bytes += key_len + value_len;
    if (all->bytes > AVIARY_SUMS_BYTES_MAX)
        aviary_sums_flush();
    if (++all->taken == AVIARY_SUMS_JUDGED) {
        if (all->missed > all->taken / 2)
            all->rest = AVIARY_SUMS_REST;
        all->taken = all->missed = 0;
    }
    return true;
}

/* Emits a pair: a type byte and the value's bytes, each. */
static inline void aviary_emit(const uint8_t *key, uint32_t key_len, const uint8_t *value, uint32_t value_len)
{
    if (!aviary_sums_table.open || !aviary_sums_take(key, key_len, value, value_len))
        aviary_emit_one(key, key_len, value, value_len);
}
#endif

/* A key of any type, as it is in the document: an element has its type before its name, so the type is moved next to
 * the value for the length of the call. The byte before a value is always the NUL of the name. A missing key or value
 * is emitted as null. */
static inline void aviary_emit_key(Field key, const uint8_t *value, uint32_t value_len)
{
    uint8_t null[1], *tagged = key.type ? (uint8_t *)key.value - 1 : null;
    *tagged = key.type ? key.type : BSON_NULL;
    aviary_emit(tagged, key.size + 1, value, value_len);
    *tagged = 0;
}

static inline void emit_raw(Field key, Field value)
{
    uint8_t null[1], *tagged = value.type ? (uint8_t *)value.value - 1 : null;
    *tagged = value.type ? value.type : BSON_NULL;
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

/* --- exports ---------------------------------------------------------------------------------------------------- */

AVIARY_SHARED AVIARY_EXPORT("aviary_abi_v1") void aviary_abi_v1(void)
{
}

/* --- memory ------------------------------------------------------------------------------------------------------
 *
 * With a C library, malloc and its kin are there for a function to use, and this is made of them. Without one, pieces
 * lie one behind the other after everything else in memory, which grows as far as the host lets it. */

/* Makes a piece larger, which may move it; NULL and 0 for the first. The record fails if memory is out. */
#ifdef __wasi__
static inline void *aviary_resize(void *old, uint32_t have, uint32_t want)
{
    (void)have;
    void *p = realloc(old, want);
    if (!p)
        fail("out of memory: the function needs more than the memory limit of its task");
    return p;
}
#else
extern uint8_t __heap_base[];
AVIARY_SHARED uintptr_t aviary_heap_end;

static inline void *aviary_resize(void *old, uint32_t have, uint32_t want)
{
    if (!aviary_heap_end)
        aviary_heap_end = ((uintptr_t)__heap_base + 15) & ~(uintptr_t)15;
    /* The last piece grows where it is; another one leaves its place behind, so pieces should grow by doubling. */
    uintptr_t old_end = ((uintptr_t)old + have + 15) & ~(uintptr_t)15;
    uint8_t *piece = old && old_end == aviary_heap_end ? (uint8_t *)old : (uint8_t *)aviary_heap_end;
    uint64_t end = ((uint64_t)(uintptr_t)piece + want + 15) & ~(uint64_t)15;
    uint64_t pages = __builtin_wasm_memory_size(0);
    if (end > pages << 16 && (end > 0xFFFF0000u
            || __builtin_wasm_memory_grow(0, (uint32_t)((end - (pages << 16) + 0xFFFF) >> 16)) == (size_t)-1))
        fail("out of memory: the function needs more than the memory limit of its task");
    aviary_heap_end = (uintptr_t)end;
    if (old && piece != (uint8_t *)old) {
        for (uint32_t i = 0; i < have && i < want; i++)
            piece[i] = ((uint8_t *)old)[i];
    }
    return piece;
}
#endif

/* The room for the input, which is used again by each call. */
AVIARY_SHARED uint8_t *aviary_input;
AVIARY_SHARED uint32_t aviary_input_room;

AVIARY_SHARED AVIARY_EXPORT("aviary_alloc") uint8_t *aviary_alloc(uint32_t len)
{
    if (len > aviary_input_room) {
        uint32_t room = aviary_input_room < 4 << 20 && len < 2 * aviary_input_room ? 2 * aviary_input_room : len;
        aviary_input = (uint8_t *)aviary_resize(aviary_input, aviary_input_room, room);
        aviary_input_room = room;
    }
    return aviary_input;
}

/* The job's parameters, read once. */
static inline Document scope(void)
{
    static uint8_t *bytes;
    static uint32_t len;
    if (!bytes) {
        len = aviary_scope(NULL, 0);
        bytes = (uint8_t *)aviary_resize(NULL, 0, len);
        aviary_scope(bytes, len);
    }
    return document_at(bytes, len);
}

/* --- documents and arrays to emit --------------------------------------------------------------------------------
 *
 *     static Writer w;
 *     write_begin(&w, BSON_DOCUMENT);
 *     put_array(&w, "top");
 *     put_int32(&w, NULL, 1);                     // in an array the names are the indexes
 *     put_end(&w);
 *     emit_written(key, &w);                      // ends what is open */

#define AVIARY_DEPTH_MAX 200

/* A value that is being written: a type byte and the value's bytes. A writer of zeros is a new one; its memory is kept
 * for the next value. */
typedef struct Writer {
    uint8_t *bytes;
    uint32_t len, room, depth;
    struct { uint32_t start, index; } open[AVIARY_DEPTH_MAX];
} Writer;

static inline uint8_t *aviary_room(Writer *w, uint32_t more)
{
    uint64_t need = (uint64_t)w->len + more;
    if (need > w->room) {
        if (need > 0x3FFFFFFF)
            fail("a value is too large");
        uint32_t room = need < 256 ? 256 : (uint32_t)need * 2;
        w->bytes = (uint8_t *)aviary_resize(w->bytes, w->len, room);
        w->room = room;
    }
    uint8_t *at = w->bytes + w->len;
    w->len += more;
    return at;
}

static inline void aviary_put_bytes(Writer *w, const void *from, uint32_t len)
{
    uint8_t *to = aviary_room(w, len);
    for (uint32_t i = 0; i < len; i++)
        to[i] = ((const uint8_t *)from)[i];
}

static inline void aviary_open(Writer *w)
{
    if (w->depth == AVIARY_DEPTH_MAX)
        fail("a value is nested deeper than 200 levels");
    w->open[w->depth].start = w->len;
    w->open[w->depth++].index = 0;
    aviary_room(w, 4);
}

/* Begins a value: BSON_DOCUMENT or BSON_ARRAY. */
static inline void write_begin(Writer *w, uint8_t type)
{
    w->len = w->depth = 0;
    *aviary_room(w, 1) = type;
    aviary_open(w);
}

/* A field's type and name; in an array the name is the index, so NULL will do. */
static inline void aviary_put_name(Writer *w, const char *name, uint8_t type)
{
    if (!w->depth)
        fail("a field is written before write_begin or after the last put_end");
    *aviary_room(w, 1) = type;
    uint32_t index = w->open[w->depth - 1].index++;
    if (name) {
        aviary_put_bytes(w, name, text_len(name) + 1);
        return;
    }
    char digits[10];
    uint32_t n = 0;
    do
        digits[n++] = (char)('0' + index % 10);
    while (index /= 10);
    uint8_t *to = aviary_room(w, n + 1);
    while (n)
        *to++ = (uint8_t)digits[--n];
    *to = 0;
}

/* Begins a document, or an array, inside. */
static inline void put_document(Writer *w, const char *name)
{
    aviary_put_name(w, name, BSON_DOCUMENT);
    aviary_open(w);
}

static inline void put_array(Writer *w, const char *name)
{
    aviary_put_name(w, name, BSON_ARRAY);
    aviary_open(w);
}

/* Ends the innermost document or array. */
static inline void put_end(Writer *w)
{
    if (!w->depth)
        fail("put_end without a document or an array that is open");
    *aviary_room(w, 1) = 0;
    uint32_t start = w->open[--w->depth].start, len = w->len - start;
    __builtin_memcpy(w->bytes + start, &len, 4);
}

/* Any value, as its bytes are in BSON. */
static inline void put_raw(Writer *w, const char *name, uint8_t type, const void *value, uint32_t size)
{
    aviary_put_name(w, name, type);
    aviary_put_bytes(w, value, size);
}

/* A value as it was read; a missing one becomes null. */
static inline void put_field(Writer *w, const char *name, Field f)
{
    put_raw(w, name, f.type ? f.type : BSON_NULL, f.value, f.size);
}

static inline void put_int32(Writer *w, const char *name, int32_t v)
{
    put_raw(w, name, BSON_INT32, &v, 4);
}

static inline void put_int64(Writer *w, const char *name, int64_t v)
{
    put_raw(w, name, BSON_INT64, &v, 8);
}

static inline void put_double(Writer *w, const char *name, double v)
{
    put_raw(w, name, BSON_DOUBLE, &v, 8);
}

static inline void put_bool(Writer *w, const char *name, bool v)
{
    uint8_t byte = v;
    put_raw(w, name, BSON_BOOL, &byte, 1);
}

static inline void put_null(Writer *w, const char *name)
{
    aviary_put_name(w, name, BSON_NULL);
}

static inline void put_date_ms(Writer *w, const char *name, int64_t v)
{
    put_raw(w, name, BSON_DATE, &v, 8);
}

static inline void put_timestamp(Writer *w, const char *name, uint64_t v)
{
    put_raw(w, name, BSON_TIMESTAMP, &v, 8);
}

static inline void put_object_id(Writer *w, const char *name, const uint8_t *v)
{
    put_raw(w, name, BSON_OBJECT_ID, v, 12);
}

static inline void put_decimal(Writer *w, const char *name, const uint8_t *v)
{
    put_raw(w, name, BSON_DECIMAL, v, 16);
}

static inline void put_binary(Writer *w, const char *name, const void *v, uint32_t len, uint8_t subtype)
{
    put_raw(w, name, BSON_BINARY, &len, 4);
    *aviary_room(w, 1) = subtype;
    aviary_put_bytes(w, v, len);
}

static inline void aviary_put_text(Writer *w, const char *name, uint8_t type, const char *text, uint32_t len)
{
    uint32_t with_nul = len + 1;
    put_raw(w, name, type, &with_nul, 4);
    aviary_put_bytes(w, text, len);
    *aviary_room(w, 1) = 0;
}

static inline void put_text(Writer *w, const char *name, const char *text, uint32_t len)
{
    aviary_put_text(w, name, BSON_STRING, text, len);
}

static inline void put_code(Writer *w, const char *name, const char *source, uint32_t len)
{
    aviary_put_text(w, name, BSON_CODE, source, len);
}

static inline void put_symbol(Writer *w, const char *name, const char *text, uint32_t len)
{
    aviary_put_text(w, name, BSON_SYMBOL, text, len);
}

/* Both end with a NUL. */
static inline void put_regex(Writer *w, const char *name, const char *pattern, const char *options)
{
    put_raw(w, name, BSON_REGEX, pattern, text_len(pattern) + 1);
    aviary_put_bytes(w, options, text_len(options) + 1);
}

/* Emits a key made of text. */
static inline void aviary_emit_text(const char *text, uint32_t len, const uint8_t *value, uint32_t value_len)
{
    static Writer key;
    uint32_t with_nul = len + 1;
    key.len = 0;
    *aviary_room(&key, 1) = BSON_STRING;
    aviary_put_bytes(&key, &with_nul, 4);
    aviary_put_bytes(&key, text, len);
    *aviary_room(&key, 1) = 0;
    aviary_emit(key.bytes, key.len, value, value_len);
}

static inline void emit_text_int32(const char *text, uint32_t len, int32_t v)
{
    uint8_t value[5] = { BSON_INT32 };
    __builtin_memcpy(value + 1, &v, 4);
    aviary_emit_text(text, len, value, sizeof(value));
}

static inline void emit_text_int64(const char *text, uint32_t len, int64_t v)
{
    uint8_t value[9] = { BSON_INT64 };
    __builtin_memcpy(value + 1, &v, 8);
    aviary_emit_text(text, len, value, sizeof(value));
}

static inline void emit_text_double(const char *text, uint32_t len, double v)
{
    uint8_t value[9] = { BSON_DOUBLE };
    __builtin_memcpy(value + 1, &v, 8);
    aviary_emit_text(text, len, value, sizeof(value));
}

/* Ends what is open and emits it. */
static inline void emit_written(Field key, Writer *w)
{
    while (w->depth)
        put_end(w);
    aviary_emit_key(key, w->bytes, w->len);
}

/* --- stages ------------------------------------------------------------------------------------------------------- */

#define AVIARY_EACH_DOCUMENT(one, p, len)                                                                              \
    for (Document one; (len) && (one = document_at(p, len), true); (p) += one.len, (len) -= one.len)

/* Defines the export map, which runs the body for every document of the batch. */
#define AVIARY_MAP(doc)                                                                                                \
    static inline void aviary_map_one(Document doc);                                                                   \
    AVIARY_EXPORT("map") void aviary_map(const uint8_t *p, uint32_t len)                                               \
    {                                                                                                                  \
        aviary_sums_begin();                                                                                           \
        AVIARY_EACH_DOCUMENT(one, p, len)                                                                              \
            aviary_map_one(one);                                                                                       \
        aviary_sums_end();                                                                                             \
    }                                                                                                                  \
    static inline void aviary_map_one(Document doc)

/* Defines the export reduce, or combine, which runs the body for every key with its array of values. */
#define AVIARY_REDUCE(key, values) AVIARY_GROUP(reduce, key, values)
#define AVIARY_COMBINE(key, values) AVIARY_GROUP(combine, key, values)
#define AVIARY_GROUP(stage, key, values)                                                                               \
    static inline void aviary_##stage##_one(Field key, Document values);                                               \
    AVIARY_EXPORT(#stage) void aviary_##stage(const uint8_t *p, uint32_t len)                                          \
    {                                                                                                                  \
        AVIARY_EACH_DOCUMENT(one, p, len)                                                                              \
            aviary_##stage##_one(need(one, "k", 0), inner(need(one, "v", BSON_ARRAY)));                                \
    }                                                                                                                  \
    static inline void aviary_##stage##_one(Field key, Document values)

/* Defines the export finalize, which runs the body for every key with its value. */
#define AVIARY_FINALIZE(key, value)                                                                                    \
    static inline void aviary_finalize_one(Field key, Field value);                                                    \
    AVIARY_EXPORT("finalize") void aviary_finalize(const uint8_t *p, uint32_t len)                                     \
    {                                                                                                                  \
        AVIARY_EACH_DOCUMENT(one, p, len)                                                                              \
            aviary_finalize_one(need(one, "k", 0), need(one, "v", 0));                                                 \
    }                                                                                                                  \
    static inline void aviary_finalize_one(Field key, Field value)

/* The streaming reduce, for functions that need all values of a key together: one body for when a key begins, one for
 * each piece of its values, in order, and one for when it ends. All three or none. Only the last one emits. */
#define AVIARY_REDUCE_BEGIN(key)                                                                                       \
    static inline void aviary_reduce_begin_one(Field key);                                                             \
    AVIARY_EXPORT("reduce_begin") void aviary_reduce_begin(const uint8_t *p, uint32_t len)                             \
    {                                                                                                                  \
        aviary_reduce_begin_one(*aviary_keep_key(need(document_at(p, len), "k", 0)));                                  \
    }                                                                                                                  \
    static inline void aviary_reduce_begin_one(Field key)

#define AVIARY_REDUCE_NEXT(values)                                                                                     \
    static inline void aviary_reduce_next_one(Document values);                                                        \
    AVIARY_EXPORT("reduce_next") void aviary_reduce_next(const uint8_t *p, uint32_t len)                               \
    {                                                                                                                  \
        aviary_reduce_next_one(inner(need(document_at(p, len), "v", BSON_ARRAY)));                                     \
    }                                                                                                                  \
    static inline void aviary_reduce_next_one(Document values)

#define AVIARY_REDUCE_END(key)                                                                                         \
    static inline void aviary_reduce_end_one(Field key);                                                               \
    AVIARY_EXPORT("reduce_end") void aviary_reduce_end(void)                                                           \
    {                                                                                                                  \
        aviary_reduce_end_one(*aviary_keep_key((Field){ 0 }));                                                         \
    }                                                                                                                  \
    static inline void aviary_reduce_end_one(Field key)

/* The key of the streaming reduce. */
AVIARY_SHARED Field aviary_kept;
AVIARY_SHARED Writer aviary_kept_room;

/* A copy of the key given, or the last copy for one of type 0. */
static inline const Field *aviary_keep_key(Field key)
{
    if (key.type) {
        aviary_kept_room.len = 0;
        /* The byte before the value takes the type when the key is emitted. */
        *aviary_room(&aviary_kept_room, 1) = 0;
        aviary_put_bytes(&aviary_kept_room, key.value, key.size);
        aviary_kept = (Field){ "k", aviary_kept_room.bytes + 1, key.size, key.type };
    }
    return &aviary_kept;
}

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

#ifdef __cplusplus
}
#endif

#endif
