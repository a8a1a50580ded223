/* Reading BSON in place. Every length is checked against the end of the document it lies in, so that damaged
 * input fails the record and never reads outside of the batch. */
#ifndef AVIARY_BSON_H
#define AVIARY_BSON_H

#include "abi.h"

enum {
    BSON_DOUBLE = 0x01,
    BSON_STRING = 0x02,
    BSON_DOCUMENT = 0x03,
    BSON_ARRAY = 0x04,
    BSON_BINARY = 0x05,
    BSON_UNDEFINED = 0x06,
    BSON_OBJECT_ID = 0x07,
    BSON_BOOL = 0x08,
    BSON_DATE = 0x09,
    BSON_NULL = 0x0A,
    BSON_REGEX = 0x0B,
    BSON_DB_POINTER = 0x0C,
    BSON_CODE = 0x0D,
    BSON_SYMBOL = 0x0E,
    BSON_CODE_W_SCOPE = 0x0F,
    BSON_INT32 = 0x10,
    BSON_TIMESTAMP = 0x11,
    BSON_INT64 = 0x12,
    BSON_DECIMAL = 0x13,
    BSON_MAX_KEY = 0x7F,
    BSON_MIN_KEY = 0xFF,
};

#define BSON_DOCUMENT_BYTES_MIN 5
#define BSON_UUID_SUBTYPE 4

typedef struct Elem {
    const uint8_t *key;
    const uint8_t *value;
    uint32_t key_len;
    uint32_t size; /* bytes of the value */
    uint8_t type;  /* 0 at the end of the document */
} Elem;

static __attribute__((noreturn, cold, noinline)) void bson_malformed(void)
{
    fail_text("malformed BSON in the input");
}

static inline uint32_t read_u32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

static inline int64_t read_i64(const uint8_t *p)
{
    int64_t v;
    memcpy(&v, p, 8);
    return v;
}

static inline double read_f64(const uint8_t *p)
{
    double v;
    memcpy(&v, p, 8);
    return v;
}

/* The length of the document at `p`, of which `room` bytes are readable. */
static inline uint32_t bson_document_len(const uint8_t *p, uint32_t room)
{
    uint32_t len;
    if (room < BSON_DOCUMENT_BYTES_MIN)
        bson_malformed();
    len = read_u32(p);
    if (len < BSON_DOCUMENT_BYTES_MIN || len > room || p[len - 1] != 0)
        bson_malformed();
    return len;
}

static uint32_t bson_text_size(const uint8_t *p, uint32_t room)
{
    uint32_t len;
    if (room < 5)
        bson_malformed();
    len = read_u32(p);
    if (len < 1 || len > room - 4 || p[4 + len - 1] != 0)
        bson_malformed();
    return 4 + len;
}

static uint32_t bson_cstring_size(const uint8_t *p, uint32_t room)
{
    const uint8_t *nul = memchr(p, 0, room);
    if (!nul)
        bson_malformed();
    return (uint32_t)(nul - p) + 1;
}

/* Bytes of the value of `type` at `p`, checked to lie within `room`. */
static inline uint32_t bson_value_size(uint8_t type, const uint8_t *p, uint32_t room)
{
    uint32_t size;
    switch (type) {
    case BSON_DOUBLE:
    case BSON_DATE:
    case BSON_TIMESTAMP:
    case BSON_INT64:
        size = 8;
        break;
    case BSON_INT32:
        size = 4;
        break;
    case BSON_BOOL:
        size = 1;
        break;
    case BSON_OBJECT_ID:
        size = 12;
        break;
    case BSON_DECIMAL:
        size = 16;
        break;
    case BSON_UNDEFINED:
    case BSON_NULL:
    case BSON_MIN_KEY:
    case BSON_MAX_KEY:
        size = 0;
        break;
    case BSON_STRING:
    case BSON_CODE:
    case BSON_SYMBOL:
        return bson_text_size(p, room);
    case BSON_DOCUMENT:
    case BSON_ARRAY:
        return bson_document_len(p, room);
    case BSON_BINARY:
        if (room < 5)
            bson_malformed();
        size = read_u32(p);
        if (size > room - 5)
            bson_malformed();
        return size + 5;
    case BSON_REGEX:
        size = bson_cstring_size(p, room);
        return size + bson_cstring_size(p + size, room - size);
    case BSON_DB_POINTER:
        size = bson_text_size(p, room) + 12;
        break;
    case BSON_CODE_W_SCOPE: {
        uint32_t code_size;
        if (room < 14)
            bson_malformed();
        size = read_u32(p);
        if (size < 14 || size > room)
            bson_malformed();
        code_size = bson_text_size(p + 4, size - 4);
        if (bson_document_len(p + 4 + code_size, size - 4 - code_size) != size - 4 - code_size)
            bson_malformed();
        return size;
    }
    default:
        bson_malformed();
    }
    if (size > room)
        bson_malformed();
    return size;
}

/* Reads the element at `p`; `end` points at the document's last byte, which is 0 (bson_document_len checked it).
 * Returns where the next element begins. */
static inline const uint8_t *bson_next(const uint8_t *p, const uint8_t *end, Elem *e)
{
    const uint8_t *value;
    e->type = p < end ? *p : 0;
    if (e->type == 0) {
        if (p != end)
            bson_malformed();
        return p;
    }
    e->key = p + 1;
    for (value = e->key; *value; value++)
        ;
    e->key_len = (uint32_t)(value - e->key);
    if (++value > end)
        bson_malformed();
    e->value = value;
    e->size = bson_value_size(e->type, value, (uint32_t)(end - value));
    return value + e->size;
}

#endif
