/* Writing JavaScript values as BSON into one buffer that is kept between calls. */
#ifndef AVIARY_WRITE_H
#define AVIARY_WRITE_H

#include "document.h"

/* Levels of nesting that are written; MongoDB stores documents of at most 180. */
#define WRITE_DEPTH_MAX 200

typedef struct Output {
    uint8_t *bytes;
    uint32_t len;
    uint32_t cap;
} Output;

static Output output;

static __attribute__((noinline)) void output_grow(uint32_t more)
{
    uint64_t cap = (uint64_t)output.cap * 2 + more + 4096;
    uint8_t *bytes = cap > INT32_MAX ? NULL : realloc(output.bytes, (size_t)cap);
    if (!bytes)
        fail_text(OUT_OF_MEMORY);
    output.bytes = bytes;
    output.cap = (uint32_t)cap;
}

static inline uint8_t *output_reserve(uint32_t more)
{
    if (unlikely(output.cap - output.len < more))
        output_grow(more);
    return output.bytes + output.len;
}

static inline void output_bytes(const void *p, uint32_t len)
{
    memcpy(output_reserve(len), p, len);
    output.len += len;
}

static inline void output_u8(uint8_t v)
{
    *output_reserve(1) = v;
    output.len++;
}

static inline void output_u32(uint32_t v)
{
    output_bytes(&v, 4);
}

static void output_utf8_wide(const uint16_t *p, uint32_t len)
{
    uint8_t *q = output_reserve(len * 3);
    for (uint32_t i = 0; i < len; i++) {
        uint32_t c = p[i];
        if (c >= 0xD800 && c < 0xE000) {
            /* Half of a surrogate pair has no UTF-8. */
            if (c < 0xDC00 && i + 1 < len && p[i + 1] >= 0xDC00 && p[i + 1] < 0xE000)
                c = 0x10000 + ((c - 0xD800) << 10) + (p[++i] - 0xDC00u);
            else
                c = 0xFFFD;
        }
        if (c < 0x80) {
            *q++ = (uint8_t)c;
        } else if (c < 0x800) {
            *q++ = (uint8_t)(0xC0 | c >> 6);
            *q++ = (uint8_t)(0x80 | (c & 0x3F));
        } else if (c < 0x10000) {
            *q++ = (uint8_t)(0xE0 | c >> 12);
            *q++ = (uint8_t)(0x80 | (c >> 6 & 0x3F));
            *q++ = (uint8_t)(0x80 | (c & 0x3F));
        } else {
            *q++ = (uint8_t)(0xF0 | c >> 18);
            *q++ = (uint8_t)(0x80 | (c >> 12 & 0x3F));
            *q++ = (uint8_t)(0x80 | (c >> 6 & 0x3F));
            *q++ = (uint8_t)(0x80 | (c & 0x3F));
        }
    }
    output.len = (uint32_t)(q - output.bytes);
}

/* The characters of a string as UTF-8, without length or NUL. */
static void output_utf8(JSString *s)
{
    if (s->is_wide_char) {
        output_utf8_wide(strv(s), s->len);
        return;
    }
    const uint8_t *p = strv(s);
    uint8_t *q = output_reserve(s->len * 2);
    uint32_t i = 0, len = s->len;
    for (; i + 8 <= len; i += 8) {
        uint64_t word;
        memcpy(&word, p + i, 8);
        if (word & 0x8080808080808080ull)
            break;
        memcpy(q + i, &word, 8);
    }
    for (; i < len && p[i] < 0x80; i++)
        q[i] = p[i];
    q += i;
    for (; i < len; i++) {
        if (p[i] < 0x80) {
            *q++ = p[i];
        } else {
            *q++ = (uint8_t)(0xC0 | p[i] >> 6);
            *q++ = (uint8_t)(0x80 | (p[i] & 0x3F));
        }
    }
    output.len = (uint32_t)(q - output.bytes);
}

static void write_text(JSString *s)
{
    uint32_t at = output.len, len;
    output_u32(0);
    output_utf8(s);
    output_u8(0);
    len = output.len - at - 4;
    memcpy(output.bytes + at, &len, 4);
}

