/* BSON values that JavaScript has no type for (ObjectId, NumberLong, Timestamp, …): objects that hold the value's
 * own bytes, so that what was read is written back exactly. Their methods are in prelude.js, which is compiled
 * only when a function first meets such a value or one of the utilities. */
#ifndef AVIARY_VALUE_H
#define AVIARY_VALUE_H

#include "bson.h"

/* The bytes of a character of UTF-8 at `p`, or of what is no more than the beginning of one: then `*is_one` is false. */
static uint32_t utf8_step(const uint8_t *p, uint32_t room, bool *is_one)
{
    uint8_t c = p[0], low = 0x80, high = 0xBF;
    uint32_t size, i;
    *is_one = true;
    if (c < 0x80)
        return 1;
    size = c >= 0xC2 && c <= 0xDF ? 2 : c >= 0xE0 && c <= 0xEF ? 3 : c >= 0xF0 && c <= 0xF4 ? 4 : 1;
    /* Of one that the end cuts off, the engine takes each byte by itself. */
    if (size > room) {
        *is_one = false;
        return 1;
    }
    low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : low;
    high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : high;
    for (i = 1; i < size && p[i] >= low && p[i] <= high; i++)
        low = 0x80, high = 0xBF;
    *is_one = size > 1 && i == size;
    return i;
}

/* Text in which U+FFFD stands for each part that is no UTF-8, as the servers' engine has it: the Encoding Standard of the
 * WHATWG, but for the end. NULL if all of it is UTF-8. */
static no_inline char *utf8_replaced(const uint8_t *p, uint32_t len, uint32_t *size)
{
    uint32_t at = 0, step;
    bool is_one = true;
    DynBuf text;
    while (at < len && is_one)
        at += utf8_step(p + at, len - at, &is_one);
    if (is_one)
        return NULL;
    dbuf_init(&text);
    for (at = 0; at < len; at += step) {
        step = utf8_step(p + at, len - at, &is_one);
        if (is_one)
            dbuf_put(&text, p + at, step);
        else
            dbuf_put(&text, (const uint8_t *)"\xEF\xBF\xBD", 3);
    }
    dbuf_putc(&text, 0);
    if (dbuf_error(&text))
        fail_text(OUT_OF_MEMORY);
    *size = (uint32_t)text.size - 1;
    return (char *)text.buf;
}

/* Text as a string. */
static JSValue text_new(const uint8_t *p, uint32_t len)
{
    uint32_t size = len;
    char *replaced = utf8_replaced(p, len, &size);
    JSValue made = JS_NewStringLen(ctx, replaced ? replaced : (const char *)p, size);
    free(replaced);
    return made;
}

/* The name of a field as one of a property. */
static JSAtom name_atom(const uint8_t *p, uint32_t len)
{
    uint32_t size = len;
    char *replaced = NULL;
    JSAtom made;
    uint8_t bits = 0;
    for (uint32_t i = 0; i < len; i++)
        bits |= p[i];
    if (unlikely(bits >= 0x80))
        replaced = utf8_replaced(p, len, &size);
    made = JS_NewAtomLen(ctx, replaced ? replaced : (const char *)p, size);
    free(replaced);
    return made;
}

typedef struct Value {
    uint32_t size;
    uint8_t type;
    uint8_t bytes[];
} Value;

static JSRuntime *rt;
static JSContext *ctx;
static JSClassID value_class;
/* The class of the two ends, MinKey() and MaxKey(), which are functions in the eyes of typeof. */
static JSClassID end_class;
static JSValue value_protos[256];
static bool prelude_loaded;
/* Array.sum, once the prelude is loaded. */
static JSValue array_sum = JS_UNDEFINED;

static void prelude_load(void);

static const char prelude_source[] = {
#embed "prelude.js"
    , 0
};

/* Utilities that the prelude defines: accessors stand in for them until one is touched. */
static const char *const lazy_globals[] = {
    "ObjectId", "ISODate", "NumberInt", "NumberLong", "NumberDecimal", "Timestamp", "BinData", "HexData", "UUID", "MD5",
    "MinKey", "MaxKey", "Code", "DBRef", "DBPointer", "BSONSymbol", "print", "printjson", "printjsononeline", "tojson",
    "tojsononeline", "isNumber", "isString", "isObject", "hex_md5", "console", "assert", "doassert",
    "bsonWoCompare", "bsonUnorderedFieldsCompare", "bsonBinaryEqual", "bsonObjToArray", "sortDoc", "tojsonObject",
    "tostrictjson", "sleep", "gc", "version", "buildInfo", "getJSHeapLimitMB",
};
static const char *const lazy_array[] = { "sum", "avg", "stdDev", "contains", "unique", "shuffle", "tojson", "fetchRefs" };
static const char *const lazy_object[] = { "keySet", "extend", "merge", "bsonsize" };
static const char *const lazy_string_proto[] = { "ltrim", "rtrim", "pad" };
static const char *const lazy_number_proto[] = { "zeroPad", "toPercentStr" };
static const char *const lazy_date_proto[] = { "tojson" };
static const char *const lazy_regexp[] = { "escape" };
static const char *const lazy_regexp_proto[] = { "tojson", "toJSON" };
/* Where these are defined, as they were at the start: a script may have given the names to others since. */
static const char *const lazy_holder_names[] = { "Array", "Object", "RegExp", "String", "Number", "Date" };
static JSValue lazy_holders[countof(lazy_holder_names)];
/* In value_protos, the prototype of documents that are references. */
#define REFERENCE 254

