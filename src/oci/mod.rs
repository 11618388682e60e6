//! What a registry request asks for: method, path and query become a [`Route`], a route becomes [`Access`]es.
//!
//! Registries are generous readers. They decode `%2f` in paths, redirect `..` away, take form values from bodies, and
//! drop what they don't understand. A gateway that reads a request in one way while the registry reads it in another
//! can be walked around, so this module accepts exactly one spelling of everything, refuses the rest, and
//! [`Route::target`] rebuilds the request from the typed parts: the registry never sees a byte that was not parsed
//! here.
//!
//! The module is pure. It knows no HTTP library, no policy and no identity.
//!
//! References: OCI Distribution Specification 1.1, and `distribution/reference` for the grammar of names.

mod action;
mod catalog;
mod error;
mod kind;
mod name;
mod parse;
mod query;
mod route;
#[cfg(test)]
mod tests;

pub use action::{Access, Accesses, Action};
pub use catalog::{MalformedLink, catalog_body, catalog_names, catalog_target, next_cursor};
pub use error::{ErrorCode, RouteError, body};
pub use kind::{Method, RouteKind};
pub use name::{Algorithm, Digest, MediaType, NameError, Reference, RepoName, SessionId, Tag, UploadState};
pub use parse::route;
pub use query::BINDING;
pub use route::{Endpoint, Mount, Page, Route, tag_target};

pub(crate) use name::is_path_component;
