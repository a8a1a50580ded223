/* Reduces that need not be called to know what they make of numbers.
 *
 * Most reduces add their values up, and calling one for every key and every few values costs more than all else. So the
 * worker asks aviary_js_known whether the reduce is one of the usual ones, and does to doubles what it would do.
 *
 * A function is known by its text, token by token: white space, comments, names and the semicolons that a line break stands
 * for do not matter, anything else does. What else could change its meaning is looked at:
 *
 * - Its text has no meaning but its own: it closes over nothing, so `Array` and `Math` in it are globals.
 * - The built-in functions that it may call are what they were. Which of them it does call is not worth knowing.
 * - Nothing can change these later: a known function changes nothing, no other one runs in its instance, and no job waits for
 *   its turn.
 *
 * A worker asks once, when the sources are loaded. Where values are not doubles, it calls the function as ever. */
#ifndef AVIARY_KNOWN_H
#define AVIARY_KNOWN_H

#include "source.h"

enum { KNOWN_NONE, KNOWN_SUM, KNOWN_MIN, KNOWN_MAX };

/* The globals in their texts, which no other name may hide. */
static const char *const known_globals[] = { "Array", "Math", "undefined" };
/* Longest text that is looked at. */
#define KNOWN_BYTES_MAX 400

/* Grammar of their texts. Words and punctuation stand for themselves, one character of punctuation at a time. A capital stands
 * for a name: the same one wherever it stands, and another one than every other capital. A word in angle brackets is a rule;
 * of its forms the first that fits is taken. */
typedef struct KnownRule {
    const char *name;
    const char *forms[9];
} KnownRule;

#define KNOWN_FUNCTION(body, result)                                                                                  \
    { "function ( K , V ) { " body " }", "function F ( K , V ) { " body " }", "( K , V ) = > { " body " }",                \
      "( K , V ) = > " result }
#define KNOWN_CALLBACK(result)                                                                                        \
    { "function ( A , B ) { return " result " ; }", "( A , B ) = > { return " result " ; }", "( A , B ) = > " result }

static const KnownRule known_rules[] = {
    { "sum", KNOWN_FUNCTION("<sum-body>", "<sum-of>") },
    { "sum-body", { "return <sum-of> ;", "<vary> S = 0 ; <add-all> return S ;" } },
    { "sum-of", { "Array . sum ( V )", "V . reduce ( <plus> )", "V . reduce ( <plus> , 0 )" } },
    { "plus", KNOWN_CALLBACK("A + B") },
    { "add-all",
      { "for ( <vary> I = 0 ; I < V . length ; <next> ) <add-at>",
        "for ( <vary> I = 0 , N = V . length ; I < N ; <next> ) <add-at>",
        "for ( <bind> X of V ) <add>", "V . forEach ( function ( X ) { <add> } ) ;", "V . forEach ( ( X ) = > { <add> } ) ;",
        "V . forEach ( ( X ) = > S + = X ) ;", "V . forEach ( X = > { <add> } ) ;", "V . forEach ( X = > S + = X ) ;" } },
    { "add-at", { "{ <add-at> }", "S + = V [ I ] ;", "S = S + V [ I ] ;" } },
    { "add", { "{ <add> }", "S + = X ;", "S = S + X ;" } },
    { "next", { "I + +", "+ + I", "I + = 1" } },
    { "vary", { "var", "let" } },
    { "bind", { "var", "let", "const" } },
    { "min", KNOWN_FUNCTION("return <min-of> ;", "<min-of>") },
    { "min-of", { "Math . min ( . . . V )", "Math . min . apply ( <self> , V )", "V . reduce ( <lesser> )" } },
    { "lesser", KNOWN_CALLBACK("Math . min ( A , B )") },
    { "max", KNOWN_FUNCTION("return <max-of> ;", "<max-of>") },
    { "max-of", { "Math . max ( . . . V )", "Math . max . apply ( <self> , V )", "V . reduce ( <larger> )" } },
    { "larger", KNOWN_CALLBACK("Math . max ( A , B )") },
    { "self", { "null", "Math", "undefined", "this" } },
};

typedef struct Span {
    const char *p;
    uint32_t len;
} Span;

static bool same_span(Span a, Span b)
{
    return a.len == b.len && !memcmp(a.p, b.p, a.len);
}

/* A text that is being compared with the grammar. */
typedef struct KnownText {
    const char *p, *end;
    Span names[26];
} KnownText;

/* The token at the beginning of a text, or an empty one at its end. */
static Span known_token(KnownText *text, bool *after_line)
{
    const char *start = text->p, *p = skip_space(start);
    Span token = { p, 0 };
    *after_line = memchr(start, '\n', (size_t)(p - start)) || memchr(start, '\r', (size_t)(p - start));
    if (p >= text->end)
        return token;
    do
        token.len++;
    while (is_word(*p) && p + token.len < text->end && is_word(p[token.len]));
    text->p = p + token.len;
    return token;
}

