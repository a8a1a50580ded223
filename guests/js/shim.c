/* The JavaScript guest: QuickJS-ng and the stages of the guest ABI, as one translation unit, so that the hot paths
 * (a field of a document, a string to emit) work on the interpreter's own structures. */
#include <stdio.h>

/* QuickJS prints only to dump its own state, which nothing here asks for. Without the calls, libc's files and the
 * imports they need are left out. */
#define printf(...) ((void)0)
#define fprintf(...) ((void)0)
#define vfprintf(...) ((void)0)
#define fwrite(...) ((size_t)0)
#define putchar(...) ((void)0)
#define fputc(...) ((void)0)
#define putc(...) ((void)0)
#define fputs(...) ((void)0)
#define puts(...) ((void)0)
#define fflush(...) ((void)0)

/* See build.sh. */
#define STACK_PAD(bytes) char stack_pad[bytes]; __asm__ volatile("" : : "r"(stack_pad) : "memory")

#include "engine_math.h"
#include "quickjs.c"

#include <wasi/api.h>

#include "known.h"
#include "sums.h"

/* Bytes of the shadow stack that JavaScript may use. The host's stack, of 16 MiB, holds two to three times as much for
 * the same frames: the limit makes deep recursion an exception of the language before either is exhausted. */
#define JS_STACK_BYTES_MAX (4 * 1024 * 1024)

static uint8_t *input;
static uint32_t input_cap;
static int stage_running = -1;
/* Whether map has emitted anything yet, and whether it has returned something. */
static bool has_emitted;
static bool has_returned;
/* What `this` is in reduce, combine and finalize: an object without properties, as on the servers. */
static JSValue empty_this = JS_UNDEFINED;
/* The key of the group that streams, as a type byte and bytes: it goes back with the result as it came. */
static uint8_t *stream_key;
static uint32_t stream_key_len;
static uint32_t stream_key_cap;

/* Remembers that memory ran out: the exception for it may itself find no memory. */
static void *note_failure(void *p)
{
    if (unlikely(!p))
        allocation_failed = true;
    return p;
}

/* libc aborts when it is asked for about half of the address space, where it should only fail. */
#define ALLOCATION_BYTES_MAX (1u << 30)

/* What the interpreter asks for begins behind its size. It adds up what it holds, and ends when the sum becomes less
 * than nothing; libc's own word for the size of a block changes while the block is in use, as its neighbours come and
 * go. */
#define SIZE_BYTES 16

static void *memory_sized(uint8_t *block, size_t size)
{
    if (!note_failure(block))
        return NULL;
    memcpy(block, &size, sizeof(size));
    return block + SIZE_BYTES;
}

static void *memory_calloc(void *opaque, size_t count, size_t size)
{
    if (unlikely(size && count > ALLOCATION_BYTES_MAX / size))
        return note_failure(NULL);
    return memory_sized(calloc(1, count * size + SIZE_BYTES), count * size);
}

static void *memory_malloc(void *opaque, size_t size)
{
    return memory_sized(size > ALLOCATION_BYTES_MAX ? NULL : malloc(size + SIZE_BYTES), size);
}

static void memory_free(void *opaque, void *p)
{
    if (p)
        free((uint8_t *)p - SIZE_BYTES);
}

static void *memory_realloc(void *opaque, void *p, size_t size)
{
    if (!p)
        return memory_malloc(opaque, size);
    if (!size) {
        memory_free(opaque, p);
        return NULL;
    }
    if (unlikely(size > ALLOCATION_BYTES_MAX))
        return note_failure(NULL);
    return memory_sized(realloc((uint8_t *)p - SIZE_BYTES, size + SIZE_BYTES), size);
}

static size_t memory_usable_size(const void *p)
{
    size_t size = 0;
    if (p)
        memcpy(&size, (const uint8_t *)p - SIZE_BYTES, sizeof(size));
    return size;
}

