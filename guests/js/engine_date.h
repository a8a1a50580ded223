/* Dates of text, as the server's engine reads them: the format of ISO 8601, somewhat relaxed, and the older format of words
 * and numbers in many orders. Impossible days, unknown words and incomplete dates are no dates. The time zone is UTC. */
#ifndef AVIARY_ENGINE_DATE_H
#define AVIARY_ENGINE_DATE_H

typedef struct DateText {
    const uint8_t *p;
    int len;
    int at;
} DateText;

static bool date_is_digit(const DateText *text, int at)
{
    return at < text->len && text->p[at] >= '0' && text->p[at] <= '9';
}

static bool date_take(DateText *text, int c)
{
    if (text->at >= text->len || text->p[text->at] != c)
        return false;
    text->at++;
    return true;
}

/* Reads from `least` to `most` digits. */
static bool date_number(DateText *text, int least, int most, int *n)
{
    int start = text->at;
    *n = 0;
    while (date_is_digit(text, text->at) && text->at - start < most)
        *n = *n * 10 + (text->p[text->at++] - '0');
    return text->at - start >= least;
}

static int days_in_month(int year, int month)
{
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return month == 2 && leap ? 29 : days[month - 1];
}

/* [+-YYY]YYYY[-MM[-DD]][T| HH:MM[:SS[.sss]][Z|+-HH[:]MM]]. Months and days may have one digit if no T follows, and what
 * follows a space too. */
static bool date_iso(DateText text, double *ms)
{
    int year, month = 1, day = 1, hour = 0, minute = 0, second = 0, zone_hour = 0, zone_minute = 0, sign = 1, least = 2;
    int zone_sign = 0;
    double fraction = 0, scale = 100;
    bool strict = true;
    if (text.len > 0 && (text.p[0] == '+' || text.p[0] == '-')) {
        sign = text.p[0] == '-' ? -1 : 1;
        text.at++;
        if (!date_number(&text, 6, 6, &year))
            return false;
    } else if (!date_number(&text, 4, 4, &year)) {
        return false;
    }
    year *= sign;
    if (date_take(&text, '-')) {
        int start = text.at;
        if (!date_number(&text, 1, 2, &month))
            return false;
        strict = text.at - start == 2;
        if (date_take(&text, '-')) {
            start = text.at;
            if (!date_number(&text, 1, 2, &day))
                return false;
            strict = strict && text.at - start == 2;
        }
    }
    if (text.at < text.len) {
        if (!(date_take(&text, 'T') && strict)) {
            if (!date_take(&text, ' '))
                return false;
            least = 1;
        }
        if (!date_number(&text, least, 2, &hour) || !date_take(&text, ':') || !date_number(&text, least, 2, &minute))
            return false;
        if (date_take(&text, ':')) {
            if (!date_number(&text, least, 2, &second))
                return false;
            if (date_take(&text, '.')) {
                if (!date_is_digit(&text, text.at))
                    return false;
                for (; date_is_digit(&text, text.at); text.at++, scale /= 10)
                    fraction += (text.p[text.at] - '0') * scale;
            }
        }
        if (date_take(&text, '+'))
            zone_sign = 1;
        else if (date_take(&text, '-'))
            zone_sign = -1;
        else
            date_take(&text, 'Z');
        if (zone_sign) {
            if (!date_number(&text, 2, 2, &zone_hour))
                return false;
            date_take(&text, ':');
            if (!date_number(&text, 2, 2, &zone_minute))
                return false;
        }
    }
    if (text.at != text.len || month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) || hour > 24 ||
        (hour == 24 && (minute || second || fraction > 0)) || minute > 59 || second > 59 || zone_hour > 23 || zone_minute > 59)
        return false;
    double fields[] = { year, month - 1, day, hour, minute, second, trunc(fraction + 1e-9) };
    *ms = set_date_fields(fields, 0) - zone_sign * (zone_hour * 60 + zone_minute) * 60000.0;
    return true;
}

/* Words that a date may have, any two letters of which are enough. The last one counts. */
static const struct {
    const char *word;
    int month; /* from 1; 0 for none */
    int zone;  /* minutes west of Greenwich */
    char kind; /* d: a day, m: a month, z: a zone, a and p: halves of a day */
} date_words[] = {
    { "am", 0, 0, 'a' },       { "pm", 0, 0, 'p' },       { "monday", 0, 0, 'd' },   { "tuesday", 0, 0, 'd' },
    { "wednesday", 0, 0, 'd' }, { "thursday", 0, 0, 'd' }, { "friday", 0, 0, 'd' },   { "saturday", 0, 0, 'd' },
    { "sunday", 0, 0, 'd' },   { "january", 1, 0, 'm' },  { "february", 2, 0, 'm' }, { "march", 3, 0, 'm' },
    { "april", 4, 0, 'm' },    { "may", 5, 0, 'm' },      { "june", 6, 0, 'm' },     { "july", 7, 0, 'm' },
    { "august", 8, 0, 'm' },   { "september", 9, 0, 'm' }, { "october", 10, 0, 'm' }, { "november", 11, 0, 'm' },
    { "december", 12, 0, 'm' }, { "gmt", 0, 0, 'z' },      { "ut", 0, 0, 'z' },       { "utc", 0, 0, 'z' },
    { "est", 0, 300, 'z' },    { "edt", 0, 240, 'z' },    { "cst", 0, 360, 'z' },    { "cdt", 0, 300, 'z' },
    { "mst", 0, 420, 'z' },    { "mdt", 0, 360, 'z' },    { "pst", 0, 480, 'z' },    { "pdt", 0, 420, 'z' },
};

