//! Every way a handshake, a request and a connection can end.

use log::Level;

use super::label::labels;

labels! {
    /// How a request ended. Recorded once, as a metric label and in the access record.
    pub enum Outcome {
        /// The upstream's answer was delivered whole, whatever its status.
        Proxied = "proxied",
        /// The gateway answered with something of its own that is not a refusal, such as a filtered catalog.
        Answered = "answered",
        /// No rule of the policy allowed it, or one denied it.
        Denied = "denied",
        /// It would have written, and the configuration lets nothing be written at the moment.
        ReadOnly = "read_only",
        /// Another push of the same tag didn't end in time, or Redis doesn't say whether there is one.
        TagBusy = "tag_busy",
        /// The request has no single reading: framing, path, query or headers.
        Malformed = "malformed",
        /// A well-formed request for something the registry API doesn't have, or with a method it doesn't have.
        Unsupported = "unsupported",
        /// Addressed to a host this connection doesn't stand for.
        Misdirected = "misdirected",
        /// The head or the body exceeds a limit.
        TooLarge = "too_large",
        /// A limit of the policy has no room for it, or the client asks for the catalog too often at a time.
        Limited = "limited",
        /// A limit applies to it, and the Redis that counts gave no answer.
        LimitsUnavailable = "limits_unavailable",
        /// The client's certificate has been revoked since the handshake.
        Revoked = "revoked",
        /// Whether the client's certificate is revoked can't be known: the list is missing or out of date.
        RevocationUnknown = "revocation_unknown",
        /// The client's certificate, or one of its path, has expired since the handshake.
        Expired = "expired",
        /// The client's certificate no longer leads to a trusted anchor.
        Untrusted = "untrusted",
        /// No address of the upstream is healthy, or its name doesn't resolve.
        UpstreamUnavailable = "upstream_unavailable",
        /// The upstream's limit of connections and waiting requests is reached.
        UpstreamBusy = "upstream_busy",
        /// No connection to the upstream could be made, its TLS handshake included.
        UpstreamConnect = "upstream_connect",
        /// The upstream stayed silent for too long.
        UpstreamTimeout = "upstream_timeout",
        /// The upstream broke off, or answered what isn't HTTP.
        UpstreamError = "upstream_error",
        /// It would have gone on, but the audit log can't be written.
        AuditUnavailable = "audit_unavailable",
        /// The upstream sent the client to a host that the configuration doesn't name.
        RedirectRefused = "redirect_refused",
        /// The upstream's content is not what its digest names; the client got none of it whole.
        DigestMismatch = "digest_mismatch",
        /// The request took longer than any may.
        LifetimeExceeded = "lifetime_exceeded",
        /// The client closed the connection or reset the stream.
        ClientAborted = "client_aborted",
        /// The client stayed silent for too long in the middle of its request.
        ClientTimeout = "client_timeout",
        /// The client sent its request, or took its answer, more slowly than it may, or took nothing at all.
        ClientTooSlow = "client_too_slow",
        /// The connection was ended because the client flooded it with what moves nothing.
        ClientFlood = "client_flood",
        /// The connection was cut in the middle of the transfer because the client's certificate was revoked.
        ConnectionRevoked = "connection_revoked",
        /// The connection was cut in the middle of the transfer because the client's certificate expired.
        ConnectionExpired = "connection_expired",
        /// The connection was cut in the middle of the transfer because its trust anchor was removed.
        ConnectionUntrusted = "connection_untrusted",
        /// The gateway left before the transfer was done.
        Shutdown = "shutdown",
        /// A fault of the gateway itself.
        Internal = "internal",
    }
}