static int write_cstring(JSString *s)
{
    uint32_t at = output.len;
    output_utf8(s);
    if (memchr(output.bytes + at, 0, output.len - at)) {
        JS_ThrowTypeError(ctx, "a field name or a regular expression cannot contain a NUL character");
        return -1;
    }
    output_u8(0);
    return 0;
}

static void write_index(uint32_t n)
{
    uint8_t digits[12], *p = digits + sizeof(digits);
    *--p = 0;
    do {
        *--p = (uint8_t)('0' + n % 10);
        n /= 10;
    } while (n);
    output_bytes(p, (uint32_t)(digits + sizeof(digits) - p));
}

static int write_name(JSAtom atom)
{
    JSAtomStruct *s;
    if (__JS_AtomIsTaggedInt(atom)) {
        write_index(__JS_AtomToUInt32(atom));
        return 0;
    }
    s = rt->atom_array[atom];
    return write_cstring(s);
}

static inline int write_type(uint32_t at, uint8_t type)
{
    output.bytes[at] = type;
    return 0;
}

static void write_end(uint32_t at)
{
    uint32_t len;
    output_u8(0);
    len = output.len - at;
    memcpy(output.bytes + at, &len, 4);
}

static int write_value(JSValueConst v, uint32_t type_at, const Elem *was, int depth);

/* An element: type, name, value. Functions that were read off a prototype never get here. */
static int write_atom_element(JSAtom atom, JSValueConst v, const Elem *was, int depth)
{
    uint32_t type_at = output.len;
    output_u8(0);
    return write_name(atom) || write_value(v, type_at, was, depth) ? -1 : 0;
}

/* Finds what a field was, in the document that the object once was. */
static Elem *field_was(Document *was, JSAtom atom, Elem *e)
{
    Name name;
    bool found = false;
    if (!was || !name_of_atom(atom, &name))
        return NULL;
    found = document_find_named(was, &name, e);
    name_free(&name);
    return found ? e : NULL;
}

static int write_named_properties(JSValueConst v, Document *was, int depth)
{
    JSPropertyEnum *names;
    uint32_t count, i;
    int result = 0;
    if (JS_GetOwnPropertyNames(ctx, &names, &count, v, JS_GPN_STRING_MASK | JS_GPN_ENUM_ONLY))
        return -1;
    for (i = 0; i < count && result == 0; i++) {
        Elem e;
        JSValue field = JS_GetProperty(ctx, v, names[i].atom);
        if (JS_IsException(field)) {
            result = -1;
            break;
        }
        result = write_atom_element(names[i].atom, field, field_was(was, names[i].atom, &e), depth);
        JS_FreeValue(ctx, field);
    }
    JS_FreePropertyEnum(ctx, names, count);
    return result;
}

static inline bool starts_with_digit(const uint8_t *text)
{
    return *text >= '0' && *text <= '9';
}

/* Whether a name may be a number, which comes before all others whenever it was set. */
static inline bool may_be_index(JSAtom atom)
{
    const JSAtomStruct *s;
    if (__JS_AtomIsTaggedInt(atom))
        return true;
    s = rt->atom_array[atom];
    return unlikely(s->len == 10) && !s->is_wide_char && starts_with_digit(strv(s));
}

/* Whether the object's properties can be written in the order of its shape without running any code. Those of what was a
 * document must be the document's fields, in their order, before any others. */
static bool has_plain_properties(JSObject *o, Document *was)
{
    JSShapeProperty *p = get_shape_prop(o->shape);
    const uint8_t *next = was ? was->bytes + 4 : NULL, *end = was ? was->bytes + was->len - 1 : NULL;
    if (o->is_exotic)
        return false;
    for (int i = 0; i < o->shape->prop_count; i++) {
        if (p[i].atom == JS_ATOM_NULL)
            continue;
        if ((p[i].flags & JS_PROP_TMASK) != JS_PROP_NORMAL || may_be_index(p[i].atom))
            return false;
        if (next && next < end) {
            Name name;
            Elem e;
            bool same;
            if (!name_of_atom(p[i].atom, &name))
                return false;
            next = bson_next(next, end, &e);
            same = e.key_len == name.len && same_bytes(e.key, name.p, name.len);
            name_free(&name);
            if (!same)
                return false;
        }
    }
    return true;
}

