/* The switch of the fast paths, and what the patches of the interpreter call before it is defined.
 *
 * A fast path does what the interpreter would do, and is taken only where a script cannot tell the difference: each
 * begins with a check of everything that a script could have changed. Those checks read the objects at hand. Nothing is
 * remembered that would have to be forgotten in time. */
#ifndef AVIARY_FAST_H
#define AVIARY_FAST_H

/* Off in tests that compare the two. May change between any two calls. */
static bool fast_paths = true;

/* Whether a value is a function in C, which can be called without going through JS_CallInternal. */
static inline bool fast_call_applies(JSValueConst function)
{
    return likely(fast_paths) && JS_IsObject(function) &&
           JS_VALUE_GET_OBJ(function)->class_id == JS_CLASS_C_FUNCTION;
}

/* fast_for_of.h */
static bool fast_for_of(JSValueConst iterator, JSValueConst next, JSValue *element);
/* fast_recycle.h */
static bool fast_recycle(JSRuntime *rt, JSGCObjectHeader *object);
/* shim.c */
static bool fast_emit(JSValueConst function, int argc, JSValueConst *argv);
/* document.h */
static JSClassID document_class;
static bool document_empty(JSRuntime *rt, JSObject *o);
static int document_order(JSContext *ctx, JSObject *o, JSPropertyEnum *tab, uint32_t count);
/* write.h */
static void warn_of_locale(int argc, JSValueConst *argv, int first);

/* An instance has one realm. */
static JSContext *ctx;

#endif
