package aviary

import (
	"math"
	"unsafe"
)

// Sums of what a map emits, made before the host gets them.
//
// A job whose values are only summed or counted does not care in how many emits its sums come. So while a map runs, an
// emit of a short text, or of an ObjectId, with a number is an addition in a table of the keys that came lately, and
// the host is given each key once: when the call ends, when a key makes room for another, and before more than
// sumsBytesMax are waiting, so that the limit on what a record may emit is kept.
//
// Only sums that are exact are made: of integers within their type, and of doubles that are multiples of 1/256 as long
// as the sum is below 2^44. Any other value goes to the host as it is. Where keys rarely repeat, the table costs more
// than it saves; it then rests for a while.

// Sums says whether a map's emits of one key are added up before the host gets them, where the job reduces by _sum or
// _count. It changes neither results nor counters. To do without, set it to false in a function init.
var Sums = true

const (
	// A text of up to 28 bytes, with its type, its length and its NUL.
	sumKeyBytesMax = 34
	sumSetsBits    = 13
	sumWays        = 2
	sumEntries     = sumWays << sumSetsBits
	sumScale       = 256
	sumMax         = 1 << 44
	sumsBytesMax   = 1 << 20
	// Of so many emits, at most half may have had keys that were not in the table, or it rests for so many more.
	sumsJudged = 8192
	sumsRest   = 1 << 17
)

type sumEntry struct {
	// An integer, or the bits of a double.
	sum int64
	// 0: free.
	emits  uint32
	kind   Type
	keyLen uint8
	key    [sumKeyBytesMax]byte
}

type sumTable struct {
	entries [sumEntries]sumEntry
	// The entries that are not free, or were not.
	used    [sumEntries]uint16
	usedLen uint32
	// Bytes that the emits waiting here would have had.
	bytes uint32
	// Emits taken since the last judgement, and those among them whose key was not in the table.
	taken, missed, rest uint32
	open                bool
}

// sums is nil unless they are wanted.
var sums *sumTable

// WantSums is what the host calls to say whether sums are all that is wanted.
func WantSums(wanted int32) {
	sums = nil
	if wanted == 1 && Sums {
		sums = new(sumTable)
	}
}

// summed runs a map's call, and gives the host what is waiting when it ends.
func summed(call func()) {
	if sums == nil {
		call()
		return
	}
	sums.open = true
	call()
	sums.open = false
	sums.flush()
}

// take says whether the pair, each with its type, was taken. Otherwise it goes to the host.
func (t *sumTable) take(key, value []byte) bool {
	kind := Type(key[0])
	// Of equal keys, the first one stays: a symbol is equal to a text.
	if kind == SymbolType {
		t.flush()
	}
	if len(key) > sumKeyBytesMax || kind != String && kind != ObjectIDType {
		return false
	}
	number := Type(value[0])
	if number != Double && number != Int32 && number != Int64 {
		return false
	}
	if t.rest > 0 {
		t.rest--
		return false
	}
	var bits int64
	if number == Int32 {
		bits = int64(*(*int32)(unsafe.Pointer(&value[1])))
	} else {
		bits = *(*int64)(unsafe.Pointer(&value[1]))
	}
	if number == Double && !isExact(bits) {
		return false
	}
	entry := t.entry(key)
	if entry.emits > 0 && !entry.add(number, bits) {
		t.give(entry)
	}
	if entry.emits == 0 {
		entry.sum, entry.kind = bits, number
	}
	entry.emits++
	t.bytes += uint32(len(key) + len(value))
	if t.bytes > sumsBytesMax {
		t.flush()
	}
	t.taken++
	if t.taken == sumsJudged {
		if t.missed > sumsJudged/2 {
			t.rest = sumsRest
		}
		t.taken, t.missed = 0, 0
	}
	return true
}

