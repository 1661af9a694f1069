//! The files of TLS, and what is wrong with them in words that say what to do.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::gateway::options::TlsFiles;

/// Largest file that is read: hundreds of certificates. Bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What is spoken inside TLS, and offered in this order.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why there can be no TLS with these files.
#[derive(Debug)]
pub enum TlsError {
    /// A file cannot be read.
    Read {
        /// By which flag it was named.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is larger than any that is meant.
    TooLarge {
        /// By which flag it was named.
        flag: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A file is no PEM, or has a section that is cut off.
    Pem {
        /// By which flag it was named.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// A file has nothing of what it is for.
    Empty {
        /// By which flag it was named.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What it should have.
        wanted: &'static str,
    },
    /// A certificate of an authority is none.
    Authority {
        /// The file.
        path: PathBuf,
        /// Which of its certificates, from 1.
        number: usize,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The certificate and the key do not belong together, or one is of a kind that is not known.
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// What clients are to show cannot be checked.
    Verifier(rustls::server::VerifierBuilderError),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Read { flag, path, source } => {
                let advice = if source.kind() == io::ErrorKind::NotFound {
                    "name a file that is there"
                } else if source.kind() == io::ErrorKind::PermissionDenied {
                    "let the gateway's user read it"
                } else {
                    "name a file that can be read"
                };
                write!(f, "cannot read {flag} {} ({advice})", path.display())
            }
            TlsError::TooLarge { flag, path } => {
                let path = path.display();
                write!(f, "{flag} {path} has more than {FILE_BYTES_MAX} bytes: name a PEM file")
            }
            TlsError::Pem { flag, path, what } => {
                write!(f, "{flag} {} is no whole PEM file, {what}: write it anew", path.display())
            }
            TlsError::Empty { flag, path, wanted } => {
                let path = path.display();
                write!(f, "{flag} {path} has no {wanted}: name a PEM file that has one")
            }
            TlsError::Authority { path, number, .. } => {
                let path = path.display();
                write!(f, "certificate {number} of --trusted-ca-file {path} is no authority's")
            }
            TlsError::Pair { cert, key, .. } => {
                let (cert, key) = (cert.display(), key.display());
                write!(f, "--cert-file {cert} and --key-file {key} do not go together")
            }
            TlsError::Verifier(_) => f.write_str("certificates of clients cannot be checked"),
        }
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            TlsError::Read { source, .. } => Some(source),
            TlsError::Authority { source, .. } | TlsError::Pair { source, .. } => Some(source),
            TlsError::Verifier(source) => Some(source),
            TlsError::TooLarge { .. } | TlsError::Pem { .. } | TlsError::Empty { .. } => None,
        }
    }
}

/// Reads all files, and makes of them what new connections are met with.
///
/// No session is resumed: whoever connects shows its certificate, so that one that is not trusted
/// any more is of no use from the next connection on.
pub(super) fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates("--cert-file", &files.cert)?;
    let key = key(&files.key)?;
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has what TLS 1.2 and 1.3 ask for");
    let builder = match &files.trusted_ca {
        Some(path) => {
            let roots = Arc::new(authorities(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            builder.with_client_cert_verifier(verifier.map_err(TlsError::Verifier)?)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|source| {
        let (cert, key) = (files.cert.clone(), files.key.clone());
        TlsError::Pair { cert, key, source }
    })?;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = content(flag, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|why| not_pem(flag, path, &why))?;
    if found.is_empty() {
        return Err(TlsError::Empty { flag, path: path.to_owned(), wanted: "certificate" });
    }
    Ok(found)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let flag = "--key-file";
    let text = content(flag, path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|why| {
        if matches!(why, pem::Error::NoItemsFound) {
            let wanted = "key without a password";
            return TlsError::Empty { flag, path: path.to_owned(), wanted };
        }
        not_pem(flag, path, &why)
    })
}

/// In our own words: the other ones show what stands in the file.
fn not_pem(flag: &'static str, path: &Path, why: &pem::Error) -> TlsError {
    let what = if matches!(why, pem::Error::MissingSectionEnd { .. }) {
        "a section is cut off"
    } else if matches!(why, pem::Error::Base64Decode(_)) {
        "a section is no base64"
    } else {
        "a section begins wrongly"
    };
    TlsError::Pem { flag, path: path.to_owned(), what }
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for (certificate, number) in certificates("--trusted-ca-file", path)?.into_iter().zip(1..) {
        let added = roots.add(certificate);
        added.map_err(|source| TlsError::Authority { path: path.to_owned(), number, source })?;
    }
    Ok(roots)
}

fn content(flag: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = |source| TlsError::Read { flag, path: path.to_owned(), source };
    if fs::metadata(path).map_err(read)?.len() > FILE_BYTES_MAX {
        return Err(TlsError::TooLarge { flag, path: path.to_owned() });
    }
    fs::read(path).map_err(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::whole_story;
    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    /// Names for a pair of files in a folder of their own.
    struct Folder(TempDir);

    impl Folder {
        fn new() -> Folder {
            Folder(TempDir::new().unwrap())
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.path().join(name);
            fs::write(&path, text).unwrap();
            path
        }

        /// Why these are refused, without the folder.
        fn refusal(&self, files: &TlsFiles) -> String {
            let why = read(files).expect_err("they do");
            whole_story(&why).replace(&format!("{}/", self.0.path().display()), "")
        }
    }

    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn files_that_go_together_are_taken() {
        let folder = Folder::new();
        let (cert, key) = pair();
        let (cert, key) = (folder.write("c", &cert), folder.write("k", &key));
        let with =
            |trusted_ca| read(&TlsFiles { cert: cert.clone(), key: key.clone(), trusted_ca });
        assert_eq!(with(None).unwrap().alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert_eq!(with(Some(cert.clone())).unwrap().send_tls13_tickets, 0);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_flag_and_its_name() {
        let folder = Folder::new();
        let ((cert_text, key_text), (_, other_key)) = (pair(), pair());
        let (cert, key) = (folder.write("c", &cert_text), folder.write("k", &key_text));
        let missing = folder.0.path().join("missing");
        let good = TlsFiles { cert: cert.clone(), key: key.clone(), trusted_ca: None };
        let refusal = |changed: TlsFiles| folder.refusal(&changed);
        let because = |changed: TlsFiles, start: &str| {
            let why = folder.refusal(&changed);
            assert!(why.starts_with(start), "{why}");
            assert!(why.len() > start.len(), "{why}");
        };
        because(
            TlsFiles { cert: missing.clone(), ..good.clone() },
            "cannot read --cert-file missing (name a file that is there): ",
        );
        because(
            TlsFiles { trusted_ca: Some(missing), ..good.clone() },
            "cannot read --trusted-ca-file missing (name a file that is there): ",
        );
        assert_eq!(
            refusal(TlsFiles { cert: folder.write("e", "nonsense"), ..good.clone() }),
            "--cert-file e has no certificate: name a PEM file that has one"
        );
        assert_eq!(
            refusal(TlsFiles { key: cert, ..good.clone() }),
            "--key-file c has no key without a password: name a PEM file that has one"
        );
        assert_eq!(
            refusal(TlsFiles { cert: folder.write("h", &cert_text[..200]), ..good.clone() }),
            "--cert-file h is no whole PEM file, a section is cut off: write it anew"
        );
        let stars = key_text.replace("M", "*");
        assert_eq!(
            refusal(TlsFiles { key: folder.write("s", &stars), ..good.clone() }),
            "--key-file s is no whole PEM file, a section is no base64: write it anew"
        );
        because(
            TlsFiles { key: folder.write("o", &other_key), ..good.clone() },
            "--cert-file c and --key-file o do not go together: ",
        );
        let odd = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        because(
            TlsFiles { trusted_ca: Some(folder.write("a", odd)), ..good.clone() },
            "certificate 1 of --trusted-ca-file a is no authority's: ",
        );
        let large = folder.write("l", &"l".repeat(2 * 1024 * 1024));
        assert_eq!(
            refusal(TlsFiles { cert: large, ..good }),
            "--cert-file l has more than 1048576 bytes: name a PEM file"
        );
    }
}