/* `was` is the document that the object once was, if it was one: numbers keep the type they had there. */
static int write_object(JSValueConst v, Document *was, int depth)
{
    JSObject *o = JS_VALUE_GET_OBJ(v);
    uint32_t at = output.len;
    output_u32(0);
    if (has_plain_properties(o, was)) {
        for (int i = 0; i < o->shape->prop_count; i++) {
            JSShapeProperty *p = get_shape_prop(o->shape) + i;
            Elem e;
            if (p->atom == JS_ATOM_NULL || !(p->flags & JS_PROP_ENUMERABLE) ||
                rt->atom_array[p->atom]->atom_type != JS_ATOM_TYPE_STRING)
                continue;
            if (write_atom_element(p->atom, o->prop[i].u.value, field_was(was, p->atom, &e), depth))
                return -1;
        }
    } else if (write_named_properties(v, was, depth)) {
        return -1;
    }
    write_end(at);
    return 0;
}

static bool is_unchanged(JSValueConst v, int depth)
{
    Document *d;
    if (!JS_IsObject(v) || value_of(v))
        return true;
    d = document_of(v);
    if (!d || d->whole || depth >= WRITE_DEPTH_MAX)
        return false;
    for (uint32_t i = 0; i < d->cache_len; i++) {
        if (!is_unchanged(d->cache[i].value, depth + 1))
            return false;
    }
    return true;
}

static int write_document(JSValueConst v, Document *d, int depth)
{
    const uint8_t *p, *end;
    uint32_t at;
    Elem e;
    if (d->whole)
        return write_object(v, d, depth);
    if (is_unchanged(v, depth)) {
        output_bytes(d->bytes, d->len);
        return 0;
    }
    at = output.len;
    output_u32(0);
    p = d->bytes + 4;
    end = d->bytes + d->len - 1;
    for (;;) {
        const uint8_t *start = p;
        Cached *cached;
        p = bson_next(p, end, &e);
        if (e.type == 0)
            break;
        cached = cache_find(d, &e);
        if (!cached) {
            output_bytes(start, (uint32_t)(p - start));
            continue;
        }
        uint32_t type_at = output.len;
        output_bytes(start, e.key_len + 2);
        if (write_value(cached->value, type_at, &e, depth))
            return -1;
    }
    write_end(at);
    return 0;
}

static int write_array(JSValueConst v, const Elem *was, int depth)
{
    JSObject *o = JS_VALUE_GET_OBJ(v);
    uint32_t at = output.len;
    int64_t count;
    const uint8_t *p = NULL, *end = NULL;
    if (was && was->type == BSON_ARRAY) {
        p = was->value + 4;
        end = was->value + was->size - 1;
    }
    output_u32(0);
    if (JS_GetLength(ctx, v, &count))
        return -1;
    for (uint32_t i = 0; i < (uint64_t)count; i++) {
        uint32_t type_at = output.len;
        Elem e, *known = NULL;
        int result;
        if (p && p < end) {
            p = bson_next(p, end, &e);
            if (e.type)
                known = &e;
        }
        output_u8(0);
        write_index(i);
        if (likely(o->fast_array && i < o->u.array.count)) {
            JSValue element = JS_DupValue(ctx, o->u.array.u.values[i]);
            result = write_value(element, type_at, known, depth);
            JS_FreeValue(ctx, element);
        } else {
            JSValue element = JS_GetPropertyUint32(ctx, v, i);
            if (JS_IsException(element))
                return -1;
            result = write_value(element, type_at, known, depth);
            JS_FreeValue(ctx, element);
        }
        if (result)
            return -1;
    }
    write_end(at);
    return 0;
}

static int write_regex(JSObject *o)
{
    static const char letters[] = "dgimsuy";
    static const int bits[] = { LRE_FLAG_INDICES, LRE_FLAG_GLOBAL, LRE_FLAG_IGNORECASE, LRE_FLAG_MULTILINE,
                                LRE_FLAG_DOTALL, LRE_FLAG_UNICODE, LRE_FLAG_STICKY };
    JSRegExp *re = &o->u.regexp;
    int flags = lre_get_flags(strv(re->bytecode));
    if (write_cstring(re->pattern))
        return -1;
    for (int i = 0; letters[i]; i++) {
        if (flags & bits[i])
            output_u8((uint8_t)letters[i]);
    }
    output_u8(0);
    return 0;
}

