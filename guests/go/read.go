// Package aviary is what map and reduce functions in Go are written with.
//
//	func Map(doc aviary.Doc, emit aviary.Emit)                      // any number of emits
//	func Reduce(key aviary.Value, values []aviary.Value) any        // must be associative, or stream:
//	func ReduceBegin(key aviary.Value)
//	func ReduceNext(value aviary.Value)                             // every value, in order
//	func ReduceEnd() any
//	func Combine(key aviary.Value, values []aviary.Value) any       // shrinks values before they travel
//	func Finalize(key aviary.Value, value aviary.Value) any
//
// Documents are read in place: a Doc, a Value and a string of it point into the host's input and may be kept.
// The slice of values is used again for the next key. Wherever a value has another type than a function
// asks for, the record fails with the field's name; ask Type first where that is expected.
package aviary

import (
	"bytes"
	"encoding/binary"
	"iter"
	"math"
	"time"
	"unsafe"
)

// Emit takes a pair of a map. Both may be any value that BSON has: those of this package, and of Go nil, bool,
// numbers, string, []byte, time.Time, slices, maps with string keys (written in the order of the keys) and
// structs. An int is a 32-bit integer where it fits, an int64 always one of 64 bits.
type Emit func(key, value any)

// Type is the type of a value. The zero Type is that of a field that is not there.
type Type byte

// The types of BSON.
const (
	Missing       Type = 0x00
	Double        Type = 0x01
	String        Type = 0x02
	Document      Type = 0x03
	Array         Type = 0x04
	BinaryData    Type = 0x05
	Undefined     Type = 0x06
	ObjectIDType  Type = 0x07
	Boolean       Type = 0x08
	Date          Type = 0x09
	Null          Type = 0x0A
	RegexType     Type = 0x0B
	DBPointerType Type = 0x0C
	JavaScript    Type = 0x0D
	SymbolType    Type = 0x0E
	CodeWithScope Type = 0x0F
	Int32         Type = 0x10
	TimestampType Type = 0x11
	Int64         Type = 0x12
	Decimal128    Type = 0x13
	MaxKeyType    Type = 0x7F
	MinKeyType    Type = 0xFF
)

// String names a type as MongoDB's $type does.
func (t Type) String() string {
	if name, known := typeNames[t]; known {
		return name
	}
	return "unknown"
}

var typeNames = map[Type]string{
	Missing: "missing", Double: "double", String: "string", Document: "object", Array: "array",
	BinaryData: "binData", Undefined: "undefined", ObjectIDType: "objectId", Boolean: "bool", Date: "date",
	Null: "null", RegexType: "regex", DBPointerType: "dbPointer", JavaScript: "javascript", SymbolType: "symbol",
	CodeWithScope: "javascriptWithScope", Int32: "int", TimestampType: "timestamp", Int64: "long",
	Decimal128: "decimal", MaxKeyType: "maxKey", MinKeyType: "minKey",
}

// Doc is a BSON document, or array, as it came.
type Doc []byte

// Value is one value of a document, read when it is asked for.
type Value struct {
	name string
	data []byte
	kind Type
}

// Fields goes through a document in its order.
func (d Doc) Fields() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		if len(d) < 5 {
			return
		}
		for rest := d[4:]; ; {
			var value Value
			if value, rest = next(rest); value.kind == Missing {
				return
			}
			if !yield(value.name, value) {
				return
			}
		}
	}
}

// Get finds a field, and with more names a field of the document in it. Where there is none, the Value is of type
// Missing.
func (d Doc) Get(name string, more ...string) Value {
	found := Value{name: name}
	if len(d) >= 5 {
		for rest := d[4:]; ; {
			var value Value
			if value, rest = next(rest); value.kind == Missing {
				break
			}
			if value.name == name {
				found = value
				break
			}
		}
	}
	if len(more) == 0 {
		return found
	}
	if found.kind != Document && found.kind != Array {
		return Value{name: more[len(more)-1]}
	}
	return Doc(found.data).Get(more[0], more[1:]...)
}

// next cuts the first element off; at the end of the document its kind is Missing.
func next(rest []byte) (Value, []byte) {
	if len(rest) == 0 || rest[0] == 0 {
		return Value{}, nil
	}
	kind := Type(rest[0])
	end := bytes.IndexByte(rest[1:], 0)
	if end < 0 {
		malformed()
	}
	name := text(rest[1 : 1+end])
	rest = rest[2+end:]
	size := sizeOf(kind, rest)
	return Value{name: name, kind: kind, data: rest[:size:size]}, rest[size:]
}

func sizeOf(kind Type, rest []byte) int {
	size, room := 0, len(rest)
	number := func() int {
		if room < 4 {
			malformed()
		}
		return int(binary.LittleEndian.Uint32(rest))
	}
	switch kind {
	case Double, Date, TimestampType, Int64:
		size = 8
	case Int32:
		size = 4
	case Boolean:
		size = 1
	case ObjectIDType:
		size = 12
	case Decimal128:
		size = 16
	case Undefined, Null, MaxKeyType, MinKeyType:
	case String, JavaScript, SymbolType:
		size = 4 + max(1, number())
	case Document, Array:
		size = max(5, number())
	case CodeWithScope:
		size = max(14, number())
	case DBPointerType:
		size = 4 + max(1, number()) + 12
	case BinaryData:
		size = 5 + number()
	case RegexType:
		for ends := 0; ends < 2; size++ {
			if size >= room {
				malformed()
			}
			if rest[size] == 0 {
				ends++
			}
		}
	default:
		malformed()
	}
	if size > room {
		malformed()
	}
	return size
}

