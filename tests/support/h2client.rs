//! A well-behaved HTTP/2 client.

use super::reply::Reply;
use super::tls::{ALPN_H2, PATIENCE, Tls};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// One HTTP/2 connection, driven in the background.
pub struct H2 {
    runtime: Arc<Runtime>,
    sender: SendRequest<Bytes>,
    ended: Arc<Mutex<Option<String>>>,
}

/// A request under way: its body may still be sent while the answer arrives.
pub struct Exchange {
    runtime: Arc<Runtime>,
    send: SendStream<Bytes>,
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
}

impl H2 {
    /// # Errors
    /// When TLS, ALPN or the preface fail.
    pub fn connect(tls: &Tls) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|e| e.to_string())?;
        let tls = tls.clone().alpn(ALPN_H2);
        let (sender, connection) = runtime.block_on(within(async {
            let stream = tls.connect_async().await?;
            if stream.ssl().selected_alpn_protocol() != Some(b"h2") {
                return Err("the gateway did not choose h2".to_owned());
            }
            h2::client::Builder::new()
                .initial_window_size(1 << 20)
                .initial_connection_window_size(4 << 20)
                .handshake::<_, Bytes>(stream)
                .await
                .map_err(|e| e.to_string())
        }))?;
        let ended = Arc::new(Mutex::new(None));
        let end = Arc::clone(&ended);
        runtime.spawn(async move {
            let how = connection.await.map_or_else(|e| e.to_string(), |()| "closed".to_owned());
            if let Ok(mut end) = end.lock() {
                *end = Some(how);
            }
        });
        Ok(Self { runtime: Arc::new(runtime), sender, ended })
    }

    /// Opens a stream; `last` ends the request with its head.
    ///
    /// # Errors
    /// When the library can't express the request, or the connection is gone.
    pub fn open(&mut self, method: &str, path: &str, headers: &[(&str, &str)], last: bool) -> Result<Exchange, String> {
        let authority = headers.iter().find(|(name, _)| *name == ":authority").map_or("gw.test", |(_, value)| *value);
        let mut request = http::Request::builder().method(method).uri(format!("https://{authority}{path}"));
        for (name, value) in headers.iter().filter(|(name, _)| !name.starts_with(':')) {
            request = request.header(*name, *value);
        }
        let request = request.body(()).map_err(|e| e.to_string())?;
        let sender = self.sender.clone();
        self.runtime.block_on(within(async {
            let mut ready = sender.ready().await.map_err(|e| e.to_string())?;
            let (response, send) = ready.send_request(request, last).map_err(|e| e.to_string())?;
            Ok(Exchange { runtime: Arc::clone(&self.runtime), send, response: Some(response), body: None })
        }))
    }

    /// Sends a whole request and reads the whole answer.
    ///
    /// # Errors
    /// The reset or connection error.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Reply, String> {
        let mut exchange = self.open(method, path, headers, body.is_empty())?;
        if !body.is_empty() {
            // An early answer resets what is left of the body; the answer is what counts.
            let _ = exchange.send(Bytes::copy_from_slice(body), true);
        }
        exchange.reply()
    }

    #[track_caller]
    pub fn get(&mut self, path: &str) -> Reply {
        self.request("GET", path, &[], b"").unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    /// How the connection ended, if it does within `limit`.
    pub fn ended_within(&self, limit: Duration) -> Option<String> {
        let end = Instant::now() + limit;
        loop {
            let how = self.ended.lock().ok()?.clone();
            if how.is_some() || Instant::now() > end {
                return how;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Exchange {
    /// Sends a part of the body as fast as the peer's window lets it.
    ///
    /// # Errors
    /// When the stream was reset.
    pub fn send(&mut self, mut data: Bytes, last: bool) -> Result<(), String> {
        let send = &mut self.send;
        self.runtime.block_on(within(async {
            while !data.is_empty() {
                send.reserve_capacity(data.len());
                let room = match poll_fn(|cx| send.poll_capacity(cx)).await {
                    Some(room) => room.map_err(|e| e.to_string())?,
                    None => return Err("the stream is closed".to_owned()),
                };
                let part = data.split_to(room.min(data.len()));
                let end = last && data.is_empty();
                send.send_data(part, end).map_err(|e| e.to_string())?;
            }
            Ok(())
        }))
    }

    /// Cancels the stream.
    pub fn reset(&mut self) {
        self.send.send_reset(h2::Reason::CANCEL);
    }

    /// Waits for the head of the answer.
    ///
    /// # Errors
    /// The reset or connection error, or a second call.
    pub fn head(&mut self) -> Result<Reply, String> {
        let response = self.response.take().ok_or("the head was read already")?;
        let answer = self.runtime.block_on(within(async { response.await.map_err(|e| e.to_string()) }))?;
        let (parts, body) = answer.into_parts();
        self.body = Some(body);
        let headers = parts
            .headers
            .iter()
            .map(|(n, v)| (n.as_str().to_owned(), String::from_utf8_lossy(v.as_bytes()).into_owned()))
            .collect();
        Ok(Reply { status: parts.status.as_u16(), headers, body: Vec::new() })
    }

    /// The next part of the answer's body, `None` at its end.
    ///
    /// # Errors
    /// The reset or connection error.
    pub fn part(&mut self) -> Result<Option<Bytes>, String> {
        let body = self.body.as_mut().ok_or("the head comes first")?;
        self.runtime.block_on(within(async {
            match body.data().await {
                None => Ok(None),
                Some(Err(e)) => Err(e.to_string()),
                Some(Ok(part)) => {
                    let _ = body.flow_control().release_capacity(part.len());
                    Ok(Some(part))
                }
            }
        }))
    }

    /// Reads the rest of the answer.
    ///
    /// # Errors
    /// As [`Exchange::head`].
    pub fn reply(mut self) -> Result<Reply, String> {
        let mut reply = self.head()?;
        while let Some(part) = self.part()? {
            reply.body.extend_from_slice(&part);
        }
        Ok(reply)
    }
}

async fn within<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| Err("no progress in time".to_owned()))
}