static const JSMallocFunctions memory_functions = {
    memory_calloc, memory_malloc, memory_free, memory_realloc, memory_usable_size,
};

static JSValue js_emit(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    uint32_t key_len;
    if (argc != 2)
        return JS_ThrowTypeError(ctx, "emit takes exactly 2 arguments, a key and a value, but was given %d", argc);
    if (stage_running != STAGE_MAP)
        return JS_ThrowTypeError(ctx, "emit can be called only by map: reduce and finalize return their result");
    has_emitted = true;
    if (sums_take(argv[0], argv[1]))
        return JS_UNDEFINED;
    sums_before(argv[0]);
    output.len = 0;
    /* MongoDB groups a missing key with null. */
    if (JS_IsUndefined(argv[0]))
        output_u8(BSON_NULL);
    else if (write_tagged(argv[0]))
        return JS_EXCEPTION;
    key_len = output.len;
    if (write_tagged(argv[1]))
        return JS_EXCEPTION;
    abi_emit(output.bytes, key_len, output.bytes + key_len, output.len - key_len);
    return JS_UNDEFINED;
}

/* Whether a call of a function in C is an emit that is taken as a sum, which needs no frame. */
static no_inline bool fast_emit(JSValueConst function, int argc, JSValueConst *argv)
{
    JSObject *o = JS_VALUE_GET_OBJ(function);
    if (argc != 2 || !sums_wanted || stage_running != STAGE_MAP || o->u.cfunc.cproto != JS_CFUNC_generic ||
        o->u.cfunc.c_function.generic != js_emit || !sums_take(argv[0], argv[1]))
        return false;
    return has_emitted = true;
}

static JSValue js_count(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    int64_t delta = 1;
    size_t len;
    const char *name;
    if (argc > 1 && JS_ToInt64Ext(ctx, &delta, argv[1]))
        return JS_EXCEPTION;
    name = JS_ToCStringLen(ctx, &len, argc > 0 ? argv[0] : JS_UNDEFINED);
    if (!name)
        return JS_EXCEPTION;
    abi_count(name, (uint32_t)len, delta);
    JS_FreeCString(ctx, name);
    return JS_UNDEFINED;
}

static bool is_code(const Elem *e)
{
    return e->type == BSON_CODE || e->type == BSON_CODE_W_SCOPE;
}

static bool has_elements(const Elem *e)
{
    return e->type == BSON_DOCUMENT || e->type == BSON_ARRAY;
}

static const char *code_text(const Elem *e)
{
    return (const char *)e->value + (e->type == BSON_CODE ? 4 : 8);
}

/* Whether a document or an array has code in it, at any depth. */
static bool has_code(const Elem *e)
{
    const uint8_t *end = e->value + e->size - 1, *p = e->value + 4;
    Elem inner;
    STACK_PAD(256);
    if (js_check_stack_overflow(rt, 0))
        fail_text("the parameters of the job are nested too deep");
    for (p = bson_next(p, end, &inner); inner.type; p = bson_next(p, end, &inner)) {
        if (is_code(&inner) || (has_elements(&inner) && has_code(&inner)))
            return true;
    }
    return false;
}

/* Code within a document or an array of the parameters becomes functions, as servers make of it. */
static int scope_functions(JSValueConst value, const Elem *e)
{
    const uint8_t *end = e->value + e->size - 1, *p = e->value + 4;
    uint32_t index = 0;
    Elem inner;
    STACK_PAD(256);
    for (p = bson_next(p, end, &inner); inner.type; p = bson_next(p, end, &inner), index++) {
        JSAtom atom;
        JSValue made;
        int result = 0;
        if (!is_code(&inner) && !(has_elements(&inner) && has_code(&inner)))
            continue;
        atom = e->type == BSON_ARRAY ? JS_NewAtomUInt32(ctx, index)
                                     : name_atom(inner.key, inner.key_len);
        if (atom == JS_ATOM_NULL)
            return -1;
        if (is_code(&inner)) {
            made = nested_function("scope", code_text(&inner));
            /* What is no function is none as long as nobody calls it. */
            if (!JS_IsUndefined(made))
                result = JS_DefinePropertyValue(ctx, value, atom, made, JS_PROP_C_W_E);
        } else {
            made = JS_GetProperty(ctx, value, atom);
            result = JS_IsException(made) ? -1 : scope_functions(made, &inner);
            JS_FreeValue(ctx, made);
        }
        JS_FreeAtom(ctx, atom);
        if (result < 0)
            return -1;
    }
    return 0;
}

