/* What the last match of a regular expression leaves behind: RegExp.$1 to $9, lastMatch and the others, as in the server's
 * engine. The input is kept, and where in it the parts are; the texts are made when they are asked for. */
#ifndef AVIARY_ENGINE_REGEXP_H
#define AVIARY_ENGINE_REGEXP_H

#define LAST_PARTS_MAX 10

static struct {
    JSValue input;
    JSValue given; /* what a script has assigned to RegExp.input */
    int count;     /* of captures, the whole match among them */
    int parts[LAST_PARTS_MAX * 2]; /* from, to; -1 if it has not matched */
    int last[2];   /* the last capture of all */
} last_match = { JS_UNDEFINED, JS_UNDEFINED };

static void last_match_note(JSContext *ctx, JSValueConst input, uint8_t **capture, int count, const uint8_t *start, int shift)
{
    if (JS_VALUE_GET_PTR(last_match.input) != JS_VALUE_GET_PTR(input) || JS_IsUndefined(last_match.input)) {
        JS_FreeValue(ctx, last_match.input);
        last_match.input = js_dup(input);
    }
    last_match.count = count;
    for (int i = 0; i < count; i++) {
        bool has = capture[2 * i] && capture[2 * i + 1];
        int from = has ? (int)((capture[2 * i] - start) >> shift) : -1;
        int to = has ? (int)((capture[2 * i + 1] - start) >> shift) : -1;
        if (i < LAST_PARTS_MAX) {
            last_match.parts[2 * i] = from;
            last_match.parts[2 * i + 1] = to;
        }
        if (i == count - 1) {
            last_match.last[0] = from;
            last_match.last[1] = to;
        }
    }
    if (!JS_IsUndefined(last_match.given)) {
        JS_FreeValue(ctx, last_match.given);
        last_match.given = JS_UNDEFINED;
    }
}

/* A match without captures, of 8-bit text. */
static void last_match_note_range(JSContext *ctx, JSString *text, uint32_t from, uint32_t to)
{
    uint8_t *capture[] = { str8(text) + from, str8(text) + to };
    last_match_note(ctx, JS_MKPTR(JS_TAG_STRING, text), capture, 1, str8(text), 0);
}

/* Makes a match that was found before the last one again. The engine finds one match after the other while it replaces by a
 * function; here they have all been found by then. */
static void last_match_again(JSContext *ctx, JSValueConst rx, JSValueConst input, int at)
{
    JSRegExp *re = JS_IsObject(rx) && JS_VALUE_GET_OBJ(rx)->class_id == JS_CLASS_REGEXP ? &JS_VALUE_GET_OBJ(rx)->u.regexp : NULL;
    JSString *text = JS_VALUE_GET_STRING(input);
    int shift = text->is_wide_char, count;
    uint8_t **capture, *code;
    if (!re)
        return;
    code = str8(re->bytecode);
    count = lre_get_alloc_count(code);
    capture = js_malloc_rt(ctx->rt, sizeof(capture[0]) * (size_t)max_int(count, 2));
    if (!capture)
        return;
    if (lre_exec(capture, code, str8(text), at, (int)text->len, shift, ctx) == 1)
        last_match_note(ctx, input, capture, lre_get_capture_count(code), str8(text), shift);
    js_free_rt(ctx->rt, capture);
}

enum { LAST_MATCH = 100, LAST_PAREN, LEFT_CONTEXT, RIGHT_CONTEXT, LAST_INPUT };

static JSValue last_match_get(JSContext *ctx, JSValueConst self, int magic)
{
    JSString *text;
    int from = -1, to = -1;
    if (magic == LAST_INPUT) {
        if (!JS_IsUndefined(last_match.given))
            return js_dup(last_match.given);
        return JS_IsUndefined(last_match.input) ? js_empty_string(ctx->rt) : js_dup(last_match.input);
    }
    if (JS_IsUndefined(last_match.input))
        return js_empty_string(ctx->rt);
    text = JS_VALUE_GET_STRING(last_match.input);
    switch (magic) {
    case LAST_MATCH:
        from = last_match.parts[0];
        to = last_match.parts[1];
        break;
    case LAST_PAREN:
        if (last_match.count > 1) {
            from = last_match.last[0];
            to = last_match.last[1];
        }
        break;
    case LEFT_CONTEXT:
        from = 0;
        to = last_match.parts[0];
        break;
    case RIGHT_CONTEXT:
        from = last_match.parts[1];
        to = (int)text->len;
        break;
    default:
        if (magic < last_match.count) {
            from = last_match.parts[2 * magic];
            to = last_match.parts[2 * magic + 1];
        }
    }
    return from < 0 || to < from ? js_empty_string(ctx->rt) : js_sub_string(ctx, text, from, to);
}

/* Of all of these, only the input can be assigned to. The others ignore it. */
static JSValue last_match_set(JSContext *ctx, JSValueConst self, JSValueConst value, int magic)
{
    JSValue text;
    if (magic != LAST_INPUT)
        return JS_UNDEFINED;
    text = JS_ToString(ctx, value);
    if (JS_IsException(text))
        return text;
    JS_FreeValue(ctx, last_match.given);
    last_match.given = text;
    return JS_UNDEFINED;
}

#define LAST(name, which) JS_CGETSET_MAGIC_DEF(name, last_match_get, last_match_set, which)
static const JSCFunctionListEntry last_match_members[] = {
    LAST("$1", 1), LAST("$2", 2), LAST("$3", 3), LAST("$4", 4), LAST("$5", 5), LAST("$6", 6), LAST("$7", 7), LAST("$8", 8),
    LAST("$9", 9), LAST("lastMatch", LAST_MATCH), LAST("$&", LAST_MATCH), LAST("lastParen", LAST_PAREN),
    LAST("$+", LAST_PAREN), LAST("leftContext", LEFT_CONTEXT), LAST("$`", LEFT_CONTEXT),
    LAST("rightContext", RIGHT_CONTEXT), LAST("$'", RIGHT_CONTEXT), LAST("input", LAST_INPUT), LAST("$_", LAST_INPUT),
};

#endif
