package aviary

import (
	"fmt"
	"runtime"
	"strings"
	"unsafe"
)

// What the host gives every function. Pointers and lengths are of WebAssembly's 32 bits.

//go:wasmimport aviary emit
func hostEmit(key unsafe.Pointer, keyLen uint32, value unsafe.Pointer, valueLen uint32)

//go:wasmimport aviary emit_total
func hostEmitTotal(key unsafe.Pointer, keyLen uint32, value unsafe.Pointer, valueLen uint32, emits uint32)

//go:wasmimport aviary count
func hostCount(name unsafe.Pointer, nameLen uint32, delta int64)

//go:wasmimport aviary log
func hostLog(level int32, text unsafe.Pointer, textLen uint32)

//go:wasmimport aviary fail
func hostFail(text unsafe.Pointer, textLen uint32)

//go:wasmimport aviary scope
func hostScope(to unsafe.Pointer, room uint32) uint32

// Level says how much a line of the log matters.
type Level int32

// The levels, the most important first.
const (
	LevelError Level = iota
	LevelWarn
	LevelInfo
	LevelDebug
	LevelTrace
)

// Count adds delta to one of the job's own counters.
func Count(name string, delta int64) {
	hostCount(unsafe.Pointer(unsafe.StringData(name)), uint32(len(name)), delta)
}

// Log writes a line to the log of the task, as fmt.Sprintf makes it.
func Log(format string, args ...any) {
	LogAt(LevelInfo, format, args...)
}

// LogAt writes a line of a certain level.
func LogAt(level Level, format string, args ...any) {
	text := format
	if len(args) > 0 {
		text = fmt.Sprintf(format, args...)
	}
	hostLog(int32(level), unsafe.Pointer(unsafe.StringData(text)), uint32(len(text)))
}

// Fail says that the record at hand is bad. It does not return.
func Fail(format string, args ...any) {
	text := format
	if len(args) > 0 {
		text = fmt.Sprintf(format, args...)
	}
	panic(failure(text))
}

// failure is what Fail panics with, so that it can be told from a mistake of the function.
type failure string

var scope Doc

// Scope returns the job's parameters, an empty document if it has none.
func Scope() Doc {
	if scope == nil {
		// Asked with no room, the host says how much it takes.
		room := make([]byte, max(5, hostScope(nil, 0)))
		room[0] = 5
		hostScope(unsafe.Pointer(unsafe.SliceData(room)), uint32(len(room)))
		scope = Doc(room)
	}
	return scope
}

// recovered reports whatever stopped a function, with the lines of the function's own files.
func recovered() {
	cause := recover()
	if cause == nil {
		return
	}
	var text strings.Builder
	switch cause := cause.(type) {
	case failure:
		// The stack tells nothing more: the function has said why.
		text.WriteString(strings.ReplaceAll(string(cause), "\n", " "))
	default:
		text.WriteString(strings.ReplaceAll(fmt.Sprint(cause), "\n", " "))
	}
	var counters [64]uintptr
	frames := runtime.CallersFrames(counters[:runtime.Callers(3, counters[:])])
	for {
		frame, more := frames.Next()
		if name, mine := strings.CutPrefix(frame.Function, "main."); mine && !strings.HasPrefix(name, "aviary") {
			file := frame.File[strings.LastIndexByte(frame.File, '/')+1:]
			fmt.Fprintf(&text, "\n    at %s (%s:%d)", name, file, frame.Line)
		}
		if !more {
			break
		}
	}
	all := text.String()
	hostFail(unsafe.Pointer(unsafe.StringData(all)), uint32(len(all)))
}
