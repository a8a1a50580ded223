//! Messages as they are on the wire: `OP_MSG`, and the legacy `OP_QUERY` a first `hello` may use.
//!
//! Documents stay in their encoded form; most of what passes through is never decoded.

use std::io::{Error, ErrorKind, Result};

use mongodb::bson::{Document, RawBsonRef, RawDocument, RawDocumentBuf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::bytes::Bytes;

const OP_REPLY: i32 = 1;
const OP_QUERY: i32 = 2004;
const OP_MSG: i32 = 2013;
const HEADER_BYTES: usize = 16;
/// What a server accepts; also told to clients in `hello`.
pub(super) const MESSAGE_BYTES_MAX: usize = 48_000_000;
/// Replies may exceed what a client may send.
const FRAME_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 16 * 1024 * 1024;

const FLAG_CHECKSUM: i32 = 1;
const FLAG_MORE_TO_COME: i32 = 1 << 1;
const CHECKSUM_BYTES: usize = 4;
const SECTION_BODY: u8 = 0;
const SECTION_SEQUENCE: u8 = 1;
/// The reply to `OP_QUERY` says with this that an awaiting cursor is understood.
const REPLY_AWAIT_CAPABLE: i32 = 8;

/// A command as a client sent it.
#[derive(Debug)]
pub(super) struct Request {
    id: i32,
    legacy: bool,
    /// A client that sends unacknowledged writes reads no reply.
    pub(super) wants_reply: bool,
    pub(super) body: RawDocumentBuf,
    /// The document sequences that belong to the body, each as it came.
    pub(super) sequences: Vec<u8>,
}

impl Request {
    /// Reads the next command; `None` when the client closed the connection between two.
    pub(super) async fn read(stream: &mut TcpStream) -> Result<Option<Self>> {
        match read_frame(stream).await? {
            Some(frame) => Self::parse(&frame).map(Some),
            None => Ok(None),
        }
    }

    fn parse(frame: &[u8]) -> Result<Self> {
        let mut rest = Bytes(frame);
        let _length = rest.i32()?;
        let id = rest.i32()?;
        let _response_to = rest.i32()?;
        match rest.i32()? {
            OP_MSG => Self::parse_msg(id, rest),
            OP_QUERY => Self::parse_query(id, rest),
            other => Err(invalid(&format!("the operation {other} is not known"))),
        }
    }

    fn parse_msg(id: i32, mut rest: Bytes<'_>) -> Result<Self> {
        let flags = rest.i32()?;
        if flags & FLAG_CHECKSUM != 0 {
            rest = Bytes(rest.take(rest.0.len().saturating_sub(CHECKSUM_BYTES))?);
        }
        let mut body = None;
        let mut sequences = Vec::new();
        while !rest.0.is_empty() {
            let kind = rest.take(1)?;
            match kind.first() {
                Some(&SECTION_BODY) => body = Some(rest.document()?.to_owned()),
                Some(&SECTION_SEQUENCE) => {
                    sequences.push(SECTION_SEQUENCE);
                    sequences.extend_from_slice(rest.sized()?);
                }
                _ => return Err(invalid("a section has an unknown kind")),
            }
        }
        let body = body.ok_or_else(|| invalid("the message has no body"))?;
        let wants_reply = flags & FLAG_MORE_TO_COME == 0;
        Ok(Self { id, legacy: false, wants_reply, body, sequences })
    }

    fn parse_query(id: i32, mut rest: Bytes<'_>) -> Result<Self> {
        let _flags = rest.i32()?;
        let collection = rest.cstr()?;
        let db = collection
            .strip_suffix(".$cmd")
            .ok_or_else(|| invalid("the legacy operation is not a command"))?;
        let _skip_and_limit = rest.take(2 * size_of::<i32>())?;
        let mut body = decode(rest.document()?)?;
        body.insert("$db", db);
        Ok(Self {
            id,
            legacy: true,
            wants_reply: true,
            body: encode(&body)?,
            sequences: Vec::new(),
        })
    }

    /// The command's name: its first key.
    pub(super) fn name(&self) -> &str {
        match self.body.iter().next() {
            Some(Ok((key, _))) => key.as_str(),
            _ => "",
        }
    }

    /// The value of the command's name, when it is text: the collection, as a rule.
    pub(super) fn argument(&self) -> &str {
        match self.body.iter().next() {
            Some(Ok((_, RawBsonRef::String(text)))) => text,
            _ => "",
        }
    }

    /// The database it is meant for.
    pub(super) fn db(&self) -> &str {
        self.body.get_str("$db").unwrap_or("admin")
    }

    /// The collection's full name.
    pub(super) fn namespace(&self) -> String {
        format!("{}.{}", self.db(), self.argument())
    }

    /// Whether the body has this field.
    pub(super) fn has(&self, key: &str) -> bool {
        matches!(self.body.get(key), Ok(Some(_)))
    }

    /// The body in decoded form.
    pub(super) fn document(&self) -> Result<Document> {
        decode(&self.body)
    }

    /// Sends the client its reply, in the form it asked in.
    pub(super) async fn answer(&self, stream: &mut TcpStream, reply: &RawDocument) -> Result<()> {
        if !self.wants_reply {
            return Ok(());
        }
        let frame = if self.legacy {
            let mut head = Vec::new();
            for word in [REPLY_AWAIT_CAPABLE, 0, 0, 0, 1] {
                head.extend_from_slice(&word.to_le_bytes());
            }
            frame(self.id, OP_REPLY, &[&head, reply.as_bytes()])?
        } else {
            message(self.id, reply, &[])?
        };
        stream.write_all(&frame).await
    }
}

/// A server's reply.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) body: RawDocumentBuf,
}

