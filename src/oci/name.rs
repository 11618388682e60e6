//! The words of the registry API. Each type has one parser and cannot hold anything outside its grammar.

use std::fmt;

use super::error::ErrorCode;

/// Longest tag, in bytes (OCI Distribution Specification, "Pulling manifests").
const MAX_TAG: usize = 128;
/// Longest upload session identifier, in bytes. Registries use UUIDs of 36; some append opaque text.
const MAX_SESSION: usize = 256;
/// Longest `_state` of an upload, in bytes. distribution signs name, session, offset and start time: about 600.
const MAX_STATE: usize = 4096;
/// Longest half of a media type, in bytes (RFC 6838 §4.2).
const MAX_MEDIA_TYPE_NAME: usize = 127;

/// Why a word of the API was refused. The text may be shown to the client: it never repeats what the client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Outside the grammar of repository names.
    #[error(
        "repository name must be lower-case letters and digits, separated by single '.', '_', '__' or dashes, \
         in components separated by '/'"
    )]
    Repository,
    /// A repository name that registries cannot hold.
    #[error("repository name is longer than {} characters", RepoName::MAX_LENGTH)]
    RepositoryTooLong,
    /// Outside the grammar of tags.
    #[error("tag must be 1 to {MAX_TAG} letters, digits, '_', '.' or '-', and start with none of the last two")]
    Tag,
    /// Not `sha256:` with 64 or `sha512:` with 128 lower-case hexadecimal digits.
    #[error("digest must be sha256: or sha512: followed by its lower-case hexadecimal digits")]
    Digest,
    /// An algorithm other than sha256 and sha512.
    #[error("digest algorithm must be sha256 or sha512")]
    Algorithm,
    /// Outside the grammar of upload session identifiers.
    #[error("upload session is malformed")]
    Session,
    /// Not an unpadded or padded base64url text of reasonable length.
    #[error("upload state is malformed")]
    UploadState,
    /// Not `type/subtype` of RFC 6838.
    #[error("media type is malformed (a '+' in a query means a space: write %2B)")]
    MediaType,
}

impl NameError {
    /// The code that registries use for this mistake.
    #[must_use]
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Repository | Self::RepositoryTooLong => ErrorCode::NameInvalid,
            Self::Tag => ErrorCode::TagInvalid,
            Self::Digest | Self::Algorithm => ErrorCode::DigestInvalid,
            Self::Session | Self::UploadState => ErrorCode::BlobUploadInvalid,
            Self::MediaType => ErrorCode::ManifestInvalid,
        }
    }
}

macro_rules! word {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// The text as registries spell it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

word! {
    /// A repository name such as `team-a/app`, at most 255 characters.
    ///
    /// Registries route upper case and decode percent signs; both would give one repository several names, so the
    /// grammar of `distribution/reference` is enforced here.
    RepoName
}

impl RepoName {
    /// Longest name, in bytes: the limit of `distribution/reference`, beyond which registry 2.8 answers 500.
    pub const MAX_LENGTH: usize = 255;

    /// Parses a whole repository name.
    ///
    /// # Errors
    /// [`NameError::Repository`] outside the grammar, [`NameError::RepositoryTooLong`] beyond 255 characters.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.len() > Self::MAX_LENGTH {
            return Err(NameError::RepositoryTooLong);
        }
        if text.split('/').all(is_path_component) { Ok(Self(text.into())) } else { Err(NameError::Repository) }
    }
}

word! {
    /// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
    Tag
}

impl Tag {
    /// Parses a tag.
    ///
    /// # Errors
    /// [`NameError::Tag`] outside the grammar.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let well_formed = text.len() <= MAX_TAG
            && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric() || first == b'_')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
        if well_formed { Ok(Self(text.into())) } else { Err(NameError::Tag) }
    }
}

word! {
    /// A content digest, `sha256:` or `sha512:` with lower-case hexadecimal digits.
    Digest
}

