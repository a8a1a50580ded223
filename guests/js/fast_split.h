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

/* A bit in each byte that is zero. */
static inline uint64_t zero_bytes(uint64_t bytes)
{
    const uint64_t low = 0x7F7F7F7F7F7F7F7Full;
    return ~(((bytes & low) + low) | bytes | low);
}

static int split_at(JSContext *ctx, JSString *text, uint8_t c, JSObject *parts)
{
    const uint8_t *p = str8(text);
    uint32_t i, len = text->len, start = 0;
    for (i = 0; i + 8 <= len; i += 8) {
        uint64_t found = zero_bytes(word_load8(p + i) ^ c * 0x0101010101010101ull);
        for (; found; found &= found - 1) {
            uint32_t at = i + (uint32_t)__builtin_ctzll(found) / 8;
            if (fast_append(ctx, parts, word_of(ctx, text, start, at)))
                return -1;
            start = at + 1;
        }
    }
    for (; i < len; i++) {
        if (p[i] != c)
            continue;
        if (fast_append(ctx, parts, word_of(ctx, text, start, i)))
            return -1;
        start = i + 1;
    }
    return fast_append(ctx, parts, word_of(ctx, text, start, len));
}

/* Whether the fast path applies; then `*parts` is the result or an exception. */
static bool fast_split(JSContext *ctx, JSValueConst text, JSValueConst separator, JSValueConst limit, JSValue *parts)
{
    JSString *s, *by;
    if (unlikely(!fast_paths) || JS_VALUE_GET_TAG(text) != JS_TAG_STRING ||
        JS_VALUE_GET_TAG(separator) != JS_TAG_STRING || !JS_IsUndefined(limit))
        return false;
    s = JS_VALUE_GET_STRING(text);
    by = JS_VALUE_GET_STRING(separator);
    if (s->is_wide_char || by->is_wide_char || by->len != 1 || s->len == 0)
        return false;
    *parts = fast_array(ctx);
    if (!JS_IsException(*parts) && split_at(ctx, s, *str8(by), JS_VALUE_GET_OBJ(*parts))) {
        JS_FreeValue(ctx, *parts);
        *parts = JS_EXCEPTION;
    }
    return true;
}

#endif
