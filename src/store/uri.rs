//! What may be printed of a connection string.
//!
//! A string that the driver parses has known parts, so its hosts and its database are shown and nothing else:
//! no user, no password, no option. Of any other string nothing is shown, because nobody knows where in it the
//! password is. That includes the driver's own words, which quote the string.

use std::borrow::Cow;

use mongodb::options::ConnectionString;

/// Stands for a string of which nothing may be shown.
const WITHHELD: &str = "the given URI";

/// The options that the driver takes. An error may name one of these: they are our words, not the string's.
const OPTIONS: [&str; 41] = [
    "appName",
    "authMechanism",
    "authMechanismProperties",
    "authSource",
    "compressors",
    "connectTimeoutMS",
    "directConnection",
    "heartbeatFrequencyMS",
    "journal",
    "loadBalanced",
    "localThresholdMS",
    "maxConnecting",
    "maxIdleTimeMS",
    "maxPoolSize",
    "maxStalenessSeconds",
    "minPoolSize",
    "proxyHost",
    "proxyPassword",
    "proxyPort",
    "proxyUsername",
    "readConcernLevel",
    "readPreference",
    "readPreferenceTags",
    "replicaSet",
    "retryReads",
    "retryWrites",
    "serverMonitoringMode",
    "serverSelectionTimeoutMS",
    "socketTimeoutMS",
    "srvMaxHosts",
    "srvServiceName",
    "ssl",
    "tls",
    "tlsAllowInvalidCertificates",
    "tlsCAFile",
    "tlsCertificateKeyFile",
    "tlsInsecure",
    "uuidRepresentation",
    "w",
    "waitQueueTimeoutMS",
    "wTimeoutMS",
];

/// Options of other drivers that change nothing here, and which this one refuses. Compression is offered, never
/// demanded; a UUID is bytes to Aviary, which are passed on as they are, and to functions what `standard` says; and
/// leases end what has no answer in time.
const NO_USE: [&str; 5] = [
    "compressors",
    "zlibcompressionlevel",
    "uuidrepresentation",
    "sockettimeoutms",
    "waitqueuetimeoutms",
];

/// The string as the driver takes it: without options that change nothing here.
pub(super) fn for_driver(uri: &str) -> Cow<'_, str> {
    let Some((address, options)) = uri.split_once('?') else { return uri.into() };
    let has_use = |option: &&str| {
        let name = option.split('=').next().unwrap_or_default();
        !NO_USE.iter().any(|other| other.eq_ignore_ascii_case(name))
    };
    // A password with a question mark in it is somebody's mistake, and stays as it is.
    if options.contains('@') || options.split('&').all(|option| has_use(&option)) {
        return uri.into();
    }
    let rest: Vec<&str> = options.split('&').filter(has_use).collect();
    match rest.is_empty() {
        true => address.into(),
        false => format!("{address}?{}", rest.join("&")).into(),
    }
}

/// The string as it may be shown: scheme, hosts and database, or no part of it.
pub fn redact(uri: &str) -> String {
    shown(uri).unwrap_or_else(|| WITHHELD.to_owned())
}

fn shown(uri: &str) -> Option<String> {
    ConnectionString::parse(&*for_driver(uri)).ok()?;
    let (scheme, rest) = uri.split_once("://")?;
    let (address, options) = rest.split_once('?').unwrap_or((rest, ""));
    // In `mongodb://user:12/34?x=y@host` the driver sees a host, a port and an option, and its writer a password.
    if options.contains('@') {
        return None;
    }
    let hosts = address.rsplit_once('@').map_or(address, |(_, hosts)| hosts);
    Some(format!("{scheme}://{hosts}"))
}

/// Whether the string holds a password or another secret.
pub fn has_secret(uri: &str) -> bool {
    const SECRETS: [&str; 3] =
        ["authmechanismproperties", "proxypassword", "tlscertificatekeyfilepassword"];
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
    let options = rest.split_once('?').map_or("", |(_, options)| options).to_lowercase();
    user.contains(':') || SECRETS.iter().any(|name| options.contains(name))
}