/* Whether a token is a name that the grammar leaves open, and the one that it stands for here. */
static bool known_name(KnownText *text, char capital, Span token)
{
    Span *name = &text->names[capital - 'A'];
    if (name->len)
        return same_span(*name, token);
    if (!is_word(token.p[0]) || (token.p[0] >= '0' && token.p[0] <= '9'))
        return false;
    for (int i = 0; i < 26; i++)
        if (text->names[i].len && same_span(text->names[i], token))
            return false;
    for (size_t i = 0; i < countof(known_globals); i++)
        if (same_span((Span){ known_globals[i], (uint32_t)strlen(known_globals[i]) }, token))
            return false;
    *name = token;
    return true;
}

static bool known_fits(KnownText *text, const char *form);

static bool known_rule_fits(KnownText *text, Span rule)
{
    for (size_t i = 0; i < countof(known_rules); i++) {
        if (!same_span((Span){ known_rules[i].name, (uint32_t)strlen(known_rules[i].name) }, rule))
            continue;
        for (const char *const *form = known_rules[i].forms; *form; form++) {
            KnownText before = *text;
            if (known_fits(text, *form))
                return true;
            *text = before;
        }
    }
    return false;
}

/* Whether a text begins with a form, and if so, goes behind it. */
static bool known_fits(KnownText *text, const char *form)
{
    bool after_return = false;
    while (*form) {
        Span part = { form, (uint32_t)strcspn(form, " ") };
        form += part.len + (form[part.len] == ' ');
        if (part.len > 2 && part.p[0] == '<') {
            KnownText before = *text;
            bool after_line;
            known_token(&before, &after_line);
            if ((after_return && after_line) || !known_rule_fits(text, (Span){ part.p + 1, part.len - 2 }))
                return false;
        } else {
            KnownText before = *text;
            bool after_line;
            Span token = known_token(text, &after_line);
            /* Behind `return`, a line break is a semicolon. */
            if (!token.len || (after_return && after_line))
                return false;
            if (part.len == 1 && *part.p == ';' && *token.p != ';')
                *text = before;
            else if (part.len == 1 && *part.p >= 'A' && *part.p <= 'Z' ? !known_name(text, *part.p, token)
                                                                     : !same_span(part, token))
                return false;
        }
        after_return = part.len == 6 && !memcmp(part.p, "return", 6);
    }
    return true;
}

/* Which one of those that are known a text is. */
static int known_text(const char *p, uint32_t len)
{
    static const char *const forms[] = { "<sum>", "<min>", "<max>" };
    for (int i = 0; i < (int)countof(forms); i++) {
        KnownText text = { p, p + len };
        bool after_line;
        if (known_fits(&text, forms[i]) && !known_token(&text, &after_line).len)
            return KNOWN_SUM + i;
    }
    return KNOWN_NONE;
}

typedef JSValue KnownFunction(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv, int magic);

/* What an own property is: nothing, one that the interpreter has not had to make yet, a plain value, or anything else. */
static enum { OWN_NOTHING, OWN_UNTOUCHED, OWN_PLAIN, OWN_OTHER } own_property(JSValueConst holder, JSAtom name, JSValueConst *value)
{
    JSProperty *property;
    JSShapeProperty *entry = find_own_property(&property, JS_VALUE_GET_OBJ(holder), name);
    if (!entry)
        return OWN_NOTHING;
    switch (entry->flags & JS_PROP_TMASK) {
    case JS_PROP_AUTOINIT:
        return OWN_UNTOUCHED;
    case JS_PROP_NORMAL:
        *value = property->u.value;
        return OWN_PLAIN;
    default:
        return OWN_OTHER;
    }
}

/* Whether an own property is a function in C as the interpreter defines it. */
static bool own_is_built_in(JSValueConst holder, JSAtom name, KnownFunction *function, int magic)
{
    JSValueConst value;
    JSObject *o;
    switch (own_property(holder, name, &value)) {
    case OWN_UNTOUCHED:
        return true;
    case OWN_PLAIN:
        if (!JS_IsObject(value))
            return false;
        o = JS_VALUE_GET_OBJ(value);
        return o->class_id == JS_CLASS_C_FUNCTION && o->u.cfunc.c_function.generic_magic == function &&
               o->u.cfunc.magic == magic;
    default:
        return false;
    }
}

/* Whether Array.sum is the one of the prelude, or still what stands in for it. */
static bool array_sum_is_ours(JSAtom name)
{
    JSProperty *property;
    JSShapeProperty *entry = find_own_property(&property, JS_VALUE_GET_OBJ(ctx->array_ctor), name);
    JSObject *getter;
    if (!entry)
        return false;
    if ((entry->flags & JS_PROP_TMASK) == JS_PROP_NORMAL)
        return JS_IsObject(array_sum) && JS_IsObject(property->u.value) &&
               JS_VALUE_GET_OBJ(property->u.value) == JS_VALUE_GET_OBJ(array_sum);
    getter = (entry->flags & JS_PROP_TMASK) == JS_PROP_GETSET ? property->u.getset.getter : NULL;
    return !prelude_loaded && getter && getter->class_id == JS_CLASS_C_FUNCTION_DATA && getter->u.c_function_data_record->func == lazy_get;
}

