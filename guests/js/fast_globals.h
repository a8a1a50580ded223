/* Reading a global variable without searching for it.
 *
 * Two objects hold the globals: one those of let, const and class, and, where that has none of the name, the global
 * object. For a name that was found on the global object, a slot remembers at which index. It is a hint that is checked
 * on each use:
 *
 * - The property at that index still has the name, and is a plain value. If it was deleted, redefined or turned into a
 *   getter, or if the object was rearranged, its entry says so.
 * - There are as many lexical globals as there were. They are only ever added, so they are the same ones, and the name
 *   is not among them.
 *
 * An instance has one realm, so there is one global object. */
#ifndef AVIARY_FAST_GLOBALS_H
#define AVIARY_FAST_GLOBALS_H

#define GLOBAL_HINTS 64

typedef struct GlobalHint {
    JSAtom name;
    uint32_t index;
    int lexical_count;
} GlobalHint;

static GlobalHint global_hints[GLOBAL_HINTS];

static inline bool fast_global_get(JSContext *ctx, JSAtom name, JSValue *value)
{
    const GlobalHint *hint = &global_hints[name % GLOBAL_HINTS];
    JSObject *lexical = JS_VALUE_GET_OBJ(ctx->global_var_obj), *global = JS_VALUE_GET_OBJ(ctx->global_obj);
    const JSShapeProperty *property;
    if (unlikely(!fast_paths || hint->name != name || hint->lexical_count != lexical->shape->prop_count ||
                 hint->index >= (uint32_t)global->shape->prop_count))
        return false;
    property = get_shape_prop(global->shape) + hint->index;
    if (unlikely(property->atom != name || (property->flags & JS_PROP_TMASK) != JS_PROP_NORMAL))
        return false;
    *value = js_dup(global->prop[hint->index].u.value);
    return true;
}

/* Notes where the global object has a property. */
static inline void fast_global_note(JSContext *ctx, JSAtom name, const JSProperty *property)
{
    GlobalHint *hint = &global_hints[name % GLOBAL_HINTS];
    hint->name = name;
    hint->index = (uint32_t)(property - JS_VALUE_GET_OBJ(ctx->global_obj)->prop);
    hint->lexical_count = JS_VALUE_GET_OBJ(ctx->global_var_obj)->shape->prop_count;
}

#endif
