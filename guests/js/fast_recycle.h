/* Objects that nearly every record makes and drops, kept for the next one: arrays, their iterators, documents.
 *
 * An object that nothing refers to any more is as good as a new one if it still looks like one: it has the properties and the
 * prototype that it was made with, can get more, and no weak reference asks when it is gone. What it held is freed as ever. An
 * object that is kept has one reference, which is this file's, so the collector of cycles leaves it alone. */
#ifndef AVIARY_FAST_RECYCLE_H
#define AVIARY_FAST_RECYCLE_H

#define RECYCLED_MAX 64
/* Arrays keep the room for their elements, up to so many. */
#define RECYCLED_ELEMENTS_MAX 256

typedef struct Recycled {
    JSObject *objects[RECYCLED_MAX];
    uint32_t count;
} Recycled;

static Recycled recycled_arrays, recycled_iterators, recycled_documents;

static inline JSObject *recycled_take(Recycled *kept)
{
    return kept->count ? kept->objects[--kept->count] : NULL;
}

/* Whether an object could be a new one with so many properties, and there is room for it. */
static inline bool recycled_fits(const Recycled *kept, const JSObject *o, int properties)
{
    return kept->count < RECYCLED_MAX && o->extensible && !o->first_weak_ref && o->shape->prop_count == properties;
}

static bool recycled_put(JSRuntime *rt, Recycled *kept, JSObject *o)
{
    list_del(&o->header.link);
    list_add_tail(&o->header.link, &rt->gc_obj_list);
    JS_REF_COUNT(o) = 1;
    kept->objects[kept->count++] = o;
    return true;
}

static bool recycle_array(JSRuntime *rt, JSObject *o)
{
    if (!recycled_fits(&recycled_arrays, o, 1) || o->shape != ctx->array_shape || !o->fast_array ||
        o->u.array.u1.size > RECYCLED_ELEMENTS_MAX)
        return false;
    for (uint32_t i = 0; i < o->u.array.count; i++)
        JS_FreeValueRT(rt, o->u.array.u.values[i]);
    o->u.array.count = 0;
    o->prop[0].u.value = js_int32(0);
    return recycled_put(rt, &recycled_arrays, o);
}

static bool recycle_iterator(JSRuntime *rt, JSObject *o)
{
    JSArrayIteratorData *it = o->u.array_iterator_data;
    if (!it || !recycled_fits(&recycled_iterators, o, 0) ||
        o->shape->proto != JS_VALUE_GET_OBJ(ctx->class_proto[JS_CLASS_ARRAY_ITERATOR]))
        return false;
    JS_FreeValueRT(rt, it->obj);
    it->obj = JS_UNDEFINED;
    return recycled_put(rt, &recycled_iterators, o);
}

/* Whether an object that nothing refers to any more is kept. */
static bool fast_recycle(JSRuntime *rt, JSGCObjectHeader *object)
{
    JSObject *o = (JSObject *)object;
    if (unlikely(!fast_paths) || JS_GC_TYPE(object) != JS_GC_OBJ_TYPE_JS_OBJECT || !ctx)
        return false;
    switch (o->class_id) {
    case JS_CLASS_ARRAY:
        return recycle_array(rt, o);
    case JS_CLASS_ARRAY_ITERATOR:
        return recycle_iterator(rt, o);
    default:
        return o->class_id == document_class && recycled_fits(&recycled_documents, o, 0) && document_empty(rt, o) &&
               recycled_put(rt, &recycled_documents, o);
    }
}

/* A new array. */
static JSValue fast_array(JSContext *ctx)
{
    JSObject *o = recycled_take(&recycled_arrays);
    return o ? JS_MKPTR(JS_TAG_OBJECT, o) : JS_NewArray(ctx);
}

/* A new iterator of arrays, if one is kept. Takes `array` then. */
static bool fast_array_iterator(JSValue array, JSIteratorKindEnum kind, JSValue *iterator)
{
    JSObject *o = recycled_take(&recycled_iterators);
    JSArrayIteratorData *it;
    if (!o)
        return false;
    it = o->u.array_iterator_data;
    it->obj = array;
    it->kind = kind;
    it->idx = 0;
    *iterator = JS_MKPTR(JS_TAG_OBJECT, o);
    return true;
}

#endif
