//! The limits of a policy file as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::units::{ByteSize, HumanDuration};

/// How much some clients may ask for. Whoever is within a limit's `subjects` is held to it, whatever other limits say:
/// all that apply must have room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitFile {
    /// A unique name of letters, digits, `_`, `.` and `-`, by which refusals, records and metrics call the limit.
    pub name: String,
    /// Groups, or `any` for every client with a verified certificate. A client of which can't be said whether it is in a
    /// group, because its certificate is ambiguous, counts as a member.
    pub subjects: Vec<String>,
    /// Groups that the limit is not about, although `subjects` holds them.
    #[serde(default)]
    pub except: Vec<String>,
    /// Whether each client has the whole of it, or each group of `subjects` together (with `any`, all clients together).
    #[serde(default)]
    pub per: PerFile,
    /// Requests that the policy allows, of any kind.
    pub requests: Option<RateFile>,
    /// Manifests that are asked for by GET. HEAD counts nothing and is never refused. Both are answered with
    /// `ratelimit-limit` and `ratelimit-remaining`, as Docker Hub has them.
    pub manifest_pulls: Option<RateFile>,
    /// Bytes of bodies in both directions. A transfer that has begun is not cut; the next waits until there is room again.
    pub bytes: Option<VolumeFile>,
    /// Requests under way that write blobs. An upload between two of its requests takes no place.
    #[schemars(range(min = 1))]
    pub concurrent_uploads: Option<u32>,
}

/// Whose a limit is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PerFile {
    /// Each client's: of a name from an issuer, whatever certificate it shows.
    #[default]
    Identity,
    /// Each group's, all its members together.
    Group,
}

/// So many in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateFile {
    /// How many; all at once if there was a pause before. They come back evenly, one after each fraction of the window.
    #[schemars(range(min = 1))]
    pub count: u64,
    /// The time, in whole seconds: `1m`, `6h`.
    pub window: HumanDuration,
}

/// So many bytes in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeFile {
    /// How many: `10GiB`.
    pub size: ByteSize,
    /// The time, in whole seconds.
    pub window: HumanDuration,
}