/* The fields of the job's parameters become global variables. */
static void scope_load(JSValueConst global)
{
    uint32_t len = abi_scope(NULL, 0);
    uint8_t *bytes;
    const uint8_t *p, *end;
    Elem e;
    if (len == 0)
        return;
    bytes = malloc(len);
    if (!bytes)
        fail_text(OUT_OF_MEMORY);
    if (abi_scope(bytes, len) != len || bson_document_len(bytes, len) != len)
        fail_text("the parameters of the job are not one BSON document");
    p = bytes + 4;
    end = bytes + len - 1;
    for (p = bson_next(p, end, &e); e.type; p = bson_next(p, end, &e)) {
        JSValue value;
        JSAtom atom = name_atom(e.key, e.key_len);
        if (is_code(&e)) {
            const char *name = JS_AtomToCString(ctx, atom);
            value = stage_function(name ? name : "scope", code_text(&e));
            JS_FreeCString(ctx, name);
        } else {
            value = bson_to_js(e.type, e.value, e.size, OWNER_SELF);
            if (has_elements(&e) && !JS_IsException(value) && has_code(&e) && scope_functions(value, &e))
                fail_exception("the parameters of the job");
        }
        if (JS_IsException(value) || JS_DefinePropertyValue(ctx, global, atom, value, JS_PROP_C_W_E) < 0)
            fail_exception("the parameters of the job");
        JS_FreeAtom(ctx, atom);
    }
    free(bytes);
}

static void random_seed(void)
{
    uint64_t seed = 0;
    if (__wasi_random_get((uint8_t *)&seed, sizeof(seed)) != 0 || seed == 0)
        seed = 1;
    ctx->random_state = seed;
}

EXPORT("aviary_abi_v1") void aviary_abi_v1(void)
{
}

__attribute__((constructor)) static void start(void)
{
    JSValue global;
    init_list_head(&live_documents);
    rt = JS_NewRuntime2(&memory_functions, NULL);
    if (!rt)
        fail_text(OUT_OF_MEMORY);
    JS_SetMaxStackSize(rt, JS_STACK_BYTES_MAX);
    JS_UpdateStackTop(rt);
    ctx = JS_NewContext(rt);
    if (!ctx)
        fail_text(OUT_OF_MEMORY);
    random_seed();
    JS_NewClassID(rt, &value_class);
    JS_NewClassID(rt, &end_class);
    JS_NewClassID(rt, &document_class);
    if (JS_NewClass(rt, value_class, &value_class_def) || JS_NewClass(rt, end_class, &end_class_def) || JS_NewClass(rt, document_class, &document_class_def))
        fail_text(OUT_OF_MEMORY);
    for (int i = 0; i < STAGES; i++)
        stage_functions[i] = JS_UNDEFINED;
    global = JS_GetGlobalObject(ctx);
    JS_SetPropertyStr(ctx, global, "emit", JS_NewCFunction(ctx, js_emit, "emit", 2));
    JS_SetPropertyStr(ctx, global, "count", JS_NewCFunction(ctx, js_count, "count", 2));
    lazy_note_holders(global);
    lazy_define(global, lazy_globals, countof(lazy_globals));
    lazy_define_in(global, "Array", lazy_array, countof(lazy_array));
    lazy_define_in(global, "Object", lazy_object, countof(lazy_object));
    lazy_define_in(global, "RegExp", lazy_regexp, countof(lazy_regexp));
    lazy_define(ctx->class_proto[JS_CLASS_STRING], lazy_string_proto, countof(lazy_string_proto));
    lazy_define(ctx->class_proto[JS_CLASS_NUMBER], lazy_number_proto, countof(lazy_number_proto));
    lazy_define(ctx->class_proto[JS_CLASS_DATE], lazy_date_proto, countof(lazy_date_proto));
    lazy_define(ctx->class_proto[JS_CLASS_REGEXP], lazy_regexp_proto, countof(lazy_regexp_proto));
    JS_FreeValue(ctx, global);
}

