//! Resume tokens: texts that sort as events do, and begin with the event's time.

use std::io::Result;

use mongodb::bson::{RawDocument, Timestamp};

use super::super::message::invalid;

/// The encoding of a timestamp begins with this, then come seconds and increment.
const TIMESTAMP_MARK: &str = "82";
const WORD_DIGITS: usize = 8;

/// The part of a token that tells where in the stream it is.
pub(super) fn position_of(token: &RawDocument) -> Result<&str> {
    token.get_str("_data").map_err(|error| invalid(&error.to_string()))
}

/// The time a token begins with.
pub(super) fn time_in(position: &str) -> Result<Timestamp> {
    let word = |index: usize| {
        let digits = position.strip_prefix(TIMESTAMP_MARK)?;
        let digits = digits.get(index * WORD_DIGITS..(index + 1) * WORD_DIGITS)?;
        u32::from_str_radix(digits, 16).ok()
    };
    match (word(0), word(1)) {
        (Some(time), Some(increment)) => Ok(Timestamp { time, increment }),
        _ => Err(invalid("the resume token begins with no time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_its_time() {
        let time = time_in("826B04F026000000A42B0229296E04").unwrap();
        assert_eq!(time, Timestamp { time: 0x6B04_F026, increment: 0xA4 });
        assert!(time_in("82").is_err());
    }
}