static int write_binary(const uint8_t *bytes, size_t size)
{
    if (!bytes && size)
        return -1;
    output_u32((uint32_t)size);
    output_u8(0);
    output_bytes(bytes, (uint32_t)size);
    return 0;
}

static int write_string_value(JSValueConst v)
{
    JSValue s = JS_ToString(ctx, v);
    if (JS_IsException(s))
        return -1;
    if (JS_VALUE_GET_TAG(s) == JS_TAG_STRING_ROPE) {
        s = js_linearize_string_rope(ctx, s);
        if (JS_IsException(s))
            return -1;
    }
    write_text(JS_VALUE_GET_STRING(s));
    JS_FreeValue(ctx, s);
    return 0;
}

static int write_function(JSValueConst v, uint32_t type_at)
{
    write_type(type_at, BSON_CODE);
    return write_string_value(v);
}

/* What is warned of once, whatever comes after. */
enum { WARNED_RETURN, WARNED_THIS, WARNED_LOCALE, WARNED_NOTHING, WARNED_CLASSES };
static uint64_t warned;

static no_inline void warn_once(int what, const char *text)
{
    if (warned >> what & 1)
        return;
    warned |= 1ull << what;
    abi_log(1, text, (uint32_t)strlen(text));
}

/* Nothing here knows another language or time zone than these: an argument that asks for one is not passed over in silence. */
static void warn_of_locale(int argc, JSValueConst *argv, int first)
{
    for (int i = first; i < argc; i++) {
        if (!JS_IsUndefined(argv[i]))
            warn_once(WARNED_LOCALE, "a locale or its options were given to toLocaleString or one of its kin, which know "
                                     "only English and UTC, as on the servers: format the text yourself");
    }
}

/* Objects of the language that keep what they hold where no field is: they are written as their fields, which are none. */
static no_inline void warn_of_class(uint16_t class_id)
{
    static const struct {
        uint16_t class_id;
        const char *text;
    } held[] = {
        { JS_CLASS_MAP, "a Map was written as {}, since it has no fields: write Object.fromEntries(map) or [...map]" },
        { JS_CLASS_SET, "a Set was written as {}, since it has no fields: write [...set]" },
        { JS_CLASS_WEAKMAP, "a WeakMap was written as {}, since it has no fields" },
        { JS_CLASS_WEAKSET, "a WeakSet was written as {}, since it has no fields" },
        { JS_CLASS_PROMISE, "a Promise was written as {}: functions of a job are not asynchronous, so write the value itself" },
        { JS_CLASS_ERROR, "an Error was written as {}, since its message is no field: write error.message or String(error)" },
    };
    for (int i = 0; i < (int)countof(held); i++) {
        if (held[i].class_id == class_id)
            warn_once(WARNED_CLASSES + i, held[i].text);
    }
}

/* A Timestamp's parts are fields that can be written to, as on the servers. What is no such number is passed over. */
static void timestamp_update(JSObject *o, Value *value)
{
    static const char *const parts[] = { "i", "t" };
    for (int i = 0; i < 2; i++) {
        JSAtom atom = JS_NewAtom(ctx, parts[i]);
        JSProperty *property;
        double number;
        if (find_own_property(&property, o, atom) && JS_IsNumber(property->u.value) &&
            !JS_ToFloat64(ctx, &number, property->u.value) && number >= 0 && number <= UINT32_MAX) {
            uint32_t part = (uint32_t)number;
            memcpy(value->bytes + 4 * i, &part, 4);
        }
        JS_FreeAtom(ctx, atom);
    }
}

