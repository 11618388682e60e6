//! Closed enums whose variants are metric labels, record values and array indices at once.

use crate::oci::RouteKind;

/// A value from a set that is known at compile time, which is the only kind a metric may be labelled with.
///
/// Anything a client can choose (a subject, a repository, a path) would let it create series without end and
/// would show identities to whoever reads `/metrics`.
pub trait Label: Copy + 'static {
    /// Every value, in the order of [`index`](Label::index).
    const ALL: &'static [Self];

    /// The value as metrics and records spell it: `snake_case`, stable across releases.
    fn as_str(self) -> &'static str;

    /// The position in [`ALL`](Label::ALL), for tables of handles resolved in advance.
    fn index(self) -> usize;

    /// What the value means: its documentation in the source, which docs/metrics.md repeats.
    #[cfg(test)]
    fn about(self) -> &'static str;
}

/// Declares an enum together with its spelling, so that a variant cannot exist without a label.
macro_rules! labels {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $($(#[doc = $doc:literal])+ $variant:ident = $text:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl $name {
            /// Every variant, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The variant as metrics and records spell it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl $crate::telemetry::Label for $name {
            const ALL: &'static [Self] = Self::ALL;

            fn as_str(self) -> &'static str {
                self.as_str()
            }

            fn index(self) -> usize {
                self as usize
            }

            #[cfg(test)]
            fn about(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc,)+).trim_ascii(),)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}
pub(super) use labels;

labels! {
    /// The kind of route as a label, with a value for requests that were refused before they had one.
    pub enum RouteLabel {
        /// No route was found: the head was malformed or names nothing the registry API has.
        None = "none",
        /// `/v2/`.
        Ping = "ping",
        /// `/v2/_catalog`.
        Catalog = "catalog",
        /// `tags/list` of a repository.
        Tags = "tags",
        /// `manifests/<reference>`.
        Manifest = "manifest",
        /// `blobs/<digest>`.
        Blob = "blob",
        /// `blobs/uploads/`, where uploads and mounts start.
        UploadStart = "upload_start",
        /// `blobs/uploads/<session>`.
        Upload = "upload",
        /// `referrers/<digest>`.
        Referrers = "referrers",
    }
}

impl From<Option<RouteKind>> for RouteLabel {
    fn from(kind: Option<RouteKind>) -> Self {
        match kind {
            None => Self::None,
            Some(RouteKind::Ping) => Self::Ping,
            Some(RouteKind::Catalog) => Self::Catalog,
            Some(RouteKind::Tags) => Self::Tags,
            Some(RouteKind::Manifest) => Self::Manifest,
            Some(RouteKind::Blob) => Self::Blob,
            Some(RouteKind::UploadStart) => Self::UploadStart,
            Some(RouteKind::Upload) => Self::Upload,
            Some(RouteKind::Referrers) => Self::Referrers,
        }
    }
}

labels! {
    /// The request method as a label; a client may send any token as its method.
    pub enum MethodLabel {
        /// `GET`.
        Get = "GET",
        /// `HEAD`.
        Head = "HEAD",
        /// `POST`.
        Post = "POST",
        /// `PUT`.
        Put = "PUT",
        /// `PATCH`.
        Patch = "PATCH",
        /// `DELETE`.
        Delete = "DELETE",
        /// Everything else, lower-case spellings included: methods are case-sensitive (RFC 9110 §9.1).
        Other = "other",
    }
}

impl From<&str> for MethodLabel {
    fn from(method: &str) -> Self {
        match method {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            _ => Self::Other,
        }
    }
}

labels! {
    /// The first digit of the status the client got.
    pub enum StatusClass {
        /// No status was sent before the request ended.
        None = "none",
        /// 100 to 199.
        Informational = "1xx",
        /// 200 to 299.
        Success = "2xx",
        /// 300 to 399, storage redirects among them.
        Redirect = "3xx",
        /// 400 to 499.
        ClientError = "4xx",
        /// 500 to 599.
        ServerError = "5xx",
    }
}

impl From<Option<u16>> for StatusClass {
    fn from(status: Option<u16>) -> Self {
        match status {
            Some(100..=199) => Self::Informational,
            Some(200..=299) => Self::Success,
            Some(300..=399) => Self::Redirect,
            Some(400..=499) => Self::ClientError,
            Some(500..=599) => Self::ServerError,
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::shadow::ShadowResult;
    use crate::telemetry::{
        AdminRefusal, CertificateKind, DigestCheck, EndReason, Fate, HandshakeResult, HttpVersion, LimitKind, Outcome,
        RedirectResult, ReloadResult, SharedFault, Unanswered, UpgradeResult, UpstreamFault,
    };

    fn assert_closed<L: Label>() {
        let mut seen = std::collections::HashSet::new();
        for (position, label) in L::ALL.iter().enumerate() {
            assert_eq!(label.index(), position);
            assert!(seen.insert(label.as_str()), "{} is spelt twice", label.as_str());
            assert!(!label.as_str().is_empty());
        }
    }

    #[test]
    fn labels_are_distinct_and_indexed_by_declaration() {
        assert_closed::<RouteLabel>();
        assert_closed::<MethodLabel>();
        assert_closed::<StatusClass>();
        assert_closed::<HttpVersion>();
        assert_closed::<Outcome>();
        assert_closed::<HandshakeResult>();
        assert_closed::<EndReason>();
        assert_closed::<LimitKind>();
        assert_closed::<SharedFault>();
        assert_closed::<Unanswered>();
        assert_closed::<UpstreamFault>();
        assert_closed::<ReloadResult>();
        assert_closed::<ShadowResult>();
        assert_closed::<UpgradeResult>();
        assert_closed::<CertificateKind>();
        assert_closed::<AdminRefusal>();
        assert_closed::<Fate>();
        assert_closed::<DigestCheck>();
        assert_closed::<RedirectResult>();
    }

    #[test]
    fn route_labels_are_spelt_like_the_routes() {
        for kind in RouteKind::ALL {
            assert_eq!(RouteLabel::from(Some(kind)).as_str(), kind.as_str());
        }
    }

    #[test]
    fn what_a_client_invents_falls_into_other() {
        assert_eq!(MethodLabel::from("get"), MethodLabel::Other);
        assert_eq!(MethodLabel::from("BREW"), MethodLabel::Other);
        assert_eq!(StatusClass::from(Some(999)), StatusClass::None);
        assert_eq!(StatusClass::from(Some(418)), StatusClass::ClientError);
    }
}
