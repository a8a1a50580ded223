package aviary

import (
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Types of BSON that Go has none for.
type (
	// ObjectID is an ObjectId.
	ObjectID [12]byte
	// Decimal is a decimal number of 128 bits as BSON holds it.
	Decimal [16]byte
	// Binary is binary data; a []byte is written with subtype 0.
	Binary struct {
		Subtype byte
		Data    []byte
	}
	// Timestamp is MongoDB's internal timestamp.
	Timestamp struct{ Seconds, Increment uint32 }
	// Regex is a regular expression.
	Regex struct{ Pattern, Options string }
	// Code is JavaScript code.
	Code string
	// Symbol is the deprecated symbol.
	Symbol string
	// MinKey is less than every other value.
	MinKey struct{}
	// MaxKey is greater than every other value.
	MaxKey struct{}
)

// Field is one field of a D.
type Field struct {
	Name  string
	Value any
}

type (
	// D is a document whose fields keep their order: aviary.D{{"sum", 1}, {"count", 2}}.
	D []Field
	// M is a document that is written in the order of its fields' names.
	M map[string]any
	// A is an array.
	A []any
)

// Hex writes an ObjectId with 24 digits.
func (id ObjectID) Hex() string { return fmt.Sprintf("%x", id[:]) }

// String shows a value for logs and error messages; BSON is exact, this is for people.
func (v Value) String() string {
	switch v.kind {
	case Double:
		return strconv.FormatFloat(v.Float(), 'g', -1, 64)
	case Int32, Int64:
		return strconv.FormatInt(v.Int(), 10)
	case String, SymbolType, JavaScript:
		return v.Text()
	case Boolean:
		return strconv.FormatBool(v.Bool())
	case Date:
		return v.Time().Format(time.RFC3339Nano)
	case ObjectIDType:
		return v.ID().Hex()
	case RegexType:
		r := v.Regex()
		return "/" + r.Pattern + "/" + r.Options
	case Document, Array:
		var text strings.Builder
		for name, value := range Doc(v.data).Fields() {
			if text.Len() > 0 {
				text.WriteString(", ")
			}
			if v.kind == Document {
				text.WriteString(name + ": ")
			}
			text.WriteString(value.String())
		}
		if v.kind == Array {
			return "[" + text.String() + "]"
		}
		return "{" + text.String() + "}"
	}
	return v.kind.String()
}

// String shows a document.
func (d Doc) String() string { return Value{kind: Document, data: d}.String() }

// The nesting beyond which a value is refused, since it may contain itself.
const depthMax = 200

// appendTagged writes the type and then the value, as the host takes them.
func appendTagged(to []byte, value any, what string) []byte {
	at := len(to)
	to = append(to, 0)
	to, kind := appendValue(to, value, what, 0)
	to[at] = byte(kind)
	return to
}

func appendField(to []byte, name string, value any, depth int) []byte {
	if strings.IndexByte(name, 0) >= 0 {
		panic(failure("the name of a field has a NUL in it: " + strconv.Quote(name)))
	}
	at := len(to)
	to = append(to, 0)
	to = append(to, name...)
	to = append(to, 0)
	to, kind := appendValue(to, value, name, depth)
	to[at] = byte(kind)
	return to
}

func appendText(to []byte, text string) []byte {
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "\uFFFD")
	}
	to = binary.LittleEndian.AppendUint32(to, uint32(len(text)+1))
	to = append(to, text...)
	return append(to, 0)
}

func appendInt(to []byte, n int64) ([]byte, Type) {
	if n == int64(int32(n)) {
		return binary.LittleEndian.AppendUint32(to, uint32(n)), Int32
	}
	return binary.LittleEndian.AppendUint64(to, uint64(n)), Int64
}

func appendInt64(to []byte, n int64) ([]byte, Type) {
	return binary.LittleEndian.AppendUint64(to, uint64(n)), Int64
}

// embed writes a document or an array around what fill writes.
func embed(to []byte, fill func([]byte) []byte) []byte {
	at := len(to)
	to = append(to, 0, 0, 0, 0)
	to = append(fill(to), 0)
	binary.LittleEndian.PutUint32(to[at:], uint32(len(to)-at))
	return to
}

