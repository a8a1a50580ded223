/* Sorting by a function, with the comparisons that the server's engine makes, in its order.
 *
 * The order of what a proper function compares is the same with any stable method. But many functions return a boolean,
 * which says "behind" or "equal", never "before": what becomes of these depends on which elements are compared. The engine
 * sorts by insertion up to 23 elements, and merges runs of 4, 8, … of more. It knows the functions that subtract their
 * arguments, and sorts by numbers itself, in runs of 3. */
#ifndef AVIARY_ENGINE_SORT_H
#define AVIARY_ENGINE_SORT_H

#define SORT_INSERTION_MAX 23
#define SORT_RUN 4
#define SORT_NUMBERS_RUN 3

typedef struct EngineSort {
    JSContext *ctx;
    JSValueConst method;
    bool failed;
    int by_numbers; /* 1: a - b, -1: b - a, 0: by the method */
} EngineSort;

typedef struct SortSlot {
    ValueSlot slot;
    double number;
} SortSlot;

/* Whether a function is nothing but a - b (1) or b - a (-1) of its arguments. */
static int sort_subtracts(JSValueConst function)
{
    JSObject *o = JS_VALUE_GET_OBJ(function);
    JSFunctionBytecode *b;
    const uint8_t *code;
    if (o->class_id != JS_CLASS_BYTECODE_FUNCTION)
        return 0;
    b = o->u.func.function_bytecode;
    code = b->byte_code_buf;
    if (b->func_kind != JS_FUNC_NORMAL || b->arg_count != 2 || b->byte_code_len < 4 || code[2] != OP_sub ||
        code[3] != OP_return)
        return 0;
    if (code[0] == OP_get_arg0 && code[1] == OP_get_arg1)
        return 1;
    return code[0] == OP_get_arg1 && code[1] == OP_get_arg0 ? -1 : 0;
}

/* Whether `a` may stay before `b`. */
static bool sort_in_order(EngineSort *sort, const SortSlot *a, const SortSlot *b)
{
    JSValueConst args[] = { a->slot.val, b->slot.val };
    JSValue result;
    double order;
    if (sort->by_numbers)
        return sort->by_numbers > 0 ? a->number <= b->number : b->number <= a->number;
    if (sort->failed)
        return true;
    result = JS_Call(sort->ctx, sort->method, JS_UNDEFINED, 2, args);
    if (JS_IsException(result) || JS_ToFloat64Free(sort->ctx, &order, result)) {
        sort->failed = true;
        return true;
    }
    return !(order > 0);
}

static void sort_insertion(EngineSort *sort, SortSlot *all, size_t from, size_t to)
{
    for (size_t i = from + 1; i < to; i++) {
        SortSlot item = all[i];
        size_t j = i;
        while (j > from && !sort_in_order(sort, &all[j - 1], &item)) {
            all[j] = all[j - 1];
            j--;
        }
        all[j] = item;
    }
}

static void sort_merge(EngineSort *sort, SortSlot *to, const SortSlot *from, size_t start, size_t middle, size_t end)
{
    size_t i = start, j = middle, k = start;
    if (middle >= end || sort_in_order(sort, &from[middle - 1], &from[middle])) {
        memcpy(to + start, from + start, (end - start) * sizeof(*to));
        return;
    }
    while (i < middle && j < end)
        to[k++] = sort_in_order(sort, &from[i], &from[j]) ? from[i++] : from[j++];
    while (i < middle)
        to[k++] = from[i++];
    while (j < end)
        to[k++] = from[j++];
}

/* Sorts the slots by a function. Fails with an exception, and then has all of them still. */
static int engine_sort(JSContext *ctx, ValueSlot *slots, size_t count, JSValueConst method)
{
    EngineSort sort = { ctx, method, false, sort_subtracts(method) };
    size_t run = sort.by_numbers ? SORT_NUMBERS_RUN : count > SORT_INSERTION_MAX ? SORT_RUN : SORT_INSERTION_MAX;
    SortSlot *from, *to, *swapped, *first;
    if (count < 2)
        return 0;
    from = first = js_malloc(ctx, count * 2 * sizeof(*from));
    if (!from)
        return -1;
    to = from + count;
    for (size_t i = 0; i < count; i++) {
        from[i].slot = slots[i];
        if (sort.by_numbers && JS_ToFloat64(ctx, &from[i].number, slots[i].val)) {
            js_free(ctx, first);
            return -1;
        }
    }
    for (size_t start = 0; start < count; start += run)
        sort_insertion(&sort, from, start, start + run < count ? start + run : count);
    for (; run < count; run *= 2) {
        for (size_t start = 0; start < count; start += 2 * run) {
            size_t middle = start + run < count ? start + run : count;
            sort_merge(&sort, to, from, start, middle, middle + run < count ? middle + run : count);
        }
        swapped = from;
        from = to;
        to = swapped;
    }
    for (size_t i = 0; i < count; i++)
        slots[i] = from[i].slot;
    js_free(ctx, first);
    return sort.failed ? -1 : 0;
}

#endif
