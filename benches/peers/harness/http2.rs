//! An HTTP/2 client.

use super::Outcome;
use super::body::{ACCEPT, Answer, Framing, HOST, path_of, piece};
use super::client::Tls;
use bytes::Bytes;
use h2::client::SendRequest;
use std::future::poll_fn;
use tokio::io::BufWriter;

/// A connection for many requests at once.
#[derive(Clone)]
pub struct Http2 {
    sender: SendRequest<Bytes>,
}

impl Http2 {
    /// HTTP/2 with windows as large as Go's clients offer them.
    ///
    /// # Errors
    /// What h2 says.
    pub async fn over(stream: Tls) -> Outcome<Self> {
        // A frame's head and payload are written at once, as Go's clients do.
        let stream = BufWriter::with_capacity(64 << 10, stream);
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(4 << 20)
            .initial_connection_window_size(1 << 30)
            .enable_push(false)
            .handshake::<_, Bytes>(stream)
            .await?;
        tokio::spawn(async move {
            // Its requests tell of its end.
            let _ = connection.await;
        });
        Ok(Self { sender })
    }

    /// # Errors
    /// When the stream or the connection breaks.
    pub async fn get(&self, path: &str) -> Outcome<Answer> {
        self.request("GET", path, 0, Framing::Length).await
    }

    /// Opens an upload session and returns its path.
    ///
    /// # Errors
    /// As [`Http2::get`], and when there is none.
    pub async fn open_upload(&self, path: &str) -> Outcome<String> {
        self.request("POST", path, 0, Framing::Length).await?.session()
    }

    /// Sends a body of this many bytes as fast as the contestant's windows let it, in DATA frames of the size that it permits:
    /// so do Go's clients, up to 512 KiB.
    ///
    /// # Errors
    /// As [`Http2::get`].
    pub async fn upload(&self, method: &str, path: &str, length: u64, framing: Framing) -> Outcome<Answer> {
        self.request(method, path, length, framing).await
    }

    async fn request(&self, method: &str, path: &str, length: u64, framing: Framing) -> Outcome<Answer> {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("https://{HOST}{path}"))
            .header("user-agent", "bench")
            .header("accept", ACCEPT);
        let request = match framing {
            _ if length == 0 => request,
            Framing::Length => {
                request.header("content-type", "application/octet-stream").header("content-length", length)
            }
            Framing::Chunked => request.header("content-type", "application/octet-stream"),
        };
        let mut ready = self.sender.clone().ready().await?;
        let (response, mut body) = ready.send_request(request.body(())?, length == 0)?;
        let mut left = length;
        while left > 0 {
            body.reserve_capacity(piece(left).len());
            let Some(capacity) = poll_fn(|cx| body.poll_capacity(cx)).await else { break };
            let next = piece(left.min(capacity? as u64));
            left -= next.len() as u64;
            body.send_data(Bytes::from_static(next), left == 0)?;
        }
        let response = response.await?;
        let location = response.headers().get("location").and_then(|value| value.to_str().ok()).map(path_of);
        let mut answer = Answer { status: response.status().as_u16(), location, bytes: 0 };
        let mut body = response.into_body();
        while let Some(data) = body.data().await {
            let length = data?.len();
            body.flow_control().release_capacity(length)?;
            answer.bytes += length as u64;
        }
        if left > 0 {
            return Err(format!("answered {} with {left} bytes to send", answer.status).into());
        }
        answer.checked()
    }
}
