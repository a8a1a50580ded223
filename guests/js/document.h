/* Documents as JavaScript objects that decode a field when it is touched.
 *
 * An object of this class holds a pointer to its BSON. Reading a field scans for it; objects, arrays and long strings
 * that were decoded are kept, so that they stay the same object. The first write turns it into an ordinary object with
 * all its fields. The BSON lies in the input buffer, which the next batch overwrites: an object that is still alive
 * when a batch ends is given a copy of its own. */
#ifndef AVIARY_DOCUMENT_H
#define AVIARY_DOCUMENT_H

#include "value.h"

#define CACHE_INLINE_MAX 4
#define CACHE_MAX 32
#define STRING_CACHED_BYTES_MIN 64
/* A document is decoded in full once searches have passed over more fields than this, and have begun again at its first
 * field more often than that: then they have cost about what decoding all of it does, however many fields it has. This
 * bounds the cost of many reads in random order, and leaves a read of one field to cost one search. */
#define SCAN_FIELDS_MAX 2000
#define SCAN_ROUNDS_MAX 16

typedef struct Cached {
    uint32_t at; /* offset of the value in the document */
    JSValue value;
} Cached;

typedef enum Owner { OWNER_BATCH, OWNER_SELF } Owner;

typedef struct Document {
    struct list_head link; /* in live_documents, if the owner is the batch */
    const uint8_t *bytes;
    uint32_t len;
    uint32_t cursor; /* offset of the element after the one found last */
    uint32_t scanned; /* fields that searches have passed over */
    uint32_t rounds;  /* searches that came to the end of the document */
    uint32_t seen_end; /* up to where names are in `seen` */
    uint64_t seen;     /* a bit for each name up to there, many names to a bit */
    uint8_t unique;    /* whether a name may be there twice: see Unique */
    uint8_t owner;
    bool whole; /* has become an ordinary object; bytes are kept to write numbers as the type they had */
    uint16_t cache_len;
    uint16_t cache_cap;
    Cached *cache;
    Cached cache_inline[CACHE_INLINE_MAX];
} Document;

/* A document may have a name several times. The first one counts, as on the servers. */
typedef enum Unique { UNIQUE_UNKNOWN, UNIQUE, NOT_UNIQUE } Unique;

static struct list_head live_documents;

static JSValue bson_to_js(uint8_t type, const uint8_t *p, uint32_t size, Owner owner);

static inline Document *document_of(JSValueConst v)
{
    return JS_GetOpaque(v, document_class);
}

static void document_own(Document *d)
{
    uint8_t *copy = js_malloc_rt(rt, d->len);
    if (!copy)
        fail_text(OUT_OF_MEMORY);
    memcpy(copy, d->bytes, d->len);
    d->bytes = copy;
    d->owner = OWNER_SELF;
}

static void documents_outlive_batch(void)
{
    struct list_head *el, *next;
    list_for_each_safe(el, next, &live_documents) {
        list_del(el);
        document_own(list_entry(el, Document, link));
    }
}

static void cache_clear(JSRuntime *runtime, Document *d)
{
    while (d->cache_len > 0) {
        d->cache_len--;
        JS_FreeValueRT(runtime, d->cache[d->cache_len].value);
    }
    if (d->cache != d->cache_inline)
        js_free_rt(runtime, d->cache);
    d->cache = d->cache_inline;
    d->cache_cap = CACHE_INLINE_MAX;
}

/* Lets go of all that a document holds, which nothing refers to any more, if it can then be another one. */
static bool document_empty(JSRuntime *runtime, JSObject *o)
{
    Document *d = o->u.opaque;
    if (!d || d->whole || d->owner != OWNER_BATCH || o->shape->proto != JS_VALUE_GET_OBJ(ctx->class_proto[JS_CLASS_OBJECT]))
        return false;
    cache_clear(runtime, d);
    list_del(&d->link);
    return true;
}

static JSValue document_recycled(const uint8_t *bytes, uint32_t len)
{
    JSObject *o = recycled_take(&recycled_documents);
    Document *d;
    if (!o)
        return JS_UNDEFINED;
    d = o->u.opaque;
    d->bytes = bytes;
    d->len = len;
    d->cursor = 4;
    d->scanned = 0;
    d->rounds = 0;
    d->seen_end = 4;
    d->seen = 0;
    d->unique = UNIQUE_UNKNOWN;
    list_add_tail(&d->link, &live_documents);
    return JS_MKPTR(JS_TAG_OBJECT, o);
}

