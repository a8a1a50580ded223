//! A private authority, made anew for each test, and what it signs.

#![allow(dead_code, clippy::allow_attributes, reason = "each test uses its own part of this")]

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType,
    date_time_ymd,
};

/// All certificates are of one organization; servers and clients are units of it.
const ORGANIZATION: &str = "Aviary Tests";

/// A certificate with its key, in files and in memory.
pub struct Issued {
    /// Both in one file, as servers and drivers take them.
    pub file: PathBuf,
    pub certificate: rcgen::Certificate,
    pub key: KeyPair,
}

/// An authority.
pub struct Authority {
    /// Its certificate.
    pub file: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    dir: PathBuf,
}

impl Authority {
    pub fn new(dir: &Path, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = named("authorities", name);
        let file = dir.join(format!("{name}.pem"));
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { file, issuer: Issuer::new(params, key), dir: dir.to_path_buf() }
    }

    /// For a server on 127.0.0.1, and for no name.
    pub fn server(&self) -> Issued {
        self.issue("servers", "127.0.0.1", |params| params.not_after = date_time_ymd(2050, 1, 1))
    }

    pub fn client(&self, name: &str) -> Issued {
        self.issue("clients", name, |_| {})
    }

    pub fn expired_client(&self, name: &str) -> Issued {
        self.issue("clients", name, |params| {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        })
    }

    fn issue(&self, unit: &str, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = named(unit, name);
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let number = std::fs::read_dir(&self.dir).unwrap().count();
        let file = self.dir.join(format!("{number}.pem"));
        std::fs::write(&file, certificate.pem() + &key.serialize_pem()).unwrap();
        Issued { file, certificate, key }
    }
}

fn named(unit: &str, name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::OrganizationName, ORGANIZATION);
    named.push(DnType::OrganizationalUnitName, unit);
    named.push(DnType::CommonName, name);
    named
}

/// A client's subject, as MongoDB names users by it.
pub fn subject(name: &str) -> String {
    format!("CN={name},OU=clients,O={ORGANIZATION}")
}
