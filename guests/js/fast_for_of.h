/* A step of for-of over an array: the element, without calling the iterator.
 *
 * for-of has looked up the iterator and its `next` by then, as always, so a script that replaces one of them is not
 * passed over: this asks for an iterator of arrays that steps by the built-in `next`. The array must be one that keeps
 * its elements in a row, and have one at the iterator's place that is within its length. For these, reading `length` and
 * the element runs no code. A hole, the end, and everything else go the usual way. */
#ifndef AVIARY_FAST_FOR_OF_H
#define AVIARY_FAST_FOR_OF_H

static bool fast_for_of(JSValueConst iterator, JSValueConst next, JSValue *element)
{
    JSObject *i, *n, *array;
    JSArrayIteratorData *it;
    if (unlikely(!fast_paths) || !JS_IsObject(iterator) || !JS_IsObject(next))
        return false;
    i = JS_VALUE_GET_OBJ(iterator);
    n = JS_VALUE_GET_OBJ(next);
    if (i->class_id != JS_CLASS_ARRAY_ITERATOR || n->class_id != JS_CLASS_C_FUNCTION ||
        n->u.cfunc.cproto != JS_CFUNC_iterator_next ||
        n->u.cfunc.c_function.iterator_next != js_array_iterator_next)
        return false;
    it = i->u.array_iterator_data;
    if (it->kind != JS_ITERATOR_KIND_VALUE || !JS_IsObject(it->obj))
        return false;
    array = JS_VALUE_GET_OBJ(it->obj);
    if (array->class_id != JS_CLASS_ARRAY || !array->fast_array || it->idx >= array->u.array.count ||
        JS_VALUE_GET_TAG(array->prop[0].u.value) != JS_TAG_INT ||
        it->idx >= (uint32_t)JS_VALUE_GET_INT(array->prop[0].u.value))
        return false;
    *element = js_dup(array->u.array.u.values[it->idx++]);
    return true;
}

#endif