static JSValue document_new_proto(const uint8_t *bytes, uint32_t len, Owner owner, JSValueConst proto)
{
    Document *d;
    JSValue obj = JS_NewObjectProtoClass(ctx, proto, document_class);
    if (JS_IsException(obj))
        return obj;
    JS_SetOpaque(obj, NULL);
    d = js_malloc(ctx, sizeof(*d));
    if (!d) {
        JS_FreeValue(ctx, obj);
        return JS_EXCEPTION;
    }
    d->bytes = bytes;
    d->len = len;
    d->cursor = 4;
    d->scanned = 0;
    d->rounds = 0;
    d->seen_end = 4;
    d->seen = 0;
    d->unique = UNIQUE_UNKNOWN;
    d->whole = false;
    d->owner = owner;
    d->cache = d->cache_inline;
    d->cache_cap = CACHE_INLINE_MAX;
    d->cache_len = 0;
    if (owner == OWNER_BATCH)
        list_add_tail(&d->link, &live_documents);
    else
        document_own(d);
    JS_SetOpaque(obj, d);
    return obj;
}

static JSValue document_new(const uint8_t *bytes, uint32_t len, Owner owner)
{
    if (owner == OWNER_BATCH && fast_paths) {
        JSValue recycled = document_recycled(bytes, len);
        if (!JS_IsUndefined(recycled))
            return recycled;
    }
    return document_new_proto(bytes, len, owner, ctx->class_proto[JS_CLASS_OBJECT]);
}

/* Whether a document is a reference: what servers make a DBRef of. */
static inline bool is_reference(const uint8_t *p, uint32_t len)
{
    Elem e;
    if (likely(p[4] != BSON_STRING || len < 16 || memcmp(p + 5, "$ref", 5)))
        return false;
    bson_next(bson_next(p + 4, p + len - 1, &e), p + len - 1, &e);
    return e.type && e.key_len == 3 && !memcmp(e.key, "$id", 3);
}

static void document_finalizer(JSRuntime *runtime, JSValueConst v)
{
    Document *d = document_of(v);
    if (!d)
        return;
    cache_clear(runtime, d);
    if (d->owner == OWNER_BATCH)
        list_del(&d->link);
    else
        js_free_rt(runtime, (void *)d->bytes);
    js_free_rt(runtime, d);
}

static void document_mark(JSRuntime *runtime, JSValueConst v, JS_MarkFunc *mark)
{
    Document *d = document_of(v);
    if (!d)
        return;
    for (uint32_t i = 0; i < d->cache_len; i++)
        JS_MarkValue(runtime, d->cache[i].value, mark);
}

/* Points the object at another document of the batch, if nothing but the caller can see it. */
static bool document_reuse(JSValueConst obj, const uint8_t *bytes, uint32_t len)
{
    JSObject *p = JS_VALUE_GET_OBJ(obj);
    Document *d = p->u.opaque;
    if (JS_REF_COUNT(p) != 1 || d->whole || d->owner != OWNER_BATCH || p->shape->prop_count || !p->extensible ||
        p->first_weak_ref || p->shape->proto != JS_VALUE_GET_OBJ(ctx->class_proto[JS_CLASS_OBJECT]))
        return false;
    cache_clear(rt, d);
    d->bytes = bytes;
    d->len = len;
    d->cursor = 4;
    d->scanned = 0;
    d->rounds = 0;
    d->seen_end = 4;
    d->seen = 0;
    d->unique = UNIQUE_UNKNOWN;
    return true;
}

/* The UTF-8 of a property's name; false if no field can have it (symbols, names with NUL). */
typedef struct Name {
    const uint8_t *p;
    uint32_t len;
    const char *owned;
    uint8_t digits[12];
} Name;