EXPORT("aviary_alloc") uint8_t *aviary_alloc(uint32_t len)
{
    if (len > input_cap) {
        free(input);
        input_cap = 0;
        input = len > INT32_MAX ? NULL : malloc(len);
        if (!input)
            fail_text(OUT_OF_MEMORY);
        input_cap = len;
    }
    return input;
}

EXPORT("aviary_js_load") void aviary_js_load(const uint8_t *p, uint32_t len)
{
    const uint8_t *end;
    JSValue global;
    Elem e;
    if (bson_document_len(p, len) != len)
        bson_malformed();
    global = JS_GetGlobalObject(ctx);
    scope_load(global);
    JS_FreeValue(ctx, global);
    end = p + len - 1;
    p += 4;
    for (p = bson_next(p, end, &e); e.type; p = bson_next(p, end, &e)) {
        int stage = 0;
        while (stage < STAGES && strcmp(stage_names[stage], (const char *)e.key))
            stage++;
        if (stage == STAGES)
            fail_stage((const char *)e.key, "%.100s is not a stage: map, combine, reduce and finalize are");
        stage_load(stage, &e);
    }
    documents_outlive_batch();
}

static JSValueConst stage_begin(int stage)
{
    JSValueConst function = stage_functions[stage];
    if (stage == STAGE_COMBINE && JS_IsUndefined(function))
        function = stage_functions[STAGE_REDUCE];
    if (JS_IsUndefined(function))
        fail_stage(stage_names[stage], "no function was given for %s");
    stage_running = stage;
    return function;
}

static void run_pending_jobs(void)
{
    while (unlikely(JS_IsJobPending(rt))) {
        JSContext *of_job;
        if (JS_ExecutePendingJob(rt, &of_job) < 0)
            fail_exception(NULL);
    }
}

static void stage_end(void)
{
    documents_outlive_batch();
    stage_running = -1;
}

/* How many arguments map is called with: the document, if it has a parameter for it. A server passes none. */
static int map_argc(JSValueConst function)
{
    JSObject *o = JS_VALUE_GET_OBJ(function);
    return o->class_id != JS_CLASS_BYTECODE_FUNCTION || o->u.func.function_bytecode->arg_count > 0;
}

EXPORT("map") void stage_map(const uint8_t *p, uint32_t len)
{
    JSValueConst function = stage_begin(STAGE_MAP);
    const uint8_t *end = p + len;
    JSValue doc = JS_UNDEFINED;
    int argc = map_argc(function);
    while (p < end) {
        uint32_t doc_len = bson_document_len(p, (uint32_t)(end - p));
        JSValue result;
        if (JS_IsUndefined(doc) || !document_reuse(doc, p, doc_len)) {
            JS_FreeValue(ctx, doc);
            doc = document_new(p, doc_len, OWNER_BATCH);
            if (JS_IsException(doc))
                fail_exception(NULL);
        }
        result = JS_Call(ctx, function, doc, argc, &doc);
        if (JS_IsException(result))
            fail_exception(NULL);
        has_returned |= !JS_IsUndefined(result);
        JS_FreeValue(ctx, result);
        run_pending_jobs();
        p += doc_len;
    }
    JS_FreeValue(ctx, doc);
    sums_flush();
    if (unlikely(has_returned && !has_emitted))
        warn_once(WARNED_RETURN, "map has returned values and emitted nothing: what map returns is not used. Call emit(key, value)");
    stage_end();
}