static inline Value *value_of(JSValueConst v)
{
    Value *value = JS_GetOpaque(v, value_class);
    return likely(value) ? value : JS_GetOpaque(v, end_class);
}

static JSValue value_new(uint8_t type, const uint8_t *bytes, uint32_t size)
{
    Value *value;
    JSValue obj;
    prelude_load();
    obj = JS_NewObjectProtoClass(ctx, value_protos[type],
                                 type == BSON_MIN_KEY || type == BSON_MAX_KEY ? end_class : value_class);
    if (JS_IsException(obj))
        return obj;
    JS_SetOpaque(obj, NULL);
    value = js_malloc(ctx, sizeof(*value) + size);
    if (!value) {
        JS_FreeValue(ctx, obj);
        return JS_EXCEPTION;
    }
    value->type = type;
    value->size = size;
    memcpy(value->bytes, bytes, size);
    JS_SetOpaque(obj, value);
    if (type == BSON_MIN_KEY || type == BSON_MAX_KEY)
        JS_SetConstructorBit(ctx, obj, true);
    if (type == BSON_TIMESTAMP &&
        (JS_DefinePropertyValueStr(ctx, obj, "t", JS_NewUint32(ctx, read_u32(bytes + 4)), JS_PROP_C_W_E) < 0 ||
         JS_DefinePropertyValueStr(ctx, obj, "i", JS_NewUint32(ctx, read_u32(bytes)), JS_PROP_C_W_E) < 0)) {
        JS_FreeValue(ctx, obj);
        return JS_EXCEPTION;
    }
    return obj;
}

static void value_finalizer(JSRuntime *runtime, JSValueConst v)
{
    js_free_rt(runtime, value_of(v));
}

/* Calling an end gives it. */
static JSValue end_call(JSContext *c, JSValueConst function, JSValueConst self, int argc, JSValueConst *argv, int flags)
{
    return js_dup(function);
}

static const JSClassDef value_class_def = { "Object", .finalizer = value_finalizer };
static const JSClassDef end_class_def = { "Object", .finalizer = value_finalizer, .call = end_call };

static Value *value_this(JSValueConst v)
{
    Value *value = value_of(v);
    if (!value)
        JS_ThrowTypeError(ctx, "not a BSON value");
    return value;
}

