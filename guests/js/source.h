/* Turning the text of a stage into a function. A text is one of
 *   - a function expression, an arrow function or a function declaration of any name, as MongoDB accepts them;
 *   - a script that defines a function of the stage's name, among utilities;
 *   - the bare body of a function.
 * A reduce may have the streaming form instead: an object with the methods begin, next and end, or a script that defines
 * the functions reduce_begin, reduce_next and reduce_end. */
#ifndef AVIARY_SOURCE_H
#define AVIARY_SOURCE_H

#include "write.h"

enum { STAGE_MAP, STAGE_COMBINE, STAGE_REDUCE, STAGE_FINALIZE, STAGES };

static const char *const stage_names[STAGES] = { "map", "combine", "reduce", "finalize" };
static JSValue stage_functions[STAGES];

enum { STREAM_BEGIN, STREAM_NEXT, STREAM_END, STREAM_PARTS };

static const char *const stream_names[STREAM_PARTS] = { "begin", "next", "end" };
/* The reduce, if it streams: what its methods are called on, and they. */
static JSValue stream_object;
static JSValue stream_functions[STREAM_PARTS];
static bool stream_loaded;

static bool allocation_failed;

static void trim_end(char *text, size_t *len)
{
    while (*len > 0 && (text[*len - 1] == '\n' || text[*len - 1] == ' '))
        text[--*len] = 0;
}

/* A thrown object says nothing as text, so it is shown as JSON. NULL for what is no such object. */
static const char *thrown_text(JSValueConst error)
{
    JSValue json;
    const char *text = NULL;
    if (!JS_IsObject(error) || JS_IsError(error) || JS_IsFunction(ctx, error))
        return NULL;
    json = JS_JSONStringify(ctx, error, JS_UNDEFINED, JS_UNDEFINED);
    if (JS_IsString(json))
        text = JS_ToCString(ctx, json);
    if (JS_IsException(json) || (JS_IsString(json) && !text))
        JS_FreeValue(ctx, JS_GetException(ctx));
    JS_FreeValue(ctx, json);
    return text;
}

/* Fails the record with the exception that is pending: its name and message, then its stack. */
static __attribute__((noreturn, cold, noinline)) void fail_exception(const char *context)
{
    JSValue error = JS_GetException(ctx);
    DynBuf text;
    const char *message, *stack = NULL;
    size_t len;
    dbuf_init(&text);
    message = JS_ToCString(ctx, error);
    if (!message)
        JS_FreeValue(ctx, JS_GetException(ctx));
    if (!message || strstr(message, "[object ")) {
        const char *json = thrown_text(error);
        message = json ? json : message;
    }
    if (allocation_failed && (!message || JS_IsNull(error) || !strncmp(message, "InternalError: out of memory", 28)))
        fail_text(OUT_OF_MEMORY);
    if (context) {
        dbuf_putstr(&text, context);
        dbuf_putstr(&text, ": ");
    }
    dbuf_putstr(&text, message ? message : "an exception that cannot be shown as text");
    if (JS_IsError(error)) {
        JSValue value = JS_GetPropertyStr(ctx, error, "stack");
        stack = JS_IsString(value) ? JS_ToCString(ctx, value) : NULL;
        if (stack && *stack) {
            dbuf_putc(&text, '\n');
            dbuf_putstr(&text, stack);
        }
    }
    if (dbuf_error(&text))
        fail_text(OUT_OF_MEMORY);
    len = text.size;
    dbuf_putc(&text, 0);
    trim_end((char *)text.buf, &len);
    abi_fail((const char *)text.buf, (uint32_t)len);
    __builtin_trap();
}

static __attribute__((noreturn, cold)) void fail_stage(const char *stage, const char *text)
{
    char message[256];
    snprintf(message, sizeof(message), text, stage);
    fail_text(message);
}

typedef struct Attempt {
    JSValue error; /* undefined if none */
    int line;
    int column;
} Attempt;

/* Notes the pending exception and its place: the first two numbers of its stack. */
static void attempt_failed(Attempt *attempt, size_t shift)
{
    JSValue stack;
    const char *where, *colon;
    attempt->error = JS_GetException(ctx);
    stack = JS_IsError(attempt->error) ? JS_GetPropertyStr(ctx, attempt->error, "stack") : JS_UNDEFINED;
    where = JS_IsString(stack) ? JS_ToCString(ctx, stack) : NULL;
    colon = where ? strchr(where, ':') : NULL;
    if (colon) {
        attempt->line = atoi(colon + 1);
        colon = strchr(colon + 1, ':');
        attempt->column = colon ? atoi(colon + 1) : 0;
        if (attempt->line == 1)
            attempt->column -= (int)shift;
    }
    JS_FreeCString(ctx, where);
    JS_FreeValue(ctx, stack);
}