// isExact says whether a double can be a part of an exact sum: a multiple of 1/256 that is not too large, and no
// negative zero.
func isExact(bits int64) bool {
	real := math.Float64frombits(uint64(bits))
	scaled := real * sumScale
	return real < sumMax && real > -sumMax && math.Trunc(scaled) == scaled && bits != math.MinInt64
}

// add adds a number to the sum, if that is of its type and stays exact.
func (e *sumEntry) add(kind Type, bits int64) bool {
	if e.kind != kind {
		return false
	}
	if kind == Double {
		real := math.Float64frombits(uint64(e.sum)) + math.Float64frombits(uint64(bits))
		if !(real < sumMax && real > -sumMax) {
			return false
		}
		e.sum = int64(math.Float64bits(real))
		return true
	}
	sum := e.sum + bits
	// An overflow: both of one sign, and the sum of the other.
	if (e.sum^sum)&(bits^sum) < 0 || kind == Int32 && sum != int64(int32(sum)) {
		return false
	}
	e.sum = sum
	return true
}

// word is the word of eight bytes that begins there.
func word(at unsafe.Pointer, offset uintptr) uint64 {
	return *(*uint64)(unsafe.Add(at, offset))
}

// entry finds the entry of a key, or one that is free for it. It is one function, and reads by pointers: in WebAssembly
// a call costs Go more than all that is done here.
func (t *sumTable) entry(key []byte) *sumEntry {
	const factor = 0x9E3779B97F4A7C15
	// The last word ends where the key ends, so it may share bytes with the one before.
	start, end := unsafe.Pointer(unsafe.SliceData(key)), uintptr(len(key))-8
	hash, last := uint64(len(key)), uint64(0)
	short := len(key) < 8
	if short {
		for _, byte := range key {
			last = last<<8 | uint64(byte)
		}
	} else {
		for at := uintptr(0); at < end; at += 8 {
			hash = (hash ^ word(start, at)) * factor
			hash ^= hash >> 32
		}
		last = word(start, end)
	}
	// The upper bits, to which every bit of the last word comes.
	set := (hash ^ last) * factor >> (64 - sumSetsBits) * sumWays
	first := &t.entries[set]
	entry, index := first, set
	for way := uint64(0); way < sumWays; way++ {
		e := (*sumEntry)(unsafe.Add(unsafe.Pointer(first), uintptr(way)*unsafe.Sizeof(*first)))
		if e.emits < entry.emits {
			entry, index = e, set+way
		}
		if e.emits == 0 || int(e.keyLen) != len(key) {
			continue
		}
		kept := unsafe.Pointer(&e.key)
		if short {
			if string(e.key[:len(key)]) == string(key) {
				return e
			}
			continue
		}
		at := uintptr(0)
		for at < end && word(kept, at) == word(start, at) {
			at += 8
		}
		if at >= end && word(kept, end) == last {
			return e
		}
	}
	if entry.emits > 0 {
		t.give(entry)
	} else {
		if t.usedLen == sumEntries {
			t.flush()
		}
		t.used[t.usedLen] = uint16(index)
		t.usedLen++
	}
	copy(entry.key[:], key)
	entry.keyLen = uint8(len(key))
	t.missed++
	return entry
}

func (t *sumTable) give(entry *sumEntry) {
	var value [9]byte
	value[0] = byte(entry.kind)
	*(*int64)(unsafe.Pointer(&value[1])) = entry.sum
	size := uint32(len(value))
	if entry.kind == Int32 {
		// The lower half of a small integer is that integer.
		size = 5
	}
	hostEmitTotal(unsafe.Pointer(&entry.key), uint32(entry.keyLen), unsafe.Pointer(&value), size, entry.emits)
	t.bytes -= (uint32(entry.keyLen) + size) * entry.emits
	entry.emits = 0
}

func (t *sumTable) flush() {
	for _, at := range t.used[:t.usedLen] {
		if entry := &t.entries[at]; entry.emits > 0 {
			t.give(entry)
		}
	}
	t.usedLen = 0
}
