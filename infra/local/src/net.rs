//! Owns how this process accepts TCP connections and serves HTTP/1 on them, always on the loopback interface.
//!
//! Must never delay an acknowledgement: a Lambda runtime writes a response's head and its first chunk as two
//! small segments, its kernel (Nagle) holds the second back until the first is acknowledged, and a delayed
//! acknowledgement is 41 ms of a first token's time. The client's socket cannot be told; ours can.

use std::{
    io::{self, IoSlice},
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};

/// An accepted connection that never delays what it sends (`TCP_NODELAY`) or acknowledges (`TCP_QUICKACK`).
#[derive(Debug)]
pub struct PromptStream {
    stream: TcpStream,
}

impl PromptStream {
    /// Takes an accepted connection.
    ///
    /// # Errors
    /// The connection refuses the options, because it is already gone.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let stream = Self { stream };
        stream.acknowledge_now()?;
        Ok(stream)
    }

    /// Linux forgets this option as soon as a connection looks interactive, so it is set again after each read.
    #[cfg(target_os = "linux")]
    fn acknowledge_now(&self) -> io::Result<()> {
        self.stream.set_quickack(true)
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "the other systems have no such option"
    )]
    fn acknowledge_now(&self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for PromptStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        // A connection that just failed or closed cannot take the option; the read's own result tells that.
        self.acknowledge_now().ok();
        Poll::Ready(read)
    }
}

impl AsyncWrite for PromptStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Binds a free port of the loopback interface.
///
/// # Errors
/// No port is free.
pub fn bind_loopback() -> io::Result<TcpListener> {
    bind_loopback_port(0)
}

/// Binds the given port of the loopback interface; 0 takes a free one.
///
/// # Errors
/// The port is taken.
pub fn bind_loopback_port(port: u16) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// An HTTP client for servers on this machine: it trusts no certificate and uses no proxy.
///
/// # Errors
/// The client cannot be built.
pub fn client() -> reqwest::Result<reqwest::Client> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = reqwest::Client::builder().no_proxy();
    match rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions() {
        Ok(tls) => {
            let tls = tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
            builder.tls_backend_preconfigured(tls).build()
        }
        // Without it the builder looks for the process's provider, and says so if there is none.
        Err(_) => builder.build(),
    }
}
