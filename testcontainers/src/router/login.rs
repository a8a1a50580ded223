//! How the router says who it is, to servers that ask: as the cluster's own user, whose password is the key
//! that all servers share (SCRAM-SHA-256, RFC 5802 and 7677). So it may use the servers' router code.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use mongodb::bson::{Binary, Document, doc, spec::BinarySubtype};
use sha2::{Digest, Sha256};

/// The user that the servers of a cluster are to each other.
const USER: &str = "__system";
/// The header of a client that binds no channel, and the same in base64.
const HEADER: &str = "n,,";
const HEADER_BASE64: &str = "biws";

/// The key, and what was derived from it: each server has a salt of its own, and deriving takes long.
#[derive(Debug)]
pub(super) struct Login {
    key: String,
    derived: Mutex<HashMap<String, [u8; 32]>>,
}

/// The first answer of a server.
struct Challenge {
    nonce: String,
    salt: String,
    rounds: u32,
}

impl Login {
    /// With the text of a key file.
    pub(super) fn new(key_file: &str) -> Self {
        let key = key_file.chars().filter(|letter| !letter.is_whitespace()).collect();
        Self { key, derived: Mutex::default() }
    }

    /// The first command of the conversation, and what it says without its header.
    pub(super) fn first(&self, nonce: &str) -> (Document, String) {
        let bare = format!("n={USER},r={nonce}");
        let command = doc! {
            "saslStart": 1,
            "mechanism": "SCRAM-SHA-256",
            "payload": payload(&format!("{HEADER}{bare}")),
            "options": { "skipEmptyExchange": true },
            "$db": "local",
        };
        (command, bare)
    }

    /// The second and last command, after the server's answer to the first.
    pub(super) fn last(&self, first: &str, nonce: &str, answer: &Document) -> io::Result<Document> {
        let refused = || {
            let why = answer.get_str("errmsg").unwrap_or("no reason");
            io::Error::new(ErrorKind::PermissionDenied, format!("refused as {USER}: {why}"))
        };
        let said = answer.get_binary_generic("payload").map_err(|_| refused())?;
        let said = String::from_utf8_lossy(said);
        let challenge = parse(&said).filter(|challenge| challenge.nonce.starts_with(nonce));
        let challenge = challenge.ok_or_else(refused)?;
        let salted = self.salted(&challenge)?;
        let client_key = sign(&salted, b"Client Key");
        let bare = format!("c={HEADER_BASE64},r={}", challenge.nonce);
        let signature =
            sign(&Sha256::digest(client_key), format!("{first},{said},{bare}").as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        Ok(doc! {
            "saslContinue": 1,
            "conversationId": answer.get("conversationId").cloned(),
            "payload": payload(&format!("{bare},p={}", BASE64_STANDARD.encode(proof))),
            "$db": "local",
        })
    }

    fn salted(&self, challenge: &Challenge) -> io::Result<[u8; 32]> {
        let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = derived.get(&challenge.salt) {
            return Ok(*known);
        }
        let salt = BASE64_STANDARD.decode(&challenge.salt);
        let salt = salt.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        let mut last = sign(self.key.as_bytes(), &[&salt[..], &1_u32.to_be_bytes()].concat());
        let mut salted = last;
        for _ in 1..challenge.rounds {
            last = sign(self.key.as_bytes(), &last);
            salted.iter_mut().zip(last).for_each(|(all, one)| *all ^= one);
        }
        derived.insert(challenge.salt.clone(), salted);
        Ok(salted)
    }
}

fn parse(text: &str) -> Option<Challenge> {
    let field = |name: &str| text.split(',').find_map(|part| part.strip_prefix(name));
    Some(Challenge {
        nonce: field("r=")?.to_owned(),
        salt: field("s=")?.to_owned(),
        rounds: field("i=")?.parse().ok()?,
    })
}

fn sign(key: &[u8], text: &[u8]) -> [u8; 32] {
    // A key may have any length.
    let Ok(mut signing) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    signing.update(text);
    signing.finalize().into_bytes().into()
}

fn payload(text: &str) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes: text.as_bytes().to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conversation_is_the_one_of_the_standard() {
        // RFC 7677, but for the user's name, which the proof covers too: checked against a server.
        let login = Login::new("pen\ncil\n");
        assert_eq!(login.key, "pencil");
        let challenge = parse(
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        );
        let challenge = challenge.unwrap();
        assert_eq!(challenge.rounds, 4096);
        let salted = login.salted(&challenge).unwrap();
        let client_key = sign(&salted, b"Client Key");
        let bare = format!("c={HEADER_BASE64},r={}", challenge.nonce);
        let first = "n=user,r=rOprNGfwEbeRWgbNEkqO";
        let said = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let signature =
            sign(&Sha256::digest(client_key), format!("{first},{said},{bare}").as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        assert_eq!(BASE64_STANDARD.encode(proof), "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
    }
}