/* The object that a call of reduce or finalize has as its `this`: a new one, if the call before has left anything in the
 * old one, or kept it. */
static JSValueConst fresh_this(void)
{
    JSObject *o = JS_IsObject(empty_this) ? JS_VALUE_GET_OBJ(empty_this) : NULL;
    if (likely(o && JS_REF_COUNT(o) == 1 && !o->shape->prop_count && o->extensible && !o->first_weak_ref &&
               o->shape->proto == JS_VALUE_GET_OBJ(ctx->class_proto[JS_CLASS_OBJECT])))
        return empty_this;
    JS_FreeValue(ctx, empty_this);
    empty_this = JS_NewObject(ctx);
    if (JS_IsException(empty_this))
        fail_exception(NULL);
    return empty_this;
}

/* Appends a result. As for MongoDB, no result is a null, and often a forgotten return. */
static int write_result(int stage, JSValueConst result)
{
    char text[160];
    if (likely(!JS_IsUndefined(result)))
        return write_tagged(result);
    snprintf(text, sizeof(text), "%s has returned nothing, and null is the result: return the result, or return null if that is meant",
             stage_names[stage]);
    warn_once(WARNED_NOTHING, text);
    return write_tagged(JS_NULL);
}

/* The stages whose function is given a key and what belongs to it, and returns the result. */
static void stage_keyed(int stage, const uint8_t *p, uint32_t len)
{
    JSValueConst function = stage_begin(stage);
    const uint8_t *end = p + len;
    while (p < end) {
        uint32_t doc_len = bson_document_len(p, (uint32_t)(end - p));
        const uint8_t *doc_end = p + doc_len - 1;
        const uint8_t *q = p + 4;
        Elem key, value;
        JSValue args[2], result;
        uint32_t key_len;
        q = bson_next(q, doc_end, &key);
        if (!key.type || key.key_len != 1 || key.key[0] != 'k')
            fail_text("the input of a stage is not a document of k and v");
        bson_next(q, doc_end, &value);
        if (!value.type || value.key_len != 1 || value.key[0] != 'v' ||
            (stage != STAGE_FINALIZE && value.type != BSON_ARRAY))
            fail_text("the input of a stage is not a document of k and v");
        args[0] = bson_to_js(key.type, key.value, key.size, OWNER_BATCH);
        args[1] = JS_IsException(args[0]) ? JS_EXCEPTION
                                          : bson_to_js(value.type, value.value, value.size, OWNER_BATCH);
        if (JS_IsException(args[1]))
            fail_exception(NULL);
        result = JS_Call(ctx, function, fresh_this(), 2, args);
        if (JS_IsException(result))
            fail_exception(NULL);
        run_pending_jobs();
        /* The key goes back as it came, whatever the function did to it. */
        output.len = 0;
        output_u8(key.type);
        output_bytes(key.value, key.size);
        key_len = output.len;
        if (write_result(stage, result))
            fail_exception(NULL);
        abi_emit(output.bytes, key_len, output.bytes + key_len, output.len - key_len);
        JS_FreeValue(ctx, result);
        JS_FreeValue(ctx, args[0]);
        JS_FreeValue(ctx, args[1]);
        p += doc_len;
    }
    stage_end();
}

EXPORT("combine") void stage_combine(const uint8_t *p, uint32_t len)
{
    stage_keyed(STAGE_COMBINE, p, len);
}

EXPORT("reduce") void stage_reduce(const uint8_t *p, uint32_t len)
{
    stage_keyed(STAGE_REDUCE, p, len);
}

EXPORT("finalize") void stage_finalize(const uint8_t *p, uint32_t len)
{
    stage_keyed(STAGE_FINALIZE, p, len);
}

/* Tells that of what map emits only sums are wanted: 0 that they are not, 1 in any order, 2 in the order of emission. */
EXPORT("aviary_js_sums") void aviary_js_sums(int32_t wanted)
{
    sums_wanted = wanted;
}

