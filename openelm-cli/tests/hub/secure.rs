//! TLS: the root certificates, and redirects to http.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::Arc,
    thread,
};

use openelm_testing::{fails, repository, works};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::server::{Contents, Hub};

fn file(name: &str) -> PathBuf {
    repository("openelm-cli/tests/hub/tls").join(name)
}

/// Serves the Hub over TLS; the address.
fn secure(hub: &Hub) -> String {
    let certificate = CertificateDer::from_pem_file(file("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let hub = hub.address.trim_start_matches("http://").to_owned();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            // A client that refuses the certificate ends the connection.
            let _ = forward(StreamOwned::new(connection, stream), &hub);
        }
    });
    address
}

fn forward(mut client: StreamOwned<ServerConnection, TcpStream>, hub: &str) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let mut server = TcpStream::connect(hub)?;
    server.write_all(&request)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    client.write_all(&answer)?;
    client.conn.send_close_notify();
    client.flush()
}

#[test]
fn the_servers_certificate_must_lead_to_a_known_root() {
    let hub = Hub::start();
    hub.add(
        "models/local/words",
        [("tokenizer.json", Contents::small("{}"))],
    );
    let address = secure(&hub);
    let pull = |roots: PathBuf| {
        let mut command = hub.tool(&["pull", "local/words", "-q"]);
        command
            .env("HF_ENDPOINT", &address)
            .env("SSL_CERT_FILE", roots);
        command.env("HF_TOKEN", "hf_secret");
        command
    };
    let advice = "SSL_CERT_FILE names another file of root certificates";
    fails(
        pull(file("other.pem")),
        1,
        &["invalid peer certificate", advice],
    );
    fails(
        pull(file("server.key")),
        1,
        &["server.key: expected certificates in PEM, found none"],
    );
    fails(
        pull(file("absent.pem")),
        1,
        &["absent.pem: No such file or directory"],
    );
    assert_eq!(hub.requests(|_| true).len(), 0);
    works(pull(file("root.pem")));
    let found = hub.snapshot("models--local--words").join("tokenizer.json");
    assert_eq!(fs::read(found).unwrap(), b"{}");
}

#[test]
fn a_redirect_to_http_is_refused() {
    let hub = Hub::start();
    let mut command = hub.tool(&["pull", "local/small", "-q"]);
    command
        .env("HF_ENDPOINT", secure(&hub))
        .env("SSL_CERT_FILE", file("root.pem"));
    fails(command, 1, &["a redirect from https to http; refused"]);
    assert_eq!(hub.requests(|request| request.of_cdn).len(), 0);
}