impl Reply {
    pub(super) async fn read(stream: &mut TcpStream) -> Result<Self> {
        let frame = read_frame(stream).await?.ok_or(ErrorKind::UnexpectedEof)?;
        Ok(Self { body: Request::parse(&frame)?.body })
    }

    /// A reply made here.
    pub(super) fn of(document: &Document) -> Result<Self> {
        Ok(Self { body: encode(document)? })
    }

    /// Whether the command succeeded as a whole.
    pub(super) fn is_ok(&self) -> bool {
        match self.body.get("ok") {
            Ok(Some(RawBsonRef::Double(ok))) => ok >= 1.0,
            Ok(Some(RawBsonRef::Int32(ok))) => ok >= 1,
            Ok(Some(RawBsonRef::Int64(ok))) => ok >= 1,
            Ok(Some(RawBsonRef::Boolean(ok))) => ok,
            _ => false,
        }
    }

    /// The error code of a command that failed as a whole.
    pub(super) fn error_code(&self) -> Option<i32> {
        if self.is_ok() { None } else { Some(self.body.get_i32("code").unwrap_or(0)) }
    }

    /// The reply in decoded form.
    pub(super) fn document(&self) -> Result<Document> {
        decode(&self.body)
    }
}

/// Sends a command to a server.
pub(super) async fn send(
    stream: &mut TcpStream,
    body: &RawDocument,
    sequences: &[u8],
) -> Result<()> {
    stream.write_all(&message(0, body, sequences)?).await
}

pub(super) fn decode(raw: &RawDocument) -> Result<Document> {
    Document::try_from(raw).map_err(|error| invalid(&error.to_string()))
}

pub(super) fn encode(document: &Document) -> Result<RawDocumentBuf> {
    RawDocumentBuf::try_from(document).map_err(|error| invalid(&error.to_string()))
}

pub(super) fn invalid(reason: &str) -> Error {
    Error::new(ErrorKind::InvalidData, reason)
}

fn message(response_to: i32, body: &RawDocument, sequences: &[u8]) -> Result<Vec<u8>> {
    let no_flags = 0_i32.to_le_bytes();
    frame(response_to, OP_MSG, &[&no_flags, &[SECTION_BODY], body.as_bytes(), sequences])
}

fn frame(response_to: i32, operation: i32, parts: &[&[u8]]) -> Result<Vec<u8>> {
    let length = HEADER_BYTES + parts.iter().map(|part| part.len()).sum::<usize>();
    let words = i32::try_from(length).map_err(|_| invalid("the message is too long"))?;
    let mut frame = Vec::with_capacity(length);
    for word in [words, 1, response_to, operation] {
        frame.extend_from_slice(&word.to_le_bytes());
    }
    for part in parts {
        frame.extend_from_slice(part);
    }
    Ok(frame)
}

async fn read_frame(stream: &mut TcpStream) -> Result<Option<Vec<u8>>> {
    let mut head = [0; size_of::<i32>()];
    if stream.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut head[1..]).await?;
    let length = usize::try_from(i32::from_le_bytes(head)).unwrap_or(0);
    if !(HEADER_BYTES..=FRAME_BYTES_MAX).contains(&length) {
        return Err(invalid("a message has an impossible length"));
    }
    let mut frame = vec![0; length];
    let (words, rest) = frame.split_at_mut(head.len());
    words.copy_from_slice(&head);
    stream.read_exact(rest).await?;
    Ok(Some(frame))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson::doc;

    #[test]
    fn a_command_with_a_sequence_keeps_it_as_it_came() {
        let body = encode(&doc! { "insert": "things", "$db": "test" }).unwrap();
        let one = encode(&doc! { "_id": 1 }).unwrap();
        let mut sequence = vec![SECTION_SEQUENCE];
        let length = i32::try_from(4 + "documents\0".len() + one.as_bytes().len()).unwrap();
        sequence.extend_from_slice(&length.to_le_bytes());
        sequence.extend_from_slice(b"documents\0");
        sequence.extend_from_slice(one.as_bytes());
        let frame = message(0, &body, &sequence).unwrap();
        let request = Request::parse(&frame).unwrap();
        assert_eq!(request.name(), "insert");
        assert_eq!(request.namespace(), "test.things");
        assert_eq!(request.sequences, sequence);
        assert!(request.wants_reply);
    }

    #[test]
    fn a_truncated_message_is_an_error() {
        let body = encode(&doc! { "ping": 1 }).unwrap();
        let frame = message(0, &body, &[]).unwrap();
        for length in HEADER_BYTES..frame.len() {
            assert!(Request::parse(&frame[..length]).is_err(), "{length}");
        }
    }
}
