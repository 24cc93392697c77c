//! The certificates that a server's certificate must lead to: the system's.
//!
//! Of `SSL_CERT_FILE`, otherwise of the first file of [`BUNDLES`] that exists. Files, not the
//! keychain of macOS, which would need the frameworks of Apple's SDK to link: a root that is only in
//! a keychain goes into the file of `SSL_CERT_FILE`.

use std::{env, fs, path::PathBuf};

use ureq::tls::{Certificate, PemItem, parse_pem};

use crate::error::Error;

/// Files of systems, as in Go's crypto/x509 (`root_linux.go`, `root_bsd.go`).
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    // macOS and Alpine.
    "/etc/ssl/cert.pem",
    "/etc/pki/tls/cacert.pem",
];

/// The system's root certificates.
///
/// # Errors
/// [`Error::HubNetwork`] if there are none.
pub(super) fn roots() -> Result<Vec<Certificate<'static>>, Error> {
    let given = env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty());
    let file = match given {
        Some(file) => PathBuf::from(file),
        None => {
            let mut files = BUNDLES.iter().map(PathBuf::from);
            files.find(|file| file.is_file()).ok_or_else(|| {
                Error::hub_network(
                    "TLS",
                    "the system has no file of root certificates; install ca-certificates, or set \
                     SSL_CERT_FILE",
                )
            })?
        }
    };
    let place = file.display().to_string();
    let text = fs::read(&file).map_err(|error| Error::hub_network(&place, &error.to_string()))?;
    let items = parse_pem(&text).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let certificates: Vec<_> = items.collect();
    if certificates.is_empty() {
        return Err(Error::hub_network(
            &place,
            "expected certificates in PEM, found none",
        ));
    }
    Ok(certificates)
}
