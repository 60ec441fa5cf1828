//! TLS with client certificates (RFC 8446): who signed a client's certificate says what it may do.

use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    self, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
use tokio_rustls::server::TlsStream;

use crate::Error;
use crate::peer::Role;

type Verifier = Arc<dyn ClientCertVerifier>;

/// A server's side of TLS, for clients that have a certificate.
pub struct Tls {
    acceptor: TlsAcceptor,
    writers: Option<Verifier>,
}

impl Tls {
    /// From PEM files: the daemon's certificate with its chain, its key, and the authorities of clients that may change the
    /// policy and of those that may only look. One of the two authorities may be missing.
    ///
    /// # Errors
    /// A file cannot be read, or does not hold what it should.
    pub fn new(
        certificate: &Path,
        key: &Path,
        writers: Option<&Path>,
        readers: Option<&Path>,
    ) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = certificates(certificate)?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|e| failed(key, &e))?;
        let authority = |path: Option<&Path>| path.map(|p| verifier(p, &provider)).transpose();
        let (writers, readers) = (authority(writers)?, authority(readers)?);
        if writers.is_none() && readers.is_none() {
            return Err(Error::Tls { detail: "no authority of clients is given".into() });
        }
        let either = Either {
            hints: [&writers, &readers]
                .into_iter()
                .flatten()
                .flat_map(|v| v.root_hint_subjects().to_vec())
                .collect(),
            writers: writers.clone(),
            readers,
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::Tls { detail: e.to_string() })?
            .with_client_cert_verifier(Arc::new(either))
            .with_single_cert(chain, key)
            .map_err(|e| failed(certificate, &e))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), writers })
    }

    /// Makes the handshake; returns what the client may do.
    pub(crate) async fn accept(&self, stream: TcpStream) -> std::io::Result<(TlsStream<TcpStream>, Role)> {
        let stream = self.acceptor.accept(stream).await?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let writes = match (&self.writers, chain.split_first()) {
            (Some(writers), Some((own, between))) => {
                writers.verify_client_cert(own, between, UnixTime::now()).is_ok()
            }
            _ => false,
        };
        Ok((stream, if writes { Role::Write } else { Role::Read }))
    }
}

fn failed(path: &Path, detail: &dyn ToString) -> Error {
    Error::Tls { detail: format!("{}: {}", path.display(), detail.to_string()) }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(failed(path, &"it has no certificate")),
        Err(e) => Err(failed(path, &e)),
    }
}

fn verifier(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Verifier, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|e| failed(path, &e))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| failed(path, &e))
}

/// Takes what either authority has signed.
#[derive(Debug)]
struct Either {
    writers: Option<Verifier>,
    readers: Option<Verifier>,
    hints: Vec<DistinguishedName>,
}

impl Either {
    fn all(&self) -> impl Iterator<Item = &Verifier> {
        [&self.writers, &self.readers].into_iter().flatten()
    }

    /// The first answer that is not an error, or the last error.
    fn any<T>(&self, ask: impl Fn(&Verifier) -> Result<T, rustls::Error>) -> Result<T, rustls::Error> {
        let mut result = Err(rustls::Error::General("no authority of clients is given".into()));
        for verifier in self.all() {
            result = ask(verifier);
            if result.is_ok() {
                break;
            }
        }
        result
    }
}

impl ClientCertVerifier for Either {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.any(|v| v.verify_client_cert(own, between, now))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.any(|v| v.verify_tls12_signature(message, certificate, signed))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.any(|v| v.verify_tls13_signature(message, certificate, signed))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.all().next().map(|v| v.supported_verify_schemes()).unwrap_or_default()
    }
}
