/* The functions of Math as the server's engine computes them, to the last bit.
 *
 * That engine (SpiderMonkey) brings fdlibm with it for exp, log, the hyperbolic functions and hypot. fdlibm's results are
 * within one unit of the last place, and often not the nearest double, so its own steps are taken here. pow of a whole number
 * is repeated multiplication there. sin, cos and tan are the C library's, which rounds correctly but for about one
 * argument in a thousand; here they always are.
 *
 * The methods and constants of fdlibm are
 *   Copyright (C) 1993, 2004 by Sun Microsystems, Inc. All rights reserved.
 *   Permission to use, copy, modify, and distribute this software is freely granted, provided that this notice is
 *   preserved. */
#ifndef AVIARY_ENGINE_MATH_H
#define AVIARY_ENGINE_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static uint64_t double_bits(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, 8);
    return bits;
}

static double double_of_bits(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, 8);
    return x;
}

/* The upper half without the sign: orders the sizes of doubles. */
static int32_t high_size(double x)
{
    return (int32_t)(double_bits(x) >> 32 & 0x7FFFFFFF);
}

#define LN2 6.93147180559945286227e-01
#define LN2_HI 6.93147180369123816490e-01
#define LN2_LO 1.90821492927058770002e-10
#define HUGE_X 7.09782712893383973096e+02
#define TINY_X -7.45133219101941108420e+02

static double engine_exp(double x)
{
    int32_t size = high_size(x), k = 0;
    double hi = x, lo = 0, t, c, y;
    if (isnan(x))
        return x;
    if (x > HUGE_X)
        return INFINITY;
    if (x < TINY_X)
        return 0;
    if (size > 0x3fd62e42) { /* more than half of ln 2 */
        if (x == 1)
            return 2.718281828459045235360;
        if (size < 0x3FF0A2B2)
            k = x < 0 ? -1 : 1;
        else
            k = (int32_t)(1.44269504088896338700e+00 * x + (x < 0 ? -0.5 : 0.5));
        hi = x - k * LN2_HI;
        lo = k * LN2_LO;
        x = hi - lo;
    } else if (size < 0x3e300000) {
        return 1 + x;
    }
    t = x * x;
    c = x - t * (1.66666666666666019037e-01 +
                 t * (-2.77777777770155933842e-03 +
                      t * (6.61375632143793436117e-05 +
                           t * (-1.65339022054652515390e-06 + t * 4.13813679705723846039e-08))));
    if (k == 0)
        return 1 - ((x * c) / (c - 2) - x);
    y = 1 - ((lo - (x * c) / (2 - c)) - hi);
    if (k >= -1021)
        return k == 1024 ? y * 2 * 0x1p1023 : y * double_of_bits((uint64_t)(1023 + k) << 52);
    return y * double_of_bits((uint64_t)(1023 + k + 1000) << 52) * 0x1p-1000;
}

static double engine_log(double x)
{
    int32_t hx = (int32_t)(double_bits(x) >> 32), k = 0, i, j;
    double f, s, z, w, t1, t2, r, half, dk;
    if (x == 0)
        return -INFINITY;
    if (x < 0)
        return NAN;
    if (hx < 0x00100000) {
        k = -54;
        x *= 0x1p54;
        hx = (int32_t)(double_bits(x) >> 32);
    }
    if (hx >= 0x7ff00000)
        return x + x;
    k += (hx >> 20) - 1023;
    hx &= 0x000fffff;
    i = (hx + 0x95f64) & 0x100000;
    x = double_of_bits((double_bits(x) & 0xFFFFFFFF) | (uint64_t)(uint32_t)(hx | (i ^ 0x3ff00000)) << 32);
    k += i >> 20;
    f = x - 1;
    dk = k;
    if ((0x000fffff & (2 + hx)) < 3) {
        if (f == 0)
            return k == 0 ? 0 : dk * LN2_HI + dk * LN2_LO;
        r = f * f * (0.5 - 0.33333333333333333 * f);
        return k == 0 ? f - r : dk * LN2_HI - ((r - dk * LN2_LO) - f);
    }
    s = f / (2 + f);
    z = s * s;
    w = z * z;
    i = hx - 0x6147a;
    j = 0x6b851 - hx;
    t1 = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01));
    t2 = z * (6.666666666666735130e-01 +
              w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
    r = t2 + t1;
    if ((i | j) > 0) {
        half = 0.5 * f * f;
        return k == 0 ? f - (half - s * (half + r))
                      : dk * LN2_HI - ((half - (s * (half + r) + dk * LN2_LO)) - f);
    }
    return k == 0 ? f - s * (f - r) : dk * LN2_HI - ((s * (f - r) - dk * LN2_LO) - f);
}

