//! Refusals in the words of the OCI Distribution Specification ("Error Codes").

use std::borrow::Cow;
use std::fmt;

use serde_json::{Value, json};

/// An error code that registry clients understand.
///
/// The choice matters beyond the text: docker does not retry `UNAUTHORIZED`, `DENIED`, `UNSUPPORTED`,
/// `TOOMANYREQUESTS` and `NAME_UNKNOWN`, while it repeats anything with a 5xx status for minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Credentials are missing or wrong. 401.
    Unauthorized,
    /// The client is known and may not. 403.
    Denied,
    /// A limit was reached. 429.
    TooManyRequests,
    /// The operation does not exist here. 405.
    Unsupported,
    /// The registry cannot be reached. 503.
    Unavailable,
    /// The repository name, path or query is malformed. 400.
    NameInvalid,
    /// A digest is malformed or does not match. 400.
    DigestInvalid,
    /// A length does not match. 400.
    SizeInvalid,
    /// A tag is malformed. 400.
    TagInvalid,
    /// A manifest, or a question about one, is malformed. 400.
    ManifestInvalid,
    /// `n` is not a number in range. 400.
    PaginationNumberInvalid,
    /// No such repository or endpoint. 404.
    NameUnknown,
    /// No such manifest. 404.
    ManifestUnknown,
    /// No such blob. 404.
    BlobUnknown,
    /// No such upload. 404.
    BlobUploadUnknown,
    /// The upload cannot go on. 404.
    BlobUploadInvalid,
    /// The requested range does not fit. 416.
    RangeInvalid,
}

impl ErrorCode {
    /// Every code, for tables and tests.
    pub const ALL: [Self; 17] = [
        Self::Unauthorized,
        Self::Denied,
        Self::TooManyRequests,
        Self::Unsupported,
        Self::Unavailable,
        Self::NameInvalid,
        Self::DigestInvalid,
        Self::SizeInvalid,
        Self::TagInvalid,
        Self::ManifestInvalid,
        Self::PaginationNumberInvalid,
        Self::NameUnknown,
        Self::ManifestUnknown,
        Self::BlobUnknown,
        Self::BlobUploadUnknown,
        Self::BlobUploadInvalid,
        Self::RangeInvalid,
    ];

    /// The code as it stands in the error body.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unsupported => "UNSUPPORTED",
            Self::Unavailable => "UNAVAILABLE",
            Self::NameInvalid => "NAME_INVALID",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::TagInvalid => "TAG_INVALID",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::RangeInvalid => "RANGE_INVALID",
        }
    }

    /// The HTTP status that distribution sends with the code.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Unauthorized => 401,
            Self::Denied => 403,
            Self::TooManyRequests => 429,
            Self::Unsupported => 405,
            Self::Unavailable => 503,
            Self::NameInvalid
            | Self::DigestInvalid
            | Self::SizeInvalid
            | Self::TagInvalid
            | Self::ManifestInvalid
            | Self::PaginationNumberInvalid => 400,
            Self::NameUnknown
            | Self::ManifestUnknown
            | Self::BlobUnknown
            | Self::BlobUploadUnknown
            | Self::BlobUploadInvalid => 404,
            Self::RangeInvalid => 416,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a request has no route. The message is meant for the client and never repeats its input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct RouteError {
    /// The OCI code; its [`ErrorCode::status`] is the answer's status.
    pub code: ErrorCode,
    /// What is wrong, in words for the person at the client.
    pub message: Cow<'static, str>,
    /// The `Allow` header that a 405 must carry (RFC 9110 §15.5.6).
    pub allow: Option<&'static str>,
}

impl RouteError {
    pub(super) fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), allow: None }
    }
}

impl From<super::name::NameError> for RouteError {
    fn from(error: super::name::NameError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// The body of a refusal: `{"errors":[{"code","message","detail"}]}`, `detail` only when there is one.
///
/// Text is escaped as JSON, so a name from a certificate in `message` stays one string.
#[must_use]
pub fn body(code: ErrorCode, message: &str, detail: Option<Value>) -> String {
    let mut error = json!({ "code": code.as_str(), "message": message });
    if let (Some(detail), Some(fields)) = (detail, error.as_object_mut()) {
        fields.insert("detail".to_owned(), detail);
    }
    json!({ "errors": [error] }).to_string()
}