static bool name_of_atom(JSAtom atom, Name *name)
{
    JSAtomStruct *s;
    uint8_t bits = 0;
    name->owned = NULL;
    if (__JS_AtomIsTaggedInt(atom)) {
        uint32_t n = __JS_AtomToUInt32(atom);
        uint8_t *p = name->digits + sizeof(name->digits);
        do {
            *--p = (uint8_t)('0' + n % 10);
            n /= 10;
        } while (n);
        name->p = p;
        name->len = (uint32_t)(name->digits + sizeof(name->digits) - p);
        return true;
    }
    s = rt->atom_array[atom];
    if (s->atom_type != JS_ATOM_TYPE_STRING)
        return false;
    if (!s->is_wide_char) {
        name->p = strv(s);
        name->len = s->len;
        for (uint32_t i = 0; i < name->len; i++)
            bits |= name->p[i];
        if (bits < 0x80)
            return true;
    }
    size_t len;
    name->owned = JS_AtomToCStringLen(ctx, &len, atom);
    if (!name->owned)
        fail_text(OUT_OF_MEMORY);
    name->p = (const uint8_t *)name->owned;
    name->len = (uint32_t)len;
    return true;
}

static inline void name_free(Name *name)
{
    if (unlikely(name->owned != NULL))
        JS_FreeCString(ctx, name->owned);
}

static inline bool same_bytes(const uint8_t *a, const uint8_t *b, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++) {
        if (a[i] != b[i])
            return false;
    }
    return true;
}

static inline uint32_t name_hash(const uint8_t *name, uint32_t len)
{
    return len ? len * 5 + name[0] + name[len - 1] * 3u : 0;
}

/* Notes a name that a search passes for the first time. */
static inline void document_see(Document *d, const Elem *e)
{
    d->seen |= 1ull << (name_hash(e->key, e->key_len) & 63);
    d->seen_end = (uint32_t)(e->value + e->size - d->bytes);
}

/* Looks whether any name is there twice. */
static no_inline bool document_is_unique(Document *d)
{
    const uint8_t *p = d->bytes + 4, *end = d->bytes + d->len - 1;
    uint32_t few[128] = { 0 }, *slots = few; /* offsets of names */
    uint32_t count = 0, cap = countof(few);
    Elem e;
    if (d->unique != UNIQUE_UNKNOWN)
        return d->unique == UNIQUE;
    for (p = bson_next(p, end, &e); e.type; p = bson_next(p, end, &e))
        count++;
    while (cap < count * 2)
        cap *= 2;
    if (cap > countof(few)) {
        slots = js_mallocz_rt(rt, cap * sizeof(*slots));
        if (!slots)
            fail_text(OUT_OF_MEMORY);
    }
    d->unique = UNIQUE;
    p = d->bytes + 4;
    for (p = bson_next(p, end, &e); e.type && d->unique == UNIQUE; p = bson_next(p, end, &e)) {
        uint32_t slot = 0;
        for (uint32_t i = 0; i < e.key_len; i++)
            slot = slot * 31 + e.key[i];
        for (slot %= cap; slots[slot]; slot = (slot + 1) % cap) {
            if (!strcmp((const char *)d->bytes + slots[slot], (const char *)e.key)) {
                d->unique = NOT_UNIQUE;
                break;
            }
        }
        slots[slot] = (uint32_t)(e.key - d->bytes);
    }
    if (slots != few)
        js_free_rt(rt, slots);
    return d->unique == UNIQUE;
}

/* Whether a name that was found behind `start` is also before it: then `e` and `*next` are made those of that one. */
static no_inline void document_find_first(Document *d, const uint8_t *start, const uint8_t **next, Elem *e)
{
    const uint8_t *p = d->bytes + 4, *end = d->bytes + d->len - 1;
    Elem before;
    if (document_is_unique(d))
        return;
    while (p < start) {
        p = bson_next(p, end, &before);
        if (before.key_len == e->key_len && same_bytes(before.key, e->key, e->key_len)) {
            *e = before;
            *next = p;
            return;
        }
    }
}

/* Finds a field, looking first behind the one found last: fields are mostly read in order. */
static bool document_find(Document *d, const uint8_t *name, uint32_t name_len, Elem *e)
{
    const uint8_t *end = d->bytes + d->len - 1;
    const uint8_t *start = d->bytes + d->cursor;
    const uint8_t *p = start;
    uint64_t seen = d->seen;
    for (p = bson_next(p, end, e); e->type; p = bson_next(p, end, e)) {
        d->scanned++;
        if (p > d->bytes + d->seen_end)
            document_see(d, e);
        if (e->key_len == name_len && same_bytes(e->key, name, name_len)) {
            if (unlikely(seen >> (name_hash(name, name_len) & 63) & 1) && d->unique != UNIQUE)
                document_find_first(d, start, &p, e);
            goto found;
        }
    }
    d->rounds++;
    for (p = d->bytes + 4; p < start;) {
        p = bson_next(p, end, e);
        d->scanned++;
        if (e->key_len == name_len && same_bytes(e->key, name, name_len))
            goto found;
    }
    return false;
found:
    d->cursor = (uint32_t)(p - d->bytes);
    return true;
}