static double engine_cosh(double x)
{
    int32_t size = high_size(x);
    double t, w;
    if (size >= 0x7ff00000)
        return x * x;
    if (size < 0x3fd62e43) {
        t = expm1(fabs(x));
        w = 1 + t;
        return size < 0x3c800000 ? w : 1 + (t * t) / (w + w);
    }
    if (size < 0x40360000) {
        t = engine_exp(fabs(x));
        return 0.5 * t + 0.5 / t;
    }
    if (size < 0x40862E42)
        return 0.5 * engine_exp(fabs(x));
    w = engine_exp(0.5 * fabs(x));
    return 0.5 * w * w;
}

static double engine_sinh(double x)
{
    int32_t size = high_size(x);
    double h = x < 0 ? -0.5 : 0.5, t;
    if (size >= 0x7ff00000)
        return x + x;
    if (size < 0x40360000) {
        if (size < 0x3e300000)
            return x;
        t = expm1(fabs(x));
        return size < 0x3ff00000 ? h * (2 * t - t * t / (t + 1)) : h * (t + t / (t + 1));
    }
    if (size < 0x40862E42)
        return h * engine_exp(fabs(x));
    t = engine_exp(0.5 * fabs(x));
    return h * t * t;
}

static double engine_tanh(double x)
{
    int32_t size = high_size(x);
    double t, z;
    if (isnan(x))
        return x;
    if (size >= 0x40360000) {
        z = 1;
    } else if (size < 0x3e300000) {
        return x;
    } else if (size >= 0x3ff00000) {
        t = expm1(2 * fabs(x));
        z = 1 - 2 / (t + 2);
    } else {
        t = expm1(-2 * fabs(x));
        z = -t / (t + 2);
    }
    return x < 0 ? -z : z;
}

static double engine_asinh(double x)
{
    int32_t size = high_size(x);
    double t, w;
    if (size >= 0x7ff00000)
        return x + x;
    if (size < 0x3e300000)
        return x;
    if (size > 0x41b00000) {
        w = engine_log(fabs(x)) + LN2;
    } else if (size > 0x40000000) {
        t = fabs(x);
        w = engine_log(2 * t + 1 / (sqrt(x * x + 1) + t));
    } else {
        t = x * x;
        w = log1p(fabs(x) + t / (1 + sqrt(1 + t)));
    }
    return x > 0 ? w : -w;
}

static double engine_acosh(double x)
{
    double t;
    if (!(x >= 1))
        return NAN;
    if (high_size(x) >= 0x41b00000)
        return isinf(x) ? x : engine_log(x) + LN2;
    if (x == 1)
        return 0;
    if (high_size(x) > 0x40000000) {
        t = x * x;
        return engine_log(2 * x - 1 / (x + sqrt(t - 1)));
    }
    t = x - 1;
    return log1p(t + sqrt(2 * t + t * t));
}

static double with_high(int32_t high)
{
    return double_of_bits((uint64_t)(uint32_t)high << 32);
}

static double moved_by_600(double x, int32_t sign)
{
    return double_of_bits(double_bits(x) + ((uint64_t)(uint32_t)(sign * 0x25800000) << 32));
}

