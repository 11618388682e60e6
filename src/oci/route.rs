//! A request that was understood: [`Route`] and what can be asked of it.

use std::slice;

use super::action::{Access, Accesses, Action};
use super::kind::{Method, RouteKind};
use super::name::{Algorithm, Digest, MediaType, Reference, RepoName, SessionId, Tag, UploadState};
use super::query::append;

/// A registry request reduced to what the registry will act on.
///
/// Only [`route`](super::route()) makes one, so whoever holds a route holds validated parts. The request that goes upstream is
/// rebuilt from it; nothing else of the client's path and query survives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub(super) method: Method,
    pub(super) endpoint: Endpoint,
}

impl Route {
    /// The request's method.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// The endpoint with its typed parts.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Which endpoint this is, without its parts.
    #[must_use]
    pub fn kind(&self) -> RouteKind {
        match self.endpoint {
            Endpoint::Ping => RouteKind::Ping,
            Endpoint::Catalog { .. } => RouteKind::Catalog,
            Endpoint::Tags { .. } => RouteKind::Tags,
            Endpoint::Manifest { .. } => RouteKind::Manifest,
            Endpoint::Blob { .. } => RouteKind::Blob,
            Endpoint::UploadStart { .. } => RouteKind::UploadStart,
            Endpoint::Upload { .. } => RouteKind::Upload,
            Endpoint::Referrers { .. } => RouteKind::Referrers,
        }
    }

    /// The repository that the path names; none for ping and catalog.
    #[must_use]
    pub fn repository(&self) -> Option<&RepoName> {
        match &self.endpoint {
            Endpoint::Ping | Endpoint::Catalog { .. } => None,
            Endpoint::Tags { repository, .. }
            | Endpoint::Manifest { repository, .. }
            | Endpoint::Blob { repository, .. }
            | Endpoint::UploadStart { repository, .. }
            | Endpoint::Upload { repository, .. }
            | Endpoint::Referrers { repository, .. } => Some(repository),
        }
    }

    /// What the access record names beside the repository: tag, digest or upload session.
    #[must_use]
    pub fn reference(&self) -> Option<&str> {
        match &self.endpoint {
            Endpoint::Ping | Endpoint::Catalog { .. } | Endpoint::Tags { .. } => None,
            Endpoint::Manifest { reference, .. } => Some(reference.as_str()),
            Endpoint::Blob { digest, .. } | Endpoint::Referrers { digest, .. } => Some(digest.as_str()),
            Endpoint::UploadStart { mount, digest, .. } => {
                mount.as_ref().map(|mount| &mount.digest).or(digest.as_ref()).map(Digest::as_str)
            }
            Endpoint::Upload { session, .. } => Some(session.as_str()),
        }
    }

    /// The main action; `None` for a ping, which needs no right.
    #[must_use]
    pub fn action(&self) -> Option<Action> {
        match (&self.endpoint, self.method) {
            (Endpoint::Ping, _) => None,
            (Endpoint::Catalog { .. }, _) => Some(Action::Catalog),
            // Asking after an upload, or cancelling it, is part of pushing.
            (Endpoint::UploadStart { .. } | Endpoint::Upload { .. }, _)
            | (_, Method::Post | Method::Put | Method::Patch) => Some(Action::Push),
            (_, Method::Get | Method::Head) => Some(Action::Pull),
            (_, Method::Delete) => Some(Action::Delete),
        }
    }

