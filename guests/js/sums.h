/* Emits of short text and a number, added up here before the host gets them.
 *
 * A job whose values are summed or counted does not care how many emits its sums come in. So an emit of such a pair is an
 * addition in a table of the keys that came lately, and the host is given each key once, with the sum and the number of
 * emits: when the call ends, when a key makes room for another, and before more than SUMS_BYTES_MAX are waiting, so that
 * the limit on what a record may emit is kept.
 *
 * Only sums that are exact are made: of numbers that are multiples of 1/256, as long as the sum is below 2^44 (so it has
 * at most 52 bits). Any other value goes to the host as it is. The host's own sums do not depend on order, so neither
 * does what is mixed from both.
 *
 * Where keys rarely repeat, the table costs more than it saves. It then rests for a while. */
#ifndef AVIARY_SUMS_H
#define AVIARY_SUMS_H

#include "write.h"

#define SUM_KEY_BYTES_MAX 27
#define SUM_SETS_BITS 13
#define SUM_WAYS 2
#define SUM_ENTRIES (SUM_WAYS << SUM_SETS_BITS)
#define SUM_SCALE 256.0
#define SUM_MAX 17592186044416.0 /* 2^44 */
#define SUMS_BYTES_MAX (1u << 20)
/* Of so many emits, at most half may have had keys that were not in the table, or it rests for so many more. */
#define SUMS_JUDGED 8192
#define SUMS_REST (1u << 17)

typedef struct SumEntry {
    double sum;
    uint32_t emits; /* 0: free */
    uint8_t key_len;
    uint8_t key[SUM_KEY_BYTES_MAX];
} SumEntry;

static SumEntry sum_entries[SUM_ENTRIES];
/* The entries that are not free. */
static uint16_t sum_used[SUM_ENTRIES];
static uint32_t sum_used_len;
static bool sums_on;
/* Bytes that the emits waiting here would have had. */
static uint32_t sums_bytes;
/* Emits taken since the last judgement, and those among them whose key was not in the table. */
static uint32_t sums_taken, sums_missed;
static uint32_t sums_rest;

static uint32_t sum_emit_bytes(uint32_t key_len)
{
    /* A string is a type, a length, text and a NUL; a double is a type and eight bytes. */
    return 1 + 4 + key_len + 1 + 1 + 8;
}

static void sum_give(SumEntry *entry)
{
    uint32_t key_size = entry->key_len + 1u;
    output.len = 0;
    output_u8(BSON_STRING);
    output_u32(key_size);
    output_bytes(entry->key, entry->key_len);
    output_u8(0);
    abi_emit_sum(output.bytes, output.len, entry->sum, entry->emits);
    sums_bytes -= sum_emit_bytes(entry->key_len) * entry->emits;
    entry->emits = 0;
    entry->sum = 0;
}

static void sums_flush(void)
{
    for (uint32_t i = 0; i < sum_used_len; i++)
        sum_give(&sum_entries[sum_used[i]]);
    sum_used_len = 0;
}

static void sums_judge(void)
{
    if (sums_missed > sums_taken / 2)
        sums_rest = SUMS_REST;
    sums_taken = sums_missed = 0;
}

static uint32_t sum_hash(const uint8_t *p, uint32_t len)
{
    uint64_t hash = len, word;
    uint32_t i;
    for (i = 0; i + 8 <= len; i += 8) {
        memcpy(&word, p + i, 8);
        hash = (hash ^ word) * 0x9E3779B97F4A7C15ull;
        hash ^= hash >> 32;
    }
    for (word = 0; i < len; i++)
        word = word << 8 | p[i];
    hash = (hash ^ word) * 0x9E3779B97F4A7C15ull;
    return (uint32_t)(hash >> (64 - SUM_SETS_BITS));
}

/* The entry of a key, or one that is free for it. */
static SumEntry *sum_entry(const uint8_t *key, uint32_t len)
{
    SumEntry *set = &sum_entries[sum_hash(key, len) * SUM_WAYS], *entry;
    for (int way = 0; way < SUM_WAYS; way++)
        if (set[way].emits && set[way].key_len == len && same_bytes(set[way].key, key, len))
            return &set[way];
    entry = set;
    for (int way = 1; way < SUM_WAYS; way++)
        if (set[way].emits < entry->emits)
            entry = &set[way];
    if (entry->emits)
        sum_give(entry);
    else
        sum_used[sum_used_len++] = (uint16_t)(entry - sum_entries);
    memcpy(entry->key, key, len);
    entry->key_len = (uint8_t)len;
    sums_missed++;
    return entry;
}

/* Gives what is waiting before an emit whose key is equal to text and is none: of equal keys, the first one stays. */
static inline void sums_before(JSValueConst key)
{
    Value *value = sums_on && JS_IsObject(key) ? value_of(key) : NULL;
    if (unlikely(value && value->type == BSON_SYMBOL))
        sums_flush();
}

/* Whether the emit is taken. It is one that the host would not refuse. */
static inline bool sums_take(JSValueConst key, JSValueConst value)
{
    JSString *s;
    SumEntry *entry;
    const uint8_t *p;
    uint8_t bits = 0;
    double number, sum;
    if (!sums_on || JS_VALUE_GET_TAG(key) != JS_TAG_STRING)
        return false;
    if (sums_rest) {
        sums_rest--;
        return false;
    }
    if (JS_VALUE_GET_TAG(value) == JS_TAG_INT)
        number = JS_VALUE_GET_INT(value);
    else if (JS_TAG_IS_FLOAT64(JS_VALUE_GET_TAG(value)))
        number = JS_VALUE_GET_FLOAT64(value);
    else
        return false;
    /* The sign of a zero is a part of a sum that these do not keep. */
    if (!(fabs(number) < SUM_MAX) || (double)(int64_t)(number * SUM_SCALE) != number * SUM_SCALE ||
        (number == 0 && signbit(number)))
        return false;
    s = JS_VALUE_GET_STRING(key);
    if (s->is_wide_char || s->len > SUM_KEY_BYTES_MAX)
        return false;
    p = str8(s);
    for (uint32_t i = 0; i < s->len; i++)
        bits |= p[i];
    if (bits >= 0x80)
        return false;
    entry = sum_entry(p, s->len);
    sum = entry->sum + number;
    if (unlikely(!(fabs(sum) < SUM_MAX))) {
        sum_give(entry);
        sum = number;
        /* Given, but still in the list of those that are used. */
    }
    entry->sum = sum;
    entry->emits++;
    sums_bytes += sum_emit_bytes(s->len);
    if (unlikely(sums_bytes > SUMS_BYTES_MAX))
        sums_flush();
    if (unlikely(++sums_taken == SUMS_JUDGED))
        sums_judge();
    return true;
}

#endif