/* Finds a field whose name is not UTF-8 by what its name is here. */
static no_inline bool document_find_replaced(Document *d, const Name *name, Elem *e)
{
    const uint8_t *p = d->bytes + 4, *end = d->bytes + d->len - 1;
    if (!strstr(name->owned, "\xEF\xBF\xBD"))
        return false;
    for (p = bson_next(p, end, e); e->type; p = bson_next(p, end, e)) {
        uint32_t size = 0;
        char *replaced = utf8_replaced(e->key, e->key_len, &size);
        bool same = replaced && size == name->len && same_bytes((const uint8_t *)replaced, name->p, size);
        free(replaced);
        if (same)
            return true;
    }
    return false;
}

/* Finds the field of a property's name. */
static inline bool document_find_named(Document *d, const Name *name, Elem *e)
{
    return document_find(d, name->p, name->len, e) || (unlikely(name->owned != NULL) && document_find_replaced(d, name, e));
}

static inline bool is_cached_type(const Elem *e)
{
    switch (e->type) {
    case BSON_DOUBLE:
    case BSON_INT32:
    case BSON_BOOL:
    case BSON_NULL:
    case BSON_UNDEFINED:
        return false;
    case BSON_STRING:
        return e->size >= STRING_CACHED_BYTES_MIN;
    default:
        return true;
    }
}

static Cached *cache_find(Document *d, const Elem *e)
{
    uint32_t at = (uint32_t)(e->value - d->bytes);
    for (uint32_t i = 0; i < d->cache_len; i++) {
        if (d->cache[i].at == at)
            return &d->cache[i];
    }
    return NULL;
}

static void cache_add(Document *d, const Elem *e, JSValueConst value)
{
    if (d->cache_len == d->cache_cap) {
        uint32_t cap = d->cache_cap * 4;
        Cached *more = js_malloc_rt(rt, cap * sizeof(*more));
        if (!more)
            fail_text(OUT_OF_MEMORY);
        memcpy(more, d->cache, d->cache_len * sizeof(*more));
        if (d->cache != d->cache_inline)
            js_free_rt(rt, d->cache);
        d->cache = more;
        d->cache_cap = (uint16_t)cap;
    }
    d->cache[d->cache_len].at = (uint32_t)(e->value - d->bytes);
    d->cache[d->cache_len].value = JS_DupValue(ctx, value);
    d->cache_len++;
}

static JSValue document_decode(Document *d, const Elem *e)
{
    JSValue value;
    if (!is_cached_type(e))
        return bson_to_js(e->type, e->value, e->size, d->owner);
    Cached *cached = cache_find(d, e);
    if (cached)
        return JS_DupValue(ctx, cached->value);
    value = bson_to_js(e->type, e->value, e->size, d->owner);
    if (!JS_IsException(value))
        cache_add(d, e, value);
    return value;
}

/* Makes the object an ordinary one with all its fields as properties, in order. */
static int document_whole(JSValueConst obj)
{
    JSObject *o = JS_VALUE_GET_OBJ(obj);
    Document *d = document_of(obj);
    const uint8_t *p = d->bytes + 4, *end = d->bytes + d->len - 1;
    Elem e;
    if (d->whole)
        return 0;
    for (;;) {
        JSProperty *property;
        JSAtom atom;
        JSValue value;
        p = bson_next(p, end, &e);
        if (e.type == 0)
            break;
        value = document_decode(d, &e);
        if (JS_IsException(value))
            return -1;
        atom = name_atom(e.key, e.key_len);
        if (atom == JS_ATOM_NULL) {
            JS_FreeValue(ctx, value);
            return -1;
        }
        if (find_own_property(&property, o, atom)) {
            JS_FreeValue(ctx, value);
        } else {
            property = add_property(ctx, o, atom, JS_PROP_C_W_E);
            if (!property)
                fail_text(OUT_OF_MEMORY);
            property->u.value = value;
        }
        JS_FreeAtom(ctx, atom);
    }
    o->is_exotic = 0;
    d->whole = true;
    d->cursor = 4;
    cache_clear(rt, d);
    return 0;
}

