//! Turning a client's command into one for a server, without decoding it.

use std::io::Result;

use mongodb::bson::raw::CStr;
use mongodb::bson::{Bson, RawBson, RawDocument, RawDocumentBuf};

use super::message::invalid;

/// Fields the servers' router commands do not take. A `txnNumber` even ends a server of 6.0.
const NOT_FOR_ROUTER_COMMANDS: [&str; 5] =
    ["txnNumber", "stmtId", "stmtIds", "startTransaction", "autocommit"];
/// The internal commands are in no declared API.
const NOT_FOR_ANY: [&str; 4] = ["apiVersion", "apiStrict", "apiDeprecationErrors", "$clusterTime"];

/// What is to change in a command.
#[derive(Debug, Default)]
pub(super) struct Rewrite<'a> {
    /// The new name of the command; its own otherwise.
    pub(super) name: Option<&'a str>,
    /// Whether fields of retryable writes stay.
    pub(super) keep_transaction_number: bool,
    pub(super) without: &'a [&'a str],
    /// Fields added at the end.
    pub(super) with: Vec<(&'a str, Bson)>,
    /// The time passed on with the command.
    pub(super) time: Option<RawDocumentBuf>,
}

impl Rewrite<'_> {
    pub(super) fn apply(&self, body: &RawDocument) -> Result<RawDocumentBuf> {
        let mut changed = RawDocumentBuf::new();
        for (index, element) in body.iter().enumerate() {
            let (key, value) = element.map_err(|error| invalid(&error.to_string()))?;
            match self.name {
                Some(name) if index == 0 => changed.append(cstr(name)?, value),
                _ if self.drops(key.as_str()) => {}
                _ => changed.append(key, value),
            }
        }
        for (key, value) in &self.with {
            let value = RawBson::try_from(value.clone());
            changed.append(cstr(key)?, value.map_err(|error| invalid(&error.to_string()))?);
        }
        if let Some(time) = &self.time {
            changed.append(cstr("$clusterTime")?, time.clone());
        }
        Ok(changed)
    }

    fn drops(&self, key: &str) -> bool {
        NOT_FOR_ANY.contains(&key)
            || self.without.contains(&key)
            || (!self.keep_transaction_number && NOT_FOR_ROUTER_COMMANDS.contains(&key))
    }
}

fn cstr(text: &str) -> Result<&CStr> {
    text.try_into().map_err(|_| invalid("a name contains a zero byte"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::message::{decode, encode};
    use mongodb::bson::doc;

    #[test]
    fn the_name_changes_and_transaction_numbers_go() {
        let body = encode(&doc! { "insert": "c", "txnNumber": 1_i64, "ordered": true, "$db": "d" });
        let rewrite = Rewrite {
            name: Some("clusterInsert"),
            with: vec![("comment", Bson::from("x"))],
            ..Rewrite::default()
        };
        let changed = rewrite.apply(&body.unwrap()).unwrap();
        let expected = doc! { "clusterInsert": "c", "ordered": true, "$db": "d", "comment": "x" };
        assert_eq!(decode(&changed).unwrap(), expected);
    }
}