/// Why the driver does not take a string, in words that hold no part of it.
///
/// `said` is what the driver said. It is repeated only if the string itself parses, as when its options
/// contradict each other.
pub(super) fn objection(uri: &str, said: &str) -> String {
    if shown(uri).is_some() && !has_secret(uri) {
        return said.to_owned();
    }
    let (scheme, rest) = uri.split_once("://").unwrap_or_default();
    if !matches!(scheme, "mongodb" | "mongodb+srv") {
        return "it does not begin with mongodb:// or mongodb+srv://".to_owned();
    }
    let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
    if user.contains(['/', '?', '#', '[', ']', '@']) || user.matches(':').count() > 1 {
        return "percent-encode the characters : / ? # [ ] @ % in its user and password".to_owned();
    }
    let options = rest.split_once('?').map_or("", |(_, options)| options);
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let Some((name, _)) = option.split_once('=') else {
            return "one of its options has no value".to_owned();
        };
        match OPTIONS.iter().find(|known| known.eq_ignore_ascii_case(name)) {
            None => return "it has an option that is not known".to_owned(),
            Some(known) => {
                if ConnectionString::parse(format!("mongodb://host/?{option}")).is_err() {
                    return format!("look at its option {known}");
                }
            }
        }
    }
    "look at its hosts, their ports, its database and its options".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way to write a password that a person may try, with the password `s3cret` in two parts.
    const MALFORMED: [&str; 14] = [
        "mongodb://s3c:s3c/ret@h:1/db",
        "mongodb://s3c:/s3cret@h:1/db",
        "mongodb://s3c:s3c?ret@h:1/db",
        "mongodb://s3c:s3c#ret@h:1/db",
        "mongodb://s3c:s3c@ret@h:1/db",
        "mongodb://s3c:s3c[ret]@h:1/db",
        "mongodb://s3c:s3c%ret@h:1/db",
        "mongodb://s3c:s3cret@h:port/db",
        "mongodb://s3c:s3cret",
        "mongodb://h:1/s3c/ret?x=1@h",
        "mongodb://h:12/s3c?appName=ret@h",
        "mongodb://h/?tlsCertificateKeyFilePassword=s3cret",
        "postgres://s3c:s3cret@h",
        "s3cret",
    ];

    #[test]
    fn of_a_string_that_does_not_parse_nothing_is_shown() {
        for uri in MALFORMED {
            assert_eq!(redact(uri), WITHHELD, "{uri}");
            let said = ConnectionString::parse(uri).map_or_else(|e| e.to_string(), |_| uri.into());
            let objection = objection(uri, &said);
            assert!(
                !objection.contains("s3c") && !objection.contains("ret@"),
                "{uri}: {objection}"
            );
        }
    }

    #[test]
    fn of_a_string_that_parses_hosts_and_database_are_shown() {
        for (uri, expected) in [
            ("mongodb://s3c:s3cret@h:1/db?appName=x", "mongodb://h:1/db"),
            ("mongodb://s3c:s3%40cret@h:1,h:2", "mongodb://h:1,h:2"),
            ("mongodb://s3c:s3%2Fcret@h:1,h:2", "mongodb://h:1,h:2"),
            ("mongodb://s3c@h/db", "mongodb://h/db"),
            (
                "mongodb+srv://h/db?authMechanism=MONGODB-OIDC&authMechanismProperties=ENVIRONMENT:s3cret",
                "mongodb+srv://h/db",
            ),
            (
                "mongodb://h/?authMechanism=MONGODB-AWS&authMechanismProperties=AWS_SESSION_TOKEN:s3cret",
                "mongodb://h/",
            ),
            ("mongodb://h/?proxyHost=p&proxyUsername=s3c&proxyPassword=s3cret", "mongodb://h/"),
            ("mongodb://%2Ftmp%2Fmongodb-1.sock", "mongodb://%2Ftmp%2Fmongodb-1.sock"),
        ] {
            let shown = redact(uri);
            assert!(shown == expected || shown == WITHHELD, "{uri}: {shown}");
            assert!(!shown.contains("s3c"), "{uri}: {shown}");
        }
        assert_eq!(redact("mongodb://s3c:s3cret@h:1/db?appName=x"), "mongodb://h:1/db");
    }

    #[test]
    fn an_objection_says_what_to_do() {
        for (uri, word) in [
            ("mongodb://u:a/b@h", "percent-encode"),
            ("mongodb://h/?connectTimeoutMS=soon", "connectTimeoutMS"),
            ("mongodb://h/?nothing=1", "not known"),
            ("mongodb://h:port", "ports"),
            ("h:27017", "mongodb://"),
        ] {
            assert!(objection(uri, "").contains(word), "{uri}: {}", objection(uri, ""));
        }
    }

    #[test]
    fn options_of_other_drivers_that_change_nothing_are_taken() {
        for (uri, taken) in [
            ("mongodb://h/db?compressors=zstd,snappy", "mongodb://h/db"),
            ("mongodb://h/?UuidRepresentation=standard&w=1", "mongodb://h/?w=1"),
            ("mongodb://h/?w=1&zlibCompressionLevel=9&appName=x", "mongodb://h/?w=1&appName=x"),
            ("mongodb://h/?socketTimeoutMS=5000&waitQueueTimeoutMS=1", "mongodb://h/"),
            ("mongodb://u:a?compressors=b@h/", "mongodb://u:a?compressors=b@h/"),
            ("mongodb://h/db", "mongodb://h/db"),
        ] {
            assert_eq!(for_driver(uri), taken, "{uri}");
            let parses = ConnectionString::parse(&*for_driver(uri)).is_ok();
            assert_eq!(parses, !uri.contains('@'), "{uri}");
        }
    }

    #[test]
    fn a_password_is_found_wherever_it_is() {
        for uri in ["mongodb://u:p@h", "mongodb://u:p/q@h", "mongodb://h/?proxyPassword=x"] {
            assert!(has_secret(uri), "{uri}");
        }
        for uri in ["mongodb://h:1/db?replicaSet=rs0", "mongodb://u@h", "h:1"] {
            assert!(!has_secret(uri), "{uri}");
        }
    }
}
