package aviary

import (
	"encoding/binary"
	"unsafe"
)

// What the generated exports call. Functions do not need any of this.

// input is what the host writes to next. A new one is made for every call, so that a function may keep
// strings and values that point into an old one.
var input []byte

// Alloc makes room for the host's next input.
func Alloc(size uint32) unsafe.Pointer {
	input = make([]byte, max(size, 1))
	return unsafe.Pointer(unsafe.SliceData(input))
}

// given hands on the documents that the host has written, one after the other.
func given(size uint32, each func(Doc)) {
	defer recovered()
	rest := input[:size]
	for len(rest) > 0 {
		doc := cut(rest)
		rest = rest[len(doc):]
		each(doc)
	}
}

func cut(bytes []byte) Doc {
	if len(bytes) >= 5 {
		size := binary.LittleEndian.Uint32(bytes)
		if size >= 5 && uint64(size) <= uint64(len(bytes)) {
			return Doc(bytes[:size:size])
		}
	}
	malformed()
	return nil
}

// RunMap hands each document to a map.
func RunMap(size uint32, function func(Doc, Emit)) {
	summed(func() { given(size, func(doc Doc) { function(doc, send) }) })
}

// values is used again for each key.
var values []Value

// RunReduce hands each key and its values to a reduce or a combine.
func RunReduce(size uint32, function func(Value, []Value) any) {
	given(size, func(doc Doc) {
		key := doc.Get("k")
		values = values[:0]
		for value := range doc.Get("v").Items() {
			values = append(values, value)
		}
		send(key, function(key, values))
	})
}

// RunFinalize hands each key and its value to a finalize.
func RunFinalize(size uint32, function func(Value, Value) any) {
	given(size, func(doc Doc) {
		key := doc.Get("k")
		send(key, function(key, doc.Get("v")))
	})
}

// streamed is the key whose values come now.
var streamed Value

// RunReduceBegin tells a streaming reduce the key.
func RunReduceBegin(size uint32, function func(Value)) {
	given(size, func(doc Doc) {
		streamed = doc.Get("k")
		function(streamed)
	})
}

// RunReduceNext hands the next values to a streaming reduce.
func RunReduceNext(size uint32, function func(Value)) {
	given(size, func(doc Doc) {
		for value := range doc.Get("v").Items() {
			function(value)
		}
	})
}

// RunReduceEnd asks a streaming reduce for its result.
func RunReduceEnd(function func() any) {
	defer recovered()
	send(streamed, function())
}

// scratch holds the key and the value of one emit.
var scratch = make([]byte, 0, 4096)

func send(key, value any) {
	scratch = appendTagged(scratch[:0], key, "a key")
	size := len(scratch)
	scratch = appendTagged(scratch, value, "a value")
	if sums != nil && sums.open && sums.take(scratch[:size], scratch[size:]) {
		return
	}
	start := unsafe.Pointer(unsafe.SliceData(scratch))
	hostEmit(start, uint32(size), unsafe.Add(start, size), uint32(len(scratch)-size))
}
