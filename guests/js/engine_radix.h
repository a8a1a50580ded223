/* Numbers as text in bases other than ten, as the server's engine writes them: the whole part exactly, and of the rest the
 * fewest digits that are read back as the same number. */
#ifndef AVIARY_ENGINE_RADIX_H
#define AVIARY_ENGINE_RADIX_H

#define LARGE_WORDS 72

/* A number of as many words as any double needs, the least first. */
typedef struct Large {
    uint32_t words[LARGE_WORDS];
} Large;

static void large_times(Large *a, uint32_t n)
{
    uint64_t carry = 0;
    for (int i = 0; i < LARGE_WORDS; i++) {
        carry += (uint64_t)a->words[i] * n;
        a->words[i] = (uint32_t)carry;
        carry >>= 32;
    }
}

static int large_compare(const Large *a, const Large *b)
{
    for (int i = LARGE_WORDS - 1; i >= 0; i--) {
        if (a->words[i] != b->words[i])
            return a->words[i] < b->words[i] ? -1 : 1;
    }
    return 0;
}

static void large_minus(Large *a, const Large *b)
{
    uint64_t borrow = 0;
    for (int i = 0; i < LARGE_WORDS; i++) {
        uint64_t d = (uint64_t)a->words[i] - b->words[i] - borrow;
        a->words[i] = (uint32_t)d;
        borrow = d >> 63;
    }
}

/* The number n times 2 to the power of `bit`. */
static Large large_of(uint64_t n, int bit)
{
    Large a = { { 0 } };
    int word = bit / 32, shift = bit % 32;
    a.words[word] = (uint32_t)(n << shift);
    a.words[word + 1] = (uint32_t)(n >> (32 - shift));
    a.words[word + 2] = shift ? (uint32_t)(n >> (64 - shift)) : 0;
    return a;
}

/* Divides by a small number, and gives the remainder. */
static uint32_t large_over(Large *a, uint32_t n, bool *more)
{
    uint64_t rest = 0;
    *more = false;
    for (int i = LARGE_WORDS - 1; i >= 0; i--) {
        rest = rest << 32 | a->words[i];
        a->words[i] = (uint32_t)(rest / n);
        rest %= n;
        *more |= a->words[i] != 0;
    }
    return (uint32_t)rest;
}

static JSValue engine_radix(JSContext *ctx, double d, int base)
{
    static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    char text[2300], whole[1100], *p = text;
    double positive = fabs(d), floored, fraction;
    uint64_t bits;
    bool more, done = false;
    int n = 0, exponent;
    if (isnan(d))
        return js_new_string8(ctx, "NaN");
    if (isinf(d))
        return js_new_string8(ctx, d < 0 ? "-Infinity" : "Infinity");
    if (d < 0)
        *p++ = '-';
    floored = floor(positive);
    fraction = positive - floored;
    memcpy(&bits, &floored, 8);
    exponent = (int)(bits >> 52 & 0x7FF);
    if (floored < 1) {
        whole[n++] = '0';
    } else {
        uint64_t mantissa = (bits & 0xFFFFFFFFFFFFF) | 0x10000000000000;
        Large a = exponent >= 1075 ? large_of(mantissa, exponent - 1075) : large_of(mantissa >> (1075 - exponent), 0);
        do {
            whole[n++] = digits[large_over(&a, (uint32_t)base, &more)];
        } while (more);
    }
    while (n > 0)
        *p++ = whole[--n];
    if (fraction > 0) {
        /* fraction = b / 2^s, and half the distance to the next double = (1 or 2) / 2^s. */
        Large b, low, high, one, rest;
        int s, shift;
        memcpy(&bits, &positive, 8);
        exponent = (int)(bits >> 52 & 0x7FF);
        s = (exponent ? 1075 - exponent : 1074) + 1;
        bool power = (bits & 0xFFFFFFFFFFFFF) == 0 && exponent > 1;
        bool even = !(bits & 1);
        low = large_of(1, 0);
        high = large_of(1, 0);
        if (power) {
            s++;
            high = large_of(2, 0);
        }
        memcpy(&bits, &fraction, 8);
        exponent = (int)(bits >> 52 & 0x7FF);
        shift = s - (exponent ? 1075 - exponent : 1074);
        bits = (bits & 0xFFFFFFFFFFFFF) | (exponent ? 0x10000000000000 : 0);
        b = shift < 0 ? large_of(bits >> -shift, 0) : large_of(bits, shift);
        one = large_of(1, s);
        *p++ = '.';
        while (!done && p < text + sizeof(text) - 1) {
            int digit = 0, under, over;
            large_times(&b, (uint32_t)base);
            large_times(&low, (uint32_t)base);
            large_times(&high, (uint32_t)base);
            /* b / 2^s, and what is left of it. */
            digit = (int)(b.words[s / 32] >> (s % 32) | (s % 32 ? b.words[s / 32 + 1] << (32 - s % 32) : 0));
            for (int i = s / 32 + 1; i < LARGE_WORDS; i++)
                b.words[i] = 0;
            b.words[s / 32] &= (1u << (s % 32)) - 1;
            under = large_compare(&b, &low);
            if (large_compare(&high, &one) >= 0) {
                over = 1;
            } else {
                rest = one;
                large_minus(&rest, &high);
                over = large_compare(&b, &rest);
            }
            if (over == 0 && even) {
                digit += under > 0;
                done = true;
            } else if (under < 0 || (under == 0 && even)) {
                if (over > 0) {
                    large_times(&b, 2);
                    digit += large_compare(&b, &one) > 0;
                }
                done = true;
            } else if (over > 0) {
                digit++;
                done = true;
            }
            *p++ = digits[digit];
        }
    }
    return js_new_string8_len(ctx, text, (int)(p - text));
}

#endif
