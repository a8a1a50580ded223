/* Splitting a string of 8-bit characters at one character.
 *
 * Both are primitive strings, so nothing is looked up on them, and there is no limit to convert. The result is a new
 * array of parts that nobody else has seen yet: they are put in place without asking for each whether it can be. */
#ifndef AVIARY_FAST_SPLIT_H
#define AVIARY_FAST_SPLIT_H

/* Appends to an array that was just made. Takes the value, even if there is no memory. */
static inline int fast_append(JSContext *ctx, JSObject *array, JSValue value)
{
    if (unlikely(JS_IsException(value)))
        return -1;
    if (array->u.array.count == array->u.array.u1.size &&
        unlikely(expand_fast_array(ctx, array, array->u.array.count + 1))) {
        JS_FreeValue(ctx, value);
        return -1;
    }
    array->u.array.u.values[array->u.array.count++] = value;
    array->prop[0].u.value = js_int32((int32_t)array->u.array.count);
    return 0;
}

/* Whether the fast path applies; then `*parts` is the result or an exception. */
static bool fast_split(JSContext *ctx, JSValueConst text, JSValueConst separator, JSValueConst limit, JSValue *parts)
{
    JSString *s, *by;
    JSObject *array;
    const uint8_t *p;
    uint32_t i, start = 0, count = 1;
    uint8_t c;
    if (unlikely(!fast_paths) || JS_VALUE_GET_TAG(text) != JS_TAG_STRING ||
        JS_VALUE_GET_TAG(separator) != JS_TAG_STRING || !JS_IsUndefined(limit))
        return false;
    s = JS_VALUE_GET_STRING(text);
    by = JS_VALUE_GET_STRING(separator);
    if (s->is_wide_char || by->is_wide_char || by->len != 1 || s->len == 0)
        return false;
    p = str8(s);
    c = *str8(by);
    for (i = 0; i < s->len; i++)
        count += p[i] == c;
    *parts = JS_NewArray(ctx);
    if (JS_IsException(*parts))
        return true;
    array = JS_VALUE_GET_OBJ(*parts);
    if (array->u.array.u1.size < count && expand_fast_array(ctx, array, count))
        goto exception;
    for (i = 0; i < s->len; i++) {
        if (p[i] != c)
            continue;
        if (fast_append(ctx, array, js_sub_string(ctx, s, (int)start, (int)i)))
            goto exception;
        start = i + 1;
    }
    if (fast_append(ctx, array, js_sub_string(ctx, s, (int)start, (int)s->len)))
        goto exception;
    return true;
exception:
    JS_FreeValue(ctx, *parts);
    *parts = JS_EXCEPTION;
    return true;
}

#endif