static double engine_hypot(double x, double y)
{
    double a = fabs(x), b = fabs(y), t1, t2, y1, y2, w;
    int32_t ha, hb, k = 0;
    if (isinf(x) || isinf(y))
        return INFINITY;
    if (isnan(x) || isnan(y))
        return NAN;
    if (high_size(b) > high_size(a)) {
        w = a;
        a = b;
        b = w;
    }
    ha = high_size(a);
    hb = high_size(b);
    if (ha - hb > 0x3c00000)
        return a + b;
    if (ha > 0x5f300000) {
        a = moved_by_600(a, -1);
        b = moved_by_600(b, -1);
        k += 600;
    }
    if (hb - (k ? 0x25800000 : 0) < 0x20b00000) {
        if (hb - (k ? 0x25800000 : 0) <= 0x000fffff) {
            if (b == 0)
                return a;
            b *= 0x1p1022;
            a *= 0x1p1022;
            k -= 1022;
        } else {
            a = moved_by_600(a, 1);
            b = moved_by_600(b, 1);
            k -= 600;
        }
    }
    ha = high_size(a);
    hb = high_size(b);
    w = a - b;
    if (w > b) {
        t1 = with_high(ha);
        t2 = a - t1;
        w = sqrt(t1 * t1 - (b * (-b) - t2 * (a + t1)));
    } else {
        a += a;
        y1 = with_high(hb);
        y2 = b - y1;
        t1 = with_high(ha + 0x00100000);
        t2 = a - t1;
        w = sqrt(t1 * y1 - (w * (-w) - (t1 * y2 + t2 * b)));
    }
    return k == 0 ? w : w * double_of_bits((uint64_t)(1023 + k) << 52);
}

/* A step of the sum of squares of three or more. */
static void engine_hypot_step(double *scale, double *sum, double x)
{
    double size = fabs(x);
    if (*scale < size) {
        *sum = 1 + *sum * (*scale / size) * (*scale / size);
        *scale = size;
    } else if (*scale != 0) {
        *sum += (size / *scale) * (size / *scale);
    }
}

static double engine_pow(double x, double y)
{
    if (y >= INT32_MIN && y <= INT32_MAX && y == (int32_t)y) {
        uint32_t n = y < 0 ? 0u - (uint32_t)(int32_t)y : (uint32_t)y;
        double m = x, p = 1, result;
        for (;;) {
            if (n & 1)
                p *= m;
            n >>= 1;
            if (n == 0)
                break;
            m *= m;
        }
        if (y >= 0)
            return p;
        result = 1 / p;
        return result == 0 && isinf(p) ? pow(x, y) : result;
    }
    if (isfinite(x) && x != 0) {
        if (y == 0.5)
            return sqrt(x);
        if (y == -0.5)
            return 1 / sqrt(x);
    }
    return pow(x, y);
}

/* --- sin, cos and tan, in pairs of doubles that add up to one of twice the precision ------------------------------ */

typedef struct Pair {
    double hi;
    double lo;
} Pair;

static Pair pair_sum(double a, double b)
{
    double s = a + b, v = s - a;
    return (Pair){ s, (a - (s - v)) + (b - v) };
}

static Pair pair_quick(double a, double b)
{
    double s = a + b;
    return (Pair){ s, b - (s - a) };
}

static Pair pair_product(double a, double b)
{
    double ta = a * 134217729.0, tb = b * 134217729.0;
    double ah = ta - (ta - a), al = a - ah, bh = tb - (tb - b), bl = b - bh, p = a * b;
    return (Pair){ p, ((ah * bh - p) + ah * bl + al * bh) + al * bl };
}

static Pair pair_add(Pair a, Pair b)
{
    Pair s = pair_sum(a.hi, b.hi), t = pair_sum(a.lo, b.lo);
    s = pair_quick(s.hi, s.lo + t.hi);
    return pair_quick(s.hi, s.lo + t.lo);
}

static Pair pair_mul(Pair a, Pair b)
{
    Pair p = pair_product(a.hi, b.hi);
    return pair_quick(p.hi, p.lo + (a.hi * b.lo + a.lo * b.hi));
}

static Pair pair_div(Pair a, Pair b)
{
    double q = a.hi / b.hi, q2;
    Pair p = pair_mul((Pair){ q, 0 }, b), r = pair_add(a, (Pair){ -p.hi, -p.lo });
    q2 = r.hi / b.hi;
    return pair_quick(q, q2);
}