/* Compiles and runs `before`, the source, a line break, and `after`. */
static JSValue evaluate(const char *stage, const char *before, const char *source, const char *after, Attempt *attempt)
{
    DynBuf text;
    JSValue value;
    dbuf_init(&text);
    dbuf_putstr(&text, before);
    dbuf_putstr(&text, source);
    dbuf_putc(&text, '\n');
    dbuf_putstr(&text, after);
    dbuf_putc(&text, 0);
    if (dbuf_error(&text))
        fail_text(OUT_OF_MEMORY);
    value = JS_Eval(ctx, (const char *)text.buf, text.size - 1, stage, JS_EVAL_TYPE_GLOBAL);
    dbuf_free(&text);
    *attempt = (Attempt){ JS_UNDEFINED };
    if (JS_IsException(value))
        attempt_failed(attempt, strlen(before));
    return value;
}

static JSValue compile(const char *stage, const char *source, Attempt *attempt)
{
    JSValue value =
        JS_Eval(ctx, source, strlen(source), stage, JS_EVAL_TYPE_GLOBAL | JS_EVAL_FLAG_COMPILE_ONLY);
    *attempt = (Attempt){ JS_UNDEFINED };
    if (JS_IsException(value))
        attempt_failed(attempt, 0);
    return value;
}

static bool is_syntax_error(const Attempt *attempt)
{
    JSValue name;
    const char *text;
    bool same;
    if (JS_IsUndefined(attempt->error))
        return false;
    name = JS_IsError(attempt->error) ? JS_GetPropertyStr(ctx, attempt->error, "name") : JS_UNDEFINED;
    text = JS_ToCString(ctx, name);
    same = text && !strcmp(text, "SyntaxError");
    JS_FreeCString(ctx, text);
    JS_FreeValue(ctx, name);
    return same;
}

static __attribute__((noreturn)) void fail_attempt(const char *stage, const Attempt *attempt)
{
    char context[64];
    if (attempt->line > 0)
        snprintf(context, sizeof(context), "%s, line %d, column %d", stage, attempt->line, attempt->column);
    else
        snprintf(context, sizeof(context), "%s", stage);
    JS_Throw(ctx, JS_DupValue(ctx, attempt->error));
    fail_exception(context);
}

/* What a script of functions gives as a reduce that streams: an object of those that are there. */
#define STREAM_OF_SCRIPT                                                                                              \
    ";if(typeof reduce_begin==='function'||typeof reduce_next==='function'||typeof reduce_end==='function')return{"     \
    "begin:typeof reduce_begin==='function'?reduce_begin:undefined,"                                                  \
    "next:typeof reduce_next==='function'?reduce_next:undefined,"                                                     \
    "end:typeof reduce_end==='function'?reduce_end:undefined}"

/* Whether a value is a reduce that streams. One that has only a part of the form is refused. */
static bool is_stream(const char *stage, JSValueConst value)
{
    bool has[STREAM_PARTS];
    int found = 0;
    if (stage != stage_names[STAGE_REDUCE] || !JS_IsObject(value) || JS_IsFunction(ctx, value))
        return false;
    for (int part = 0; part < STREAM_PARTS; part++) {
        JSValue function = JS_GetPropertyStr(ctx, value, stream_names[part]);
        if (JS_IsException(function))
            fail_exception(stage);
        has[part] = JS_IsFunction(ctx, function);
        found += has[part];
        JS_FreeValue(ctx, function);
    }
    for (int part = 0; found > 0 && part < STREAM_PARTS; part++)
        if (!has[part])
            fail_stage(stream_names[part], "a reduce that streams has begin, next and end (in a script: reduce_begin, "
                                           "reduce_next, reduce_end), but there is no function %s");
    return found > 0;
}

static bool is_stage(const char *stage, JSValueConst value)
{
    return !JS_IsException(value) && (JS_IsFunction(ctx, value) || is_stream(stage, value));
}

static bool is_word(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || c == '$';
}

