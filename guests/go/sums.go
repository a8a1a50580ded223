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
func word(bytes []byte, at int) uint64 {
	return *(*uint64)(unsafe.Pointer(&bytes[at : at+8][0]))
}

// sumHash is where a key belongs. The last word ends where the key ends, so it may share bytes with the one before.
func sumHash(key []byte) uint64 {
	const factor = 0x9E3779B97F4A7C15
	hash, last := uint64(len(key)), uint64(0)
	if len(key) < 8 {
		for _, byte := range key {
			last = last<<8 | uint64(byte)
		}
	} else {
		for at := 0; at < len(key)-8; at += 8 {
			hash = (hash ^ word(key, at)) * factor
			hash ^= hash >> 32
		}
		last = word(key, len(key)-8)
	}
	// The upper bits, to which every bit of the last word comes.
	return (hash ^ last) * factor >> (64 - sumSetsBits)
}

// has says whether the entry is that of a key.
func (e *sumEntry) has(key []byte) bool {
	if e.emits == 0 || int(e.keyLen) != len(key) {
		return false
	}
	kept := e.key[:len(key)]
	if len(key) < 8 {
		return string(kept) == string(key)
	}
	for at := 0; at < len(key)-8; at += 8 {
		if word(kept, at) != word(key, at) {
			return false
		}
	}
	return word(kept, len(key)-8) == word(key, len(key)-8)
}

// entry finds the entry of a key, or one that is free for it.
func (t *sumTable) entry(key []byte) *sumEntry {
	at := sumHash(key) * sumWays
	first, second := &t.entries[at], &t.entries[at+1]
	if first.has(key) {
		return first
	}
	if second.has(key) {
		return second
	}
	entry := first
	if second.emits < first.emits {
		entry, at = second, at+1
	}
	if entry.emits > 0 {
		t.give(entry)
	} else {
		if t.usedLen == sumEntries {
			t.flush()
		}
		t.used[t.usedLen] = uint16(at)
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