/* 1/n! as pairs, of n from 0 to 27. */
static Pair inverse_factorials[28];

static void inverse_factorials_make(void)
{
    if (inverse_factorials[0].hi != 0)
        return;
    inverse_factorials[0] = (Pair){ 1, 0 };
    for (int n = 1; n < 28; n++)
        inverse_factorials[n] = pair_div(inverse_factorials[n - 1], (Pair){ n, 0 });
}

/* The Taylor series of sin (from 1) or cos (from 0) at x, within a quarter of pi. */
static Pair series(Pair x, int from)
{
    Pair square = pair_mul(x, x), sum = { 0, 0 };
    double tail = 0;
    inverse_factorials_make();
    for (int n = from + 24; n > from + 14; n -= 2)
        tail = tail * -square.hi + inverse_factorials[n].hi;
    sum.hi = tail;
    for (int n = from + 14; n >= from; n -= 2) {
        Pair p = pair_mul(sum, square);
        sum = pair_add(inverse_factorials[n], (Pair){ -p.hi, -p.lo });
    }
    return from ? pair_mul(sum, x) : sum;
}

/* 2/pi, in digits of 24 bits, so many that every double can be reduced. */
static const int32_t two_over_pi[] = {
    0xA2F983, 0x6E4E44, 0x1529FC, 0x2757D1, 0xF534DD, 0xC0DB62, 0x95993C, 0x439041, 0xFE5163, 0xABDEBB, 0xC561B7,
    0x246E3A, 0x424DD2, 0xE00649, 0x2EEA09, 0xD1921C, 0xFE1DEB, 0x1CB129, 0xA73EE8, 0x8235F5, 0x2EBB44, 0x84E99C,
    0x7026B4, 0x5F7E41, 0x3991D6, 0x398353, 0x39F49C, 0x845F8B, 0xBDF928, 0x3B1FF8, 0x97FFDE, 0x05980F, 0xEF2F11,
    0x8B5A0A, 0x6D1F6D, 0x367ECF, 0x27CB09, 0xB74F46, 0x3F669E, 0x5FEA2D, 0x7527BA, 0xC7EBE5, 0xF17B3D, 0x0739F7,
    0x8A5292, 0xEA6BFB, 0x5FB11F, 0x8D5D08, 0x560330, 0x46FC7B, 0x6BABF0, 0xCFBC20, 0x9AF436, 0x1DA9E3, 0x91615E,
    0xE61B08,
};

/* How many quarters of a turn are in x, modulo 4, and what is left: x * 2/pi is multiplied out in whole numbers, in the
 * digits around the binary point. */