static const char *skip_space(const char *p)
{
    for (;;) {
        const char *end = NULL;
        if (*p == ' ' || (*p >= '\t' && *p <= '\r')) {
            p++;
            continue;
        }
        /* A byte order mark. */
        if (!strncmp(p, "\xEF\xBB\xBF", 3)) {
            p += 3;
            continue;
        }
        if (p[0] == '/' && p[1] == '/')
            end = strchr(p, '\n');
        else if (p[0] == '/' && p[1] == '*' && (end = strstr(p + 2, "*/")))
            end++;
        else
            return p;
        if (!end)
            return p + strlen(p);
        p = end + 1;
    }
}

static bool starts_with_word(const char *p, const char *word)
{
    size_t len = strlen(word);
    return !strncmp(p, word, len) && !is_word(p[len]);
}

static const char *back_over_space(const char *p, const char *start)
{
    while (p > start && (p[-1] == ' ' || (p[-1] >= '\t' && p[-1] <= '\r')))
        p--;
    return p;
}

/* Whether an arrow function whose arrow is at `arrow` is assigned to something. */
static bool is_assigned(const char *arrow, const char *start)
{
    const char *p = back_over_space(arrow, start);
    if (p > start && p[-1] == ')') {
        for (int depth = 0; p > start; p--) {
            depth += p[-1] == ')' ? 1 : p[-1] == '(' ? -1 : 0;
            if (depth == 0)
                break;
        }
        p = p > start ? p - 1 : p;
    } else {
        while (p > start && is_word(p[-1]))
            p--;
    }
    p = back_over_space(p, start);
    return p > start && p[-1] == '=';
}

/* Whether a text may be the bare body of a function, as MongoDB accepts it too: one that defines no function of its
 * own which could be the stage, and that does what a stage is for. */
static bool may_be_body(const char *stage, const char *source)
{
    const char *p = skip_space(source), *after = p;
    bool is_map = !strcmp(stage, "map");
    if (*p == '(' || starts_with_word(p, "function") || starts_with_word(p, "async") || starts_with_word(p, "class"))
        return false;
    while (is_word(*after))
        after++;
    after = skip_space(after);
    if (after[0] == '=' && after[1] == '>')
        return false;
    for (const char *f = strstr(p, "function"); f; f = strstr(f + 8, "function")) {
        const char *before = back_over_space(f, p);
        if (is_word(f[8]) || (f > p && is_word(f[-1])))
            continue;
        if (is_word(*skip_space(f + 8)) || (before > p && before[-1] == '='))
            return false;
    }
    for (const char *arrow = strstr(p, "=>"); arrow; arrow = strstr(arrow + 2, "=>"))
        if (is_assigned(arrow, p))
            return false;
    return is_map ? strstr(p, "emit") != NULL : strstr(p, "return") || strstr(p, "arguments");
}

/* The function of a bare body: an expression's value is its result. Undefined if the text is none. */
static JSValue body_function(const char *stage, const char *source)
{
    Attempt attempt;
    JSValue value;
    if (!may_be_body(stage, source))
        return JS_UNDEFINED;
    value = evaluate(stage, "(function(){return(", source, ")})", &attempt);
    if (JS_IsException(value))
        value = evaluate(stage, "(function(){", source, "})", &attempt);
    return JS_IsException(value) ? JS_UNDEFINED : value;
}

/* The function that a text is where no stage is meant: a function as it is written, an expression or statements as its
 * body. Undefined if the text is neither. */
static JSValue nested_function(const char *name, const char *source)
{
    static const char *const around[][2] = { { "(", ")" }, { "(function(){return(", ")})" }, { "(function(){", "})" } };
    Attempt attempt;
    JSValue value = body_function(name, source);
    for (size_t i = 0; i < countof(around) && JS_IsUndefined(value); i++) {
        value = evaluate(name, around[i][0], source, around[i][1], &attempt);
        if (JS_IsException(value))
            JS_FreeValue(ctx, attempt.error);
        if (!JS_IsFunction(ctx, value)) {
            JS_FreeValue(ctx, value);
            value = JS_UNDEFINED;
        }
    }
    return value;
}

