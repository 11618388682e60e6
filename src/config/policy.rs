//! The policy file as it is written. [`crate::policy::compile`] checks it and makes the policy that decides.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

pub mod cases;
mod groups;
mod limits;

pub use groups::GroupsFile;
pub use limits::{LimitFile, PerFile, RateFile, VolumeFile};
mod when;

pub use when::{Day, HoursFile, LifetimeFile, WhenFile};

/// Who may do what to which repositories.
///
/// What no rule allows is refused, so an empty policy lets nobody in (except for the version check `/v2/`). A rule that
/// denies wins over every rule that allows, wherever the two stand in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// Named sets of clients. A client belongs to a group when one of the group's selectors describes it. Names are
    /// letters, digits, `_` and `-`; `any` is taken: it means every client with a verified certificate.
    #[serde(default)]
    pub groups: BTreeMap<String, Vec<SelectorFile>>,
    /// A directory with more groups: each file in it whose name ends in `.yaml` or `.yml` has a key `groups` as this file
    /// has one. Hidden files and directories are passed over. A relative path starts at this file's directory.
    pub groups_directory: Option<PathBuf>,
    /// What the groups may do. The order only matters for which of several matching rules a decision names: the first.
    #[serde(default)]
    pub rules: Vec<RuleFile>,
    /// How much clients may ask for.
    #[serde(default)]
    pub limits: Vec<LimitFile>,
    /// Tags that stay what they are from the moment they exist: for everybody, whatever rules allow.
    ///
    /// Such a tag can be pushed once. It can be neither overwritten nor deleted, and nothing can be deleted by digest in a
    /// repository with such tags, since that removes every tag that points there. Left out are the tags under which clients
    /// keep the list of a manifest's referrers (`sha256-` and 64 hexadecimal digits; OCI distribution spec, "Referrers Tag
    /// Schema").
    #[serde(default)]
    pub immutable_tags: Vec<ImmutableTagsFile>,
}

/// Tags of some repositories that can't be changed once they exist.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImmutableTagsFile {
    /// Repositories as patterns, like those of a rule, without placeholders.
    pub repositories: Vec<String>,
    /// Their tags, as patterns in which `*` stands for any run of characters.
    pub tags: Vec<String>,
    /// Tags among them that can be changed all the same.
    #[serde(default)]
    pub except: Vec<String>,
}

/// A description of clients by their certificate. All keys that are given must hold; at least one is needed.
///
/// In a subject, an issuer, a DNS name, an email address and the path of a URI, a name in braces keeps what stands in its
/// place: `spiffe://corp.example/team/{team}/*` keeps a segment, which rules for the group then have as `${team}`.
///
/// Names are compared exactly, by type: a pattern for a DNS name never looks at a common name. Where a certificate has
/// several names of one type, one of them has to match, with two exceptions. A certificate with several common names
/// (or user ids, or serial numbers) has none, and one with several URIs has no SPIFFE ID. A rule that denies takes each
/// of them into account, so that a second name can't be used to slip past it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SelectorFile {
    /// Attributes of the certificate's subject, by short name: `CN`, `O`, `OU`, `L`, `ST`, `C`, `DC`, `UID`,
    /// `emailAddress`, `serialNumber`. `*` stands for any run of characters.
    pub subject: Option<BTreeMap<String, String>>,
    /// Attributes of the issuer's name, like `subject`. Worth giving where the CA bundle holds several authorities: it
    /// keeps one from issuing the names of another's clients.
    pub issuer: Option<BTreeMap<String, String>>,
    /// A DNS name of the certificate. `*` stands for one label or a part of it: `*.ci.example.com`. Case doesn't
    /// matter.
    pub dns: Option<String>,
    /// A URI of the certificate, a SPIFFE ID for instance. In the path `*` stands for one segment or a part of it and
    /// `**` for any number of segments: `spiffe://corp.example/ns/*/sa/ci`.
    pub uri: Option<String>,
    /// An email address of the certificate. `*` stands for any run of characters before the `@`, and for one label or a
    /// part of it after: `*@example.com`. Case matters before the `@` only.
    pub email: Option<String>,
    /// An IP address of the certificate, or a network that holds it: `10.0.0.0/8`. This is not the address that the
    /// client connects from.
    pub ip: Option<String>,
    /// SHA-256 of the certificate: `sha256:` and 64 hexadecimal digits, with or without colons. It changes at every
    /// renewal.
    pub fingerprint: Option<String>,
    /// SHA-256 of the certificate's public key (its `SubjectPublicKeyInfo` in DER), like `fingerprint`. It stays when
    /// the certificate is renewed with the same key.
    pub spki: Option<String>,
}

/// One rule: these clients, these repositories, these actions.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleFile {
    /// A unique name, by which refusals and access records call the rule.
    pub name: String,
    /// Groups, or `any` for every client with a verified certificate.
    pub subjects: Vec<String>,
    /// Repositories as patterns: `*` stands for one segment of the name or a part of it, `**` for any number of
    /// segments, also none. `team-a/**` is `team-a` and everything below it, and never `team-a-evil`.
    ///
    /// A placeholder stands for a value of the client's certificate, in a segment with neither `*` nor a second
    /// placeholder: `${subject.cn}` (likewise `o`, `ou`, `l`, `st`, `c`, `dc`, `uid`, `serialnumber`), `${san.dns}`,
    /// `${san.dns.label[0]}`, `${san.uri.host}`, `${san.uri.path[0]}`, `${san.email.local}`, `${san.email.domain}`. The
    /// certificate must have exactly one such name, and the value must be one segment of a repository name (lower case,
    /// no `/`). Else a rule that allows doesn't match, and a rule that denies matches whatever the segment holds.
    ///
    /// `${team}` stands for what the selectors of the rule's groups have captured as `{team}`; each of them must. Where they
    /// have captured different values of one client, there is none.
    ///
    /// Needed, unless the only action is `catalog`, which concerns no repository.
    pub repositories: Option<Vec<String>>,
    /// What the rule is about.
    pub actions: Vec<ActionName>,
    /// Whether matching requests are allowed or denied.
    pub effect: Effect,
    /// Only these tags, as patterns in which `*` stands for any run of characters. For `push`, `overwrite` and `delete`
    /// only: a pull by digest carries no tag, so tags can't protect pulls.
    ///
    /// Blobs, and manifests pushed by digest, have no tag and are pushed under any rule that allows a push to the
    /// repository. A delete by digest removes every tag of the manifest, so it needs a rule without `tags`, and any
    /// rule denies it that denies the deletion of some tags there.
    pub tags: Option<Vec<String>>,
    /// Only under these circumstances. All that are given must hold.
    pub when: Option<WhenFile>,
}

/// Something that a client can be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ActionName {
    /// Read manifests, blobs, tag lists and referrers.
    Pull,
    /// Upload blobs and manifests, and create tags. Clients look before they push, so `pull` is needed too. A rule that
    /// denies it denies `overwrite` as well.
    Push,
    /// Push to a tag that exists. The blobs of a push need `push`.
    Overwrite,
    /// Use the layers of a repository in another one, by a mount, without being able to read it otherwise. `pull` includes
    /// it. A rule that denies one of the two denies mounts.
    MountFrom,
    /// Delete manifests, tags and blobs.
    Delete,
    /// List the registry's repositories.
    Catalog,
}

/// What a rule does to the requests that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Lets them through, unless another rule denies them.
    Allow,
    /// Refuses them, whatever other rules allow.
    Deny,
}