func malformed() {
	panic(failure("the input is not BSON"))
}

func text(of []byte) string {
	return unsafe.String(unsafe.SliceData(of), len(of))
}

// Type returns the value's type, Missing for a field that is not there.
func (v Value) Type() Type { return v.kind }

// Exists reports whether there is a field at all.
func (v Value) Exists() bool { return v.kind != Missing }

// IsNull reports whether it is null, undefined or not there.
func (v Value) IsNull() bool { return v.kind == Null || v.kind == Undefined || v.kind == Missing }

// IsNumber reports whether Float can read it.
func (v Value) IsNumber() bool { return v.kind == Double || v.kind == Int32 || v.kind == Int64 }

// Name returns the name of the field that it was found in.
func (v Value) Name() string { return v.name }

// Bytes returns the value as BSON holds it, without its type.
func (v Value) Bytes() []byte { return v.data }

func (v Value) wrong(wanted string) {
	where := "the value"
	if v.name != "" {
		where = "the field " + v.name
	}
	if v.kind == Missing {
		panic(failure(where + " is missing, it should be " + wanted))
	}
	panic(failure(where + " is of type " + v.kind.String() + ", it should be " + wanted))
}

// Float reads a double or an integer.
func (v Value) Float() float64 {
	switch v.kind {
	case Double:
		return math.Float64frombits(binary.LittleEndian.Uint64(v.data))
	case Int32:
		return float64(int32(binary.LittleEndian.Uint32(v.data)))
	case Int64:
		return float64(int64(binary.LittleEndian.Uint64(v.data)))
	}
	v.wrong("a number")
	return 0
}

// Int reads an integer, or a double that is one.
func (v Value) Int() int64 {
	switch v.kind {
	case Int32:
		return int64(int32(binary.LittleEndian.Uint32(v.data)))
	case Int64:
		return int64(binary.LittleEndian.Uint64(v.data))
	case Double:
		if f := v.Float(); f == math.Trunc(f) && f >= -(1<<63) && f < 1<<63 {
			return int64(f)
		}
	}
	v.wrong("an integer")
	return 0
}

// Text reads a string, also the deprecated symbol and JavaScript code.
func (v Value) Text() string {
	if v.kind != String && v.kind != SymbolType && v.kind != JavaScript {
		v.wrong("a string")
	}
	return text(v.data[4 : len(v.data)-1])
}

// Bool reads a boolean.
func (v Value) Bool() bool {
	if v.kind != Boolean {
		v.wrong("a boolean")
	}
	return v.data[0] != 0
}

// Time reads a date; its time zone is UTC.
func (v Value) Time() time.Time {
	if v.kind != Date {
		v.wrong("a date")
	}
	return time.UnixMilli(int64(binary.LittleEndian.Uint64(v.data))).UTC()
}

// ID reads an ObjectId.
func (v Value) ID() ObjectID {
	if v.kind != ObjectIDType {
		v.wrong("an ObjectId")
	}
	return ObjectID(v.data)
}

// Doc reads a document or an array.
func (v Value) Doc() Doc {
	if v.kind != Document && v.kind != Array {
		v.wrong("a document")
	}
	return Doc(v.data)
}

// Items goes through an array.
func (v Value) Items() iter.Seq[Value] {
	if v.kind != Array {
		v.wrong("an array")
	}
	return func(yield func(Value) bool) {
		for _, value := range Doc(v.data).Fields() {
			if !yield(value) {
				return
			}
		}
	}
}

// Get finds a field of the document that the value is. Where it is none, the result is of type Missing.
func (v Value) Get(name string, more ...string) Value {
	if v.kind != Document && v.kind != Array {
		return Value{name: name}
	}
	return Doc(v.data).Get(name, more...)
}

// Binary reads binary data.
func (v Value) Binary() Binary {
	if v.kind != BinaryData {
		v.wrong("binary data")
	}
	return Binary{Subtype: v.data[4], Data: v.data[5:]}
}

// Decimal reads a decimal number's 16 bytes.
func (v Value) Decimal() Decimal {
	if v.kind != Decimal128 {
		v.wrong("a decimal number")
	}
	return Decimal(v.data)
}

// Timestamp reads a timestamp.
func (v Value) Timestamp() Timestamp {
	if v.kind != TimestampType {
		v.wrong("a timestamp")
	}
	return Timestamp{
		Increment: binary.LittleEndian.Uint32(v.data),
		Seconds:   binary.LittleEndian.Uint32(v.data[4:]),
	}
}

// Regex reads a regular expression.
func (v Value) Regex() Regex {
	if v.kind != RegexType {
		v.wrong("a regular expression")
	}
	end := bytes.IndexByte(v.data, 0)
	return Regex{Pattern: text(v.data[:end]), Options: text(v.data[end+1 : len(v.data)-1])}
}