impl Outcome {
    /// Whether the gateway turned the request away because of what it is or who sent it, rather than for want of
    /// something.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        !matches!(
            self,
            Self::Proxied
                | Self::Answered
                | Self::AuditUnavailable
                | Self::LimitsUnavailable
                | Self::UpstreamUnavailable
                | Self::UpstreamBusy
                | Self::UpstreamConnect
                | Self::UpstreamTimeout
                | Self::UpstreamError
                | Self::Internal
        )
    }

    /// The level at which the gateway's own log mentions a request that ended so.
    ///
    /// Each request has its record; the log is for an operator. What every client can cause at will is at `debug`.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::Proxied
            | Self::LifetimeExceeded
            | Self::Answered
            | Self::Denied
            | Self::ReadOnly
            | Self::TagBusy
            | Self::Malformed
            | Self::Unsupported
            | Self::Misdirected
            | Self::TooLarge
            | Self::Limited
            | Self::LimitsUnavailable
            | Self::ClientAborted
            | Self::ClientTimeout
            | Self::ClientTooSlow
            | Self::ClientFlood
            | Self::Shutdown => Level::Debug,
            Self::Revoked
            | Self::RevocationUnknown
            | Self::Expired
            | Self::Untrusted
            | Self::ConnectionRevoked
            | Self::ConnectionExpired
            | Self::ConnectionUntrusted => Level::Info,
            Self::AuditUnavailable
            | Self::UpstreamUnavailable
            | Self::UpstreamBusy
            | Self::UpstreamConnect
            | Self::UpstreamTimeout
            | Self::UpstreamError
            | Self::RedirectRefused => Level::Warn,
            // Content was changed somewhere between its push and here.
            Self::DigestMismatch | Self::Internal => Level::Error,
        }
    }
}

/// The outcome of a request that was under way when its connection ended.
impl From<EndReason> for Outcome {
    fn from(reason: EndReason) -> Self {
        match reason {
            EndReason::Revoked => Self::ConnectionRevoked,
            EndReason::RevocationUnknown => Self::RevocationUnknown,
            EndReason::Expired => Self::ConnectionExpired,
            EndReason::Untrusted => Self::ConnectionUntrusted,
            EndReason::Shutdown => Self::Shutdown,
            EndReason::ClientClosed | EndReason::ProtocolError => Self::ClientAborted,
            EndReason::IdleTimeout | EndReason::HeadTimeout => Self::ClientTimeout,
            EndReason::TooSlow => Self::ClientTooSlow,
            EndReason::TlsFault
            | EndReason::ResetFlood
            | EndReason::SettingsFlood
            | EndReason::PingFlood
            | EndReason::PriorityFlood
            | EndReason::WindowUpdateFlood
            | EndReason::EmptyFrameFlood
            | EndReason::ContinuationFlood
            | EndReason::UnknownFrameFlood
            | EndReason::Http2Excess => Self::ClientFlood,
            // A complete exchange closes its connection only after the request has been recorded; a request that
            // is still open at that point was lost by the gateway.
            EndReason::Complete | EndReason::Internal => Self::Internal,
        }
    }
}

labels! {
    /// How a TLS handshake ended.
    pub enum HandshakeResult {
        /// A full handshake with a verified client certificate.
        Established = "established",
        /// An earlier session was resumed, and its certificate is still good.
        Resumed = "resumed",
        /// The client sent no certificate.
        NoCertificate = "no_certificate",
        /// The certificate doesn't lead to a trusted anchor, a self-signed one included.
        UnknownCa = "unknown_ca",
        /// A certificate of the path has expired.
        Expired = "expired",
        /// A certificate of the path is not valid yet.
        NotYetValid = "not_yet_valid",
        /// A certificate of the path is revoked.
        Revoked = "revoked",
        /// The revocation list of an issuer is missing or out of date, and the configuration requires one.
        RevocationUnknown = "revocation_unknown",
        /// A signature on the path, or the client's proof that it holds the key, is wrong.
        BadSignature = "bad_signature",
        /// Key usage or extended key usage doesn't permit client authentication.
        WrongUsage = "wrong_usage",
        /// A CA certificate was presented as the client's own.
        CaAsLeaf = "ca_as_leaf",
        /// The path is longer than its constraints or the configuration permit, or an issuer in it is no CA.
        BadPath = "bad_path",
        /// A name violates the name constraints of an issuer.
        NameConstraints = "name_constraints",
        /// A signature on the path uses SHA-1 or older.
        WeakSignature = "weak_signature",
        /// A key of the path is too short or of an unsuitable kind.
        WeakKey = "weak_key",
        /// An X.509 v1 certificate, which can't carry the extensions that limit its use.
        Version1 = "version_1",
        /// The certificate holds an extension twice.
        DuplicateExtension = "duplicate_extension",
        /// No name in the certificate is fit to be an identity.
        NoUsableName = "no_usable_name",
        /// The certificate can't be parsed.
        MalformedCertificate = "malformed_certificate",
        /// The certificates sent exceed the configured size.
        CertificateTooLarge = "certificate_too_large",
        /// No TLS version, cipher suite, group or signature scheme in common.
        NothingInCommon = "nothing_in_common",
        /// The client ended the handshake by an alert: most often it doesn't trust the server's certificate.
        ClientAlert = "client_alert",
        /// The bytes are not a TLS handshake, plain HTTP for example.
        Protocol = "protocol",
        /// A load balancer's connection doesn't begin with a header of the PROXY protocol.
        ProxyHeaderMissing = "proxy_header_missing",
        /// The header of a load balancer's connection is broken, too long or for another transport than TCP.
        ProxyHeaderMalformed = "proxy_header_malformed",
        /// The client closed the connection, or it broke.
        Disconnected = "disconnected",
        /// The handshake took too long.
        Timeout = "timeout",
        /// The client sent more than a handshake needs.
        TooManyBytes = "too_many_bytes",
        /// There are as many connections as there may be.
        TooManyConnections = "too_many_connections",
        /// There are as many connections from this address as there may be.
        TooManyOfAddress = "too_many_of_address",
        /// There are as many connections of this client as there may be.
        TooManyOfIdentity = "too_many_of_identity",
        /// There are as many handshakes under way as there may be.
        TooManyHandshakes = "too_many_handshakes",
        /// There are as many handshakes under way from this address as there may be.
        TooManyHandshakesOfAddress = "too_many_handshakes_of_address",
        /// A fault of the gateway itself.
        Internal = "internal",
    }
}

