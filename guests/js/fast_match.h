/* The matches of a global regular expression, without an object for each.
 *
 * RegExp.prototype[Symbol.match] reads the flags and calls `exec` until it returns null, and keeps the text of each
 * match. That runs no code of a script if the expression has no property but `lastIndex`, its prototype is RegExp's, and
 * `exec`, `flags` and the getters that `flags` reads are the built-in ones; and no code runs while the result grows if
 * nobody has put a property with a number for its name on the prototypes of arrays. Then this does the same. In the end
 * `lastIndex` is 0, as `exec` leaves it.
 *
 * Expressions that are runs of characters of one class, such as /[a-z]+/g or /\w+/g, are common in word counts. They
 * are matched by a table of the class, instead of by the regular expression's own code. */
#ifndef AVIARY_FAST_MATCH_H
#define AVIARY_FAST_MATCH_H

#define CLASS_SIZE 256

/* A class of 8-bit characters. */
typedef struct CharClass {
    bool has[CLASS_SIZE];
} CharClass;

static const struct {
    const char *name;
    int flag;
} regexp_flags[] = {
    { "hasIndices", LRE_FLAG_INDICES },   { "global", LRE_FLAG_GLOBAL },   { "ignoreCase", LRE_FLAG_IGNORECASE },
    { "multiline", LRE_FLAG_MULTILINE },  { "dotAll", LRE_FLAG_DOTALL },   { "unicode", LRE_FLAG_UNICODE },
    { "unicodeSets", LRE_FLAG_UNICODE_SETS }, { "sticky", LRE_FLAG_STICKY },
};

/* The C function that is the getter of an own property, or nothing. */
static JSObject *own_c_getter(JSObject *o, JSAtom name)
{
    JSProperty *property;
    JSShapeProperty *entry = find_own_property(&property, o, name);
    JSObject *getter;
    if (!entry || (entry->flags & JS_PROP_TMASK) != JS_PROP_GETSET)
        return NULL;
    getter = property->u.getset.getter;
    return getter && getter->class_id == JS_CLASS_C_FUNCTION ? getter : NULL;
}

/* Whether nobody has changed what matching reads of RegExp.prototype. */
static bool regexp_prototype_is_built_in(JSContext *ctx, JSObject *proto)
{
    static JSAtom names[countof(regexp_flags)];
    JSProperty *property;
    JSShapeProperty *entry = find_own_property(&property, proto, JS_ATOM_exec);
    JSObject *function;
    if (!entry || (entry->flags & JS_PROP_TMASK) != JS_PROP_NORMAL || !JS_IsObject(property->u.value))
        return false;
    function = JS_VALUE_GET_OBJ(property->u.value);
    if (function->class_id != JS_CLASS_C_FUNCTION || function->u.cfunc.cproto != JS_CFUNC_generic ||
        function->u.cfunc.c_function.generic != js_regexp_exec)
        return false;
    function = own_c_getter(proto, JS_ATOM_flags);
    if (!function || function->u.cfunc.cproto != JS_CFUNC_getter ||
        function->u.cfunc.c_function.getter != js_regexp_get_flags)
        return false;
    for (size_t i = 0; i < countof(regexp_flags); i++) {
        if (unlikely(!names[i]))
            names[i] = JS_NewAtom(ctx, regexp_flags[i].name);
        function = names[i] ? own_c_getter(proto, names[i]) : NULL;
        if (!function || function->u.cfunc.cproto != JS_CFUNC_getter_magic ||
            function->u.cfunc.c_function.getter_magic != js_regexp_get_flag ||
            function->u.cfunc.magic != regexp_flags[i].flag)
            return false;
    }
    return true;
}

static bool fast_match_applies(JSContext *ctx, JSValueConst rx, JSValueConst text)
{
    JSObject *o = JS_VALUE_GET_OBJ(rx), *proto = JS_VALUE_GET_OBJ(ctx->class_proto[JS_CLASS_REGEXP]);
    const JSShapeProperty *last_index;
    int flags;
    if (unlikely(!fast_paths) || o->class_id != JS_CLASS_REGEXP || o->shape->proto != proto ||
        o->shape->prop_count != 1 || !ctx->std_array_prototype || JS_VALUE_GET_STRING(text)->is_wide_char)
        return false;
    last_index = get_shape_prop(o->shape);
    if (last_index->atom != JS_ATOM_lastIndex ||
        (last_index->flags & (JS_PROP_TMASK | JS_PROP_WRITABLE)) != JS_PROP_WRITABLE)
        return false;
    flags = lre_get_flags(str8(o->u.regexp.bytecode));
    if (!(flags & LRE_FLAG_GLOBAL) ||
        flags & (LRE_FLAG_STICKY | LRE_FLAG_UNICODE | LRE_FLAG_UNICODE_SETS))
        return false;
    return regexp_prototype_is_built_in(ctx, proto);
}

static bool is_ascii_digit(int c)
{
    return c >= '0' && c <= '9';
}

