/* Upper and lower case of ASCII text, eight characters at a time.
 *
 * The text is a string already, so nothing is looked up. Of ASCII characters only letters change, each to one other, and what
 * stands around them does not matter. Text that has the case already is its own result. */
#ifndef AVIARY_FAST_CASE_H
#define AVIARY_FAST_CASE_H

/* The bits by which the letters among eight ASCII characters differ from the other case. */
static inline uint64_t case_bits(uint64_t chars, bool to_lower)
{
    const uint64_t ones = 0x0101010101010101ull;
    uint64_t from_first = chars + (0x80 - (to_lower ? 'A' : 'a')) * ones;
    uint64_t behind_last = chars + (0x80 - (to_lower ? 'Z' : 'z') - 1) * ones;
    return (from_first & ~behind_last & 0x80 * ones) >> 2;
}

static bool fast_case(JSContext *ctx, JSString *text, bool to_lower, JSValue *made)
{
    const uint8_t *p = str8(text);
    uint32_t i, len = text->len;
    uint64_t bits = 0, changes = 0, chars;
    JSString *copy;
    uint8_t *q;
    if (unlikely(!fast_paths) || text->is_wide_char)
        return false;
    for (i = 0; i + 8 <= len; i += 8) {
        memcpy(&chars, p + i, 8);
        bits |= chars;
        changes |= case_bits(chars, to_lower);
    }
    for (; i < len; i++) {
        bits |= p[i];
        changes |= case_bits(p[i], to_lower);
    }
    if (bits & 0x8080808080808080ull)
        return false;
    if (!changes) {
        *made = js_dup(JS_MKPTR(JS_TAG_STRING, text));
        return true;
    }
    copy = js_alloc_string(ctx, (int)len, 0);
    if (!copy) {
        *made = JS_EXCEPTION;
        return true;
    }
    q = str8(copy);
    for (i = 0; i + 8 <= len; i += 8) {
        memcpy(&chars, p + i, 8);
        chars ^= case_bits(chars, to_lower);
        memcpy(q + i, &chars, 8);
    }
    for (; i < len; i++)
        q[i] = p[i] ^ (uint8_t)case_bits(p[i], to_lower);
    q[len] = 0;
    *made = JS_MKPTR(JS_TAG_STRING, copy);
    return true;
}

#endif