impl Digest {
    /// Parses a digest. Other algorithms are refused: what the gateway cannot verify it does not route.
    ///
    /// # Errors
    /// [`NameError::Algorithm`] for an unknown algorithm, [`NameError::Digest`] for any other mistake.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (algorithm, encoded) = text.split_once(':').ok_or(NameError::Digest)?;
        let length = Algorithm::parse(algorithm)?.hex_length();
        let lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if encoded.len() == length && encoded.bytes().all(lower_hex) {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Digest)
        }
    }

    /// By what the content is hashed.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        if self.0.starts_with("sha512:") { Algorithm::Sha512 } else { Algorithm::Sha256 }
    }

    /// The hash in lower-case hexadecimal.
    #[must_use]
    pub fn encoded(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, encoded)| encoded)
    }
}

word! {
    /// The identifier of a running upload: `[a-zA-Z0-9-_.=]+`, at most 256 characters, and no dot segment.
    SessionId
}

impl SessionId {
    /// Parses a session identifier.
    ///
    /// # Errors
    /// [`NameError::Session`] outside the grammar. `.` and `..` fit the registries' grammar but are refused:
    /// whatever resolves them would leave the upload's path.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'=');
        let well_formed = !text.is_empty() && text.len() <= MAX_SESSION && text.bytes().all(allowed);
        if well_formed && text != "." && text != ".." { Ok(Self(text.into())) } else { Err(NameError::Session) }
    }
}

word! {
    /// The `_state` with which distribution signs an upload's progress: base64url, opaque to the gateway.
    UploadState
}

impl UploadState {
    /// Parses the text after percent-decoding.
    ///
    /// # Errors
    /// [`NameError::UploadState`] outside base64url or longer than 4096 characters.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'=');
        let well_formed = !text.is_empty() && text.len() <= MAX_STATE && text.bytes().all(allowed);
        if well_formed { Ok(Self(text.into())) } else { Err(NameError::UploadState) }
    }
}

word! {
    /// A media type without parameters, as `artifactType` holds it (RFC 6838 §4.2).
    MediaType
}

impl MediaType {
    /// Parses `type/subtype`.
    ///
    /// # Errors
    /// [`NameError::MediaType`] outside the grammar of restricted names.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let restricted_name = |name: &str| {
            name.len() <= MAX_MEDIA_TYPE_NAME
                && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
        };
        match text.split_once('/') {
            Some((kind, subtype)) if restricted_name(kind) && restricted_name(subtype) => Ok(Self(text.into())),
            _ => Err(NameError::MediaType),
        }
    }
}

/// A digest algorithm that registries and the gateway can verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// SHA-256, what practically all content uses.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// Parses `sha256` or `sha512`.
    ///
    /// # Errors
    /// [`NameError::Algorithm`] for anything else.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            _ => Err(NameError::Algorithm),
        }
    }

    /// The name as it stands before the colon of a digest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// What a manifest is asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A movable name.
    Tag(Tag),
    /// The content itself. It carries no tag, so no tag rule can protect it.
    Digest(Digest),
}

impl Reference {
    /// Parses a reference. A tag cannot hold a colon and a digest must, so the two never overlap.
    ///
    /// # Errors
    /// The error of [`Digest::parse`] when there is a colon, else that of [`Tag::parse`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.contains(':') { Digest::parse(text).map(Self::Digest) } else { Tag::parse(text).map(Self::Tag) }
    }

    /// The tag or digest as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tag(tag) => tag.as_str(),
            Self::Digest(digest) => digest.as_str(),
        }
    }
}

/// Whether `text` is one component of a repository name: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
///
/// The policy asks the same of a value taken from a certificate before it may stand in a repository pattern.
pub(crate) fn is_path_component(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut rest = text.as_bytes();
    loop {
        let word = rest.iter().take_while(|byte| alphanumeric(**byte)).count();
        if word == 0 {
            return false;
        }
        rest = rest.get(word..).unwrap_or_default();
        if rest.is_empty() {
            return true;
        }
        let separator = rest.iter().take_while(|byte| !alphanumeric(**byte)).count();
        let (between, tail) = rest.split_at(separator);
        if !matches!(between, b"." | b"_" | b"__") && between.iter().any(|byte| *byte != b'-') {
            return false;
        }
        rest = tail;
    }
}
