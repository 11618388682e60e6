//! The closed sets of the registry API: its endpoints and methods.

/// The endpoints of the registry API as a closed set, for metric labels and access records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// The version check.
    Ping,
    /// The list of repositories.
    Catalog,
    /// The list of a repository's tags.
    Tags,
    /// A manifest by tag or digest.
    Manifest,
    /// A blob by digest.
    Blob,
    /// The start of an upload, or a mount.
    UploadStart,
    /// A running upload.
    Upload,
    /// The list of a manifest's referrers.
    Referrers,
}

impl RouteKind {
    /// All kinds, in the order of their declaration.
    pub const ALL: [Self; 8] = [
        Self::Ping,
        Self::Catalog,
        Self::Tags,
        Self::Manifest,
        Self::Blob,
        Self::UploadStart,
        Self::Upload,
        Self::Referrers,
    ];

    /// The metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Catalog => "catalog",
            Self::Tags => "tags",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::UploadStart => "upload_start",
            Self::Upload => "upload",
            Self::Referrers => "referrers",
        }
    }

    /// The methods that the endpoint takes, as the value of an `Allow` header.
    #[must_use]
    pub fn allow(self) -> &'static str {
        match self {
            Self::Ping => "GET, HEAD",
            Self::Catalog | Self::Tags | Self::Referrers => "GET",
            Self::Manifest => "GET, HEAD, PUT, DELETE",
            Self::Blob => "GET, HEAD, DELETE",
            Self::UploadStart => "POST",
            Self::Upload => "GET, HEAD, PATCH, PUT, DELETE",
        }
    }
}

/// A method that the registry API uses. Names are case-sensitive (RFC 9110 §9.1): `get` is no method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
}

impl Method {
    /// Parses the exact, upper-case name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete]
            .into_iter()
            .find(|method| method.as_str() == name)
    }

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}