/* Whether decoding all of the document is cheaper than going on as before. */
static inline bool is_costly(const Document *d)
{
    return d->cache_len >= CACHE_MAX || (d->scanned > SCAN_FIELDS_MAX && d->rounds > SCAN_ROUNDS_MAX);
}

static JSValue document_get_property(JSContext *c, JSValueConst obj, JSAtom atom, JSValueConst receiver)
{
    Document *d = document_of(obj);
    Name name;
    Elem e;
    JSObject *proto;
    if (name_of_atom(atom, &name)) {
        bool found = document_find_named(d, &name, &e);
        JSValue value = JS_UNDEFINED;
        name_free(&name);
        if (found)
            value = document_decode(d, &e);
        if (unlikely(is_costly(d)) && !JS_IsException(value) && document_whole(obj)) {
            JS_FreeValue(ctx, value);
            return JS_EXCEPTION;
        }
        if (found)
            return value;
    }
    proto = JS_VALUE_GET_OBJ(obj)->shape->proto;
    if (!proto)
        return JS_UNDEFINED;
    return JS_GetPropertyInternal(ctx, JS_MKPTR(JS_TAG_OBJECT, proto), atom, receiver, false);
}

static int document_get_own_property(JSContext *c, JSPropertyDescriptor *desc, JSValueConst obj, JSAtom atom)
{
    Document *d = document_of(obj);
    Name name;
    Elem e;
    bool found;
    if (!name_of_atom(atom, &name))
        return false;
    found = document_find_named(d, &name, &e);
    name_free(&name);
    if (!found)
        return false;
    /* What is asked for is often read next: for-in asks before every name. */
    d->cursor = (uint32_t)(e.key - 1 - d->bytes);
    if (desc) {
        desc->value = document_decode(d, &e);
        if (JS_IsException(desc->value))
            return -1;
        desc->flags = JS_PROP_C_W_E;
        desc->getter = JS_UNDEFINED;
        desc->setter = JS_UNDEFINED;
    }
    return true;
}

static int document_names(JSContext *c, JSPropertyEnum **names, uint32_t *count, JSValueConst obj)
{
    Document *d = document_of(obj);
    const uint8_t *p = d->bytes + 4, *end = d->bytes + d->len - 1;
    JSPropertyEnum *tab;
    uint32_t n = 0, i, j;
    bool unique;
    Elem e;
    for (p = bson_next(p, end, &e); e.type; p = bson_next(p, end, &e))
        n++;
    tab = js_malloc(ctx, sizeof(*tab) * (n + 1));
    if (!tab)
        return -1;
    unique = document_is_unique(d);
    p = d->bytes + 4;
    i = 0;
    for (p = bson_next(p, end, &e); e.type; p = bson_next(p, end, &e)) {
        tab[i].atom = name_atom(e.key, e.key_len);
        tab[i].is_enumerable = true;
        if (tab[i].atom == JS_ATOM_NULL) {
            JS_FreePropertyEnum(ctx, tab, i);
            return -1;
        }
        /* Of a name that is there twice, the second is left out. */
        for (j = unique ? i : 0; tab[j].atom != tab[i].atom; j++)
            ;
        if (j < i)
            JS_FreeAtom(ctx, tab[i].atom);
        else
            i++;
    }
    d->cursor = 4;
    *names = tab;
    *count = i;
    return 0;
}

typedef struct NamePlace {
    JSAtom atom;
    uint32_t place;
} NamePlace;

static int name_place_compare(const void *a, const void *b, void *opaque)
{
    const NamePlace *x = a, *y = b;
    if (x->atom != y->atom)
        return x->atom < y->atom ? -1 : 1;
    return x->place < y->place ? -1 : 1;
}

typedef struct PlacedName {
    JSPropertyEnum name;
    uint32_t place;
} PlacedName;

static int placed_name_compare(const void *a, const void *b, void *opaque)
{
    const PlacedName *x = a, *y = b;
    return x->place < y->place ? -1 : x->place > y->place;
}

/* Puts the names of a document that has become an ordinary object in the order of the document; what is new comes last, in
 * the order of the language. */