static int date_word(const uint8_t *p, int len)
{
    for (int k = (int)countof(date_words) - 1; k >= 0 && len >= 2; k--) {
        int i = 0;
        while (i < len && date_words[k].word[i] && (p[i] | 0x20) == date_words[k].word[i])
            i++;
        if (i == len)
            return k;
    }
    return -1;
}

typedef struct OldDate {
    int year, month, day, hour, minute, second; /* -1 until known */
    int zone;
    bool has_zone, signed_zone, named_month;
} OldDate;

/* Puts a number where it belongs: `before` is the sign that came before it, `after` what comes next. */
static bool date_place(OldDate *d, int n, int before, int after)
{
    bool ends = after == 0 || after <= ' ' || after == ',';
    if (before == '-' && d->month >= 0 && d->day >= 0 && d->year < 0) {
        d->year = n;
    } else if (before == '+' || before == '-') {
        if (d->has_zone && d->zone != 0)
            return false;
        d->signed_zone = d->has_zone = true;
        d->zone = n < 24 ? n * 60 : n % 100 + n / 100 * 60;
        if (before == '+')
            d->zone = -d->zone;
    } else if (before == '/' && d->month >= 0 && d->day >= 0 && d->year < 0) {
        d->year = n;
        return ends;
    } else if (after == ':') {
        if (d->hour < 0)
            d->hour = n;
        else if (d->minute < 0)
            d->minute = n;
        else
            return false;
    } else if (after == '/') {
        if (d->month < 0)
            d->month = n;
        else if (d->day < 0)
            d->day = n;
        else
            return false;
    } else if (!ends && after != '-' && after != '(') {
        return false;
    } else if (d->signed_zone && n < 60) {
        d->zone += d->zone < 0 ? -n : n;
    } else if (d->hour >= 0 && d->minute < 0) {
        d->minute = n;
    } else if (before == ':' && d->minute >= 0 && d->second < 0) {
        d->second = n;
    } else if (d->month < 0) {
        d->month = n;
    } else if (d->day < 0) {
        d->day = n;
    } else if (d->year < 0) {
        d->year = n;
    } else {
        return false;
    }
    return true;
}

static bool date_say(OldDate *d, int word)
{
    switch (date_words[word].kind) {
    case 'a':
    case 'p':
        if (d->hour > 12 || d->hour < 0)
            return false;
        d->hour = d->hour % 12 + (date_words[word].kind == 'p' ? 12 : 0);
        return true;
    case 'm':
        if (d->named_month)
            return false;
        d->named_month = true;
        if (d->month < 0)
            ;
        else if (d->day < 0)
            d->day = d->month;
        else if (d->year < 0)
            d->year = d->month;
        else
            return false;
        d->month = date_words[word].month;
        return true;
    case 'z':
        d->has_zone = true;
        d->zone = date_words[word].zone;
        return true;
    default:
        return true;
    }
}

static bool date_old(DateText text, double *ms)
{
    OldDate d = { -1, -1, -1, -1, -1, -1 };
    int before = 0, depth, swapped;
    while (text.at < text.len) {
        int c = text.p[text.at], n, start = text.at;
        if (date_is_digit(&text, text.at)) {
            if (!date_number(&text, 1, 9, &n) || date_is_digit(&text, text.at) ||
                !date_place(&d, n, before, text.at < text.len ? text.p[text.at] : 0))
                return false;
            before = 0;
        } else if (c <= ' ' || c == ',' || c == '-') {
            text.at++;
            if (c == '-' && date_is_digit(&text, text.at))
                before = c;
        } else if (c == '(') {
            for (depth = 0; text.at < text.len; ) {
                c = text.p[text.at++];
                depth += c == '(' ? 1 : c == ')' ? -1 : 0;
                if (depth == 0)
                    break;
            }
        } else if (c == '/' || c == ':' || c == '+') {
            text.at++;
            before = c;
        } else {
            while (text.at < text.len && (text.p[text.at] | 0x20) >= 'a' && (text.p[text.at] | 0x20) <= 'z')
                text.at++;
            n = date_word(text.p + start, text.at - start);
            if (n < 0 || !date_say(&d, n))
                return false;
            before = 0;
        }
    }
    if (d.year < 0 || d.month < 0 || d.day < 0)
        return false;
    if (d.named_month) {
        if (d.day == 0 || (d.day > d.year && d.year > 0)) {
            swapped = d.year;
            d.year = d.day;
            d.day = swapped;
        }
        if (d.day < 1 || d.day > 31)
            return false;
    } else if (!(d.month >= 1 && d.month <= 12 && d.day >= 1 && d.day <= 31)) {
        if (!(d.month > 31 && d.day <= 12 && d.day >= 1 && d.year <= 31 && d.year >= 1))
            return false;
        swapped = d.year;
        d.year = d.month;
        d.month = d.day;
        d.day = swapped;
    }
    if (d.year < 100)
        d.year += d.year < 50 ? 2000 : 1900;
    double fields[] = { d.year, d.month - 1, d.day, max_int(d.hour, 0), max_int(d.minute, 0), max_int(d.second, 0), 0 };
    *ms = set_date_fields(fields, 0) + d.zone * 60000.0;
    return true;
}

static double engine_date_parse(const uint8_t *p, int len)
{
    DateText text = { p, len, 0 };
    double ms;
    return date_iso(text, &ms) || date_old(text, &ms) ? time_clip(ms) : NAN;
}

#endif
