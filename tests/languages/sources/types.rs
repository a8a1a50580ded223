//! Reads a value of each type and writes it again.

use aviary::*;

fn map(doc: Doc) {
    let mut out = Document::new();
    again(doc.get("v"), &mut |v| {
        out.push("v", v);
    });
    out.push("none", &doc.get("none"));
    emit(doc.get("_id"), out);
}

/// What `write` is called with is not always of the same type, which only a trait object can be.
fn again(v: Value, write: &mut dyn FnMut(&Any)) {
    match v.kind() {
        Type::Double => write(&Any(&v.f64())),
        Type::Int32 => write(&Any(&(v.i64() as i32))),
        Type::Int64 => write(&Any(&v.i64())),
        Type::String => write(&Any(&v.str())),
        Type::Document => {
            let mut fields = Document::new();
            for value in v.doc().fields() {
                again(value, &mut |written| {
                    fields.push(value.name(), written);
                });
            }
            write(&Any(&fields))
        }
        Type::Array => {
            let mut items = List::new();
            for value in v.items() {
                again(value, &mut |written| {
                    items.push(written);
                });
            }
            write(&Any(&items))
        }
        Type::Binary => write(&Any(&v.as_binary().unwrap())),
        Type::ObjectId => write(&Any(&v.object_id())),
        Type::Boolean => write(&Any(&v.bool())),
        Type::Date => write(&Any(&v.date())),
        Type::Null => write(&Any(&())),
        Type::Regex => {
            let (pattern, options) = v.as_regex().unwrap();
            write(&Any(&Regex { pattern, options }))
        }
        Type::Code => write(&Any(&Code(v.str()))),
        Type::Symbol => write(&Any(&Symbol(v.str()))),
        Type::Timestamp => write(&Any(&v.as_timestamp().unwrap())),
        Type::Decimal128 => write(&Any(&v.as_decimal().unwrap())),
        Type::MinKey => write(&Any(&MinKey)),
        Type::MaxKey => write(&Any(&MaxKey)),
        _ => write(&Any(&v)),
    }
}

struct Any<'a>(&'a dyn ToBson);

impl ToBson for Any<'_> {
    fn kind(&self) -> Type {
        self.0.kind()
    }
    fn append(&self, to: &mut Vec<u8>) {
        self.0.append(to);
    }
}
