//! What the generated exports call. Functions do not need any of this.

use std::cell::RefCell;

use crate::{Doc, ToBson, Value, Values, emit, sums};

/// What a file has unless it says otherwise: its own constant comes before one that a `*` imports.
pub mod defaults {
    /// Whether the map's emits may be added up here. `no_sums!` makes another.
    pub const AVIARY_SUMS: bool = true;
}

thread_local! {
    static INPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// The key whose values are streamed, as one document.
    static STREAMED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Makes room for the host's next input.
pub fn alloc(len: u32) -> *mut u8 {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let message = panic.payload_as_str().unwrap_or("the function panicked").replace('\n', " ");
            match panic.location() {
                Some(place) => crate::fail(&format!("{message}\n    at {}:{}", place.file(), place.line())),
                None => crate::fail(&message),
            }
        }));
    });
    INPUT.with_borrow_mut(|input| {
        // A batch is written over whole, so what was there does not matter; but it has to be initialised.
        if input.len() < len as usize {
            input.resize(len as usize, 0);
        }
        input.as_mut_ptr()
    })
}

/// Hands each document of the input on.
pub fn each(len: u32, mut function: impl for<'a> FnMut(Doc<'a>)) {
    INPUT.with_borrow(|input| {
        let mut rest = &input[..len as usize];
        while !rest.is_empty() {
            let doc = Doc::cut(rest);
            rest = &rest[doc.as_bytes().len()..];
            function(doc);
        }
    });
}

/// The host says whether sums are all that is wanted of a map.
pub fn sums(wanted: i32) {
    sums::want(wanted == 1);
}

/// Hands each document to a map.
pub fn map(len: u32, add_up: bool, function: impl for<'a> FnMut(Doc<'a>)) {
    if add_up {
        sums::begin();
    }
    each(len, function);
    sums::end();
}

/// Hands a key and its values to a reduce or a combine.
pub fn reduce<'a, T: ToBson>(doc: Doc<'a>, function: impl FnOnce(Value<'a>, Values<'a>) -> T) {
    let key = doc.get("k");
    emit(key, function(key, doc.get("v").items()));
}

/// Hands a key and its value to a finalize.
pub fn finalize<'a, T: ToBson>(doc: Doc<'a>, function: impl FnOnce(Value<'a>, Value<'a>) -> T) {
    let key = doc.get("k");
    emit(key, function(key, doc.get("v")));
}

/// Tells a streaming reduce the key.
pub fn reduce_begin<'a>(doc: Doc<'a>, function: impl FnOnce(Value<'a>)) {
    STREAMED.with_borrow_mut(|streamed| {
        streamed.clear();
        streamed.extend_from_slice(doc.as_bytes());
    });
    function(doc.get("k"));
}

/// Hands the next values to a streaming reduce.
pub fn reduce_next<'a>(doc: Doc<'a>, function: impl FnMut(Value<'a>)) {
    doc.get("v").items().for_each(function);
}

/// Asks a streaming reduce for its result.
pub fn reduce_end<T: ToBson>(function: impl FnOnce() -> T) {
    let result = function();
    STREAMED.with_borrow(|streamed| emit(Doc::new(streamed).get("k"), result));
}
