/* The guest ABI, version 1: what the worker provides, and how this module reports that a record is bad. */
#ifndef AVIARY_ABI_H
#define AVIARY_ABI_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define IMPORT(name) __attribute__((import_module("aviary"), import_name(name)))
#define EXPORT(name) __attribute__((export_name(name), used))

IMPORT("emit") void abi_emit(const uint8_t *key, uint32_t key_len, const uint8_t *value, uint32_t value_len);
IMPORT("emit_sum") void abi_emit_sum(const uint8_t *key, uint32_t key_len, double sum, uint32_t emits);
IMPORT("count") void abi_count(const char *name, uint32_t name_len, int64_t delta);
IMPORT("log") void abi_log(int32_t level, const char *text, uint32_t len);
IMPORT("fail") __attribute__((noreturn)) void abi_fail(const char *text, uint32_t len);
IMPORT("scope") uint32_t abi_scope(uint8_t *buffer, uint32_t capacity);

enum { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

static __attribute__((noreturn, cold, noinline)) void fail_text(const char *text)
{
    abi_fail(text, (uint32_t)strlen(text));
    __builtin_trap();
}

#define OUT_OF_MEMORY "out of memory: the function needs more than the memory limit of its task"

#endif