    /// Every right that the request needs; all of them must be allowed.
    ///
    /// A cross-repository mount needs two: push to the target and a right to the source. Without the second a client could
    /// read a private layer by mounting it into a repository of its own.
    #[must_use]
    pub fn accesses(&self) -> Accesses<'_> {
        let Some(action) = self.action() else { return Accesses::none() };
        let main = Access { action, repository: self.repository(), tags: self.written_tags() };
        match self.mount() {
            Some(mount) => {
                Accesses::two(main, Access { action: Action::MountFrom, repository: Some(&mount.from), tags: &[] })
            }
            None => Accesses::one(main),
        }
    }

    /// The tags that the request lets name a manifest: the last segment of the path, or those beside a digest.
    #[must_use]
    pub fn pushed_tags(&self) -> &[Tag] {
        if self.method == Method::Put { self.written_tags() } else { &[] }
    }

    /// Whether it asks for a blob's content.
    #[must_use]
    pub fn is_download(&self) -> bool {
        self.method == Method::Get && matches!(self.endpoint, Endpoint::Blob { .. })
    }

    /// The mount that an upload asks for.
    #[must_use]
    pub fn mount(&self) -> Option<&Mount> {
        match &self.endpoint {
            Endpoint::UploadStart { mount, .. } => mount.as_ref(),
            _ => None,
        }
    }

    /// Whether the request would mount a blob of another repository.
    #[must_use]
    pub fn has_mount(&self) -> bool {
        self.mount().is_some()
    }

    /// The same request with `mount` and `from` dropped, for a mount that was refused.
    ///
    /// The upload then starts normally and the client sends the layer, which it may. A 403 would break pushes that
    /// otherwise work: docker tries mounts on its own initiative.
    #[must_use]
    pub fn without_mount(mut self) -> Self {
        if let Endpoint::UploadStart { mount, .. } = &mut self.endpoint {
            *mount = None;
        }
        self
    }

    /// Whether the request may carry a body at all.
    #[must_use]
    pub fn takes_body(&self) -> bool {
        matches!(self.method, Method::Post | Method::Put | Method::Patch)
    }

    /// Whether this is an upload, on which bodies of type `application/x-www-form-urlencoded` and `multipart/form-data`
    /// must be refused.
    ///
    /// Registries read `mount` and `from` out of such a body, and prefer it to the query: the authorized request would
    /// not be the one that is carried out.
    #[must_use]
    pub fn is_upload(&self) -> bool {
        matches!(self.kind(), RouteKind::UploadStart | RouteKind::Upload)
    }

    /// Path and query for the upstream, in one canonical spelling, built from the typed parts only.
    #[must_use]
    pub fn target(&self) -> String {
        let mut target = String::with_capacity(256);
        self.append_path(&mut target);
        let mut separator = '?';
        self.endpoint.for_each_parameter(|key, value| append(&mut target, &mut separator, key, value));
        target
    }

    /// The part of [`target`](Self::target) that its accesses follow from: the path, what is to be mounted and the tags
    /// that are set. Pages, digests of content and the state of an upload are left out.
    #[must_use]
    pub fn deciding_target(&self) -> String {
        let mut target = String::with_capacity(128);
        self.append_path(&mut target);
        let mut separator = '?';
        self.endpoint.for_each_parameter(|key, value| {
            if matches!(key, "mount" | "from" | "tag") {
                append(&mut target, &mut separator, key, value);
            }
        });
        target
    }

    fn append_path(&self, target: &mut String) {
        target.push_str("/v2/");
        if let Some(repository) = self.repository() {
            target.push_str(repository.as_str());
        }
        self.endpoint.append_tail(target);
    }

    fn written_tags(&self) -> &[Tag] {
        match (&self.endpoint, self.method) {
            (Endpoint::Manifest { reference, tags, .. }, Method::Put | Method::Delete) => match reference {
                Reference::Tag(tag) => slice::from_ref(tag),
                Reference::Digest(_) => tags,
            },
            _ => &[],
        }
    }
}

/// Path of the manifest that a tag names.
#[must_use]
pub fn tag_target(repository: &RepoName, tag: &Tag) -> String {
    format!("/v2/{repository}/manifests/{tag}")
}