static int reduce_angle(double x, Pair *rest)
{
    enum { DIGITS = 10 };
    uint64_t bits = double_bits(x), mantissa;
    int exponent = (int)(bits >> 52 & 0x7FF) - 1075, first, shift, quarter;
    bool negative = bits >> 63, over;
    Pair fraction = { 0, 0 };
    static const Pair half_pi = { 1.5707963267948966, 6.123233995736766e-17 };
    if (high_size(x) < 0x3fe921fb) { /* less than a quarter of pi */
        *rest = (Pair){ x, 0 };
        return 0;
    }
    if (fabs(x) < 1e6) {
        /* Pi/2 in pieces of 33 bits, so that their products with the number of quarters are exact. */
        double n = floor(x * 6.36619772367581382433e-01 + 0.5);
        Pair left = pair_sum(x, -n * 1.57079632673412561417e+00);
        left = pair_add(left, (Pair){ -n * 6.07710050630396597660e-11, 0 });
        left = pair_add(left, (Pair){ -n * 2.02226624871116645580e-21, 0 });
        *rest = pair_add(left, (Pair){ -n * 8.47842766036889956997e-32, 0 });
        return (int)((int64_t)n & 3);
    }
    mantissa = (bits & 0xFFFFFFFFFFFFF) | 0x10000000000000;
    /* Digits of 2/pi whose product with the mantissa is a multiple of 4 are left out. */
    first = exponent < 24 * 3 ? 0 : (exponent - 24 * 2) / 24;
    shift = exponent - 24 * first;
    uint64_t low = mantissa & 0x7FFFFFF, high = mantissa >> 27;
    /* The product, as a number of 24-bit digits: acc[0] is the least of DIGITS + 4. */
    uint64_t acc[DIGITS + 4] = { 0 };
    for (int i = 0; i < DIGITS; i++) {
        uint64_t digit = first + i < (int)(sizeof(two_over_pi) / sizeof(two_over_pi[0])) ? (uint64_t)two_over_pi[first + i] : 0;
        int at = DIGITS - 1 - i;
        uint64_t part = digit * low, carry_high = digit * high; /* 51 and 50 bits */
        acc[at] += part & 0xFFFFFF;
        acc[at + 1] += part >> 24;
        acc[at + 1] += (carry_high << 3) & 0xFFFFFF;
        acc[at + 2] += carry_high >> 21;
    }
    for (int i = 0; i + 1 < DIGITS + 4; i++) {
        acc[i + 1] += acc[i] >> 24;
        acc[i] &= 0xFFFFFF;
    }
    /* The value is acc * 2^(shift - 24 * DIGITS): its binary point is at bit 24 * DIGITS - shift. */
    int point = 24 * DIGITS - shift;
#define BIT_AT(n) ((n) >= 0 && (n) < 24 * (DIGITS + 4) ? (int)(acc[(n) / 24] >> ((n) % 24) & 1) : 0)
    quarter = BIT_AT(point) | BIT_AT(point + 1) << 1;
    over = BIT_AT(point - 1);
    /* The fraction, to the nearest quarter turn: 53 bits after the first that counts, and as many after these. */
    if (over)
        quarter++;
    int n = point - 1;
    while (n > 0 && BIT_AT(n) == (over ? 1 : 0))
        n--;
    for (int part = 0; part < 4; part++) {
        double value = 0;
        for (int i = 0; i < 26 && n >= 0; i++, n--)
            if (BIT_AT(n) != (over ? 1 : 0))
                value += ldexp(1, n - point);
        fraction = pair_add(fraction, (Pair){ value, 0 });
    }
#undef BIT_AT
    if (over)
        fraction = (Pair){ -fraction.hi, -fraction.lo };
    *rest = pair_mul(fraction, half_pi);
    if (negative) {
        *rest = (Pair){ -rest->hi, -rest->lo };
        quarter = -quarter;
    }
    return quarter & 3;
}

static Pair sine_of(int quarter, Pair rest)
{
    Pair result = series(rest, quarter & 1 ? 0 : 1);
    return quarter & 2 ? (Pair){ -result.hi, -result.lo } : result;
}

static double engine_sin(double x)
{
    Pair rest;
    if (!isfinite(x))
        return NAN;
    if (high_size(x) < 0x3e400000)
        return x;
    int quarter = reduce_angle(x, &rest);
    return sine_of(quarter, rest).hi;
}

static double engine_cos(double x)
{
    Pair rest;
    if (!isfinite(x))
        return NAN;
    int quarter = reduce_angle(x, &rest);
    return sine_of((quarter + 1) & 3, rest).hi;
}

static double engine_tan(double x)
{
    Pair rest;
    if (!isfinite(x))
        return NAN;
    if (high_size(x) < 0x3e400000)
        return x;
    int quarter = reduce_angle(x, &rest);
    return pair_div(sine_of(quarter, rest), sine_of((quarter + 1) & 3, rest)).hi;
}

#define exp(x) engine_exp(x)
#define log(x) engine_log(x)
#define cosh(x) engine_cosh(x)
#define sinh(x) engine_sinh(x)
#define tanh(x) engine_tanh(x)
#define asinh(x) engine_asinh(x)
#define acosh(x) engine_acosh(x)
#define hypot(x, y) engine_hypot(x, y)
#define pow(x, y) engine_pow(x, y)
#define sin(x) engine_sin(x)
#define cos(x) engine_cos(x)
#define tan(x) engine_tan(x)

#endif
