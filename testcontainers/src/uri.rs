//! Addresses of deployments.

use std::fmt::Write;

use crate::state::Credentials;

pub(crate) fn host(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

pub(crate) fn replica_set_uri(name: &str, user: Option<&Credentials>, ports: &[u16]) -> String {
    let mut options = format!("replicaSet={}", encode(name));
    if user.is_some() {
        options = format!("{options}&authSource=admin");
    }
    uri_of(user, ports, &options)
}

pub(crate) fn uri_of(user: Option<&Credentials>, ports: &[u16], options: &str) -> String {
    let hosts: Vec<String> = ports.iter().map(|port| host(*port)).collect();
    let user = user.map_or_else(String::new, |user| {
        format!("{}:{}@", encode(&user.user), encode(&user.password))
    });
    format!("mongodb://{user}{}/?{options}", hosts.join(","))
}

/// Percent-encodes what may not stand in an address as it is.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing into a string cannot fail.
            let _ok = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_encoded_in_the_address() {
        let user = Credentials { user: "a@b".to_owned(), password: "p:/ü".to_owned() };
        assert_eq!(
            replica_set_uri("rs0", Some(&user), &[1, 2]),
            "mongodb://a%40b:p%3A%2F%C3%BC@127.0.0.1:1,127.0.0.1:2/?replicaSet=rs0&authSource=admin"
        );
    }
}