static int document_order(JSContext *c, JSObject *o, JSPropertyEnum *tab, uint32_t count)
{
    Document *d = o->u.opaque;
    const uint8_t *p, *end;
    NamePlace *places;
    PlacedName *placed;
    uint32_t fields = 0, i;
    Elem e;
    if (!d || !d->whole || count < 2)
        return 0;
    p = d->bytes + 4;
    end = d->bytes + d->len - 1;
    for (p = bson_next(p, end, &e); e.type; p = bson_next(p, end, &e))
        fields++;
    places = js_malloc(ctx, (fields + 1) * sizeof(*places));
    placed = js_malloc(ctx, count * sizeof(*placed));
    if (!places || !placed) {
        js_free(ctx, places);
        js_free(ctx, placed);
        return -1;
    }
    p = d->bytes + 4;
    i = 0;
    for (p = bson_next(p, end, &e); e.type; p = bson_next(p, end, &e)) {
        /* A name that the object still has is known without this. */
        places[i].atom = name_atom(e.key, e.key_len);
        places[i].place = i;
        JS_FreeAtom(ctx, places[i].atom);
        i++;
    }
    rqsort(places, fields, sizeof(*places), name_place_compare, NULL);
    for (i = 0; i < count; i++) {
        uint32_t low = 0, high = fields;
        while (low < high) {
            uint32_t middle = (low + high) / 2;
            if (places[middle].atom < tab[i].atom)
                low = middle + 1;
            else
                high = middle;
        }
        placed[i].name = tab[i];
        placed[i].place = low < fields && places[low].atom == tab[i].atom ? places[low].place : fields + i;
    }
    rqsort(placed, count, sizeof(*placed), placed_name_compare, NULL);
    for (i = 0; i < count; i++)
        tab[i] = placed[i].name;
    js_free(ctx, places);
    js_free(ctx, placed);
    return 0;
}

static int document_set_property(JSContext *c, JSValueConst obj, JSAtom atom, JSValueConst value, JSValueConst receiver,
                                 int flags)
{
    if (document_whole(obj))
        return -1;
    return JS_SetPropertyInternal2(ctx, obj, atom, JS_DupValue(ctx, value), receiver, flags);
}

static int document_define(JSContext *c, JSValueConst obj, JSAtom atom, JSValueConst value, JSValueConst getter,
                           JSValueConst setter, int flags)
{
    if (document_whole(obj))
        return -1;
    return JS_DefineProperty(ctx, obj, atom, value, getter, setter, flags);
}

static int document_delete(JSContext *c, JSValueConst obj, JSAtom atom)
{
    if (document_whole(obj))
        return -1;
    return JS_DeleteProperty(ctx, obj, atom, 0);
}

static JSClassExoticMethods document_exotic = {
    .get_own_property = document_get_own_property,
    .get_own_property_names = document_names,
    .delete_property = document_delete,
    .define_own_property = document_define,
    .get_property = document_get_property,
    .set_property = document_set_property,
};

/* The name is what Object.prototype.toString says of a document on the servers. */
static const JSClassDef document_class_def = {
    "BSON",
    .finalizer = document_finalizer,
    .gc_mark = document_mark,
    .exotic = &document_exotic,
};

static JSValue string_to_js(const uint8_t *p, uint32_t len)
{
    uint64_t bits = 0, word;
    uint32_t i = 0;
    if (words_rest) {
        words_rest--;
    } else if (len <= WORD_BYTES_MAX && len && fast_paths) {
        WordKey key = word_read(p, len);
        if (likely(key.ascii))
            return word_string_of(ctx, &key, p, len);
    }
    for (; i + 8 <= len; i += 8) {
        memcpy(&word, p + i, 8);
        bits |= word;
    }
    for (; i < len; i++)
        bits |= p[i];
    if (likely(!(bits & 0x8080808080808080ull)) && len)
        return js_new_string8_len(ctx, (const char *)p, (int)len);
    return text_new(p, len);
}

