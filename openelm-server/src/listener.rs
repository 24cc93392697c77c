//! The listening socket: TCP, or a Unix socket.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{TcpListener, ToSocketAddrs},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    error::{Error, Result},
    options::Listen,
};

/// A listening socket. Dropping it removes the file of a Unix socket.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket, which the drop removes.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Opens the socket.
    ///
    /// # Errors
    /// [`Error::Listen`] if the address is unknown, taken or not permitted.
    pub(crate) fn open(listen: &Listen) -> Result<Self> {
        match listen {
            Listen::Tcp { host, port } => {
                // An IPv6 address may have the brackets of an address with a port.
                let inner = host
                    .strip_prefix('[')
                    .and_then(|inner| inner.strip_suffix(']'));
                let host = inner.unwrap_or(host);
                let error = |option| {
                    let address = if host.contains(':') {
                        format!("[{host}]:{port}")
                    } else {
                        format!("{host}:{port}")
                    };
                    move |source| Error::Listen {
                        option,
                        address,
                        source,
                    }
                };
                let addresses = (host, *port).to_socket_addrs();
                let addresses: Vec<_> = addresses.map_err(error("host"))?.collect();
                let listener = TcpListener::bind(&*addresses).map_err(error("port"))?;
                let waits = listener.set_nonblocking(true);
                waits.map_err(error("port"))?;
                Ok(Self::Tcp(listener))
            }
            Listen::Unix(path) => {
                let opened = unix(path).map_err(|source| Error::Listen {
                    option: "unix_socket",
                    address: path.display().to_string(),
                    source,
                });
                // The file belongs to this process only now.
                opened.map(|listener| Self::Unix(listener, SocketFile(path.clone())))
            }
        }
    }

    /// The address for a client: `http://127.0.0.1:8080`, or `unix:PATH`.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => format!("http://{address}"),
                Err(_) => "http://unknown".into(),
            },
            Self::Unix(_, file) => format!("unix:{}", file.0.display()),
        }
    }

    /// True for a TCP port that only programs of this machine reach.
    pub(crate) fn is_loopback(&self) -> bool {
        match self {
            Self::Tcp(listener) => {
                let address = listener.local_addr();
                address.is_ok_and(|address| address.ip().is_loopback())
            }
            Self::Unix(..) => false,
        }
    }

    /// True if other machines reach the port.
    pub(crate) fn is_public(&self) -> bool {
        matches!(self, Self::Tcp(_)) && !self.is_loopback()
    }
}

fn unix(path: &Path) -> io::Result<UnixListener> {
    if let Ok(found) = fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            let problem = "expected no file, or an abandoned socket";
            return Err(io::Error::new(ErrorKind::AlreadyExists, problem));
        }
        // A socket of a program that has ended refuses connections.
        match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            _ => return Err(ErrorKind::AddrInUse.into()),
        }
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A listening socket within the runtime.
#[derive(Debug)]
pub(crate) enum Accepting {
    Tcp(tokio::net::TcpListener),
    Unix(
        tokio::net::UnixListener,
        #[expect(dead_code, reason = "held until the drop")] SocketFile,
    ),
}

/// A connection.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection for S {}

impl Accepting {
    /// The socket of `listener`. Must be called within the runtime.
    pub(crate) fn new(listener: Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Tcp(listener) => Self::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Listener::Unix(listener, file) => {
                Self::Unix(tokio::net::UnixListener::from_std(listener)?, file)
            }
        })
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> io::Result<Box<dyn Connection>> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Tokens are sent at once.
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Self::Unix(listener, _) => Box::new(listener.accept().await?.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use openelm_testing::TempDir;

    use super::*;

    #[test]
    fn a_unix_socket_replaces_only_an_abandoned_one() {
        let folder = TempDir::new();
        let path = folder.join("socket");
        let listen = Listen::Unix(path.clone());
        let first = Listener::open(&listen).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        Listener::open(&listen).unwrap_err();
        assert!(path.exists(), "a failed start removed the socket");
        drop(first);
        assert!(!path.exists());
        // Its file stays.
        drop(UnixListener::bind(&path).unwrap());
        drop(Listener::open(&listen).unwrap());
        folder.write("socket", "text");
        let error = Listener::open(&listen).unwrap_err().to_string();
        assert!(error.contains("socket: "), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    }

    #[test]
    fn an_ipv6_address_may_have_brackets() {
        // The address is one of documentation (RFC 3849), which no machine has.
        for host in ["2001:db8::1", "[2001:db8::1]"] {
            let host = host.into();
            let error = Listener::open(&Listen::Tcp { host, port: 1 }).unwrap_err();
            let problem = error.to_string();
            assert!(problem.starts_with("port: [2001:db8::1]:1: "), "{problem}");
        }
    }

    #[test]
    fn any_free_port_is_shown() {
        let listen = Listen::Tcp {
            host: "localhost".into(),
            port: 0,
        };
        let listener = Listener::open(&listen).unwrap();
        assert!(listener.is_loopback() && !listener.is_public());
        assert!(!listener.address().ends_with(":0"));
        let taken = listener.address();
        let port = taken.rsplit_once(':').unwrap().1.parse().unwrap();
        let host = "127.0.0.1".into();
        let error = Listener::open(&Listen::Tcp { host, port });
        if listener.address().contains("127.0.0.1") {
            assert!(matches!(error, Err(Error::Listen { .. })));
        }
    }
}