static int write_object_value(JSValueConst v, uint32_t type_at, const Elem *was, int depth)
{
    JSObject *o = JS_VALUE_GET_OBJ(v);
    Document *d;
    if (o->class_id == value_class || o->class_id == end_class) {
        Value *value = o->u.opaque;
        if (value->type == BSON_TIMESTAMP)
            timestamp_update(o, value);
        output_bytes(value->bytes, value->size);
        return write_type(type_at, value->type);
    }
    if (depth >= WRITE_DEPTH_MAX) {
        JS_ThrowTypeError(ctx, "cannot write a value nested deeper than %d levels: does it contain itself?",
                          WRITE_DEPTH_MAX);
        return -1;
    }
    if (js_check_stack_overflow(rt, 0)) {
        JS_ThrowStackOverflow(ctx);
        return -1;
    }
    if (o->class_id == document_class) {
        d = o->u.opaque;
        write_type(type_at, BSON_DOCUMENT);
        return write_document(v, d, depth + 1);
    }
    switch (o->class_id) {
    case JS_CLASS_ARRAY:
        write_type(type_at, BSON_ARRAY);
        return write_array(v, was, depth + 1);
    case JS_CLASS_DATE: {
        JSProperty *property;
        double ms;
        int64_t n;
        if (JS_ToFloat64(ctx, &ms, o->u.object_data))
            return -1;
        if (isnan(ms) && far_time && find_own_property(&property, o, far_time)) {
            if (JS_ToBigInt64(ctx, &n, property->u.value))
                return -1;
            output_bytes(&n, 8);
            return write_type(type_at, BSON_DATE);
        }
        if (isnan(ms)) {
            JS_ThrowTypeError(ctx, "cannot write an invalid Date");
            return -1;
        }
        n = (int64_t)ms;
        output_bytes(&n, 8);
        return write_type(type_at, BSON_DATE);
    }
    case JS_CLASS_REGEXP:
        write_type(type_at, BSON_REGEX);
        return write_regex(o);
    case JS_CLASS_NUMBER:
    case JS_CLASS_STRING:
    case JS_CLASS_BOOLEAN:
    case JS_CLASS_BIG_INT:
        return write_value(o->u.object_data, type_at, NULL, depth + 1);
    case JS_CLASS_ARRAY_BUFFER: {
        size_t size;
        uint8_t *bytes = JS_GetArrayBuffer(ctx, &size, v);
        write_type(type_at, BSON_BINARY);
        return write_binary(bytes, size);
    }
    case JS_CLASS_UINT8_ARRAY: {
        size_t size;
        uint8_t *bytes = JS_GetUint8Array(ctx, &size, v);
        write_type(type_at, BSON_BINARY);
        return write_binary(bytes, size);
    }
    default:
        if (JS_IsFunction(ctx, v))
            return write_function(v, type_at);
        if (o->class_id != JS_CLASS_OBJECT)
            warn_of_class(o->class_id);
        write_type(type_at, BSON_DOCUMENT);
        return write_object(v, NULL, depth + 1);
    }
}

static int write_double(double number, uint32_t type_at)
{
    output_bytes(&number, 8);
    return write_type(type_at, BSON_DOUBLE);
}

/* Writes the value's bytes, and its type at `type_at`, which the caller has reserved. Numbers are doubles, as
 * MongoDB's own functions write them, unless `was` says that the field held a 32-bit integer and the number is one. */
static int write_value(JSValueConst v, uint32_t type_at, const Elem *was, int depth)
{
    switch (JS_VALUE_GET_NORM_TAG(v)) {
    case JS_TAG_INT: {
        int32_t number = JS_VALUE_GET_INT(v);
        if (was && was->type == BSON_INT32) {
            output_bytes(&number, 4);
            return write_type(type_at, BSON_INT32);
        }
        return write_double(number, type_at);
    }
    case JS_TAG_FLOAT64: {
        double number = JS_VALUE_GET_FLOAT64(v);
        if (was && was->type == BSON_INT32 && number >= INT32_MIN && number <= INT32_MAX &&
            number == (int32_t)number) {
            int32_t integer = (int32_t)number;
            output_bytes(&integer, 4);
            return write_type(type_at, BSON_INT32);
        }
        return write_double(number, type_at);
    }
    case JS_TAG_STRING:
        write_text(JS_VALUE_GET_STRING(v));
        return write_type(type_at, BSON_STRING);
    case JS_TAG_STRING_ROPE:
        write_type(type_at, BSON_STRING);
        return write_string_value(v);
    case JS_TAG_BOOL:
        output_u8(JS_VALUE_GET_BOOL(v) != 0);
        return write_type(type_at, BSON_BOOL);
    case JS_TAG_NULL:
        return write_type(type_at, BSON_NULL);
    case JS_TAG_UNDEFINED:
        return write_type(type_at, BSON_UNDEFINED);
    case JS_TAG_SHORT_BIG_INT:
    case JS_TAG_BIG_INT: {
        int64_t number;
        JSValue again;
        bool fits;
        if (JS_ToBigInt64(ctx, &number, v))
            return -1;
        again = JS_NewBigInt64(ctx, number);
        fits = js_strict_eq(ctx, again, v);
        JS_FreeValue(ctx, again);
        if (!fits) {
            JS_ThrowRangeError(ctx, "a BigInt of more than 64 bits cannot be written");
            return -1;
        }
        output_bytes(&number, 8);
        return write_type(type_at, BSON_INT64);
    }
    case JS_TAG_OBJECT:
        return write_object_value(v, type_at, was, depth);
    default:
        JS_ThrowTypeError(ctx, "a %s cannot be written", JS_IsSymbol(v) ? "symbol" : "value of an unknown type");
        return -1;
    }
}