static int hex_digit(int c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* make(type, hex): a value of the type from its bytes in hexadecimal. */
static JSValue native_make(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    size_t len, i;
    int type;
    uint8_t *bytes;
    JSValue made;
    const char *hex;
    if (argc < 2 || JS_ToInt32(ctx, &type, argv[0]))
        return JS_EXCEPTION;
    hex = JS_ToCStringLen(ctx, &len, argv[1]);
    if (!hex)
        return JS_EXCEPTION;
    bytes = js_malloc(ctx, len / 2 + 1);
    if (!bytes) {
        JS_FreeCString(ctx, hex);
        return JS_EXCEPTION;
    }
    for (i = 0; i + 1 < len; i += 2) {
        int high = hex_digit(hex[i]), low = hex_digit(hex[i + 1]);
        if (high < 0 || low < 0)
            break;
        bytes[i / 2] = (uint8_t)(high << 4 | low);
    }
    if (i != len || bson_value_size((uint8_t)type, bytes, (uint32_t)(len / 2)) != len / 2)
        made = JS_ThrowTypeError(ctx, "not a value in hexadecimal: %s", hex);
    else
        made = value_new((uint8_t)type, bytes, (uint32_t)(len / 2));
    js_free(ctx, bytes);
    JS_FreeCString(ctx, hex);
    return made;
}

/* type(v): the BSON type of a value object, -1 for anything else. */
static JSValue native_type(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    Value *value = argc > 0 && JS_IsObject(argv[0]) ? value_of(argv[0]) : NULL;
    return JS_NewInt32(ctx, value ? value->type : -1);
}

static JSValue hex_of(const uint8_t *bytes, uint32_t size)
{
    static const char digits[] = "0123456789abcdef";
    JSValue made;
    char *text = js_malloc(ctx, size * 2 + 1);
    if (!text)
        return JS_EXCEPTION;
    for (uint32_t i = 0; i < size; i++) {
        text[i * 2] = digits[bytes[i] >> 4];
        text[i * 2 + 1] = digits[bytes[i] & 15];
    }
    made = js_new_string8_len(ctx, text, (int)size * 2);
    js_free(ctx, text);
    return made;
}

/* hex(v): the value's bytes. */
static JSValue native_hex(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    Value *value = value_this(argc > 0 ? argv[0] : JS_UNDEFINED);
    return value ? hex_of(value->bytes, value->size) : JS_EXCEPTION;
}

/* int64(v): the first eight bytes as a BigInt. */
static JSValue native_int64(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    Value *value = value_this(argc > 0 ? argv[0] : JS_UNDEFINED);
    if (!value)
        return JS_EXCEPTION;
    if (value->size < 8)
        return JS_ThrowTypeError(ctx, "not a 64-bit value");
    return JS_NewBigInt64(ctx, read_i64(value->bytes));
}

/* long(x): a NumberLong of a BigInt or an integral number. */
static JSValue native_long(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    int64_t n;
    if (argc < 1 || JS_ToInt64Ext(ctx, &n, argv[0]))
        return JS_EXCEPTION;
    return value_new(BSON_INT64, (const uint8_t *)&n, 8);
}

/* The method valueOf of the numeric values. */
static JSValue native_number(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    Value *value = value_this(self);
    if (!value)
        return JS_EXCEPTION;
    switch (value->type) {
    case BSON_INT64:
        return JS_NewFloat64(ctx, (double)read_i64(value->bytes));
    case BSON_INT32:
        return JS_NewInt32(ctx, (int32_t)read_u32(value->bytes));
    default:
        return JS_ThrowTypeError(ctx, "not a numeric BSON value");
    }
}

/* text(v): the string of a Code or a symbol, and the part of a binary after its subtype as Latin-1. */
static JSValue native_text(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    Value *value = value_this(argc > 0 ? argv[0] : JS_UNDEFINED);
    const uint8_t *p;
    if (!value)
        return JS_EXCEPTION;
    p = value->bytes;
    switch (value->type) {
    case BSON_CODE:
    case BSON_SYMBOL:
    case BSON_DB_POINTER:
        return text_new(p + 4, read_u32(p) - 1);
    case BSON_CODE_W_SCOPE:
        return text_new(p + 8, read_u32(p + 4) - 1);
    case BSON_BINARY:
        return js_new_string8_len(ctx, (const char *)p + 5, (int)(value->size - 5));
    default:
        return JS_UNDEFINED;
    }
}

static JSValue native_proto(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    int type;
    if (argc < 1 || JS_ToInt32(ctx, &type, argv[0]))
        return JS_EXCEPTION;
    return JS_DupValue(ctx, value_protos[type & 0xFF]);
}

/* utf8(text): the UTF-8 bytes of a string as Latin-1. */
static JSValue native_utf8(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    size_t len;
    const char *text = JS_ToCStringLen(ctx, &len, argc > 0 ? argv[0] : JS_UNDEFINED);
    JSValue made;
    if (!text)
        return JS_EXCEPTION;
    made = js_new_string8_len(ctx, text, (int)len);
    JS_FreeCString(ctx, text);
    return made;
}

/* log(level, text) */
static JSValue native_log(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    int level;
    size_t len;
    const char *text;
    if (argc < 2 || JS_ToInt32(ctx, &level, argv[0]))
        return JS_EXCEPTION;
    text = JS_ToCStringLen(ctx, &len, argv[1]);
    if (!text)
        return JS_EXCEPTION;
    abi_log(level, text, (uint32_t)len);
    JS_FreeCString(ctx, text);
    return JS_UNDEFINED;
}

static JSValue native_size(JSContext *c, JSValueConst self, int argc, JSValueConst *argv);
static JSValue native_bson(JSContext *c, JSValueConst self, int argc, JSValueConst *argv);
static JSValue native_scope(JSContext *c, JSValueConst self, int argc, JSValueConst *argv);

static const JSCFunctionListEntry native_functions[] = {
    JS_CFUNC_DEF("make", 2, native_make),   JS_CFUNC_DEF("type", 1, native_type),
    JS_CFUNC_DEF("hex", 1, native_hex),     JS_CFUNC_DEF("int64", 1, native_int64),
    JS_CFUNC_DEF("long", 1, native_long),   JS_CFUNC_DEF("number", 0, native_number),
    JS_CFUNC_DEF("text", 1, native_text),   JS_CFUNC_DEF("proto", 1, native_proto),
    JS_CFUNC_DEF("utf8", 1, native_utf8),   JS_CFUNC_DEF("log", 2, native_log),
    JS_CFUNC_DEF("size", 1, native_size),   JS_CFUNC_DEF("bson", 1, native_bson),
    JS_CFUNC_DEF("scope", 1, native_scope),
};

static void check_prelude(JSValue v)
{
    if (JS_IsException(v)) {
        JSValue error = JS_GetException(ctx);
        const char *text = JS_ToCString(ctx, error);
        fail_text(text ? text : OUT_OF_MEMORY);
    }
}

/* Runs prelude.js: a function of (native, global), which defines the utilities and returns Array.sum. */
static void prelude_load(void)
{
    JSValue function, native, global, result;
    if (prelude_loaded)
        return;
    prelude_loaded = true;
    for (int type = 0; type < 256; type++) {
        value_protos[type] = JS_UNDEFINED;
    }
    static const uint8_t types[] = { BSON_BINARY, BSON_OBJECT_ID, BSON_DATE, BSON_REGEX, BSON_DB_POINTER, BSON_CODE,
                                     BSON_SYMBOL, BSON_CODE_W_SCOPE, BSON_INT32, BSON_TIMESTAMP, BSON_INT64,
                                     BSON_DECIMAL, BSON_MIN_KEY, BSON_MAX_KEY, REFERENCE };
    for (size_t i = 0; i < sizeof(types); i++) {
        value_protos[types[i]] = JS_NewObject(ctx);
        check_prelude(value_protos[types[i]]);
    }
    function = JS_Eval(ctx, prelude_source, sizeof(prelude_source) - 1, "aviary", JS_EVAL_TYPE_GLOBAL);
    check_prelude(function);
    native = JS_NewObject(ctx);
    check_prelude(native);
    JS_SetPropertyFunctionList(ctx, native, native_functions, countof(native_functions));
    for (size_t i = 0; i < countof(lazy_holders); i++)
        JS_SetPropertyStr(ctx, native, lazy_holder_names[i], JS_DupValue(ctx, lazy_holders[i]));
    global = JS_GetGlobalObject(ctx);
    JSValue args[] = { native, global };
    result = JS_Call(ctx, function, JS_UNDEFINED, 2, args);
    check_prelude(result);
    array_sum = result;
    JS_FreeValue(ctx, global);
    JS_FreeValue(ctx, native);
    JS_FreeValue(ctx, function);
}

/* Reading a utility for the first time: define them all, then read again. */
static JSValue lazy_get(JSContext *c, JSValueConst self, int argc, JSValueConst *argv, int magic, JSValueConst *data)
{
    JSAtom atom;
    JSValue got;
    prelude_load();
    atom = JS_ValueToAtom(ctx, data[1]);
    got = JS_GetProperty(ctx, data[0], atom);
    JS_FreeAtom(ctx, atom);
    return got;
}

/* Assigning to a utility replaces it; on an object that inherits it, the object gets its own. */
static JSValue lazy_set(JSContext *c, JSValueConst self, int argc, JSValueConst *argv, int magic, JSValueConst *data)
{
    JSAtom atom;
    prelude_load();
    atom = JS_ValueToAtom(ctx, data[1]);
    if (JS_IsObject(self) && JS_VALUE_GET_OBJ(self) != JS_VALUE_GET_OBJ(data[0]))
        JS_DefinePropertyValue(ctx, self, atom, JS_DupValue(ctx, argv[0]), JS_PROP_C_W_E);
    else
        JS_DefinePropertyValue(ctx, data[0], atom, JS_DupValue(ctx, argv[0]), JS_PROP_CONFIGURABLE | JS_PROP_WRITABLE);
    JS_FreeAtom(ctx, atom);
    return JS_UNDEFINED;
}

static void lazy_define(JSValueConst target, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        JSAtom atom = JS_NewAtom(ctx, names[i]);
        JSValue data[] = { unsafe_unconst(target), JS_AtomToString(ctx, atom) };
        JSValue get = JS_NewCFunctionData(ctx, lazy_get, 0, 0, 2, data);
        JSValue set = JS_NewCFunctionData(ctx, lazy_set, 1, 0, 2, data);
        JS_DefinePropertyGetSet(ctx, target, atom, get, set, JS_PROP_CONFIGURABLE);
        JS_FreeValue(ctx, data[1]);
        JS_FreeAtom(ctx, atom);
    }
}

/* Notes what the utilities are defined on, before any script runs. */
static void lazy_note_holders(JSValueConst global)
{
    for (size_t i = 0; i < countof(lazy_holders); i++)
        lazy_holders[i] = JS_GetPropertyStr(ctx, global, lazy_holder_names[i]);
}

static void lazy_define_in(JSValueConst global, const char *constructor, const char *const *names, size_t count)
{
    JSValue target = JS_GetPropertyStr(ctx, global, constructor);
    lazy_define(target, names, count);
    JS_FreeValue(ctx, target);
}

#endif