impl HandshakeResult {
    /// Whether the handshake gave a connection.
    #[must_use]
    pub const fn is_ok(self) -> bool {
        matches!(self, Self::Established | Self::Resumed)
    }

    /// The level at which the gateway's own log mentions a handshake that ended so.
    ///
    /// A refused handshake has no access record. Those in which a certificate was refused are at `info`, since they
    /// are what an operator looks for when a client can't get in; what scanners and TCP probes leave is at `debug`.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::Established
            | Self::Resumed
            | Self::Protocol
            | Self::Disconnected
            | Self::Timeout
            | Self::TooManyBytes
            | Self::TooManyConnections
            | Self::TooManyOfAddress
            | Self::TooManyHandshakes
            | Self::TooManyHandshakesOfAddress => Level::Debug,
            Self::Internal => Level::Error,
            _ => Level::Info,
        }
    }
}

labels! {
    /// Why a connection ended.
    pub enum EndReason {
        /// The last exchange was complete and asked for the connection to be closed.
        Complete = "complete",
        /// The client closed it, or it broke.
        ClientClosed = "client_closed",
        /// Nothing happened on it for too long.
        IdleTimeout = "idle_timeout",
        /// A request head was not complete in time.
        HeadTimeout = "head_timeout",
        /// The client broke the protocol so that the connection couldn't go on.
        ProtocolError = "protocol_error",
        /// The client sent or took a body more slowly than it may.
        TooSlow = "too_slow",
        /// TLS records that are broken, or too many that carry nothing: empty ones, warnings, key updates.
        TlsFault = "tls_fault",
        /// Too many HTTP/2 streams were reset, by the client or because of what it sent.
        ResetFlood = "reset_flood",
        /// Too many HTTP/2 SETTINGS.
        SettingsFlood = "settings_flood",
        /// Too many HTTP/2 PINGs.
        PingFlood = "ping_flood",
        /// Too many HTTP/2 PRIORITY frames.
        PriorityFlood = "priority_flood",
        /// Too many HTTP/2 WINDOW_UPDATEs for what was sent.
        WindowUpdateFlood = "window_update_flood",
        /// Too many HTTP/2 frames without a byte in them.
        EmptyFrameFlood = "empty_frame_flood",
        /// Too many HTTP/2 CONTINUATIONs.
        ContinuationFlood = "continuation_flood",
        /// Too many HTTP/2 frames of no use.
        UnknownFrameFlood = "unknown_frame_flood",
        /// The HTTP/2 library had enough: a head without end, resets before their requests were looked at, tiny frames.
        Http2Excess = "http2_excess",
        /// The client's certificate was revoked.
        Revoked = "revoked",
        /// The revocation list of an issuer on the client's path ran out.
        RevocationUnknown = "revocation_unknown",
        /// A certificate of the client's path expired.
        Expired = "expired",
        /// The trust anchor of the client's path was removed.
        Untrusted = "untrusted",
        /// The gateway is leaving.
        Shutdown = "shutdown",
        /// A fault of the gateway itself.
        Internal = "internal",
    }
}

