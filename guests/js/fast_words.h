/* Short strings that came lately, so that a word that comes again is the same string.
 *
 * Texts consist of few different words, and fields of few different values. Making a string of each costs more than finding the
 * one that was made before. Strings are immutable, so nobody can tell that two are one.
 *
 * A string also serves as a key: its entry holds what was emitted for it and is not given to the host yet (sums.h). The string
 * remembers where its entry is, in a field that only strings which are names of properties use. This is a hint: the entry must
 * hold this very string.
 *
 * Only ASCII is kept. Where strings rarely repeat, all this costs more than it saves; it then rests for a while. */
#ifndef AVIARY_FAST_WORDS_H
#define AVIARY_FAST_WORDS_H

#define WORD_BYTES_MAX 32
#define WORD_SETS_BITS 14
#define WORD_WAYS 2
#define WORDS (WORD_WAYS << WORD_SETS_BITS)
/* Of so many strings that are looked for, at most half may be missing, or it rests for so many more. */
#define WORDS_JUDGED 8192
#define WORDS_REST (1u << 17)
#define WORDS_ASCII 0x8080808080808080ull

typedef struct Word {
    uint64_t head, tail; /* of word_read */
    double sum;
    JSString *text;  /* nothing if it is free */
    uint32_t emits;
    uint8_t len;
    bool listed; /* among those that sums_flush looks at */
} Word;

static Word words[WORDS];
static uint32_t words_sought, words_missed, words_rest;

/* sums.h: gives the host what the entry holds. */
static void word_give(Word *word);

typedef struct WordKey {
    uint64_t head, tail, hash;
    bool ascii;
} WordKey;

static inline uint64_t word_load8(const uint8_t *p)
{
    uint64_t bytes;
    memcpy(&bytes, p, 8);
    return bytes;
}

static inline uint64_t word_load4(const uint8_t *p)
{
    uint32_t bytes;
    memcpy(&bytes, p, 4);
    return bytes;
}

/* The bytes of a text of at most WORD_BYTES_MAX. With the length, `head` and `tail` say all of it, up to 16 bytes. */
static inline WordKey word_read(const uint8_t *p, uint32_t len)
{
    WordKey key = { 0 };
    uint64_t middle = 0, bits;
    if (len >= 8) {
        key.head = word_load8(p);
        key.tail = word_load8(p + len - 8);
    } else if (len >= 4) {
        key.head = word_load4(p) | word_load4(p + len - 4) << 32;
    } else if (len) {
        key.head = p[0] | (uint32_t)p[len / 2] << 8 | (uint32_t)p[len - 1] << 16;
    }
    bits = key.head | key.tail;
    if (unlikely(len > 16)) {
        middle = word_load8(p + 8);
        bits |= middle;
        if (len > 24) {
            bits |= word_load8(p + 16);
            middle ^= word_load8(p + 16) * 0xC2B2AE3D27D4EB4Full;
        }
    }
    key.ascii = !(bits & WORDS_ASCII);
    key.hash = (key.head ^ len) * 0x9E3779B97F4A7C15ull;
    key.hash = (key.hash ^ key.hash >> 32 ^ key.tail ^ middle) * 0xFF51AFD7ED558CCDull;
    return key;
}

static inline bool word_is(const Word *word, const WordKey *key, const uint8_t *p, uint32_t len)
{
    return word->head == key->head && word->tail == key->tail && word->len == len && word->text &&
           (len <= 16 || !memcmp(str8(word->text) + 8, p + 8, len - 16));
}

static inline Word *word_set(const WordKey *key)
{
    return &words[(key->hash >> (64 - WORD_SETS_BITS)) * WORD_WAYS];
}

static Word *word_find(const WordKey *key, const uint8_t *p, uint32_t len)
{
    Word *set = word_set(key);
    if (unlikely(++words_sought == WORDS_JUDGED)) {
        if (words_missed > WORDS_JUDGED / 2)
            words_rest = WORDS_REST;
        words_sought = words_missed = 0;
    }
    for (int way = 0; way < WORD_WAYS; way++)
        if (word_is(&set[way], key, p, len))
            return &set[way];
    words_missed++;
    return NULL;
}

/* Keeps a string in place of another one. Takes a reference to it. */
static no_inline Word *word_keep(JSRuntime *rt, const WordKey *key, JSString *text)
{
    Word *set = word_set(key), *word = set;
    for (int way = 1; way < WORD_WAYS && word->text; way++)
        if (!set[way].text || set[way].emits < word->emits)
            word = &set[way];
    if (word->emits)
        word_give(word);
    if (word->text)
        js_free_string(rt, word->text);
    word->head = key->head;
    word->tail = key->tail;
    word->len = (uint8_t)text->len;
    word->text = text;
    if (text->atom_type == 0)
        text->hash_next = (uint32_t)(word - words);
    return word;
}

/* The string of a text that is ASCII. */
static JSValue word_string_of(JSContext *ctx, const WordKey *key, const uint8_t *p, uint32_t len)
{
    Word *word = word_find(key, p, len);
    JSValue made;
    if (likely(word))
        return js_dup(JS_MKPTR(JS_TAG_STRING, word->text));
    made = js_new_string8_len(ctx, (const char *)p, (int)len);
    if (!JS_IsException(made))
        word_keep(ctx->rt, key, JS_VALUE_GET_STRING(js_dup(made)));
    return made;
}

/* A string of at most WORD_BYTES_MAX 8-bit characters. */
static JSValue word_string(JSContext *ctx, const uint8_t *p, uint32_t len)
{
    WordKey key;
    if (words_rest) {
        words_rest--;
        return js_new_string8_len(ctx, (const char *)p, (int)len);
    }
    key = word_read(p, len);
    if (likely(key.ascii))
        return word_string_of(ctx, &key, p, len);
    return js_new_string8_len(ctx, (const char *)p, (int)len);
}

/* A part of an 8-bit text. */
static inline JSValue word_of(JSContext *ctx, JSString *text, uint32_t start, uint32_t end)
{
    if (likely(end - start <= WORD_BYTES_MAX))
        return word_string(ctx, str8(text) + start, end - start);
    return js_sub_string(ctx, text, (int)start, (int)end);
}

#endif