/* The names that lead to what could not be written, from what was written before it: documents that were begun have no
 * length yet, and the last element of each leads on. */
static void path_of_failure(uint32_t start, DynBuf *path)
{
    const uint8_t *p = output.bytes + start + 1, *end = output.bytes + output.len;
    while (end - p >= 4 && read_u32(p) == 0) {
        p += 4;
        for (;;) {
            const uint8_t *nul = p < end ? memchr(p + 1, 0, (size_t)(end - p - 1)) : NULL, *value;
            bool may_nest = p < end && (*p == 0 || *p == BSON_DOCUMENT || *p == BSON_ARRAY);
            if (!nul)
                return;
            value = nul + 1;
            if (value == end || *p == 0 || (may_nest && end - value >= 4 && read_u32(value) == 0)) {
                dbuf_putstr(path, path->size ? "." : "");
                dbuf_putstr(path, (const char *)p + 1);
                p = value;
                break;
            }
            p = value + bson_value_size(*p, value, (uint32_t)(end - value));
        }
    }
}

/* Adds to the pending error, if it is one of a value that cannot be written, which field holds it. */
static no_inline void write_failed(uint32_t start)
{
    JSValue error = JS_GetException(ctx), message = JS_UNDEFINED;
    const char *text = NULL;
    if (JS_IsError(error))
        message = JS_GetPropertyStr(ctx, error, "message");
    if (JS_IsString(message))
        text = JS_ToCString(ctx, message);
    if (text && (strstr(text, " cannot be written") || !strncmp(text, "cannot write ", 13)) && !strstr(text, "deeper")) {
        DynBuf path;
        dbuf_init(&path);
        path_of_failure(start, &path);
        dbuf_putc(&path, 0);
        if (path.size > 1 && !dbuf_error(&path)) {
            char longer[512];
            snprintf(longer, sizeof(longer), "%s (field %s)", text, (const char *)path.buf);
            JS_DefinePropertyValueStr(ctx, error, "message", JS_NewString(ctx, longer),
                                      JS_PROP_WRITABLE | JS_PROP_CONFIGURABLE);
        }
        dbuf_free(&path);
    }
    JS_FreeCString(ctx, text);
    JS_FreeValue(ctx, message);
    JS_Throw(ctx, error);
}

/* Appends a type byte and the value's bytes. */
static int write_tagged(JSValueConst v)
{
    uint32_t type_at = output.len;
    int result;
    output_u8(0);
    result = write_value(v, type_at, NULL, 0);
    if (unlikely(result))
        write_failed(type_at);
    return result;
}

static JSValue native_size(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    uint32_t start = output.len, size;
    int result = write_tagged(argc > 0 ? argv[0] : JS_UNDEFINED);
    size = output.len - start - 1;
    output.len = start;
    return result ? JS_EXCEPTION : JS_NewUint32(ctx, size);
}

/* bson(v): the bytes of an object's document in hexadecimal. */
static JSValue native_bson(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    uint32_t start = output.len;
    int result = write_tagged(argc > 0 ? argv[0] : JS_UNDEFINED);
    JSValue made = result ? JS_EXCEPTION : hex_of(output.bytes + start + 1, output.len - start - 1);
    output.len = start;
    return made;
}

#endif
