/* Does all that a map may do besides emitting: parameters, counters, lines, a record that fails. */
#include "aviary.h"
#include <stdio.h>

AVIARY_MAP(doc)
{
    Document job = scope();
    uint32_t len;
    const char *label = text_of(need(job, "label", 0), &len);
    int64_t id = integer(need(doc, "_id", 0)), worth = id * integer(need(job, "factor", 0));
    char line[64];
    snprintf(line, sizeof(line), "%s %d", label, (int)id);
    if (id == integer(need(job, "bad", 0)))
        fail_with(line, " is bad", NULL, NULL);
    count(label, worth);
    log_text(LOG_INFO, line);
    log_text(LOG_WARN, "100%");
    emit_int64(need(doc, "_id", 0), worth);
}