/// An endpoint of the registry API with its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v2/`: the version check, which clients use to see whether they get in.
    Ping,
    /// `/v2/_catalog`.
    Catalog {
        /// The page asked for; `last` is a repository name.
        page: Page<RepoName>,
    },
    /// `<name>/tags/list`.
    Tags {
        /// Whose tags.
        repository: RepoName,
        /// The page asked for.
        page: Page<Tag>,
    },
    /// `<name>/manifests/<reference>`.
    Manifest {
        /// Where the manifest is.
        repository: RepoName,
        /// Tag or digest.
        reference: Reference,
        /// Tags that a push by digest sets beside; empty otherwise.
        tags: Vec<Tag>,
    },
    /// `<name>/blobs/<digest>`.
    Blob {
        /// Where the blob is.
        repository: RepoName,
        /// Which blob.
        digest: Digest,
    },
    /// `<name>/blobs/uploads/`.
    UploadStart {
        /// Where the blob goes.
        repository: RepoName,
        /// A blob of another repository to link instead of an upload.
        mount: Option<Mount>,
        /// The digest of a blob that comes whole with this request.
        digest: Option<Digest>,
        /// The algorithm that will name the blob.
        algorithm: Option<Algorithm>,
    },
    /// `<name>/blobs/uploads/<session>`.
    Upload {
        /// Where the blob goes.
        repository: RepoName,
        /// The running upload.
        session: SessionId,
        /// distribution's signed progress; an upload cannot go on without it.
        state: Option<UploadState>,
        /// The digest that completes the upload; only on PUT.
        digest: Option<Digest>,
        /// What the client shows to prove that the session is its own, as it came. It goes no further.
        binding: Option<Box<str>>,
    },
    /// `<name>/referrers/<digest>`.
    Referrers {
        /// Where the subject is.
        repository: RepoName,
        /// The subject.
        digest: Digest,
        /// Only referrers of this type.
        artifact_type: Option<MediaType>,
    },
}

impl Endpoint {
    fn append_tail(&self, target: &mut String) {
        let (tail, last) = match self {
            Self::Ping => ("", ""),
            Self::Catalog { .. } => ("_catalog", ""),
            Self::Tags { .. } => ("/tags/list", ""),
            Self::Manifest { reference, .. } => ("/manifests/", reference.as_str()),
            Self::Blob { digest, .. } => ("/blobs/", digest.as_str()),
            Self::UploadStart { .. } => ("/blobs/uploads/", ""),
            Self::Upload { session, .. } => ("/blobs/uploads/", session.as_str()),
            Self::Referrers { digest, .. } => ("/referrers/", digest.as_str()),
        };
        target.push_str(tail);
        target.push_str(last);
    }

    fn for_each_parameter(&self, mut add: impl FnMut(&str, &str)) {
        let mut add_some = |key, value: Option<&str>| {
            if let Some(value) = value {
                add(key, value);
            }
        };
        match self {
            Self::Ping | Self::Blob { .. } => {}
            Self::Catalog { page } => {
                add_some("n", page.n.map(|n| n.to_string()).as_deref());
                add_some("last", page.last.as_ref().map(RepoName::as_str));
            }
            Self::Tags { page, .. } => {
                add_some("n", page.n.map(|n| n.to_string()).as_deref());
                add_some("last", page.last.as_ref().map(Tag::as_str));
            }
            Self::Manifest { tags, .. } => tags.iter().for_each(|tag| add_some("tag", Some(tag.as_str()))),
            Self::UploadStart { mount, digest, algorithm, .. } => {
                add_some("mount", mount.as_ref().map(|mount| mount.digest.as_str()));
                add_some("from", mount.as_ref().map(|mount| mount.from.as_str()));
                add_some("digest", digest.as_ref().map(Digest::as_str));
                add_some("digest-algorithm", algorithm.map(Algorithm::as_str));
            }
            // The binding is between the client and the gateway.
            Self::Upload { state, digest, .. } => {
                add_some("_state", state.as_ref().map(UploadState::as_str));
                add_some("digest", digest.as_ref().map(Digest::as_str));
            }
            Self::Referrers { artifact_type, .. } => {
                add_some("artifactType", artifact_type.as_ref().map(MediaType::as_str));
            }
        }
    }
}

/// A blob that an upload would link from another repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The blob.
    pub digest: Digest,
    /// The repository that has it, from which the client must be allowed to pull or to mount.
    pub from: RepoName,
}

/// A page of a list: at most `n` entries after `last`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// Entries at most, from 1; `None` leaves the choice to the registry.
    pub n: Option<u32>,
    /// The last entry of the page before.
    pub last: Option<T>,
}