static bool is_ascii_letter(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static void class_add(CharClass *class, int first, int last)
{
    memset(class->has + first, true, (size_t)(last - first + 1));
}

/* Adds \w, \d or an escaped punctuation mark. */
static bool class_add_escape(CharClass *class, int c)
{
    if (c == 'w') {
        class_add(class, 'a', 'z');
        class_add(class, 'A', 'Z');
        class_add(class, '0', '9');
        class_add(class, '_', '_');
    } else if (c == 'd') {
        class_add(class, '0', '9');
    } else if (c > ' ' && c < 0x7F && !is_ascii_letter(c) && !is_ascii_digit(c)) {
        class_add(class, c, c);
    } else {
        return false;
    }
    return true;
}

/* Reads a pattern that is one class of ASCII characters and a plus. Anything that is not plainly so is not read. */
static bool class_read(CharClass *class, const uint8_t *p, uint32_t len, bool ignore_case)
{
    const uint8_t *end = p + len - 1;
    bool negated = false;
    if (len < 3 || *end != '+')
        return false;
    memset(class, 0, sizeof(*class));
    if (len == 3)
        return p[0] == '\\' && (p[1] == 'w' || p[1] == 'd') && class_add_escape(class, p[1]);
    if (*p++ != '[' || *--end != ']')
        return false;
    if (p < end && *p == '^') {
        negated = true;
        p++;
    }
    /* How a class that excludes characters ignores case is not worth knowing here. */
    if (p == end || (negated && ignore_case))
        return false;
    while (p < end) {
        int c = *p++;
        if (c == '\\') {
            if (p == end || !class_add_escape(class, *p++))
                return false;
            /* A range cannot begin here, and a hyphen would be a question. */
            if (p < end && *p == '-')
                return false;
        } else if (c < ' ' || c >= 0x7F || c == '[' || c == ']' || c == '^' || c == '-') {
            return false;
        } else if (p < end && *p == '-') {
            if (end - p < 2 || p[1] < c || p[1] >= 0x7F || p[1] == '\\' || p[1] == '[' || p[1] == ']')
                return false;
            class_add(class, c, p[1]);
            p += 2;
        } else {
            class_add(class, c, c);
        }
    }
    for (int c = 'a'; ignore_case && c <= 'z'; c++) {
        int upper = c - 'a' + 'A';
        class->has[c] = class->has[upper] = class->has[c] || class->has[upper];
    }
    for (int c = 0; negated && c < CLASS_SIZE; c++)
        class->has[c] = !class->has[c];
    return true;
}

static int match_runs(JSContext *ctx, const CharClass *class, JSString *text, JSObject *matches)
{
    const uint8_t *p = str8(text);
    uint32_t len = text->len, i = 0, start, last = 0, last_end = 0;
    for (;;) {
        while (i < len && !class->has[p[i]])
            i++;
        if (i == len) {
            if (last_end)
                last_match_note_range(ctx, text, last, last_end);
            return 0;
        }
        start = last = i;
        while (i < len && class->has[p[i]])
            i++;
        last_end = i;
        if (fast_append(ctx, matches, word_of(ctx, text, start, i)))
            return -1;
    }
}

static int match_failed(JSContext *ctx, JSValueConst rx, int result, int at)
{
    /* The match before this one left it so. */
    if (JS_SetProperty(ctx, rx, JS_ATOM_lastIndex, js_int32(at)) < 0)
        return -1;
    if (result == LRE_RET_TIMEOUT)
        JS_ThrowInterrupted(ctx);
    else if (result == LRE_RET_MEMORY_ERROR)
        JS_ThrowOutOfMemory(ctx);
    else
        JS_ThrowInternalError(ctx, "corrupted bytecode in regexp execution");
    return -1;
}

static int match_all(JSContext *ctx, JSValueConst rx, JSString *text, JSObject *matches)
{
    const uint8_t *code = str8(JS_VALUE_GET_OBJ(rx)->u.regexp.bytecode), *p = str8(text);
    uint8_t **capture = js_malloc(ctx, sizeof(capture[0]) * (size_t)max_int(lre_get_alloc_count(code), 2));
    int at = 0, failed = capture ? 0 : -1;
    while (!failed && at <= (int)text->len) {
        int result = lre_exec(capture, code, p, at, (int)text->len, 0, ctx);
        int start, end;
        if (result != 1) {
            failed = result < 0 ? match_failed(ctx, rx, result, at) : 0;
            break;
        }
        last_match_note(ctx, JS_MKPTR(JS_TAG_STRING, text), capture, lre_get_capture_count(code), p, 0);
        start = (int)(capture[0] - p);
        end = (int)(capture[1] - p);
        failed = fast_append(ctx, matches, js_sub_string(ctx, text, start, end));
        at = end > start ? end : end + 1;
    }
    js_free(ctx, capture);
    return failed;
}

/* The matches, null if there is none, or an exception. `text` is a string, and fast_match_applies. */
static JSValue fast_match(JSContext *ctx, JSValueConst rx, JSValueConst text)
{
    JSRegExp *re = &JS_VALUE_GET_OBJ(rx)->u.regexp;
    int flags = lre_get_flags(str8(re->bytecode));
    JSString *s = JS_VALUE_GET_STRING(text);
    JSValue matches;
    CharClass class;
    int failed;
    if (JS_SetProperty(ctx, rx, JS_ATOM_lastIndex, js_int32(0)) < 0)
        return JS_EXCEPTION;
    matches = fast_array(ctx);
    if (JS_IsException(matches))
        return matches;
    if (!re->pattern->is_wide_char && !(flags & ~(LRE_FLAG_GLOBAL | LRE_FLAG_IGNORECASE)) &&
        class_read(&class, str8(re->pattern), re->pattern->len, flags & LRE_FLAG_IGNORECASE))
        failed = match_runs(ctx, &class, s, JS_VALUE_GET_OBJ(matches));
    else
        failed = match_all(ctx, rx, s, JS_VALUE_GET_OBJ(matches));
    if (!failed && JS_VALUE_GET_OBJ(matches)->u.array.count > 0)
        return matches;
    JS_FreeValue(ctx, matches);
    return failed ? JS_EXCEPTION : JS_NULL;
}

#endif