func appendValue(to []byte, value any, what string, depth int) ([]byte, Type) {
	if depth > depthMax {
		panic(failure(what + " is nested deeper than " + strconv.Itoa(depthMax) + " levels; does it contain itself?"))
	}
	switch v := value.(type) {
	case nil:
		return to, Null
	case Value:
		if v.kind == Missing {
			return to, Null
		}
		return append(to, v.data...), v.kind
	case Doc:
		if len(v) < 5 {
			return append(to, 5, 0, 0, 0, 0), Document
		}
		return append(to, v...), Document
	case string:
		return appendText(to, v), String
	case float64:
		return binary.LittleEndian.AppendUint64(to, math.Float64bits(v)), Double
	case int:
		return appendInt(to, int64(v))
	case int32:
		return binary.LittleEndian.AppendUint32(to, uint32(v)), Int32
	case int64:
		return appendInt64(to, v)
	case bool:
		if v {
			return append(to, 1), Boolean
		}
		return append(to, 0), Boolean
	case time.Time:
		return binary.LittleEndian.AppendUint64(to, uint64(v.UnixMilli())), Date
	case []byte:
		return appendValue(to, Binary{Data: v}, what, depth)
	case D:
		return embed(to, func(to []byte) []byte {
			for _, field := range v {
				to = appendField(to, field.Name, field.Value, depth+1)
			}
			return to
		}), Document
	case M:
		return appendMap(to, v, depth), Document
	case A:
		return appendItems(to, len(v), func(i int) any { return v[i] }, depth), Array
	case []Value:
		return appendItems(to, len(v), func(i int) any { return v[i] }, depth), Array
	case ObjectID:
		return append(to, v[:]...), ObjectIDType
	case Decimal:
		return append(to, v[:]...), Decimal128
	case Binary:
		to = binary.LittleEndian.AppendUint32(to, uint32(len(v.Data)))
		return append(append(to, v.Subtype), v.Data...), BinaryData
	case Timestamp:
		to = binary.LittleEndian.AppendUint32(to, v.Increment)
		return binary.LittleEndian.AppendUint32(to, v.Seconds), TimestampType
	case Regex:
		to = append(append(to, v.Pattern...), 0)
		return append(append(to, v.Options...), 0), RegexType
	case Code:
		return appendText(to, string(v)), JavaScript
	case Symbol:
		return appendText(to, string(v)), SymbolType
	case MinKey:
		return to, MinKeyType
	case MaxKey:
		return to, MaxKeyType
	}
	return appendReflected(to, reflect.ValueOf(value), what, depth)
}

func appendMap(to []byte, fields map[string]any, depth int) []byte {
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	// Go goes through a map in random order, but equal results must be equal bytes.
	slices.Sort(names)
	return embed(to, func(to []byte) []byte {
		for _, name := range names {
			to = appendField(to, name, fields[name], depth+1)
		}
		return to
	})
}

func appendItems(to []byte, count int, item func(int) any, depth int) []byte {
	return embed(to, func(to []byte) []byte {
		for i := range count {
			to = appendField(to, strconv.Itoa(i), item(i), depth+1)
		}
		return to
	})
}

// appendReflected writes what is not one of the usual types.
func appendReflected(to []byte, v reflect.Value, what string, depth int) ([]byte, Type) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return to, Null
		}
		return appendValue(to, v.Elem().Interface(), what, depth+1)
	case reflect.Bool:
		return appendValue(to, v.Bool(), what, depth)
	case reflect.String:
		return appendText(to, v.String()), String
	case reflect.Int:
		return appendInt(to, v.Int())
	case reflect.Int8, reflect.Int16, reflect.Int32:
		return appendInt(to, v.Int())
	case reflect.Int64:
		return appendInt64(to, v.Int())
	case reflect.Uint8, reflect.Uint16:
		return appendInt(to, int64(v.Uint()))
	case reflect.Uint, reflect.Uint32, reflect.Uint64:
		if v.Uint() > math.MaxInt64 {
			panic(failure(what + " does not fit into a 64-bit integer"))
		}
		return appendInt64(to, int64(v.Uint()))
	case reflect.Float32, reflect.Float64:
		return appendValue(to, v.Float(), what, depth)
	case reflect.Slice, reflect.Array:
		if v.Kind() == reflect.Slice && v.IsNil() {
			return to, Null
		}
		return appendItems(to, v.Len(), func(i int) any { return v.Index(i).Interface() }, depth), Array
	case reflect.Map:
		if v.Type().Key().Kind() == reflect.String {
			names := v.MapKeys()
			sort.Slice(names, func(i, j int) bool { return names[i].String() < names[j].String() })
			return embed(to, func(to []byte) []byte {
				for _, name := range names {
					to = appendField(to, name.String(), v.MapIndex(name).Interface(), depth+1)
				}
				return to
			}), Document
		}
	case reflect.Struct:
		return embed(to, func(to []byte) []byte {
			for i := range v.NumField() {
				if name := fieldName(v.Type().Field(i)); name != "" {
					to = appendField(to, name, v.Field(i).Interface(), depth+1)
				}
			}
			return to
		}), Document
	}
	panic(failure(what + " is of the Go type " + v.Type().String() + ", which BSON does not have"))
}

// fieldName is a struct's field's name: that of its tag `bson:"name"`, otherwise its own with a small first letter.
// A field of a small first letter, or tagged "-", has none.
func fieldName(field reflect.StructField) string {
	if !field.IsExported() {
		return ""
	}
	tag, _, _ := strings.Cut(field.Tag.Get("bson"), ",")
	switch tag {
	case "-":
		return ""
	case "":
		first, size := utf8.DecodeRuneInString(field.Name)
		return string(unicode.ToLower(first)) + field.Name[size:]
	}
	return tag
}