impl EndReason {
    /// The variant at a position in [`EndReason::ALL`], the inverse of [`Label::index`](super::Label::index).
    ///
    /// For a reason that is handed between threads as a number in an atomic.
    #[must_use]
    pub fn from_index(index: usize) -> Option<Self> {
        Self::ALL.get(index).copied()
    }

    /// Whether the gateway ended the connection of its own accord because the client lost its right to it.
    #[must_use]
    pub const fn is_withdrawal(self) -> bool {
        matches!(self, Self::Revoked | Self::RevocationUnknown | Self::Expired | Self::Untrusted)
    }
}

labels! {
    /// What went wrong between the gateway and an upstream.
    pub enum UpstreamFault {
        /// The name doesn't resolve and no earlier answer is kept.
        Resolve = "resolve",
        /// Every address is marked unhealthy.
        Unhealthy = "unhealthy",
        /// The limit of connections and waiting requests is reached.
        Busy = "busy",
        /// The connection was refused or could not be made in time.
        Connect = "connect",
        /// The TLS handshake failed, or the certificate isn't the upstream's.
        Tls = "tls",
        /// No answer began within the first-byte timeout.
        FirstByteTimeout = "first_byte_timeout",
        /// The transfer stalled for longer than the idle timeout.
        IdleTimeout = "idle_timeout",
        /// The upstream closed the connection before its answer was complete.
        Closed = "closed",
        /// The answer isn't HTTP, or breaks its framing.
        Protocol = "protocol",
        /// The storage that a redirect was followed to answered without content.
        Storage = "storage",
        /// A health check failed.
        HealthCheck = "health_check",
    }
}

labels! {
    /// What of a limit a request ran into.
    pub enum LimitKind {
        /// Requests in a time.
        Requests = "requests",
        /// Manifests asked for in a time.
        ManifestPulls = "manifest_pulls",
        /// Bytes in a time.
        Bytes = "bytes",
        /// Uploads at a time.
        ConcurrentUploads = "concurrent_uploads",
    }
}

labels! {
    /// Why the Redis that replicas share gave no answer.
    pub enum SharedFault {
        /// There is no connection, or it broke.
        Connect = "connect",
        /// It took too long.
        Timeout = "timeout",
        /// It answered with an error.
        Answer = "answer",
    }
}

labels! {
    /// What became of a request that could not be counted.
    pub enum Unanswered {
        /// The gateway counted it alone.
        Allowed = "allowed",
        /// It was refused.
        Refused = "refused",
    }
}

labels! {
    /// How an attempt to load everything anew ended.
    pub enum ReloadResult {
        /// A new generation is in force.
        Published = "published",
        /// A file is at fault; the last good generation stays in force.
        Failed = "failed",
    }
}

labels! {
    /// How an attempt to hand over to a successor ended.
    pub enum UpgradeResult {
        /// The successor serves, and this process drains.
        HandedOver = "handed_over",
        /// The successor could not start; this process goes on.
        Failed = "failed",
    }
}

labels! {
    /// The HTTP version a client speaks.
    pub enum HttpVersion {
        /// HTTP/1.0.
        Http10 = "HTTP/1.0",
        /// HTTP/1.1.
        Http11 = "HTTP/1.1",
        /// HTTP/2.
        Http2 = "HTTP/2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Label as _;

    #[test]
    fn reasons_survive_the_way_through_a_number() {
        for reason in EndReason::ALL {
            assert_eq!(EndReason::from_index(reason.index()), Some(*reason));
        }
        assert_eq!(EndReason::from_index(EndReason::ALL.len()), None);
    }

    #[test]
    fn a_transfer_cut_for_lost_rights_is_told_from_a_refused_request() {
        let cut: Vec<_> =
            EndReason::ALL.iter().filter(|reason| reason.is_withdrawal()).map(|r| Outcome::from(*r)).collect();
        assert!(!cut.contains(&Outcome::Revoked));
        assert!(cut.contains(&Outcome::ConnectionRevoked));
    }

    #[test]
    fn what_clients_cause_at_will_stays_below_warn() {
        for outcome in
            [Outcome::Denied, Outcome::ReadOnly, Outcome::TagBusy, Outcome::Malformed, Outcome::ClientAborted]
        {
            assert_eq!(outcome.level(), Level::Debug);
        }
        for result in HandshakeResult::ALL.iter().filter(|result| **result != HandshakeResult::Internal) {
            assert!(result.level() > Level::Warn);
        }
    }
}