/* What the reduce or the combine that was loaded does, if that is known: see known.h. */
EXPORT("aviary_js_known") int32_t aviary_js_known(void)
{
    JSValueConst reduce = stage_functions[STAGE_REDUCE], combine = stage_functions[STAGE_COMBINE];
    if (JS_IsUndefined(reduce) == JS_IsUndefined(combine))
        return KNOWN_NONE;
    return known_function(JS_IsUndefined(reduce) ? combine : reduce);
}

/* Turns the fast paths off (0) or on. They make no difference but in time, which is what tests make sure of. */
EXPORT("aviary_js_fast_paths") void aviary_js_fast_paths(int32_t on)
{
    fast_paths = on != 0;
}

/* Whether the reduce that was loaded streams; known once aviary_js_load has returned. */
EXPORT("aviary_js_streams") int32_t aviary_js_streams(void)
{
    return stream_loaded;
}

/* Calls one method of a reduce that streams, and gives what it returns. */
static JSValue stream_call(int part, int argc, JSValueConst *argv)
{
    JSValue result = JS_Call(ctx, stream_functions[part], stream_object, argc, argv);
    if (JS_IsException(result))
        fail_exception(NULL);
    run_pending_jobs();
    return result;
}

static void stream_stage(void)
{
    if (!stream_loaded)
        fail_text("the reduce that was given does not stream");
    stage_running = STAGE_REDUCE;
}

EXPORT("reduce_begin") void reduce_begin(const uint8_t *p, uint32_t len)
{
    const uint8_t *end = p + bson_document_len(p, len) - 1;
    JSValue arg;
    Elem key;
    stream_stage();
    bson_next(p + 4, end, &key);
    if (!key.type || key.key_len != 1 || key.key[0] != 'k')
        fail_text("the input of reduce_begin is not a document of k");
    if (key.size >= stream_key_cap) {
        free(stream_key);
        stream_key_cap = 0;
        stream_key = malloc(key.size + 1);
        if (!stream_key)
            fail_text(OUT_OF_MEMORY);
        stream_key_cap = key.size + 1;
    }
    stream_key[0] = key.type;
    memcpy(stream_key + 1, key.value, key.size);
    stream_key_len = key.size + 1;
    arg = bson_to_js(key.type, key.value, key.size, OWNER_BATCH);
    if (JS_IsException(arg))
        fail_exception(NULL);
    JS_FreeValue(ctx, stream_call(STREAM_BEGIN, 1, &arg));
    JS_FreeValue(ctx, arg);
    stage_end();
}

EXPORT("reduce_next") void reduce_next(const uint8_t *p, uint32_t len)
{
    const uint8_t *end = p + bson_document_len(p, len) - 1;
    Elem values, e;
    stream_stage();
    bson_next(p + 4, end, &values);
    if (values.type != BSON_ARRAY || values.key_len != 1 || values.key[0] != 'v')
        fail_text("the input of reduce_next is not a document of v");
    end = values.value + values.size - 1;
    for (p = bson_next(values.value + 4, end, &e); e.type; p = bson_next(p, end, &e)) {
        JSValue arg = bson_to_js(e.type, e.value, e.size, OWNER_BATCH);
        if (JS_IsException(arg))
            fail_exception(NULL);
        JS_FreeValue(ctx, stream_call(STREAM_NEXT, 1, &arg));
        JS_FreeValue(ctx, arg);
    }
    stage_end();
}

EXPORT("reduce_end") void reduce_end(void)
{
    JSValue result;
    stream_stage();
    result = stream_call(STREAM_END, 0, NULL);
    output.len = 0;
    output_bytes(stream_key, stream_key_len);
    if (write_result(STAGE_REDUCE, result))
        fail_exception(NULL);
    abi_emit(output.bytes, stream_key_len, output.bytes + stream_key_len, output.len - stream_key_len);
    JS_FreeValue(ctx, result);
    stage_end();
}
