//! The real registry as an upstream.

use super::body::{Framing, pieces};
use super::http1::Http1;
use super::process::{Process, find};
use super::{Bench, Outcome};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Debian's `docker-registry`, with one manifest and one blob in it.
pub struct Registry {
    pub address: SocketAddr,
    /// The blob's path.
    pub blob: String,
    _process: Process,
}

impl Registry {
    /// Starts it on the clients' cores and fills it; `None` where there is none.
    ///
    /// # Errors
    /// When it doesn't start, or refuses what is pushed.
    pub async fn start(bench: &Bench) -> Outcome<Option<Self>> {
        let Some(binary) = find("REGISTRY", &["docker-registry", "registry"]) else { return Ok(None) };
        let directory = bench.directory("registry")?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: \
             {}}}, cache: {{blobdescriptor: inmemory}}}}\nhttp: {{addr: \"{address}\"}}\n",
            directory.join("storage").display()
        );
        fs::write(directory.join("config.yml"), config)?;
        let command = [binary, "serve".to_owned(), "config.yml".to_owned()];
        let environment = [("OTEL_TRACES_EXPORTER", "none")];
        let mut process = Process::start(&command, &directory, bench.options.client_cores(), &environment)?;
        let end = Instant::now() + Duration::from_secs(20);
        let stream = loop {
            match TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(e) if Instant::now() > end || !process.is_running() => {
                    return Err(format!("docker-registry did not start: {e}").into());
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let blob = fill(&mut Http1::over(stream), bench.options.blob_bytes()).await?;
        Ok(Some(Self { address, blob, _process: process }))
    }
}

/// Pushes an image of one layer and returns the layer's path.
async fn fill(connection: &mut Http1<TcpStream>, length: u64) -> Outcome<String> {
    let mut hash = Sha256::new();
    for piece in pieces(length) {
        hash.update(piece);
    }
    let layer = format!("sha256:{}", HEXLOWER.encode(&hash.finalize()));
    let session = connection.open_upload("/v2/app/blobs/uploads/").await?;
    connection.upload("PUT", &closing(&session, &layer), length, Framing::Length).await?;
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let config_digest = format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(config)));
    let session = connection.open_upload("/v2/app/blobs/uploads/").await?;
    connection.put(&closing(&session, &config_digest), "application/octet-stream", config).await?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": kind,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": config.len(), "digest": config_digest},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "size": length, "digest": layer}],
        "annotations": {"filled": "m".repeat(900)},
    });
    connection.put("/v2/app/manifests/latest", kind, manifest.to_string().as_bytes()).await?;
    Ok(format!("/v2/app/blobs/{layer}"))
}

fn closing(session: &str, digest: &str) -> String {
    let mark = if session.contains('?') { '&' } else { '?' };
    format!("{session}{mark}digest={digest}")
}
