//! Why a deployment cannot be used, in words that say what to do.
//!
//! The driver describes its whole view of the topology, and in it, for each server, what went wrong last. What is
//! found there decides whether waiting may help: a server that is away comes back, and a certificate of another
//! authority stays one.

use std::path::Path;

use mongodb::error::{Error as DriverError, ErrorKind};
use mongodb::options::{AuthMechanism, ClientOptions, Tls, TlsOptions};

use super::error::classify;
use crate::error::{Error, StoreErrorKind};

/// What to do about an answer that no server gave.
pub(super) fn explain(error: &DriverError, shown: &str, options: &ClientOptions) -> Error {
    let source = classify(error);
    if source.kind == StoreErrorKind::Unauthorized {
        return Error::refused(
            format!("{shown} refused the credentials: {}", source.message),
            credentials_hint(options),
        );
    }
    let tls = tls_of(options);
    if let Some((why, hint)) = bad_certificate(&source.message, tls) {
        return Error::refused(format!("cannot connect to {shown}: {why}"), hint);
    }
    Error::Connect { uri: shown.to_owned(), why: plain_reason(&source.message, tls) }
}

/// What a URI's options, or files that they name, are wrong in.
pub(super) fn reason(error: &DriverError) -> String {
    match &*error.kind {
        ErrorKind::InvalidArgument { message, .. }
        | ErrorKind::InvalidTlsConfig { message, .. } => message.clone(),
        ErrorKind::Io(source) => format!(
            "a file that it names cannot be read: {source}; check tlsCAFile and tlsCertificateKeyFile"
        ),
        kind => first_line(&kind.to_string()),
    }
}

fn credentials_hint(options: &ClientOptions) -> &'static str {
    let mechanism =
        options.credential.as_ref().and_then(|credential| credential.mechanism.as_ref());
    match mechanism {
        Some(AuthMechanism::MongoDbX509) => {
            "make a user of the certificate's subject in the database $external, and let the servers' \
             authority have signed the certificate"
        }
        _ => "check the user, the password and authSource",
    }
}

fn tls_of(options: &ClientOptions) -> Option<&TlsOptions> {
    match options.tls.as_ref()? {
        Tls::Enabled(tls) => Some(tls),
        Tls::Disabled => None,
    }
}

/// A certificate of the server's that will be no better at the next try, and what to do about it.
fn bad_certificate(message: &str, tls: Option<&TlsOptions>) -> Option<(String, String)> {
    const WHY: &str = "invalid peer certificate: ";
    let why = message.split_once(WHY)?.1.split(", labels").next().unwrap_or_default();
    let authority = tls.and_then(|tls| tls.ca_file_path.as_deref());
    let told = if why.starts_with("UnknownIssuer") {
        match authority {
            Some(file) => (
                format!(
                    "the authority in {} has not signed the server's certificate",
                    file.display()
                ),
                "give the certificate of the authority that has, with tlsCAFile=FILE in the URI"
                    .to_owned(),
            ),
            None => (
                "no authority that this machine trusts has signed the server's certificate"
                    .to_owned(),
                "name the certificate of the one that has, with tlsCAFile=FILE in the URI"
                    .to_owned(),
            ),
        }
    } else if why.contains("expired") || why.contains("Expired") {
        (
            "the server's certificate has expired".to_owned(),
            "renew it, or set this machine's clock right".to_owned(),
        )
    } else if why.contains("not valid for name") || why.contains("NotValidForName") {
        (
            format!(
                "the server's {}",
                first_line(why).replacen("certificate not valid", "certificate is not valid", 1)
            ),
            "use a name or address that the certificate lists, in the URI and in the replica set's \
             configuration"
                .to_owned(),
        )
    } else {
        (
            format!("the server's certificate is not acceptable: {}", first_line(why)),
            "have another one issued by the authority that tlsCAFile names".to_owned(),
        )
    };
    Some(told)
}

/// A person wants to know what to do.
pub(super) fn plain_reason(message: &str, tls: Option<&TlsOptions>) -> String {
    for (said, meant) in [
        ("Connection refused", "connection refused; is mongod running there, on that port?"),
        ("failed to lookup address", "the host's name is not known"),
        (
            "tls handshake eof",
            "the server does not speak TLS; leave tls=true out of the URI, or start the server with \
             --tlsMode requireTLS",
        ),
    ] {
        if message.contains(said) {
            return meant.to_owned();
        }
    }
    // With TLS 1.3 a client's certificate is refused after its own side of the handshake, and servers say no more.
    if message.contains("without sending TLS close_notify") || message.contains("fatal alert") {
        return refused_client(tls.and_then(|tls| tls.cert_key_file_path.as_deref()));
    }
    for (said, meant) in [
        (
            "unexpected end of file",
            "the server ended the connection at once, as one does that speaks only TLS; add tls=true to the \
             URI, and tlsCAFile=FILE for an authority of your own",
        ),
        ("timed out", "no answer in time"),
        (
            "Set Name: ",
            "no member answers, or none belongs to a replica set of that name; check replicaSet",
        ),
    ] {
        if message.contains(said) {
            return meant.to_owned();
        }
    }
    first_line(message)
}

fn refused_client(certificate: Option<&Path>) -> String {
    match certificate {
        Some(file) => format!(
            "the server ended the connection, as one does that does not accept the client's certificate; check \
             that {} has not expired and that the server's tlsCAFile names the authority that signed it",
            file.display()
        ),
        None => "the server ended the connection, as one does that wants a certificate of its clients; name one \
                 with tlsCertificateKeyFile=FILE in the URI"
            .to_owned(),
    }
}

/// The beginning of a text.
pub(super) fn first_line(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 300;
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(SHOWN_CHARS_MAX).collect()
}