/* Whether Math.min or Math.max is the built-in one, and `apply` of it too. */
static bool math_is_built_in(JSValueConst math, JSAtom name, JSAtom apply, int magic)
{
    JSValueConst value, own;
    if (!own_is_built_in(math, name, js_math_min_max, magic))
        return false;
    if (own_property(math, name, &value) == OWN_UNTOUCHED)
        return true;
    return JS_VALUE_GET_OBJ(value)->shape->proto == JS_VALUE_GET_OBJ(ctx->function_proto) &&
           own_property(value, apply, &own) == OWN_NOTHING;
}

enum { ATOM_OF_ARRAY, ATOM_OF_SUM, ATOM_OF_IS_ARRAY, ATOM_OF_REDUCE, ATOM_OF_FOR_EACH, ATOM_OF_NEXT, ATOM_OF_MATH, ATOM_OF_MIN, ATOM_OF_MAX, ATOM_OF_APPLY, ATOMS };

/* Whether nobody has changed what the texts call. */
static bool known_globals_are_built_in(void)
{
    static const char *const texts[ATOMS] = { "Array", "sum", "isArray", "reduce", "forEach", "next", "Math", "min", "max", "apply" };
    static JSAtom names[ATOMS];
    JSValueConst array_proto = ctx->class_proto[JS_CLASS_ARRAY], lexical = ctx->global_var_obj, value;
    for (int i = 0; i < ATOMS; i++) {
        if (!names[i])
            names[i] = JS_NewAtom(ctx, texts[i]);
        if (names[i] == JS_ATOM_NULL)
            fail_text(OUT_OF_MEMORY);
    }
    if (own_property(lexical, names[ATOM_OF_ARRAY], &value) != OWN_NOTHING ||
        own_property(lexical, names[ATOM_OF_MATH], &value) != OWN_NOTHING)
        return false;
    if (own_property(ctx->global_obj, names[ATOM_OF_ARRAY], &value) != OWN_PLAIN || !JS_IsObject(value) ||
        JS_VALUE_GET_OBJ(value) != JS_VALUE_GET_OBJ(ctx->array_ctor))
        return false;
    if (!array_sum_is_ours(names[ATOM_OF_SUM]) || !own_is_built_in(ctx->array_ctor, names[ATOM_OF_IS_ARRAY], (KnownFunction *)js_array_isArray, 0))
        return false;
    if (!own_is_built_in(array_proto, names[ATOM_OF_REDUCE], js_array_reduce, special_reduce) ||
        !own_is_built_in(array_proto, names[ATOM_OF_FOR_EACH], js_array_every, special_forEach) ||
        !own_is_built_in(array_proto, JS_ATOM_Symbol_iterator, js_create_array_iterator, JS_ITERATOR_KIND_VALUE))
        return false;
    if (!own_is_built_in(ctx->class_proto[JS_CLASS_ARRAY_ITERATOR], names[ATOM_OF_NEXT], (KnownFunction *)js_array_iterator_next, 0) ||
        !own_is_built_in(ctx->function_proto, names[ATOM_OF_APPLY], js_function_apply, 0))
        return false;
    switch (own_property(ctx->global_obj, names[ATOM_OF_MATH], &value)) {
    case OWN_UNTOUCHED:
        return true;
    case OWN_PLAIN:
        return JS_IsObject(value) && math_is_built_in(value, names[ATOM_OF_MIN], names[ATOM_OF_APPLY], 0) &&
               math_is_built_in(value, names[ATOM_OF_MAX], names[ATOM_OF_APPLY], 1);
    default:
        return false;
    }
}

/* Which one of those that are known a function is. */
static int known_function(JSValueConst function)
{
    JSObject *o = JS_VALUE_GET_OBJ(function);
    JSFunctionBytecode *code;
    char text[KNOWN_BYTES_MAX + 1];
    if (!fast_paths || o->class_id != JS_CLASS_BYTECODE_FUNCTION || JS_IsJobPending(rt))
        return KNOWN_NONE;
    code = o->u.func.function_bytecode;
    if (code->func_kind != JS_FUNC_NORMAL || code->closure_var_count || !code->source ||
        code->source_len > KNOWN_BYTES_MAX || !known_globals_are_built_in())
        return KNOWN_NONE;
    memcpy(text, code->source, (size_t)code->source_len);
    text[code->source_len] = 0;
    return known_text(text, (uint32_t)code->source_len);
}

#endif