static JSValue stage_function(const char *stage, const char *source)
{
    Attempt attempts[3], *furthest;
    JSValue value;
    char after[640];
    int i = 0;

    value = body_function(stage, source);
    if (!JS_IsUndefined(value))
        return value;

    value = evaluate(stage, "(", source, ")", &attempts[i]);
    if (is_stage(stage, value))
        return value;
    if (JS_IsException(value) && !is_syntax_error(&attempts[i]))
        fail_attempt(stage, &attempts[i]);
    JS_FreeValue(ctx, value);

    /* A scope of its own keeps the utilities of one stage apart from those of another. */
    i++;
    snprintf(after, sizeof(after), "%s;return typeof %s==='function'?%s:undefined})",
             stage == stage_names[STAGE_REDUCE] ? STREAM_OF_SCRIPT : "", stage, stage);
    value = evaluate(stage, "(function(){", source, after, &attempts[i]);
    if (!JS_IsException(value)) {
        JSValue wrapper = value;
        value = JS_Call(ctx, wrapper, JS_UNDEFINED, 0, NULL);
        JS_FreeValue(ctx, wrapper);
        if (JS_IsException(value))
            fail_exception(stage);
        if (is_stage(stage, value))
            return value;
        JS_FreeValue(ctx, value);
    }

    /* What is left is an expression that is followed by semicolons or comments. */
    i++;
    value = evaluate(stage, "void 0,", source, "", &attempts[i]);
    if (is_stage(stage, value))
        return value;
    if (JS_IsException(value) && !is_syntax_error(&attempts[i]))
        fail_attempt(stage, &attempts[i]);
    if (is_syntax_error(&attempts[1])) {
        if (!JS_IsException(value))
            fail_stage(stage, "the source of %s is not a function");
        /* Of the text as a script and as an expression, the reading that came furthest is what its author meant. */
        furthest = &attempts[2];
        value = compile(stage, source, &attempts[1]);
        JS_FreeValue(ctx, value);
        if (is_syntax_error(&attempts[1]) &&
            (attempts[1].line > furthest->line ||
             (attempts[1].line == furthest->line && attempts[1].column > furthest->column)))
            furthest = &attempts[1];
        fail_attempt(stage, furthest);
    }
    fail_stage(stage, "the source has no function for this stage: give one function, or a script that defines "
                      "a function named %s");
}

static void refuse_async(const char *name, JSValueConst function)
{
    JSFunctionKindEnum kind = JS_FUNC_NORMAL;
    JSObject *o = JS_VALUE_GET_OBJ(function);
    if (js_class_has_bytecode(o->class_id))
        kind = o->u.func.function_bytecode->func_kind;
    if (kind != JS_FUNC_NORMAL)
        fail_stage(name, "%s is an async function or a generator: a stage must be a plain function");
}

/* An arrow function has no `this` of its own: what it finds there is not the document. */
static void warn_of_this(const char *stage, JSValueConst function)
{
    JSObject *o = JS_VALUE_GET_OBJ(function);
    char text[256];
    JSFunctionBytecode *b;
    if (o->class_id != JS_CLASS_BYTECODE_FUNCTION)
        return;
    b = o->u.func.function_bytecode;
    for (int i = 0; i < b->closure_var_count; i++) {
        if (b->closure_var[i].var_name != JS_ATOM_this)
            continue;
        snprintf(text, sizeof(text), "%s is an arrow function and uses this, which is not %s there: use %s or write a function",
                 stage, strcmp(stage, "map") ? "its own" : "the document", strcmp(stage, "map") ? "its arguments" : "its argument (doc => …)");
        warn_once(WARNED_THIS, text);
    }
}

static void stage_load(int stage, const Elem *e)
{
    const uint8_t *text = e->value + (e->type == BSON_CODE_W_SCOPE ? 4 : 0);
    JSValue loaded;
    if (e->type != BSON_STRING && e->type != BSON_CODE && e->type != BSON_SYMBOL && e->type != BSON_CODE_W_SCOPE)
        fail_stage(stage_names[stage], "the source of %s is not text");
    loaded = stage_function(stage_names[stage], (const char *)text + 4);
    if (JS_IsFunction(ctx, loaded)) {
        refuse_async(stage_names[stage], loaded);
        warn_of_this(stage_names[stage], loaded);
        stage_functions[stage] = loaded;
        return;
    }
    for (int part = 0; part < STREAM_PARTS; part++) {
        JSValue function = JS_GetPropertyStr(ctx, loaded, stream_names[part]);
        if (!JS_IsFunction(ctx, function))
            fail_stage(stream_names[part], "%s of a reduce that streams is no function");
        refuse_async(stream_names[part], function);
        stream_functions[part] = function;
    }
    stream_object = loaded;
    stream_loaded = true;
}

#endif
