//! Reading from a slice without ever reading past its end.

use std::io::Result;

use mongodb::bson::RawDocument;

use super::message::invalid;

/// What is left to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let split = self.0.split_at_checked(count);
        let (taken, rest) = split.ok_or_else(|| invalid("the message is too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn i32(&mut self) -> Result<i32> {
        let mut word = [0; size_of::<i32>()];
        word.copy_from_slice(self.take(size_of::<i32>())?);
        Ok(i32::from_le_bytes(word))
    }

    /// Something that begins with its own length, the length included.
    pub(super) fn sized(&mut self) -> Result<&'a [u8]> {
        let length = Bytes(self.0).i32()?;
        self.take(usize::try_from(length).map_err(|_| invalid("a length is negative"))?)
    }

    pub(super) fn document(&mut self) -> Result<&'a RawDocument> {
        RawDocument::from_bytes(self.sized()?).map_err(|error| invalid(&error.to_string()))
    }

    pub(super) fn cstr(&mut self) -> Result<&'a str> {
        let end = self.0.iter().position(|byte| *byte == 0);
        let text = self.take(end.ok_or_else(|| invalid("a text has no end"))?)?;
        self.take(1)?;
        std::str::from_utf8(text).map_err(|error| invalid(&error.to_string()))
    }
}
