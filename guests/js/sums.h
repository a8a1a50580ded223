/* Emits of short text and a number, added up here before the host gets them.
 *
 * A job whose values are summed or counted does not care how many emits its sums come in. So an emit of such a pair is an
 * addition in the table of words (fast_words.h), and the host is given each key once, with the sum and the number of
 * emits: when the call ends, when a key makes room for another, and before more than SUMS_BYTES_MAX are waiting, so that
 * the limit on what a record may emit is kept.
 *
 * Only sums that are exact are made: of numbers that are multiples of 1/256, as long as the sum is below 2^44 (so it has
 * at most 52 bits). Any other value goes to the host as it is. The host's own sums do not depend on order, so neither
 * does what is mixed from both.
 *
 * A reduce that adds up in JavaScript (known.h) rounds sums that are not exact, so for these the order matters: the first
 * value that cannot be added here ends the sums of an instance. */
#ifndef AVIARY_SUMS_H
#define AVIARY_SUMS_H

#include "write.h"

#define SUM_SCALE 256.0
#define SUM_MAX 17592186044416.0 /* 2^44 */
#define SUMS_BYTES_MAX (1u << 20)

/* In any order, or in the order of emission: then from the first value on that cannot be added exactly, every emit goes to the
 * host. */
static enum { SUMS_NONE, SUMS_ANY_ORDER, SUMS_IN_ORDER } sums_wanted;
/* The entries that may hold something. */
static uint16_t sums_listed[WORDS];
static uint32_t sums_listed_len;
/* Bytes that the emits waiting here would have had. */
static uint32_t sums_bytes;

static inline uint32_t sum_emit_bytes(uint32_t key_len)
{
    /* A string is a type, a length, text and a NUL; a double is a type and eight bytes. */
    return 1 + 4 + key_len + 1 + 1 + 8;
}

static no_inline void word_give(Word *word)
{
    uint32_t len = word->len, size = len + 1;
    uint8_t key[1 + 4 + WORD_BYTES_MAX + 1];
    key[0] = BSON_STRING;
    memcpy(key + 1, &size, 4);
    memcpy(key + 5, str8(word->text), len);
    key[5 + len] = 0;
    abi_emit_sum(key, len + 6, word->sum, word->emits);
    sums_bytes -= sum_emit_bytes(len) * word->emits;
    word->emits = 0;
    word->sum = 0;
}

static void sums_flush(void)
{
    for (uint32_t i = 0; i < sums_listed_len; i++) {
        Word *word = &words[sums_listed[i]];
        word->listed = false;
        if (word->emits)
            word_give(word);
    }
    sums_listed_len = 0;
}

/* Ends sums where order matters and an emit comes that is none of them. */
static void sums_interrupt(void)
{
    if (sums_wanted == SUMS_IN_ORDER) {
        sums_flush();
        sums_wanted = SUMS_NONE;
    }
}

/* The entry of a key, or nothing if it gets none. */
static inline Word *sum_word(JSString *text)
{
    Word *word = &words[text->hash_next % WORDS];
    const uint8_t *p;
    WordKey key;
    if (likely(word->text == text))
        return word;
    if (words_rest) {
        words_rest--;
        return NULL;
    }
    if (text->is_wide_char || text->len > WORD_BYTES_MAX)
        return NULL;
    p = str8(text);
    key = word_read(p, text->len);
    if (!key.ascii)
        return NULL;
    word = word_find(&key, p, text->len);
    return word ? word : word_keep(rt, &key, JS_VALUE_GET_STRING(js_dup(JS_MKPTR(JS_TAG_STRING, text))));
}

/* Gives what is waiting before an emit whose key is equal to text and is none: of equal keys, the first one stays. */
static inline void sums_before(JSValueConst key)
{
    Value *value = sums_wanted && JS_IsObject(key) ? value_of(key) : NULL;
    if (unlikely(value && value->type == BSON_SYMBOL)) {
        sums_flush();
        sums_interrupt();
    }
}

/* Whether a value is a number that can be added exactly. */
static inline bool sum_number(JSValueConst value, double *number)
{
    if (likely(JS_VALUE_GET_TAG(value) == JS_TAG_INT)) {
        *number = JS_VALUE_GET_INT(value);
        return true;
    }
    if (!JS_TAG_IS_FLOAT64(JS_VALUE_GET_TAG(value)))
        return false;
    *number = JS_VALUE_GET_FLOAT64(value);
    /* The sign of a zero is a part of a sum that these do not keep. */
    return fabs(*number) < SUM_MAX && (double)(int64_t)(*number * SUM_SCALE) == *number * SUM_SCALE &&
           (*number != 0 || !signbit(*number));
}

/* Whether the emit is taken. It is one that the host would not refuse. */
static inline bool sums_take(JSValueConst key, JSValueConst value)
{
    Word *word;
    double number, sum;
    if (!sums_wanted)
        return false;
    if (!sum_number(value, &number)) {
        sums_interrupt();
        return false;
    }
    if (JS_VALUE_GET_TAG(key) != JS_TAG_STRING || !(word = sum_word(JS_VALUE_GET_STRING(key))))
        return false;
    sum = word->sum + number;
    if (unlikely(!(fabs(sum) < SUM_MAX))) {
        word_give(word);
        sum = number;
    }
    if (!word->listed) {
        word->listed = true;
        sums_listed[sums_listed_len++] = (uint16_t)(word - words);
    }
    word->sum = sum;
    word->emits++;
    sums_bytes += sum_emit_bytes(word->len);
    if (unlikely(sums_bytes > SUMS_BYTES_MAX))
        sums_flush();
    return true;
}

#endif
