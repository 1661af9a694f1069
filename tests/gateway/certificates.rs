//! Authorities and certificates, made anew for each test, and the files that hold them.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Who gives out certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        // Each has a name of its own: another's certificates are of nobody who is known, and not of
        // somebody whose signature is wrong.
        static NAMED: AtomicU32 = AtomicU32::new(1);
        let name = format!("authority {}", NAMED.fetch_add(1, Ordering::Relaxed));
        let mut params = params(&name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// For a gateway on this machine.
    pub(crate) fn server(&self) -> Pair {
        let mut params = params("a gateway", &["127.0.0.1", "localhost"]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    /// For a client of this name.
    pub(crate) fn client(&self, name: &str) -> Pair {
        let mut params = params(name, &[]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { cert, key: key.serialize_pem() }
    }
}

fn params(common_name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

/// Where a gateway finds its files.
pub(crate) struct Files {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) trusted_ca: PathBuf,
}

impl Files {
    pub(crate) fn within(folder: &Path) -> Files {
        let file = |name| folder.join(name);
        Files { cert: file("server.pem"), key: file("server.key"), trusted_ca: file("ca.pem") }
    }

    /// Each is there whole or not at all.
    fn write(path: &Path, text: &str) {
        let beside = path.with_extension("new");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, path).unwrap();
    }

    pub(crate) fn write_pair(&self, pair: &Pair) {
        Files::write(&self.cert, &pair.cert);
        Files::write(&self.key, &pair.key);
    }

    pub(crate) fn write_trusted(&self, authority: &Authority) {
        Files::write(&self.trusted_ca, &authority.pem);
    }

    /// A certificate that is none.
    pub(crate) fn spoil(&self) {
        Files::write(&self.cert, "nonsense");
    }

    /// The flags for a gateway that asks its clients for nothing.
    pub(crate) fn flags(&self) -> Vec<&str> {
        vec!["--cert-file", path(&self.cert), "--key-file", path(&self.key)]
    }

    /// The flags for one that wants certificates.
    pub(crate) fn flags_with_clients(&self) -> Vec<&str> {
        let more = ["--client-cert-auth", "--trusted-ca-file", path(&self.trusted_ca)];
        self.flags().into_iter().chain(more).collect()
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