static JSValue array_to_js(const uint8_t *p, uint32_t len, Owner owner)
{
    const uint8_t *end = p + len - 1;
    JSValue array = fast_array(ctx);
    JSObject *o;
    Elem e;
    STACK_PAD(512);
    if (JS_IsException(array))
        return array;
    o = JS_VALUE_GET_OBJ(array);
    p += 4;
    for (p = bson_next(p, end, &e); e.type; p = bson_next(p, end, &e)) {
        JSValue value = bson_to_js(e.type, e.value, e.size, owner);
        if (JS_IsException(value))
            goto exception;
        if (o->u.array.count == o->u.array.u1.size && expand_fast_array(ctx, o, o->u.array.count + 4)) {
            JS_FreeValue(ctx, value);
            goto exception;
        }
        o->u.array.u.values[o->u.array.count++] = value;
    }
    o->prop[0].u.value = js_int32((int32_t)o->u.array.count);
    return array;
exception:
    o->prop[0].u.value = js_int32((int32_t)o->u.array.count);
    JS_FreeValue(ctx, array);
    return JS_EXCEPTION;
}

/* A regular expression that JavaScript can hold becomes a RegExp, any other stays a value, whose methods say why. */
static JSValue regex_to_js(const uint8_t *p, uint32_t size)
{
    const char *flags = (const char *)p + strlen((const char *)p) + 1;
    JSValue args[2], regex;
    for (const char *f = flags; *f; f++) {
        if (!strchr("dgimsuy", *f) || strchr(f + 1, *f))
            return value_new(BSON_REGEX, p, size);
    }
    args[0] = JS_NewString(ctx, (const char *)p);
    args[1] = JS_NewString(ctx, flags);
    regex = JS_CallConstructor(ctx, ctx->regexp_ctor, 2, args);
    JS_FreeValue(ctx, args[0]);
    JS_FreeValue(ctx, args[1]);
    if (JS_IsException(regex)) {
        JS_FreeValue(ctx, JS_GetException(ctx));
        return value_new(BSON_REGEX, p, size);
    }
    return regex;
}

#define DATE_MS_MAX 8640000000000000

/* The name under which a Date has the time that JavaScript has no room for. No script can ask for it. */
static JSAtom far_time;

/* A date beyond JavaScript's range: its time is NaN, and it is written back as it was. */
static JSValue far_date(int64_t ms)
{
    JSValue date = JS_NewDate(ctx, NAN);
    if (JS_IsException(date))
        return date;
    if (!far_time)
        far_time = js_symbol_to_atom(ctx, js_new_symbol(ctx, "time", JS_ATOM_TYPE_PRIVATE));
    if (JS_DefinePropertyValue(ctx, date, far_time, JS_NewBigInt64(ctx, ms), 0) < 0) {
        JS_FreeValue(ctx, date);
        return JS_EXCEPTION;
    }
    return date;
}

static JSValue bson_to_js(uint8_t type, const uint8_t *p, uint32_t size, Owner owner)
{
    switch (type) {
    case BSON_DOUBLE:
        return __JS_NewFloat64(read_f64(p));
    case BSON_STRING:
        return string_to_js(p + 4, size - 5);
    case BSON_DOCUMENT:
        if (unlikely(is_reference(p, size))) {
            prelude_load();
            return document_new_proto(p, size, owner, value_protos[REFERENCE]);
        }
        return document_new(p, size, owner);
    case BSON_ARRAY:
        if (js_check_stack_overflow(rt, 0))
            return JS_ThrowStackOverflow(ctx);
        return array_to_js(p, size, owner);
    case BSON_UNDEFINED:
        return JS_UNDEFINED;
    case BSON_BOOL:
        return JS_NewBool(ctx, *p != 0);
    case BSON_DATE: {
        int64_t ms = read_i64(p);
        if (unlikely(ms < -DATE_MS_MAX || ms > DATE_MS_MAX))
            return far_date(ms);
        return JS_NewDate(ctx, (double)ms);
    }
    case BSON_NULL:
        return JS_NULL;
    case BSON_REGEX:
        return regex_to_js(p, size);
    case BSON_INT32:
        return js_int32((int32_t)read_u32(p));
    default:
        return value_new(type, p, size);
    }
}

/* scope(v): the scope of a Code as an object, undefined if it has none. */
static JSValue native_scope(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    Value *value = value_this(argc > 0 ? argv[0] : JS_UNDEFINED);
    uint32_t at;
    if (!value)
        return JS_EXCEPTION;
    if (value->type != BSON_CODE_W_SCOPE)
        return JS_UNDEFINED;
    at = 8 + read_u32(value->bytes + 4);
    return bson_to_js(BSON_DOCUMENT, value->bytes + at, value->size - at, OWNER_SELF);
}

#endif
